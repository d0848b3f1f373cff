"""Options that several verbs share, what may be typed for them, and what they ask for."""

from __future__ import annotations

import argparse
import math
import re
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene import defaults
from phosphene.cli.signals import importing
from phosphene.errors import InputError, printable
from phosphene.run_folders import run_folder

if TYPE_CHECKING:
    from rich.console import Console

    from phosphene.networks.network import Network
    from phosphene.photographs.unfinished import UnfinishedRun
    from phosphene.recipes.recipe import Recipe

PRESETS = ("torch", "tf", "caffe", "unit", "byte")  # of preprocessing
PRECISIONS = ("auto", "fp32", "bf16", "fp64")
ANIMATIONS = ("gif", "mp4")


def add_opening(parser: argparse.ArgumentParser, default: str = defaults.NETWORK) -> None:
    network = parser.add_argument_group("the network")
    network.add_argument("-n", "--network", help=f"by default {default}; or any that `networks` lists")
    network.add_argument("--weights", metavar="FILE", help="its weights: .safetensors, .pth, .caffemodel, .h5")
    network.add_argument("--partial", action="store_true", help="the weights are of some layers only: show those")
    network.add_argument("--preprocessing", metavar="MODE|FILE", help=f"{', '.join(PRESETS)}, or a TOML file")
    network.add_argument("--mean", metavar="B,G,R|FILE", help="Caffe's mean: numbers, .binaryproto or .npy")
    network.add_argument("--output", metavar="NAME", help="which of several outputs is the logits: a name or an index")
    network.add_argument(
        "--tokens", metavar="CLASS+REGISTERS",
        help="how many class tokens and registers a transformer has, such as 1+4, where that was guessed",
    )  # fmt: skip
    network.add_argument("--labels", metavar="FILE", help="the names of its outputs, one a line, or synset_words.txt")


def has_network_argument(args: argparse.Namespace) -> bool:
    """Whether any of the options of `add_opening` is given."""
    named = (args.network, args.weights, args.preprocessing, args.mean, args.labels)
    return any((*named, args.partial, args.output, args.tokens))


def open_argument(args: argparse.Namespace, default: str = defaults.NETWORK) -> Network:
    """The network that the options of `add_opening` name."""
    return _open_named(args.network or default, args)


def open_argument_or_recorded(args: argparse.Namespace, source: Mapping[str, Any] | None) -> Network:
    """The network that the options of `add_opening` name, or else the one that an image names, with these options.

    Raises:
        InputError: an image's is more than a name (see `networks.named`), and not trusted.
    """
    return _open_named(args.network or _recorded_name(source, args.trust), args)


def _open_named(name: str, args: argparse.Namespace) -> Network:
    with importing():
        from phosphene.networks.open import open_network
    network = open_network(
        name, args.preprocessing, args.labels,
        weights=args.weights, mean=args.mean, partial=args.partial, output=args.output, tokens=args.tokens,
    )  # fmt: skip
    if not (args.labels or args.partial or args.output):  # then its names are those of any other time
        args.opened = name, network
    return network


def _recorded_name(source: Mapping[str, Any] | None, trust: bool) -> str:
    with importing():
        from phosphene.networks.named import beyond_a_name
    name = str((source or {}).get("network", defaults.NETWORK))
    does = "" if trust else beyond_a_name(name)
    if does:
        raise InputError(
            f"the image asks for {printable(name)!r}, which {does}; a file is not followed: name the network (-n)"
        )
    return name


def add_trust(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--trust", action="store_true",
        help=f"follow what the {what} names: import its code, read its files, download its weights; says what first",
    )  # fmt: skip


def add_printing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")


def add_making(parser: argparse.ArgumentParser, recipe: str, finds: bool = False) -> None:
    add_opening(parser)
    parser.add_argument(
        "-r", "--recipe",
        help=f"a name or a TOML file (see `recipes`); by default {'what a `search` found, or else ' * finds}{recipe}",
    )  # fmt: skip
    parser.set_defaults(default_recipe=recipe, finds=finds)
    add_set(parser)
    parser.add_argument("--start", type=Path, metavar="IMAGE", help="start from this image")
    parser.add_argument("--facets", type=positive, default=1, metavar="N", help="N images of each unit that differ")
    parser.add_argument("--animate", type=positive, metavar="N", help="also an animation of the first N steps")
    add_running(parser)
    add_printing(parser)


def add_photograph(parser: argparse.ArgumentParser, layers: str) -> None:
    parser.add_argument("photograph", type=Path, metavar="PHOTOGRAPH")
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=f"by default {layers} of those usually shown")


def add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=positive, metavar="N", help="steps at most")
    add_seed(parser)
    add_size(parser)
    add_devices(parser)
    add_precision(parser)
    parser.add_argument("--batch", type=positive, metavar="N", help="images at once; by default what memory takes")
    parser.add_argument("--animation", choices=ANIMATIONS, default="gif", help="format of animations (gif)")
    add_out(parser)


def add_out(parser: argparse.ArgumentParser) -> None:
    """Where a run is kept; `run_folders.run_folder` makes of it what it is."""
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR",
        help="the run's folder; by default the next number in phosphene-out, and phosphene-out/latest leads to it",
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help="show the run's page in the browser at the end")


def begin_run(args: argparse.Namespace, console: Console, is_unfinished: Callable[[Path], bool] | None = None) -> Path:
    """Make the folder of the run, or take the one that holds it unfinished, and say where it is another than asked."""
    out = run_folder(args.out, args.verb, is_unfinished=is_unfinished)
    if args.out not in (None, out):
        console.print(f"note: {args.out} holds another run, so this one is kept in {out}", markup=False, soft_wrap=True)
    return out


@contextmanager
def resumable_run(args: argparse.Namespace, console: Console) -> Iterator[UnfinishedRun]:
    """A run of which the same command goes on where it was killed; its folder is made when its pass begins."""
    with importing():
        from phosphene.photographs.unfinished import resumable

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with resumable(lambda is_unfinished: begin_run(args, console, is_unfinished), say=say) as run:
        try:
            yield run
        except KeyboardInterrupt:
            if run.is_kept():
                print("phosphene: the same command goes on where this one was", file=sys.stderr)
            raise


def show_page(args: argparse.Namespace, page: Path) -> None:
    """Show a run's page in the browser, where that is asked for."""
    if args.open:
        webbrowser.open(page.resolve().as_uri())


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe: median.size=3"
    )


def add_seed(parser: argparse.ArgumentParser, what: str = "of random draws") -> None:
    parser.add_argument("--seed", type=seed, default=defaults.SEED, metavar="N", help=f"{what} ({defaults.SEED})")


def add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=size, metavar="N|HxW", help="of the image in pixels; by default the network's")


def add_device(
    parser: argparse.ArgumentParser, what: str = "cpu, cuda, …; by default a GPU where there is one"
) -> None:
    parser.add_argument("--device", metavar="NAME", help=what)


def add_devices(
    parser: argparse.ArgumentParser, what: str = "cpu, cuda, cuda:1, …; by default all GPUs, or else the CPU"
) -> None:
    parser.add_argument("--device", metavar="A,B", help=what)


def add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of the network's passes; by default the faster"
    )


def add_atlas(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("atlas", metavar="DIR|URL")


def add_photographs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR",
        help="have images look like those of these photographs that excite their unit most, by the recipe explain",
    )  # fmt: skip


def choose_explaining(args: argparse.Namespace) -> None:
    """With photographs the recipe is `explain`, not what a search has found without them, where none is asked for."""
    if args.photographs is not None:
        args.recipe = args.recipe or "explain"


def apply_options(args: argparse.Namespace, recipe: Recipe) -> Recipe:
    """The recipe with what --set, --steps, --size, --start and --animate say, as far as the verb has them."""
    from phosphene.recipes.overrides import toml_value

    changes: dict[str, Any] = {}
    for pair in args.set:
        field, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r}: expected FIELD=VALUE, such as median.size=3")
        changes[field.strip()] = toml_value(value.strip())
    for name in ("steps", "size"):
        if (value := getattr(args, name, None)) is not None:
            changes[name] = value
    if getattr(args, "start", None) is not None:
        changes["start.kind"] = "image"
    if getattr(args, "photographs", None) is not None:
        changes["priors.statistics.photographs"] = str(args.photographs.resolve())  # wherever it is made again
    if (frames := getattr(args, "animate", None)) is not None:
        changes |= {"keep.every": 1, "keep.until": frames}
    return recipe.override(changes)


def judge_list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return int(text)


def count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 0")
    return int(text)


def port_number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text) or int(text) >= 2**16:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 0 to {2**16 - 1}")
    return int(text)


def minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of minutes above 0")
    return minutes


def seed(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text) or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 0 to 2^63 - 1")
    return int(text)


def size(text: str) -> list[int]:
    if not re.fullmatch("[0-9]{1,9}(x[0-9]{1,9})?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of pixels, or HEIGHTxWIDTH")
    sides = [int(side) for side in text.split("x")]
    return sides * 2 if len(sides) == 1 else sides
