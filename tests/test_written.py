"""What phosphene 0.1.0 wrote still opens, and means what it meant: see `written/make.py` for how it was made."""

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import phosphene
from phosphene import Recipe
from phosphene.cli.program import main

WRITTEN = Path(__file__).parent / "written"
SAMPLES, EARLY = WRITTEN / "0.1.0", WRITTEN / "0.1.0-early"
sys.path.insert(0, str(WRITTEN))

from fingerprint import fingerprint  # noqa: E402

HERE_AS_THERE = fingerprint() == json.loads((SAMPLES / "fingerprint.json").read_text())
# On another machine, after a few steps: how far pixels are off on average, of 255.
CLOSE = 2.0
OWN = ("-n", "given/net.py:make", "--weights", "given/weights.safetensors")
LAYER = "blocks.0.0.bn1.act"
SEARCHED = ("--space", "given/space.toml", "--count", "2", "--seed", "3", "--pruner", "none", "-o", "search")

IMAGES = sorted(path.relative_to(SAMPLES).as_posix() for path in SAMPLES.glob("images/*/*.png"))
BY_COMMAND = ["images/classes/130_flamingo.png", "images/ensemble/130_flamingo.png"]
OF_THE_USER = [name for name in IMAGES if name.split("/")[1] in ("own", "own-direction", "colors")]


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """A copy of the samples, as the current folder; of what the program keeps for itself nothing is known yet.

    They were made with one thread, on which the last bits depend.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path / "written"
    shutil.copytree(SAMPLES, folder)
    monkeypatch.chdir(folder)
    for name, place in {
        "PHOSPHENE_RECIPES": "no-recipes",
        "PHOSPHENE_STATISTICS": "no-statistics",
        "PHOSPHENE_NETWORKS": "nothing.json",
        "XDG_CACHE_HOME": "no-cache",
    }.items():
        monkeypatch.setenv(name, str(tmp_path / place))
    yield folder
    torch.set_num_threads(threads)


@pytest.fixture
def remembered(samples, monkeypatch):
    """The same, where the program knows what it knew when they were made."""
    known = samples / "remembered" / "networks.json"
    known.write_text(known.read_text().replace("FOLDER", str(samples)))
    monkeypatch.setenv("PHOSPHENE_NETWORKS", str(known))
    monkeypatch.setenv("PHOSPHENE_STATISTICS", "statistics")
    return samples


def pixels(path):
    """The pixels of an image file, as plain integers."""
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def assert_same_pixels(path, wanted):
    """Whether two image files show the same: to the last bit on the machine of the samples, and nearly elsewhere."""
    found, known = pixels(path), pixels(wanted)
    assert found.shape == known.shape
    assert np.abs(found - known).mean() <= (0 if HERE_AS_THERE else CLOSE)


def assert_made_again(path, network=None):
    """Make an image again from its file, and compare it with the file."""
    made = phosphene.again(path, network)
    assert made.same or not HERE_AS_THERE
    assert_says_the_same(made.picture.save("again"), path)


def assert_made_again_by_command(path, *arguments):
    """The same by the command line, which opens the network that the image names."""
    assert main(["again", path, "-o", "again", "-q", *arguments]) == 0 or not HERE_AS_THERE
    assert_says_the_same(Path("again", Path(path).name), path)


def assert_says_the_same(path, wanted):
    """Whether an image shows what another one shows, and says so."""
    assert_same_pixels(path, wanted)
    now, then = phosphene.show(path), phosphene.show(wanted)
    assert set(then) <= set(now)
    for key in ("unit", "label", "seed", "steps", "stopped"):
        assert now[key] == then[key]
    near = {"rel": 1e-5} if HERE_AS_THERE else {"rel": 0.2, "abs": 0.1}
    assert now["scores"]["objective"] == pytest.approx(then["scores"]["objective"], **near)


def flat(values, prefix=""):
    """Nested tables as one, with dotted keys."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def keys(data):
    """What a JSON text has, whatever the numbers: dotted keys, of lists those of all entries."""
    if isinstance(data, list):
        return {key for entry in data for key in keys(entry)}
    if not isinstance(data, dict):
        return set()
    return {f"{name}.{key}" for name, value in data.items() for key in keys(value)} | set(data)


def contents(folder):
    """The files below a folder, by name, with their bytes."""
    return {path.as_posix(): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


# Images


@pytest.mark.parametrize("name", [name for name in IMAGES if name not in (*OF_THE_USER, *BY_COMMAND)])
def test_an_image_is_made_again(samples, lite0, name):
    assert_made_again(name, lite0)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_COMMAND)
def test_an_image_is_made_again_by_command_with_the_networks_that_it_names(samples, name):
    assert_made_again_by_command(name)


@pytest.mark.parametrize("name", OF_THE_USER)
def test_an_image_of_a_users_files_is_made_again_where_they_are_known(remembered, monkeypatch, name):
    assert_made_again_by_command(name)
    monkeypatch.setenv("PHOSPHENE_NETWORKS", "nothing.json")
    assert main(["again", name, "-o", "untrusted", "-q"]) == 2


def test_an_image_of_a_users_files_is_made_again_where_it_is_trusted(samples, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_STATISTICS", "statistics")
    for name in OF_THE_USER[1:]:
        assert_made_again_by_command(name, "--trust")


def test_an_image_pulled_towards_gathered_statistics_asks_for_these(remembered, monkeypatch, capsys):
    monkeypatch.setenv("PHOSPHENE_STATISTICS", "none")
    assert main(["again", "images/own/000_cat.png", "-o", "again", "-q"]) == 2
    (statistics,) = phosphene.show("images/own/000_cat.png")["statistics"]
    assert statistics in capsys.readouterr().err


def test_what_an_image_says_of_itself_is_shown(samples, capsys):
    for name in IMAGES:
        known = phosphene.show(name)
        assert main(["show", name]) == 0
        shown = capsys.readouterr().out
        for words in (known["label"], known["network"]["name"], known["recipe"]["name"], str(known["seed"])):
            assert words in shown


def test_images_are_of_every_kind():
    """What the samples are samples of."""
    known = [phosphene.show(SAMPLES / name) for name in IMAGES]
    for key in ("start", "photograph", "ensemble", "facet", "statistics", "changes"):
        assert any(key in each for each in known)
    assert any("chosen" in each["scores"] for each in known)
    assert any("judged" in each["scores"] and "nearest" in each["scores"] for each in known)
    assert any(each["stopped"] == "interrupted" for each in known)
    assert {each["recipe"]["canvas"]["kind"] for each in known} == {"pixels", "fourier", "maco"}
    units = {each["unit"] for each in known}
    for spelled in (r"class:\d+", r"[\w.]+:\d+", r"[\w.]+:\d+@0,1", r"mean\(.*\)", r".* - 0\.5\*.*", r"0:\[.*\]",
                    r"conv_stem", r"match\(.*\)", r"caricature\(.*\)"):  # fmt: skip
        assert any(re.fullmatch(spelled, unit) for unit in units)


def test_a_transparent_image_stays_transparent():
    assert pixels(SAMPLES / "images/maco/130_flamingo.png").shape == (32, 32, 4)


# Score cards and `run.json`


@pytest.mark.slow
def test_a_new_card_is_kept_in_the_image_and_in_run_json(samples):
    image, other = (f"images/classes/{name}" for name in ("130_flamingo.png", "850_teddy.png"))
    before, run = phosphene.show(image), json.loads(Path("images/classes/run.json").read_text())
    as_made, untouched = pixels(image), Path(other).read_bytes()
    assert set(before["scores"]["judges"]) == {"efficientnet_lite1", "efficientnet_lite2"}
    assert main(["judge", image, "--judges", "lite1", "-q"]) == 0
    after, run_after = phosphene.show(image), json.loads(Path("images/classes/run.json").read_text())
    judge = "efficientnet_lite1"
    assert after["scores"]["judges"][judge] == pytest.approx(before["scores"]["judges"][judge], rel=0.01)
    assert after["scores"]["nearest"] == before["scores"]["nearest"]
    assert {**after, "scores": None} == {**before, "scores": None}
    assert [picture["file"] for picture in run_after["pictures"]] == ["130_flamingo.png", "850_teddy.png"]
    assert run_after["pictures"][0]["scores"] == after["scores"]
    assert run_after["pictures"][1] == run["pictures"][1]
    assert np.array_equal(pixels(image), as_made)
    assert Path(other).read_bytes() == untouched


@pytest.mark.slow
@pytest.mark.parametrize("name", ["best", "ensemble"])
def test_a_network_that_made_or_chose_an_image_does_not_judge_it(samples, capsys, name):
    assert main(["judge", f"images/{name}/130_flamingo.png", "--judges", "lite1", "-q"]) == 2
    assert "lite1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_says_of_itself_all_that_it_said(samples):
    arguments = ["flamingo", "teddy", "--size", "32", "--steps", "4", "--precision", "fp32", "-o", "new", "-q"]
    assert main(["classes", *arguments]) == 0
    then, now = (json.loads(Path(folder, "run.json").read_text()) for folder in ("images/classes", "new"))
    for picture in then["pictures"]:
        picture["scores"] = {key: picture["scores"][key] for key in ("objective", "probability")}  # it was judged
    assert keys(then) <= keys(now)
    assert now["recipe"] == then["recipe"]
    assert [picture["label"] for picture in now["pictures"]] == ["flamingo", "teddy"]


@pytest.mark.slow
def test_a_figure_says_of_itself_all_that_it_said(samples):
    arguments = ["clip", "-n", "efficientnet_lite0", "--classes", "flamingo", "--size", "32", "--steps", "4"]
    assert main(["reproduce", *arguments, "-o", "new", "-q"]) == 0
    (file,) = Path("new").rglob("figure.json")
    (known,) = Path("figure").rglob("figure.json")
    then, now = json.loads(known.read_text()), json.loads(file.read_text())
    assert keys(then) <= keys(now)
    assert (now["figure"], now["title"], now["settings"]) == (then["figure"], then["title"], then["settings"])


# Recipes


def test_a_users_recipe_loads_as_it_is_written(samples):
    written, loaded = tomllib.loads(Path("given/recipe.toml").read_text()), Recipe.load("given/recipe.toml").to_dict()
    fields = {key: value for key, value in flat(written).items() if not key.startswith(("hidden", "networks"))}
    assert fields.items() <= flat(json.loads(json.dumps(loaded))).items()
    for section in ("hidden", "networks"):
        assert loaded[section] == written[section]


@pytest.mark.slow
def test_a_users_recipe_makes_the_image_that_it_made(samples):
    assert main(["classes", "flamingo", "-r", "given/recipe.toml", "--precision", "fp32", "-o", "new", "-q"]) == 0
    known, new = Path("images/recipe/130_flamingo.png"), Path("new/130_flamingo.png")
    assert_same_pixels(new, known)
    assert Recipe.from_dict(phosphene.show(new)["recipe"]) == Recipe.from_dict(phosphene.show(known)["recipe"])


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("recipes/*.toml")), ids=lambda path: path.stem)
def test_a_recipe_that_was_printed_loads_as_it_is_written(path):
    written, recipe = flat(tomllib.loads(path.read_text())), Recipe.load(path)
    loaded = flat(json.loads(json.dumps(recipe.to_dict())))
    assert written.items() <= loaded.items()
    assert Recipe.from_dict(recipe.to_dict()) == recipe


# Statistics


def test_statistics_come_out_as_they_were(remembered):
    """Of photographs and of a network's activations; that the files are read the images of a user's files show."""
    for arguments, name in (((), "photographs"), (OWN, "b9304792b5478209")):
        out = f"new-{name}.safetensors"
        assert main(["statistics", "given/photographs", *arguments, "-o", out, "-q"]) == 0
        with open(out, "rb") as new, open(f"statistics/{name}.safetensors", "rb") as old:
            assert header(new) == header(old)


def header(file):
    """What a safetensors file says of its tensors, and the text in it."""
    said = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    text = said.pop("__metadata__")
    text["slope"] = pytest.approx(float(text.get("slope", 0)), rel=1e-4)
    return said, text


# Searches


def trials_of(journal, what):
    """The trials of one of a journal's searches."""
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    storage = optuna.storages.JournalStorage(backend)
    (name,) = [name for name in optuna.get_all_study_names(storage) if what in name]
    return optuna.load_study(study_name=name, storage=storage).trials


@pytest.mark.slow
def test_a_search_goes_on_with_its_old_trials(samples, capsys):
    """Three were made, and a process was killed with the fourth: it is made again, by the same values."""
    journal = samples / "search" / "searches.journal"
    before, old = journal.read_bytes(), trials_of(journal, LAYER)
    assert [trial.state.name for trial in old].count("RUNNING") == 1
    assert main(["search", "--layer", LAYER, "--trials", "5", *SEARCHED, "--report", "--dry"]) == 0
    said = capsys.readouterr().out
    assert journal.read_bytes().startswith(before)
    new = trials_of(journal, LAYER)
    complete = [trial for trial in new if trial.state.name == "COMPLETE"]
    assert [trial.values for trial in complete[:3]] == [trial.values for trial in old[:3]]
    assert len(complete) == 5
    assert old[3].params in [trial.params for trial in complete[3:]]
    assert len(re.findall(r"^ *\d+  complete", said, re.MULTILINE)) == 2
    (report,) = Path("search").glob(f"*{LAYER}*/report/index.html")
    assert f"{max(trial.value for trial in complete):.3f}" in report.read_text()


@pytest.mark.slow
def test_a_search_that_is_done_makes_nothing_more(samples, capsys):
    before = trials_of("search/searches.journal", "classes")
    assert main(["search", "--trials", "2", "--judges", "lite1", *SEARCHED, "--dry"]) == 0
    assert not re.findall(r"^ *\d+  complete", capsys.readouterr().out, re.MULTILINE)
    assert [trial.values for trial in trials_of("search/searches.journal", "classes")] == [
        trial.values for trial in before
    ]


def test_a_recipe_that_a_search_found_is_used(samples, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_RECIPES", "tuned")
    assert main(["filters", f"{LAYER}:2", "--precision", "fp32", "-o", "new", "-q"]) == 0
    (known,) = Path("images/tuned").glob("*.png")
    made = phosphene.show(Path("new", known.name))
    assert made["recipe"]["found"] == phosphene.show(known)["recipe"]["found"]
    assert (made["recipe"]["found"]["trials"], made["recipe"]["found"]["units"]) == (3, LAYER)
    assert_same_pixels(Path("new", known.name), known)
    (found,) = Path("search").glob(f"*{LAYER}*/recipe.toml")
    (kept,) = Path("tuned").rglob("*.toml")
    assert Recipe.load(found) == Recipe.load(kept)


# Atlases


def rows(folder):
    """The rows of an atlas's index: of each image the latest."""
    parts = sorted(Path(folder, "index").glob("*.parquet"))
    return {row["file"]: row for part in parts for row in pq.read_table(part).to_pylist()}


def test_an_atlas_is_as_it_was_written_and_nothing_of_it_is_made_again(samples, capsys):
    before = contents("atlas/images")
    assert main(["atlas", "verify", "atlas"]) == 0
    assert "5 images of 5" in capsys.readouterr().out
    assert main(["atlas", "status", "atlas", "--json", "-q"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["made"], status["count"]) == (4, 4)  # of the plan; one more was kept by the studio
    assert main(["atlas", "run", "atlas"]) == 0
    assert "0 images made" in capsys.readouterr().out
    assert contents("atlas/images") == before
    assert len(rows("atlas")) == 5


@pytest.mark.slow
def test_an_atlas_that_is_damaged_is_told_and_only_what_is_damaged_is_made_again(samples, capsys):
    before = contents("atlas/images")
    damaged, film = "atlas/images/classes/0000/00000.png", f"atlas/images/layer-{LAYER}/0000/00000.webp"
    Path(damaged).write_bytes(before[damaged][:-20])
    Path(film).unlink()
    assert main(["atlas", "verify", "atlas", "-q"]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 2
    for name in (damaged, film):
        assert name.removeprefix("atlas/") in said
    assert main(["atlas", "verify", "atlas", "--repair", "-q"]) == 0
    assert main(["atlas", "run", "atlas"]) == 0
    assert "2 images made" in capsys.readouterr().out
    after = contents("atlas/images")
    assert set(after) == set(before)
    remade = {damaged, film, damaged.replace("png", "webp"), film.replace("webp", "png")}
    assert {name for name in before if after[name] != before[name]} <= remade
    for name in (damaged, film.replace("webp", "png")):
        assert_same_pixels(name, SAMPLES / name)


def test_the_index_of_an_atlas_is_made_again_from_its_images(samples, capsys):
    before = rows("atlas")
    shutil.rmtree("atlas/index")
    assert main(["atlas", "index", "atlas", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out) == {"images": 5, "left_out": {}}
    after = rows("atlas")
    assert {name: {column: after[name][column] for column in row} for name, row in before.items()} == before


def page_data(folder):
    """What an atlas's page knows before any group is opened."""
    (file,) = Path(folder, "site").glob("*/data.js")
    return json.loads(file.read_text().removeprefix("window.ATLAS = ").removesuffix(";"))


def test_the_page_of_an_atlas_is_written_anew(samples):
    then = page_data("atlas")
    assert main(["atlas", "site", "atlas", "--photographs", "given/photographs", "-q"]) == 0
    now = page_data("atlas")
    assert keys(then) <= keys(now)
    assert [group["name"] for group in now["groups"]] == [group["name"] for group in then["groups"]]
    assert now["networks"][0]["images"] == then["networks"][0]["images"] == 5
    (folder,) = Path("atlas/site").iterdir()
    assert f"{folder.name}/app.js" in Path("atlas/index.html").read_text()


@pytest.mark.slow
def test_the_page_of_a_later_atlas_shows_an_old_one_beside_it(samples):
    plan = ["plan", "new", "--classes", "0", "--size", "32", "--steps", "1", "--judges", "none", "-q"]
    assert main(["atlas", *plan]) == 0
    assert main(["atlas", "run", "new", "-q"]) == 0
    assert main(["atlas", "site", "new", "--beside", "atlas", "--plain", "-q"]) == 0
    assert len(page_data("new")["networks"]) == 2


def test_an_atlas_whose_run_was_killed_goes_on(remembered, capsys):
    """Four of its 18 images are there and not indexed yet; four units are claimed by the run that was killed."""
    before = contents("atlas-own/images")
    assert len(before) == 4
    assert main(["atlas", "run", "atlas-own"]) == 0
    assert "14 images made" in capsys.readouterr().out
    after = contents("atlas-own/images")
    assert len(after) == len(rows("atlas-own")) == 18
    assert {name: after[name] for name in before} == before
    assert not Path("atlas-own/claims").exists()
    assert main(["atlas", "verify", "atlas-own", "-q"]) == 0


def test_an_atlas_of_a_users_network_is_refused_where_nothing_is_known_of_it(samples, capsys):
    assert main(["atlas", "run", "atlas-own", "-q"]) == 2
    assert "net.py" in capsys.readouterr().err


@pytest.mark.slow
def test_more_can_be_planned_into_an_atlas(samples, capsys):
    before = contents("atlas/images")
    plan = ["plan", "atlas", "--classes", "2", "--layers", LAYER, "--count", "2", "--size", "32", "--steps", "4"]
    assert main(["atlas", *plan, "--judges", "lite1", "-q"]) == 0
    assert main(["atlas", "run", "atlas"]) == 0
    after = contents("atlas/images")
    assert {name: after[name] for name in before} == before
    assert {Path(name).name for name in set(after) - set(before)} == {"00002.png", "00002.webp"}


# What the program keeps for itself


@pytest.mark.slow
def test_the_precision_that_was_measured_is_taken(samples, monkeypatch, measured_precision):
    """What was kept under this machine's name is believed: here that bf16 is ten times as fast as it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    memory = Path("cache/phosphene/precision.json")

    def precision(side):
        arguments = ["flamingo", "-r", "naive", "--steps", "1", "--size", str(side), "-o", f"new{side}", "-q"]
        assert main(["classes", *arguments]) == 0
        return phosphene.show(f"new{side}/130_flamingo.png")["precision"]

    precision(230)
    ((here, measured),) = json.loads(memory.read_text()).items()
    kept = json.loads(Path("remembered/precision.json").read_text())
    there = next(key for key in kept if key.endswith("224x224"))
    assert set(measured) == set(kept[there])
    plain = [re.sub(r"^.*, \d+ threads, torch [^,]*", "MACHINE", key) for key in (here, there)]
    assert plain[0].replace("230x230", "224x224") == plain[1]
    fast = {"fp32": kept[there]["fp32"], "bf16": kept[there]["fp32"] / 10}
    memory.write_text(json.dumps({here.replace("230x230", "236x236"): fast}))
    assert precision(236) == ["bf16"]


# Earlier commits of the same version

_NO_THREADS = "images of before cfda4ae do not say with how many threads they were made, and name their network alone"
_UNITS = "recipes of c903a83 to b5e7bb9 said `units` where later ones have a section [hidden]; no reader takes them"


def unopened(reason):
    return pytest.mark.xfail(reason=reason, strict=True, raises=phosphene.InputError)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("0d52fd0/130_flamingo.png", marks=unopened(_NO_THREADS)),
        "b41472e/130_flamingo.png",
        "16f7c08/130_flamingo_seed1337.png",
        "16f7c08/130_flamingo_seed1338.png",
        pytest.param("beaefe1/130_flamingo.png", marks=unopened(_UNITS)),
        pytest.param("02bb5f0/atlas/images/classes/0000/00000.png", marks=unopened(_UNITS)),
    ],
)
def test_an_image_of_an_earlier_commit_is_made_nearly_again(lite0, name):
    """Nearly, since the arithmetic is not what it was then."""
    made = phosphene.again(EARLY / name, lite0)
    assert np.abs(made.picture.pixels.astype(int) - pixels(EARLY / name)).mean() < CLOSE


@pytest.mark.xfail(reason=_UNITS, strict=True)
def test_an_atlas_of_an_earlier_commit_is_as_it_was_written(tmp_path):
    shutil.copytree(EARLY / "02bb5f0" / "atlas", tmp_path / "atlas")
    assert main(["atlas", "verify", str(tmp_path / "atlas"), "-q"]) == 0


# The samples themselves


def test_no_sample_says_where_it_was_made():
    place = re.compile(rb"(?<![\w.])/(tmp|home|root|work|Users|private)/")
    for folder in (SAMPLES, EARLY):
        for path in folder.rglob("*"):
            if path.is_file():
                text = path.read_bytes()
                if path.suffix == ".png":
                    with Image.open(path) as image:
                        text = json.dumps(getattr(image, "text", {})).encode()
                assert not place.search(text), path


def test_the_samples_are_small():
    files = [path for folder in (SAMPLES, EARLY) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 400_000
