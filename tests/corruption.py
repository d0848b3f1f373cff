"""Damaged files: every one opens, or is refused in one sentence, soon, and without more memory than it may take."""

from __future__ import annotations

import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from phosphene import InputError

SECONDS = 20
SLACK = 192 << 20  # address space that threads and allocators reserve without using it


def damaged(data: bytes, places: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """The data cut at half of the places, and with one byte changed at the other half."""
    random_ = random.Random(seed)
    for index in range(places):
        # Half of all places near the beginning, where a format's lengths and names are.
        place = random_.randrange(len(data) if index % 4 < 2 else min(len(data), 2048))
        if index % 2:
            yield f"cut at {place}", data[:place]
        else:
            changed = data[place] ^ (1 << random_.randrange(8))
            yield f"byte {place} is {changed}", data[:place] + bytes([changed]) + data[place + 1 :]


def check_corrupted(file: Path, open_: Callable[[Path], object], *, places: int = 200, suffix: str = "") -> int:
    """Open a file damaged at so many places; gives how many of them were refused.

    Any exception but an InputError of one line fails, and so do a hang and an allocation over twice the file.
    """
    whole = file.read_bytes()
    open_(file)  # what is imported and set up at first use is not the damaged file's doing
    target = file.with_name(f"damaged{suffix or file.suffix}")
    refused = 0
    for place, data in damaged(whole, places):
        target.write_bytes(data)
        try:
            with limits(2 * len(whole)):
                open_(target)
        except InputError as error:
            if "\n" in str(error) or isinstance(error.__cause__, MemoryError):
                raise AssertionError(f"{file.name}, {place}: {error}") from error
            refused += 1
        except BaseException as error:
            raise AssertionError(f"{file.name}, {place}: {type(error).__name__}: {error}") from error
    return refused


@contextmanager
def limits(bytes_: int) -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"not opened within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + bytes_ + SLACK, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
