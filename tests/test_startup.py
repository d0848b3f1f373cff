"""What needs no network is answered without torch, whose import takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import phosphene
from phosphene.cli import options, reproduce
from phosphene.cli.parser import ATLAS_VERBS, VERBS
from phosphene.draw.animation import ANIMATIONS
from phosphene.networks.labels import imagenet_labels
from phosphene.networks.preprocessing import PRESETS
from phosphene.networks.speed.precision import PRECISIONS
from phosphene.reproduce.rates import RATES

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))

from startup import TYPOS, commands

# Each command in turn, in one process: what none of them has imported, none needs.
ALL = """
import contextlib, io, json, sys
from phosphene.cli.program import main

for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
    heavy = ["torch", "torchvision", "timm", "matplotlib", "optuna", "pyarrow", "nicegui", "argcomplete"]
    heavy += ["numpy"] * (words[-1] == "--help")
    slow = [name for name in heavy if name in sys.modules]
    print(json.dumps([words, status, slow, out.getvalue(), err.getvalue()]))
    if slow:
        break
"""


def test_help_listings_and_typos_are_answered_without_torch(small, tmp_path):
    recipe = phosphene.Recipe.load("naive").override({"steps": 1})
    phosphene.ascend(small, "relu2:3", recipe).save(tmp_path)
    wanted = commands(str(next(tmp_path.glob("relu2*.png"))))
    done = subprocess.run([sys.executable, "-c", ALL, json.dumps(wanted)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for words, status, slow, out, err in answers:
        assert slow == [], words
        assert status == (2 if words in TYPOS else 0), (words, err)
        assert bool(out) == (words not in TYPOS), words
        assert "Traceback" not in err
    assert [words for words, *_ in answers] == wanted


def test_every_verb_has_a_module_and_every_module_a_verb_that_is_listed():
    folder = Path(phosphene.__file__).parent / "cli"
    for names, place in ((VERBS, folder), (ATLAS_VERBS, folder / "atlas")):
        verbs = {path.stem for path in place.glob("*.py") if "\ndef add_arguments(" in path.read_text()}
        assert verbs == set(names) - {"atlas"}


def test_the_choices_of_options_are_those_of_the_functions():
    assert tuple(PRESETS) == options.PRESETS
    assert ("auto", *PRECISIONS) == options.PRECISIONS
    assert options.ANIMATIONS == ANIMATIONS
    assert reproduce.RATES == RATES


SUBSETS = ("imagenet-1k", "imagenet-12k", "imagenet-21k-goog", "imagenet-21k-miil", "imagenet-22k", "imagenet-22k-ms")


@pytest.mark.parametrize("subset", SUBSETS)
def test_labels_are_those_that_timm_reads_itself(subset):
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    labels = imagenet_labels(subset)
    assert [label.wordnet for label in labels] == info.label_names()
    assert [", ".join(label.names) for label in labels][:1000] == [
        ", ".join(part.strip() for part in text.split(",")) for text in info.label_descriptions()[:1000]
    ]
