"""The figures of Fabien Tencé's post (2016), by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from phosphene.errors import InputError, did_you_mean
from phosphene.files import parse_toml


@dataclass(frozen=True)
class Figure:
    """A figure of the post.

    Attributes:
        name, title: what it is called, and what it shows.
        network: the post's: "vgg16" or "caffenet".
        recipe: the name of the recipe that the rows change.
        classes: indices of ImageNet's classes; none for a figure of hidden units.
        rows: for each row the fields of the recipe it changes, and for hidden units the `layer`, as Caffe names it.
        animate: whether the steps are kept as an animation.
        reference: the post's rate that the rates of a recipe for other networks take the place of; by default the
            recipe's own.
    """

    name: str
    title: str
    network: str
    recipe: str
    rows: tuple[dict[str, Any], ...]
    classes: tuple[int, ...] = ()
    animate: bool = False
    reference: float | None = None


@lru_cache
def figures() -> dict[str, Figure]:
    """All figures by name."""
    file = resources.files("phosphene") / "reproduce" / "figures.toml"
    data = parse_toml(file.read_text(encoding="utf-8"), "the figures")
    return {name: _figure(name, fields) for name, fields in data.items()}


def _figure(name: str, fields: dict[str, Any]) -> Figure:
    frozen: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Figure(name, **frozen)


def find_figure(name: str) -> Figure:
    """The figure of that name.

    Raises:
        InputError: there is none (with the nearest names).
    """
    if name not in figures():
        near = did_you_mean(name, figures())
        raise InputError(f"no figure is called {name!r}{near or '; see `phosphene reproduce --list`'}")
    return figures()[name]
