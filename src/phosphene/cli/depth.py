"""`depth`: how much of the output can be read at each layer, and what is lost where the network ends at one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from phosphene import defaults
from phosphene.cli import options
from phosphene.cli.printing import plain_table, print_json
from phosphene.cli.signals import importing

if TYPE_CHECKING:
    from rich.table import Table

    from phosphene.comparison.depth_report import DepthReport
    from phosphene.comparison.depth_rows import DepthRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photographs", type=Path, required=True, metavar="DIR", help="photographs, also in folders of the folder"
    )
    parser.add_argument(
        "--layers", nargs="+", metavar="LAYER", help="names or patterns; by default blocks, or activations, 40 at most"
    )
    parser.add_argument(
        "--labels-from", metavar="folders|FILE",
        help="probe what the photographs show, too: by their folders, or by a CSV or JSON file of file and label",
    )  # fmt: skip
    parser.add_argument("--cut", metavar="LAYER", help="end the network there, with a head fitted to its logits")
    parser.add_argument(
        "--limit", type=options.positive, default=defaults.PHOTOGRAPHS, metavar="N",
        help=f"of more photographs so many, evenly spread ({defaults.PHOTOGRAPHS})",
    )  # fmt: skip
    options.add_device(parser)
    options.add_out(parser)
    options.add_opening(parser)
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.comparison.depth import depth
        from phosphene.hardware import find_device

    network = options.open_argument(args)
    device = find_device(args.device)
    with options.resumable_run(args, console) as kept:
        report = depth(
            network, args.photographs, args.layers,
            labels=args.labels_from, cut=args.cut, limit=args.limit, device=device,
        )  # fmt: skip
        out = kept.folder
        files = report.save(out)
    options.show_page(args, out / "depth.png")
    if args.json:
        print_json(console, report.to_dict())
    _print(console, report)
    console.print(f"{', '.join(path.name for path in files)} are in {out}", soft_wrap=True, markup=False)
    return 0


def _print(console: Console, report: DepthReport) -> None:
    console.print(f"network  {report.network}, weights {report.weights}", markup=False)
    chance = (
        "" if report.top1_commonest is None else f"; its commonest first class is that of {report.top1_commonest:.1%}"
    )
    console.print(f"         {report.photographs} photographs{chance}")
    for note in report.notes:
        console.print(f"         note: {note}", soft_wrap=True, markup=False)
    console.print(_table(report))
    if report.classes:
        console.print(
            "R²: of the logits, read by a ridge   first: how often the network's first class is read (chance)"
        )
    console.print("99 %: directions with so much of the variance   ratio: participation ratio   before: CKA")
    console.print(f"\n{report.summary}", soft_wrap=True, markup=False)
    if report.cut is not None:
        console.print(f"\n{report.cut.summary}", soft_wrap=True, markup=False)


def _table(report: DepthReport) -> Table:
    columns = ["layer", "channels", *["CKA", "R²", "first"] * bool(report.classes), *["labels"] * bool(report.labeled),
               "ratio", "99 %", "before", "parameters", "time"]  # fmt: skip
    table = plain_table(*columns, right=columns[1:], no_wrap=True)
    for row in report.rows:
        logits = [
            _text(row.cka_logits),
            f"{_text(row.r2)} ± {_text(row.r2_error)}",
            _chance_text(row.top1, row.top1_chance),
        ]
        labels = [_chance_text(row.label_top1, row.label_chance)]
        table.add_row(
            row.layer,
            str(row.channels),
            *logits * bool(report.classes),
            *labels * bool(report.labeled),
            "" if row.participation is None else f"{row.participation:.1f}",
            str(row.directions),
            _text(row.cka_before),
            *_spent(row),
        )
    return table


def _spent(row: DepthRow) -> tuple[str, str]:
    return f"{row.parameter_share:.0%}", "" if row.time_share is None else f"{row.time_share:.0%}"


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _chance_text(value: float | None, chance: float | None) -> str:
    return "" if value is None or chance is None else f"{value:.0%} ({chance:.0%})"
