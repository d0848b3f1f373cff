"""`completion`: the script by which a shell completes phosphene's words."""

from __future__ import annotations

import argparse

from rich.console import Console

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help='eval "$(phosphene completion bash)" in ~/.bashrc turns it on')
    parser.set_defaults(quiet=False, json=False)


def run(args: argparse.Namespace, console: Console) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["phosphene"], use_defaults=False, shell=args.shell), end="", file=console.file)
    return 0
