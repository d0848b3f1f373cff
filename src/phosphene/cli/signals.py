"""How the command line answers Ctrl-C and SIGTERM before its work begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from phosphene import interruption
from phosphene.cli import statuses

WORDS = "phosphene: interrupted"


@contextmanager
def importing() -> Iterator[None]:
    """Both signals end the process on the spot: libraries take an exception amid their imports badly.

    It is for imports before the work, when there is nothing yet to keep.
    """
    with interruption.handling(end):
        yield


def end(number: int, frame: Any) -> NoReturn:
    """Answer a signal: say so, and end the process on the spot."""
    with suppress(OSError):
        os.write(2, f"{WORDS}\n".encode())
    end_silently(number, frame)


def end_silently(number: int, frame: Any) -> NoReturn:
    os._exit(statuses.INTERRUPTED)
