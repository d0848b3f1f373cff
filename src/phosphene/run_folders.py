"""A folder for each run, so that none overwrites another."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

from phosphene.errors import InputError
from phosphene.files import make_directory

ROOT = Path("phosphene-out")
"""Where runs are kept that are given no folder."""
LATEST = "latest"
RECORD = "run.json"
"""The record of a run: a folder that has it, or another record named `RECORDS`, is a run's."""
RECORDS = (RECORD, "compare.json", "depth.json", "explain.json", "difference.json", "figure.json")
UNFINISHED = "unfinished.safetensors"
"""What a run that was killed goes on from."""
SHEETS = ("grid.png", "objective.png", "figure.png", "compare.png", "depth.png", "explain.png", "difference.png")
"""Images that show a run as a whole."""


def run_folder(
    given: Path | None, verb: str, root: Path = ROOT, is_unfinished: Callable[[Path], bool] | None = None
) -> Path:
    """Make the folder of a run.

    Without one given it is the next number in `root`, such as `phosphene-out/003-classes`, and `phosphene-out/latest`
    leads to it, where the system has links.  One that is given is taken, unless it holds the record of another run:
    then it is the next number behind it, `DIR-2`.

    Args:
        is_unfinished: whether a folder holds this very run, unfinished; the latest that does is taken.

    Raises:
        InputError: it cannot be made or written.
    """
    goes_on = is_unfinished or (lambda folder: False)
    if given is None:
        unfinished = (folder for folder in _latest_first(root, verb) if goes_on(folder))
        made = next(unfinished, None) or _next_number(root, verb)
        _point_latest(root, made)
        return made
    further = (given.with_name(f"{given.name}-{number}") for number in itertools.count(2))
    return make_directory(
        next(each for each in itertools.chain([given], further) if goes_on(each) or not _is_taken(each))
    )


def _latest_first(root: Path, verb: str) -> list[Path]:
    """The folders of a verb's runs that are not finished."""
    names = os.listdir(root) if root.is_dir() else []
    found = sorted((int(run[1]), name) for name in names if (run := re.fullmatch(rf"(\d{{1,9}})-{verb}", name)))
    return [root / name for _, name in reversed(found) if (root / name / UNFINISHED).exists()]


def _is_taken(folder: Path) -> bool:
    return holds_run(folder) or (folder / UNFINISHED).exists()


def holds_run(folder: Path) -> bool:
    """Whether a folder holds the record of a run."""
    return any((folder / name).exists() for name in RECORDS)


def _next_number(root: Path, verb: str) -> Path:
    make_directory(root)
    numbers = [int(found[1]) for name in os.listdir(root) if (found := re.match(r"(\d{1,9})-", name))]
    for number in itertools.count(max(numbers, default=0) + 1):
        folder = root / f"{number:03d}-{verb}"
        try:
            folder.mkdir()
        except FileExistsError:  # by another command, at this moment
            continue
        except OSError as error:
            raise InputError(f"directory {str(folder)!r} cannot be written: {error.strerror}") from error
        return folder
    raise AssertionError("there is always a next number")


def _point_latest(root: Path, folder: Path) -> None:
    """Have `latest` lead to a folder; where the system has no links, nothing does."""
    link, aside = root / LATEST, root / f".{LATEST}.{os.getpid()}"
    if link.exists() and not link.is_symlink():  # the user's own
        return
    try:
        aside.symlink_to(folder.name, target_is_directory=True)
        os.replace(aside, link)
    except OSError:
        aside.unlink(missing_ok=True)
