import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import phosphene
from phosphene import InputError, Recipe
from phosphene.api import ascend as ascend_module
from phosphene.atlas import claims, missing
from phosphene.atlas import estimate as atlas_estimate
from phosphene.atlas import plan as atlas_plan
from phosphene.atlas import store as atlas_store
from phosphene.atlas import work as atlas_work
from phosphene.atlas import worker as atlas_worker
from phosphene.atlas.rows import file_name, film_name, key
from phosphene.atlas.status import hourly_rate, status
from phosphene.atlas.store import Store
from phosphene.atlas.worker import TaskResult, Worker
from phosphene.cli.program import main

NET = """
import torch
from torch import nn

def make():
    with torch.random.fork_rng():
        torch.manual_seed({seed})
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 40, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 5),
        )
"""


@pytest.fixture
def net(tmp_path):
    return own(tmp_path, "net", 0)


def own(tmp_path, name, seed):
    (tmp_path / f"{name}.py").write_text(NET.format(seed=seed))
    words = '["cat", "dog", "tabby cat", "horse", "sea horse"]'
    (tmp_path / f"{name}.toml").write_text(f"size = 24\nmean = 0.5\nstd = 0.25\nlabels = {words}\n")
    return f"{tmp_path / name}.py:make"


def planned(net, place, steps=2, **options):
    network = phosphene.open(net)
    recipe = Recipe.load("clip").override({"steps": steps, "optimizer.rate": 6.0, "optimizer.gradient": "rms"})
    options = {"classes": range(5), "layers": ["0", "3"], "recipe": recipe, "judges": []} | options
    store = Store(place)
    store.write_plan(make_plan(network, **options))
    return store


def make_plan(network, layers=(), classes=(), count=None, recipe=None, **options):
    groups = atlas_plan.make_groups(network, layers=layers, classes=classes, count=count, recipe=recipe)
    return atlas_plan.make_plan(network, groups, **options)


def images(store):
    return {path: Path(store.root, path).read_bytes() for path in (row["file"] for row in store.rows())}


def run(capsys, *arguments):
    status = main(["atlas", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_run_tells_how_far_the_images_in_work_are(net, tmp_path):
    store, told = planned(net, tmp_path / "a", layers=[]), []
    atlas_work.run(store.place, on_done=lambda done, total: told.append((done, total)))
    shares = [done for done, _ in told]
    assert shares[0] == 0
    assert shares[-1] == 5
    assert shares == sorted(shares)
    assert any(0 < share < 5 for share in shares)  # within the one piece
    assert {total for _, total in told} == {5}


def test_a_plan_that_takes_long_proposes_a_sample(net, tmp_path, monkeypatch, capsys):
    for seconds, proposed in ((299.0, False), (540.0, True)):
        monkeypatch.setattr(
            "phosphene.atlas.estimate.estimate", lambda *_, s=seconds, **__: atlas_estimate.Estimate(40, 80, s, 1)
        )
        store = planned(net, tmp_path / str(seconds))
        words = ["plan", store.place, "-n", store.plan().source["network"], "--layers", "3"]
        status, out, _ = run(capsys, *words)
        assert status == 0
        assert ("`--count 12`" in out) == proposed
    assert "about 9 minutes" in out


def test_a_run_makes_every_unit_of_the_plan_once(net, tmp_path):
    store = planned(net, tmp_path / "a")
    report = atlas_work.run(store.place)
    rows = store.rows()
    assert report.image_count == len(rows) == 5 + 8 + 40
    assert {row["group"] for row in rows} == {"classes", "0", "3"}
    for row in rows:
        data = Path(store.root, row["file"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (row["sha256"], row["bytes"])
        shown = phosphene.show(Path(store.root, row["file"]))
        assert (shown["unit"], shown["seed"], shown["steps"]) == (row["unit"], row["seed"], 2)
        assert 0 <= row["robustness"] <= 1
        assert (row["rank"] is None) == (row["group"] == "classes")
    assert atlas_work.run(store.place).image_count == 0
    (alone,) = phosphene.ascend(phosphene.open(net), "0:3", Recipe.from_dict(store.plan().groups[1].recipe))
    kept = next(row for row in rows if row["unit"] == "0:3")
    assert kept["objective"] == pytest.approx(alone.scores["objective"], rel=1e-3)


def test_runs_on_one_atlas_take_its_pieces_each_in_an_order_of_its_own(net, tmp_path, monkeypatch):
    """Else machines that begin together would make every piece together."""
    store = planned(net, tmp_path / "a")
    monkeypatch.setattr(missing, "LARGEST_BATCH", 1)
    orders = [[], []]
    for order in orders:
        monkeypatch.setattr(Worker, "make", lambda _, piece, __, order=order: (order.append(piece), TaskResult())[1])
        atlas_work.run(store.place)
    assert (
        sorted(orders[0], key=str)
        == sorted(orders[1], key=str)
        == sorted(missing.missing_work(store.plan(), []), key=str)
    )
    assert orders[0] != orders[1]


def test_facets_are_there_together_and_differ(net, tmp_path):
    store = planned(net, tmp_path / "a", classes=[1, 3], layers=[], facets=3)
    atlas_work.run(store.place)
    assert sorted(images(store)) == sorted(file_name("classes", index, facet) for index in (1, 3) for facet in range(3))
    assert len(set(images(store).values())) == 6
    assert {row["film"] for row in store.rows()} == {
        film_name("classes", i, facet) for i in (1, 3) for facet in range(3)
    }


def test_folders_hold_a_bounded_number_of_files():
    names = [file_name("a/b", index, 0) for index in range(2000)]
    folders = {os.path.dirname(name) for name in names}
    assert len(set(names)) == 2000
    assert max(sum(name.startswith(f"{folder}/") for name in names) for folder in folders) == 500


@pytest.mark.slow
def test_what_another_recipe_made_is_made_again_and_only_that(net, tmp_path):
    store = planned(net, tmp_path / "a", layers=["0"])
    atlas_work.run(store.place)
    before = images(store)
    plan = store.plan()
    other = Recipe.load("naive").override({"steps": 1})
    new = atlas_plan.merge_plans(plan, make_plan(phosphene.open(net), layers=["0"], recipe=other))
    store.write_plan(new)
    assert [group.name for group in new.groups] == ["classes", "0"]
    assert atlas_work.run(store.place).image_count == 8
    after = images(store)
    assert set(after) == set(before)
    changed = {path for path in after if after[path] != before[path]}
    assert changed == {row["file"] for row in store.rows() if row["group"] == "0"}


def test_a_plan_that_another_version_wrote_keeps_its_images_when_it_is_planned_again(net, tmp_path):
    plan = planned(net, tmp_path / "a", layers=["0"]).plan()
    written = [group.recipe | {"stop": group.recipe["stop"] | {"still": 0}} for group in plan.groups]
    older = replace(
        plan, groups=[replace(group, recipe=each) for group, each in zip(plan.groups, written, strict=True)]
    )
    again = atlas_plan.merge_plans(older, plan)
    assert [group.digest for group in again.groups] == [group.digest for group in older.groups]
    assert [group.digest for group in again.groups] != [group.digest for group in plan.groups]


@pytest.mark.slow
def test_the_index_is_made_again_from_the_images_alone(net, tmp_path, capsys):
    store = planned(net, tmp_path / "a")
    atlas_work.run(store.place)
    before = store.rows()
    for path in store.parts():
        os.unlink(path)
    (tmp_path / "a/images/classes/0000/stray.png").write_bytes(b"no image")
    assert store.rows() == []
    status, out, _ = run(capsys, "index", tmp_path / "a")
    assert status == 0
    assert f"{len(before)} images" in out
    assert store.rows() == before


def test_images_that_were_not_indexed_are_taken_up_and_not_made_again(net, tmp_path):
    store = planned(net, tmp_path / "a", layers=[])
    atlas_work.run(store.place)
    before = images(store)
    for path in store.parts():  # as if the process had been killed before it wrote the index
        os.unlink(path)
    assert atlas_work.run(store.place).image_count == 0
    assert images(store) == before


def told(store, row):
    """What an image shows, and what it says of itself but for the time it took."""
    with Image.open(Path(store.root, row["file"])) as image:
        return np.asarray(image), phosphene.show(Path(store.root, row["file"]))


@pytest.mark.slow
def test_frames_make_a_film_and_change_neither_the_image_nor_what_is_made_again(net, tmp_path, capsys):
    bare = planned(net, tmp_path / "bare", steps=7, layers=[], frames=0)
    store = planned(net, tmp_path / "a", steps=7, layers=[], frames=3)
    for each in (bare, store):
        assert atlas_work.run(each.place).image_count == 5
    assert not list((tmp_path / "bare").rglob("*.webp"))
    assert [group.digest for group in store.plan().groups] == [group.digest for group in bare.plan().groups]
    for row, plain in zip(store.rows(), bare.rows(), strict=True):
        (image, words), (same, same_words) = told(store, row), told(bare, plain)
        assert np.array_equal(image, same)
        assert words == same_words
        assert (plain["film"], plain["film_bytes"]) == (None, None)
        assert (row["film_frames"], row["film_every"]) == (3, 3)
        data = store.read(row["film"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["film_bytes"], row["film_sha256"])
        with Image.open(io.BytesIO(data)) as film:
            assert (film.format, film.size) == ("WEBP", (3 * 24, 24))
            last = np.asarray(film.convert("RGB").crop((48, 0, 72, 24)), float)
        assert np.corrcoef(last.ravel(), image.ravel())[0, 1] > 0.5  # the image, as well as WebP has it
    # An atlas that is asked for films later has them of what is made from then on.
    run(capsys, "plan", bare.place, "--layers", "0", "--count", "2", "--frames", "4", "-n", net, "--steps", "7")
    assert bare.plan().frames == 4
    assert atlas_work.run(bare.place).image_count == 2
    assert [row["film"] is None for row in bare.rows()] == [False] * 2 + [True] * 5
    run(capsys, "plan", bare.place, "--layers", "0", "--count", "3", "-n", net, "--steps", "7")
    assert bare.plan().frames == 4  # as it was


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_an_image_is_not_there_without_its_film(net, tmp_path, capsys, harm):
    store = planned(net, tmp_path / "a", layers=[])
    atlas_work.run(store.place)
    row = store.rows()[2]
    film = Path(store.root, row["film"])
    if harm == "gone":
        film.unlink()
    else:
        film.write_bytes(film.read_bytes()[:-1])
    status, out, err = run(capsys, "verify", tmp_path / "a")
    assert status == 1
    assert f"{row['film']}: {'missing' if harm == 'gone' else 'not as it was written'}" in err
    assert "4 images of 5" in out
    assert store.rebuild().images == 4  # from the files alone it is known as well
    assert run(capsys, "verify", tmp_path / "a")[0] == 0
    assert atlas_work.run(store.place).image_count == 1
    assert store.verify() == []
    film.write_bytes(b"")
    assert run(capsys, "verify", tmp_path / "a", "--repair")[0] == 0
    assert not Path(store.root, row["file"]).exists()
    assert not film.exists()
    assert atlas_work.run(store.place).image_count == 1
    assert store.verify() == []


def test_an_index_and_a_plan_without_films_are_read(net, tmp_path):
    store = planned(net, tmp_path / "a", layers=[], frames=0)
    atlas_work.run(store.place)
    before = store.rows()
    for path in store.parts():
        table = pq.read_table(path)
        pq.write_table(table.drop([name for name in table.column_names if name.startswith("film")]), path)
    assert store.rows() == before
    data = json.loads(store.read("atlas.json"))
    data["format"] = 1
    del data["frames"]
    for group in data["groups"]:
        del group["depth"]
    store.write("atlas.json", json.dumps(data).encode())
    assert store.plan().frames == 0
    assert atlas_work.run(store.place).image_count == 0


def test_a_plan_counts_the_bytes_of_films(net, tmp_path, capsys):
    sizes = []
    for frames in ("0", "8"):
        arguments = ["-n", net, "--classes", "1", "-r", "naive", "--steps", "20", "--judges", "none", "--json"]
        _, out, _ = run(capsys, "plan", tmp_path / frames, "--frames", frames, *arguments)
        sizes.append(json.loads(out[: out.rindex("}") + 1])["size"])
    assert sizes[1] > sizes[0] > 0
    atlas_work.run(str(tmp_path / "8"))
    assert status(str(tmp_path / "8")).size == sum(
        path.stat().st_size for path in (tmp_path / "8/images").rglob("*") if path.is_file()
    )


def test_verify_finds_what_was_changed_and_repair_makes_it_again(net, tmp_path, capsys):
    store = planned(net, tmp_path / "a", layers=[])
    atlas_work.run(store.place)
    before = images(store)
    first, second, *_ = sorted(before)
    changed = bytearray(before[first])
    changed[len(changed) // 2] ^= 1
    Path(store.root, first).write_bytes(bytes(changed))
    os.unlink(Path(store.root, second))
    status, out, err = run(capsys, "verify", tmp_path / "a")
    assert status == 1
    assert f"{first}: not as it was written" in err
    assert f"{second}: missing" in err
    assert "3 images of 5" in out
    assert run(capsys, "verify", tmp_path / "a", "--repair")[0] == 0
    assert atlas_work.run(store.place).image_count == 2
    assert run(capsys, "verify", tmp_path / "a")[0] == 0
    assert images(store).keys() == before.keys()


def test_what_is_indexed_while_the_index_is_made_again_stays(net, tmp_path, monkeypatch):
    store = planned(net, tmp_path / "a", layers=[])
    atlas_work.run(store.place)
    *others, last = store.rows()
    newer = last | {"seconds": 1234.5}

    def meanwhile(name, real=store.examine):
        if name == others[0]["file"]:  # another process indexes an image
            atlas_store.Store(store.place).add([newer])
        return real(name)

    monkeypatch.setattr(store, "examine", meanwhile)
    assert store.rebuild().images == 5
    assert store.rows() == [*others, newer]


def test_an_image_that_was_made_anew_is_not_dropped_for_what_was_wrong_with_the_old_one(net, tmp_path):
    store = planned(net, tmp_path / "a", layers=[])
    atlas_work.run(store.place)
    first, second, *others = store.rows()
    store.drop([first | {"sha256": "of the old one"}, second])
    assert store.rows() == [first, *others]
    assert Path(store.root, first["file"]).exists()
    assert not Path(store.root, second["file"]).exists()


def test_a_damaged_index_is_told_and_can_be_made_again(net, tmp_path, capsys):
    store = planned(net, tmp_path / "a", layers=[])
    atlas_work.run(store.place)
    Path(store.parts()[0]).write_bytes(b"PAR1 no parquet PAR1")
    status, _, err = run(capsys, "status", tmp_path / "a")
    assert status == 2
    assert err.count("\n") == 1
    assert "cannot be read" in err
    assert "expected a part of an index, as `phosphene atlas index` makes it again from the images" in err
    assert run(capsys, "index", tmp_path / "a")[0] == 0
    assert "5 of 5 images (100%)" in run(capsys, "status", tmp_path / "a")[1]


@pytest.mark.parametrize("room", [12, 13])
def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(net, tmp_path, capsys, monkeypatch, room):
    store = planned(net, tmp_path / "a", layers=["0"])
    monkeypatch.setattr(random, "shuffle", lambda pieces: None)  # the classes first: what is counted below is theirs
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(1)
        if len(calls) > room:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = run(capsys, "run", tmp_path / "a")
    assert status == 2
    assert "No space left on device; what was made is kept, and the same command goes on" in err
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "a/images").rglob("*.png")}
    # The films and images of 5 classes, the index, and one file or two of channels, which are written side by side: no
    # image is there without its film.
    assert len(kept) == 5 or (len(kept) == 6 and room == 13)
    assert not [path for path in (tmp_path / "a").rglob("*") if path.name.startswith(".")]
    monkeypatch.setattr(os, "fsync", real)
    assert run(capsys, "run", tmp_path / "a")[0] == 0
    assert len(store.rows()) == 13
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # not made twice


def test_a_unit_that_cannot_be_made_does_not_end_the_others(net, tmp_path, monkeypatch, capsys):
    store = planned(net, tmp_path / "a", layers=[])
    real = ascend_module.ascend

    def ascend(network, units, *arguments, **options):
        if any(unit.index == 2 for unit in units):
            raise InputError("no memory for tabby cats")
        return real(network, units, *arguments, **options)

    monkeypatch.setattr(atlas_worker, "ascend", ascend)
    status, _, err = run(capsys, "run", tmp_path / "a")
    assert status == 1
    assert "class:2 could not be made: no memory for tabby cats" in err
    assert [row["index"] for row in store.rows()] == [0, 1, 3, 4]


def test_plan_says_what_will_be_made_and_status_how_far_it_is(net, tmp_path, capsys):
    place = tmp_path / "a"
    steps = ["--steps", "2", "-r", "naive", "--judges", "none", "-n", net]
    status, out, _ = run(capsys, "plan", place, "--classes", "0-2", "horse", "--layers", "0", "--count", "4", *steps)
    assert status == 0
    assert "8 images, 16 steps" in out
    assert not (place / "images").exists()
    assert "0 of 8 images (0%)" in run(capsys, "status", place)[1]
    assert "8 images made" in run(capsys, "run", place)[1]
    data = json.loads(run(capsys, "status", place, "--json")[1])
    assert (data["made"], data["count"], data["left"]) == (8, 8, 0)
    assert {row["index"] for row in Store(place).rows() if row["group"] == "0"} == {0, 2, 4, 6}
    # Another plan of the same network adds to it.
    run(capsys, "plan", place, "--layers", "3", "--count", "2", *steps)
    assert "8 of 10 images" in run(capsys, "status", place)[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plan", "{new}", "-n", "{net}"], "the atlas would be empty"),
        (["plan", "{new}", "-n", "{net}", "--layers", "conv"], "no layer"),
        (["plan", "{new}", "-n", "{net}", "--layers", "x*"], "no layer of make fits 'x*'"),
        (["plan", "{new}", "-n", "{net}", "--classes", "3-9", "--judges", "none"], "class"),
        (
            ["plan", "{other}", "-n", "{net}", "--classes", "1", "--judges", "none"],
            "holds something else than an atlas",
        ),
        (
            ["plan", "{net2}", "-n", "{net}", "--classes", "1", "--judges", "none"],
            "the same network, or another directory",
        ),
        (["plan", "{new}", "-n", "{net}", "--layers", "0", "--frames", "1"], "expected 0 for none, or 2 to 100"),
        (["plan", "{new}", "-n", "{net}", "--layers", "0", "--frames", "-4"], "-4 frames of each ascent"),
        (["run", "{new}"], "is no atlas"),
        (["status", "{other}"], "is no atlas"),
        (["verify", "nosuch://x"], "cannot be reached"),
    ],
)
def test_bad_input_is_one_sentence(net, tmp_path, capsys, arguments, sentence):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("dear")
    planned(own(tmp_path, "net2", 1), tmp_path / "net2", classes=[0], layers=[])
    places = {"net": net, **{name: tmp_path / name for name in ("new", "other", "net2")}}
    status, _, err = run(capsys, *(argument.format(**places) for argument in arguments))
    assert status == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert os.listdir(tmp_path / "other") == ["letter.txt"]


def test_a_network_with_other_weights_is_refused(net, tmp_path, capsys):
    planned(net, tmp_path / "a")
    own(tmp_path, "net", 7)
    status, _, err = run(capsys, "run", tmp_path / "a")
    assert status == 2
    assert "and the atlas is of" in err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written(net, tmp_path, capsys):
    store = planned(net, tmp_path / "a", layers=[])
    os.chmod(store.root, 0o500)
    status, _, err = run(capsys, "run", tmp_path / "a")
    os.chmod(store.root, 0o700)
    assert status == 2
    assert "cannot be written" in err


def test_an_object_store_keeps_an_atlas_as_well(net):
    store = planned(net, "memory://phosphene-test", layers=["0"])
    assert atlas_work.run(store.place).image_count == 13
    rows = store.rows()
    assert len(rows) == 13
    assert store.verify() == []
    for path in store.parts():
        store.fs.rm_file(path)
    assert store.rebuild().images == 13
    assert [key(row) for row in store.rows()] == [key(row) for row in rows]


def test_the_images_of_a_piece_are_looked_for_and_written_at_once(net, tmp_path, monkeypatch):
    store = planned(net, tmp_path / "a", classes=[], layers=["0"])  # 8 channels, one piece
    together = threading.Barrier(8)

    def waiting(real):
        def call(self, name, *arguments, **options):
            if name.endswith(".png"):
                together.wait(timeout=30)  # breaks unless all eight come
            return real(self, name, *arguments, **options)

        return call

    monkeypatch.setattr(Store, "read", waiting(Store.read))
    monkeypatch.setattr(Store, "write", waiting(Store.write))
    assert atlas_work.run(store.place).image_count == 8
    monkeypatch.undo()
    assert [row["index"] for row in store.rows()] == list(range(8))
    assert store.verify() == []


def changed(rows, **values):
    return [row | values for row in rows]


@pytest.mark.slow
def test_a_finished_run_leaves_one_part_of_the_index(net, tmp_path):
    store = planned(net, tmp_path / "a")
    assert atlas_work.run(store.place).image_count == 53
    assert len(store.parts()) == 1
    assert len(store.rows()) == 53


def test_parts_are_put_together_while_others_write_and_read(net, tmp_path, monkeypatch):
    store, other = planned(net, tmp_path / "a", layers=[]), Store(tmp_path / "a")
    atlas_work.run(store.place)
    rows = store.rows()
    store.add(changed(rows[:2], objective=1.0))
    real = Store.read_parts

    def meanwhile(self, parts):
        monkeypatch.setattr(Store, "read_parts", real)
        found = real(self, parts)
        other.add(changed(rows[1:3], objective=2.0))
        return found

    monkeypatch.setattr(Store, "read_parts", meanwhile)
    store.merge()
    assert len(store.parts()) == 2
    assert [row["objective"] for row in store.rows()] == [1.0, 2.0, 2.0, *(row["objective"] for row in rows[3:])]
    before = store.rows()

    def merged_before(self, parts):
        monkeypatch.setattr(Store, "read_parts", real)
        other.merge()
        return real(self, parts)

    monkeypatch.setattr(Store, "read_parts", merged_before)
    assert store.rows() == before  # though the parts that it was to read are gone
    assert len(store.parts()) == 1
    store.add(changed(rows[:1], objective=3.0))
    monkeypatch.setattr(Store, "read_parts", merged_before)
    store.merge()  # which another process has done in the meantime
    assert len(store.parts()) == 1
    assert [row["objective"] for row in store.rows()] == [3.0, *(row["objective"] for row in before[1:])]


# Many makers.


def forked(place, **options):
    """A process that makes an atlas, forked of one that has torch imported and has run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["phosphene.atlas.work", "timm", "torchvision", "PIL.PngImagePlugin", "PIL.WebPImagePlugin", "pyarrow.parquet"]
    )
    process = context.Process(target=atlas_work.run, args=(place,), kwargs=options)
    process.start()
    return process


def children(process):
    import psutil

    return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_nothing_finished_is_made_twice(net, tmp_path):
    store = planned(net, tmp_path / "a", steps=60)
    folder = tmp_path / "a/images"
    process = forked(store.place, workers=2)
    until(lambda: len(list(folder.rglob("*.png"))) >= 5)
    children(process)[0].send_signal(signal.SIGKILL)
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    process.join(200)
    assert process.exitcode == 0
    assert len(store.rows()) == 53
    assert store.verify() == []
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.slow
def test_workers_end_with_the_run_that_is_killed_and_the_same_command_goes_on_at_once(net, tmp_path):
    import psutil

    store = planned(net, tmp_path / "a", steps=60)
    folder = tmp_path / "a/images"
    process = forked(store.place, workers=2)
    until(lambda: len(list(folder.rglob("*.png"))) >= 3)
    workers = children(process)
    process.kill()
    process.join()
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    clock = time.monotonic()
    atlas_work.run(store.place)
    assert time.monotonic() - clock < claims.LEASE / 2
    assert len(store.rows()) == 53
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not (tmp_path / "a/claims").exists()


@pytest.mark.slow
def test_kills_at_random_moments_lose_no_finished_unit(tmp_path):
    draw = random.Random(3)
    units = 250
    net = own(tmp_path, "net", 0)
    for path, old, new in (("net.py", "40", str(units)), ("net.toml", "size = 24", "size = 12")):
        (tmp_path / path).write_text((tmp_path / path).read_text().replace(old, new))
    # How long a process takes to make about one piece, from its start on.
    trial = planned(net, tmp_path / "trial", classes=[], layers=["3"], count=33, frames=2)
    forked(trial.place).join()
    clock = time.monotonic()
    trial.drop(trial.rows())
    process = forked(trial.place)
    process.join()
    span = time.monotonic() - clock
    store = planned(net, tmp_path / "a", classes=[], layers=["3"], frames=2)
    folder = tmp_path / "a/images"
    finished: dict[Path, int] = {}
    stages, kills = set(), 0
    for _ in range(10):  # bench/atlas_kills.py has more of them, with two runs at once
        process = forked(store.place)
        process.join(draw.uniform(0, 1.3 * span))
        process.kill()
        process.join()
        if process.exitcode == 0:  # the machine has become faster since the trial, and all are made
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        now = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
        assert finished.items() <= now.items()  # none is gone, and none was made again
        for path in now.keys() - finished.keys():
            assert store.row_of(str(path.relative_to(store.root))) is not None  # whole, its film too
        indexed = {row["file"] for row in store.rows()}
        assert len(indexed) == len(store.rows())
        assert indexed <= {str(path.relative_to(store.root)) for path in now}
        stages.add((len(now) > len(finished), len(indexed) < len(now)))
        finished = now
    assert len(stages) > 1  # the kills came at moments of several kinds
    assert kills >= 4
    assert finished
    assert atlas_work.run(store.place).failed == {}
    assert sorted(row["index"] for row in store.rows()) == list(range(units))
    assert store.verify() == []
    assert len(list(folder.rglob("*.png"))) == len(list(folder.rglob("*.webp"))) == units
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def on_ray(place):
    code = (
        "import sys; import torch; torch.set_num_threads(1); from phosphene.cli.program import main; "
        f"sys.exit(main(['atlas', 'run', {str(place)!r}, '--ray', 'local', '--workers', '2', '-q']))"
    )
    quiet = os.environ | {
        "RAY_DEDUP_LOGS": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    return subprocess.Popen([sys.executable, "-c", code], env=quiet, start_new_session=True)


def actors():
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("ray::RayWorker") or "ray::RayWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.slow
def test_on_ray_a_worker_and_then_the_driver_are_killed(net, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    store = planned(net, tmp_path / "a", steps=60)
    folder = tmp_path / "a/images"

    def made():
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}

    with on_ray(store.place) as process:
        until(lambda: made())
        worker = actors()[0]
        worker.send_signal(signal.SIGKILL)
        before = len(made())
        until(lambda: len(made()) > before or process.poll() is not None)
        finished = {path: moment for path, moment in made().items() if _is_indexed(store, path)}
        os.killpg(process.pid, signal.SIGKILL)
    atlas_work.run(store.place)
    assert len(store.rows()) == 53
    assert store.verify() == []
    now = made()
    assert {path: now[path] for path in finished} == finished


def _is_indexed(store, path):
    return str(path.relative_to(store.root)) in {row["file"] for row in store.rows()}


def test_a_cluster_that_is_not_there_is_told(net, tmp_path, capsys):
    pytest.importorskip("ray", reason="Ray is not installed")
    store = planned(net, tmp_path / "a", layers=[])
    status, _, err = run(capsys, "run", store.place, "--ray", "127.0.0.1:1")
    assert status == 2
    assert "no Ray cluster can be reached at '127.0.0.1:1'" in err
    status, _, err = run(capsys, "run", store.place, "--ray", "somewhere")
    assert status == 2
    assert "expected HOST:PORT, auto or local" in err


def test_the_rate_counts_from_when_a_batch_was_begun():
    batch = [(1000 + 0.01 * index, 10.0) for index in range(32)]  # 32 images, made together in 320 s
    assert hourly_rate(batch) == pytest.approx(3600 * 32 / 320, rel=0.01)
    two = batch + [(written + 320, 10.0) for written, _ in batch]
    assert hourly_rate(two) == pytest.approx(360, rel=0.01)
    later = batch + [(written + 10_000, 10.0) for written, _ in batch]
    assert hourly_rate(later) == 0, "the last batch alone is within the window, and may have been begun at any time"
    assert hourly_rate([*later, (11_320.0, 10.0)]) == pytest.approx(3600 / 320, rel=0.01)
    assert hourly_rate([]) == 0
