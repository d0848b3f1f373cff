"""Whatever takes long counts what it does, in words and up to the whole, and is silent when told."""

import contextlib
import functools
import http.server
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SHALLOW, Small, opened, seeded, written_network
from PIL import Image

import phosphene
from phosphene import Recipe, RunOptions
from phosphene.ascent import forecast
from phosphene.atlas import activation_map as maps
from phosphene.cli import printing
from phosphene.cli.program import main
from phosphene.comparison.difference import DifferenceOptions
from phosphene.comparison.networks import ComparisonSettings
from phosphene.default_progress import BYTES, shown_by
from phosphene.doctor import inspection, profiling
from phosphene.doctor.fitting import fit
from phosphene.doctor.photographs import label_by_name
from phosphene.networks.downloads import shown_downloads
from phosphene.photographs.activation_statistics import collect
from phosphene.photographs.image_statistics import measure_image_statistics
from phosphene.photographs.listing import list_photographs

STEPS = Recipe.load("naive").override({"steps": 2})
KINDS, EACH = ("red", "blue"), 11
COUNT = len(KINDS) * EACH


class Seen:
    """A display that remembers all that it is shown."""

    def __init__(self):
        self.tallies, self.texts = [], []

    @contextlib.contextmanager
    def __call__(self, tally):
        self.tallies.append(tally)
        tally.is_shown = True
        yield lambda: self.texts.append(tally.text())

    def counted(self):
        return [(tally.what, tally.done, tally.total) for tally in self.tallies]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for kind in KINDS:
        (folder / kind).mkdir()
        for index in range(EACH):
            pixels = random.integers(0, 120, (28, 28, 3)) + random.integers(0, 130, 3)
            pixels[..., 2 * KINDS.index(kind)] += 5
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{index % 4}_{index}.png")
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(profiling, "PEAK_SIDE", 8)
    monkeypatch.setattr(maps, "lay_out", lambda vectors, seed: vectors[:, :2].clone().float())


@pytest.fixture(scope="module")
def other():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return opened(Small()).replace(name="other")


@functools.cache
def picture():
    return phosphene.ascend(opened(seeded(Small)), "class:1", STEPS)[0]


def judged(network, other, folder):
    phosphene.judge([picture()], [other], network=network, photographs=folder)


def compared_images(network, other, folder):
    phosphene.compare_images(folder / "red", folder / "blue", network)


def mapped(network, other, folder):
    phosphene.activation_map(network, "relu2", folder, settings=phosphene.MapSettings(positions=2, grid=2, least=1))


def whitened(network, other, folder):
    phosphene.whiten_direction(network, "relu2", range(12), folder)


def explained(network, other, folder):
    phosphene.explain(network, folder / "red" / "0_0.png", "class:1", "saliency,occlusion", check=True)


def compared(network, other, folder):
    phosphene.compare(network, other, folder, settings=ComparisonSettings(count=2))


def differing(network, other, folder):
    options = DifferenceOptions(run=RunOptions(device="cpu"))
    phosphene.difference(network, other, [1], STEPS, photographs=folder, options=options)


LONG = {
    "ascend": (lambda net, other, folder: phosphene.ascend(net, ["class:0", "relu1:3"], STEPS), [("images", 2)]),
    "best_of": (
        lambda net, other, folder: phosphene.best_of(net, "class:0", STEPS, count=2, selectors=[other]),
        [("images", 2), ("images shown", 4)],
    ),
    "judge": (judged, [("images shown", 2 + 2 * COUNT)]),
    "compare": (compared, [("photographs", 2 * COUNT)]),
    "depth": (lambda net, other, folder: phosphene.depth(net, folder, ["relu1", "relu2"]), [("photographs", COUNT)]),
    "difference": (differing, [("photographs shown", 2 * COUNT), *[("images", 1)] * 4]),
    "compare_images": (compared_images, [("pictures and photographs", COUNT)]),
    "explain": (explained, [("maps and curves", 2 * 3 + 4 + 1)]),
    "difference_of_means": (
        lambda net, other, folder: phosphene.difference_of_means(net, "relu2", *(folder / kind for kind in KINDS)),
        [("photographs", COUNT)],
    ),
    "whiten_direction": (whitened, [("photographs", COUNT)]),
    "activation_map": (mapped, [("photographs", COUNT)] * 2),
    "collect": (lambda net, other, folder: collect(net, list_photographs(folder)), [("photographs", COUNT)]),
    "measure_image_statistics": (
        lambda net, other, folder: measure_image_statistics(list_photographs(folder), 16),
        [("photographs, twice each", 2 * COUNT)],
    ),
    "inspect": (lambda net, other, folder: inspection.inspect(net), [("checks", 5)]),
    "fit": (lambda net, other, folder: fit(net, label_by_name(folder, net)), None),
    "profile": (
        lambda net, other, folder: profiling.profile(net, "class:0", STEPS, batch=2, rounds=2),
        [("rounds", 2)],
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_long_work_is_counted_to_its_end_and_silent_when_told(name, photographs, other):
    work, expected = LONG[name]
    seen, network = Seen(), opened(seeded(Small))
    picture()
    with shown_by(seen):
        work(network, other, photographs)
    found = seen.counted()
    for what, done, total in found:
        assert done == total > 0
        assert any(f"{total} of {total} {what}" in text for text in seen.texts)
    if expected is not None:
        assert [(what, total) for what, _, total in found] == expected
    silent = Seen()
    with shown_by(silent), phosphene.without_progress():
        work(network, other, photographs)
    assert silent.tallies == []


def test_a_search_counts_trials(other, tmp_path):
    pytest.importorskip("optuna")
    fields = {"optimizer.rate": 0.002, "canvas.contrast": 1.1, "steps": 2}
    (tmp_path / "base.toml").write_text(Recipe.load("draft").override(fields).to_toml())
    space = tmp_path / "space.toml"
    space.write_text('base = "base.toml"\n[fields]\n"canvas.contrast" = { low = 1.0, high = 5.0 }\n')
    settings = phosphene.SearchSettings(
        space=space, count=1, trials=2, out=tmp_path / "out", keep=False, pruner="none", sampler="random"
    )
    seen, network = Seen(), opened(seeded(Small))
    with shown_by(seen):
        phosphene.search(network, "relu2", settings)
    assert ("trials", 2, 2) in seen.counted()
    silent = Seen()
    with shown_by(silent):
        again = phosphene.SearchSettings(**{**vars(settings), "out": tmp_path / "again"})
        phosphene.search(network, "relu2", again, options=RunOptions(progress=False))
    assert silent.tallies == []


@pytest.mark.parametrize("option", [False, "callback"])
def test_who_is_told_is_told_alone(option, photographs, other):
    told = []
    given = False if option is False else lambda done, total: told.append((done, total))
    seen, network = Seen(), opened(seeded(Small))
    with shown_by(seen):
        phosphene.compare(network, other, photographs, settings=ComparisonSettings(count=2), on_progress=given)
        words = []
        phosphene.judge([picture()], [other], network=network, on_progress=False if option is False else words.append)
    assert seen.tallies == []
    assert told[-1:] == ([] if option is False else [(2 * COUNT, 2 * COUNT)])
    assert words[-1:] == ([] if option is False else ["asking other"])


def test_in_python_a_bar_says_what_it_counts(photographs, other, capsys, monkeypatch):
    network = opened(seeded(Small))
    phosphene.depth(network, photographs, ["relu1", "relu2"])
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    phosphene.depth(network, photographs, ["relu1", "relu2"])
    out, err = capsys.readouterr()
    assert (out, f"{COUNT} of {COUNT} photographs" in err) == ("", True)
    with phosphene.without_progress():
        phosphene.depth(network, photographs, ["relu1", "relu2"])
    assert capsys.readouterr() == ("", "")


# The command line


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return written_network(tmp_path_factory.mktemp("net"), "net", 0, SHALLOW)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return written_network(tmp_path_factory.mktemp("twin"), "twin", 1, SHALLOW)


def verbs(net, twin, folder, image):
    """Commands, and what is counted in each."""
    first = folder / "red" / "0_0.png"
    return {
        "statistics": (["statistics", folder], f"{2 * COUNT} of {2 * COUNT} photographs, twice each"),
        "statistics -n": (["statistics", folder, "-n", net, "-o", "own.st"], f"{COUNT} of {COUNT} photographs"),
        "doctor": (["doctor", "-n", net, "--images", folder], "5 of 5 checks"),
        "doctor, photographs": (["doctor", "-n", net, "--images", folder], f"{COUNT} of {COUNT} photographs, reading"),
        "judge": (
            ["judge", image, "-n", net, "--judges", twin, "--photographs", folder, "--dry"],
            f"{2 + 2 * COUNT} of {2 + 2 * COUNT} images shown",
        ),
        "direction": (
            ["direction", folder / "red", folder / "blue", "--layer", "1", "-n", net],
            f"{COUNT} of {COUNT} photographs",
        ),
        "compare": (
            ["compare", net, twin, "--photographs", folder, "--pictures", "0"],
            f"{2 * COUNT} of {2 * COUNT} photographs, matching units",
        ),
        "compare pictures": (["compare", first, folder / "blue", "-n", net], f"{1 + EACH} of {1 + EACH} pictures and"),
        "depth": (["depth", "--photographs", folder, "-n", net], f"{COUNT} of {COUNT} photographs"),
        "explain": (["explain", first, "class:1", "-n", net, "--no-picture", "--steps", "2"], "maps and curves"),
        "profile": (["profile", "class:1", "-n", net, "-r", "naive", "--batch", "2"], "5 of 5 rounds, timing steps"),
    }


@pytest.fixture(scope="module")
def image(net, tmp_path_factory):
    out = tmp_path_factory.mktemp("image")
    assert main(["classes", "1", "-n", net, "-r", "naive", "--steps", "2", "-o", str(out), "--quiet"]) == 0
    return next(out.glob("1*.png")) if list(out.glob("1*.png")) else next(out.glob("*1*.png"))


VERBS = tuple(verbs(*[Path()] * 4))


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_shows_bars_and_says_how_long_it_takes_and_nothing_when_quiet(
    verb, net, twin, photographs, image, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    words, said = verbs(net, twin, photographs, image)[verb]
    words = list(map(str, words))
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes what it writes to for a terminal
    monkeypatch.setattr(forecast, "MEASURED", 0.0)
    monkeypatch.setattr(printing, "WORTH_TELLING", 0.0)
    assert main(words) in (0, 1), capsys.readouterr().err
    err = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert said in err
    assert re.search(r"\d+ .*: about \d+ s$", err, re.MULTILINE)
    assert main([*words, "--quiet"]) in (0, 1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("least", "expected"), [(0.0, True), (1e9, False)])
def test_how_long_it_takes_is_said_in_a_file_too_if_it_is_long(
    least, expected, net, photographs, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forecast, "MEASURED", 0.0)
    monkeypatch.setattr(printing, "WORTH_TELLING", least)
    assert main(["statistics", str(photographs), "-n", net, "-o", "own.st"]) == 0
    assert bool(re.fullmatch(r"\d+ .*: about \d+ s\n", capsys.readouterr().err)) == expected


def test_where_many_photographs_take_long_fewer_are_proposed(net, photographs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module, name in ((forecast, "MEASURED"), (printing, "WORTH_TELLING"), (printing, "LONG")):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(printing, "SAMPLE", 10)
    command = ["statistics", str(photographs), "-n", net, "-o", "own.st"]
    for more, expected in (([], True), (["--limit", "10"], False)):
        assert main([*command, *more]) == 0
        assert ("; --limit 10 for a sample" in capsys.readouterr().err) == expected


def test_into_a_file_goes_no_bar(net, photographs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["statistics", str(photographs), "-n", net, "-o", "own.st"]) == 0
    assert capsys.readouterr().err == ""


# Downloads


@pytest.fixture
def hub(tmp_path):
    """An address at which a file of three megabytes is."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "net-weights.pth").write_bytes(bytes(3_000_000))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/net-weights.pth"
    server.shutdown()
    server.server_close()


def by_torch(url, folder):
    torch.hub.load_state_dict_from_url(url, model_dir=str(folder))


def by_the_hub(url, folder):
    from huggingface_hub.utils.tqdm import _get_progress_bar_context

    with _get_progress_bar_context(desc="net-weights.pth", log_level=30, total=3_000_000) as bar:
        bar.update(3_000_000)


def by_keras(url, folder):
    import keras

    keras.utils.get_file(origin=url, cache_dir=str(folder))


@pytest.mark.parametrize("fetch", [by_torch, by_the_hub, by_keras])
def test_a_download_says_its_file_and_size_in_our_words(fetch, hub, tmp_path, capsys):
    if fetch is by_keras:
        pytest.importorskip("phosphene.networks.sources.keras.backend").import_keras()
    if fetch is by_the_hub:
        pytest.importorskip("huggingface_hub")
    seen = Seen()
    with shown_by(seen), shown_downloads("net-weights.pth"), contextlib.suppress(Exception):  # zeros are no weights
        fetch(hub, tmp_path)
    assert seen.counted() == [(BYTES, 3_000_000, 3_000_000)]
    assert seen.texts[-1].startswith("net-weights.pth")
    assert seen.texts[-1].endswith("3.0 of 3.0 MB")
    assert capsys.readouterr() == ("", "")


def test_a_command_says_what_it_downloads_unless_it_is_quiet(hub, capsys, tmp_path, monkeypatch):
    body = f"(torch.hub.download_url_to_file({hub!r}, 'here.pth'), {SHALLOW})[1]"
    words = ["layers", "-n", written_network(tmp_path, "far", 0, body)]
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    assert capsys.readouterr().err == "downloading weights of net, 3.0 MB\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    assert main(words) == 0
    assert "weights of net  3.0 of 3.0 MB" in capsys.readouterr().err
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
