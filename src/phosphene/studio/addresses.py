"""The addresses of the studio: `/` begins a page, and `/s/TOKEN` shows it for as long as it lives."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from nicegui import ui

from phosphene.errors import printable
from phosphene.image_formats import any_format, format_of, formats
from phosphene.studio.messages import MAX_DROPPED_BYTES
from phosphene.studio.page import Page
from phosphene.studio.workspace import Studio

_GONE = 410  # HTTP's "Gone"
_LONGEST_NAME = 80  # characters of a file that was dropped


def add_addresses(app: FastAPI, studio: Studio) -> None:
    """Have an application answer for all workspaces of a studio."""
    gone = (resources.files("phosphene") / "studio" / "gone.html").read_text(encoding="utf-8")

    @app.get("/")
    async def begin() -> Response:
        return RedirectResponse(f"/s/{studio.begin().token}", 303, headers={"Cache-Control": "no-store"})

    @app.post("/s/{token}/photograph")
    async def receive(token: str, request: Request, name: str = "photograph") -> Response:
        workspace = studio.workspaces.get(token)
        if workspace is None or not workspace.views:
            return HTMLResponse(gone, _GONE)
        shown = printable(Path(name).name, _LONGEST_NAME)
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > MAX_DROPPED_BYTES:
                workspace.alert("stage", f"{shown} is too large: expected {MAX_DROPPED_BYTES:,} bytes at most")
                return Response(status_code=413)
        if format_of(bytes(data[:1024])) not in formats():
            workspace.alert("stage", f"{shown} is no image file that is opened here; expected {any_format()}")
            return Response(status_code=415)
        workspace.alert("stage", "")
        workspace.drop(shown, bytes(data))
        return Response(status_code=204)

    @ui.page("/s/{token}", title="phosphene studio")
    def show(token: str) -> Response | None:
        workspace = studio.workspaces.get(token)
        if workspace is None:
            return HTMLResponse(gone, _GONE, headers={"Cache-Control": "no-store"})
        Page(workspace)
        return None
