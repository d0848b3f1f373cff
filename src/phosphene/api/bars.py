"""How far an ascent is, shown by default: a bar on a terminal, and in a notebook also the picture as it forms."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from PIL import Image

from phosphene.ascent.progress import Progress, Step
from phosphene.ascent.request import Request
from phosphene.default_progress import IMAGES, Tally, counted
from phosphene.devices.callbacks import Callbacks
from phosphene.planes import to_pil
from phosphene.recipes.recipe import Recipe

_REFRESH = 0.7  # seconds between two states of the picture


@contextmanager
def shown_progress(request: Request, callbacks: Callbacks | None) -> Iterator[Callbacks]:
    """The callbacks, with a bar where they tell nobody of progress and `RunOptions.progress` does not forbid it.

    Without being asked it is shown on a terminal and in a notebook, and not where output goes into a file.
    """
    callbacks = callbacks or Callbacks()
    wanted = request.options.progress
    if callbacks.progress is not None:
        yield callbacks
        return
    with counted(IMAGES, False if wanted is False else None, request.count, forced=wanted is True) as tally:
        if not tally.is_shown:  # then nobody measures a step for nobody
            yield callbacks
            return
        update = notebook_display()
        watch = _PictureWatch(update) if update is not None and _may_be_watched(request, callbacks) else None
        try:
            yield replace(callbacks, progress=teller(tally), step=watch or callbacks.step)
        finally:
            if watch is not None:
                watch.end()


def teller(tally: Tally) -> Callable[[Progress], None]:
    """What counts an ascent's progress on a tally, in images."""

    def tell(progress: Progress) -> None:
        sure = "" if progress.probability is None else f", own probability {progress.probability:.0%}"
        tally.ready = progress.done
        tally.at(progress.work * progress.total, progress.total, f"objective {progress.objective:.4g}{sure}")

    return tell


def _may_be_watched(request: Request, callbacks: Callbacks) -> bool:
    return callbacks.step is None and request.facets == 1 and len(request.devices[: len(request.units)]) == 1


def notebook_display() -> Callable[[Any], None] | None:
    """What shows one thing in the place of the one before, in the notebook that this runs in; None where it is none."""
    try:
        from IPython.core.getipython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    handle = display({"text/plain": ""}, raw=True, display_id=True)

    def update(shown: Any) -> None:
        handle.update(shown, raw=isinstance(shown, dict))

    return update


class _PictureWatch:
    """Shows the first image that is on its way, now and then.  It changes nothing."""

    def __init__(self, update: Callable[[Any], None]):
        self.update, self.last = update, -math.inf

    def __call__(self, step: Step) -> Recipe:
        if time.monotonic() - self.last >= _REFRESH:
            self.last = time.monotonic()
            self.update(_opaque(to_pil(step.pixels())))
        return step.recipe

    def end(self) -> None:
        self.update({"text/plain": ""})


def _opaque(image: Image.Image) -> Image.Image:
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
