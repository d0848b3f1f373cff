"""Whether the library shows by itself how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_IS_SHOWN = ContextVar("is_shown", default=True)


def is_progress_shown() -> bool:
    return _IS_SHOWN.get()


@contextmanager
def without_progress() -> Iterator[None]:
    """Within it nothing is shown by default: the command line has bars of its own."""
    token = _IS_SHOWN.set(False)
    try:
        yield
    finally:
        _IS_SHOWN.reset(token)
