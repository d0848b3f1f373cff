"""A row of a network's depth: a layer, and what of the output is in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DepthRow:
    """A layer, and what of the network's output is in it.  What cannot be told is None.

    Attributes:
        layer, type, channels, positions: what it is.
        cka_logits: debiased linear CKA with the logits.
        r2, r2_error: the share of the logits' variance that a ridge reads off the layer on held-out photographs, with
            its standard error over photographs.
        top1, top1_error, top1_chance: how often the network's own first class is the first of what is read, with its
            standard error, and how often it were if what is read was shuffled among the photographs.
        label_top1, label_error, label_chance: the same of a probe of labels.
        participation: in how many directions the variance is, each weighted by its share.
        directions, saturation: how many have 99 % of the variance, and their share of all channels.
        samples: vectors of which the variance is; it is in fewer directions than these.
        cka_before: debiased linear CKA with the layer before.
        parameters, parameter_share: of all that has been called when the layer ends.
        time_share: of a pass, until the layer ends; as measured once on this machine.
    """

    layer: str
    type: str
    channels: int
    positions: tuple[int, ...]
    cka_logits: float | None
    r2: float | None
    r2_error: float | None
    top1: float | None
    top1_error: float | None
    top1_chance: float | None
    label_top1: float | None
    label_error: float | None
    label_chance: float | None
    participation: float | None
    directions: int
    saturation: float
    samples: int
    cka_before: float | None
    parameters: int
    parameter_share: float
    time_share: float | None
