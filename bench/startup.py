"""CPU seconds of each command that needs no network: help, listings, what an image says of itself, and typos.

    python bench/startup.py

Each command runs in a process of its own, --rounds times; the table has the least, and what is over --limit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from phosphene.cli.parser import ATLAS_VERBS, VERBS

VERSION = ["--version"]
HELP = [["--help"], *([verb, "--help"] for verb in VERBS), *(["atlas", verb, "--help"] for verb in ATLAS_VERBS)]
LISTINGS = [["recipes"], ["recipes", "natural"], ["recipes", "deepinversion"], ["recipes", "--fields"]]
TYPOS = [
    ["clases", "flamingo"],
    ["atlas", "plam", "atlas"],
    ["classes", "flamingo", "--steeps", "3"],
    ["atlas", "plan", "atlas", "--clases", "1"],
    ["recipes", "tense"],
    ["show", "nowhere.png"],
    ["reproduce", "naiv"],
    ["classes", "flamigo"],
    ["filters", "class:flamigo"],
    ["atlas", "plan", "atlas", "--classes", "flamigo"],
    *([*verb, "-r", "tense"] for verb in (["classes", "1"], ["filters", "x"], ["profile"], ["atlas", "plan", "atlas"])),
    *([verb, "photograph.jpg", "-r", "tense"] for verb in ("dream", "invert", "caricature")),
    ["classes", "1", "--set", "optimzer.rate=3"],
    ["filters", "x", "-r", "maco", "--set", "optimizer.rat=3"],
    ["profile", "-r", "deepinversion", "--set", "median.sise=3"],
    ["compare", "efficientnet_lite0"],
    ["compare", "a", "b", "--photographs", "nowhere", "-r", "tense"],
    ["explain", "photograph.jpg", "--methods", "salency"],
    ["explain", "photograph.jpg", "class:flamigo"],
]


def commands(image: str) -> list[list[str]]:
    """All of them; `image` is one that phosphene made."""
    return [VERSION, *HELP, *LISTINGS, ["show", image], *TYPOS]


def cpu_seconds(words: Sequence[str]) -> float:
    """The CPU time of a command, also in the kernel."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "phosphene", *words], capture_output=True, check=False)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=0.5, help="seconds")
    args = parser.parse_args()
    slow = 0
    with tempfile.TemporaryDirectory() as folder:
        image = str(Path(folder) / "001_goldfish.png")
        make = [sys.executable, "-m", "phosphene", "classes", "1", "--steps", "1", "--size", "32", "-q", "-o", folder]
        subprocess.run(make, check=True)
        print("| command | CPU seconds | |\n|---|--:|---|", flush=True)
        for words in commands(image):
            least = min(cpu_seconds(words) for _ in range(args.rounds))
            slow += least > args.limit
            shown = " ".join("IMAGE.png" if word == image else word for word in words)
            print(f"| `{shown}` | {least:.2f} | {'slow' if least > args.limit else ''} |", flush=True)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
