"""`atlas run`: what is missing is made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from phosphene import defaults
from phosphene.cli import statuses
from phosphene.cli.options import add_atlas, add_devices, add_printing, add_trust, positive
from phosphene.cli.printing import WorkBar, forecast_text, image_count, print_json
from phosphene.cli.signals import importing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_atlas(parser)
    add_running(parser)
    add_trust(parser, "plan")
    add_printing(parser)


def add_running(parser: argparse.ArgumentParser) -> None:
    """Where, and by how many processes, an atlas is made."""
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes of this machine (1)")
    add_devices(parser, "of the workers, in turn; by default every GPU, or the CPU")
    parser.add_argument(
        "--ray", nargs="?", const="auto", metavar="ADDRESS", help="on a Ray cluster: its address; auto: the one here"
    )
    parser.add_argument(
        "--lease", type=float, default=defaults.LEASE, metavar="SECONDS",
        help="after so many without a sign of life other runs take over what this one has begun "
        f"({defaults.LEASE:.0f})",
    )  # fmt: skip


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.atlas.plan import panel
        from phosphene.atlas.store import Store

    devices = find_devices(args)
    if args.trust:
        plan = Store(args.atlas).plan()
        panel(plan, plan.open(trust=True), trust=True)
    return make(args, console, devices)


def find_devices(args: argparse.Namespace) -> list[str]:
    """The devices that --device names, or else all GPUs, where there are several.

    Raises:
        InputError: there is no such device.
    """
    with importing():
        import torch

        from phosphene.hardware import find_device

    devices = [name.strip() for name in args.device.split(",")] if args.device else []
    if not devices and torch.cuda.device_count() > 1:
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    for name in devices:
        find_device(name)
    return devices


def make(args: argparse.Namespace, console: Console, devices: Sequence[str]) -> int:
    """Make what the atlas lacks, and say what came of it."""
    with importing():
        from phosphene.atlas import work
        from phosphene.atlas.store import Store
        from phosphene.cli.atlas.plan import sample

    proposed = sample(Store(args.atlas).plan())
    with WorkBar(args) as bar:
        report = work.run(
            args.atlas, workers=args.workers, devices=devices, ray=args.ray, on_done=bar.show, lease=args.lease,
            on_forecast=lambda forecast: bar.say(forecast_text(forecast, proposed)),
        )  # fmt: skip
    if args.json:
        print_json(console, {"made": report.image_count, "failed": report.failed, "interrupted": report.interrupted})
    console.print(f"{image_count(report.image_count)} made in {args.atlas}")
    for unit, why in report.failed.items():
        print(f"phosphene: {unit} could not be made: {why}", file=sys.stderr)
    if report.interrupted:
        print(f"phosphene: interrupted: `phosphene atlas run {args.atlas}` goes on", file=sys.stderr)
        return statuses.INTERRUPTED
    return 1 if report.failed else 0
