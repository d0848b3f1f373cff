"""The studio's server: on this machine alone, behind the guard."""

from __future__ import annotations

import logging
import os
import signal
import socket
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phosphene import defaults, interruption
from phosphene.atlas.store import Store
from phosphene.devices.names import parse_devices
from phosphene.errors import InputError
from phosphene.extras import require
from phosphene.studio.bounds import Bounds
from phosphene.studio.guard import Guard
from phosphene.studio.messages import StudioConfig
from phosphene.studio.sessions import RunSlots

HOST = "127.0.0.1"
_RECONNECT = 10.0  # seconds in which a tab that lost its connection finds its page as it was


@dataclass(frozen=True)
class Limits:
    """How much a studio does at once.

    Attributes:
        runs: images that are made at once; further ones wait for their turn.
        tabs: pages, each at an address of its own, that may have a process at once.
        patience: seconds after which a page whose last tab was closed, or went away, is given up and its run ended.
        bounds: of each page's process; by default 0.8 of the machine's memory, and half an hour without a sign of life
            to open a network, five minutes for all else.
    """

    runs: int = 2
    tabs: int = 8
    patience: float = 300.0
    bounds: Bounds = field(default_factory=Bounds.of_this_machine)


def serve(
    folders: Sequence[str | Path] = (),
    *,
    atlas: str | Path | None = None,
    out: str | Path = "phosphene-out",
    device: str | None = None,
    port: int = defaults.STUDIO_PORT,
    limits: Limits | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the studio until Ctrl-C.

    Args:
        folders: whose files may be read; without any, networks are opened by name only.
        atlas: where units are kept, a directory or URL; made with the first if it is not there.
        out: the folder for all that is not kept in an atlas.
        device: "cpu", "cuda:0,cuda:1", …: the tabs' in turn; by default every GPU, or else the CPU.
        port: at which it listens; 0: any that is free.
        limits: of what it does at once.
        on_ready: called with the address.

    Raises:
        InputError: a folder, device or atlas that is not there, a port that is taken, or NiceGUI is not installed.
    """
    require("nicegui", "studio", "the studio")
    import uvicorn
    from fastapi import FastAPI
    from nicegui import ui

    from phosphene.studio.addresses import add_addresses
    from phosphene.studio.workspace import Studio

    limits = limits or Limits()
    config = _make_config(folders, atlas, out, limits.bounds)
    devices = [str(each) for each in parse_devices(device)]
    door = _listening(port)
    number = door.getsockname()[1]
    studio = Studio(config, devices, limits.bounds, RunSlots(limits.runs), limits.tabs, limits.patience)
    app = FastAPI(openapi_url=None)
    add_addresses(app, studio)
    logging.getLogger("nicegui").setLevel(logging.ERROR)
    # NiceGUI looks at every object there is for its server, and one of torch's warns of that.
    warnings.filterwarnings("ignore", ".*reduce_op", FutureWarning)
    looks: dict[str, Any] = {"dark": None, "tailwind": False, "language": "en-US"}
    ui.run_with(app, reconnect_timeout=min(_RECONNECT, limits.patience), show_welcome_message=False, **looks)
    server = uvicorn.Server(
        uvicorn.Config(Guard(app, number), log_level="error", server_header=False, timeout_graceful_shutdown=1)
    )
    if on_ready is not None:
        on_ready(f"http://{HOST}:{number}/")  # what is asked now waits for the server
    try:
        with interruption.handling(signal.default_int_handler), suppress(KeyboardInterrupt):  # the usual end
            server.run(sockets=[door])
    finally:
        studio.close()


def _make_config(
    folders: Sequence[str | Path], atlas: str | Path | None, out: str | Path, bounds: Bounds
) -> StudioConfig:
    """What the studio is started with, checked and made absolute."""
    for folder in folders:
        if not Path(folder).is_dir():
            raise InputError(f"folder {str(folder)!r}: there is no such folder")
    if atlas is not None:
        require("pyarrow.parquet", "atlas", "an atlas")
        store = Store(atlas)
        if store.has_plan():
            store.plan()
    absolute = tuple(str(Path(folder).resolve()) for folder in folders)
    return StudioConfig(absolute, None if atlas is None else str(atlas), str(out), memory=bounds.memory)


def _listening(port: int) -> socket.socket:
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it lets two listen at one port
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((HOST, port))
        door.listen()
    except (OSError, OverflowError) as error:
        door.close()
        raise InputError(f"port {port} of {HOST} cannot be had: {error}; expected another (--port N)") from error
    return door
