"""`judge`: what other networks see in images, and what is measured of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from phosphene.cli import explanations, options, printing
from phosphene.cli.signals import importing
from phosphene.errors import InputError, printable

if TYPE_CHECKING:
    from phosphene.networks.network import Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="images, or folders of phosphene's")
    parser.add_argument(
        "--judges", metavar="A,B",
        help="names, files, FILE=WEIGHTS or …@PREPROCESSING, lpips, dreamsim; none; by default the EfficientNet-lites "
        "that are here",
    )  # fmt: skip
    parser.add_argument("--class", dest="shown", metavar="CLASS", help="what images show that phosphene did not make")
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR",
        help="compare with these: at least 100 of many kinds tell what pictures of hidden units explain",
    )  # fmt: skip
    parser.add_argument(
        "--dictionary", action="append", default=[], metavar="FILE", help="of images of its latents, for --photographs"
    )
    parser.add_argument(
        "--words", type=Path, metavar="FILE", help="rank an image's text among these, one a line (clip:MODEL)"
    )
    parser.add_argument("--dry", action="store_true", help="write no card into the images")
    options.add_device(parser)
    options.add_opening(parser, "the one that each image names")
    options.add_trust(parser, "image")
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from phosphene.judges.card_files import images_in, keep, without_sheets
    from phosphene.provenance.reading import load

    given = without_sheets(args.images)
    known = {path: load(path)[1] for each in given for path in images_in(each)}
    if left := len(args.images) - len(given):
        console.print(f"note: {left} of the files are sheets of several images, and are left out", soft_wrap=True)
    ours = [path for path, made in known.items() if made is not None]
    if args.shown is not None and len(ours) == len(known):
        raise InputError(f"--class {args.shown}: the images say themselves what they show, so expected none")
    with importing():
        from phosphene.dictionaries.reading import open_dictionary
        from phosphene.judges.judge import judge

    network = None
    if options.has_network_argument(args):
        made_with = [made.network.source for made in known.values() if made]
        network = options.open_argument_or_recorded(args, made_with[0] if made_with else None)
    for file in args.dictionary:
        open_dictionary(file)  # stays in memory, where images of its latents find it
    names = None if args.judges is None else [] if args.judges == "none" else args.judges.split(",")
    shown = None if args.shown is None else f"class:{args.shown}"
    cards = judge(
        list(known), names, network=network, unit=[None if made else shown for made in known.values()],
        photographs=args.photographs, trust=args.trust, device=args.device,
    )  # fmt: skip
    if args.words is not None:
        cards = _with_words(args, list(known), cards, network)
    if not args.dry:
        for path, card in zip(known, cards, strict=True):
            if path in ours:
                keep(path, card)
    if args.json:
        printing.print_json(console, [{"image": str(path), **card} for path, card in zip(known, cards, strict=True)])
    labels = [printable(made.label) if made else args.shown for made in known.values()]
    _print_cards(console, labels, cards)
    for label, card in zip(labels, cards, strict=True):
        if near := card.get("nearest_words"):
            told = ", ".join(f"{printable(word, 40)} {cosine:.3f}" for word, cosine in near)
            console.print(f"nearest words to {escape(str(label))}: {escape(told)}", soft_wrap=True)
    explanations.print_explanations(console, labels, cards)
    if names is None and any(card["judges"] or "explanation" in card for card in cards):
        console.print("the judges are EfficientNet-lites, which flatter images that a relative made: see --judges")
    if ours and not args.dry:
        console.print(f"the cards are in {printing.image_count(len(ours))}: see `phosphene show`")
    return 0


def _with_words(
    args: argparse.Namespace, paths: list[Path], cards: list[dict[str, Any]], network: Network | None
) -> list[dict[str, Any]]:
    """The cards with the rank of each image's text among words."""
    from phosphene.judges.word_names import read_words
    from phosphene.judges.word_ranks import rank_words

    words = read_words(args.words)
    ranks = rank_words(paths, words, network=network, trust=args.trust, device=args.device)
    if not any(ranks):
        raise InputError("--words are compared with images of texts: expected images that `classes --text` made")
    return [card | found for card, found in zip(cards, ranks, strict=True)]


def _print_cards(console: Console, labels: list[str], cards: list[dict[str, Any]]) -> None:
    judges = list(dict.fromkeys(name for card in cards for name in card["judges"]))
    columns = ("own", *judges, "robust", "rank", "percentile", "slope", "saturated", "nearest photograph")
    rows = [list(_values(card, judges)) for card in cards]
    filled = [index for index in range(len(columns)) if any(row[index].strip() for row in rows)]
    table = printing.plain_table("class" if judges else "shows")
    for index in filled:
        table.add_column(columns[index], justify="left" if columns[index] == "nearest photograph" else "right")
    for label, row in zip(labels, rows, strict=True):
        table.add_row(escape(label), *(escape(row[index]) for index in filled))
    console.print(table)
    marks = "* its top-1   + in its top-5   " if judges else ""
    slope = sum(card["photographs_slope"] for card in cards) / len(cards)
    console.print(f"{marks}photographs have a slope of {slope:.1f}")
    tuned = list(dict.fromkeys(name for card in cards for name in card.get("tuned", ())))
    if tuned:
        console.print(f"note: these images' recipe was searched to please {', '.join(tuned)}: others are fairer judges")


def _values(card: dict[str, Any], judges: list[str]) -> Iterator[str]:
    """A card's row of the table."""
    if "probability" in card:
        yield printing.share_text(card["probability"])
    else:
        yield f"{card['objective']:.4g}" if card.get("objective") is not None else ""
    for name in judges:
        yield printing.judgement_text(card["judges"][name]) if name in card["judges"] else ""
    yield f"{card['robustness']:.0%}" if "robustness" in card else ""
    yield printing.rank_text(card["selectivity"]) if "selectivity" in card else ""
    yield f"{card['percentile']:.1f}" if "percentile" in card else ""
    yield f"{card['slope']:.2f}" if card["slope"] is not None else "none"
    yield f"{card['saturated']:.1%}"
    yield f"{card['nearest']['photograph']} ({card['nearest']['distance']:.2f})" if "nearest" in card else ""
