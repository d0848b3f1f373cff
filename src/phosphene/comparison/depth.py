"""How much of a network's output can be read along its depth: a row a layer, over one pass of photographs.

What can be *read* at a layer is not what the layers behind it are *needed* for: a ridge may find there what the network
itself only finds later, and may miss what the network needs no ridge for.  `depth_cut` puts it to the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene import defaults
from phosphene.comparison.cka import cka_matrix
from phosphene.comparison.depth_cut import cut_network
from phosphene.comparison.depth_labels import Labels, probed_classes, read_labels
from phosphene.comparison.depth_layers import depth_layers, parameters_so_far
from phosphene.comparison.depth_pass import (
    MOST_CHANNELS,
    POSITIONS,
    DepthPass,
    LayerOnPhotographs,
    directions_for,
    participation_ratio,
    pass_photographs,
)
from phosphene.comparison.depth_readout import FOLDS, HeldOut, deal_folds, read_held_out
from phosphene.comparison.depth_report import DepthReport, number_or_none
from phosphene.comparison.depth_rows import DepthRow
from phosphene.comparison.depth_sentence import summarize
from phosphene.default_progress import ProgressOption
from phosphene.errors import InputError
from phosphene.hardware import find_device
from phosphene.judges.photo_set import PhotoSet
from phosphene.networks.network import Network
from phosphene.networks.open import open_network
from phosphene.photographs.listing import evenly_spread

LEAST = 20
"""Photographs, so that four of them are held out at a time."""


def depth(
    network: Network | str,
    photographs: str | Path | Sequence[str | Path],
    layers: Sequence[str] | None = None,
    *,
    labels: Labels | None = None,
    cut: str | None = None,
    limit: int | None = defaults.PHOTOGRAPHS,
    device: str | torch.device | None = None,
    on_progress: ProgressOption = None,
) -> DepthReport:
    """How much of a network's output can be read at each of its layers.

    Photographs go through the network once for all layers.  What is read off a layer is its output averaged over
    positions; of tokens, the class token beside the mean of the patches.

    Within `phosphene.resumable(folder)` it goes on where it was killed.

    Args:
        network: whatever `phosphene.open` takes; it is handed back as it came.
        photographs: a folder with all folders in it, or files.
        layers: names, or patterns such as blocks.*.0; by default its blocks, or activations, 40 at most (see
            `depth_layers`).
        labels: of what the photographs show, for a probe of them as well; see `depth_labels.read_labels`.
        cut: a layer at which the network is ended, with a head of its own; see `depth_cut`.
        limit: of more photographs so many, evenly spread, are used; None: all.
        device: where the network runs; by default where its weights are.
        on_progress: called with how many photographs are done, and of how many; by default a bar; False: nothing.

    Raises:
        InputError: there are fewer than 20 photographs, there is no such layer, a layer gives numbers that are not
            finite, a cut is asked of a network without logits, or labels fit no photograph.
    """
    opened = network if isinstance(network, Network) else open_network(network)
    chosen = depth_layers(opened, layers)
    if cut is not None and not opened.classes:
        raise InputError(f"cut {cut!r}: {opened.no_classes('logits that a head could be fitted to')}")
    ending = None if cut is None else opened.layer(cut)
    if ending is not None:  # and the last, at which the same head is fitted
        every = {layer.name: layer for layer in (*chosen, ending, depth_layers(opened)[-1])}
        chosen = sorted(every.values(), key=lambda layer: opened.depth(layer.name))
    photo_set = PhotoSet.of(photographs)
    kept = evenly_spread(range(len(photo_set.paths)), limit)
    given = None if labels is None else read_labels(labels, photo_set.paths, photo_set.names)
    files = [photo_set.paths[index] for index in kept]
    if len(files) < LEAST:
        raise InputError(f"{len(files)} photographs: expected {LEAST} or more, so that some can be held out")
    where = opened.device if device is None else find_device(device)
    passed = pass_photographs(opened, chosen, files, where, on_progress)
    if len(passed.places) < LEAST:
        raise InputError(f"{len(passed.places)} photographs can be read: expected {LEAST} or more")
    shown = None if given is None else [given[kept[place]] for place in passed.places]
    found = _report(opened, passed, shown)
    if ending is None:
        return found
    return replace(found, cut=cut_network(opened, passed, ending.name, files, where))


def _report(network: Network, passed: DepthPass, labels: Sequence[str | None] | None) -> DepthReport:
    features = [each.features for each in passed.layers]
    logits = [] if passed.logits is None else [passed.logits]
    matrix = cka_matrix([*features, *logits])
    probes = _probe_labels(features, labels)
    reads = [None if passed.logits is None else _read_logits(each, passed.logits) for each in features]
    counts = parameters_so_far(network, [each.layer for each in passed.layers])
    rows = []
    for index, layer in enumerate(passed.layers):
        related = (
            number_or_none(matrix[index, -1]) if logits else None,
            number_or_none(matrix[index, index - 1]) if index else None,
        )
        spent = counts[index], network.parameters, _time_share(passed, index)
        rows.append(_row(layer, reads[index], probes[index], related, spent))
    own = None if passed.logits is None else passed.logits.argmax(1)
    return DepthReport(
        network=network.name,
        weights=network.digest,
        photographs=len(passed.places),
        classes=network.classes,
        rows=rows,
        names=[*(row.layer for row in rows), *(["logits"] if logits else [])],
        correlations=matrix,
        top1_commonest=None if own is None else float(own.bincount().max()) / len(own),
        label_classes=0 if probes[0] is None else probes[0].true.shape[1],
        labeled=0 if probes[0] is None else len(probes[0].true),
        summary=summarize(rows, len(passed.places)),
        notes=_notes(network, passed, labels),
    )


def _time_share(passed: DepthPass, index: int) -> float | None:
    return passed.seconds[index] / passed.seconds[-1] if passed.seconds else None


def _read_logits(features: Tensor, logits: Tensor) -> HeldOut:
    return read_held_out(features, logits, deal_folds(len(logits)))


def _probe_labels(features: Sequence[Tensor], labels: Sequence[str | None] | None) -> list[HeldOut | None]:
    if labels is None:
        return [None] * len(features)
    indices, classes = probed_classes(labels)
    if len(indices) < LEAST:
        raise InputError(
            f"labels of {len(indices)} photographs: expected {LEAST} or more, so that some can be held out"
        )
    numbers = [classes.index(labels[index]) for index in indices]  # type: ignore[arg-type]
    targets = torch.nn.functional.one_hot(torch.tensor(numbers), len(classes))
    folds = deal_folds(len(numbers), numbers)
    return [read_held_out(each[indices], targets, folds) for each in features]


def _row(
    each: LayerOnPhotographs,
    logits: HeldOut | None,
    label: HeldOut | None,
    related: tuple[float | None, float | None],
    spent: tuple[int, int, float | None],
) -> DepthRow:
    variances, layer = each.variances, each.layer
    directions = directions_for(variances)
    parameters, total, share = spent
    return DepthRow(
        layer=layer.name,
        type=layer.type,
        channels=layer.channels,
        positions=layer.positions,
        cka_logits=related[0],
        **_told(logits, ("r2", "r2_error", "top1", "top1_error", "top1_chance")),
        **_told(label, ("", "", "label_top1", "label_error", "label_chance")),
        participation=number_or_none(participation_ratio(variances)),
        directions=directions,
        saturation=directions / layer.channels,
        samples=each.samples,
        cka_before=related[1],
        parameters=parameters,
        parameter_share=parameters / max(total, 1),
        time_share=share,
    )


def _told(read: HeldOut | None, names: Sequence[str]) -> dict[str, Any]:
    """What was read, under these names; nothing under an empty one."""
    values = (None,) * 5 if read is None else (read.r2, read.r2_error, read.top1, read.top1_error, read.top1_by_chance)
    numbers = (None if value is None else number_or_none(value) for value in values)
    return {name: number for name, number in zip(names, numbers, strict=True) if name}


def _notes(network: Network, passed: DepthPass, labels: Sequence[str | None] | None) -> list[str]:
    count = len(passed.places)
    notes = [
        "what is read off a layer is its output averaged over positions; a ridge is fitted to "
        f"{FOLDS - 1} fifths of the {count} photographs, and asked about the fifth that is held out"
    ]
    if passed.logits is None:
        notes.append(f"{network.no_classes('logits')}; so nothing of an output is read")
    if wide := [each.layer.name for each in passed.layers if each.is_hashed]:
        notes.append(
            f"{', '.join(wide)}: channels are added with signs drawn at random, into {MOST_CHANNELS:,} at most, since "
            "there are more of them than are kept"
        )
    if any(each.count for each in passed.layers):
        notes.append(f"the variance is of {POSITIONS} positions at most of each photograph, evenly spread")
    if passed.seconds:
        notes.append("time is measured once, on this machine")
    else:
        notes.append(
            "time is not measured: images go through the network one at a time, with random numbers of their own"
        )
    if labels is not None:
        left = len(labels) - len(probed_classes(labels)[0])
        notes += [f"{left} photographs have no label, or one that no other has, and are not probed"] if left else []
    return notes
