"""What belongs to the machine, and not to the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunOptions:
    """Where and how an ascent runs.

    Attributes:
        device: "cpu", "cuda", …; by default a GPU where there is one.  Several share the units out, each with a
            process and a copy of the network of its own: what calls `ascend` with several has to stand under
            `if __name__ == "__main__":` in a script, since each process reads the script anew.
        batch: the most images at once; by default what fits into `memory`, and 32 at most on a CPU; on other devices
            more, where a short trial says that they are faster for it.
        memory: bytes to fill; by default 40 % of what is free on a CPU and 80 % on a GPU.
        precision: "fp32", "bf16", "fp64", or "auto": of the first two the one in which this machine runs the network
            faster, which is measured once and remembered.  It is of the network's passes; for several networks one,
            or one for each.
        batches: [size, steps] pairs, to replay another run: each step's batch is filled up to that size with copies,
            since arithmetic depends on the size of the batch in its last bits, and the ascent ends with the last pair.
        progress: whether a bar shows how far it is, where no callback is told; by default on a terminal and in a
            notebook, where the picture is shown too as it forms.
    """

    device: str | torch.device | Sequence[str | torch.device] | None = None
    batch: int | None = None
    memory: int | None = None
    precision: str | Sequence[str] = "auto"
    batches: Sequence[Sequence[int]] = ()
    progress: bool | None = None
