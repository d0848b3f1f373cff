"""The machine that ascents run on: which device, and how its memory is kept."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from phosphene.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def find_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the best there is.

    Raises:
        InputError: it is not there.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            there.append("mps")
        raise InputError(f"device {str(device)!r} is not there: expected {' or '.join(there)}") from error
    return found


def first_device(device: str | torch.device | Sequence[str | torch.device] | None) -> torch.device:
    """The first of several devices; as `find_device`."""
    return find_device(device[0] if isinstance(device, Sequence) and not isinstance(device, str) else device)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A copy on a device.  A GPU is not waited for, as `Tensor.to` would from memory that is not pinned."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


@lru_cache
def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, in this process and from now on.

    By default glibc returns each large block to the system and gets it anew, and the system zeroes every page of it.
    The command line calls this; a script may, where the memory of its process is its own (see docs/performance.md).
    """
    with suppress(OSError, AttributeError):  # another C library has none, or needs none
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, -1)  # never
