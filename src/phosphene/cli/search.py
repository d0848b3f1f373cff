"""`search`: a recipe found by measuring."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from phosphene.cli import options, statuses
from phosphene.cli.printing import bars_away, forecast_text, print_json
from phosphene.cli.signals import importing
from phosphene.recipes import tuned_recipes
from phosphene.tuning.samplers import PRUNERS, SAMPLERS
from phosphene.tuning.space import space_names

if TYPE_CHECKING:
    from phosphene.tuning.search import Search
    from phosphene.tuning.trials import TrialResult

_SAMPLE = 12  # trials that are proposed for one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layer", help="whose channels; by default classes, of which other networks are to be sure")
    parser.add_argument(
        "--count", "--classes", type=options.positive, metavar="N", help="so many classes (8) or channels (6)"
    )
    parser.add_argument(
        "--space", metavar="NAME|FILE", help=f"{', '.join(space_names())}, or a TOML file; by default classes or layers"
    )
    parser.add_argument(
        "--trials", type=options.positive, default=50, metavar="N", help="in the end, earlier ones included (50)"
    )
    parser.add_argument(
        "--budget", type=options.minutes, metavar="MINUTES", help="begin no further trial after so long"
    )
    parser.add_argument("--steps", type=options.positive, metavar="N", help="of a whole trial; by default the recipe's")
    parser.add_argument("--sampler", choices=SAMPLERS, default="tpe", help="tpe, or random as the post's")
    parser.add_argument(
        "--pruner", choices=PRUNERS, default="halving",
        help="what ends bad trials after a ninth and a third of the steps (halving)",
    )  # fmt: skip
    parser.add_argument("--compute", action="store_true", help="minimize passes too, where the space has steps")
    parser.add_argument(
        "--judges", metavar="A,B", help="who judge classes, and with --photographs channels; the EfficientNet-lites"
    )
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR",
        help="of a layer, maximize how well pictures tell which of these photographs excite a channel (at least 100)",
    )  # fmt: skip
    parser.add_argument("--storage", metavar="FILE|URL", help="by default OUT/searches.journal; or a database's URL")
    options.add_seed(parser, "of what is searched on")
    parser.add_argument("--report", action="store_true", help="write a page on the search, too")
    parser.add_argument("--dry", action="store_true", help="do not keep the recipe for `classes` and `filters`")
    options.add_devices(parser)
    options.add_precision(parser)
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("phosphene-search"), metavar="DIR", help="phosphene-search"
    )
    options.add_opening(parser)
    options.add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.ascent.run_options import RunOptions
        from phosphene.devices.names import parse_devices
        from phosphene.tuning.report import write_report
        from phosphene.tuning.search import search
        from phosphene.tuning.settings import SearchSettings

    network = options.open_argument(args)
    console.print(f"network  {network.name}, weights {network.digest}")
    units = args.layer or "classes"
    console.print(f"search   {units}, {args.trials} trials in all ({args.sampler}, {args.pruner}), in {args.out}")
    judges = None if args.judges is None else options.judge_list(args.judges)
    settings = SearchSettings(
        space=args.space, count=args.count, judges=judges, trials=args.trials, budget=args.budget, steps=args.steps,
        sampler=args.sampler, pruner=args.pruner, compute=args.compute, storage=args.storage, out=args.out,
        seed=args.seed, keep=not args.dry, photographs=args.photographs,
    )  # fmt: skip
    run_options = RunOptions(device=parse_devices(args.device), precision=args.precision)
    found = search(
        network, args.layer, settings, options=run_options,
        on_trial=lambda trial: _say(args, console, escape(_trial_line(trial))),
        on_forecast=lambda forecast: _say(args, console, forecast_text(forecast, _sample(args))),
    )  # fmt: skip
    page = write_report(found) if args.report else None
    if args.json:
        print_json(console, _data(found))
    _print_best(console, found)
    if found.recipe is not None and found.recipe.found is not None and not args.dry:
        kept = tuned_recipes.directory(network) / tuned_recipes.file_name(found.recipe.found.units)
        verb = "filters" if args.layer else "classes"
        console.print(f"         `phosphene {verb}` uses it for this network from now on, until {kept} is gone")
    if page is not None:
        console.print(f"report   {page}")
    if found.interrupted:
        print("phosphene: interrupted: the same command goes on", file=sys.stderr)
        return statuses.INTERRUPTED
    return 0


def _sample(args: argparse.Namespace) -> str:
    """How a search that takes long is tried first, if that is shorter."""
    return (
        "" if args.trials <= _SAMPLE else f"; `--trials {_SAMPLE}` for a sample, and the same command with more goes on"
    )


def _say(args: argparse.Namespace, console: Console, text: str) -> None:
    with bars_away(args):
        console.print(text, soft_wrap=True)


def _trial_line(trial: TrialResult) -> str:
    steps = f"{trial.rungs[-1].steps:4d} steps" if trial.rungs else "not made"
    score = f"{trial.score:.3f}" if trial.score is not None else "  -  "
    words = trial.reason or "  ".join(f"{name}={_brief(value)}" for name, value in trial.values.items())
    return f"{trial.number:4d}  {trial.state:8}  {steps}  {score}  {words}"


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _print_best(console: Console, search: Search) -> None:
    best = search.best
    if best is None:
        console.print(f"no trial is complete yet; what was made is in {search.folder}, and the same command goes on")
    elif search.recipe is None or search.recipe.found is None:
        console.print(
            f"best     trial {best.number}: {best.score:.3f}, no better than the recipe that it started from "
            f"({search.base:.3f}); with more --trials the same command goes on"
        )
    else:
        by = f" by {', '.join(search.recipe.found.judges)}" if search.recipe.found.judges else ""
        than = "" if search.base is None else f"; the recipe that it started from has {search.base:.3f}"
        console.print(f"best     trial {best.number}: {search.recipe.found.score:.3f}{by}{than}")
        console.print(f"recipe   {search.folder / 'recipe.toml'}")


def _data(search: Search) -> dict[str, Any]:
    return {
        "folder": str(search.folder),
        "recipe": None if search.recipe is None else search.recipe.to_dict(),
        "best": None if search.best is None else search.best.number,
        "base": search.base,
        "trials": [asdict(trial) for trial in search.trials],
        "front": [[trial.number, rung.passes, rung.score] for trial, rung in search.front()],
        "interrupted": search.interrupted,
    }
