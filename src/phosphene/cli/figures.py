"""`reproduce`: the figures of the post."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from phosphene.ascent.progress import Progress
from phosphene.ascent.run_options import RunOptions
from phosphene.cli import statuses
from phosphene.cli.options import open_argument
from phosphene.cli.printing import image_count, progress_bar, result_table
from phosphene.devices.names import parse_devices
from phosphene.draw.animation import require_mp4, save_animation
from phosphene.errors import InputError
from phosphene.files import make_directory
from phosphene.interruption import interruptible
from phosphene.networks.network import Network
from phosphene.picture import Picture, save_picture
from phosphene.reproduce import figures as figure_list
from phosphene.reproduce.figures import Figure, find_figure
from phosphene.reproduce.files import save_figure
from phosphene.reproduce.make import make
from phosphene.reproduce.plan import FigurePlan, FigureRow, FigureSettings, plan
from phosphene.result import Result


def reproduce_figures(args: argparse.Namespace, console: Console) -> int:
    if args.list or not args.figures:
        if args.json:
            print(
                json.dumps([asdict(figure) for figure in figure_list.figures().values()], indent=1), file=console.file
            )
            return 0
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("figure", "network", "what it shows"):
            table.add_column(column, overflow="fold")
        for figure in figure_list.figures().values():
            table.add_row(figure.name, figure.network, figure.title)
        console.print(table)
        return 0
    figures = [find_figure(name) for name in dict.fromkeys(args.figures)]
    settings = FigureSettings(
        classes=args.classes, channels=args.channels, size=None if args.size is None else tuple(args.size),
        at_receptive_field=args.receptive_field, rates=args.rates, steps=args.steps,
    )  # fmt: skip
    plans = [
        plan(figure, _figures_network(args, figure), settings, seed=args.seed, device=parse_devices(args.device)[0])
        for figure in figures
    ]
    if args.animation == "mp4" and any(figure.animate for figure in figures):
        require_mp4()
    made = []
    for planned in plans:
        with interruptible() as stop:
            out = make_directory(args.out / planned.figure.name if len(plans) > 1 else args.out)
            rows = _make_figure(args, console, planned, out)
            made.append(save_figure(planned, rows, out))
        if stop.is_set() or any(result.interrupted for _, result in rows):
            kept = sum(len(result) for _, result in rows)
            total = sum(len(row.units) for row in planned.rows)
            print(f"phosphene: interrupted: {kept} of {image_count(total)} kept in {out}", file=sys.stderr)
            return statuses.INTERRUPTED
        console.print(f"figure.png, figure.json and the post's own grids are in {out}")
    if args.json:
        print(json.dumps(made, indent=1), file=console.file)
    return 0


def _figures_network(args: argparse.Namespace, figure: Figure) -> Network:
    """The network asked for, or the post's with the weights given: Caffe's or torchvision's."""
    if args.network:
        return open_argument(args)
    if not args.weights:
        raise InputError(
            f"{figure.name} is of {figure.network}, whose weights do not ship: give them (--weights FILE.caffemodel, "
            "or torchvision's .pth), or another network (--network efficientnet_lite0)"
        )
    theirs = {"vgg16": "torchvision:vgg16", "caffenet": "torchvision:alexnet"}
    caffe = Path(args.weights).suffix == ".caffemodel"
    return open_argument(args, f"caffe:{figure.network}" if caffe else theirs[figure.network])


def _make_figure(
    args: argparse.Namespace, console: Console, planned: FigurePlan, out: Path
) -> list[tuple[FigureRow, Result]]:
    network = planned.rows[0].network
    total = sum(len(row.units) for row in planned.rows)
    console.print(f"figure   {planned.figure.name}: {planned.figure.title}")
    console.print(f"network  {network.name}, weights {network.digest}, eats {network.preprocessing.describe()}")
    for note in network.notes.values():
        console.print(f"         note: {note}", soft_wrap=True)
    console.print(f"settings {planned.settings}", soft_wrap=True)
    console.print(f"making   {image_count(total)} in {out}")
    before = 0
    rows: list[tuple[FigureRow, Result]] = []

    def save(row: FigureRow, picture: Picture) -> None:
        save_picture(picture, out)
        if planned.figure.animate and picture.frames:
            save_animation(picture, out, args.animation)

    with progress_bar(args, total) as show:

        def progress(row: FigureRow, at: Progress) -> None:
            if show is not None:
                work = (before + at.work * at.total) / total
                show(replace(at, done=before + at.done, total=total, work=work))

        options = RunOptions(device=parse_devices(args.device), batch=args.batch, precision=args.precision)
        for row, result in make(planned, seed=args.seed, options=options, on_progress=progress, on_picture=save):
            rows.append((row, result))
            before += len(row.units)
    for row, result in rows:
        console.print(f"\n{row.label}")
        console.print(result_table(result))
    return rows
