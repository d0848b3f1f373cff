"""`show`: how an image was made, from its own file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from phosphene.cli.options import add_printing
from phosphene.cli.printing import judgement_text, print_json, rank_text, share_error_text, share_text
from phosphene.errors import printable

if TYPE_CHECKING:
    from phosphene.provenance.records import Provenance, Scores
    from phosphene.recipes.recipe import Recipe

_LONGEST_LINE = 20_000  # characters: a recipe has some hundred


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE.png")
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from phosphene.provenance.reading import read

    known = {path: read(path) for path in args.images}
    recipes = {path: each.settings(f"image {str(path)!r}", trust=True, functions=False) for path, each in known.items()}
    if args.json:
        print_json(console, {str(path): each.to_dict() for path, each in known.items()})
        return 0
    for path, each in known.items():
        for line in _lines(each, recipes[path]):
            console.print(printable(line, _LONGEST_LINE), markup=False, soft_wrap=True)
    return 0


def explanation_lines(scores: Scores) -> Iterator[str]:
    """What judges say of a hidden unit's picture, and how the network goes through a picture."""
    found = scores.explanation
    if found and found.score is not None:
        beside = [
            f"{text} {share_error_text(each.score, each.error)}"
            for text, each in (("its best photograph", found.best_photograph), ("nine", found.nine_photographs))
            if each is not None
        ]
        yield f"explains  {share_error_text(found.score, found.error)} (chance 0.50; {', '.join(beside)})"
        if found.together:
            yield f"          all its images together {share_error_text(found.together.score, found.together.error)}"
    elif found and found.missing:
        yield f"explains  not known: {printable(found.missing)}"
    if scores.path_similarity:
        yield f"path      {scores.path_similarity.mean:.2f} (1: as photographs that excite the unit; 0: as any)"


def _lines(known: Provenance, recipe: Recipe) -> Iterator[str]:
    """What is known of an image, line by line."""
    yield f"unit      {printable(known.unit)}  ({printable(known.label)})"
    yield f"network   {known.network.name}, weights {known.network.weights}"
    yield f"recipe    {recipe.name}, seed {known.seed}"
    if known.functions:
        yield f"functions {printable(', '.join(known.functions))}: the image cannot be made again"
    yield f"steps     {known.steps}, {known.stopped}"
    for step, name, value in known.changes:
        yield f"          from step {step} on: {name} = {printable(value)}"
    precision = " and ".join(dict.fromkeys(known.precision))
    yield f"made on   {known.device}, {known.threads} threads, in {precision}"
    scores = known.scores
    yield "scores    " + ", ".join(f"{name} {value:.4g}" for name, value in scores.numbers.items())
    for name, judgement in scores.judges.items():
        yield f"judge     {name}: {judgement_text(judgement.model_dump())}"
    if scores.judged:
        mean = scores.judged
        yield f"judged    top-1 {mean.top1:.0%}, top-5 {mean.top5:.0%}, probability {share_text(mean.probability)}"
    if scores.robustness_rule:
        yield f"robust    where {scores.robustness_rule}"
    if scores.selectivity:
        yield f"rank      {rank_text(scores.selectivity.model_dump(exclude_unset=True))}"
    yield from explanation_lines(scores)
    if scores.nearest:
        near = scores.nearest
        yield f"nearest   {near.photograph}, at {near.distance:.3f} in {near.judge}"
    yield "versions  " + ", ".join(f"{name} {version}" for name, version in known.versions.items())
    yield f"\n{recipe.to_toml()}"
