"""`doctor`: whether the preprocessing of a network is right, and what of it can be shown."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from phosphene.cli.options import add_device, add_opening, add_printing, open_argument, positive
from phosphene.cli.printing import plain_table, print_json
from phosphene.cli.signals import importing

if TYPE_CHECKING:
    from phosphene.doctor.diagnostics import Diagnostic
    from phosphene.doctor.fitting import PreprocessingFit
    from phosphene.doctor.photographs import LabeledPhotographs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="photographs, labeled by their names or their folders'"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a table of their labels, with columns file,label")
    parser.add_argument("--limit", type=positive, default=200, metavar="N", help="photographs at most (200)")
    add_device(parser)
    add_opening(parser)
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.doctor import inspection, photographs
        from phosphene.doctor.fitting import fit
        from phosphene.hardware import find_device

    network = open_argument(args)
    device = find_device(args.device)
    console.print(f"network  {network.name}, weights {network.digest}")
    labeled = fitted = images = None
    if args.csv is not None:
        labeled = photographs.label_by_table(args.csv, network, args.images).at_most(args.limit)
    elif args.images is not None:
        labeled = photographs.label_by_name(args.images, network).at_most(args.limit)
    if labeled is not None:
        (pixels,), _ = photographs.read_photographs(labeled.at_most(64), [network.preprocessing])
        images = pixels.float()
    diagnostics = inspection.inspect(network, images, device)
    if labeled is not None:
        fitted = fit(network, labeled, device)
        diagnostics += fitted.diagnostics
    if args.json:
        print_json(console, {"findings": diagnostics, "fit": fitted and fitted.to_dict()}, default=vars)
    _print_diagnostics(console, diagnostics)
    if labeled is not None and fitted is not None:
        _print_fit(console, labeled, fitted)
    return 1 if any(diagnostic.level == "warning" for diagnostic in diagnostics) else 0


def _print_diagnostics(console: Console, diagnostics: list[Diagnostic]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in ("level", "topic", "text"):
        table.add_column(name, overflow="fold", no_wrap=name != "text")
    for diagnostic in diagnostics:
        level = f"[bold]{diagnostic.level}[/bold]" if diagnostic.level == "warning" else diagnostic.level
        table.add_row(level, diagnostic.topic, escape(diagnostic.text))
    console.print(table)


def _print_fit(console: Console, photographs: LabeledPhotographs, fit: PreprocessingFit) -> None:
    right = ("named right", "of", "probability")
    table = plain_table("", "preprocessing", "input", "photographs", *right, right=right)
    for trial in fit.trials:
        table.add_row(
            "*" if trial == fit.best else "=" if trial.same else "", trial.name, trial.preprocessing.describe(),
            trial.rule, f"{trial.accuracy:.1%}", str(trial.photographs), f"{trial.probability:.1%}",
        )  # fmt: skip
    console.print()
    console.print(table)
    console.print("* fits   = cannot be told from it   probability: the mean one of the true class")
    left_out = {"tell no class by their name": len(photographs.unlabeled), "are unreadable": fit.unreadable}
    if any(left_out.values()):
        parts = (f"{count} {what}" for what, count in left_out.items() if count)
        console.print(f"of the image files, {' and '.join(parts)}")
    if fit.suggestion:
        is_option = fit.suggestion.startswith("--")
        where = "" if is_option else " in a TOML file (--preprocessing FILE, or beside the network's)"
        console.print(f"\nsay so{where}:\n\n{fit.suggestion}", markup=False)
