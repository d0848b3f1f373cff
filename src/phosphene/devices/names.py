"""Which devices there are."""

from __future__ import annotations

import torch

from phosphene.hardware import find_device


def parse_devices(names: str | None) -> list[torch.device]:
    """The devices of a list such as "cuda:0,cuda:1"; by default every GPU of the machine, or else the best there is.

    Raises:
        InputError: one is not there.
    """
    if names is None:
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())] or [find_device(None)]
    return [find_device(name.strip()) for name in names.split(",")]
