"""Files that are written while the next images are made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from phosphene.picture import Picture

_MAX_PENDING = 64  # pictures at most that wait to be written


@contextmanager
def background_writer(write: Callable[[Picture], None]) -> Iterator[Callable[[Picture], None]]:
    """What hands pictures on to be written, in order, by a thread of its own: the next images do not wait for files.

    All that were handed on are written when the context ends, however it ends.  What goes wrong with a file is raised
    with a later picture, or at the end.
    """
    waiting: deque[Future[None]] = deque()

    def hand(picture: Picture) -> None:
        while waiting and (waiting[0].done() or len(waiting) >= _MAX_PENDING):
            waiting.popleft().result()
        waiting.append(thread.submit(write, picture))

    with ThreadPoolExecutor(1, "writing") as thread:
        yield hand
        while waiting:
            waiting.popleft().result()
