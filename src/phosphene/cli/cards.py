"""`judge` and `show`: what is known of finished images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from phosphene import provenance
from phosphene.cli.options import has_network_argument, named_default, open_argument
from phosphene.cli.printing import image_count
from phosphene.errors import InputError, printable
from phosphene.judges import judge as judge_module
from phosphene.judges.card_files import images_in, keep
from phosphene.provenance import Provenance
from phosphene.recipes.recipe import Recipe


def show(args: argparse.Namespace, console: Console) -> int:
    found = {path: provenance.read(path) for path in args.images}
    settings = {
        path: known.settings(f"image {str(path)!r}", trust=True, functions=False) for path, known in found.items()
    }
    if args.json:
        # ASCII, so that a terminal obeys nothing of it.
        print(json.dumps({str(path): known.to_dict() for path, known in found.items()}, indent=1), file=console.file)
        return 0
    for path, known in found.items():
        for line in _lines(known, settings[path]):
            console.print(printable(line, _LONGEST_LINE), markup=False, soft_wrap=True)
    return 0


_LONGEST_LINE = 20_000  # characters: a recipe has some hundred


def _lines(known: Provenance, recipe: Recipe) -> Iterator[str]:
    """What is known of an image, line by line."""
    yield f"unit      {printable(known.unit)}  ({printable(known.label)})"
    yield f"network   {known.network.name}, weights {known.network.weights}"
    yield f"recipe    {recipe.name}, seed {known.seed}"
    if functions := known.recipe.get("functions"):
        yield f"functions {printable(functions)}: the image cannot be made again"
    yield f"steps     {known.steps}, {known.stopped}"
    for step, name, value in known.changes:
        yield f"          from step {step} on: {name} = {printable(value)}"
    precision = " and ".join(dict.fromkeys(known.precision))
    yield f"made on   {known.device}, {known.threads} threads, in {precision}"
    scores = known.scores
    yield "scores    " + ", ".join(f"{name} {value:.4g}" for name, value in scores.numbers.items())
    for name, answer in scores.judges.items():
        yield f"judge     {name}: {_answer(answer.model_dump())}"
    if scores.judged:
        judged = scores.judged
        yield f"judged    top-1 {judged.top1:.0%}, top-5 {judged.top5:.0%}, probability {_share(judged.probability)}"
    if scores.robustness_rule:
        yield f"robust    where {scores.robustness_rule}"
    if scores.selectivity:
        yield f"rank      {_rank(scores.selectivity.model_dump(exclude_unset=True))}"
    if scores.nearest:
        near = scores.nearest
        yield f"nearest   {near.photograph}, at {near.distance:.3f} in {near.judge}"
    yield "versions  " + ", ".join(f"{name} {version}" for name, version in known.versions.items())
    yield f"\n{recipe.to_toml()}"


def _share(value: float | None) -> str:
    return "nan" if value is None else f"{value:.1%}"


def _answer(answer: dict[str, Any]) -> str:
    """A judge's probability of a class, marked `*` if it is its top-1 and `+` if it is in its top-5."""
    return f"{_share(answer['probability'])} {'*' if answer['top1'] else '+' if answer['top5'] else ' '}"


def _rank(selectivity: dict[str, int]) -> str:
    by_z = f", {selectivity['rank_by_z']} by z" if "rank_by_z" in selectivity else ""
    return f"{selectivity['rank']} of {selectivity['of']}{by_z}"


def judge(args: argparse.Namespace, console: Console) -> int:
    known = {path: provenance.load(path)[1] for given in args.images for path in images_in(given)}
    ours = [path for path, made in known.items() if made is not None]
    if args.shown is not None and len(ours) == len(known):
        raise InputError(f"--class {args.shown}: the images say themselves what they show, so expected none")
    network = None
    if has_network_argument(args):
        made_with = [made.network.source for made in known.values() if made]
        network = open_argument(args, named_default(made_with[0] if made_with else None, args.trust))
    named = None if args.judges is None else [] if args.judges == "none" else args.judges.split(",")
    shown = None if args.shown is None else f"class:{args.shown}"
    with Console(stderr=True, quiet=args.quiet or args.json).status("opening networks") as status:
        cards = judge_module.judge(
            list(known), named, network=network, unit=[None if made else shown for made in known.values()],
            photographs=args.photographs, trust=args.trust, device=args.device, on_progress=status.update,
        )  # fmt: skip
    if not args.dry:
        for path, card in zip(known, cards, strict=True):
            if path in ours:
                keep(path, card)
    if args.json:
        listed = [{"image": str(path), **card} for path, card in zip(known, cards, strict=True)]
        print(json.dumps(listed, indent=1), file=console.file)
    labels = [printable(made.label) if made else args.shown for made in known.values()]
    _print_cards(console, labels, cards)
    if named is None and any(card["judges"] for card in cards):
        console.print("the judges are EfficientNet-lites, which flatter images that a relative made: see --judges")
    if ours and not args.dry:
        console.print(f"the cards are in {image_count(len(ours))}: see `phosphene show`")
    return 0


def _print_cards(console: Console, labels: list[str], cards: list[dict[str, Any]]) -> None:
    asked = list(dict.fromkeys(name for card in cards for name in card["judges"]))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class" if asked else "shows")
    columns = ("own", *asked, "robust", "rank", "percentile", "slope", "saturated", "nearest photograph")
    rows = [[label, *_columns(card, asked)] for label, card in zip(labels, cards, strict=True)]
    filled = [i for i in range(1, len(columns) + 1) if any(row[i].strip() for row in rows)]
    for i in filled:
        table.add_column(columns[i - 1], justify="left" if columns[i - 1] == "nearest photograph" else "right")
    for row in rows:
        table.add_row(escape(row[0]), *(escape(row[i]) for i in filled))
    console.print(table)
    marks = "* its top-1   + in its top-5   " if asked else ""
    slope = sum(card["photographs_slope"] for card in cards) / len(cards)
    console.print(f"{marks}photographs have a slope of {slope:.1f}")
    tuned = list(dict.fromkeys(name for card in cards for name in card.get("tuned", ())))
    if tuned:
        console.print(f"note: these images' recipe was searched to please {', '.join(tuned)}: others are fairer judges")


def _columns(card: dict[str, Any], asked: list[str]) -> Iterator[str]:
    if "probability" in card:
        yield "nan" if card["probability"] is None else f"{card['probability']:.1%}"
    else:
        yield f"{card['objective']:.4g}" if card.get("objective") is not None else ""
    for name in asked:
        yield _answer(card["judges"][name]) if name in card["judges"] else ""
    yield f"{card['robustness']:.0%}" if "robustness" in card else ""
    yield _rank(card["selectivity"]) if "selectivity" in card else ""
    yield f"{card['percentile']:.1f}" if "percentile" in card else ""
    yield f"{card['slope']:.2f}" if card["slope"] is not None else "none"
    yield f"{card['saturated']:.1%}"
    yield f"{card['nearest']['photograph']} ({card['nearest']['distance']:.2f})" if "nearest" in card else ""
