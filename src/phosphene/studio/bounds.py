"""What a tab's process may take, how it is confined to that, and how it ended."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_SHARE = 0.8  # of the machine's memory that a process may take
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Bounds:
    """What a tab's process may take before it is ended.

    Attributes:
        memory: bytes of main memory, with its children.
        opening: seconds without a sign of life while it opens a network, which may have to be downloaded.
        silence: seconds without one while it does anything else; each step of an image gives one.
    """

    memory: int
    opening: float = 1800.0
    silence: float = 300.0

    @classmethod
    def of_this_machine(cls) -> Bounds:
        return cls(int(_SHARE * machine_memory()))


def machine_memory() -> int:
    """Bytes of memory that this machine has, or that its container leaves of it."""
    memory = int(psutil.virtual_memory().total)
    for name in _CGROUPS:
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            memory = min(memory, int(Path(name).read_text()))
    return memory


def memory_of(process: psutil.Process, with_children: bool) -> int:
    """Bytes of main memory that a process holds; one that is gone holds none."""
    taken = 0
    with suppress(psutil.Error):
        for each in [process, *(process.children(recursive=True) if with_children else ())]:
            with suppress(psutil.Error):
                taken += each.memory_info().rss
    return taken


def ending(status: int | None) -> str:
    """How a process ended, in words."""
    if status is None or status >= 0:
        return f"it ended by itself, with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"it was ended by {name}" + (", maybe for want of memory" if name == "SIGKILL" else "")


def confine(memory: int | None) -> None:
    """Confine this process: it cannot fill the terminal, and asks for no more than its memory.

    Args:
        memory: bytes that it may still ask for; None: any number, as where a GPU's driver reserves addresses.
    """
    if os.name == "posix":
        os.setpgid(0, 0)  # a group of its own, to be ended with its children
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
    with suppress(OSError):  # of all processes Linux ends this one first when memory runs out, and not the server
        Path("/proc/self/oom_score_adj").write_text("500")
    if memory is not None:
        _limit(memory)


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # not of POSIX
        return
    held = getattr(psutil.Process().memory_info(), "data", 0)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = held + memory
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
