"""The command line: one thin function per verb."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console

from phosphene.cli import statuses
from phosphene.cli.parser import make_parser
from phosphene.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    args = make_parser().parse_args(arguments)
    width = None if sys.stdout.isatty() else 160
    console = Console(quiet=args.quiet or args.json, highlight=False, width=width)
    try:
        status: int = args.run(args, console)
        sys.stdout.flush()
    except InputError as error:
        print(f"phosphene: {error}", file=sys.stderr)
        return statuses.INPUT_ERROR
    except KeyboardInterrupt:
        print("phosphene: interrupted", file=sys.stderr)
        return statuses.INTERRUPTED
    except BrokenPipeError:  # `phosphene layers | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
