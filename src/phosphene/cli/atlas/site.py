"""`atlas site`: a page to browse an atlas."""

from __future__ import annotations

import argparse
import json
import shlex
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from phosphene.cli.options import add_atlas, add_device, add_printing, add_trust, judge_list
from phosphene.cli.printing import image_count
from phosphene.cli.signals import importing
from phosphene.errors import InputError, printable

if TYPE_CHECKING:
    from phosphene.atlas.site_settings import SiteSettings
    from phosphene.atlas.store import Store

_NEEDED = {"judges": "photographs", "match": "beside"}  # which option goes with which


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_atlas(parser)
    for name, metavar, help_text in (
        ("photographs", "DIR", "show which of these excite a unit most; 100 or more score images of hidden units"),
        ("judges", "A,B", "who score them, as `phosphene judge` takes them; or none"),
        ("beside", "DIR|URL", "another atlas to compare with; its images are copied"),
        ("match", "FILE", "pair the units of both by the compare.json of `phosphene compare`"),
        ("title", "TEXT", "of the atlas, for its readers and for who cites it"),
        ("url", "URL", "the address where the page will be, for previews of links to it"),
    ):
        parser.add_argument(f"--{name}", metavar=metavar, help=help_text)
        parser.add_argument(
            f"--no-{name}", action="store_const", const="", dest=name, help=f"without the --{name} of last time"
        )
    parser.add_argument(
        "--plain", action=argparse.BooleanOptionalAction, help="do not ask the network which units are alike"
    )
    parser.add_argument("--open", action="store_true", help="show the page in the browser at the end")
    add_device(parser, "where it is asked")
    add_trust(parser, "plan")
    add_printing(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    with importing():
        from phosphene.atlas.site import Beside, Publication, write_site
        from phosphene.atlas.site_settings import write_settings
        from phosphene.atlas.store import Store
        from phosphene.comparison.match_file import read_matches
        from phosphene.hardware import find_device

    store = Store(args.atlas)
    if args.open and not store.local:
        raise InputError(f"--open shows a page of this machine, and {args.atlas!r} is elsewhere: expected a directory")
    settings = _settings(args, console, store)
    match = read_matches(settings.match) if settings.match else None
    other = Store(settings.beside) if settings.beside else None
    network = None if settings.plain else store.plan().open(args.trust)
    beside = None
    if other is not None:
        beside = Beside(other, None if settings.plain else other.plan().open(args.trust), match)
    judges = None if not settings.judges else [] if settings.judges == "none" else judge_list(settings.judges)
    page = write_site(
        store, network=network, photographs=settings.photographs or None, judges=judges, beside=beside,
        publication=Publication(settings.title, settings.url), device=find_device(args.device),
    )  # fmt: skip
    write_settings(store, settings)
    if args.json:
        told = {"page": page.address, "scored": page.scored, "judges": page.judges, "unscored": page.unscored,
                "notes": page.notes}  # fmt: skip
        print(json.dumps(told | {"options": settings.options}), file=console.file)
    if page.judges:
        console.print(f"{image_count(page.scored)} of hidden units are scored by {', '.join(page.judges)}")
    elif page.unscored:
        console.print(f"no explanation scores: {escape(page.unscored)}", soft_wrap=True)
    for note in page.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(f"open {page.address}")
    if args.open:
        webbrowser.open(Path(page.address).resolve().as_uri())
    return 0


def _settings(args: argparse.Namespace, console: Console, store: Store) -> SiteSettings:
    """The options that are given, and of the others those of last time, which is said.

    Raises:
        InputError: two do not go together, or one is out of bounds.
    """
    from phosphene.atlas.site_settings import SETTINGS, make_settings

    given = {name: value for name in SETTINGS if (value := getattr(args, name)) is not None}
    if given.get("plain") and given.get("photographs"):
        raise InputError("--plain does not ask the network, which --photographs needs: expected one of them")
    last = _last(args, console, store)
    if given.get("photographs"):
        given.setdefault("plain", False)
    elif given.get("plain"):
        given.setdefault("photographs", "")
    for name, needed in _NEEDED.items():
        if given.get(needed) == "":
            given.setdefault(name, "")
    settings = make_settings(vars(last) | _absolute(given), "the page's options")
    if settings.judges and not settings.photographs:
        raise InputError("--judges are asked what photographs look like: expected --photographs too")
    if settings.match and not settings.beside:
        raise InputError("--match pairs units with those of another atlas: expected --beside too")
    kept = {name: value for name, value in settings.options.items() if name not in given}
    if kept:
        console.print(f"as last time: {_spelled(kept)}", markup=False, soft_wrap=True)
    return settings


def _last(args: argparse.Namespace, console: Console, store: Store) -> SiteSettings:
    """What the page was made with last; what only another user's settings name is left out, which is said."""
    from phosphene.atlas.site_settings import make_settings, read_settings

    last, written_here = read_settings(store)
    if written_here or args.trust or not last.followed:
        return last
    asked = {name: getattr(last, name) for name in last.followed}
    console.print(
        f"note: the page of {args.atlas} was made with {_spelled(asked)}, but not by you on this machine, so these are "
        "left out: give them yourself, or follow them with --trust",
        markup=False,
        soft_wrap=True,
    )
    return make_settings(vars(last) | dict.fromkeys(asked, ""), "the page's options")


def _absolute(given: dict[str, Any]) -> dict[str, Any]:
    """The options, with paths that hold in any working directory."""
    paths = {
        name: str(Path(given[name]).resolve())
        for name in ("photographs", "beside", "match")
        if given.get(name) and "://" not in given[name]
    }
    return given | paths


def _spelled(options: dict[str, Any]) -> str:
    words = [f"--{name}" if value is True else f"--{name} {shlex.quote(str(value))}" for name, value in options.items()]
    return printable(" ".join(words), 2000)
