"""What decides the last bits of an image: where it is the same, images come out the same to the last byte."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

import torch


def fingerprint() -> dict[str, str]:
    """Of this machine and its libraries; it names no machine."""
    known = {"model name": platform.machine()}
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        known |= {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    names = ("model name", "cpu family", "model", "stepping", "cache size")
    return {
        "processor": ", ".join(known[name] for name in names if name in known),
        "flags": hashlib.sha256(known.get("flags", "").encode()).hexdigest()[:16],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
