"""Where finished images are kept: in an atlas, or in a folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from phosphene.atlas.plan import CLASSES, AtlasPlan, Group
from phosphene.atlas.store import Store
from phosphene.errors import InputError
from phosphene.files import make_directory
from phosphene.picture import Picture, save_picture
from phosphene.recipes.recipe import Recipe
from phosphene.studio.messages import StudioConfig
from phosphene.units.objects import Channel, Class


def save_image(picture: Picture, config: StudioConfig) -> str:
    """Write an image into the atlas, or into the folder where there is none; returns its place.

    An atlas has classes and channels; all other units go into the folder.
    """
    group = None if config.atlas is None else _group(picture)
    if config.atlas is None or group is None:
        return str(save_without_overwriting(picture, Path(config.out)))
    return save_in_atlas(picture, Store(config.atlas), group)


def save_without_overwriting(picture: Picture, directory: Path) -> Path:
    """Write an image into a folder, beside what is there: none is ever replaced."""
    make_directory(directory)
    name, number = picture.name, 1
    while (directory / f"{name}.png").exists():
        number += 1
        name = f"{picture.name}_{number}"
    return save_picture(replace(picture, name=name), directory)


def _group(picture: Picture) -> Group | None:
    """The group of an atlas that would have nothing but this image; None where no atlas has such a unit."""
    unit = picture.unit
    if isinstance(unit, Class):
        return Group(CLASSES, [unit.index], picture.recipe.to_dict())
    if isinstance(unit, Channel) and unit == Channel(unit.layer, unit.channel, tokens=unit.tokens):
        return Group(unit.layer, [unit.channel], picture.recipe.to_dict(), tokens=str(unit.tokens or ""))
    return None


def save_in_atlas(picture: Picture, store: Store, alone: Group) -> str:
    """Keep an image in an atlas, which is made if it is not there; returns its file.

    A unit that the plan lacks is added to it, with this image.  One that it has gets this as a further facet: what is
    there stays, and so does what is yet to be made.  In the index the image stands under the recipe by which it was
    made: where that is not the plan's for its layer, the place of the unit's own image is left to the plan's.

    Raises:
        InputError: the atlas is of another network, holds something else, or cannot be written.
    """
    index = alone.indices[0]
    network = picture.network
    source = dict(network.source or {})
    plan = store.plan() if store.has_plan() else AtlasPlan(network.name, network.weights, source, [])
    if plan.weights != network.weights:
        raise InputError(
            f"the atlas is of {plan.network} (weights {plan.weights}), and {network.name} has {network.weights}: "
            "expected the same network, or another atlas"
        )
    group = next((group for group in plan.groups if group.name == alone.name), alone)
    if group.tokens != alone.tokens:
        raise InputError(
            f"the atlas has channels of {group.name} at {group.tokens or 'all tokens'}, and this image is of "
            f"{picture.unit}: expected another atlas"
        )
    planned = group in plan.groups and index in group.indices
    recipe = _filed_under(picture, alone, group)
    facet = 0 if not planned and plan.facets == 1 and recipe == group.digest else plan.facets
    while store.find_row(group.name, index, facet) is not None:
        facet += 1
    if not planned:
        store.write_plan(_with_unit(plan, group, index))  # first, since it refuses what holds something else
    row = store.put(group.name, index, facet, recipe, picture)
    store.add([row])
    return f"{store.place}/{row['file']}"


def _filed_under(picture: Picture, alone: Group, group: Group) -> str:
    """The digest of the recipe by which an image was made, as an index has it.

    It is the group's, if that is the same recipe as a newer version may write it.  One that was changed on the way is
    another than the recipe that it began with.

    Args:
        alone: the group with the image's own recipe.
        group: the plan's.
    """
    if picture.changes:
        changes = [[step, name, value] for step, name, value in picture.changes]
        told = json.dumps([alone.digest, changes], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[: len(alone.digest)]
    same = Recipe.from_dict(group.recipe).to_dict() == Recipe.from_dict(alone.recipe).to_dict()
    return group.digest if same else alone.digest


def _with_unit(plan: AtlasPlan, group: Group, index: int) -> AtlasPlan:
    """The plan with a unit more, of a group that it may lack."""
    wider = replace(group, indices=sorted({*group.indices, index}))
    if group not in plan.groups:
        return replace(plan, groups=[*plan.groups, wider])
    return replace(plan, groups=[wider if each is group else each for each in plan.groups])
