"""How far long work is, and how long the rest takes: what atlases and searches tell, and what they do not make up."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_atlas import own, planned
from tiny import normed

from phosphene import Recipe
from phosphene.ascent import forecast
from phosphene.ascent.forecast import Forecast, Meter
from phosphene.ascent.progress import Progress
from phosphene.atlas import claims
from phosphene.atlas import work as atlas_work
from phosphene.atlas.claims import Claims
from phosphene.atlas.missing import WorkItem
from phosphene.atlas.progress_board import ProgressBoard
from phosphene.atlas.run_progress import PieceProgress, RunProgress, reporter
from phosphene.atlas.status import status
from phosphene.cli.printing import forecast_text
from phosphene.cli.program import main
from phosphene.tuning.forecast import trial_forecast
from phosphene.tuning.search import search
from phosphene.tuning.settings import SearchSettings
from phosphene.tuning.task import make_task

NOT_KNOWN = "how long they take is not known yet"


@pytest.fixture
def net(tmp_path):
    return own(tmp_path, "net", 0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    found = Clock()
    monkeypatch.setattr(forecast, "time", found)
    return found


@pytest.fixture
def at_once(monkeypatch):
    """Two steps are enough to measure by."""
    monkeypatch.setattr(forecast, "MEASURED", 0.0)


def test_a_rate_is_known_after_some_seconds_and_counts_from_the_first_report_on(clock):
    meter = Meter()
    assert meter.rate(40.0) is None
    clock.now += forecast.MEASURED - 0.1
    assert meter.rate(60.0) is None
    clock.now += 0.1
    assert meter.rate(40.0) is None  # nothing has been done
    assert meter.rate(60.0) == pytest.approx(20 / forecast.MEASURED)


def test_a_forecast_says_what_is_known_and_proposes_a_sample_where_it_is_long():
    sample = "; `--count 12` for a sample"
    assert forecast_text(Forecast(80, 7680), sample) == f"80 images, 7,680 steps: {NOT_KNOWN}"
    assert forecast_text(Forecast(80, 7680, 299.0), sample) == "80 images, 7,680 steps: about 5 minutes"
    assert forecast_text(Forecast(80, 7680, 540.0), sample) == f"80 images, 7,680 steps: about 9 minutes{sample}"
    assert forecast_text(Forecast(1, 9, 3.0, is_bound=True)) == "at most 1 image, 9 steps: about 3 s"


# What is made at once.


def test_filters_say_how_long_they_take_once_it_is_measured(net, tmp_path, capsys, at_once, monkeypatch):
    words = ["filters", "3", "-n", net, "--steps", "4", "-r", "naive", "-o", str(tmp_path / "out")]
    monkeypatch.setattr(Meter, "rate", lambda _, work: 1 / 540 if work > 0.4 else None)
    assert main(words) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "about" in line]
    assert lines == ["40 images, 160 steps: about 9 minutes; `--count 12` for a sample"]
    assert main([*words, "--count", "12"]) == 0
    assert "12 images, 48 steps: about 9 minutes\n" in capsys.readouterr().err
    assert main(["classes", "0-4", *words[2:], "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_a_command_that_ends_at_once_makes_up_no_time(net, tmp_path, capsys):
    assert main(["classes", "0", "-n", net, "--steps", "2", "-r", "naive", "-o", str(tmp_path / "out")]) == 0
    assert "about" not in capsys.readouterr().err


# The runs of an atlas.


def run_progress(told, forecasts=None, **options):
    """Of eight images of 100 steps and eight of 20."""
    return RunProgress(
        {"slow": 100, "fast": 20}, 0, 16, Forecast(16, 960),
        lambda *words: told.append(words), None if forecasts is None else forecasts.append, **options,
    )  # fmt: skip


def test_images_in_work_count_as_far_as_their_steps_are_made():
    told, work = [], []
    progress = run_progress(told, on_work=work.append)
    progress.begin()
    pieces = {WorkItem("slow", (0, 1)): PieceProgress(0.5, 2), WorkItem("fast", (0, 1, 2)): PieceProgress(2.0, 3)}
    progress.tell(pieces, 2)
    progress.add("fast", 3)
    progress.tell({WorkItem("slow", (0, 1)): PieceProgress(1.0, 2)}, 1)
    assert told == [(0, 16), (2.5, 16), (4.0, 16)]
    assert work == [(0, 0), (2.5, 5), (1.0, 2)]


def test_how_long_a_run_takes_is_measured_in_steps_of_all_its_workers(clock):
    forecasts = []
    progress = run_progress([], forecasts)
    progress.begin()
    slow, fast = WorkItem("slow", (0, 1, 2, 3)), WorkItem("fast", (0, 1, 2, 3))
    progress.tell({slow: PieceProgress(0.0, 4)}, 2)  # the other worker opens its network still
    clock.now += 1000
    progress.tell({slow: PieceProgress(1.0, 4), fast: PieceProgress(0.0, 4)}, 2)
    clock.now += 10
    progress.add("fast", 4)  # 80 steps
    progress.tell({slow: PieceProgress(1.4, 4)}, 2)  # and 40
    clock.now += 10
    progress.tell({slow: PieceProgress(1.4, 4)}, 2)
    assert forecasts == [Forecast(16, 960), Forecast(16, 960, pytest.approx(960 / 12))]


def test_a_worker_reports_now_and_then_and_at_its_first_step():
    sent = []
    report = reporter(sent.append, every=3600)
    for step in range(1, 4):
        report(Progress(0, 4, step / 8, 0.0, None))
    assert sent == [(0.5, 4)]


def test_a_board_keeps_what_is_in_work_and_forgets_the_rest():
    board = ProgressBoard()
    board.put(("a", 0), 0.5, 2)
    board.put(("a", 0), 0.7, 2)
    board.put(("a", 2), 1.0, 2)
    assert board.read([("a", 0), ("b", 0)]) == {("a", 0): (0.7, 2)}
    assert board.read([("a", 0), ("a", 2)]) == {("a", 0): (0.7, 2)}


def test_a_run_says_how_much_it_makes_and_how_long_that_takes(net, tmp_path, capsys, at_once, monkeypatch):
    store = planned(net, tmp_path / "a", layers=["3"], classes=[], steps=4)
    assert main(["atlas", "run", str(store.place)]) == 0
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == f"40 images, 160 steps: {NOT_KNOWN}"
    (known,) = [line for line in lines if "about" in line]
    assert known.startswith("40 images, 160 steps: about ")
    assert "100%  40/40 images" in lines
    assert len(lines) <= 12  # one for each tenth at most
    # What is there is not made again, and a long run proposes a sample.
    store.drop([row for row in store.rows() if row["index"] < 30])
    monkeypatch.setattr(Meter, "rate", lambda *_: 0.2)
    assert main(["atlas", "run", str(store.place)]) == 0
    printed = capsys.readouterr()
    assert "30 images, 120 steps: about 10 minutes; `--count 12` in another directory for a sample" in printed.err
    assert "30 images made in" in printed.out


@pytest.mark.parametrize("option", ["-q", "--json"])
def test_a_quiet_run_says_nothing_of_it(net, tmp_path, capsys, at_once, option):
    store = planned(net, tmp_path / "a", layers=[])
    assert main(["atlas", "run", str(store.place), option]) == 0
    assert capsys.readouterr().err == ""


def test_a_run_that_ends_before_it_is_measured_makes_up_no_time(net, tmp_path):
    forecasts = []
    atlas_work.run(planned(net, tmp_path / "a", layers=[]).place, on_forecast=forecasts.append)
    assert forecasts == [Forecast(5, 10)]


def watched(place, **options):
    """How many images there are, as a run tells it from its beginning to its end."""
    told = []
    atlas_work.run(place, on_done=lambda done, total: told.append(done), **options)
    return told


@pytest.mark.slow
def test_workers_in_processes_tell_how_far_their_pieces_are(net, tmp_path):
    store = planned(net, tmp_path / "a", classes=[], layers=["3"], steps=400, count=20)
    told = watched(store.place, workers=2)
    within = [done for done in told if done % 1]
    assert within
    assert (told[0], told[-1]) == (0, 20)
    assert told == sorted(told)


ON_RAY = """
import json, sys, torch
torch.set_num_threads(1)
from phosphene.atlas import work
told = []
work.run(sys.argv[1], ray="local", workers=2, on_done=lambda done, total: told.append(done))
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_workers_on_ray_tell_how_far_their_pieces_are(net, tmp_path):
    store = planned(net, tmp_path / "a", classes=[], layers=["3"], steps=800, count=20)
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY, str(store.place)], env=os.environ | quiet, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert any(each % 1 for each in told)
    assert told[-1] == 20


# What another terminal is told.


@pytest.fixture
def other(tmp_path, net):
    """A run of this atlas, with half of a piece made."""
    store = planned(net, tmp_path / "a", classes=[], layers=["3"])
    with Claims(store) as run:
        run.take("3", range(8))
        run.note_work((3.0, 8))
        run.show_life()
        yield run


def test_the_status_tells_of_the_steps_of_units_in_work(other, capsys):
    place = str(other.store.place)
    assert status(place).work == 3 / 8
    assert main(["atlas", "status", place]) == 0
    assert "8 units are being made; 38% of their steps are made" in capsys.readouterr().out
    with Claims(other.store) as second:
        second.note_work((4.0, 4))
        second.show_life()
        assert status(place).work == 7 / 12
    other.note_work((0.0, 0))  # between two pieces
    other.show_life()
    assert status(place).work is None
    assert main(["atlas", "status", place]) == 0
    assert "8 units are being made\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "work"),
    [
        ("absent", None), ([3.0, 8], 3 / 8), ([9.0, 8], 1.0), ([-3, 8], 0.0), ([float("nan"), 8], 0.0), ([1, -8], None),
        ([1e300, 1e300], 1.0), ("many", None), ([[], {}], None), ([float("inf")] * 2, None), (None, None),
    ],
)  # fmt: skip
def test_what_a_file_says_of_work_is_bounded(other, said, work):
    file = Path(other.store.root, "claims", f"{other.name}.run")
    data = json.loads(file.read_text())
    assert data.pop("work") == [3.0, 8]
    file.write_text(json.dumps(data if said == "absent" else data | {"work": said}))
    found = status(str(other.store.place))
    assert found.claimed == 8
    assert found.work == work


def test_a_run_that_has_ended_has_nothing_in_work(net, tmp_path, monkeypatch):
    store = planned(net, tmp_path / "a", layers=[])
    monkeypatch.setattr(claims, "process_identity", lambda: (2**22 + 1, 0.0))  # no such process
    dead = Claims(store)
    dead.note_work((3.0, 8))
    dead.show_life()
    assert status(str(store.place)).work is None


# A search.


SPACE = 'base = "draft"\n[fields]\n"optimizer.rate" = {{ low = 0.01, high = 0.5 }}\n{}\n'


def searched(tmp_path, fields="", **settings):
    """The forecasts of a search on two channels, and its task."""
    file = tmp_path / "space.toml"
    file.write_text(SPACE.format(fields))
    settings = {"trials": 4, "steps": 6, "count": 2, "out": tmp_path / "out", "keep": False, "space": file} | settings
    forecasts = []
    search(normed(), "relu1", SearchSettings(**settings), on_forecast=forecasts.append)
    return forecasts


def test_a_search_says_how_much_it_makes_and_how_long_that_takes(tmp_path, at_once):
    first, known = searched(tmp_path)
    assert first == Forecast(2 + 4 * 2, (2 + 4 * 2) * 6)  # the recipe that it starts from, and four trials
    assert known.seconds > 0
    assert first.__class__(known.images, known.steps) == first
    # One that goes on has the trials that are left.
    first, _ = searched(tmp_path, trials=7)
    assert first == Forecast(3 * 2, 3 * 2 * 6)
    assert searched(tmp_path, trials=7) == []


def test_no_time_is_made_up_before_it_is_measured(tmp_path):
    assert searched(tmp_path, trials=2) == [Forecast(6, 36)]


def test_a_search_takes_no_longer_than_its_budget(tmp_path, at_once, monkeypatch):
    monkeypatch.setattr(Meter, "rate", lambda *_: 1e-3)
    assert searched(tmp_path, trials=2, budget=30.0)[1] == Forecast(6, 36, 1800.0, is_bound=True)


@pytest.mark.parametrize(
    ("fields", "settings", "expected"),
    [
        ("", {"steps": 100}, Forecast(2, 200)),
        ("", {"steps": 360}, Forecast(6, 2 * (360 + 120 + 40), is_bound=True)),  # a rung is an ascent of its own
        ("", {"steps": 360, "pruner": "none"}, Forecast(2, 720)),
        ('"steps" = { low = 10, high = 50 }', {}, Forecast(2, 100, is_bound=True)),
        ('"views.count" = { choices = [1, 2, 4] }', {"steps": 10}, Forecast(2, 20, is_bound=True)),
    ],
)
def test_a_trial_takes_at_most_what_it_takes_whole(tmp_path, fields, settings, expected):
    file = tmp_path / "space.toml"
    file.write_text(SPACE.format(fields))
    task = make_task(normed(), "relu1", SearchSettings(space=file, count=2, **settings))
    found, passes = trial_forecast(task)
    assert found == expected
    assert passes == found.steps * (4 if "views" in fields else Recipe.load("draft").views.count)


def test_the_command_says_it_of_a_search(tmp_path, capsys, at_once, monkeypatch):
    (tmp_path / "space.toml").write_text(SPACE.format(""))
    monkeypatch.setattr(Meter, "rate", lambda *_: 0.2)
    words = [
        "--count",
        "1",
        "--steps",
        "2",
        "--dry",
        "--space",
        str(tmp_path / "space.toml"),
        "-o",
        str(tmp_path / "o"),
    ]
    net = own(tmp_path, "net", 0)
    assert main(["search", "-n", net, "--layer", "0", "--trials", "13", *words]) == 0
    out = capsys.readouterr().out
    assert f"14 images, 28 steps: {NOT_KNOWN}" in out
    assert "14 images, 28 steps: about 2 minutes\n" in out
    monkeypatch.setattr(Meter, "rate", lambda *_: 0.002)
    assert main(["search", "-n", net, "--layer", "0", "--trials", "14", *words]) == 0
    assert "1 image, 2 steps: about 17 minutes; `--trials 12` for a sample, and the same" in capsys.readouterr().out
