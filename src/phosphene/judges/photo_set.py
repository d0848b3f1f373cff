"""Photographs to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from phosphene.errors import InputError
from phosphene.images import readable
from phosphene.judges.pixel_metrics import mean_slope, spectral_slope
from phosphene.networks.preprocessing import Preprocessing
from phosphene.photographs.listing import list_photographs

BATCH = 32


@dataclass(frozen=True)
class PhotoSet:
    """Photographs to compare with: files, and what to call each."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, photographs: str | Path | Sequence[str | Path]) -> PhotoSet:
        """From a folder, with all folders in it, or from files.

        Raises:
            InputError: there is no such folder or file, or no image file in it.
        """
        if not isinstance(photographs, str | Path):
            paths = tuple(map(Path, photographs))
            missing = [path for path in paths if not path.is_file()]
            if missing or not paths:
                what = f"there is no file {str(missing[0])!r}" if missing else "none are given: expected files"
                raise InputError(f"photographs: {what}, or give a folder")
            return cls(paths, tuple(path.name for path in paths))
        folder = Path(photographs)
        paths = tuple(list_photographs(folder))
        return cls(paths, tuple(path.relative_to(folder).as_posix() for path in paths))

    def batches(self, preprocessing: Preprocessing) -> Iterator[tuple[list[str], Tensor]]:
        """Names and pixels (rows, channels, height, width) of those that can be read, `BATCH` at once.

        Raises:
            InputError: none can.
        """
        count = 0
        names: list[str] = []
        pixels: list[Tensor] = []
        for image, name in zip(readable(self.paths), self.names, strict=True):
            if image is None:
                continue
            pixels.append(preprocessing.photograph(image))
            names.append(name)
            count += 1
            if len(names) == BATCH:
                yield names, torch.stack(pixels)
                names, pixels = [], []
        if names:
            yield names, torch.stack(pixels)
        if not count:
            raise InputError(
                f"none of {len(self.paths)} photographs, such as {str(self.paths[0])!r}, can be read: they are no "
                "image files, or damaged ones"
            )


def photo_set_slope(gallery: PhotoSet) -> float:
    """Of photographs at 224 pixels, as `PHOTOGRAPHS_SLOPE` is."""
    pixels = (row for _, batch in gallery.batches(Preprocessing(224, crop=0.875)) for row in batch)
    return mean_slope([spectral_slope(row.movedim(0, -1).numpy()) for row in pixels])
