"""`networks`, `layers`, `doctor`, `profile` and `recipes`: what there is, and how it does."""

from __future__ import annotations

import argparse
import fnmatch
import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from phosphene import hardware
from phosphene.ascent.request import with_recipe_size
from phosphene.cli.options import apply_options, open_argument
from phosphene.cli.printing import image_count
from phosphene.doctor import diagnostics, inspection, profiling
from phosphene.doctor import fitting as doctor_fitting
from phosphene.doctor import photographs as doctor_photographs
from phosphene.errors import InputError, did_you_mean
from phosphene.networks.catalog import sources
from phosphene.networks.sources.torchvision import torchvision_names
from phosphene.recipes.files import read_recipe, recipe_names, shipped_text
from phosphene.recipes.recipe import Recipe
from phosphene.recipes.section import fields


def list_networks(args: argparse.Namespace, console: Console) -> int:
    import timm

    by_source = {
        "timm": timm.list_models(args.pattern or ""),
        "torchvision": fnmatch.filter(torchvision_names(), args.pattern or "*"),
    }
    if args.pattern and not any(by_source.values()):
        near = did_you_mean(args.pattern, [*timm.list_models(), *torchvision_names()])
        raise InputError(f"neither timm nor torchvision has a network that fits {args.pattern!r}{near}")
    if args.json:
        listed = [asdict(source) for source in sources()]
        print(json.dumps({"sources": listed, **by_source}, indent=1), file=console.file)
    elif args.pattern:
        trained = {name.partition(".")[0] for name in timm.list_pretrained(args.pattern)}
        for name in by_source["timm"]:
            console.print(name if name in trained else f"{name}  (no pretrained weights)")
        for name in by_source["torchvision"]:
            console.print(f"torchvision:{name}")
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("source", "--network", "opens now", "needs"):
            table.add_column(column, overflow="fold")
        for source in sources():
            table.add_row(source.name, source.spelled, "yes" if source.here else "no", escape(source.needs))
        console.print(table)
        console.print("names: `phosphene networks 'resnet*'`; is a network fed right? `phosphene doctor`")
    return 0


def list_layers(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    layers = [
        layer
        for layer in network.layers
        if fnmatch.fnmatchcase(layer.name, args.pattern or "*") and (layer.worth_showing or not args.marked)
    ]
    if not layers:
        names = [layer.name for layer in network.layers]
        raise InputError(f"{network.name} has no layer that fits {args.pattern!r}{did_you_mean(args.pattern, names)}")
    if args.json:
        print(json.dumps([vars(layer) for layer in layers], indent=1), file=console.file)
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "layer", "type", "channels", "map", "parameters"):
        table.add_column(column, justify="right" if column in ("channels", "parameters") else "left", no_wrap=True)
    for layer in layers:
        table.add_row(
            "*" if layer.worth_showing else "", layer.name, layer.type, str(layer.channels),
            "x".join(map(str, layer.positions)), f"{layer.parameters:,}" if layer.parameters else "",
        )  # fmt: skip
    console.print(table)
    console.print("* after the activation: usually worth showing")
    if network.limit:
        console.print(f"all further layers cannot be shown: {network.limit}", soft_wrap=True)
    return 0


def examine(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    device = hardware.find_device(args.device)
    console.print(f"network  {network.name}, weights {network.digest}")
    photographs = fit = images = None
    if args.images is not None or args.csv is not None:
        if args.csv is not None:
            labelled = doctor_photographs.label_by_table(args.csv, network, args.images)
        else:
            labelled = doctor_photographs.label_by_name(args.images, network)
        photographs = labelled.at_most(args.limit)
        (pixels,), _ = doctor_photographs.read_photographs(photographs.at_most(64), [network.preprocessing])
        images = pixels.float()
    with Console(stderr=True, quiet=args.quiet or args.json).status("looking at its layers") as status:
        findings = inspection.inspect(network, images, device)
        if photographs is not None:
            fit = doctor_fitting.fit(network, photographs, device, status.update)
            findings += fit.diagnostics
    if args.json:
        data = {"findings": findings, "fit": None if fit is None else _fit_data(fit)}
        print(json.dumps(data, default=vars, indent=1), file=console.file)
    _print_findings(console, findings)
    if photographs is not None and fit is not None:
        _print_fit(console, photographs, fit)
    return 1 if any(finding.level == "warning" for finding in findings) else 0


def _fit_data(fit: doctor_fitting.PreprocessingFit) -> dict[str, Any]:
    return {
        "trials": fit.trials,
        "fits": fit.best,
        "findings": fit.diagnostics,
        "remedy": fit.suggestion,
        "unreadable": fit.unreadable,
    }


def _print_findings(console: Console, findings: list[diagnostics.Diagnostic]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in ("level", "topic", "text"):
        table.add_column(name, overflow="fold", no_wrap=name != "text")
    for finding in findings:
        level = f"[bold]{finding.level}[/bold]" if finding.level == "warning" else finding.level
        table.add_row(level, finding.topic, escape(finding.text))
    console.print(table)


def _print_fit(
    console: Console, photographs: doctor_photographs.LabeledPhotographs, fit: doctor_fitting.PreprocessingFit
) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "preprocessing", "fed", "photographs", "named right", "of", "confidence"):
        table.add_column(column, justify="right" if column in ("named right", "of", "confidence") else "left")
    for trial in fit.trials:
        table.add_row(
            "*" if trial == fit.best else "=" if trial.same else "", trial.name, trial.preprocessing.describe(),
            trial.rule, f"{trial.accuracy:.1%}", str(trial.photographs), f"{trial.confidence:.1%}",
        )  # fmt: skip
    console.print()
    console.print(table)
    console.print("* fits   = cannot be told from it   confidence: the mean probability of the true class")
    left_out = [
        f"{count} {what}"
        for count, what in (
            (len(photographs.unlabeled), "tell no class by their name"),
            (fit.unreadable, "are unreadable"),
        )
        if count
    ]
    if left_out:
        console.print(f"of the image files, {' and '.join(left_out)}")
    if fit.suggestion:
        where = (
            "" if fit.suggestion.startswith("--") else " in a TOML file (--preprocessing FILE, or beside the network's)"
        )
        console.print(f"\nsay so{where}:\n\n{fit.suggestion}", markup=False)


def profile(args: argparse.Namespace, console: Console) -> int:
    args.steps = args.start = args.animate = None
    network = open_argument(args)
    recipe = apply_options(args, Recipe.load(args.recipe))
    network = with_recipe_size(network, recipe)
    units = args.units or ["class:0" if network.classes else f"{network.layers[-1].name}:0"]
    with Console(stderr=True, quiet=args.quiet or args.json).status("timing steps"):
        found = profiling.profile(
            network, units, recipe, batch=args.batch, device=args.device, precision=args.precision
        )
    if args.json:
        print(json.dumps({**asdict(found), "share_of_peak": found.share_of_peak}, indent=1), file=console.file)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"a step of {image_count(found.batch)}")
    for column in ("ms", "share", "of a plain pass"):
        table.add_column(column, justify="right")
    for name, seconds in [*found.parts.items(), ("the whole step", found.step), ("a plain pass", found.plain)]:
        share = "" if name == "a plain pass" else f"{seconds / found.step:.0%}"
        table.add_row(name, f"{1000 * seconds:.1f}", share, f"{seconds / found.plain:.2f}")
    console.print(f"network  {network.name}, weights {network.digest}")
    console.print(f"recipe   {recipe.name}, {', '.join(map(str, units))}", soft_wrap=True, markup=False)
    console.print(f"machine  {found.machine}; {found.precision}", soft_wrap=True)
    console.print(table)
    each = found.operations / found.batch / 1e9
    console.print(
        f"the network's pass does {each:.1f} GFLOP an image, at {found.share_of_peak:.0%} of the "
        f"{found.peak / 1e9:.0f} GFLOP/s that a product of matrices reaches in {found.precision}",
        soft_wrap=True,
    )
    console.print("a plain pass: forward and backward in fp32, as the network is and in PyTorch's own memory order")
    return 0


def list_recipes(args: argparse.Namespace, console: Console) -> int:
    if args.recipe:
        recipe = Recipe.load(args.recipe)
        if args.json:
            print(json.dumps(recipe.to_dict(), indent=1), file=console.file)
        elif not args.quiet:
            print(
                shipped_text(recipe.name) if args.recipe in recipe_names() else recipe.to_toml(),
                end="",
                file=console.file,
            )
        return 0
    rows = (
        list(fields(Recipe))
        if args.fields
        else [(name, read_recipe(name)[0]["description"]) for name in recipe_names()]
    )
    if args.json:
        print(json.dumps(rows, indent=1), file=console.file)
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("field", "default", "range", "meaning") if args.fields else ("recipe", "what it is"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    return 0
