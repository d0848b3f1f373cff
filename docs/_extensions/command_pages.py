"""A page for each command, written from its parser before the pages are read."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from phosphene.cli.parser import ATLAS_VERBS, VERBS, verb_parser
from phosphene.files import atomic_write

FOLDER = Path("reference", "commands")
HIDDEN = argparse.SUPPRESS
HEADINGS = {"positional arguments": "Arguments"}


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
            atomic_write(file, lambda path, text=text: path.write_text(text, encoding="utf-8"))


def all_verbs() -> list[str]:
    return [*(verb for verb in VERBS if verb != "atlas"), *(f"atlas {verb}" for verb in ATLAS_VERBS)]


def page(verb: str) -> str:
    """The page of a command, as reStructuredText."""
    parser = verb_parser(verb)
    title = f"phosphene {verb}"
    formatter = argparse.HelpFormatter(title)
    taken = [spelled(action, formatter) for action in parser._actions if not action.option_strings]
    lines = [title, "=" * len(title), "", sentence(parser.description or ""), "", ".. code-block:: text", ""]
    lines += [f"   {' '.join([title, *taken, '[options]'])}", "", f".. program:: {title}", ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help" and action.help != HIDDEN]
        if actions:
            heading = HEADINGS.get(group.title or "", (group.title or "").capitalize())
            lines += [heading, "-" * len(heading), ""]
            lines += [line for action in actions for line in described(action, formatter)]
    return "\n".join(lines)


def described(action: argparse.Action, formatter: argparse.HelpFormatter) -> Iterator[str]:
    yield f".. option:: {spelled(action, formatter)}"
    yield ""
    yield f"   {sentence(formatter._expand_help(action) if action.help else '')}"
    yield ""


def spelled(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    """An argument as it is typed: `PHOTOGRAPH`, `-o DIR, --out DIR`."""
    if not action.option_strings:
        return formatter._format_args(action, formatter._get_default_metavar_for_positional(action))
    value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    return ", ".join(f"{name} {value}".strip() if action.nargs != 0 else name for name in action.option_strings)


def sentence(text: str) -> str:
    """A help text as a sentence in which nothing but its backticks is markup."""
    text = re.sub(r"([*|_\\])", r"\\\1", " ".join(text.split()))
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?')) or not text else '.'}"
