"""Who makes what: runs on one atlas share its units out by small files in the atlas itself.

    claims/GROUP-INDEX.GENERATION       names the run that makes a unit; GROUP is a digest of the group's name
    claims/RUN.run                      the run: written anew again and again while it is alive

A claim is created only where there is none of its name.  It counts for as long as its run is alive; then the next
generation of it may be created, which of several runs only one can.  So nobody waits for a lock, and nothing has to be
cleaned for others to go on.  A claim never stops an image from being made: at worst one is made twice, and kept once.

Clocks of several machines differ, so a run's age is told by the store's own times of its file and of one's own, or by
how long one has seen it unchanged oneself.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psutil

from phosphene import defaults
from phosphene.atlas.storage import map_threaded
from phosphene.atlas.store import Store
from phosphene.errors import InputError

LEASE = defaults.LEASE
"""Seconds without a sign of life after which a run's units are taken over."""
SHORTEST_LEASE, LONGEST_LEASE = 1.0, 600.0
_SIGNS = 4  # of life in a lease
REMEMBERED = 0.5  # seconds for which it is not asked again whether a run is alive
_SIGN_EVERY = 5.0  # seconds, in a folder of this machine, where a file is soon written
_MOST_WORK = 10**6  # images that a run has in work
_FOLDER = "claims"

Unit = tuple[str, int]
"""A group's name and an index."""


@dataclass(frozen=True)
class _Claimant:
    """A run, as its file says, which anyone may have written.

    Attributes:
        machine: what tells its machine from others, and `process` its id there and when it began.
        lease: seconds.
        sign: differs with every sign of life.
        work: how many images the steps of its pieces in work amount to, and of how many.
    """

    machine: str
    process: tuple[int, float]
    lease: float
    sign: str
    work: tuple[float, int] = (0.0, 0)

    @classmethod
    def of(cls, data: bytes) -> _Claimant:
        """What cannot be read counts as a run of another machine, of which only the signs of life are known."""
        with suppress(Exception):
            known = json.loads(data[:4096])
            process = int(known["process"][0]), float(known["process"][1])
            lease = min(LONGEST_LEASE, max(SHORTEST_LEASE, float(known["lease"])))
            return cls(str(known["machine"]), process, lease, str(known["sign"]), _work_of(known.get("work")))
        return cls("", (0, 0.0), LEASE, hashlib.sha256(data).hexdigest())


def _work_of(said: Any) -> tuple[float, int]:
    """How many images steps amount to, and of how many; none where a file says no such thing."""
    with suppress(TypeError, LookupError, ValueError, OverflowError):
        done, total = float(said[0]), min(max(0, int(said[1])), _MOST_WORK)
        return min(max(0.0, done), float(total)), total
    return 0.0, 0


class Claims:
    """The units that a run has claimed, while a `with` block lasts.

    Args:
        store: of the atlas.
        lease: seconds without a sign of life after which others take over.

    Raises:
        InputError: the lease is too short or too long, or nothing can be written.
    """

    def __init__(self, store: Store, lease: float = LEASE):
        if not SHORTEST_LEASE <= lease <= LONGEST_LEASE:
            raise InputError(f"a lease of {lease:g} seconds: expected {SHORTEST_LEASE:g} to {LONGEST_LEASE:g}")
        self.store, self.lease = store, lease
        self.name = uuid.uuid4().hex
        self.held: dict[Unit, list[str]] = {}  # the claim of each unit, behind those that it took over
        self._work = (0.0, 0)
        self._signs = 0
        self._shown: tuple[float, float] | None = None  # the last sign of life: by the store's clock, and by one's own
        self._seen: dict[str, tuple[str, float]] = {}  # of other runs: the last sign of life, and since when
        self._alive: dict[str, tuple[bool, float]] = {}  # of other runs: whether they were, and when that was found
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._stay_alive, name="claims", daemon=True)

    def __enter__(self) -> Claims:
        self.show_life()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(self.lease)
        self.release(list(self.held))
        with suppress(InputError, OSError):
            self._sweep()
        self._remove([f"{_FOLDER}/{self.name}.run"])
        if self.store.local:
            with suppress(OSError):  # others are at work
                os.rmdir(self.store.path(_FOLDER))

    def take(self, group: str, indices: Iterable[int]) -> list[int]:
        """Those of the units that are this run's now; the others are being made by other runs.

        Raises:
            InputError: nothing can be written.
        """
        indices = list(indices)
        there = self._listed()
        wanted = [(group, index) for index in indices if (group, index) not in self.held]
        names = map_threaded(lambda unit: self._taken(unit, there.get(_claim(unit), [])), wanted)
        self.held |= {unit: claims for unit, claims in zip(wanted, names, strict=True) if claims}
        return [index for index in indices if (group, index) in self.held]

    def unclaimed(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of the units that no living run has claimed."""
        there = self._listed()
        busy = map_threaded(lambda unit: self._is_busy(_claim(unit), there.get(_claim(unit), [])), units)
        return [unit for unit, taken in zip(units, busy, strict=True) if not taken]

    def release(self, units: Iterable[Unit]) -> None:
        """Give units back: they are made, or cannot be."""
        self._remove([name for unit in units for name in self.held.pop(unit, [])])

    def count(self) -> int:
        """How many units living runs have claimed."""
        self._shown = self._shown or (time.time(), time.monotonic())  # a run of one's own would know the store's clock
        return sum(map_threaded(lambda claim: self._is_busy(*claim), self._listed().items()))

    def note_work(self, work: tuple[float, int]) -> None:
        """Have others know with the next sign of life how far the pieces in work are.

        Args:
            work: how many images their steps amount to, and of how many.
        """
        self._work = work

    def work(self) -> tuple[float, int]:
        """How many images the steps amount to that living runs have in work, and of how many."""
        self._shown = self._shown or (time.time(), time.monotonic())
        done, total = 0.0, 0
        for run in filter(self._is_alive, self._runs()):
            with suppress(FileNotFoundError):  # it has just ended
                images, of = self._claimant(run).work
                done, total = done + images, total + of
        return done, total

    def _taken(self, unit: Unit, generations: Sequence[int]) -> list[str]:
        """The files of a claim, the oldest first, if it is this run's now; else none."""
        if self._is_busy(_claim(unit), generations):
            return []
        names = [claim_name(unit, each) for each in (*generations, max(generations, default=-1) + 1)]
        return names if self.store.create(names[-1], self.name.encode()) else []

    def _is_busy(self, claim: str, generations: Sequence[int]) -> bool:
        """Whether the latest generation of a claim is a living run's."""
        if not generations:
            return False
        try:
            run = self.store.read(f"{_FOLDER}/{claim}.{generations[-1]}").decode()
        except FileNotFoundError:
            return True  # it has just been given back: who wants the unit looks again
        except (OSError, ValueError):  # no file of a run's
            run = ""
        if not re.fullmatch("[0-9a-f]{32}", run):  # just being written, or no claim at all
            return self._is_fresh(claim, run, LEASE)
        return run == self.name or self._is_alive(run)

    def _is_alive(self, run: str) -> bool:
        """Whether a run is; of one that was just asked for, as it was then."""
        known, moment = self._alive.get(run, (False, -1.0))
        if moment < 0 or time.monotonic() - moment > REMEMBERED:
            known = self._shows_life(run)
            self._alive[run] = known, time.monotonic()
        return known

    def _shows_life(self, run: str) -> bool:
        name = f"{_FOLDER}/{run}.run"
        try:
            runner = self._claimant(run)
        except FileNotFoundError:
            return False
        if runner.machine == machine_digest() and _is_gone(*runner.process):
            return False
        written = self.store.modified(name)
        if written is not None and self._shown is not None:
            now = self._shown[0] + time.monotonic() - self._shown[1]
            if now - written > runner.lease:
                return False
        return self._is_fresh(run, runner.sign, runner.lease)

    def _claimant(self, run: str) -> _Claimant:
        """A run as its file says.

        Raises:
            FileNotFoundError: there is none.
        """
        try:
            return _Claimant.of(self.store.read(f"{_FOLDER}/{run}.run"))
        except FileNotFoundError:
            raise
        except (OSError, InputError):
            return _Claimant.of(b"")

    def _is_fresh(self, name: str, sign: str, lease: float) -> bool:
        """Whether the sign of life is another than it was a lease ago, as far as it has been watched."""
        now = time.monotonic()
        if self._seen.get(name, ("", 0.0))[0] != sign or name not in self._seen:
            self._seen[name] = sign, now
        return now - self._seen[name][1] <= lease

    # The files.

    def _listed(self) -> dict[str, list[int]]:
        """Of every claim its generations, in order."""
        claims: dict[str, list[int]] = {}
        for name in self.store.names(_FOLDER):
            if match := re.fullmatch(r"([0-9a-f]{16}-\d{1,10})\.(\d{1,9})", name):
                claims.setdefault(match[1], []).append(int(match[2]))
        return {claim: sorted(generations) for claim, generations in claims.items()}

    def _runs(self) -> list[str]:
        return [match[1] for name in self.store.names(_FOLDER) if (match := re.fullmatch("([0-9a-f]{32}).run", name))]

    def show_life(self) -> None:
        self._signs += 1
        name = f"{_FOLDER}/{self.name}.run"
        data: dict[str, Any] = {"machine": machine_digest(), "process": process_identity(), "lease": self.lease}
        data |= {"sign": self._signs, "work": (round(self._work[0], 3), self._work[1])}
        self.store.write(name, json.dumps(data).encode(), lasting=False)
        moment = time.monotonic()
        written = self.store.modified(name)
        self._shown = None if written is None else (written, moment)

    def _stay_alive(self) -> None:
        every = self.lease / _SIGNS
        while not self._ended.wait(min(every, _SIGN_EVERY) if self.store.local else every):
            with suppress(InputError, OSError):  # the next time, perhaps
                self.show_life()

    def _sweep(self) -> None:
        """Take away what runs have left that were killed."""
        stale = [claim for claim in self._listed().items() if not self._is_busy(*claim)]
        self._remove([f"{_FOLDER}/{claim}.{each}" for claim, generations in stale for each in generations])
        self._remove([f"{_FOLDER}/{run}.run" for run in self._runs() if run != self.name and not self._is_alive(run)])

    def _remove(self, names: Sequence[str]) -> None:
        def remove(name: str) -> None:
            with suppress(OSError, InputError):  # what stays counts no more when its run has ended
                self.store.remove_file(name)

        map_threaded(remove, names)


def _claim(unit: Unit) -> str:
    group, index = unit
    return f"{hashlib.sha256(group.encode()).hexdigest()[:16]}-{index}"


def claim_name(unit: Unit, generation: int) -> str:
    """The file of a generation of a unit's claim."""
    return f"{_FOLDER}/{_claim(unit)}.{generation}"


@lru_cache(1)
def machine_digest() -> str:
    """What tells this machine from others, and containers of one machine from each other."""
    parts = [platform.node(), str(uuid.getnode())]
    with suppress(OSError):
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def process_identity() -> tuple[int, float]:
    """This process's id, and when it began."""
    return os.getpid(), psutil.Process().create_time()


def _is_gone(process: int, began: float) -> bool:
    """Whether a process of this machine has ended; another one may have its id since."""
    try:
        same_id = psutil.Process(process)
        return bool(same_id.status() == psutil.STATUS_ZOMBIE or abs(same_id.create_time() - began) > 2)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError, OverflowError):
        return False
