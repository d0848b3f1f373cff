"""A command from its words to its exit status, and what becomes of an output that cannot be written.

Standard output is the command's own: verbs print to their console's file.  Whatever else is printed meanwhile, by the
code of a network or by a library, goes to standard error, also where it comes from C or from another process.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from rich.console import Console

from phosphene.cli import statuses
from phosphene.cli.parser import parse
from phosphene.default_progress import shown_by
from phosphene.errors import InputError
from phosphene.hardware import keep_freed_memory

# What these print is all that they do: who closes the pipe has read enough.
_LISTINGS = ("networks", "layers", "recipes", "show", "completion")


def run(arguments: Sequence[str] | None) -> int:
    """Run a command; returns its exit status."""
    with _outlasting() as output:
        try:
            args = parse(sys.argv[1:] if arguments is None else arguments)
        except SystemExit as ended:  # after --help, or words that it does not take
            output.flush()
            raise SystemExit(ended.code or (statuses.NOT_WRITTEN if output.failed else 0)) from None
        from phosphene.cli import printing  # --help and --version do without

        output.is_all = args.verb in _LISTINGS
        if not output.is_all:
            keep_freed_memory()
        width = None if output.isatty() else 160
        console = Console(file=cast("IO[str]", output), quiet=args.quiet or args.json, highlight=False, width=width)
        try:
            args.bars = printing.make_bars(args)
            with _others_to_errors(output), shown_by(printing.display(args)):
                status: int = args.run(args, console)
                _remember(args)
        except InputError as error:
            print(f"phosphene: {error}", file=sys.stderr)
            status = statuses.INPUT_ERROR
        output.flush()
        return status or (statuses.NOT_WRITTEN if output.failed else 0)


def _remember(args: argparse.Namespace) -> None:
    """Remember the names of the network that a verb has opened, for the next time that some are typed."""
    if (opened := getattr(args, "opened", None)) is not None:
        from phosphene.cli.known_networks import remember

        remember(*opened)


class _Output(io.TextIOBase):
    """Standard output or error that a command outlasts: what cannot be written any more is said once, then dropped.

    Letters that its encoding does not have are replaced.

    Attributes:
        stream: where it is written.
        is_all: whether nothing but this output is made.
        failed: whether words are lost, other than by a reader who had enough.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.is_all = True
        self.failed = False
        self._lost = stream is None  # closed before the program began

    def write(self, text: str) -> int:
        self._try("write", self._encodable(text))
        return len(text)

    def _encodable(self, text: str) -> str:
        encoding = self.encoding
        return text.encode(encoding, "replace").decode(encoding) if encoding else text

    @property
    def encoding(self) -> str | None:  # type: ignore[override]
        return getattr(self.stream, "encoding", None)

    def flush(self) -> None:
        self._try("flush")

    def _try(self, method: str, *arguments: Any) -> None:
        if self._lost:
            return
        try:
            getattr(self.stream, method)(*arguments)
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self._lost = True
        with suppress(OSError, ValueError):  # Python itself flushes it once more at the end
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        if self.stream is sys.__stderr__ or sys.stderr is self:
            return
        if not isinstance(error, BrokenPipeError):
            self.failed = True
            print(
                f"phosphene: standard output cannot be written: {error.strerror or error}", file=sys.stderr, flush=True
            )
        elif not self.is_all:
            print("phosphene: nobody reads standard output any more; the work goes on", file=sys.stderr, flush=True)

    def isatty(self) -> bool:
        return not self._lost and bool(self.stream.isatty())

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return int(self.stream.fileno())

    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:  # buffer, …
        return getattr(self.stream, name)


@contextmanager
def _outlasting() -> Iterator[_Output]:
    """Standard output, and standard error alike, as an `_Output` each."""
    before = sys.stdout, sys.stderr
    output, errors = _Output(before[0]), _Output(before[1])
    sys.stdout, sys.stderr = output, errors
    try:
        yield output
    finally:
        with suppress(ValueError):
            output.flush()
        sys.stdout, sys.stderr = before


_OUTPUT, _ERRORS = 1, 2  # the numbers by which C code and other processes know them


@contextmanager
def _others_to_errors(output: _Output) -> Iterator[None]:
    """Whatever is printed within goes to standard error, unless it is written to `output` itself."""
    before, stream = sys.stdout, output.stream
    sys.stdout = sys.stderr
    own = _own_copy(stream)
    if own is not None:
        output.stream = own
        _point_at_errors()
    try:
        yield
    finally:
        sys.stdout = before
        if own is not None:
            _flush_c()
            for printed in (stream, output):
                with suppress(OSError, ValueError):
                    printed.flush()
            os.dup2(own.fileno(), _OUTPUT)
            output.stream = stream
            with suppress(OSError):
                own.close()


def _own_copy(stream: Any) -> Any:
    """Standard output once more, under another number; None where it is no file, or closed."""
    try:
        if stream is None or stream.fileno() != _OUTPUT:
            return None
        stream.flush()
        return os.fdopen(os.dup(_OUTPUT), "w", buffering=1, encoding=stream.encoding, errors="replace")
    except (OSError, ValueError, AttributeError):
        return None


def _point_at_errors() -> None:
    """Standard output's number is standard error's from now on, or nothing's where that is closed."""
    where = os.open(os.devnull, os.O_WRONLY) if sys.__stderr__ is None else os.dup(_ERRORS)
    os.dup2(where, _OUTPUT)
    os.close(where)


def _flush_c() -> None:
    """Write what C code has printed, which C keeps back for a while."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)
