"""How far long work is: counted where it is done, and shown without being asked.

Whatever takes long counts on a `Tally`.  By default that is a bar of tqdm's, on a terminal or in a notebook; the
command line puts its own in that place (`shown_by`), and `without_progress` puts nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from phosphene.interruption import raise_again

OnProgress = Callable[[float, int], object]
"""Is told how much is done, and of how much."""

ProgressOption = OnProgress | Literal[False] | None
"""Of a function that takes long: who is told how far it is; None: a bar; False: nothing and nobody."""

BYTES = "bytes"
"""What is counted of a download."""

IMAGES = "images"
"""What is counted of an ascent."""

TRIALS = "trials"
"""What is counted of a search."""


class Tally:
    """How far a piece of work is.

    Attributes:
        what: what is counted, such as "photographs".
        done, total: how much of how much.
        doing: what is being done, in words; of a download the file's name.
        ready: how many are finished, where part of others is done, too.
        is_shown: whether anybody sees it.
    """

    def __init__(self, what: str, total: int = 0, doing: str = ""):
        self.what, self.total, self.doing = what, total, doing
        self.done: float = 0
        self.ready: int | None = None
        self.is_shown = False
        self.show: Callable[[], object] = lambda: None

    def at(self, done: float, total: int, doing: str | None = None) -> None:
        """So much is done, of so much."""
        self.done, self.total = done, total
        self.doing = self.doing if doing is None else doing
        self.show()
        raise_again()

    def add(self, more: float = 1) -> None:
        """So much more is done."""
        self.at(self.done + more, self.total)

    def expect(self, more: int) -> None:
        """So much more is to be done; less, where it is below 0."""
        self.at(self.done, self.total + more)

    def say(self, doing: str) -> None:
        """That is done from now on."""
        self.at(self.done, self.total, doing)

    def text(self) -> str:
        """In words: how many of how many, and of what."""
        if self.what == BYTES:
            whole = f" of {self.total / 1e6:.1f}" if self.total else ""
            return f"{self.doing}  {self.done / 1e6:.1f}{whole} MB"
        if not self.total:
            return self.doing
        ready = int(self.done) if self.ready is None else self.ready
        return f"{ready} of {self.total} {self.what}" + (f", {self.doing}" if self.doing else "")


Display = Callable[[Tally], AbstractContextManager[Callable[[], object]]]
"""Shows a tally: within the block, whenever what it returns is called."""


@contextmanager
def counted(
    what: str, on_progress: ProgressOption = None, total: int = 0, *, doing: str = "", forced: bool = False
) -> Iterator[Tally]:
    """A tally of what is done in the block, as it is shown here.

    Args:
        what: is counted, such as "photographs".
        on_progress: who is told instead; then, and with False, nothing else within is shown either.
        total: how much there is to do, where that is known.
        doing: what is being done, in words.
        forced: shown also where output goes into a file.
    """
    tally = Tally(what, total, doing)
    if on_progress is not None:
        if on_progress is not False:
            tally.show = _changes(tally, on_progress)
        with without_progress():
            yield tally
        return
    display = _DISPLAY.get()
    if display is None:
        yield tally
        return
    with _with_tqdm(tally, forced) if display is _with_tqdm else display(tally) as shown:
        tally.show = shown
        yield tally


def _changes(tally: Tally, tell: OnProgress) -> Callable[[], None]:
    """Tells when the counts have changed, and not when the words have."""
    last: tuple[float, int] | None = None

    def show() -> None:
        nonlocal last
        if last != (tally.done, tally.total):
            last = tally.done, tally.total
            tell(*last)

    return show


@contextmanager
def shown_by(display: Display | None) -> Iterator[None]:
    """Within it tallies are shown so; None: not at all."""
    token = _DISPLAY.set(display)
    try:
        yield
    finally:
        _DISPLAY.reset(token)


def without_progress() -> AbstractContextManager[None]:
    """Within it nothing shows by default how far it is.

    Example:
        >>> import phosphene
        >>> with phosphene.without_progress():
        ...     network = phosphene.open("efficientnet_lite0")
    """
    return shown_by(None)


@contextmanager
def _with_tqdm(tally: Tally, forced: bool = False) -> Iterator[Callable[[], object]]:
    """A bar of tqdm's: on a terminal, and in a notebook; elsewhere only where that is forced."""
    from tqdm.auto import tqdm

    bars: list[Any] = []

    def show() -> None:
        if not bars:  # only now the total is known, which a notebook's bar has to have from the first
            bars.append(
                tqdm(
                    total=tally.total or None, disable=False if forced else None, leave=False,
                    postfix=tally.text(),
                    bar_format="{l_bar}{bar}{postfix} [{elapsed}<{remaining}]",
                )
            )  # fmt: skip
        (bar,) = bars
        tally.is_shown = not bar.disable
        bar.total = tally.total or None
        bar.set_postfix_str(tally.text(), refresh=False)
        bar.update(tally.done - bar.n)

    if tally.total:
        show()
    try:
        yield show
    finally:
        for bar in bars:
            bar.refresh()
            bar.close()


_DISPLAY: ContextVar[Display | None] = ContextVar("display", default=_with_tqdm)
