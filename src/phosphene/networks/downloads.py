"""Downloads of weights by the libraries that have them: shown as all long work is, and not by bars of their own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from tqdm import tqdm

from phosphene.default_progress import BYTES, Tally, counted

# Where the libraries look for the class of their bars.
_BARS = (
    ("torch.hub", "tqdm"),
    ("huggingface_hub.utils.tqdm", "tqdm"),
    ("huggingface_hub.utils._xet_progress_reporting", "tqdm"),
    ("huggingface_hub._snapshot_download", "hf_tqdm"),
)
_KERAS = ("keras.src.utils.file_utils", "Progbar")
_SAID = ('Downloading: "', "Downloading data from ")  # by torch and Keras, on standard output
_TRANSFER = "Downloading bytes"  # a second bar of the hub's, of the same bytes on their way
_SEVERAL = "Reconstructing"  # one of all files together


@contextmanager
def shown_downloads(name: str) -> Iterator[None]:
    """Whatever is downloaded in the block is counted in bytes, and shown under the file's name.

    Nothing is shown where nothing is downloaded.  What libraries print of downloads is left out.

    Args:
        name: of the file, or of the network where the library says what the file is called.
    """
    with counted(BYTES, doing=name) as tally:
        download = _Download(tally, name)
        _begin(download)
        try:
            yield
        finally:
            _end(download)


class _Download:
    """What is downloaded in one block.

    Attributes:
        bars: of all its files.
    """

    def __init__(self, tally: Tally, name: str):
        self.tally, self.name = tally, name
        self.bars: list[Any] = []

    def show(self, file: str) -> None:
        done, total = (sum(int(each or 0) for each in parts) for parts in zip(*map(_counts, self.bars), strict=True))
        self.tally.at(done, max(done, total), f"{file} of {self.name}" if file else self.name)


def _counts(bar: Any) -> tuple[float, float | None]:
    return bar.n, bar.total


_LOCK = threading.Lock()
_RUNNING: list[_Download] = []
_REPLACED: list[tuple[Any, str, Any]] = []


def _begin(download: _Download) -> None:
    with _LOCK:
        if not _RUNNING:
            _REPLACED.append((sys, "stdout", sys.stdout))
            sys.stdout = _WithoutDownloads(sys.stdout)
        _RUNNING.append(download)
        for place, stand_in in (*((bar, _Bar) for bar in _BARS), (_KERAS, _KerasBar)):
            module, name = place
            if module.partition(".")[0] not in sys.modules or any(each[:2] == place for each in _replaced()):
                continue
            with suppress(ImportError, AttributeError):  # of other versions, which then show bars of their own
                found = import_module(module)
                _REPLACED.append((found, name, getattr(found, name)))
                setattr(found, name, stand_in)


def _replaced() -> list[tuple[str, str]]:
    return [(module.__name__, name) for module, name, _ in _REPLACED]


def _end(download: _Download) -> None:
    with _LOCK:
        _RUNNING.remove(download)
        while _REPLACED and not _RUNNING:
            module, name, own = _REPLACED.pop()
            setattr(module, name, own)


class _Bar(tqdm):  # type: ignore[misc]
    """In the place of a library's bar: it draws nothing, and counts bytes on the download that runs."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.pop("name", None)  # of the hub's
        title = str(kwargs.get("desc") or "")
        self.file = "" if title.startswith(_SEVERAL) else title
        bytes_alone = kwargs.get("unit") == "B" and title != _TRANSFER
        self.download = _RUNNING[-1] if bytes_alone and _RUNNING else None
        super().__init__(*args, **kwargs | {"disable": True})
        self.n = kwargs.get("initial") or 0
        if self.download is not None:
            self.download.bars.append(self)

    def update(self, n: float | None = 1) -> None:
        self.n += n or 0
        if self.download is not None:
            self.download.show(self.file)

    def update_transfer(self, n: float | None = 1) -> None:
        """What is on its way, and not yet written, is not counted."""

    def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
        pass


class _KerasBar:
    """In the place of Keras's bar."""

    def __init__(self, target: int | None = None, **_: Any):
        self.target = self.total = target
        self.n = 0.0
        self.download = _RUNNING[-1] if _RUNNING else None
        if self.download is not None:
            self.download.bars.append(self)

    def update(self, current: float, *_: Any, **__: Any) -> None:
        self.n = current or 0
        if self.download is not None:
            self.download.show("")


class _WithoutDownloads:
    """Standard output without the lines in which libraries say that they download."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        if not text.startswith(_SAID):
            self.stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
