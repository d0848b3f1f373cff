"""Ctrl-C and SIGTERM, which are answered alike: what is in hand is finished and kept, and the second ends at once.

It imports nothing slow: the command line answers them from its first moment on.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130
"""The exit status of what was interrupted."""

Handler = Callable[[int, Any], Any]

_entered: threading.Event | None = None  # of the `interruptible` that this process is in
_raised: list[int] = []  # the signals that the innermost `raising` has answered


@contextmanager
def raising() -> Iterator[list[int]]:
    """Both signals raise `KeyboardInterrupt`; yields the list of those that came, which grows.

    What is raised amid a finalizer or a library that catches everything is lost: see `raise_again`.  Python's words on
    that are not shown.
    """
    global _raised
    before, told, _raised = _raised, sys.unraisablehook, []
    came = _raised

    def handle(number: int, frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    def tell(lost: sys.UnraisableHookArgs) -> None:
        if not (came and issubclass(lost.exc_type, KeyboardInterrupt)):
            told(lost)

    sys.unraisablehook = tell
    try:
        with handling(handle):
            yield came
    finally:
        _raised, sys.unraisablehook = before, told


def raise_again() -> None:
    """Raise `KeyboardInterrupt` where a signal has raised it before and the work goes on all the same."""
    if _raised and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM sets the event, so that a step is finished and kept; the second one is answered as before.

    One that came before and was lost (see `raise_again`) is answered now, by `KeyboardInterrupt`.
    Within another it yields the other's event: what was interrupted once begins nothing further.  Outside the main
    thread, where Python answers no signals, the event is never set.
    """
    global _entered
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return
    if _entered is not None:
        yield _entered
        return
    raise_again()
    event = threading.Event()

    def handle(number: int, frame: Any) -> None:
        event.set()
        put_back()

    put_back = _answer_by(handle)
    _entered = event
    try:
        yield event
    finally:
        _entered = None
        put_back()


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Both signals call the handler; in the main thread only, and what answered them before is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    put_back = _answer_by(handler)
    try:
        yield
    finally:
        put_back()


@contextmanager
def preserved_handlers() -> Iterator[None]:
    """What answers both signals is as before again afterwards, whatever a library makes of it within."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    put_back = _restorer()
    try:
        yield
    finally:
        put_back()


def _restorer() -> Callable[[], None]:
    """What puts the handlers of both signals back.  One that is not Python's is left alone."""
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not None}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return put_back


def _answer_by(handler: Handler) -> Callable[[], None]:
    """Set the handler of both signals; returns what puts the earlier ones back."""
    put_back = _restorer()
    for number in SIGNALS:
        if signal.getsignal(number) is not None:
            signal.signal(number, handler)
    return put_back


def require_complete(result: Any) -> Any:
    """A result that is of use only as a whole; raises `KeyboardInterrupt` where it was interrupted."""
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def answer_as_worker() -> None:
    """Answer both signals as a process that works for another (see `processes`), from now on and for good.

    Either sets the event of its `interruptible`s, so that what it does ends after its step.  A SIGTERM after that
    raises `KeyboardInterrupt`: it comes from the other process, which ends at once.
    """
    global _entered
    event = _entered = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGTERM and event.is_set():
            raise KeyboardInterrupt
        event.set()

    for number in SIGNALS:
        signal.signal(number, handle)


@contextmanager
def held_back() -> Iterator[None]:
    """Processes that are started within get neither signal, until they let them through."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """This process gets both signals, also those that were held back."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
