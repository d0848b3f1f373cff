"""`classes`, `filters`, `dream`, `invert`, `caricature` and `again`: images are made."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from phosphene import provenance
from phosphene.api import again as again_module
from phosphene.api.best_of import run_best_of
from phosphene.ascent.request import Request, distinct, make_request
from phosphene.ascent.run_options import RunOptions
from phosphene.ascent.statistics import natural_statistics
from phosphene.ascent.stopping import is_dead
from phosphene.background import background_writer
from phosphene.cli import statuses
from phosphene.cli.options import apply_options, has_network_argument, named_default, open_argument
from phosphene.cli.printing import image_count, progress_bar, result_table
from phosphene.devices.callbacks import Callbacks
from phosphene.devices.names import parse_devices
from phosphene.devices.run import run
from phosphene.draw.animation import require_mp4, save_animation
from phosphene.errors import InputError
from phosphene.files import make_directory
from phosphene.images import read_image
from phosphene.interruption import interruptible
from phosphene.judges.panel import open_judge
from phosphene.networks.network import Network
from phosphene.picture import Picture, save_picture
from phosphene.recipes import tuned_recipes
from phosphene.recipes.recipe import Recipe
from phosphene.result import run_data, save_summary
from phosphene.units.objects import Caricature, Channel, Class, Match, Unit, WholeLayer
from phosphene.units.spelling import find_classes, find_layer, layer_and_rest, parse_indices, parse_unit


def classes(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    indices = dict.fromkeys(index for text in args.classes for index in find_classes(text, network))
    return _make(args, console, network, [Class(index) for index in indices])


def filters(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    units = list(dict.fromkeys(unit for spec in args.layers for unit in _filter_units(spec, args, network)))
    return _make(args, console, network, units)


def dream(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    args.start = args.photograph
    layers = args.layers or [_shown_layers(network)[-2:][0]]  # parts of things; the last shows whole ones everywhere
    units = [unit for layer in layers for unit in _filter_units(layer, _WHOLE, network)]
    return _make(args, console, _fitted(args, network, args.photograph), units)


def invert(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    units: list[Unit] = [Match(network.layer(name).name) for name in args.layers or _shown_layers(network)]
    return _make(args, console, network, units, args.photograph)


def caricature(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    units: list[Unit] = [Caricature(network.layer(name).name) for name in args.layers or _shown_layers(network)]
    return _make(args, console, network, units, args.photograph)


_LONGEST = 10
_WHOLE = argparse.Namespace(whole=True, count=None, average=False)


def _shown_layers(network: Network, count: int = 5) -> list[str]:
    """So many of the layers usually worth showing, evenly spread in depth, the last one with a map among them."""
    layers = [layer.name for layer in network.layers if layer.worth_showing and layer.positions]
    layers = layers or [layer.name for layer in network.layers if layer.positions]
    if not layers:
        raise InputError(f"{network.name} has no layer with a map: expected LAYER")
    return [layers[(i + 1) * len(layers) // count - 1] for i in range(count)] if len(layers) > count else layers


def _fitted(args: argparse.Namespace, network: Network, photograph: Path) -> Network:
    """The network at the photograph's own proportions, where it takes such images and no --size is given.

    Of what is over `_LONGEST` times as long as wide only the middle is shown, by the network's own proportions.
    """
    if args.size is not None:
        return network
    width, height = read_image(photograph).size
    if max(width, height) > _LONGEST * min(width, height):
        return network
    try:
        scale = 2 * min(network.preprocessing.size) / min(width, height)  # type: ignore[arg-type]
        size = (round(height * min(1, scale)), round(width * min(1, scale)))
        resized = network.with_input_size(size)
    except InputError:
        return network
    args.size = list(size)
    return resized


def _filter_units(spec: str, args: argparse.Namespace, network: Network) -> list[Unit]:
    """`LAYER`, `LAYER:0-7` and `LAYER:1,5,9` to channels; anything else is a unit as units are spelled."""
    name, colon, chosen = layer_and_rest(spec, network)
    several = re.fullmatch("[0-9]+([-,][0-9]+)*", chosen)
    if re.search(r"\s[+-]\s|[*(]|^\s*-", spec) or name == "class" or (colon and not several):
        return [parse_unit(spec, network)]
    layer = network.layer(find_layer(name if colon else spec, spec, network))
    if args.whole:
        return [WholeLayer(layer.name)]
    channels: Sequence[int] = range(layer.channels)
    if colon:
        found = parse_indices(chosen, layer.channels, f"channel {{}} of {layer.name}")
        if found is None:
            raise InputError(f"channels {chosen!r} of {layer.name}: expected a list such as 0-7 or 1,5,9")
        channels = found
    if args.count is not None and args.count < len(channels):
        channels = [channels[i * len(channels) // args.count] for i in range(args.count)]
    reduce = "mean" if args.average else "sum"
    units = [Channel(layer.name, channel, reduce) for channel in channels]  # type: ignore[arg-type]
    return [parse_unit(unit, network) for unit in units]


def _recipes_of(args: argparse.Namespace, network: Network, units: Sequence[Unit]) -> list[Recipe]:
    """Each unit's recipe: the one asked for, or else the one found for its layer or classes, or else the verb's."""
    alone = args.finds and not getattr(args, "others", [])
    recipes = []
    for unit in units:
        own = tuned_recipes.find(network, unit) if alone and args.recipe is None else None
        recipes.append(apply_options(args, own or Recipe.load(args.recipe or args.default_recipe)))
    return recipes


def _make(
    args: argparse.Namespace, console: Console, network: Network, units: list[Unit], photograph: Path | None = None
) -> int:
    """Make pictures, write each as soon as it is finished, and print how it goes."""
    others = [open_judge(name) for name in getattr(args, "others", [])]
    selectors = _selectors(args, others)
    if photograph is not None:
        units = [unit.with_photograph(photograph) for unit in units]
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
    out = make_directory(args.out)
    count = len(units) * args.facets
    _say_what(console, request, recipes, out)

    def save(picture: Picture) -> None:
        save_picture(picture, out)
        if args.animate is not None and picture.frames:
            save_animation(picture, out, args.animation)

    total = count * (args.best_of if selectors else 1)
    with interruptible() as stop:
        with progress_bar(args, total) as on_progress, background_writer(save) as on_picture:
            callbacks = Callbacks(on_progress, on_picture)
            result = run_best_of(request, args.best_of, selectors, callbacks) if selectors else run(request, callbacks)
        save_summary(result, out)
    if args.json:
        print(json.dumps(run_data(result), indent=1), file=console.file)
    console.print(result_table(result))
    if stop.is_set() or result.interrupted:
        missing = f"; {len(result.not_started)} were not begun" if result.not_started else ""
        print(f"phosphene: interrupted: {len(result)} of {image_count(count)} kept in {out}{missing}", file=sys.stderr)
        return statuses.INTERRUPTED
    if any("bf16" in picture.precision for picture in result):
        console.print("the network's passes were in bf16, which is faster here (--precision fp32 for 32 bits)")
    if any(is_dead(picture.stopped) for picture in result):
        console.print("a dead unit may wake with another --seed, or before the activation (see `phosphene layers`)")
    console.print(f"{image_count(len(result))}, grid.png, objective.png and run.json are in {out}")
    return 0


def _selectors(args: argparse.Namespace, others: list[Network]) -> list[Network]:
    """The networks that choose, where --best-of asks for it."""
    chosen = getattr(args, "choosers", None)
    if getattr(args, "best_of", None) is None:
        if chosen:
            raise InputError("--choosers choose among several images: expected --best-of K")
        return []
    if not chosen:
        raise InputError("--best-of keeps what other networks like best: expected --choosers A,B")
    if args.facets > 1 or others:
        raise InputError("--best-of goes with neither --facets nor --with")
    return [open_judge(name) for name in chosen]


def _say_what(console: Console, request: Request, recipes: list[Recipe], out: Path) -> None:
    """What is made, of which network, by which recipes (as they were before the network's own fields were put in)."""
    network = request.network
    height, width = network.preprocessing.size  # type: ignore[misc]
    where = ", ".join(
        f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
        for device in request.devices
    )
    console.print(f"network  {network.name}, {height}x{width} pixels, weights {network.digest}")
    console.print(f"         eats {network.preprocessing.describe()}")
    for note in network.notes.values():
        console.print(f"         note: {note}", soft_wrap=True)
    if network.ending is not None:
        console.print(f"         ends in a {network.ending.kind}, which is bypassed: the logit is maximized")
    for other in request.networks[1:]:
        console.print(f"     and {other.name}, weights {other.digest}, eats {other.preprocessing.describe()}")
    for recipe in distinct(recipes):
        shown = next(unit for unit, own in zip(request.units, recipes, strict=True) if own == recipe)
        _say_recipe(console, request.networks, recipe, shown)
    console.print(f"device   {where}")
    console.print(f"making   {image_count(len(request.units) * request.facets)} in {out}")


def _say_recipe(console: Console, networks: list[Network], recipe: Recipe, unit: Unit) -> None:
    network = networks[0]
    used = recipe.for_network(network.name).for_unit(unit)
    rate = f"{used.optimizer.name}, rate {used.optimizer.rate:.4g}"
    if used.optimizer.gradient != "raw":
        rate += f" of the {used.optimizer.gradient}-normalised gradient"
    if used.schedule.kind != "constant":
        rate += f" on a {used.schedule.kind} schedule"
    section = recipe.section_of(network.name)
    if "optimizer.rate" in recipe.networks.get(section, {}):
        rate += f" (found for {network.name})" if section != "other" else f" (none was found for {network.name})"
    console.print(f"recipe   {used.name}: {used.description}", soft_wrap=True)
    console.print(f"         {used.steps} steps, {rate}", soft_wrap=True)
    for each in networks if used.priors.statistics else []:
        origin = natural_statistics(each, used.priors.statistics.source)[1]  # type: ignore[union-attr]
        if not origin:
            console.print(
                f"         note: there are no statistics of natural images for {each.name}, so no prior pulls towards "
                "them: gather them with `phosphene statistics DIR --network …`",
                soft_wrap=True,
            )


def again(args: argparse.Namespace, console: Console) -> int:
    out = make_directory(args.out)
    network = None
    if has_network_argument(args):
        network = open_argument(args, named_default(provenance.read(args.images[0]).network.source, args.trust))
    made = []
    for path in args.images:
        with progress_bar(args, 1) as on_progress:
            again = again_module.again(path, network, trust=args.trust, device=args.device, on_progress=on_progress)
        written = save_picture(again.picture, out)
        made.append({"image": str(path), "written": str(written), "same": again.same})
        console.print(f"{written}: {'the same, byte for byte' if again.same else 'not the same'}")
        if not again.same:
            print(
                f"phosphene: {path} came out otherwise: made on another machine or by other versions", file=sys.stderr
            )
    if args.json:
        print(json.dumps(made, indent=1), file=console.file)
    return 0 if all(entry["same"] for entry in made) else 1
