"""Ends every verb of the command line at random moments, and looks at what is left.  For docs/stopping.md.

    python bench/kills.py                   # each verb, by SIGINT and by SIGTERM, at 20 moments of each
    python bench/kills.py --moments 5 --only judge dream
    python bench/kills.py --search          # a search is killed 30 times by SIGKILL, and then ends by itself

Each run is of a process forked from this one, which has all libraries imported: its moments fall into the work, none
into the imports.  Those have a line of their own ("imports"), of processes that begin from nothing.  A run is right
where its exit status is 130, standard error has one line on it and no traceback, every file in its folder is whole, no
file lies beside its place, and no process is left.  One that had ended before its moment is counted apart.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pyarrow.parquet
from PIL import Image
from safetensors import safe_open

from phosphene.atlas import work  # noqa: F401 (imported once, for all the processes)
from phosphene.cli import program, running, signals
from phosphene.recipes.recipe import Recipe
from phosphene.studio import server  # noqa: F401
from phosphene.tuning import report  # noqa: F401

SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}
SMALL = ["--size", "48", "-q"]
LAYER = "blocks.1.0.bn1.act"
# In each run's folder are made/ (three images), photographs/ (six) and atlas/ (a plan, or also its images).
VERBS: dict[str, list[str]] = {
    "classes": ["classes", "1", "2", "3", "4", "5", "6", *SMALL, "--steps", "25", "--batch", "2", "-o", "out"],
    "classes, two processes": ["classes", "1", "2", "3", "4", *SMALL, "--steps", "25", "--batch", "1",
                               "--device", "cpu,cpu", "-o", "out"],
    "classes --best-of": ["classes", "1", "2", *SMALL, "--steps", "12", "--best-of", "2",
                          "--choosers", "efficientnet_lite1", "-o", "out"],
    "filters": ["filters", f"{LAYER}:0-5", *SMALL, "--steps", "25", "--batch", "2", "-o", "out"],
    "dream": ["dream", "photographs/0.png", LAYER, *SMALL, "--steps", "25", "--animate", "20", "-o", "out"],
    "invert": ["invert", "photographs/0.png", LAYER, *SMALL, "--steps", "25", "-o", "out"],
    "caricature": ["caricature", "photographs/0.png", LAYER, *SMALL, "--steps", "25", "-o", "out"],
    "reproduce": ["reproduce", "naive", "-n", "efficientnet_lite0", *SMALL, "--steps", "8", "-o", "out"],
    "again": ["again", "made/001_goldfish.png", "made/002_great_white_shark.png", "-q", "-o", "out"],
    "judge": ["judge", "made", "--judges", "none", "-q"],
    "search": ["search", "--layer", LAYER, "--count", "2", "--trials", "12", "--steps", "6", "--dry", "--report", "-q",
               "-o", "out"],
    "statistics": ["statistics", "photographs", "-o", "out/statistics.safetensors", "-q"],
    "statistics of a network": ["statistics", "photographs", "-n", "efficientnet_lite0",
                                "-o", "out/statistics.safetensors", "-q"],
    "doctor": ["doctor", "-q"],
    "profile": ["profile", "--size", "48", "--batch", "2", "-q"],
    "atlas plan": ["atlas", "plan", "atlas", "--layers", LAYER, "blocks.2.0.bn1.act", "--count", "3", "-q"],
    "atlas run": ["atlas", "run", "atlas", "-q"],
    "atlas run, two processes": ["atlas", "run", "atlas", "--workers", "2", "-q"],
    "atlas verify": ["atlas", "verify", "whole", "-q"],
    "atlas index": ["atlas", "index", "whole", "-q"],
    "atlas site": ["atlas", "site", "whole", "-q"],
    "studio": ["studio", "--no-browser", "--port", "0", "-q"],
}  # fmt: skip
SPACE = """
base = "base.toml"
[fields]
"optimizer.rate" = { low = 0.001, high = 0.5, log = true }
"canvas.contrast" = { low = 1.0, high = 5.0 }
"""
ENDS_ITSELF = [verb for verb in VERBS if verb != "studio"]


@dataclass
class Ended:
    """What one run left behind.

    Attributes:
        status: its exit status; minus the signal's number where it was killed by one.
        seconds: how long it ran.
        stderr: what it said there.
        wrong: all that is not as it should be.
    """

    status: int
    seconds: float
    stderr: str
    wrong: list[str] = field(default_factory=list)


def forked(arguments: Sequence[str], folder: Path) -> int:
    """Begin a command in a folder, in a process and a session of its own; gives the process's number."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS.values())
    number = os.fork()
    if number:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS.values())
        return number
    os.setsid()
    os.chdir(folder)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    for each in SIGNALS.values():
        signal.signal(each, signals.end)  # as `command` does it first of all
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS.values())
    faulthandler.dump_traceback_later(100)  # where one that does not end is
    sys.argv = ["phosphene", *arguments]
    program.command()
    raise AssertionError("a command ends its process")


def ended(number: int, folder: Path, moment: float | None, by: int, patience: float = 120.0) -> Ended:
    """Wait for a process, which at a moment gets a signal."""
    begun = time.monotonic()
    sent = False
    while True:
        found, status = os.waitpid(number, os.WNOHANG)
        seconds = time.monotonic() - begun
        if found:
            break
        if moment is not None and not sent and seconds >= moment:
            os.kill(number, by)
            sent = True
        if seconds > (moment or 0) + patience:
            os.killpg(number, signal.SIGKILL)
            os.waitpid(number, 0)
            return Ended(-9, seconds, folder.with_suffix(".stderr").read_text(), ["it did not end"])
        time.sleep(0.002)
    stderr = folder.with_suffix(".stderr").read_text()
    return Ended(os.waitstatus_to_exitcode(status), seconds, stderr)


def looked_at(run: Ended, number: int, folder: Path, right: Sequence[int]) -> Ended:
    """Note all that is wrong with what a run left."""
    lines = [line for line in run.stderr.splitlines() if "interrupted" in line]
    if run.status not in right:
        run.wrong.append(f"exit status {run.status}")
    if "Traceback" in run.stderr or "Exception ignored" in run.stderr or "Error" in run.stderr:
        run.wrong.append("a traceback")
    if run.status == 130 and len(lines) != 1:
        run.wrong.append(f"{len(lines)} lines say so")
    run.wrong += damaged(folder)
    time.sleep(0.05)
    run.wrong += [f"process left: {left}" for left in left_over(number)]
    return run


def damaged(folder: Path) -> list[str]:
    """The files of a folder that are not whole, or lie beside their place."""
    wrong = []
    for path in folder.rglob("*"):
        if path.name.startswith(".") and path.is_file():
            wrong.append(f"left beside its place: {path.relative_to(folder)}")
        elif path.is_file():
            try:
                read(path)
            except Exception as error:
                wrong.append(f"{path.relative_to(folder)}: {type(error).__name__}")
    return wrong


def read(path: Path) -> None:
    """Raise some exception where a file is not whole."""
    kind = path.suffix
    if kind in (".png", ".webp", ".gif"):
        with Image.open(path) as image:
            image.load()
    elif kind == ".json":
        json.loads(path.read_text())
    elif kind == ".toml":
        tomllib.loads(path.read_text())
    elif kind == ".safetensors":
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                file.get_tensor(name)
    elif kind == ".parquet":
        pyarrow.parquet.read_table(io.BytesIO(path.read_bytes()))
    elif kind == ".journal":
        for line in path.read_text().splitlines():
            json.loads(line)


def left_over(number: int) -> list[str]:
    """What still runs in a process's session, but for what helps Python's own processes."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != number and os.getsid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                words = " ".join(process.cmdline())
                if "resource_tracker" not in words:
                    found.append(words[:80] or process.name())
        except (psutil.Error, ProcessLookupError):
            continue
    return found


# What the verbs work on.


def prepared(place: Path) -> Path:
    """A folder with what the verbs need, to be copied for each run."""
    folder = place / "prepared"
    (folder / "photographs").mkdir(parents=True)
    (folder / "out").mkdir()
    draw = np.random.default_rng(1)
    for index in range(24):
        noise = draw.integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(noise).resize((160, 160)).save(folder / f"photographs/{index}.png")
    few = ["--layers", LAYER, "--count", "8", "--steps", "12", "--size", "48", "--frames", "3"]
    for arguments in (
        ["classes", "1", "2", "3", *SMALL, "--steps", "25", "-o", "made"],
        ["atlas", "plan", "atlas", *few, "-q"],
        ["atlas", "plan", "whole", *few, "-q"],
        ["atlas", "run", "whole", "-q"],
    ):
        run = ended(forked(arguments, folder), folder, None, 0, 600)
        if run.status:
            raise SystemExit(f"{' '.join(arguments)} ended with {run.status}: {run.stderr}")
    return folder


def copied(prepared: Path, place: Path, name: str) -> Path:
    folder = place / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder)
    return folder


# Signals.


def undisturbed(verb: str, arguments: Sequence[str], place: Path, ready: Path) -> float:
    """The seconds that a verb works; ending a process that has all libraries takes longer than some do."""
    number = forked(["--version"], copied(ready, place, "run"))
    nothing = ended(number, place / "run", None, 0, 600).seconds
    folder = copied(ready, place, "run")
    number = forked(arguments, folder)
    whole = looked_at(ended(number, folder, None, 0, 600), number, folder, (0, 1))
    if whole.wrong:
        raise SystemExit(f"{verb} does not work: {whole.wrong} {whole.stderr}")
    return max(0.05, whole.seconds - nothing)


def tried(verb: str, arguments: Sequence[str], place: Path, ready: Path, moments: int, draw: random.Random) -> str:
    """A row of the table: a verb ended at so many random moments by each signal."""
    # The first of three is slower than all after it.
    span = min(undisturbed(verb, arguments, place, ready) for _ in range(3)) if verb in ENDS_ITSELF else 6.0
    cells = []
    wrong: Counter[str] = Counter()
    for by in SIGNALS.values():
        right = late = 0
        for _ in range(moments):
            folder = copied(ready, place, "run")
            number = forked(arguments, folder)
            run = ended(number, folder, draw.uniform(0.01, span), by)
            over = run.status in (0, 1) and not run.wrong and "interrupted" not in run.stderr
            # A page's server ends by Ctrl-C as a rule: that is no interruption.
            looked_at(run, number, folder, (0, 130) if over or verb == "studio" else (130,))
            wrong.update(run.wrong)
            late += over and verb != "studio"
            right += not run.wrong
            if run.wrong:
                print(f"{verb}: {run.wrong}\n{run.stderr[-1500:]}", file=sys.stderr, flush=True)
        cells.append(f"{right} of {moments}" + (f" ({late} had ended)" if late else ""))
    words = "; ".join(f"{what} ({count})" for what, count in wrong.items()) or "none"
    return f"| {verb} | {span:.1f} s | {' | '.join(cells)} | {words} |"


def of_imports(place: Path, moments: int, draw: random.Random) -> str:
    """The row of processes that begin from nothing."""
    command = [sys.executable, "-m", "phosphene", "layers"]
    begun = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    span = time.monotonic() - begun
    cells = []
    wrong: Counter[str] = Counter()
    for by in SIGNALS.values():
        right = 0
        for _ in range(moments):
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
            time.sleep(draw.uniform(0.3, span))
            process.send_signal(by)
            run = Ended(0, 0.0, process.communicate(timeout=120)[1])
            run.status = process.returncode
            # Killed with nothing said is one whose Python had not begun to run its first line yet.
            looked_at(run, process.pid, place / "none", (130,) if run.stderr else (0, 130, -by))
            wrong.update(run.wrong)
            right += not run.wrong
            if run.wrong:
                print(f"imports: {run.wrong}\n{run.stderr[-1500:]}", file=sys.stderr, flush=True)
        cells.append(f"{right} of {moments}")
    words = "; ".join(f"{what} ({count})" for what, count in wrong.items()) or "none"
    return f"| imports (`layers`) | {span:.1f} s | {' | '.join(cells)} | {words} |"


def of_verbs(
    place: Path, only: Sequence[str] | None, moments: int, draw: random.Random, tell: Callable[[str], None]
) -> None:
    ready = prepared(place)
    tell("| verb | takes | SIGINT | SIGTERM | what was wrong |")
    tell("|---|---|---|---|---|")
    if not only or "imports" in only:
        tell(of_imports(place, moments, draw))
    for verb, arguments in VERBS.items():
        if not only or verb in only:
            tell(tried(verb, arguments, place, ready, moments, draw))


# Kills of a search.


def trials_of(out: Path) -> dict[int, tuple[Any, ...]]:
    """The trials of a search that are complete, by number."""
    file = out / "searches.journal"
    if not file.exists() or not file.read_bytes():
        return {}
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    found = {}
    for study in storage.get_all_studies():
        for trial in storage.get_all_trials(study._study_id):
            if trial.state.name == "COMPLETE":
                found[trial.number] = (tuple(trial.params.items()), tuple(trial.values), trial.datetime_complete)
    return found


def of_searches(place: Path, kills: int, draw: random.Random, tell: Callable[[str], None]) -> None:
    """Kill a search again and again, then let it end."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = place / "search"
    folder.mkdir()
    (folder / "base.toml").write_text(Recipe.load("draft").override({"size": [48, 48]}).to_toml())
    (folder / "space.toml").write_text(SPACE)
    few = ["search", "--layer", LAYER, "--count", "8", "--dry", "-q", "--pruner", "none", "--space", "space.toml"]
    few += ["-o", "out", "--steps", "4", "--trials"]
    first = ended(forked([*few, "4"], folder), folder, None, 0, 600)
    if first.status:
        raise SystemExit(first.stderr)
    clock = first.seconds
    shutil.rmtree(folder / "out")
    known: dict[int, tuple[Any, ...]] = {}
    lost = again = with_new = 0
    tell("| kills | complete before | complete after | lost | made twice |")
    tell("|---|---|---|---|---|")
    for kill in range(1, kills + 1):
        # Never many more than there are: so that also the last ones of the search are killed.
        number = forked([*few, str(len(known) + draw.choice((2, 4, 12)))], folder)
        ended(number, folder, draw.uniform(0.2, 2.0) * clock, signal.SIGKILL)
        now = trials_of(folder / "out")
        lost += len([each for each in known if now.get(each) != known[each]])
        again = len(now) - len({params for params, _, _ in now.values()})
        with_new += len(now) > len(known)
        if kill % 5 == 0:
            tell(f"| {kill} | {len(known)} | {len(now)} | {lost} | {again} |")
        known = now
    trials = len(known) + 4
    run = ended(forked([*few, str(trials)], folder), folder, None, 0, 1200)
    now = trials_of(folder / "out")
    lost += len([each for each in known if now.get(each) != known[each]])
    again = len(now) - len({params for params, _, _ in now.values()})
    tell(f"| then to its end, status {run.status} | {len(known)} | {len(now)} of {trials} | {lost} | {again} |")
    tell(f"\nAfter {with_new} of the {kills} kills there were trials complete that were not before. {run.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20, metavar="N", help="of each signal and verb (20)")
    parser.add_argument("--only", nargs="+", metavar="VERB", help="some of the rows")
    parser.add_argument("--search", action="store_true", help="kill a search")
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="of the search (30)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    assert running  # imported for the processes
    place = Path(tempfile.mkdtemp())  # not a context: the processes leave it, too
    if args.search:
        of_searches(place, args.kills, draw, lambda line: print(line, flush=True))
    else:
        of_verbs(place, args.only, args.moments, draw, lambda line: print(line, flush=True))
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
