"""Run by itself, on an HDF5 file that nobody vouches for: reads all of it, so that nothing else has to be the first to.

HDF5's library, in C, can be led into an endless loop by a single wrong byte.  Here it may be: who runs this script
waits only so long.  It ends with 0, or with 1 and the reason on its standard output.  Nothing of phosphene is imported.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from typing import Any

import h5py

SLACK = 1 << 20  # bytes
MOST_OBJECTS = 15_000  # groups and datasets; NASNetLarge has 6,000


def check(path: str) -> str:
    """What is wrong with the file, as the second half of a sentence; empty if nothing."""
    size = os.path.getsize(path)
    declared = 0
    with h5py.File(path, "r") as file:
        todo: list[Any] = [file]
        seen: set[int] = set()
        while todo:
            node = todo.pop()
            address = h5py.h5o.get_info(node.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) + len(todo) > MOST_OBJECTS:
                return f"it has over {MOST_OBJECTS:,} groups and datasets"
            for name in node.attrs:
                attribute = node.attrs.get_id(name)
                if math.prod(attribute.shape or ()) * attribute.dtype.itemsize > size:
                    return f"attribute {name!r} of {node.name} is larger than the file"
                node.attrs[name]
            if isinstance(node, h5py.Dataset):
                declared += node.size * node.dtype.itemsize
                if wrong := _dataset(node):
                    return f"{node.name} {wrong}"
                if declared > 2 * size + SLACK:
                    return f"it declares {declared} bytes of numbers, and has {size}"
                node[()]
            else:
                if len(node) > MOST_OBJECTS:
                    return f"it has over {MOST_OBJECTS:,} groups and datasets"
                for name in node:
                    if not isinstance(node.get(name, getlink=True), h5py.HardLink):
                        return f"{node.name}/{name} is a link, perhaps to another file"
                    todo.append(node[name])
    return ""


def _dataset(dataset: Any) -> str:
    if dataset.external or dataset.is_virtual:
        return "is kept in other files"
    if dataset.dtype.hasobject or dataset.dtype.kind not in "fiubV":
        return f"holds {dataset.dtype}, and not numbers"
    if dataset.chunks is None and dataset.id.get_storage_size() < dataset.size * dataset.dtype.itemsize:
        return "is declared larger than it is"
    return ""


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * size + (64 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    with suppress(OSError, ValueError):  # no /proc, or a lower limit is set already
        _limit_memory(os.path.getsize(sys.argv[1]))
    try:
        wrong = check(sys.argv[1])
    except Exception:
        wrong = "it is truncated, or no HDF5 file"
    print(wrong)
    sys.exit(bool(wrong))
