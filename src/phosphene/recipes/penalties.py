"""Penalties: what is taken off the objective, so that an image is like natural ones in what a penalty looks at.

Each is its settings, and its call returns one number for each row, which the objective multiplies by its `weight`.
What follows from those of activation statistics takes a network: `phosphene.ascent.statistics`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from phosphene.errors import InputError
from phosphene.recipes.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.networks.network import Network


class StatisticsSettings(Section):
    """Channel means and deviations like natural images' (DeepInversion; Yin et al. 2020)."""

    weight: float = Field(gt=0, le=1e9, description="against a logit of the class; see docs/quality.md for other units")
    source: Literal["auto", "batchnorm", "gathered", "unit"] = Field(
        "auto",
        description="what natural images' are: the running ones of batch normalization, those gathered by "
        "`phosphene statistics`, or whichever there is; or the unit's own: of the photographs that excite it most",
    )
    photographs: str = Field("", max_length=4096, description="of source unit, the folder of photographs")
    top: int = Field(9, ge=1, le=10_000, description="of source unit, how many photographs are a unit's own")
    shrinkage: float = Field(
        0.0,
        ge=0,
        le=1,
        description="of source unit, where several images of a unit are made together: how far what each is pulled "
        "towards goes from its share of the photographs, 0, to all of them, 1",
    )
    compare: Literal["moments", "sorted"] = Field(
        "moments",
        description="what of a channel: its mean and deviation; or, of source unit, all its values in their order "
        "(VITAL; Görgün et al. 2025)",
    )
    layer_count: int = Field(0, ge=0, le=10_000, description="how many layers, evenly spread; 0: all of them")
    pool: Literal["row", "group"] = Field(
        "row", description="taken over one image's views, or over all images of a group that is made together"
    )
    side: Literal["both", "above"] = Field(
        "both",
        description="what costs: being off either way; or only what is more than natural, since no photograph has all "
        "that photographs have on average",
    )
    margin: float = Field(0.0, ge=0, le=100, description="deviation that costs nothing, in natural deviations")
    until: float = Field(1.0, gt=0, le=1, description="which layers count: this share of them, from the first on")
    depth: float = Field(
        0.0, ge=0, le=100, description="how much less later layers count: the last by e to the minus this of the first"
    )
    every: int = Field(1, ge=1, le=1000, description="a layer is looked at every so many steps, the layers in turn")
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of a running average over an image's steps, which costs in place of the step's own: the share of "
        "what was before",
    )

    @model_validator(mode="after")
    def _sorted_of_units(self) -> StatisticsSettings:
        if self.compare == "sorted":
            if self.source != "unit":
                raise ValueError(f"compare sorted is of photographs: expected source unit, not {self.source}")
            default = {"side": "both", "margin": 0.0, "every": 1, "average": 0.0, "pool": "row", "depth": 0.0}
            other = next((name for name, value in default.items() if getattr(self, name) != value), None)
            if other:
                raise ValueError(f"compare sorted knows no {other}: expected {default[other]}")
        return self


class ImagePenalty(Section):
    """A penalty on the images alone."""

    weight: float = Field(gt=0, le=1e9, description="against a logit of the class")

    @abstractmethod
    def __call__(self, images: Tensor, mean: Tensor) -> Tensor:
        """What each row costs, before its weight.

        Args:
            images: (rows, channels, height, width) in 0..255.
            mean: the mean image, (channels, 1, 1).

        Returns:
            (rows,), in units of 0..1; differentiable.
        """


class TotalVariationPenalty(ImagePenalty):
    """The mean |difference| of neighboring pixels, in 0..1; or the Euclidean norm of the differences."""

    measure: Literal["mean", "euclidean"] = Field(
        "mean",
        description="the mean |difference| down and across; or, of the differences down, across and along both "
        "diagonals, the Euclidean norm over each channel, mean over channels (Ghiasi et al. 2022)",
    )

    def __call__(self, images: Tensor, mean: Tensor) -> Tensor:
        if self.measure == "euclidean":
            return _euclidean_variation(images / 255)
        down, across = (images.diff(dim=axis).abs().flatten(1) for axis in (-2, -1))
        # An image of one row, or of one column, has no neighbors there.
        return (down.sum(dim=1) / max(1, down.shape[1]) + across.sum(dim=1) / max(1, across.shape[1])) / 255


def _euclidean_variation(images: Tensor) -> Tensor:
    """The norms over positions of the differences of neighbors in four directions: (rows, …) to (rows,)."""
    diagonals = (
        images[..., 1:, 1:] - images[..., :-1, :-1],
        images[..., 1:, :-1] - images[..., :-1, 1:],
    )
    differences = (images.diff(dim=-2), images.diff(dim=-1), *diagonals)
    # So that the gradient of an even image, whose norm is 0, is 0.
    norms = [each.flatten(2).square().sum(dim=2).clamp_min(1e-12).sqrt().mean(dim=1) for each in differences]
    total: Tensor = norms[0] + norms[1] + norms[2] + norms[3]
    return total


class NormPenalty(ImagePenalty):
    """The mean |difference from the mean image| to a power, in 0..1."""

    power: float = Field(2.0, ge=1, le=20, description="2 for L2, 6 as Mahendran & Vedaldi 2016")

    def __call__(self, images: Tensor, mean: Tensor) -> Tensor:
        return ((images - mean).abs() / 255).pow(self.power).mean(dim=(1, 2, 3))


class DiversityPenalty(Section):
    """Facets of a unit that differ: the mean cosine of their features, two by two (Olah et al. 2017)."""

    weight: float = Field(gt=0, le=1e9, description="against a logit of the class")
    layer: str = Field("", description="whose features; by default a late one with a map")

    def __call__(self, features: Tensor, groups: list[int]) -> Tensor:
        """Of each row, the mean cosine with the features of the others of its group, (rows,); 0 without others.

        From "Feature Visualization", on diversity: the cosines of the Gram matrices of a layer, which tell its textures
        and parts wherever they are.

        Args:
            features: (rows, channels, *positions).
            groups: for each row, which group it is of.
        """
        import torch

        from phosphene.hardware import to_device

        flat = features.flatten(2) if features.ndim > 2 else features[:, :, None]
        flat = flat - flat.mean(dim=2, keepdim=True) if flat.shape[2] > 1 else flat
        gram = torch.bmm(flat, flat.transpose(1, 2)).flatten(1)
        gram = gram / gram.norm(dim=1, keepdim=True).clamp_min(1e-12)
        differ = [[float(a == b and i != j) for j, b in enumerate(groups)] for i, a in enumerate(groups)]
        others = to_device(torch.tensor(differ), gram.device)
        mean: Tensor = ((gram @ gram.T) * others).sum(dim=1) / others.sum(dim=1).clamp_min(1)
        return mean

    def layer_of(self, network: Network) -> str:
        """The layer whose features tell facets apart: the one named, or a late one with a map of 7 or more a side.

        Raises:
            InputError: the network has no such layer, or none with a map.
        """
        if self.layer:
            return network.layer(self.layer).name
        maps = [entry for entry in network.layers if entry.worth_showing and len(entry.positions) == 2]
        maps = maps or [entry for entry in network.layers if entry.positions]
        late = [entry for entry in maps if min(entry.positions) >= 7 and entry.channels <= 1024] or maps
        if not late:
            raise InputError(f"{network.name} has no layer with a map: expected priors.diversity.layer")
        return late[-1].name


class Penalties(Section):
    """The penalties of a recipe, by name."""

    statistics: StatisticsSettings | None = None
    total_variation: TotalVariationPenalty | None = None
    norm: NormPenalty | None = None
    diversity: DiversityPenalty | None = None

    @property
    def of_images(self) -> list[tuple[str, ImagePenalty]]:
        """The names of the penalties on the images alone that are on, and they."""
        found = ((name, getattr(self, name)) for name in type(self).model_fields)
        return [(name, penalty) for name, penalty in found if isinstance(penalty, ImagePenalty)]
