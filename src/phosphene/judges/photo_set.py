"""Photographs to compare images with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from phosphene.default_progress import Tally
from phosphene.errors import InputError
from phosphene.judges.pixel_metrics import mean_slope, spectral_slope
from phosphene.networks.preprocessing import Preprocessing
from phosphene.photographs.decoding import decode_batches
from phosphene.photographs.listing import list_photographs

BATCH = 32  # photographs, or images that are judged, at once


@dataclass(frozen=True)
class PhotoSet:
    """Photographs to compare with: files, and what to call each.

    Attributes:
        on_read: told how many more files are read, once a network has seen them.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    on_read: Callable[[int], object] | None = field(default=None, compare=False, repr=False)

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
        done = 0
        for batch in decode_batches(self.paths, preprocessing, BATCH):
            yield [self.names[index] for index in batch.indices], batch.pixels
            if self.on_read is not None:
                self.on_read(batch.done - done)
            done = batch.done

    def counted_on(self, tally: Tally) -> PhotoSet:
        """The same photographs, each of which counts on a tally whenever it is read."""
        return replace(self, on_read=tally.add)


def photo_set_slope(photographs: PhotoSet) -> float:
    """The mean spectral slope of photographs at 224 pixels, as `PHOTOGRAPHS_SLOPE` is."""
    pixels = (row for _, batch in photographs.batches(Preprocessing(224, crop=0.875)) for row in batch)
    return mean_slope([spectral_slope(row.movedim(0, -1).numpy()) for row in pixels])
