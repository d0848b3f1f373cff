"""`atlas` and its verbs, and `studio`."""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import asdict

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from phosphene import hardware
from phosphene.atlas import estimate as atlas_estimate
from phosphene.atlas import plan as atlas_plan
from phosphene.atlas import site as atlas_site
from phosphene.atlas import status as atlas_status
from phosphene.atlas import store as atlas_store
from phosphene.atlas import work as atlas_work
from phosphene.cli import statuses
from phosphene.cli.options import apply_options, judge_list, open_argument
from phosphene.cli.printing import duration, file_bar, image_count
from phosphene.errors import InputError, printable
from phosphene.networks.network import Network
from phosphene.recipes.recipe import Recipe
from phosphene.studio import server
from phosphene.units.spelling import find_classes


def plan(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    store = atlas_store.Store(args.atlas)
    recipe = None
    if args.recipe or args.set or args.steps or args.size:
        args.start = args.animate = None
        recipe = apply_options(args, Recipe.load(args.recipe or "draft"))
    old = store.plan() if store.has_plan() else None
    frames = args.frames if args.frames is not None else atlas_plan.FRAMES if old is None else old.frames
    asked = None if args.judges is None else [] if args.judges == "none" else judge_list(args.judges)
    groups = atlas_plan.make_groups(
        network, layers=list_layers(args.layers, network), classes=_classes_of(args.classes, network),
        count=args.count, recipe=recipe,
    )  # fmt: skip
    plan = atlas_plan.make_plan(network, groups, facets=args.facets, seed=args.seed, judges=asked, frames=frames)
    atlas_plan.panel(plan, network)
    if old is not None:
        plan = atlas_plan.merge_plans(old, plan)
    store.write_plan(plan)
    have = {(row["group"], row["index"], row["facet"], row["recipe"]) for row in store.rows()}
    with file_bar(args) as on_progress:
        device = None if args.device is None else hardware.find_device(args.device)
        expected = atlas_estimate.estimate(plan, network, device=device, on_progress=on_progress)
    if args.json:
        listed = [{"name": group.name, "units": len(group.indices), "recipe": group.digest} for group in plan.groups]
        print(json.dumps({"groups": listed, **asdict(expected), "there": len(have)}, indent=1), file=console.file)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("units of", "images", "recipe", "steps"):
        table.add_column(column, justify="left" if column in ("units of", "recipe") else "right")
    for group in plan.groups:
        images = len(group.indices) * plan.facets
        table.add_row(escape(group.name), str(images), escape(group.recipe["name"]), str(group.recipe["steps"]))
    console.print(table)
    console.print(
        f"{image_count(expected.images)}, {expected.steps:,} steps: about {duration(expected.seconds)} by one process"
    )
    console.print(
        f"here, and {expected.size / 2**20:.0f} MiB; {len(have)} are there. Make them: phosphene atlas run {args.atlas}"
    )
    return 0


def list_layers(patterns: Sequence[str], network: Network) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        if pattern == "all":
            found += [layer.name for layer in network.layers if layer.worth_showing]
        elif any(mark in pattern for mark in "*?["):
            fitting = [layer.name for layer in network.layers if fnmatch.fnmatch(layer.name, pattern)]
            if not fitting:
                raise InputError(f"no layer of {network.name} fits {pattern!r}: see `phosphene layers`")
            found += fitting
        else:
            found.append(network.layer(pattern).name)
    return found


def _classes_of(names: Sequence[str], network: Network) -> list[int]:
    found: list[int] = []
    for name in names:
        if name == "all":
            found += range(network.classes or 0)
        else:
            found += find_classes(name, network)
    if names and not found:
        raise InputError(f"no class of {network.name} is {' '.join(names)!r}: expected names, indices, 0-99 or all")
    return found


def run(args: argparse.Namespace, console: Console) -> int:
    where = [name.strip() for name in args.device.split(",")] if args.device else []
    if not where and torch.cuda.device_count() > 1:
        where = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    for name in where:
        hardware.find_device(name)
    if args.trust:
        plan = atlas_store.Store(args.atlas).plan()
        atlas_plan.panel(plan, plan.open(trust=True), trust=True)
    with file_bar(args) as on_done:
        report = atlas_work.run(
            args.atlas, workers=args.workers, devices=where, ray=args.ray, on_done=on_done, lease=args.lease
        )
    if args.json:
        made = {"made": report.image_count, "failed": report.failed, "interrupted": report.interrupted}
        print(json.dumps(made, indent=1), file=console.file)
    console.print(f"{image_count(report.image_count)} made in {args.atlas}")
    for unit, why in report.failed.items():
        print(f"phosphene: {unit} could not be made: {why}", file=sys.stderr)
    if report.interrupted:
        print(f"phosphene: interrupted: `phosphene atlas run {args.atlas}` goes on", file=sys.stderr)
        return statuses.INTERRUPTED
    return 1 if report.failed else 0


def status(args: argparse.Namespace, console: Console) -> int:
    found = atlas_status.status(args.atlas)
    if args.json:
        print(
            json.dumps({**asdict(found), "made": found.image_count, "count": found.count}, indent=1), file=console.file
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("units of")
    for column in ("made", "of"):
        table.add_column(column, justify="right")
    for name, have, want in found.groups:
        table.add_row(escape(name), str(have), str(want))
    console.print(table)
    share = found.image_count / max(1, found.count)
    console.print(f"{found.image_count} of {image_count(found.count)} ({share:.0%}), {found.size / 2**20:.0f} MiB")
    if found.claimed:
        console.print(f"{found.claimed} units are being made")
    if found.left == 0:
        console.print("all are there")
    elif found.rate and found.left is not None:
        last = "" if found.last is None else f"; the last was written {duration(found.last)} ago"
        console.print(f"{found.rate:.0f} an hour, so {duration(found.left)} more{last}")
    else:
        console.print("nothing is known yet of how long it takes")
    return 0


def verify(args: argparse.Namespace, console: Console) -> int:
    store = atlas_store.Store(args.atlas)
    store.plan()
    rows = store.rows()
    with file_bar(args) as on_progress:
        problems = store.verify(rows, on_progress)
    if args.repair and problems:
        store.drop(problem.row for problem in problems)
    if args.json:
        print(
            json.dumps([{"file": problem.file, "what": problem.what} for problem in problems], indent=1),
            file=console.file,
        )
    for problem in problems:
        print(f"phosphene: {problem.file}: {problem.what}", file=sys.stderr)
    console.print(f"{image_count(len(rows) - len(problems))} of {len(rows)} are as they were written")
    if problems and args.repair:
        console.print(f"the others are out of the index: `phosphene atlas run {args.atlas}` makes them again")
    return 1 if problems and not args.repair else 0


_NAMED = 20  # files that are left out, on a terminal


def index(args: argparse.Namespace, console: Console) -> int:
    store = atlas_store.Store(args.atlas)
    store.plan()
    with file_bar(args) as on_progress:
        rebuilt = store.rebuild(on_progress)
    if args.json:
        print(json.dumps({"images": rebuilt.images, "left_out": rebuilt.left_out}), file=console.file)
    for name, why in list(rebuilt.left_out.items())[:_NAMED]:
        print(f"phosphene: left out: {printable(f'{name}: {why}', 500)}", file=sys.stderr)
    if len(rebuilt.left_out) > _NAMED:
        print(f"phosphene: left out: {len(rebuilt.left_out) - _NAMED} more; --json names all", file=sys.stderr)
    console.print(f"{image_count(rebuilt.images)} are in the index")
    return 0


def site(args: argparse.Namespace, console: Console) -> int:
    store = atlas_store.Store(args.atlas)
    if args.plain and args.photographs:
        raise InputError("--plain does not ask the network, which --photographs needs: expected one of them")
    beside = None if args.beside is None else atlas_store.Store(args.beside)
    network = None if args.plain else store.plan().open(args.trust)
    beside_network = None if args.plain or beside is None else beside.plan().open(args.trust)
    with file_bar(args) as on_progress:
        page = atlas_site.write_site(
            store, network=network, photographs=args.photographs, compare_with=beside, compare_network=beside_network,
            device=hardware.find_device(args.device), on_progress=on_progress,
        )  # fmt: skip
    if args.json:
        print(json.dumps({"page": page}), file=console.file)
    console.print(f"open {page}")
    return 0


def serve(args: argparse.Namespace, console: Console) -> int:
    def ready(address: str) -> None:
        if args.json:
            print(json.dumps({"page": address}), flush=True, file=console.file)
        console.print(f"open {address} (Ctrl-C ends it)")
        if not args.no_browser:
            webbrowser.open(address)

    server.serve(args.files, atlas=args.atlas, out=args.out, device=args.device, port=args.port, on_ready=ready)
    return 0
