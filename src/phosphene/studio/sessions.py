"""The server's side of the processes: one for each tab, and turns for what the tabs do."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

from phosphene.processes import WorkerProcess, kill
from phosphene.studio.bounds import Bounds, ending, memory_of
from phosphene.studio.messages import CommandsDone, OpenCommand, StudioConfig
from phosphene.studio.worker import work

_TICK = 0.25  # seconds between two looks at a process
_CHILDREN = 8  # looks at the process alone for each that counts its children too
_LAST_WORDS = 2.0  # seconds from being told to end, or from leaving its pipe, in which a process ends by itself


class Session:
    """A tab's process, which is ended when it oversteps its bounds.

    Args:
        config: what the studio was started with.
        bounds: of the process.
        hear: called, in the event loop that begins the session, with each message.
        lost: called there with the reason, in words, when the process has ended without being told to.
        target: what the process does; see `worker.work`.

    Attributes:
        process: the process.
        ended: set when it has ended.
    """

    def __init__(
        self,
        config: StudioConfig,
        bounds: Bounds,
        hear: Callable[[Any], None],
        lost: Callable[[str], None],
        target: Callable[[StudioConfig, Any], None] = work,
    ):
        worker = WorkerProcess(target, config)
        self._child, self._pipe = worker.process, worker.pipe
        self.process = psutil.Process(self._child.pid)
        self.ended = threading.Event()
        self._bounds, self._hear, self._lost = bounds, hear, lost
        self._closed: float | None = None  # when it was told to end
        self._opening = False
        self._told = self._done = 0  # commands
        self._sign = time.monotonic()  # of life, the last
        self._parted: float | None = None  # when it left its pipe
        loop = asyncio.get_running_loop()
        self._listener = threading.Thread(target=self._listen, args=(loop,), daemon=True)
        self._listener.start()
        threading.Thread(target=self._watch, args=(loop,), daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether it has not done yet all that it was told."""
        return self._done < self._told

    def tell(self, command: Any) -> None:
        self._told += 1
        self._opening = isinstance(command, OpenCommand)
        self._sign = time.monotonic()
        with suppress(OSError):  # it is lost, of which `lost` tells
            self._pipe.send(command)

    def close(self) -> None:
        """End the process and those that it began, whatever they do; it may clear away what it has half written."""
        if self._closed is None:
            self._closed = time.monotonic()
            with suppress(psutil.Error):
                self.process.send_signal(signal.SIGINT)  # at which its work ends after its step,
                self.process.terminate()  # and at this it itself, wherever it is (see `processes`)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the event loop has ended, and all with it
            while True:
                try:
                    message = self._pipe.recv()
                except Exception:  # it is gone, or what it sent is cut short
                    break
                self._sign = time.monotonic()
                if isinstance(message, CommandsDone):
                    self._done = message.commands
                else:
                    loop.call_soon_threadsafe(self._say, message)
            self._parted = time.monotonic()
            loop.call_soon_threadsafe(self._pipe.close)  # there, where it is written to

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        why, looks = "", 0
        while self._child.is_alive():  # which also takes leave of it, so that no zombie stays
            why = why or self._overstepped(with_children=looks % _CHILDREN == 0)
            if why or (self._closed is not None and time.monotonic() - self._closed > _LAST_WORDS):
                kill(self.process)
            looks += 1
            self._child.join(_TICK)
        kill(self.process)  # the children that it left, which may hold the pipe open
        self._listener.join(_LAST_WORDS)
        self.ended.set()
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._end, why or ending(self._child.exitcode))

    def _overstepped(self, with_children: bool) -> str:
        """How the process goes too far, in words; empty if it does not."""
        taken, limit = memory_of(self.process, with_children), self._bounds.memory
        if taken > limit:
            return f"it took {taken / 2**30:.1f} GiB of memory, and may take {limit / 2**30:.1f}"
        if self._parted is not None and time.monotonic() - self._parted > _LAST_WORDS:
            return "it left its pipe"
        patience = self._bounds.opening if self._opening else self._bounds.silence
        if self.busy and time.monotonic() - self._sign > patience:
            return f"it gave no sign of life for {patience:.0f} seconds"
        return ""

    def _say(self, message: Any) -> None:
        if self._closed is None:
            self._hear(message)

    def _end(self, why: str) -> None:
        self._child.close()
        if self._closed is None:
            self._closed = time.monotonic()
            self._lost(why)


class RunSlots:
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
        """Have `begin` called when it is one's turn; returns whether that is now."""
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
            try:
                begin()
            except BaseException:  # or nobody would ever get this turn again
                self._running.discard(who)
                raise
