"""A page for each command, written from its parser before the pages are read."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from phosphene.cli.parser import ATLAS_VERBS, VERBS, verb_parser

FOLDER = Path("reference", "commands")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}


def write_pages(app: Sphinx) -> None:
    folder = Path(app.srcdir, FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    pages = {f"{verb.replace(' ', '-')}.rst": page(verb) for verb in all_verbs()}
    for file in folder.glob("*.rst"):
        if file.name not in pages:
            file.unlink()
    for name, text in pages.items():
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:  # unchanged, it is not read again
            file.write_text(text, encoding="utf-8")


def all_verbs() -> list[str]:
    return [*(verb for verb in VERBS if verb != "atlas"), *(f"atlas {verb}" for verb in ATLAS_VERBS)]


def page(verb: str) -> str:
    """The page of a command, as reStructuredText."""
    parser = verb_parser(verb)
    title = f"phosphene {verb}"
    usage = argparse.HelpFormatter(title, width=88)
    usage.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    lines = [title, "=" * len(title), "", sentence(parser.description or ""), "", ".. code-block:: text", ""]
    lines += [f"   {line}" for line in usage.format_help().strip().splitlines()]
    lines += ["", f".. program:: {title}", ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if actions:
            heading = (group.title or "").capitalize()
            lines += [heading, "-" * len(heading), ""]
            lines += [line for action in actions for line in option(action, usage)]
    return "\n".join(lines)


def option(action: argparse.Action, formatter: argparse.HelpFormatter) -> Iterator[str]:
    value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    if action.option_strings:
        spelled = ", ".join(f"{name} {value}".strip() for name in action.option_strings)
    else:
        spelled = formatter._format_args(action, formatter._get_default_metavar_for_positional(action))
    yield f".. option:: {spelled}"
    yield ""
    yield f"   {sentence(formatter._expand_help(action) if action.help else '')}"
    yield ""


def sentence(text: str) -> str:
    """A help text as a sentence in which nothing but its backticks is markup."""
    text = re.sub(r"([*|_\\])", r"\\\1", " ".join(text.split()))
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?')) or not text else '.'}"
