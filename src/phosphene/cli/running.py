"""A command from its words to its exit status, and what becomes of an output that cannot be written."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console

from phosphene.cli import cards, looking, statuses
from phosphene.cli.parser import make_parser
from phosphene.errors import InputError

# What these print is all that they do: who closes the pipe has read enough.
_LISTINGS = (looking.list_networks, looking.list_layers, looking.list_recipes, cards.show)


def run(arguments: Sequence[str] | None) -> int:
    """Run a command; gives its exit status."""
    with _outlasting() as output:
        try:
            args = make_parser().parse_args(arguments)
        except SystemExit as ended:  # after --help, or words that it does not take
            output.flush()
            raise SystemExit(ended.code or (statuses.NOT_WRITTEN if output.failed else 0)) from None
        output.is_all = args.run in _LISTINGS
        width = None if output.isatty() else 160
        console = Console(quiet=args.quiet or args.json, highlight=False, width=width)
        try:
            status: int = args.run(args, console)
        except InputError as error:
            print(f"phosphene: {error}", file=sys.stderr)
            status = statuses.INPUT_ERROR
        output.flush()
        return status or (statuses.NOT_WRITTEN if output.failed else 0)


class _Output(io.TextIOBase):
    """Standard output or error that a command outlasts: what cannot be written any more is said once, then dropped.

    Attributes:
        is_all: whether nothing but this output is made.
        failed: whether words are lost, other than by a reader who had enough.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.is_all = True
        self.failed = False
        self._lost = stream is None  # closed before the program began

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

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

    def __getattr__(self, name: str) -> Any:  # encoding, errors, buffer, …
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
