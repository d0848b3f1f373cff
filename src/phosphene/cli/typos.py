"""What can be said of a command's words before torch is imported and a network opened, which takes seconds."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable

from phosphene.cli.options import apply_options
from phosphene.errors import InputError
from phosphene.networks.labels import imagenet_labels
from phosphene.networks.sources.bundled import SIZES
from phosphene.recipes import tuned_recipes
from phosphene.recipes.recipe import Recipe


def check_recipe(args: argparse.Namespace, default: str) -> None:
    """Raise an `InputError` where --recipe names no recipe, or --set no field of it."""
    try:
        apply_options(args, Recipe.load(args.recipe or default))
    except InputError:
        if args.recipe or not tuned_recipes.any_kept():  # a recipe of the user's may take what the default one does not
            raise


def check_classes(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Raise an `InputError` where the bundled network has no class of a name; other networks are opened first."""
    network = f"efficientnet_{(args.network or 'lite0').removeprefix('efficientnet_')}"
    if network in SIZES and not args.labels:
        for name in names:
            if re.search("[^0-9, -]", name):
                imagenet_labels().find(name)
