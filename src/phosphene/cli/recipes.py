"""`recipes`: the recipes that ship, one of them, or all that can be set."""

from __future__ import annotations

import argparse

from rich.console import Console

from phosphene.cli.options import add_printing
from phosphene.cli.printing import plain_table, print_json
from phosphene.recipes.files import read_recipe, recipe_names, shipped_text
from phosphene.recipes.recipe import Recipe
from phosphene.recipes.section import fields


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="a recipe's name or file, printed as TOML")
    parser.add_argument("--fields", action="store_true", help="every field: its default, its range, what it means")
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    if args.recipe:
        return _print_recipe(args, console)
    if args.fields:
        columns: tuple[str, ...] = ("field", "default", "range", "meaning")
        rows: list[tuple[str, ...]] = [*fields(Recipe)]
    else:
        columns = ("recipe", "what it is")
        rows = [(name, read_recipe(name)[0]["description"]) for name in recipe_names()]
    if args.json:
        print_json(console, rows)
        return 0
    table = plain_table(*columns, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    return 0


def _print_recipe(args: argparse.Namespace, console: Console) -> int:
    recipe = Recipe.load(args.recipe)
    if args.json:
        print_json(console, recipe.to_dict())
    elif not args.quiet:
        text = shipped_text(args.recipe) if args.recipe in recipe_names() else recipe.to_toml()
        print(text, end="", file=console.file)
    return 0
