# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses requests before anything reads them: of other sites, under foreign names, too many, or too large."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .rate_limits import REQUESTS, RateLimiter

BODY_BYTES = 4096
METHODS = ("GET", "HEAD", "POST")


class RequestGuard:
    """ASGI middleware. `names`: the hosts that a browser may give, without the port; `scheme`: http or https."""

    def __init__(
        self, app: ASGIApp, names: tuple[str, ...], scheme: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._names, self._scheme = app, names, scheme
        self._limiter = RateLimiter(REQUESTS, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return  # no WebSockets
        headers = Headers(scope=scope)
        client = scope.get("client") or ("", 0)
        if not self._limiter.allows(str(client[0])):
            status, reason = 429, "too many requests; wait a few seconds"
        else:
            status, reason = check_request(scope["method"], scope["path"], headers, self._names, self._scheme)
        if status:
            await JSONResponse({"code": "refused", "message": reason}, status)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def check_request(
    method: str, path: str, headers: Mapping[str, str], names: tuple[str, ...], scheme: str
) -> tuple[int, str]:
    """(status, sentence) of the refusal; (0, "") for a request that may be handled."""
    host = headers.get("host", "").lower()
    if host_name(host) not in names:
        # A foreign name that leads here: DNS rebinding makes a browser treat this server as a part of that site.
        return 421, f"this server is not reached under that name; use {names[0]}"
    if method not in METHODS:
        return 405, f"allowed are {', '.join(METHODS)}"
    if not path.startswith("/api/"):
        return 0, ""
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin", "" if method == "POST" else f"{scheme}://{host}")
    if site != "same-origin" or origin != f"{scheme}://{host}":
        return 403, "only the page of this server may send this; open it and try again there"
    if method == "POST":
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "the body must be application/json"
        length = headers.get("content-length", "")
        if not length.isdecimal() or len(length) > 10 or int(length) > BODY_BYTES:
            return 413, f"the body must state its length, at most {BODY_BYTES} bytes"
    return 0, ""


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdecimal() else host
