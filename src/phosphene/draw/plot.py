"""The objective over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from phosphene.picture import Picture


def plot(pictures: Sequence[Picture], path: Path) -> None:
    """The objective over the steps, a line a picture, and of classes the network's probability below it."""
    from matplotlib.figure import Figure

    sure = [picture for picture in pictures if picture.probabilities]
    figure = Figure(figsize=(8, 6 if sure else 4), layout="constrained")
    axes = figure.subplots(2 if sure else 1, 1, sharex=True, squeeze=False)[:, 0]
    for picture in pictures:
        axes[0].plot(range(len(picture.objectives)), picture.objectives, linewidth=1, label=picture.label)
    for picture in sure:
        axes[-1].plot(range(len(picture.probabilities)), picture.probabilities, linewidth=1)
    if sure:
        axes[-1].set(ylabel="network's own probability", ylim=(-0.02, 1.02))
    axes[0].set(ylabel="objective", title=f"{pictures[0].network.name}, recipe {pictures[0].recipe.name}")
    axes[-1].set(xlabel="step")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    if len(pictures) <= 20:
        axes[0].legend(fontsize="small", frameon=False, ncols=1 + len(pictures) // 8)
    figure.savefig(path, dpi=110, format="png")
