"""What can be typed: the verbs and their options."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from phosphene.ascent.request import DEFAULT_SEED
from phosphene.atlas import claims
from phosphene.atlas import plan as atlas_plan
from phosphene.cli import atlases, cards, figures, looking, making, photographs, search, statuses
from phosphene.cli.options import (
    add_making,
    add_opening,
    add_printing,
    add_running,
    add_trust,
    judge_list,
    minutes,
    port_number,
    positive,
    seed,
    size,
)
from phosphene.errors import nearest, printable
from phosphene.networks.speed.precision import PRECISIONS
from phosphene.photographs import activation_statistics
from phosphene.reproduce import rates
from phosphene.studio import server
from phosphene.tuning import samplers
from phosphene.tuning.space import space_names
from phosphene.versions import package_version


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line of usage and the reason."""

    def error(self, message: str) -> NoReturn:
        print(f"{self._short_usage()}\nphosphene: {printable(self._reason(message), 1000)}", file=sys.stderr)
        raise SystemExit(statuses.INPUT_ERROR)

    def _short_usage(self) -> str:
        taken = [_spelled(action) for action in self._actions if not action.option_strings]
        return f"usage: {' '.join([self.prog, *taken])} [options]; all of it: {self.prog} --help"

    def _reason(self, message: str) -> str:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                if match := re.match(r"argument VERB: invalid choice: '(.*?)' \(choose", message, re.DOTALL):
                    if match[1] == "help":
                        return "no verb is called 'help'; expected --help"
                    near = nearest(match[1], action.choices, 1)
                    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(action.choices)}"
                    return f"no verb is called {match[1]!r}; {hint}"
                if message.endswith("are required: VERB"):
                    return f"expected a verb: {', '.join(action.choices)}"
        return message


def _spelled(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)


def unit_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments with those that are units that begin with a minus as `- UNIT`, which is no option's spelling."""
    kept = list(arguments)
    end = kept.index("--") if "--" in kept else len(kept)
    for index, text in enumerate(kept[:end]):
        if re.match(rf"-[^-\s{_LETTERS}][^=]*[:*(\[]", text):
            kept[index] = f"- {text[1:]}"
    return kept


_LETTERS = "hnorq"  # of the options


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="phosphene", description="Shows what an image network has learnt: the images that excite its units most."
    )
    parser.add_argument("--version", action="version", version=f"phosphene {package_version()}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace, Console], int], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    made = verb("classes", making.classes, "images of classes")
    made.add_argument("classes", nargs="+", metavar="CLASS", help="an index or several (0-9), a WordNet id or a name")
    made.add_argument("--best-of", type=positive, metavar="K", help="of K seeds the image that --choosers like best")
    made.add_argument("--choosers", type=judge_list, metavar="A,B", help="networks that choose (see `judge`)")
    made.add_argument(
        "--with", action="append", default=[], dest="others", metavar="NETWORK",
        help="an ensemble: show what this network too takes for the class; may be repeated (see `judge`)",
    )  # fmt: skip
    add_making(made, "natural", finds=True)

    made = verb("filters", making.filters, "images of a layer's channels")
    made.add_argument(
        "layers",
        nargs="+",
        metavar="LAYER[:CHANNELS]",
        help="all channels of a layer, some (:12, :0-7, :1,5,9), a neuron (:12@ROW,COLUMN), or any unit or sum",
    )
    made.add_argument("--count", type=positive, metavar="K", help="only K of the channels, evenly spread")
    made.add_argument("--average", action="store_true", help="the average over a channel's map, not the sum")
    made.add_argument("--whole", action="store_true", help="the whole layer as one unit, not its channels")
    add_making(made, "draft", finds=True)

    for name, run, text, recipe, layers in (
        (
            "dream",
            making.dream,
            "DeepDream: a photograph, with all that a layer sees in it brought out",
            "dream",
            "a late one",
        ),
        (
            "invert",
            making.invert,
            "a photograph as a layer keeps it: what can be told from its activations",
            "invert",
            "five",
        ),
        ("caricature", making.caricature, "what a layer makes of a photograph, exaggerated", "caricature", "five"),
    ):
        made = verb(name, run, text)
        made.add_argument("photograph", type=Path, metavar="PHOTOGRAPH")
        made.add_argument("layers", nargs="*", metavar="LAYER", help=f"by default {layers} of those usually shown")
        add_making(made, recipe)

    made = verb(
        "reproduce",
        figures.reproduce_figures,
        "the figures of Fabien Tencé's post (2016), on its networks or any other",
    )
    made.add_argument("figures", nargs="*", metavar="FIGURE", help="one or several of those that --list lists")
    made.add_argument("--list", action="store_true", help="the figures, and what each shows")
    made.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="others than the figure's")
    made.add_argument("--channels", type=positive, default=2, metavar="K", help="of each layer of filters (2)")
    made.add_argument(
        "--receptive-field", action="store_true", help="each filter as large as what one of its neurons sees"
    )
    made.add_argument(
        "--rates", choices=rates.RATES, default="fit",
        help="those that fit the network (fit), or the post's as they stand (post)",
    )  # fmt: skip
    add_opening(made, "the figure's, whose --weights are needed")
    add_running(made)
    made.set_defaults(precision="fp32")  # as the post's
    add_printing(made)

    made = verb("layers", looking.list_layers, "a network's layers in the order of calls")
    made.add_argument("pattern", nargs="?", help="only layers whose names fit, such as 'blocks.3.*'")
    made.add_argument("--marked", action="store_true", help="only those usually worth showing")
    add_opening(made)
    add_printing(made)

    made = verb("doctor", looking.examine, "whether a network is fed right, and what of it can be shown")
    made.add_argument(
        "--images", type=Path, metavar="DIR", help="photographs, labelled by their names or their folders'"
    )
    made.add_argument("--csv", type=Path, metavar="FILE", help="a table of their labels, with columns file,label")
    made.add_argument("--limit", type=positive, default=200, metavar="N", help="photographs at most (200)")
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, …; by default a GPU where there is one")
    add_opening(made)
    add_printing(made)

    made = verb("statistics", photographs.measure, "what photographs are like, or what a network makes of them")
    made.add_argument("directory", type=Path, metavar="DIR", help="photographs, also in folders of the folder")
    made.add_argument(
        "--limit", type=positive, default=activation_statistics.LIMIT, metavar="N",
        help=f"of more photographs so many, evenly spread ({activation_statistics.LIMIT})",
    )  # fmt: skip
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, …; by default a GPU where there is one")
    made.add_argument(
        "-o", "--out", type=Path, metavar="FILE",
        help="statistics.safetensors, or a network's where the priors look for them",
    )  # fmt: skip
    add_opening(made, "none, and the photographs themselves are measured")
    add_printing(made)

    made = verb("search", search.search, "the recipe for a network, or for a layer, found by measuring")
    made.add_argument("--layer", help="whose channels; by default classes, of which other networks are to be sure")
    made.add_argument("--count", "--classes", type=positive, metavar="N", help="so many classes (8) or channels (6)")
    made.add_argument(
        "--space", metavar="NAME|FILE", help=f"{', '.join(space_names())}, or a TOML file; by default classes or layers"
    )
    made.add_argument("--trials", type=positive, default=50, metavar="N", help="in the end, earlier ones included (50)")
    made.add_argument("--budget", type=minutes, metavar="MINUTES", help="begin no further trial after so long")
    made.add_argument("--steps", type=positive, metavar="N", help="of a whole trial; by default the recipe's")
    made.add_argument("--sampler", choices=samplers.SAMPLERS, default="tpe", help="tpe, or random as the post's")
    made.add_argument(
        "--pruner", choices=samplers.PRUNERS, default="halving",
        help="what ends bad trials after a ninth and a third of the steps (halving)",
    )  # fmt: skip
    made.add_argument("--compute", action="store_true", help="minimise passes too, where the space has steps")
    made.add_argument("--judges", metavar="A,B", help="who judge classes; by default the EfficientNet-lites")
    made.add_argument("--storage", metavar="FILE|URL", help="by default OUT/searches.journal; or a database's URL")
    made.add_argument("--seed", type=seed, default=DEFAULT_SEED, metavar="N", help="of what is searched on")
    made.add_argument("--report", action="store_true", help="write a page on the search, too")
    made.add_argument("--dry", action="store_true", help="do not keep the recipe for `classes` and `filters`")
    made.add_argument("--device", metavar="A,B", help="cpu, cuda, …; by default all GPUs, or else the CPU")
    made.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="of the network's passes")
    made.add_argument(
        "-o", "--out", type=Path, default=Path("phosphene-search"), metavar="DIR", help="phosphene-search"
    )
    add_opening(made)
    add_printing(made)

    _atlas_verbs(verbs)

    made = verb("studio", atlases.serve, "a local page: pick a unit, watch its image form, change strengths on the way")
    made.add_argument(
        "--files", nargs="+", type=Path, default=[], metavar="DIR", help="whose networks and weights may be read"
    )
    made.add_argument("--atlas", metavar="DIR|URL", help="keep classes and channels there; made if missing")
    made.add_argument("-o", "--out", type=Path, default=Path("phosphene-out"), metavar="DIR", help="keep others there")
    port = server.DEFAULT_PORT
    made.add_argument("--port", type=port_number, default=port, metavar="N", help=f"{port}; 0: any that is free")
    made.add_argument("--no-browser", action="store_true", help="print the page's address, and open no browser")
    made.add_argument("--device", metavar="A,B", help="cpu, cuda, …; by default all GPUs, or else the CPU")
    add_printing(made)

    made = verb("profile", looking.profile, "where the time of a step goes")
    made.add_argument("units", nargs="*", metavar="UNIT", help="by default a class, or a channel of the last layer")
    made.add_argument("-r", "--recipe", default="natural", help="a name (natural) or a TOML file; see `recipes`")
    made.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe: median.size=3"
    )
    made.add_argument("--size", type=size, metavar="N|HxW", help="of the image in pixels; by default the network's")
    made.add_argument("--batch", type=positive, default=8, metavar="N", help="images at once (8)")
    made.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="of the network's passes")
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, …; by default a GPU where there is one")
    add_opening(made)
    add_printing(made)

    made = verb("networks", looking.list_networks, "the networks that can be opened")
    made.add_argument("pattern", nargs="?", help="timm's and torchvision's whose names fit, such as 'resnet*'")
    add_printing(made)

    made = verb("recipes", looking.list_recipes, "the recipes that ship, or one of them as TOML")
    made.add_argument("recipe", nargs="?", help="a recipe's name or file, printed as TOML")
    made.add_argument("--fields", action="store_true", help="every field: its default, its range, what it means")
    add_printing(made)

    made = verb("show", cards.show, "how an image was made, from its own file")
    made.add_argument("images", nargs="+", metavar="IMAGE.png")
    add_printing(made)

    made = verb("judge", cards.judge, "what other networks see in images, and what is measured of them")
    made.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="images, or folders of phosphene's")
    made.add_argument(
        "--judges", metavar="A,B",
        help="names, files, FILE=WEIGHTS or …@PREPROCESSING; none; by default the EfficientNet-lites that are here",
    )  # fmt: skip
    made.add_argument("--class", dest="shown", metavar="CLASS", help="what images show that phosphene did not make")
    made.add_argument("--photographs", type=Path, metavar="DIR", help="compare with these")
    made.add_argument("--dry", action="store_true", help="write no card into the images")
    made.add_argument("--device", metavar="NAME", help="cpu, cuda, …; by default a GPU where there is one")
    add_opening(made, "the one that each image names")
    add_trust(made, "image")
    add_printing(made)

    made = verb("again", making.again, "make an image again, from its file alone")
    made.add_argument("images", nargs="+", metavar="IMAGE.png")
    add_opening(made, "the one that the image names")
    add_trust(made, "image")
    made.add_argument("--device", help="by default the kind that the image was made on")
    made.add_argument("-o", "--out", type=Path, default=Path("phosphene-again"), metavar="DIR")
    add_printing(made)
    return parser


def _atlas_verbs(verbs: Any) -> None:
    text = "a whole network: every unit of some layers, made, kept and looked up"
    parts = verbs.add_parser("atlas", help=text, description=text).add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace, Console], int], text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = parts.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("atlas", metavar="DIR|URL")
        return added

    made = verb("plan", atlases.plan, "say what is to be made, and what it takes; nothing is made yet")
    made.add_argument(
        "--layers", nargs="+", default=[], metavar="LAYER", help="names or patterns, or all: those usually shown"
    )
    made.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="names or indices, 0-99, or all")
    made.add_argument("--count", type=positive, metavar="K", help="of each layer only K channels, evenly spread")
    made.add_argument("-r", "--recipe", help="for all; by default what a `search` found, or else draft")
    made.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe")
    made.add_argument("--steps", type=positive, metavar="N", help="steps at most")
    made.add_argument("--size", type=size, metavar="N|HxW", help="of the images; by default the network's")
    made.add_argument("--facets", type=positive, default=1, metavar="N", help="images of each unit that differ")
    made.add_argument("--seed", type=seed, default=DEFAULT_SEED, metavar="N", help=f"{DEFAULT_SEED}")
    made.add_argument("--judges", metavar="A,B", help="who judge classes; by default the EfficientNet-lites; or none")
    made.add_argument(
        "--frames", type=int, metavar="N", help=f"of each ascent, kept beside its image; 0: none ({atlas_plan.FRAMES})"
    )
    made.add_argument("--device", metavar="NAME", help="where the time is measured")
    add_opening(made)
    add_printing(made)

    made = verb("run", atlases.run, "make what is missing, or made by another recipe")
    made.add_argument("--workers", type=positive, default=1, metavar="N", help="processes of this machine (1)")
    made.add_argument("--device", metavar="A,B", help="of the workers, in turn; by default every GPU, or the CPU")
    made.add_argument(
        "--ray", nargs="?", const="auto", metavar="ADDRESS", help="on a Ray cluster: its address; auto: the one here"
    )
    add_trust(made, "plan")
    made.add_argument(
        "--lease", type=float, default=claims.LEASE, metavar="SECONDS",
        help=f"after so many without a sign of life other runs take over what this one has begun ({claims.LEASE:.0f})",
    )  # fmt: skip
    add_printing(made)

    for name, run, text in (
        ("status", atlases.status, "how far it is, and when it ends; from any terminal"),
        ("verify", atlases.verify, "whether every image is as it was written"),
        ("index", atlases.index, "make the index again, from the images alone"),
        ("site", atlases.site, "a page to browse it: no server, and nothing from elsewhere"),
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
            add_trust(made, "plan")
        add_printing(made)
