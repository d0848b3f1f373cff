"""The studio's door: only its own page, under its own name, is let in.

A page of another site that a browser shows may send requests to this machine, and may have its own name lead here (DNS
rebinding).  Both say so: in the headers Origin, Sec-Fetch-Site and Host, which no page can set.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_REFUSAL = b"403: this studio answers its own page on this machine alone\n"


class Guard:
    """An ASGI application that lets through to another what comes from its own page, and answers 403 to all else.

    Args:
        app: the other.
        port: at which it listens.
    """

    def __init__(self, app: App, port: int):
        self.app = app
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        if port == 80:
            self.hosts |= {"127.0.0.1", "localhost"}
        sockets = " ".join(f"ws://{host}" for host in sorted(self.hosts))
        self.headers = [
            (name.encode(), value.encode())
            for name, value in {
                # Vue makes functions of the page's templates, which counts as evaluating text.
                "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
                f"style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self' {sockets}; "
                "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                "cross-origin-opener-policy": "same-origin",
                "cross-origin-resource-policy": "same-origin",
                "referrer-policy": "no-referrer",
                "x-content-type-options": "nosniff",
                "x-frame-options": "DENY",
            }.items()
        ]

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif not self.lets_in(scope):
            await _refuse(scope, send)
        elif scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, self.sealed(send))

    def lets_in(self, scope: _Scope) -> bool:
        """Whether a request is of its own page: by its Host, its Origin, and where the browser says it comes from."""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1").strip().lower())
        hosts, origins = headers.get(b"host", []), headers.get(b"origin", [])
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return False
        if scope["type"] == "websocket" and not origins:  # which every browser gives
            return False
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return False
        # None where somebody typed the address.
        return all(site in ("same-origin", "none") for site in headers.get(b"sec-fetch-site", []))

    def sealed(self, send: _Send) -> _Send:
        """Answers with headers by which a browser shows the page in no other, and loads nothing from elsewhere."""

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self.headers]
            await send(message)

        return answer


async def _refuse(scope: _Scope, send: _Send) -> None:
    if scope["type"] == "websocket":  # closed before it was accepted: the server answers 403
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(_REFUSAL)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSAL})
