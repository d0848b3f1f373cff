"""`reproduce`: the figures of the post."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from phosphene.cli import statuses
from phosphene.cli.options import add_opening, add_printing, add_running, begin_run, open_argument, positive, show_page
from phosphene.cli.printing import image_count, plain_table, print_json, progress_bar
from phosphene.cli.signals import importing
from phosphene.errors import InputError
from phosphene.files import make_directory
from phosphene.interruption import interruptible
from phosphene.reproduce.figures import Figure, figures, find_figure

if TYPE_CHECKING:
    from phosphene.ascent.progress import Progress
    from phosphene.networks.network import Network
    from phosphene.picture import Picture
    from phosphene.reproduce.plan import FigurePlan, FigureRow
    from phosphene.result import Result

RATES = ("fit", "post")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="one or several of those that --list lists")
    parser.add_argument("--list", action="store_true", help="the figures, and what each shows")
    parser.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="others than the figure's")
    parser.add_argument("--channels", type=positive, default=2, metavar="K", help="of each layer of filters (2)")
    parser.add_argument(
        "--receptive-field", action="store_true", help="each filter as large as what one of its neurons sees"
    )
    parser.add_argument(
        "--rates", choices=RATES, default="fit",
        help="those that fit the network (fit), or the post's as they stand (post)",
    )  # fmt: skip
    add_opening(parser, "the figure's, whose --weights are needed")
    add_running(parser)
    parser.set_defaults(precision="fp32")  # as the post's
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    if args.list or not args.figures:
        return _list(args, console)
    chosen = [find_figure(name) for name in dict.fromkeys(args.figures)]
    with importing():
        from phosphene.devices.names import parse_devices
        from phosphene.draw.animation import require_mp4
        from phosphene.reproduce.files import save_figure
        from phosphene.reproduce.plan import FigureSettings, plan

    settings = FigureSettings(
        classes=args.classes, channels=args.channels, size=None if args.size is None else tuple(args.size),
        at_receptive_field=args.receptive_field, rates=args.rates, steps=args.steps,
    )  # fmt: skip
    device = parse_devices(args.device)[0]
    plans = [plan(each, _open_network(args, each), settings, seed=args.seed, device=device) for each in chosen]
    if args.animation == "mp4" and any(figure.animate for figure in chosen):
        require_mp4()
    saved, folder = [], begin_run(args, console)
    for planned in plans:
        with interruptible() as stop:
            out = make_directory(folder / planned.figure.name if len(plans) > 1 else folder)
            rows = _make_figure(args, console, planned, out)
            saved.append(save_figure(planned, rows, out))
        if stop.is_set() or any(result.interrupted for _, result in rows):
            kept = sum(len(result) for _, result in rows)
            print(f"phosphene: interrupted: {kept} of {image_count(_total(planned))} kept in {out}", file=sys.stderr)
            return statuses.INTERRUPTED
        console.print(f"figure.png, figure.json and the post's own grids are in {out}")
        show_page(args, out / "figure.png")
    if args.json:
        print_json(console, saved)
    return 0


def _list(args: argparse.Namespace, console: Console) -> int:
    if args.json:
        print_json(console, [asdict(figure) for figure in figures().values()])
        return 0
    table = plain_table("figure", "network", "what it shows", overflow="fold")
    for figure in figures().values():
        table.add_row(figure.name, figure.network, figure.title)
    console.print(table)
    return 0


def _open_network(args: argparse.Namespace, figure: Figure) -> Network:
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


def _total(planned: FigurePlan) -> int:
    return sum(len(row.units) for row in planned.rows)


def _make_figure(
    args: argparse.Namespace, console: Console, planned: FigurePlan, out: Path
) -> list[tuple[FigureRow, Result]]:
    """Make a figure's pictures, write each as soon as it is finished, and print how it goes."""
    from phosphene.ascent.run_options import RunOptions
    from phosphene.cli.making import result_table
    from phosphene.devices.names import parse_devices
    from phosphene.draw.animation import save_animation
    from phosphene.picture import save_picture
    from phosphene.reproduce.make import make

    _print_plan(console, planned, out)
    total = _total(planned)
    before = 0
    rows: list[tuple[FigureRow, Result]] = []

    def save(row: FigureRow, picture: Picture) -> None:
        save_picture(picture, out)
        if planned.figure.animate and picture.frames:
            save_animation(picture, out, args.animation)

    with progress_bar(args, total) as show:

        def on_progress(row: FigureRow, at: Progress) -> None:
            if show is not None:
                work = (before + at.work * at.total) / total
                show(replace(at, done=before + at.done, total=total, work=work))

        options = RunOptions(parse_devices(args.device), args.batch, precision=args.precision)
        for row, result in make(planned, seed=args.seed, options=options, on_progress=on_progress, on_picture=save):
            rows.append((row, result))
            before += len(row.units)
    for row, result in rows:
        console.print(f"\n{row.label}")
        console.print(result_table(result))
    return rows


def _print_plan(console: Console, planned: FigurePlan, out: Path) -> None:
    network = planned.rows[0].network
    console.print(f"figure   {planned.figure.name}: {planned.figure.title}")
    console.print(f"network  {network.name}, weights {network.digest}, expects {network.preprocessing.describe()}")
    for note in network.notes.values():
        console.print(f"         note: {note}", soft_wrap=True)
    console.print(f"settings {planned.settings}", soft_wrap=True)
    console.print(f"making   {image_count(_total(planned))} in {out}")
