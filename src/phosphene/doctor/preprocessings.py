"""The usual preprocessings, and how two of them differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import tomli_w

from phosphene.networks.description import Description
from phosphene.networks.preprocessing import PRESETS, Preprocessing

DECLARED = "declared"


def candidates(declared: Preprocessing) -> dict[str, Preprocessing]:
    """The declared preprocessing and the usual ones, all in both orders of the channels, by name: "caffe RGB".

    All are resized, laid out and interpolated as declared.  What differs hardly from one before it (to a
    hundredth of the range) is left out: Caffe's means are published in several roundings.
    """
    found = {DECLARED: declared}
    orders: tuple[Literal["RGB", "BGR"], ...] = ("RGB", "BGR") if declared.channels == 3 else ("RGB",)
    scalings = {preset: Preprocessing.preset(preset) for preset in PRESETS} | {DECLARED: declared}
    for name, scaling in scalings.items():
        for order in orders:
            feed = _scaled_as(declared, scaling, order)
            if not any(is_equivalent(feed, other) for other in found.values()):
                found[f"{name} {order}" if len(orders) > 1 else name] = feed
    return found


def _scaled_as(declared: Preprocessing, scaling: Preprocessing, order: Literal["RGB", "BGR"]) -> Preprocessing:
    mean, std = _by_channel(scaling.mean), _by_channel(scaling.std)
    if declared.channels != scaling.channels:
        mean, std = ((sum(values) / len(values),) * declared.channels for values in (mean, std))
    elif order != scaling.channel_order:
        mean, std = mean[::-1], std[::-1]
    return replace(declared, mean=mean, std=std, value_range=scaling.value_range, channel_order=order)


def _by_channel(values: tuple[float, ...] | float) -> tuple[float, ...]:
    assert isinstance(values, tuple)  # a preprocessing makes it so
    return values


def input_range(preprocessing: Preprocessing) -> tuple[list[float], list[float]]:
    """What 0 and what 255 become, for each channel, in the order of RGB."""
    step = -1 if preprocessing.channel_order == "BGR" else 1
    pairs = list(zip(_by_channel(preprocessing.mean), _by_channel(preprocessing.std), strict=True))[::step]
    low, high = ([(end - mean) / std for mean, std in pairs] for end in preprocessing.value_range)
    return low, high


def has_same_scaling(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether red, green and blue become nearly the same numbers, in whatever order they stand."""
    (low, high), (other_low, other_high) = input_range(one), input_range(other)
    return all(
        max(abs(a - c), abs(b - d)) <= 0.01 * (b - a)
        for a, b, c, d in zip(low, high, other_low, other_high, strict=True)
    )


def is_equivalent(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether a network can hardly tell which of the two it is given, whatever the resize rule."""
    return one.channel_order == other.channel_order and has_same_scaling(one, other)


def resize_rules(declared: Preprocessing) -> dict[str, Preprocessing]:
    """The usual ways to bring photographs to the network's size, by their words; the declared one first."""
    share = declared.height / 256 if 0.8 <= declared.height / 256 < 1 else 0.875
    ways = [
        declared,
        replace(declared, resize="shorter", crop=0.875),
        replace(declared, resize="shorter", crop=1.0),
        replace(declared, resize="squash", crop=1.0),
        replace(declared, resize="squash", crop=share),
    ]
    return {resize_rule(way): way for way in ways}


def resize_rule(preprocessing: Preprocessing) -> str:
    """In words: "shorter side, middle 87.5%"."""
    rule = "shorter side" if preprocessing.resize == "shorter" else "squashed"
    return rule if preprocessing.crop == 1 else f"{rule}, middle {preprocessing.crop:.3g}"


def differences(declared: Preprocessing, fitting: Preprocessing) -> list[str]:
    """In plain words, what is wrong with the declared preprocessing where the other one fits."""
    found = []
    if declared.channel_order != fitting.channel_order:
        found.append(f"the channels are swapped: {declared.channel_order} is declared, {fitting.channel_order} fits")
    if not has_same_scaling(declared, fitting):
        found.append(f"the range is wrong: {declared.describe()} is declared, {fitting.describe()} fits")
    if resize_rule(declared) != resize_rule(fitting):
        found.append(
            f"photographs are resized otherwise: {resize_rule(declared)!r} is declared, {resize_rule(fitting)!r} fits"
        )
    return found


def suggestion(declared: Preprocessing, fitting: Preprocessing) -> str:
    """How to say what fits: `--preprocessing caffe` where a preset says it, or lines of TOML.

    Empty where the declared one says it already.
    """
    if declared == fitting:
        return ""
    for preset in PRESETS:
        if Description("", preset, {}, None).preprocessing(declared) == fitting:
            return f"--preprocessing {preset}"
    scaling = () if is_equivalent(declared, fitting) else ("mean", "std", "value_range", "channel_order")
    resizing = ("resize", "crop") if resize_rule(declared) != resize_rule(fitting) else ()
    lines = [tomli_w.dumps({name: _plain(getattr(fitting, name))}, indent=0) for name in (*scaling, *resizing)]
    return "".join(line if line.count("\n") == 1 else _on_one_line(line) for line in lines).strip()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _on_one_line(array: str) -> str:
    """`tomli_w` writes each number of an array on a line of its own."""
    return array.replace("\n", " ").replace("[ ", "[").replace(", ]", "]").strip() + "\n"
