"""`atlas run`: what is missing is made."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from phosphene import defaults
from phosphene.cli import statuses
from phosphene.cli.options import add_atlas, add_devices, add_printing, add_trust, positive
from phosphene.cli.printing import file_bar, image_count, print_json
from phosphene.cli.signals import importing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_atlas(parser)
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes of this machine (1)")
    add_devices(parser, "of the workers, in turn; by default every GPU, or the CPU")
    parser.add_argument(
        "--ray", nargs="?", const="auto", metavar="ADDRESS", help="on a Ray cluster: its address; auto: the one here"
    )
    add_trust(parser, "plan")
    parser.add_argument(
        "--lease", type=float, default=defaults.LEASE, metavar="SECONDS",
        help="after so many without a sign of life other runs take over what this one has begun "
        f"({defaults.LEASE:.0f})",
    )  # fmt: skip
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        import torch

        from phosphene.atlas import work
        from phosphene.atlas.plan import panel
        from phosphene.atlas.store import Store
        from phosphene.hardware import find_device

    devices = [name.strip() for name in args.device.split(",")] if args.device else []
    if not devices and torch.cuda.device_count() > 1:
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    for name in devices:
        find_device(name)
    if args.trust:
        plan = Store(args.atlas).plan()
        panel(plan, plan.open(trust=True), trust=True)
    with file_bar(args) as on_done:
        report = work.run(
            args.atlas, workers=args.workers, devices=devices, ray=args.ray, on_done=on_done, lease=args.lease
        )
    if args.json:
        print_json(console, {"made": report.image_count, "failed": report.failed, "interrupted": report.interrupted})
    console.print(f"{image_count(report.image_count)} made in {args.atlas}")
    for unit, why in report.failed.items():
        print(f"phosphene: {unit} could not be made: {why}", file=sys.stderr)
    if report.interrupted:
        print(f"phosphene: interrupted: `phosphene atlas run {args.atlas}` goes on", file=sys.stderr)
        return statuses.INTERRUPTED
    return 1 if report.failed else 0
