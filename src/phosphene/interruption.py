"""Ctrl-C and SIGTERM, which are answered alike: what is in hand is finished and kept, and the second ends at once.

It imports nothing slow: the command line answers them from its first moment on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130
"""The exit status of what was interrupted."""

Handler = Callable[[int, Any], Any]

_entered: threading.Event | None = None  # of the `interruptible` that this process is in


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM sets the event, so that a step is finished and kept; the second one is answered as before.

    Within another it gives the other's event: what was interrupted once begins nothing further.  Outside the main
    thread, where Python answers no signals, the event is never set.
    """
    global _entered
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return
    if _entered is not None:
        yield _entered
        return
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
    put_back = _remembered()
    try:
        yield
    finally:
        put_back()


def _remembered() -> Callable[[], None]:
    """Gives what puts the handlers of both signals back.  One that is not Python's is left alone."""
    before = {number: found for number in SIGNALS if (found := signal.getsignal(number)) is not None}

    def put_back() -> None:
        for number, found in before.items():
            signal.signal(number, found)

    return put_back


def _answer_by(handler: Handler) -> Callable[[], None]:
    """Give both signals a handler; gives what puts the earlier ones back."""
    put_back = _remembered()
    for number in SIGNALS:
        if signal.getsignal(number) is not None:
            signal.signal(number, handler)
    return put_back


def require_complete(result: Any) -> Any:
    """A result that is of use only as a whole; raises `KeyboardInterrupt` where it was interrupted."""
    if result.interrupted:
        raise KeyboardInterrupt
    return result


# Processes that work for another.


def begin(context: Any, work: Callable[..., Any], *arguments: Any) -> Any:
    """Begin a process that does some work, and follows this one; gives it.

    Args:
        context: of `multiprocessing`.

    Neither signal reaches it while its imports run.  From its first line of work on either sets its `interruptible`s'
    event, for good, so that what it does ends after its step.  A SIGTERM after that raises `KeyboardInterrupt`: it
    comes from this process, which ends at once.
    """
    follows = context.RawValue("b", 0)
    process = context.Process(target=_follow, args=(follows, work, arguments), daemon=True)
    process.follows = follows
    with _held_back():
        process.start()
    return process


def _follow(follows: Any, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    global _entered
    event = _entered = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGTERM and event.is_set():
            raise KeyboardInterrupt
        event.set()

    for number in SIGNALS:
        signal.signal(number, handle)
    follows.value = 1
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        work(*arguments)
    except KeyboardInterrupt:
        raise SystemExit(STATUS) from None


@contextmanager
def _held_back() -> Iterator[None]:
    """Processes that are begun within get neither signal."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which lets both signals through, where it is not running yet
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pass_on(processes: Sequence[Any]) -> None:
    """Have processes finish their step and end; those that have not begun their work end now.  Often is as good as
    once."""
    for process in processes:
        if not process.follows.value:
            process.kill()
        elif os.name == "posix" and process.is_alive():  # elsewhere Ctrl-C reaches them by itself
            os.kill(process.pid, signal.SIGINT)


def end(processes: Sequence[Any], patience: float = 2.0) -> None:
    """End processes now: they have so many seconds to take half-written files away."""
    pass_on(processes)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(patience)
        if process.is_alive():
            process.kill()
            process.join()
