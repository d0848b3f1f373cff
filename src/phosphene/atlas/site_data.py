"""What the atlas's page knows of an atlas, as plain data."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from phosphene.ascent.stopping import DEAD_UNIT
from phosphene.atlas import map_files
from phosphene.atlas.plan import CLASSES, AtlasPlan, Group
from phosphene.atlas.rows import IndexRow
from phosphene.atlas.store import Store
from phosphene.comparison.match_file import MatchFile
from phosphene.errors import InputError, join_names
from phosphene.networks.labels import Label
from phosphene.networks.named import beyond_a_name
from phosphene.networks.network import Network

_SCORES = (
    "judged",
    "top1",
    "probability",
    "objective",
    "robustness",
    "retained",
    "rank",
    "of",
    "slope",
    "saturated",
    "curve",
    "explanation",
    "explanation_error",
    "explanation_together",
    "explanation_best",
    "explanation_nine",
    "explanation_judges",
    "explanation_photographs",
    "path_similarity",
    "clarity",
    "redundancy",
    "polysemanticity",
    "monosemanticity",
    "mis",
    "word",
    "word_score",
    "word_margin",
    "word_null",
    "word_by",
)
COLUMNS = (
    "index",
    "label",
    "short",
    "unit",
    "files",
    "kept",
    "films",
    "seed",
    "steps",
    "stopped",
    *_SCORES,
    "near",
    "feeds",
    "photographs",
    "trials",
    "frequency",
    "nearest",
    "year",
    "version",
    "dead",
)


@dataclass(frozen=True)
class SiteAtlas:
    """An atlas as it is shown.

    Attributes:
        groups: those that have units, in the network's order; each unit as the rows of its facets.
        prefix: of its files, from the page on.
        kept: by group and index, the files of further images of a unit, which were made by other recipes.
    """

    store: Store
    plan: AtlasPlan
    network: Network | None
    groups: list[tuple[Group, list[list[IndexRow]]]]
    prefix: str
    kept: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, network: Network | None, prefix: str) -> SiteAtlas:
        """Raises an `InputError` if the atlas has no image."""
        plan = store.plan()
        rows: dict[tuple[str, str, str], dict[int, list[IndexRow]]] = {}
        for row in store.rows():  # in the order of their facets
            kind = rows.setdefault((row["group"], row["recipe"], row["weights"]), {})
            kind.setdefault(row["index"], []).append(row)
        groups = []
        kept: dict[tuple[str, int], list[str]] = {}
        for group in plan.groups:
            for (name, recipe, weights), others in rows.items():
                if (name, weights) == (group.name, plan.weights) and recipe != group.digest:
                    for index, made in others.items():
                        later = [prefix + row["file"] for row in made if row["facet"] >= plan.facets]
                        kept.setdefault((name, index), []).extend(later)
        for group in sorted(plan.groups, key=lambda group: group.depth):
            units = rows.get((group.name, group.digest, plan.weights), {})
            whole = [units[i] for i in sorted(group.indices) if i in units and units[i][0]["facet"] == 0]
            if whole:
                groups.append((group, whole))
        if not groups:
            raise InputError(f"{store.place!r} has no image yet: expected `phosphene atlas run` first")
        if network is not None:  # a plan may ask for what the network does not have
            for group in plan.groups:
                for index in group.indices:
                    group.unit(index, network)
        return cls(store, plan, network, groups, prefix, kept)

    def neighbors(self, name: str) -> list[Group]:
        """The layers of the atlas before and after a layer; of the classes the last."""
        layers = [group for group, _ in self.groups if group.name != CLASSES]
        if name == CLASSES:
            return layers[-1:]
        place = [group.name for group in layers].index(name)
        return layers[max(0, place - 1) : place] + layers[place + 1 : place + 2]

    @property
    def dead(self) -> dict[str, set[int]]:
        """The indices of the dead units of each group."""
        return {group.name: {rows[0]["index"] for rows in units if is_dead(rows)} for group, units in self.groups}

    @property
    def count(self) -> int:
        """How many images there are."""
        return sum(len(rows) for _, units in self.groups for rows in units)

    def key(self, name: str) -> str:
        """What a group is called in addresses; no layer's name begins so."""
        return f"~{name}" if self.prefix else name


def network_names(atlases: Sequence[SiteAtlas]) -> list[str]:
    """The networks' names, with those of the atlases' folders where they are the same."""
    names = [each.plan.network for each in atlases]
    if len(set(names)) == len(names):
        return names
    return [f"{each.plan.network} ({PurePosixPath(each.store.root).name})" for each in atlases]


def public_name(plan: AtlasPlan) -> str:
    """The name by which anyone opens an atlas's network, with nothing beside it; empty where there is none."""
    given = {key: value for key, value in plan.source.items() if value}
    name = given.get("network")
    return name if list(given) == ["network"] and isinstance(name, str) and not beyond_a_name(name) else ""


def layer_shapes(atlas: SiteAtlas) -> list[list[Any]]:
    """Of the layers that are usually shown, and those of the atlas: name, channels, height of the map."""
    if atlas.network is None:
        return []
    names = {group.read_from for group, _ in atlas.groups}
    return [
        [layer.name, layer.channels, layer.positions[0] if len(layer.positions) == 2 else 1]
        for layer in atlas.network.layers
        if layer.worth_showing or layer.name in names
    ]


def matched_groups(atlases: Sequence[SiteAtlas], match: MatchFile) -> list[list[Any]]:
    """The pairs of units of both atlases that belong together: [key, key, [[index, index, correlation], ...]].

    Raises:
        InputError: the match is of other networks, or of no two layers that are in the atlases.
    """
    first, second = atlases
    pairs = match.between(first.plan.weights, second.plan.weights)
    there = [{group.name: {rows[0]["index"] for rows in units} for group, units in each.groups} for each in atlases]
    found = []
    for (left, right), units in pairs.items():
        if left in there[0] and right in there[1]:
            kept = [[a, b, rounded(r)] for a, b, r in units if a in there[0][left] and b in there[1][right]]
            found.append([first.key(left), second.key(right), kept])
    if not any(kept for _, _, kept in found):
        layers = join_names([f"{left} and {right}" for left, right in pairs], 3)
        raise InputError(f"{match.origin} has pairs of {layers or 'no layers'}: none of them are in both atlases")
    return found


def class_labels(atlas: SiteAtlas) -> dict[int, Label]:
    """The labels of the classes that the atlas has, by index."""
    known = None if atlas.network is None else atlas.network.labels
    return {
        rows[0]["index"]: Label((rows[0]["label"],)) if known is None else known[rows[0]["index"]]
        for group, units in atlas.groups
        if group.name == CLASSES
        for rows in units
    }


def is_dead(rows: Sequence[IndexRow]) -> bool:
    """Whether none of a unit's images has excited it, so that they are not of it."""
    return all(row["stopped"].startswith(DEAD_UNIT) for row in rows)


@dataclass(frozen=True)
class UnitLinks:
    """What a unit leads to.

    Attributes:
        alike: the indices of units that are alike, by group.
        feeds: the classes that its image makes likelier, as [index, name].
        photographs: the file of the photographs that excite it most, and their names.
        trials: the pairs of the game, as `game.pair_values` has them, and a name of them, which changes with the
            unit's images and with the photographs; None where there are none.
        frequency: of a latent, in which share of the photographs, and at which share of all positions, it is on.
        nearest: of a latent, the classes whose weights are most like its decoder vector, as [index, name, cosine].
        version: of phosphene, that made its first image; empty where that is not known.
    """

    alike: dict[str, list[int]]
    feeds: list[list[Any]]
    photographs: tuple[str, list[str]] | None
    trials: dict[str, Any] | None
    frequency: tuple[float, float] | None = None
    nearest: Sequence[Sequence[Any]] = ()
    version: str = ""


def unit_values(rows: Sequence[IndexRow], atlas: SiteAtlas, links: UnitLinks) -> list[Any]:
    """What the page knows of a unit, from the rows of its facets; in the order of `COLUMNS`."""
    row = rows[0]
    is_class = row["group"] == CLASSES
    layer, found, name = row["group"].rpartition(":sae:")
    kind, layer, name = ("latent", layer, name) if found else ("channel", row["group"], "")
    group, short = atlas.plan.group(row["group"]), str(row["index"])
    if group.map:
        grid = map_files.find(group.map).settings.grid
        kind, layer, name = "cell", group.layer, ""
        short = f"{row['index'] // grid + 1}, {row['index'] % grid + 1}"
    values = row | {
        "files": [atlas.prefix + each["file"] for each in rows],
        "kept": atlas.kept.get((row["group"], row["index"]), []),
        "films": [_film(each, atlas.prefix) for each in rows],
        "short": row["label"] if is_class else short,
        "label": row["label"] if is_class else f"{layer}, {kind} {short}{name and f' of {name}'}",
        "near": {atlas.key(name): indices for name, indices in links.alike.items()},
        "feeds": links.feeds,
        "photographs": links.photographs and list(links.photographs),
        "trials": links.trials,
        "frequency": None if links.frequency is None else [rounded(share) for share in links.frequency],
        "nearest": [list(each) for each in links.nearest],
        "year": time.gmtime(row["written"]).tm_year,
        "version": links.version,
        "dead": is_dead(rows),
    }
    return [rounded(values[column]) for column in COLUMNS]


def _film(row: IndexRow, prefix: str) -> list[Any] | None:
    return None if row["film"] is None else [prefix + row["film"], row["film_frames"], row["film_every"], row["steps"]]


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def to_script(data: Any) -> str:
    """Data as JavaScript, in which nothing can end a script or begin an element, wherever it is put."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
