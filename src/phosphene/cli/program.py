"""The program: a command, its exit status, and what ends it early.

This module imports nothing slow, so that from the first moment on Ctrl-C and SIGTERM end the program with one line.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from phosphene import interruption
from phosphene.cli import signals, statuses

_PATIENCE = 5.0  # seconds for a process that was interrupted to be taken down


def command() -> NoReturn:
    """The program: runs the command that was typed, and ends the process."""
    _answer(signals.end)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what fits, and the process ends with the answer
        from phosphene.cli.completers import complete

        complete()
    atexit.register(_answer, signal.SIG_IGN)  # called as the last: Python then gives its own handlers up
    status = main()
    _answer(lambda *_: os._exit(status))  # the work is done, and what is left is to take the process down
    if status == statuses.INTERRUPTED:
        # A thread that was interrupted while it began may never end, and Python would wait for it.
        last = threading.Timer(_PATIENCE, os._exit, [status])
        last.daemon = True
        last.start()
    sys.exit(status)


def _answer(handler: Any) -> None:
    for number in interruption.SIGNALS:
        signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0, 2 for bad input, 130 after Ctrl-C or SIGTERM.

    It is 1 where a command found something wrong, or where its words could not be written.
    """
    with interruption.raising() as pressed, _no_warnings():
        try:
            with signals.importing():
                from phosphene.cli import running

            return running.run(arguments)
        except KeyboardInterrupt:
            pass
        except Exception:
            if not pressed:  # a library's own words on having been interrupted
                raise
        with interruption.handling(signals.end_silently), suppress(OSError):
            if sys.stderr is not None:  # closed before the program began
                print(signals.WORDS, file=sys.stderr, flush=True)
    return statuses.INTERRUPTED


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Python's warnings are for who writes code, so none is shown, here or by other processes, unless -W or
    PYTHONWARNINGS asks for them."""
    if sys.warnoptions:
        yield
        return
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.showwarning = lambda *_, **__: None  # libraries add filters of their own
            yield
    finally:
        os.environ.pop("PYTHONWARNINGS", None)
