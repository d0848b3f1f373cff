"""The command line: one thin function per verb."""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import os
import re
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import phosphene
from phosphene import (
    ascent,
    atlas,
    choosing,
    devices,
    doctor,
    found,
    judges,
    networks,
    profiling,
    provenance,
    render,
    reporting,
    reproduce,
    searching,
    statistics,
    studio,
)
from phosphene.canvas import as_pixels
from phosphene.errors import InputError, did_you_mean
from phosphene.networks import Network
from phosphene.networks.from_torchvision import torchvision_names
from phosphene.networks.precision import PRECISIONS
from phosphene.networks.preprocessing import PRESETS
from phosphene.networks.sources import sources
from phosphene.picture import Picture, Result
from phosphene.priors import natural_statistics
from phosphene.recipe import Recipe, fields, recipe_names, toml_value
from phosphene.space import space_names
from phosphene.units import Caricature, Channel, Class, Match, Unit, WholeLayer, find_class, parse_unit

INTERRUPTED_STATUS = 130
INPUT_ERROR_STATUS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    args = _parser().parse_args(arguments)
    width = None if sys.stdout.isatty() else 160
    console = Console(quiet=args.quiet or args.json, highlight=False, width=width)
    try:
        status: int = args.run(args, console)
        sys.stdout.flush()
    except InputError as error:
        print(f"phosphene: {error}", file=sys.stderr)
        return INPUT_ERROR_STATUS
    except KeyboardInterrupt:
        print("phosphene: interrupted", file=sys.stderr)
        return INTERRUPTED_STATUS
    except BrokenPipeError:  # `phosphene layers | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="phosphene", description="Shows what an image network has learnt: the images that excite its units most."
    )
    parser.add_argument("--version", action="version", version=f"phosphene {phosphene.__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace, Console], int], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    made = verb("classes", _classes, "images of classes")
    made.add_argument("classes", nargs="+", metavar="CLASS", help="an index, a WordNet id or a name ('pool table')")
    made.add_argument("--best-of", type=_positive, metavar="K", help="of K seeds the image that --choosers like best")
    made.add_argument("--choosers", type=_judge_list, metavar="A,B", help="networks that choose (see `judge`)")
    made.add_argument(
        "--with", action="append", default=[], dest="others", metavar="NETWORK",
        help="an ensemble: show what this network too takes for the class; may be repeated (see `judge`)",
    )  # fmt: skip
    _making(made, "natural", finds=True)

    made = verb("filters", _filters, "images of a layer's channels")
    made.add_argument(
        "layers",
        nargs="+",
        metavar="LAYER[:CHANNELS]",
        help="all channels of a layer, some (:12, :0-7, :1,5,9), a neuron (:12@ROW,COLUMN), or any unit or sum",
    )
    made.add_argument("--count", type=_positive, metavar="K", help="only K of the channels, evenly spread")
    made.add_argument("--average", action="store_true", help="the average over a channel's map, not the sum")
    made.add_argument("--whole", action="store_true", help="the whole layer as one unit, not its channels")
    _making(made, "draft", finds=True)

    for name, text, recipe, layers in (
        ("dream", "DeepDream: a photograph, with all that a layer sees in it brought out", "dream", "a late one"),
        ("invert", "a photograph as a layer keeps it: what can be told from its activations", "invert", "five"),
        ("caricature", "what a layer makes of a photograph, exaggerated", "caricature", "five"),
    ):
        made = verb(name, _PHOTOGRAPHED[name], text)
        made.add_argument("photograph", type=Path, metavar="PHOTOGRAPH")
        made.add_argument("layers", nargs="*", metavar="LAYER", help=f"by default {layers} of those usually shown")
        _making(made, recipe)

    made = verb("reproduce", _reproduce, "the figures of Fabien Tencé's post (2016), on its networks or any other")
    made.add_argument("figures", nargs="*", metavar="FIGURE", help="one or several of those that --list lists")
    made.add_argument("--list", action="store_true", help="the figures, and what each shows")
    made.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="others than the figure's")
    made.add_argument("--channels", type=_positive, default=2, metavar="K", help="of each layer of filters (2)")
    made.add_argument(
        "--receptive-field", action="store_true", help="each filter as large as what one of its neurons sees"
    )
    _opening(made, "the figure's, whose --weights are needed")
    _running(made)
    _printing(made)

    made = verb("layers", _layers, "a network's layers in the order of calls")
    made.add_argument("pattern", nargs="?", help="only layers whose names fit, such as 'blocks.3.*'")
    made.add_argument("--marked", action="store_true", help="only those usually worth showing")
    _opening(made)
    _printing(made)

    made = verb("doctor", _doctor, "whether a network is fed right, and what of it can be shown")
    made.add_argument(
        "--images", type=Path, metavar="DIR", help="photographs, labelled by their names or their folders'"
    )
    made.add_argument("--csv", type=Path, metavar="FILE", help="a table of their labels, with columns file,label")
    made.add_argument("--limit", type=_positive, default=200, metavar="N", help="photographs at most (200)")
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, …; by default a GPU where there is one")
    _opening(made)
    _printing(made)

    made = verb("statistics", _statistics, "what photographs are like, or what a network makes of them")
    made.add_argument("directory", type=Path, metavar="DIR", help="photographs, also in folders of the folder")
    made.add_argument(
        "--limit", type=_positive, default=statistics.LIMIT, metavar="N",
        help=f"of more photographs so many, evenly spread ({statistics.LIMIT})",
    )  # fmt: skip
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, …; by default a GPU where there is one")
    made.add_argument(
        "-o", "--out", type=Path, metavar="FILE",
        help="statistics.safetensors, or a network's where the priors look for them",
    )  # fmt: skip
    _opening(made, "none, and the photographs themselves are measured")
    _printing(made)

    made = verb("search", _search, "the recipe for a network, or for a layer, found by measuring")
    made.add_argument("--layer", help="whose channels; by default classes, of which other networks are to be sure")
    made.add_argument("--count", "--classes", type=_positive, metavar="N", help="so many classes (8) or channels (6)")
    made.add_argument(
        "--space", metavar="NAME|FILE", help=f"{', '.join(space_names())}, or a TOML file; by default classes or layers"
    )
    made.add_argument(
        "--trials", type=_positive, default=50, metavar="N", help="in the end, earlier ones included (50)"
    )
    made.add_argument("--budget", type=_minutes, metavar="MINUTES", help="begin no further trial after so long")
    made.add_argument("--steps", type=_positive, metavar="N", help="of a whole trial; by default the recipe's")
    made.add_argument("--sampler", choices=searching.SAMPLERS, default="tpe", help="tpe, or random as the post's")
    made.add_argument(
        "--pruner", choices=searching.PRUNERS, default="halving",
        help="what ends bad trials after a ninth and a third of the steps (halving)",
    )  # fmt: skip
    made.add_argument("--compute", action="store_true", help="minimise passes too, where the space has steps")
    made.add_argument("--judges", metavar="A,B", help="who judge classes; by default the EfficientNet-lites")
    made.add_argument("--storage", metavar="FILE|URL", help="by default OUT/searches.journal; or a database's URL")
    made.add_argument("--seed", type=_seed, default=ascent.DEFAULT_SEED, metavar="N", help="of what is searched on")
    made.add_argument("--report", action="store_true", help="write a page on the search, too")
    made.add_argument("--dry", action="store_true", help="do not keep the recipe for `classes` and `filters`")
    made.add_argument("--device", metavar="A,B", help="cpu, cuda, …; by default all GPUs, or else the CPU")
    made.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="of the network's passes")
    made.add_argument(
        "-o", "--out", type=Path, default=Path("phosphene-search"), metavar="DIR", help="phosphene-search"
    )
    _opening(made)
    _printing(made)

    _atlas_verbs(verbs)

    made = verb("studio", _studio, "a local page: pick a unit, watch its image form, change strengths on the way")
    made.add_argument(
        "--files", nargs="+", type=Path, default=[], metavar="DIR", help="whose networks and weights may be read"
    )
    made.add_argument("--atlas", metavar="DIR|URL", help="keep classes and channels there; made if missing")
    made.add_argument("-o", "--out", type=Path, default=Path("phosphene-out"), metavar="DIR", help="keep others there")
    port = studio.DEFAULT_PORT
    made.add_argument("--port", type=_port, default=port, metavar="N", help=f"{port}; 0: any that is free")
    made.add_argument("--no-browser", action="store_true", help="print the page's address, and open no browser")
    made.add_argument("--device", metavar="A,B", help="cpu, cuda, …; by default all GPUs, or else the CPU")
    _printing(made)

    made = verb("profile", _profile, "where the time of a step goes")
    made.add_argument("units", nargs="*", metavar="UNIT", help="by default a class, or a channel of the last layer")
    made.add_argument("-r", "--recipe", default="natural", help="a name (natural) or a TOML file; see `recipes`")
    made.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe: median.size=3"
    )
    made.add_argument("--size", type=_size, metavar="N|HxW", help="of the image in pixels; by default the network's")
    made.add_argument("--batch", type=_positive, default=8, metavar="N", help="images at once (8)")
    made.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="of the network's passes")
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, …; by default a GPU where there is one")
    _opening(made)
    _printing(made)

    made = verb("networks", _networks, "the networks that can be opened")
    made.add_argument("pattern", nargs="?", help="timm's and torchvision's whose names fit, such as 'resnet*'")
    _printing(made)

    made = verb("recipes", _recipes, "the recipes that ship, or one of them as TOML")
    made.add_argument("recipe", nargs="?", help="a recipe's name or file, printed as TOML")
    made.add_argument("--fields", action="store_true", help="every field: its default, its range, what it means")
    _printing(made)

    made = verb("show", _show, "how an image was made, from its own file")
    made.add_argument("images", nargs="+", metavar="IMAGE.png")
    _printing(made)

    made = verb("judge", _judge, "what other networks see in images, and what is measured of them")
    made.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="images, or folders of phosphene's")
    made.add_argument(
        "--judges", metavar="A,B",
        help="names, files, FILE=WEIGHTS or …@PREPROCESSING; none; by default the EfficientNet-lites that are here",
    )  # fmt: skip
    made.add_argument("--class", dest="shown", metavar="CLASS", help="what images show that phosphene did not make")
    made.add_argument("--photographs", type=Path, metavar="DIR", help="compare with these")
    made.add_argument("--dry", action="store_true", help="write no card into the images")
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, …; by default a GPU where there is one")
    _opening(made, "the one that each image names")
    _printing(made)

    made = verb("again", _again, "make an image again, from its file alone")
    made.add_argument("images", nargs="+", metavar="IMAGE.png")
    _opening(made, "the one that the image names")
    made.add_argument("--device", help="by default the kind that the image was made on")
    made.add_argument("-o", "--out", type=Path, default=Path("phosphene-again"), metavar="DIR")
    _printing(made)
    return parser


def _atlas_verbs(verbs: Any) -> None:
    text = "a whole network: every unit of some layers, made, kept and looked up"
    parts = verbs.add_parser("atlas", help=text, description=text).add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace, Console], int], text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = parts.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("atlas", metavar="DIR|URL")
        return added

    made = verb("plan", _atlas_plan, "say what is to be made, and what it takes; nothing is made yet")
    made.add_argument(
        "--layers", nargs="+", default=[], metavar="LAYER", help="names or patterns, or all: those usually shown"
    )
    made.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="names or indices, 0-99, or all")
    made.add_argument("--count", type=_positive, metavar="K", help="of each layer only K channels, evenly spread")
    made.add_argument("-r", "--recipe", help="for all; by default what a `search` found, or else draft")
    made.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe")
    made.add_argument("--steps", type=_positive, metavar="N", help="steps at most")
    made.add_argument("--size", type=_size, metavar="N|HxW", help="of the images; by default the network's")
    made.add_argument("--facets", type=_positive, default=1, metavar="N", help="images of each unit that differ")
    made.add_argument("--seed", type=_seed, default=ascent.DEFAULT_SEED, metavar="N", help=f"{ascent.DEFAULT_SEED}")
    made.add_argument("--judges", metavar="A,B", help="who judge classes; by default the EfficientNet-lites; or none")
    made.add_argument(
        "--frames", type=int, metavar="N", help=f"of each ascent, kept beside its image; 0: none ({atlas.FRAMES})"
    )
    made.add_argument("--device", metavar="NAME", help="where the time is measured")
    _opening(made)
    _printing(made)

    made = verb("run", _atlas_run, "make what is missing, or made by another recipe")
    made.add_argument("--workers", type=_positive, default=1, metavar="N", help="processes of this machine (1)")
    made.add_argument("--device", metavar="A,B", help="of the workers, in turn; by default every GPU, or the CPU")
    made.add_argument(
        "--ray", nargs="?", const="auto", metavar="ADDRESS", help="on a Ray cluster: its address; auto: the one here"
    )
    _printing(made)

    for name, run, text in (
        ("status", _atlas_status, "how far it is, and when it ends; from any terminal"),
        ("verify", _atlas_verify, "whether every image is as it was written"),
        ("index", _atlas_index, "make the index again, from the images alone"),
        ("site", _atlas_site, "a page to browse it: no server, and nothing from elsewhere"),
    ):
        made = verb(name, run, text)
        if name == "verify":
            made.add_argument(
                "--repair", action="store_true", help="take those out of the index, so that `run` makes them"
            )
        if name == "site":
            made.add_argument("--photographs", type=Path, metavar="DIR", help="show which of these excite a unit most")
            made.add_argument(
                "--beside", metavar="DIR|URL", help="another atlas to compare with; its images are copied"
            )
            made.add_argument("--plain", action="store_true", help="do not ask the network which units are alike")
            made.add_argument("--device", metavar="NAME", help="where it is asked")
        _printing(made)


def _opening(parser: argparse.ArgumentParser, default: str = networks.DEFAULT) -> None:
    network = parser.add_argument_group("the network")
    network.add_argument("-n", "--network", help=f"by default {default}; or any that `networks` lists")
    network.add_argument("--weights", metavar="FILE", help="its weights: .safetensors, .pth, .caffemodel, .h5")
    network.add_argument("--partial", action="store_true", help="the weights are of some layers only: show those")
    network.add_argument("--preprocessing", metavar="MODE|FILE", help=f"{', '.join(PRESETS)}, or a TOML file")
    network.add_argument("--mean", metavar="B,G,R|FILE", help="Caffe's mean: numbers, .binaryproto or .npy")
    network.add_argument("--labels", metavar="FILE", help="the names of its outputs, one a line, or synset_words.txt")


def _open(args: argparse.Namespace, default: str = networks.DEFAULT) -> Network:
    """The network that the options of `_opening` name."""
    return networks.open_network(
        args.network or default, args.preprocessing, args.labels,
        weights=args.weights, mean=args.mean, partial=args.partial,
    )  # fmt: skip


def _printing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")


def _making(parser: argparse.ArgumentParser, recipe: str, finds: bool = False) -> None:
    _opening(parser)
    parser.add_argument(
        "-r", "--recipe",
        help=f"a name or a TOML file (see `recipes`); by default {'what a `search` found, or else ' * finds}{recipe}",
    )  # fmt: skip
    parser.set_defaults(default_recipe=recipe, finds=finds)
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe: median.size=3"
    )
    parser.add_argument("--start", type=Path, metavar="IMAGE", help="start from this image")
    parser.add_argument("--facets", type=_positive, default=1, metavar="N", help="N images of each unit that differ")
    parser.add_argument("--animate", type=_positive, metavar="N", help="also an animation of the first N steps")
    _running(parser)
    _printing(parser)


def _running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=_positive, metavar="N", help="steps at most")
    parser.add_argument("--seed", type=_seed, default=ascent.DEFAULT_SEED, metavar="N", help=f"{ascent.DEFAULT_SEED}")
    parser.add_argument("--size", type=_size, metavar="N|HxW", help="of the image in pixels; by default the network's")
    parser.add_argument("--device", metavar="A,B", help="cpu, cuda, cuda:1, …; by default all GPUs, or else the CPU")
    parser.add_argument(
        "--precision",
        choices=["auto", *PRECISIONS],
        default="auto",
        help="of the network's passes; by default the faster",
    )
    parser.add_argument("--batch", type=_positive, metavar="N", help="images at once; by default what memory takes")
    parser.add_argument("--animation", choices=render.ANIMATIONS, default="gif", help="format of animations (gif)")
    parser.add_argument("-o", "--out", type=Path, default=Path("phosphene-out"), metavar="DIR", help="phosphene-out")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**16:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 0 to {2**16 - 1}")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of minutes above 0")
    return minutes


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 0 to 2^63 - 1")
    return int(text)


def _size(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(x\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of pixels, or HEIGHTxWIDTH")
    sides = [int(side) for side in text.split("x")]
    return sides * 2 if len(sides) == 1 else sides


def _classes(args: argparse.Namespace, console: Console) -> int:
    network = _open(args)
    indices = dict.fromkeys(find_class(name, network) for name in args.classes)
    return _make(args, console, network, [Class(index) for index in indices])


def _filters(args: argparse.Namespace, console: Console) -> int:
    network = _open(args)
    units = list(dict.fromkeys(unit for spec in args.layers for unit in _filter_units(spec, args, network)))
    return _make(args, console, network, units)


def _dream(args: argparse.Namespace, console: Console) -> int:
    network = _open(args)
    args.start = args.photograph
    layers = args.layers or [_shown_layers(network)[-2:][0]]  # parts of things; the last shows whole ones everywhere
    units = [unit for layer in layers for unit in _filter_units(layer, _WHOLE, network)]
    return _make(args, console, _fitted(args, network, args.photograph), units)


def _invert(args: argparse.Namespace, console: Console) -> int:
    network = _open(args)
    units: list[Unit] = [Match(network.layer(name).name) for name in args.layers or _shown_layers(network)]
    return _make(args, console, network, units, args.photograph)


def _caricature(args: argparse.Namespace, console: Console) -> int:
    network = _open(args)
    units: list[Unit] = [Caricature(network.layer(name).name) for name in args.layers or _shown_layers(network)]
    return _make(args, console, network, units, args.photograph)


_PHOTOGRAPHED = {"dream": _dream, "invert": _invert, "caricature": _caricature}


_WHOLE = argparse.Namespace(whole=True, count=None, average=False)


def _shown_layers(network: Network, count: int = 5) -> list[str]:
    """So many of the layers usually worth showing, evenly spread in depth, the last one with a map among them."""
    layers = [layer.name for layer in network.layers if layer.worth_showing and layer.positions]
    layers = layers or [layer.name for layer in network.layers if layer.positions]
    if not layers:
        raise InputError(f"{network.name} has no layer with a map: expected LAYER")
    return [layers[(i + 1) * len(layers) // count - 1] for i in range(count)] if len(layers) > count else layers


def _fitted(args: argparse.Namespace, network: Network, photograph: Path) -> Network:
    """The network at the photograph's own proportions, where it takes such images and no --size is given."""
    if args.size is not None:
        return network
    try:
        with Image.open(photograph) as image:
            width, height = image.size
        scale = 2 * min(network.preprocessing.size) / min(width, height)  # type: ignore[arg-type]
        size = (round(height * min(1, scale)), round(width * min(1, scale)))
        resized = network.resized(size)
    except (InputError, OSError):
        return network
    args.size = list(size)
    return resized


def _filter_units(spec: str, args: argparse.Namespace, network: Network) -> list[Unit]:
    """`LAYER`, `LAYER:0-7` and `LAYER:1,5,9` to channels; anything else is a unit as units are spelled."""
    name, colon, chosen = spec.rpartition(":")
    if re.search(r"\s[+-]\s|[*(]", spec) or (colon and not re.fullmatch(r"\d+([-,]\d+)*", chosen)):
        return [parse_unit(spec, network)]
    layer = network.layer(name if colon else spec)
    if args.whole:
        return [WholeLayer(layer.name)]
    channels = list(range(layer.channels))
    if colon:
        channels = []
        for piece in chosen.split(","):
            first, *rest = map(int, piece.split("-"))
            channels += range(first, (rest or [first])[-1] + 1)
        if not channels:
            raise InputError(f"channels {chosen!r} of {layer.name}: expected a range that rises, such as 0-7")
    if args.count is not None and args.count < len(channels):
        channels = [channels[i * len(channels) // args.count] for i in range(args.count)]
    reduce = "mean" if args.average else "sum"
    units = [Channel(layer.name, channel, reduce) for channel in channels]  # type: ignore[arg-type]
    return [parse_unit(unit, network) for unit in units]


def _reproduce(args: argparse.Namespace, console: Console) -> int:
    if args.list or not args.figures:
        if args.json:
            print(json.dumps([asdict(figure) for figure in reproduce.figures().values()], indent=1))
            return 0
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("figure", "network", "what it shows"):
            table.add_column(column, overflow="fold")
        for figure in reproduce.figures().values():
            table.add_row(figure.name, figure.network, figure.title)
        console.print(table)
        return 0
    figures = [reproduce.find_figure(name) for name in dict.fromkeys(args.figures)]
    plans = [
        reproduce.plan(
            figure, _figures_network(args, figure), classes=args.classes, channels=args.channels,
            size=None if args.size is None else tuple(args.size), at_receptive_field=args.receptive_field,
            steps=args.steps, seed=args.seed, device=devices.named(args.device)[0],
        )
        for figure in figures
    ]  # fmt: skip
    if args.animation == "mp4" and any(figure.animate for figure in figures):
        render.require_mp4()
    made = []
    for planned in plans:
        out = render.make_directory(args.out / planned.figure.name if len(plans) > 1 else args.out)
        rows, status = _make_figure(args, console, planned, out)
        made.append(render.save_figure(planned, rows, out))
        console.print(f"figure.png and figure.json are in {out}")
        if status:
            return status
    if args.json:
        print(json.dumps(made, indent=1, ensure_ascii=False))
    return 0


def _figures_network(args: argparse.Namespace, figure: reproduce.Figure) -> Network:
    """The network asked for, or the post's with the weights given: Caffe's or torchvision's."""
    if args.network:
        return _open(args)
    if not args.weights:
        raise InputError(
            f"{figure.name} is of {figure.network}, whose weights do not ship: give them (--weights FILE.caffemodel, "
            "or torchvision's .pth), or another network (--network efficientnet_lite0)"
        )
    theirs = {"vgg16": "torchvision:vgg16", "caffenet": "torchvision:alexnet"}
    caffe = Path(args.weights).suffix == ".caffemodel"
    return _open(args, f"caffe:{figure.network}" if caffe else theirs[figure.network])


def _make_figure(
    args: argparse.Namespace, console: Console, planned: reproduce.Plan, out: Path
) -> tuple[list[tuple[reproduce.Row, Result]], int]:
    network = planned.rows[0].network
    total = sum(len(row.units) for row in planned.rows)
    console.print(f"figure   {planned.figure.name}: {planned.figure.title}")
    console.print(f"network  {network.name}, weights {network.digest}, eats {network.preprocessing.describe()}")
    for note in network.notes.values():
        console.print(f"         note: {note}", soft_wrap=True)
    console.print(f"settings {planned.settings}", soft_wrap=True)
    console.print(f"making   {_images(total)} in {out}")
    before = 0
    rows: list[tuple[reproduce.Row, Result]] = []

    def save(row: reproduce.Row, picture: Picture) -> None:
        render.save_picture(picture, out)
        if planned.figure.animate and picture.frames:
            render.save_animation(picture, out, args.animation)

    with _progress_bar(args, total) as show:

        def progress(row: reproduce.Row, at: ascent.Progress) -> None:
            if show is not None:
                work = (before + at.work * at.total) / total
                show(replace(at, done=before + at.done, total=total, work=work))

        for row, result in reproduce.make(
            planned, seed=args.seed, device=devices.named(args.device), batch=args.batch, precision=args.precision,
            on_progress=progress, on_picture=save,
        ):  # fmt: skip
            rows.append((row, result))
            before += len(row.units)
    for row, result in rows:
        console.print(f"\n{row.label}")
        console.print(_table(result))
    interrupted = any(result.interrupted for _, result in rows)
    if interrupted:
        kept = sum(len(result) for _, result in rows)
        print(f"phosphene: interrupted: {kept} of {_images(total)} kept in {out}", file=sys.stderr)
    return rows, INTERRUPTED_STATUS if interrupted else 0


def _recipes_of(args: argparse.Namespace, network: Network, units: Sequence[Unit]) -> list[Recipe]:
    """Each unit's recipe: the one asked for, or else the one found for its layer or classes, or else the verb's."""
    alone = args.finds and not getattr(args, "others", [])
    recipes = []
    for unit in units:
        own = found.find(network, unit) if alone and args.recipe is None else None
        recipes.append(_changed(args, own or Recipe.load(args.recipe or args.default_recipe)))
    return recipes


def _changed(args: argparse.Namespace, recipe: Recipe) -> Recipe:
    changes: dict[str, Any] = {}
    for pair in args.set:
        field, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r}: expected FIELD=VALUE, such as median.size=3")
        changes[field.strip()] = toml_value(value.strip())
    if args.steps is not None:
        changes["steps"] = args.steps
    if args.size is not None:
        changes["size"] = args.size
    if args.start is not None:
        changes["start.kind"] = "image"
    if args.animate is not None:
        changes |= {"keep.every": 1, "keep.until": args.animate}
    return recipe.changed(changes)


def _make(
    args: argparse.Namespace, console: Console, network: Network, units: list[Unit], photograph: Path | None = None
) -> int:
    """Make pictures, write each as soon as it is finished, and print how it goes."""
    recipes = _recipes_of(args, network, units)
    network = ascent.sized(network, *(recipe.for_network(network.name) for recipe in recipes))
    units = [parse_unit(unit, network) for unit in units]  # what cannot be shown is said before anything is written
    size = recipes[0].for_network(network.name).size
    fed = network.preprocessing.resized(size) if size else network.preprocessing
    start = None if args.start is None else as_pixels(args.start, fed)
    shown = None if photograph is None else as_pixels(photograph, fed)
    others = [judges.open_judge(name) for name in getattr(args, "others", [])]
    choosers = _choosers(args, others)
    where = devices.named(args.device)
    if args.animate is not None and args.animation == "mp4":
        render.require_mp4()
    out = render.make_directory(args.out)
    count = len(units) * args.facets
    _say_what(console, [network, *others], recipes, units, where, count, out)

    def save(picture: Picture) -> None:
        render.save_picture(picture, out)
        if args.animate is not None and picture.frames:
            render.save_animation(picture, out, args.animation)

    options: dict[str, Any] = {"seed": args.seed, "start": start, "device": where, "batch": args.batch}
    options["precision"] = args.precision
    total = len(units) * args.facets * (args.best_of if choosers else 1)
    with _progress_bar(args, total) as on_progress, render.beside(save) as on_picture:
        if choosers:
            result = choosing.best_of(
                network, units, recipes, count=args.best_of, choosers=choosers, on_progress=on_progress,
                on_picture=on_picture, **options,
            )  # fmt: skip
        else:
            result = ascent.ascend(
                [network, *others], units, recipes, photograph=shown, facets=args.facets, on_progress=on_progress,
                on_picture=on_picture, **options,
            )  # fmt: skip
    render.save_summary(result, out)
    if args.json:
        print(json.dumps(render.run_data(result), indent=1, ensure_ascii=False))
    console.print(_table(result))
    if result.interrupted:
        missing = f"; {len(result.unmade)} were not begun" if result.unmade else ""
        print(f"phosphene: interrupted: {len(result)} of {_images(count)} kept in {out}{missing}", file=sys.stderr)
        return INTERRUPTED_STATUS
    if any("bf16" in picture.precision for picture in result):
        console.print("the network's passes were in bf16, which is faster here (--precision fp32 for 32 bits)")
    if any(picture.stopped == ascent.DEAD for picture in result):
        console.print("a dead unit may wake with another --seed, or before the activation (see `phosphene layers`)")
    console.print(f"{_images(len(result))}, grid.png, objective.png and run.json are in {out}")
    return 0


def _choosers(args: argparse.Namespace, others: list[Network]) -> list[Network]:
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
    return [judges.open_judge(name) for name in chosen]


def _judge_list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _say_what(
    console: Console,
    makers: list[Network],
    recipes: list[Recipe],
    units: list[Unit],
    devices_used: list[torch.device],
    count: int,
    out: Path,
) -> None:
    network = makers[0]
    height, width = network.preprocessing.size  # type: ignore[misc]
    where = ", ".join(
        f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
        for device in devices_used
    )
    console.print(f"network  {network.name}, {height}x{width} pixels, weights {network.digest}")
    console.print(f"         eats {network.preprocessing.describe()}")
    for note in network.notes.values():
        console.print(f"         note: {note}", soft_wrap=True)
    if network.softmax is not None and network.classes:
        console.print("         ends in a softmax, which is bypassed: the logit is maximised")
    for other in makers[1:]:
        console.print(f"     and {other.name}, weights {other.digest}, eats {other.preprocessing.describe()}")
    for recipe in ascent.distinct(recipes):
        shown = [unit for unit, own in zip(units, recipes, strict=True) if own == recipe]
        _say_recipe(console, makers, recipe, shown)
    console.print(f"device   {where}")
    console.print(f"making   {_images(count)} in {out}")


def _say_recipe(console: Console, makers: list[Network], recipe: Recipe, units: list[Unit]) -> None:
    network = makers[0]
    used = recipe.for_network(network.name)
    rate = f"{used.optimizer.name}, rate {used.optimizer.rate:.4g}"
    if used.optimizer.gradient != "raw":
        rate += f" of the {used.optimizer.gradient}-normalised gradient"
    if used.schedule.kind != "constant":
        rate += f" on a {used.schedule.kind} schedule"
    section = network.name if network.name in recipe.networks else "other"
    if "optimizer.rate" in recipe.networks.get(section, {}):
        rate += f" (found for {network.name})" if section != "other" else f" (none was found for {network.name})"
    console.print(f"recipe   {used.name}: {used.description}", soft_wrap=True)
    console.print(f"         {used.steps} steps, {rate}", soft_wrap=True)
    classes = any(isinstance(part, Class) for unit in units for _, part in unit.terms())
    of_classes = used.priors.statistics is not None and (classes or used.priors.statistics.units == "all")
    for maker in makers if of_classes else []:
        origin = natural_statistics(maker, used.priors.statistics.source)[1]  # type: ignore[union-attr]
        if not origin:
            console.print(
                f"         note: there are no statistics of natural images for {maker.name}, so no prior pulls towards "
                "them: gather them with `phosphene statistics DIR --network …`",
                soft_wrap=True,
            )


@contextmanager
def _progress_bar(args: argparse.Namespace, total: int) -> Iterator[Callable[[ascent.Progress], None] | None]:
    """A bar on a terminal, a line now and then elsewhere, nothing if that is asked for."""
    console = Console(stderr=True, highlight=False)
    if args.quiet or args.json:
        yield None
        return
    if not console.is_terminal:
        shown = -1

        def line(progress: ascent.Progress) -> None:
            nonlocal shown
            if int(progress.work * 10) > shown:
                shown = int(progress.work * 10)
                print(f"{progress.work:4.0%}  {_status(progress)}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (BarColumn(), TextColumn("{task.percentage:3.0f}%"), TextColumn("{task.fields[status]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=1.0, status="first step")
        yield lambda progress: bar.update(task, completed=progress.work, status=_status(progress))


def _status(progress: ascent.Progress) -> str:
    text = f"{progress.done}/{progress.total} images  objective {progress.objective:.4g}"
    return text if progress.probability is None else f"{text}  confidence {progress.probability:.0%}"


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _table(result: Result) -> Table:
    is_class = any("probability" in picture.scores for picture in result)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class" if is_class else "unit")
    for column in ["objective", *(["probability"] if is_class else []), "steps", "seconds"]:
        table.add_column(column, justify="right")
    table.add_column("stopped")
    for picture in result:
        probability = picture.scores.get("probability")
        table.add_row(
            f"{picture.unit.index:03d} {picture.label}" if isinstance(picture.unit, Class) else picture.label,
            f"{picture.scores['objective']:.4g}",
            *([f"{probability:.1%}" if probability is not None else ""] if is_class else []),
            str(picture.steps),
            f"{picture.seconds:.1f}",
            picture.stopped,
        )
    return table


def _layers(args: argparse.Namespace, console: Console) -> int:
    network = _open(args)
    layers = [
        layer
        for layer in network.layers
        if fnmatch.fnmatchcase(layer.name, args.pattern or "*") and (layer.worth_showing or not args.marked)
    ]
    if not layers:
        names = [layer.name for layer in network.layers]
        raise InputError(f"{network.name} has no layer that fits {args.pattern!r}{did_you_mean(args.pattern, names)}")
    if args.json:
        print(json.dumps([vars(layer) for layer in layers], indent=1))
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


def _doctor(args: argparse.Namespace, console: Console) -> int:
    network = _open(args)
    device = ascent.find_device(args.device)
    console.print(f"network  {network.name}, weights {network.digest}")
    photographs = fit = images = None
    if args.images is not None or args.csv is not None:
        if args.csv is not None:
            labelled = doctor.labelled_by_table(args.csv, network, args.images)
        else:
            labelled = doctor.labelled_by_name(args.images, network)
        photographs = labelled.at_most(args.limit)
        (pixels,), _ = doctor.read_photographs(photographs.at_most(64), [network.preprocessing])
        images = pixels.float()
    with Console(stderr=True, quiet=args.quiet or args.json).status("looking at its layers") as status:
        findings = doctor.inspect(network, images, device)
        if photographs is not None:
            fit = doctor.fit(network, photographs, device, status.update)
            findings += fit.findings
    if args.json:
        print(json.dumps({"findings": findings, "fit": fit}, default=vars, indent=1, ensure_ascii=False))
    _print_findings(console, findings)
    if photographs is not None and fit is not None:
        _print_fit(console, photographs, fit)
    return 1 if any(finding.level == "warning" for finding in findings) else 0


def _print_findings(console: Console, findings: list[doctor.Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in ("level", "topic", "text"):
        table.add_column(name, overflow="fold", no_wrap=name != "text")
    for finding in findings:
        level = f"[bold]{finding.level}[/bold]" if finding.level == "warning" else finding.level
        table.add_row(level, finding.topic, escape(finding.text))
    console.print(table)


def _print_fit(console: Console, photographs: doctor.Photographs, fit: doctor.Fit) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "preprocessing", "fed", "photographs", "named right", "of", "confidence"):
        table.add_column(column, justify="right" if column in ("named right", "of", "confidence") else "left")
    for trial in fit.trials:
        table.add_row(
            "*" if trial == fit.fits else "=" if trial.same else "", trial.name, trial.preprocessing.describe(),
            trial.rule, f"{trial.accuracy:.1%}", str(trial.photographs), f"{trial.confidence:.1%}",
        )  # fmt: skip
    console.print()
    console.print(table)
    console.print("* fits   = cannot be told from it   confidence: the mean probability of the true class")
    left_out = [
        f"{count} {what}"
        for count, what in (
            (len(photographs.unlabelled), "tell no class by their name"),
            (fit.unreadable, "are unreadable"),
        )
        if count
    ]
    if left_out:
        console.print(f"of the image files, {' and '.join(left_out)}")
    if fit.remedy:
        where = "" if fit.remedy.startswith("--") else " in a TOML file (--preprocessing FILE, or beside the network's)"
        console.print(f"\nsay so{where}:\n\n{fit.remedy}", markup=False)


def _profile(args: argparse.Namespace, console: Console) -> int:
    args.steps = args.start = args.animate = None
    network = _open(args)
    recipe = _changed(args, Recipe.load(args.recipe))
    network = ascent.sized(network, recipe)
    units = args.units or ["class:0" if network.classes else f"{network.layers[-1].name}:0"]
    with Console(stderr=True, quiet=args.quiet or args.json).status("timing steps"):
        found = profiling.profile(
            network, units, recipe, batch=args.batch, device=args.device, precision=args.precision
        )
    if args.json:
        print(json.dumps({**asdict(found), "share_of_peak": found.share_of_peak}, indent=1))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"a step of {_images(found.batch)}")
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


def _search(args: argparse.Namespace, console: Console) -> int:
    network = _open(args)
    asked = None if args.judges is None else _judge_list(args.judges)
    units = args.layer or "classes"
    console.print(f"network  {network.name}, weights {network.digest}")
    console.print(f"search   {units}, {args.trials} trials in all ({args.sampler}, {args.pruner}), in {args.out}")

    def told(outcome: searching.Outcome) -> None:
        steps = f"{outcome.rungs[-1].steps:4d} steps" if outcome.rungs else "not made"
        score = f"{outcome.score:.3f}" if outcome.score is not None else "  -  "
        words = outcome.reason or "  ".join(f"{name}={_brief(value)}" for name, value in outcome.values.items())
        line = f"{outcome.number:4d}  {outcome.state:8}  {steps}  {score}  {words}"
        console.print(escape(line), soft_wrap=True)

    made = searching.search(
        network, args.layer, space=args.space, count=args.count, judges=asked, trials=args.trials, budget=args.budget,
        steps=args.steps, sampler=args.sampler, pruner=args.pruner, compute=args.compute, storage=args.storage,
        out=args.out, seed=args.seed, device=devices.named(args.device), precision=args.precision, keep=not args.dry,
        on_trial=told,
    )  # fmt: skip
    page = reporting.write_report(made) if args.report else None
    if args.json:
        print(json.dumps(_search_data(made), indent=1, ensure_ascii=False))
    if made.best is None:
        console.print(f"no trial is complete yet; what was made is in {made.folder}, and the same command goes on")
    elif made.recipe is None or made.recipe.found is None:
        console.print(
            f"best     trial {made.best.number}: {made.best.score:.3f}, no better than the recipe that it started from "
            f"({made.base:.3f}); with more --trials the same command goes on"
        )
    else:
        by = f" by {', '.join(made.recipe.found.judges)}" if made.recipe.found.judges else ""
        than = "" if made.base is None else f"; the recipe that it started from has {made.base:.3f}"
        console.print(f"best     trial {made.best.number}: {made.recipe.found.score:.3f}{by}{than}")
        console.print(f"recipe   {made.folder / 'recipe.toml'}")
        if not args.dry:
            kept = found.directory(network) / found.file_name(made.recipe.found.units)
            verb = "filters" if args.layer else "classes"
            console.print(f"         `phosphene {verb}` uses it for this network from now on, until {kept} is gone")
    if page is not None:
        console.print(f"report   {page}")
    if made.interrupted:
        print("phosphene: interrupted: the same command goes on", file=sys.stderr)
        return INTERRUPTED_STATUS
    return 0


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _search_data(made: searching.Search) -> dict[str, Any]:
    return {
        "folder": str(made.folder),
        "recipe": None if made.recipe is None else made.recipe.to_dict(),
        "best": None if made.best is None else made.best.number,
        "base": made.base,
        "trials": [asdict(outcome) for outcome in made.outcomes],
        "front": [[outcome.number, rung.passes, rung.score] for outcome, rung in made.front()],
        "interrupted": made.interrupted,
    }


def _atlas_plan(args: argparse.Namespace, console: Console) -> int:
    network = _open(args)
    store = atlas.Store(args.atlas)
    recipe = None
    if args.recipe or args.set or args.steps or args.size:
        args.start = args.animate = None
        recipe = _changed(args, Recipe.load(args.recipe or "draft"))
    old = store.plan() if store.has_plan() else None
    frames = args.frames if args.frames is not None else atlas.FRAMES if old is None else old.frames
    asked = None if args.judges is None else [] if args.judges == "none" else _judge_list(args.judges)
    plan = atlas.make_plan(
        network, layers=_atlas_layers(args.layers, network), classes=_atlas_classes(args.classes, network),
        count=args.count, recipe=recipe, facets=args.facets, seed=args.seed, judges=asked, frames=frames,
    )  # fmt: skip
    atlas.panel(plan, network)
    if old is not None:
        plan = atlas.merged(old, plan)
    store.write_plan(plan)
    have = {(row["group"], row["index"], row["facet"], row["recipe"]) for row in store.rows()}
    with _file_bar(args) as on_progress:
        device = None if args.device is None else ascent.find_device(args.device)
        expected = atlas.estimate(plan, network, device=device, on_progress=on_progress)
    if args.json:
        groups = [{"name": group.name, "units": len(group.indices), "recipe": group.digest} for group in plan.groups]
        print(json.dumps({"groups": groups, **asdict(expected), "there": len(have)}, indent=1))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("units of", "images", "recipe", "steps"):
        table.add_column(column, justify="left" if column in ("units of", "recipe") else "right")
    for group in plan.groups:
        images = len(group.indices) * plan.facets
        table.add_row(escape(group.name), str(images), escape(group.recipe["name"]), str(group.recipe["steps"]))
    console.print(table)
    console.print(
        f"{_images(expected.images)}, {expected.steps:,} steps: about {_duration(expected.seconds)} by one process"
    )
    console.print(
        f"here, and {expected.size / 2**20:.0f} MiB; {len(have)} are there. Make them: phosphene atlas run {args.atlas}"
    )
    return 0


def _atlas_layers(patterns: Sequence[str], network: Network) -> list[str]:
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


def _atlas_classes(names: Sequence[str], network: Network) -> list[int]:
    found: list[int] = []
    for name in names:
        if name == "all":
            found += range(network.classes or 0)
        elif re.fullmatch(r"\d+-\d+", name):
            first, last = map(int, name.split("-"))
            found += range(first, last + 1)
        else:
            found.append(find_class(name, network))
    if names and not found:
        raise InputError(f"no class of {network.name} is {' '.join(names)!r}: expected names, indices, 0-99 or all")
    return found


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def _atlas_run(args: argparse.Namespace, console: Console) -> int:
    where = [name.strip() for name in args.device.split(",")] if args.device else []
    if not where and torch.cuda.device_count() > 1:
        where = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    for name in where:
        ascent.find_device(name)
    with _file_bar(args) as on_done:
        report = atlas.run(args.atlas, workers=args.workers, devices=where, ray=args.ray, on_done=on_done)
    if args.json:
        print(json.dumps(asdict(report), indent=1))
    console.print(f"{_images(report.made)} made in {args.atlas}")
    for unit, why in report.failed.items():
        print(f"phosphene: {unit} could not be made: {why}", file=sys.stderr)
    if report.interrupted:
        print(f"phosphene: interrupted: `phosphene atlas run {args.atlas}` goes on", file=sys.stderr)
        return INTERRUPTED_STATUS
    return 1 if report.failed else 0


def _atlas_status(args: argparse.Namespace, console: Console) -> int:
    found = atlas.status(args.atlas)
    if args.json:
        print(json.dumps({**asdict(found), "made": found.made, "count": found.count}, indent=1))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("units of")
    for column in ("made", "of"):
        table.add_column(column, justify="right")
    for name, have, want in found.groups:
        table.add_row(escape(name), str(have), str(want))
    console.print(table)
    share = found.made / max(1, found.count)
    console.print(f"{found.made} of {_images(found.count)} ({share:.0%}), {found.size / 2**20:.0f} MiB")
    if found.left == 0:
        console.print("all are there")
    elif found.rate and found.left is not None:
        last = "" if found.last is None else f"; the last was written {_duration(found.last)} ago"
        console.print(f"{found.rate:.0f} an hour, so {_duration(found.left)} more{last}")
    else:
        console.print("nothing is known yet of how long it takes")
    return 0


def _atlas_verify(args: argparse.Namespace, console: Console) -> int:
    store = atlas.Store(args.atlas)
    store.plan()
    rows = store.rows()
    with _file_bar(args) as on_progress:
        problems = list(store.verify(rows, on_progress))
    if args.repair and problems:
        store.drop(problem.row for problem in problems)
    if args.json:
        print(json.dumps([{"file": problem.file, "what": problem.what} for problem in problems], indent=1))
    for problem in problems:
        print(f"phosphene: {problem.file}: {problem.what}", file=sys.stderr)
    console.print(f"{_images(len(rows) - len(problems))} of {len(rows)} are as they were written")
    if problems and args.repair:
        console.print(f"the others are out of the index: `phosphene atlas run {args.atlas}` makes them again")
    return 1 if problems and not args.repair else 0


def _atlas_index(args: argparse.Namespace, console: Console) -> int:
    store = atlas.Store(args.atlas)
    store.plan()
    with _file_bar(args) as on_progress:
        count = store.rebuild(on_progress)
    if args.json:
        print(json.dumps({"images": count}))
    console.print(f"{_images(count)} are in the index")
    return 0


def _atlas_site(args: argparse.Namespace, console: Console) -> int:
    store = atlas.Store(args.atlas)
    if args.plain and args.photographs:
        raise InputError("--plain does not ask the network, which --photographs needs: expected one of them")
    beside = None if args.beside is None else atlas.Store(args.beside)
    network = None if args.plain else store.plan().open()
    beside_network = None if args.plain or beside is None else beside.plan().open()
    with _file_bar(args) as on_progress:
        page = atlas.write_site(
            store, network=network, photographs=args.photographs, beside=beside, beside_network=beside_network,
            device=ascent.find_device(args.device), on_progress=on_progress,
        )  # fmt: skip
    if args.json:
        print(json.dumps({"page": page}))
    console.print(f"open {page}")
    return 0


def _studio(args: argparse.Namespace, console: Console) -> int:
    def ready(address: str) -> None:
        if args.json:
            print(json.dumps({"page": address}), flush=True)
        console.print(f"open {address} (Ctrl-C ends it)")
        if not args.no_browser:
            webbrowser.open(address)

    studio.serve(args.files, atlas=args.atlas, out=args.out, device=args.device, port=args.port, on_ready=ready)
    return 0


def _statistics(args: argparse.Namespace, console: Console) -> int:
    if any((args.network, args.weights, args.preprocessing, args.mean, args.labels, args.partial)):
        return _gather(args, console, _open(args))
    paths = statistics.photographs_in(args.directory, args.limit)
    out = args.out or Path("statistics.safetensors")
    render.make_directory(out.parent)
    with _file_bar(args) as show:
        found = statistics.measure_photographs(paths, on_progress=show)
    file = found.save(out)
    if args.json:
        averages = {"mean": found.mean.tolist(), "colours": found.colours.tolist(), "slope": found.slope}
        print(json.dumps({"file": str(file), **_of_files(found), **averages}, indent=1))
    console.print(f"photographs {_counted(found)}")
    console.print(f"mean        {', '.join(f'{255 * value:.0f}' for value in found.mean.tolist())} of 255, RGB")
    deviations = ", ".join(f"{255 * value:.0f}" for value in found.colours.norm(dim=0).tolist())
    console.print(f"contrast    {deviations} of 255, along the axes of their colours")
    console.print(f"spectrum    falls as 1/f^{found.slope:.2f}")
    use = f"for images with these colours: --set canvas.colours={file}"
    console.print(f"written     {file}; {use}", soft_wrap=True, markup=False)
    return 0


def _gather(args: argparse.Namespace, console: Console, network: Network) -> int:
    device = ascent.find_device(args.device)
    paths = statistics.photographs_in(args.directory, args.limit)
    render.make_directory((args.out or statistics.cache_path("any")).parent)
    with _file_bar(args) as show:
        found = statistics.gather(network, paths, device=device, limit=None, on_progress=show)
    file = found.save(args.out or statistics.cache_path(found.weights))
    layers = {name: len(layer.mean) for name, layer in found.layers.items()}
    if args.json:
        of_network = {"network": found.network, "weights": found.weights, "layers": layers}
        print(json.dumps({"file": str(file), **_of_files(found), **of_network}, indent=1, ensure_ascii=False))
    names = list(layers)
    console.print(f"network     {found.network}, weights {found.weights}")
    console.print(f"photographs {_counted(found)}")
    console.print(f"statistics  {sum(layers.values())} channels of {len(layers)} layers, {names[0]} to {names[-1]}")
    console.print(f"written     {file}", soft_wrap=True, markup=False)
    return 0


def _of_files(found: statistics.Photographs | statistics.Activations) -> dict[str, Any]:
    return {"count": found.count, "unreadable": found.unreadable, "digest": found.digest()}


def _counted(found: statistics.Photographs | statistics.Activations) -> str:
    return f"{found.count}" + (f"; {found.unreadable} more cannot be read" if found.unreadable else "")


@contextmanager
def _file_bar(args: argparse.Namespace) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing elsewhere or if that is asked for."""
    console = Console(stderr=True, highlight=False)
    if args.quiet or args.json or not console.is_terminal:
        yield None
        return
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _networks(args: argparse.Namespace, console: Console) -> int:
    by_source = {
        "timm": timm.list_models(args.pattern or ""),
        "torchvision": fnmatch.filter(torchvision_names(), args.pattern or "*"),
    }
    if args.pattern and not any(by_source.values()):
        near = did_you_mean(args.pattern, [*timm.list_models(), *torchvision_names()])
        raise InputError(f"neither timm nor torchvision has a network that fits {args.pattern!r}{near}")
    if args.json:
        listed = [asdict(source) for source in sources()]
        print(json.dumps({"sources": listed, **by_source}, indent=1))
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


def _recipes(args: argparse.Namespace, console: Console) -> int:
    if args.recipe:
        recipe = Recipe.load(args.recipe)
        if args.json:
            print(json.dumps(recipe.to_dict(), indent=1))
        elif not args.quiet:
            print(recipe.to_toml(), end="")
        return 0
    rows = list(fields()) if args.fields else [(name, Recipe.load(name).description) for name in recipe_names()]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("field", "default", "range", "meaning") if args.fields else ("recipe", "what it is"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    return 0


def _show(args: argparse.Namespace, console: Console) -> int:
    found = {path: provenance.read_provenance(path) for path in args.images}
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    for path, known in found.items():
        recipe = Recipe.from_dict(known["recipe"])
        console.print(f"image     {path}")
        console.print(f"unit      {known['unit']}  ({known['label']})")
        console.print(f"network   {known['network']['name']}, weights {known['network']['weights']}")
        console.print(f"recipe    {recipe.name}, seed {known['seed']}")
        console.print(f"steps     {known['steps']}, {known['stopped']}")
        for step, name, value in known.get("changes", []):
            console.print(f"          from step {step} on: {name} = {value}", markup=False)
        precision = " and ".join(dict.fromkeys(known.get("precision", ["fp32"])))
        console.print(f"made on   {known['device']}, {known['threads']} threads, in {precision}")
        _print_scores(console, known["scores"])
        console.print("versions  " + ", ".join(f"{name} {version}" for name, version in known["versions"].items()))
        console.print(f"\n{recipe.to_toml()}", markup=False)
    return 0


def _print_scores(console: Console, scores: dict[str, Any]) -> None:
    """The scores of one image, and what judges said of it."""
    numbers = {name: value for name, value in scores.items() if isinstance(value, int | float)}
    console.print("scores    " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    for name, answer in scores.get("judges", {}).items():
        console.print(f"judge     {name}: {_answer(answer)}")
    if "judged" in scores:
        judged = scores["judged"]
        shares = f"top-1 {judged['top1']:.0%}, top-5 {judged['top5']:.0%}, probability {judged['probability']:.1%}"
        console.print(f"judged    {shares}")
    if "robustness_rule" in scores:
        console.print(f"robust    where {scores['robustness_rule']}")
    if "selectivity" in scores:
        console.print(f"rank      {_rank(scores['selectivity'])}")
    if "nearest" in scores:
        near = scores["nearest"]
        console.print(f"nearest   {escape(near['photograph'])}, at {near['distance']:.3f} in {near['judge']}")


def _answer(answer: dict[str, Any]) -> str:
    """A judge's probability of a class, marked `*` if it is its top-1 and `+` if it is in its top-5."""
    return f"{answer['probability']:.1%} {'*' if answer['top1'] else '+' if answer['top5'] else ' '}"


def _rank(selectivity: dict[str, int]) -> str:
    by_z = f", {selectivity['rank_by_z']} by z" if "rank_by_z" in selectivity else ""
    return f"{selectivity['rank']} of {selectivity['of']}{by_z}"


def _judge(args: argparse.Namespace, console: Console) -> int:
    known = {path: provenance.load(path)[1] for given in args.images for path in judges.images_in(given)}
    ours = [path for path, made in known.items() if made is not None]
    if args.shown is not None and len(ours) == len(known):
        raise InputError(f"--class {args.shown}: the images say themselves what they show, so expected none")
    network = None
    if any((args.network, args.weights, args.preprocessing, args.mean, args.labels, args.partial)):
        sources: list[dict[str, str]] = [made["network"]["source"] or {} for made in known.values() if made]
        network = _open(args, sources[0].get("network", networks.DEFAULT) if sources else networks.DEFAULT)
    named = None if args.judges is None else [] if args.judges == "none" else args.judges.split(",")
    shown = None if args.shown is None else f"class:{args.shown}"
    with Console(stderr=True, quiet=args.quiet or args.json).status("opening networks") as status:
        cards = judges.judge(
            list(known), named, network=network, unit=[None if made else shown for made in known.values()],
            photographs=args.photographs, device=args.device, on_progress=status.update,
        )  # fmt: skip
    if not args.dry:
        for path, card in zip(known, cards, strict=True):
            if path in ours:
                judges.keep(path, card)
    if args.json:
        listed = [{"image": str(path), **card} for path, card in zip(known, cards, strict=True)]
        print(json.dumps(listed, indent=1, ensure_ascii=False))
    labels = [made["label"] if made else args.shown for made in known.values()]
    _print_cards(console, labels, cards)
    if named is None and any(card["judges"] for card in cards):
        console.print("the judges are EfficientNet-lites, which flatter images that a relative made: see --judges")
    if ours and not args.dry:
        console.print(f"the cards are in {_images(len(ours))}: see `phosphene show`")
    return 0


def _print_cards(console: Console, labels: list[str], cards: list[dict[str, Any]]) -> None:
    asked = list(dict.fromkeys(name for card in cards for name in card["judges"]))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class" if asked else "shows")
    columns = ("own", *asked, "robust", "rank", "percentile", "slope", "saturated", "nearest photograph")
    rows = [[label, *_columns(card, asked)] for label, card in zip(labels, cards, strict=True)]
    filled = [i for i in range(1, len(columns) + 1) if any(row[i].strip() for row in rows)]
    for i in filled:
        table.add_column(columns[i - 1], justify="left" if columns[i - 1] == "nearest photograph" else "right")
    for row in rows:
        table.add_row(escape(row[0]), *(escape(row[i]) for i in filled))
    console.print(table)
    marks = "* its top-1   + in its top-5   " if asked else ""
    slope = sum(card["photographs_slope"] for card in cards) / len(cards)
    console.print(f"{marks}photographs have a slope of {slope:.1f}")
    tuned = list(dict.fromkeys(name for card in cards for name in card.get("tuned", ())))
    if tuned:
        console.print(f"note: these images' recipe was searched to please {', '.join(tuned)}: others are fairer judges")


def _columns(card: dict[str, Any], asked: list[str]) -> Iterator[str]:
    if "probability" in card:
        yield "nan" if card["probability"] is None else f"{card['probability']:.1%}"
    else:
        yield f"{card['objective']:.4g}" if card.get("objective") is not None else ""
    for name in asked:
        yield _answer(card["judges"][name]) if name in card["judges"] else ""
    yield f"{card['robustness']:.0%}" if "robustness" in card else ""
    yield _rank(card["selectivity"]) if "selectivity" in card else ""
    yield f"{card['percentile']:.1f}" if "percentile" in card else ""
    yield f"{card['slope']:.2f}" if card["slope"] is not None else "none"
    yield f"{card['saturated']:.1%}"
    yield f"{card['nearest']['photograph']} ({card['nearest']['distance']:.2f})" if "nearest" in card else ""


def _again(args: argparse.Namespace, console: Console) -> int:
    out = render.make_directory(args.out)
    network = None
    if any((args.network, args.weights, args.preprocessing, args.mean, args.labels, args.partial)):
        source = provenance.read_provenance(args.images[0])["network"]["source"] or {}
        network = _open(args, source.get("network", networks.DEFAULT))
    made = []
    for path in args.images:
        with _progress_bar(args, 1) as on_progress:
            again = provenance.again(path, network, device=args.device, on_progress=on_progress)
        if again.picture.stopped == ascent.INTERRUPTED != provenance.read_provenance(path)["stopped"]:
            raise KeyboardInterrupt
        written = render.save_picture(again.picture, out)
        made.append({"image": str(path), "written": str(written), "same": again.same})
        console.print(f"{written}: {'the same, byte for byte' if again.same else 'not the same'}")
        if not again.same:
            print(
                f"phosphene: {path} came out otherwise: made on another machine or by other versions", file=sys.stderr
            )
    if args.json:
        print(json.dumps(made, indent=1))
    return 0 if all(entry["same"] for entry in made) else 1


if __name__ == "__main__":
    sys.exit(main())
