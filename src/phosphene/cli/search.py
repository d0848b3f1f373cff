"""`search`: a recipe found by measuring."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from phosphene.ascent.run_options import RunOptions
from phosphene.cli import statuses
from phosphene.cli.options import judge_list, open_argument
from phosphene.devices.names import parse_devices
from phosphene.recipes import tuned_recipes
from phosphene.tuning import report
from phosphene.tuning.search import Search
from phosphene.tuning.search import search as run_search
from phosphene.tuning.settings import SearchSettings
from phosphene.tuning.trials import TrialResult


def search(args: argparse.Namespace, console: Console) -> int:
    network = open_argument(args)
    asked = None if args.judges is None else judge_list(args.judges)
    units = args.layer or "classes"
    console.print(f"network  {network.name}, weights {network.digest}")
    console.print(f"search   {units}, {args.trials} trials in all ({args.sampler}, {args.pruner}), in {args.out}")

    def told(outcome: TrialResult) -> None:
        steps = f"{outcome.rungs[-1].steps:4d} steps" if outcome.rungs else "not made"
        score = f"{outcome.score:.3f}" if outcome.score is not None else "  -  "
        words = outcome.reason or "  ".join(f"{name}={_brief(value)}" for name, value in outcome.values.items())
        line = f"{outcome.number:4d}  {outcome.state:8}  {steps}  {score}  {words}"
        console.print(escape(line), soft_wrap=True)

    settings = SearchSettings(
        space=args.space, count=args.count, judges=asked, trials=args.trials, budget=args.budget, steps=args.steps,
        sampler=args.sampler, pruner=args.pruner, compute=args.compute, storage=args.storage, out=args.out,
        seed=args.seed, keep=not args.dry,
    )  # fmt: skip
    options = RunOptions(device=parse_devices(args.device), precision=args.precision)
    made = run_search(network, args.layer, settings, options=options, on_trial=told)
    page = report.write_report(made) if args.report else None
    if args.json:
        print(json.dumps(_search_data(made), indent=1), file=console.file)
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
            kept = tuned_recipes.directory(network) / tuned_recipes.file_name(made.recipe.found.units)
            verb = "filters" if args.layer else "classes"
            console.print(f"         `phosphene {verb}` uses it for this network from now on, until {kept} is gone")
    if page is not None:
        console.print(f"report   {page}")
    if made.interrupted:
        print("phosphene: interrupted: the same command goes on", file=sys.stderr)
        return statuses.INTERRUPTED
    return 0


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _search_data(made: Search) -> dict[str, Any]:
    return {
        "folder": str(made.folder),
        "recipe": None if made.recipe is None else made.recipe.to_dict(),
        "best": None if made.best is None else made.best.number,
        "base": made.base,
        "trials": [asdict(outcome) for outcome in made.trials],
        "front": [[outcome.number, rung.passes, rung.score] for outcome, rung in made.front()],
        "interrupted": made.interrupted,
    }
