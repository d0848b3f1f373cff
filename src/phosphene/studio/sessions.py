"""The server's side of the processes: one for each tab, and turns for their runs."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from phosphene import interruption
from phosphene.studio.worker import Given, work


class Session:
    """A tab's process.

    Args:
        given: what the studio was started with.
        keeping: the lock of all sessions, held while one of them keeps an image.
        hear: called, in the event loop that begins the session, with each message.
        lost: called there when the process has ended without being told to.
    """

    def __init__(self, given: Given, keeping: Any, hear: Callable[[Any], None], lost: Callable[[], None]):
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = interruption.begin(context, work, given, there, keeping)
        there.close()
        self._hear, self._lost = hear, lost
        self._closed = False
        threading.Thread(target=self._listen, args=(asyncio.get_running_loop(),), daemon=True).start()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the event loop has ended, and all with it
            while True:
                try:
                    message = self._pipe.recv()
                except (EOFError, OSError):
                    loop.call_soon_threadsafe(self._ended)
                    return
                loop.call_soon_threadsafe(self._heard, message)

    def _heard(self, message: Any) -> None:
        if not self._closed:
            self._hear(message)

    def _ended(self) -> None:
        if not self._closed:
            self.close()
            self._lost()

    def tell(self, command: Any) -> None:
        with suppress(OSError):  # it is lost, of which `lost` tells
            self._pipe.send(command)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._closed = True
        threading.Thread(target=interruption.end, args=([self._process],)).start()


class Turns:
    """Who may run: so many at once, and the others in the order in which they asked.

    Args:
        most: runs at once.
    """

    def __init__(self, most: int):
        self.most = most
        self._running: set[Any] = set()
        self._waiting: deque[tuple[Any, Callable[[], None]]] = deque()

    @property
    def running(self) -> int:
        return len(self._running)

    def ask(self, who: Any, begin: Callable[[], None]) -> bool:
        """Have `begin` called when it is one's turn; gives whether that is now."""
        self._waiting.append((who, begin))
        self._next()
        return who in self._running

    def end(self, who: Any) -> None:
        """One's turn is over, or not wanted any more."""
        self._running.discard(who)
        self._waiting = deque((other, begin) for other, begin in self._waiting if other != who)
        self._next()

    def _next(self) -> None:
        while self._waiting and len(self._running) < self.most:
            who, begin = self._waiting.popleft()
            self._running.add(who)
            begin()
