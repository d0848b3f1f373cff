"""Pictures are made as a command asks, each written as soon as it is finished."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from phosphene import defaults
from phosphene.api.best_of import run_best_of
from phosphene.ascent.forecast import Forecast
from phosphene.ascent.request import Request, distinct, make_request
from phosphene.ascent.run_options import RunOptions
from phosphene.ascent.stopping import is_dead
from phosphene.ascent.unit_statistics import prior_statistics
from phosphene.background import background_writer
from phosphene.cli import statuses
from phosphene.cli.options import apply_options, begin_run, show_page
from phosphene.cli.printing import image_count, plain_table, print_json, progress_bar
from phosphene.devices.callbacks import Callbacks
from phosphene.devices.names import parse_devices
from phosphene.devices.run import run
from phosphene.draw.animation import require_mp4, save_animation
from phosphene.errors import InputError, join_names, printable
from phosphene.interruption import interruptible
from phosphene.judges.panel import open_judge
from phosphene.networks.network import Network
from phosphene.photographs.listing import list_photographs
from phosphene.picture import Picture, save_picture
from phosphene.recipes import tuned_recipes
from phosphene.recipes.files import recipe_names
from phosphene.recipes.recipe import Recipe
from phosphene.result import Result, run_data, save_summary
from phosphene.run_page import write_page
from phosphene.units.latents import Latent
from phosphene.units.objects import Class, Unit

_FEW = 12  # channels that are proposed for a sample
_UNSEEN = 0.05  # a class's probability below which its network does not see it


def make_pictures(args: argparse.Namespace, console: Console, network: Network, units: Sequence[Unit]) -> int:
    """Make pictures, write each as soon as it is finished, and print how it goes; returns the exit status."""
    others = [open_judge(name) for name in getattr(args, "others", [])]
    selectors = _open_selectors(args, others)
    recipes = _recipes_of(args, network, units)
    request = make_request(  # what cannot be shown is said before anything is written
        [network, *others],
        units,
        recipes,
        seed=args.seed,
        start=args.start,
        facets=args.facets,
        options=RunOptions(parse_devices(args.device), args.batch, precision=args.precision),
    )
    if args.animate is not None and args.animation == "mp4":
        require_mp4()
    out = begin_run(args, console)
    _print_request(console, request, recipes, out)
    forecast = _forecast(request, args.best_of if selectors else 1)
    with interruptible() as stop:
        with (
            progress_bar(args, forecast.images, forecast, _sample(args, units)) as on_progress,
            background_writer(_writer(args, out)) as on_picture,
        ):
            callbacks = Callbacks(on_progress, on_picture)
            result = run_best_of(request, args.best_of, selectors, callbacks) if selectors else run(request, callbacks)
        save_summary(result, out)
        show_page(args, write_page(result, out, args.command_line))
    if args.json:
        print_json(console, {"folder": str(out), **run_data(result)})
    return _print_result(console, result, request.count, out, stop.is_set())


def _forecast(request: Request, times: int) -> Forecast:
    """How much is to be made, each image so many times."""
    steps = sum(recipe.steps for recipe in request.recipes) * request.facets
    return Forecast(times * request.count, times * steps)


def _sample(args: argparse.Namespace, units: Sequence[Unit]) -> str:
    """How a layer's channels are tried first, if that is shorter."""
    is_shorter = "count" in args and args.count is None and len(units) > _FEW
    return f"; `--count {_FEW}` for a sample" if is_shorter else ""


def _recipes_of(args: argparse.Namespace, network: Network, units: Sequence[Unit]) -> list[Recipe]:
    """Each unit's recipe: the one asked for, or else the one found for its layer or classes, or else the verb's."""
    use_tuned = args.finds and args.recipe is None and not getattr(args, "others", [])
    recipes = []
    for unit in units:
        tuned = tuned_recipes.find(network, unit) if use_tuned else None
        recipes.append(apply_options(args, tuned or Recipe.load(args.recipe or args.default_recipe)))
    return recipes


def _open_selectors(args: argparse.Namespace, others: list[Network]) -> list[Network]:
    """The networks that choose, where --best-of asks for it."""
    names = getattr(args, "selectors", None)
    if getattr(args, "best_of", None) is None:
        if names:
            raise InputError("--selectors choose among several images: expected --best-of K")
        return []
    if not names:
        raise InputError("--best-of keeps what other networks like best: expected --selectors A,B")
    if args.facets > 1 or others:
        raise InputError("--best-of goes with neither --facets nor --with")
    return [open_judge(name) for name in names]


def _writer(args: argparse.Namespace, out: Path) -> Callable[[Picture], None]:
    """What writes a finished picture, and its animation where one is asked for."""

    def save(picture: Picture) -> None:
        save_picture(picture, out)
        if args.animate is not None and picture.frames:
            save_animation(picture, out, args.animation)

    return save


def _print_request(console: Console, request: Request, recipes: Sequence[Recipe], out: Path) -> None:
    """What is made, of which network, by which recipes (as they were before the network's own fields were put in)."""
    network = request.network
    height, width = network.preprocessing.size  # type: ignore[misc]
    where = ", ".join(
        f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
        for device in request.devices
    )
    console.print(f"network  {network.name}, {height}x{width} pixels, weights {network.digest}")
    console.print(f"         expects {network.preprocessing.describe()}")
    for note in network.notes.values():
        console.print(f"         note: {note}", soft_wrap=True)
    for note in _latent_notes(request.units):
        console.print(f"         note: {escape(note)}", soft_wrap=True)
    if network.ending is not None:
        console.print(f"         ends in a {network.ending.kind}, which is bypassed: the logit is maximized")
    for other in request.networks[1:]:
        console.print(f"     and {other.name}, weights {other.digest}, expects {other.preprocessing.describe()}")
    for recipe in distinct(recipes):
        unit = next(unit for unit, used in zip(request.units, recipes, strict=True) if used == recipe)
        _print_recipe(console, request.networks, recipe, unit)
    console.print(f"device   {where}")
    console.print(f"making   {image_count(request.count)} in {out}")


def _latent_notes(units: Sequence[Unit]) -> list[str]:
    """Which layers the dictionaries of latents are taken to be of, where they call them otherwise."""
    latents = [part for unit in units for _, part in unit.terms() if isinstance(part, Latent)]
    named = {(each.dictionary.spelling, each.dictionary.layer, each.layer) for each in latents}
    return [
        f"dictionary {name} is of {printable(called, 100)!r}, which is taken to be {layer}"
        for name, called, layer in sorted(named)
        if called not in ("", layer)
    ]


def _print_recipe(console: Console, networks: list[Network], recipe: Recipe, unit: Unit) -> None:
    """What a recipe is for one of its units."""
    network = networks[0]
    used = recipe.for_network(network).for_unit(unit)
    rate = f"{used.optimizer.name}, rate {used.optimizer.rate:.4g}"
    if used.optimizer.gradient != "raw":
        rate += f" of the {used.optimizer.gradient}-normalized gradient"
    if used.schedule.kind != "constant":
        rate += f" on a {used.schedule.kind} schedule"
    section = recipe.section_of(network)
    if "optimizer.rate" in recipe.networks.get(section, {}):
        rate += f" (found for {network.name})" if section != "other" else f" (none was found for {network.name})"
    console.print(f"recipe   {used.name}: {used.description}", soft_wrap=True)
    console.print(f"         {used.steps} steps, {rate}", soft_wrap=True)
    statistics = used.priors.statistics
    if statistics and statistics.source == "unit":
        count = len(list_photographs(statistics.photographs, defaults.PHOTOGRAPHS))
        console.print(
            f"         towards the {statistics.top} of {count} photographs that excite each unit most", soft_wrap=True
        )
    for each in networks if statistics else []:
        origin = prior_statistics(each, statistics)[1]  # type: ignore[arg-type]
        if not origin:
            console.print(
                f"         note: there are no statistics of natural images for {each.name}, so no prior pulls towards "
                "them: gather them with `phosphene statistics DIR --network …`",
                soft_wrap=True,
            )


def _print_result(console: Console, result: Result, count: int, out: Path, stopped: bool) -> int:
    """Print what was made; returns the exit status."""
    console.print(result_table(result))
    if stopped or result.interrupted:
        missing = f"; {len(result.not_started)} were not begun" if result.not_started else ""
        kept = f"{len(result)} of {image_count(count)} kept in {out}"
        print(f"phosphene: interrupted: {kept}{missing}", file=sys.stderr)
        return statuses.INTERRUPTED
    if any("bf16" in picture.precision for picture in result):
        console.print("the network's passes were in bf16, which is faster here (--precision fp32 for 32 bits)")
    if any(is_dead(picture.stopped) for picture in result):
        console.print("a dead unit may wake with another --seed, or before the activation (see `phosphene layers`)")
    for note in _unfinished(result):
        console.print(note, soft_wrap=True)
    console.print(f"{image_count(len(result))}, index.html (all on one page), grid.png and run.json are in {out}")
    return 0


def _unfinished(result: Result) -> list[str]:
    """That few steps were made, where a class ended as one that its own network does not see."""
    shown = [picture for picture in result if picture.scores.get("probability", 1.0) < _UNSEEN]
    if not shown or result.recipe.name not in recipe_names():
        return []
    usual = Recipe.load(result.recipe.name).for_network(result.network).steps
    few = [picture for picture in shown if picture.steps < usual]
    if not few:
        return []
    names = join_names([picture.label for picture in few], 3)
    return [
        f"{names} ended at {few[0].scores['probability']:.1%}: {few[0].steps} steps are few, {result.recipe.name} "
        f"takes {usual}"
    ]


def result_table(result: Result) -> Table:
    """A row a picture: what it shows, and what came out."""
    is_class = any("probability" in picture.scores for picture in result)
    is_latent = any("latent" in picture.scores for picture in result)
    measured = [*["probability"] * is_class, *["latent"] * is_latent]
    columns = ["class" if is_class else "unit", "objective", *measured, "steps", "seconds", "stopped"]
    table = plain_table(*columns, right=columns[1:-1])
    for picture in result:
        probability = picture.scores.get("probability")
        table.add_row(
            f"{picture.unit.index:03d} {picture.label}" if isinstance(picture.unit, Class) else picture.label,
            f"{picture.scores['objective']:.4g}",
            *([f"{probability:.1%}" if probability is not None else ""] if is_class else []),
            *([f"{picture.scores['latent']:.4g}" if "latent" in picture.scores else ""] if is_latent else []),
            str(picture.steps),
            f"{picture.seconds:.1f}",
            picture.stopped,
        )
    return table
