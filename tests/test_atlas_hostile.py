"""Atlases come from anyone: what is wrong in one is named, left out or refused in a sentence, and leads nowhere."""

import io
import json
import os
import struct
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from test_atlas import own, planned, run

from phosphene import InputError
from phosphene.atlas import plan as atlas_plan
from phosphene.atlas import rows
from phosphene.atlas import work as atlas_work
from phosphene.atlas.site_data import to_script
from phosphene.atlas.store import Store
from phosphene.png import KEY


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An atlas of five classes, each with a film: as its files' names and bytes."""
    folder = tmp_path_factory.mktemp("made")
    store = planned(own(folder, "net", 0), folder / "a", layers=[], frames=2)
    atlas_work.run(store.place)
    return folder, {str(path.relative_to(store.root)): path.read_bytes() for path in Path(store.root).rglob("*.*")}


@pytest.fixture
def store(made, tmp_path):
    for name, data in made[1].items():
        path = tmp_path / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Store(tmp_path / "a")


FIRST = "images/classes/0000/00000.png"


def retold(data, change=lambda known, place: None):
    """An image's PNG that says something else of itself."""
    with Image.open(io.BytesIO(data)) as image:
        known, place = json.loads(image.text[KEY]), json.loads(image.text["phosphene-atlas"])
        change(known, place)
        info = PngImagePlugin.PngInfo()
        info.add_itxt(KEY, json.dumps(known))
        info.add_text("phosphene-atlas", json.dumps(place))
        buffer = io.BytesIO()
        image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def gigantic(data):
    """A PNG that claims a million pixels squared in its header."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
    return data[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def told(**places):
    return lambda data: retold(data, lambda known, place: place.update(places))


def known(**values):
    return lambda data: retold(data, lambda known, place: known.update(values))


def without(name):
    return lambda data: retold(data, lambda known, place: (known.pop(name, None), place.pop(name, None)))


def foreign(data):
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data[:40], foreign, gigantic,
        lambda data: b"%!PS-Adobe-3.0 EPSF-3.0\n" + data, told(index=1), told(group="0"), told(facet=1),
        told(index="0"), told(index=-1), told(index=True), told(index=10**30), told(group=["classes"]),
        told(group="classes\x1b[2J"), told(recipe=7), told(written="now"), told(seconds=None), told(curve="up"),
        told(curve=[1.0] * 10**4), told(film=7), told(film={"bytes": "many"}), told(film={"sha256": "0" * 64}),
        known(unit=5), known(label={}), known(seed=-1), known(scores=[]), known(steps="many"),
        known(network={"weights": 7}), known(network={}), without("label"), without("group"), without("written"),
    ],
)  # fmt: skip
def test_a_png_that_is_none_of_the_atlas_is_left_out_and_named_and_the_others_are_indexed(store, capsys, harm):
    path = Path(store.root, FIRST)
    path.write_bytes(harm(path.read_bytes()))
    rebuilt = store.rebuild()
    assert rebuilt.images == len(store.rows()) == 4
    assert list(rebuilt.left_out) == [FIRST]
    status, out, err = run(capsys, "index", store.place, "--json")
    assert status == 0
    assert json.loads(out[: out.rindex("}") + 1])["left_out"].keys() == {FIRST}
    assert err.count("\n") == 1
    assert FIRST in err
    assert "\x1b" not in err
    assert len(err) < 700


def test_names_links_and_pipes_that_no_atlas_has_are_left_out_and_named(store, tmp_path):
    folder = Path(store.root, "images/classes/0000")
    image = (folder / "00001.png").read_bytes()
    (folder / "00001 (copy).png").write_bytes(image)  # of another unit than its name says
    (folder / "00009.png").write_bytes(image)
    (folder / "letter.txt").write_text("dear")
    (tmp_path / "elsewhere.png").write_bytes(image)
    (folder / "00001.png").unlink()
    (folder / "00001.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "loop").symlink_to(folder)
    (folder / "deep").mkdir()
    (Path(store.root, "images/other")).symlink_to(folder.parent)
    os.mkfifo(folder / "00007.png")
    (folder / "00002.webp").unlink()
    os.mkfifo(folder / "00002.webp")  # a film that would be waited for
    clock = time.monotonic()
    rebuilt = store.rebuild()
    assert time.monotonic() - clock < 5
    assert [row["index"] for row in store.rows()] == [0, 3, 4]
    names = ("0000/00001.png", "0000/00001 (copy).png", "0000/00002.png", "0000/00007.png", "0000/00009.png")
    folders = ("0000/deep", "0000/letter.txt", "0000/loop")
    assert set(rebuilt.left_out) == {*(f"images/classes/{name}" for name in (*names, *folders)), "images/other"}


def test_a_link_in_an_atlas_leads_neither_reading_nor_writing_elsewhere(store, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "0000").mkdir(parents=True)
    classes = Path(store.root, "images/classes")
    classes.rename(tmp_path / "before")
    classes.symlink_to(elsewhere)
    assert store.rebuild().images == 0
    with pytest.raises(
        InputError, match=r"cannot be written: 'images/classes.*' is a symbolic link, and an atlas has none"
    ):
        atlas_work.run(store.place)
    assert list(elsewhere.rglob("*.*")) == []
    assert not Path(store.root, "claims").exists()


# The plan.

ABSURD = [
    ("facets", 0), ("facets", 10**9), ("facets", "1"), ("facets", True), ("facets", 1.0), ("seed", -1), ("seed", 2**70),
    ("seed", "x"), ("frames", -1), ("frames", 10**6), ("judges", "lite1"), ("judges", [1]), ("judges", ["x"] * 1000),
    ("network", 7), ("network", ""), ("network", "a\x1b[2Jb"), ("network", "n" * 10**6), ("weights", "zz"),
    ("weights", None), ("source", []), ("source", 3), ("groups", {}), ("groups", [3]), ("groups", None),
    ("format", "2"), ("format", 0), ("format", None), ("format", 1e300), ("more", 1),
    ("groups.name", 5), ("groups.name", ""), ("groups.name", "a\nb"), ("groups.indices", [-1]),
    ("groups.indices", [10**12]), ("groups.indices", ["0"]), ("groups.indices", [0, 0]), ("groups.indices", 5),
    ("groups.indices", [[0]]), ("groups.depth", -1), ("groups.depth", "deep"), ("groups.recipe", []),
    ("groups.recipe", {"steps": "many"}), ("groups.recipe", {"nosuch": 1}), ("groups.more", 1),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), ABSURD)
def test_a_plan_of_wrong_or_absurd_values_is_a_sentence(store, capsys, field, value):
    data = json.loads(store.read("atlas.json"))
    (data["groups"][0] if field.startswith("groups.") else data)[field.removeprefix("groups.")] = value
    Path(store.root, "atlas.json").write_text(json.dumps(data))
    for verb in ("status", "run", "index", "verify", "site"):
        status, _, err = run(capsys, verb, store.place)
        assert status == 2
        assert err.count("\n") == 1
        assert "\x1b" not in err
        assert len(err) < 1200


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 10**5, '{"format": 2}', '{"format": NaN}', "\x00", '{"format":' + "1" * 5000]
)
def test_a_plan_that_is_none_is_a_sentence(store, capsys, text):
    Path(store.root, "atlas.json").write_text(text)
    status, _, err = run(capsys, "status", store.place)
    assert status == 2
    assert err.count("\n") == 1


def test_groups_of_one_name_are_refused(store):
    data = json.loads(store.read("atlas.json"))
    data["groups"] *= 2
    with pytest.raises(InputError, match="expected groups of different names"):
        atlas_plan.AtlasPlan.from_json(json.dumps(data), "it")


def test_a_plan_of_units_that_the_network_lacks_is_a_sentence(store, capsys):
    data = json.loads(store.read("atlas.json"))
    data["groups"][0]["indices"].append(10**6)
    Path(store.root, "atlas.json").write_text(json.dumps(data))
    status, _, err = run(capsys, "site", store.place)
    assert status == 2
    assert err.count("\n") == 1


# The index.


def reindexed(store, change):
    (path,) = store.parts()
    table = change(pq.read_table(path))
    pq.write_table(table, path)


def replaced(name, values, kind=None):
    def change(table):
        place = table.column_names.index(name)
        return table.set_column(place, name, pa.array([values] * table.num_rows, kind))

    return change


WRONG = {
    "another schema": lambda table: pa.table({"a": [1]}),
    "no rows of a column": lambda table: table.drop(["file"]),
    "nulls": replaced("file", None, pa.string()),
    "a null index": replaced("index", None, pa.int64()),
    "text for a number": replaced("index", "0"),
    "a number for text": replaced("label", 3),
    "a fraction": replaced("index", 0.0),
    "a structure": replaced("curve", {"a": 1.0}),
    "a way up": replaced("file", "../../../etc/passwd"),
    "from the root": replaced("file", "/etc/passwd"),
    "another unit's": replaced("file", "images/classes/0000/00099.png"),
    "a film elsewhere": replaced("film", "../film.webp"),
    "a film from the root": replaced("film", "/etc/passwd"),
    "half a film": replaced("film_sha256", None, pa.string()),
    "a negative index": replaced("index", -1),
    "an endless label": replaced("label", "x" * 10**6),
    "no checksum": replaced("sha256", "abc"),
    "control characters": replaced("group", "a\x1b[2J"),
    "no time": replaced("written", float("nan")),
    "a long curve": replaced("curve", [0.0] * 10**4),
    "a share above all": lambda table: replaced("explanation_error", 0.1)(replaced("explanation", 1.5)(table)),
    "a share that is no number": replaced("mis", float("nan")),
    "a score without its error": replaced("explanation", 0.5),
    "an error alone": replaced("explanation_error", 0.1),
    "a cosine of two": replaced("clarity", 2.0),
    "an endless path": replaced("path_similarity", float("inf")),
    "a score in words": replaced("redundancy", "high"),
    "an endless judge": replaced("explanation_judges", "x" * 10**6),
    "fewer than no photographs": replaced("explanation_photographs", -1),
}


@pytest.mark.parametrize("harm", WRONG)
def test_a_part_of_an_index_that_is_none_is_a_sentence_and_the_index_can_be_made_again(store, capsys, harm):
    reindexed(store, WRONG[harm])
    for verb in ("status", "run", "verify", "site"):
        status, _, err = run(capsys, verb, store.place, *(["--plain"] if verb == "site" else []))
        assert status == 2
        assert err.count("\n") == 1
        assert "phosphene atlas index" in err
        assert "\x1b" not in err
        assert len(err) < 1200
    assert run(capsys, "index", store.place)[0] == 0
    assert len(store.rows()) == 5


def test_a_part_that_claims_a_thousand_million_rows_is_refused_before_they_are_read(store):
    kind = pa.schema([("group", pa.string()), ("index", pa.int64())])
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, kind) as writer:
        few = pa.table({"group": pa.array(["classes"] * 10**6), "index": pa.array([0] * 10**6)}, kind)
        for _ in range(5):
            writer.write_table(few)
    data = buffer.getvalue()
    assert len(data) < 10**5
    with pytest.raises(InputError, match="5000000 rows in"):
        rows.unpack_rows(data, "it")


def test_a_long_text_that_all_rows_share_is_not_written_out_for_each(store):
    label = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 10**6]))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"label": label}), buffer, compression="none")
    with pytest.raises(InputError, match="a text of over"):
        rows.unpack_rows(buffer.getvalue(), "it")


def test_what_an_index_says_in_words_is_shown_without_control_characters(store):
    reindexed(store, replaced("label", "a \x1b[2J\u202ecat"))
    assert {row["label"] for row in store.rows()} == {"a \\x1b[2J\\u202ecat"}


# The page.

LABEL = "</script><img src=x onerror=\"document.title='taken'\"><!--\u2028'"


def test_names_and_labels_stay_text_in_the_pages_data():
    written = to_script({"label": LABEL, "networks": [{"name": LABEL}], LABEL: [LABEL]})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written)["label"] == LABEL


def test_the_page_puts_no_text_into_html():
    page = Path(atlas_plan.__file__).parent / "page/app.js"
    code = page.read_text(encoding="utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert way not in code


def test_an_image_that_is_gone_is_a_sentence_for_the_page(store, capsys):
    Path(store.root, FIRST).unlink()
    status, _, err = run(capsys, "site", store.place, "--plain")
    assert status == 2
    assert err.count("\n") == 1
    assert FIRST in err
