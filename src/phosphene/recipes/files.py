"""The TOML files of recipes: those that ship, and a user's own; one may say what it differs in from a base.

base = "natural"  # one that ships, or in a user's own file another one, from its folder on
steps = 128

[optimizer]
rate = 0.1
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from phosphene.errors import InputError, did_you_mean, printable
from phosphene.files import MAX_TOML, is_file, parse_toml, read_text
from phosphene.recipes.overrides import merged

_SHIPPED = resources.files("phosphene") / "recipes" / "shipped"
_NOT_INHERITED = ("name", "description")


@lru_cache
def recipe_names() -> tuple[str, ...]:
    """The recipes that ship."""
    return tuple(sorted(entry.name[:-5] for entry in _SHIPPED.iterdir() if entry.name.endswith(".toml")))


def shipped_text(name: str) -> str:
    """The file of a recipe that ships, with its comments."""
    return (_SHIPPED / f"{name}.toml").read_text(encoding="utf-8")


def read_recipe(name: str | Path) -> tuple[dict[str, Any], str]:
    """The fields of a recipe that ships, by name, or of one of a `.toml` file, by path, and what messages call it.

    Raises:
        InputError: there is none (with the nearest names), or it is no TOML, or its base cannot be read.
    """
    if str(name) in recipe_names():
        origin = f"recipe {name}"
        return parse_recipe(shipped_text(str(name)), origin), origin
    path = Path(name)
    if path.suffix != ".toml" and not is_file(path):
        near = did_you_mean(str(name), recipe_names())
        raise InputError(f"no recipe is called {str(name)!r}{near or '; see `phosphene recipes`'}")
    origin = f"recipe file {str(path)!r}"
    return parse_recipe(read_text(path, origin, MAX_TOML), origin, path), origin


def parse_recipe(text: str, origin: str, path: Path | None = None) -> dict[str, Any]:
    """The fields of a recipe's text, laid over those of its base, of that one's base, and so on.

    Args:
        path: of the file that it is from; only a file's base may be another file.

    Raises:
        InputError: it is no TOML, or a base is none, cannot be read, or is based on what it is the base of.
    """
    data = parse_toml(text, origin)
    seen = [path.resolve()] if path is not None else []
    tables = [data]
    while "base" in tables[-1]:
        base = tables[-1].pop("base")
        text, origin, path = _base(base, origin, path)
        place = path.resolve() if path is not None else Path(base)
        if place in seen:
            raise InputError(f"{origin} is based on itself: expected bases that come to an end")
        seen.append(place)
        tables.append({key: value for key, value in parse_toml(text, origin).items() if key not in _NOT_INHERITED})
    found = tables.pop()
    while tables:
        found = merged(found, tables.pop())
    return found


def _base(base: Any, origin: str, path: Path | None) -> tuple[str, str, Path | None]:
    """A base's text, what messages call it, and the path of its file, if it is not one that ships."""
    if isinstance(base, str) and base in recipe_names():
        return shipped_text(base), f"recipe {base}", None
    if not isinstance(base, str) or path is None or not base.endswith(".toml"):
        near = did_you_mean(base, recipe_names()) if isinstance(base, str) else ""
        files = ", or a TOML file" if path is not None else ""
        raise InputError(f"{origin}: base = {printable(repr(base))}: expected a recipe that ships{files}{near}")
    file = path.parent / base
    origin = f"recipe file {str(file)!r}"
    return read_text(file, origin, MAX_TOML), origin, file
