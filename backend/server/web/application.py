# SPDX-License-Identifier: GPL-3.0-or-later
"""The ASGI application: the page's files, and its requests as calls to the server, which decides about every one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dreamwright.shared.errors import ProtocolError, RequestError
from dreamwright.shared.messages import GetCapabilities, GetPreview
from dreamwright.shared.operator_messages import DiskFreed

from .actions import action_request
from .channel import SignedIn, SignIn, SignOut
from .cookies import delete_cookie, secrets_of, set_cookie
from .event_stream import EventStream
from .feeds import Feeds
from .page_data import models_data
from .previews import preview_png
from .rate_limits import SIGN_INS, RateLimiter
from .request_guard import BODY_BYTES, RequestGuard
from .security_headers import SecurityHeaders

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
# The only files that are served.
FILES = {
    "/": ("index.html", "text/html"),
    "/sign-in": ("sign-in.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/rows.js": ("rows.js", "text/javascript"),
    "/requests.js": ("requests.js", "text/javascript"),
    "/sign-in.js": ("sign-in.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
# HTTP statuses of the protocol's error codes; a job of another user and no job at all are the same.
STATUSES = {
    "bad-message": 400,
    "bad-input": 400,
    "not-admitted": 401,
    "not-allowed": 403,
    "no-such-job": 404,
    "not-ready": 404,
    "not-now": 409,
    "too-many": 503,
    "queue-full": 503,
    "no-space": 507,
    "internal": 500,
}
MODELS_S = 60.0  # for which a list of models is good
PREVIEWS_KEPT = 200  # PNG files, about 50 kB each
BODY_TIMEOUT_S = 10.0  # for a request's body


class Pages:
    """The handlers of one web process."""

    def __init__(self, feeds: Feeds, is_tls: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._feeds, self._is_tls, self._clock = feeds, is_tls, clock
        self._sign_ins = RateLimiter(SIGN_INS, clock)
        self._models: tuple[float, list[dict[str, Any]]] | None = None
        self._previews: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()  # by cookie, job and step
        self._files = {path: (STATIC / name).read_bytes() for path, (name, _) in FILES.items()}

    async def file(self, request: Request) -> Response:
        """A file of the page, which holds no data."""
        return Response(self._files[request.url.path], media_type=FILES[request.url.path][1])

    async def sign_in(self, request: Request) -> Response:
        """Use a one-time link: the cookie goes to the browser, the key to the page."""
        if not self._sign_ins.allows(request.client.host if request.client else ""):
            raise HTTPException(429, "too many sign-ins from your address; wait a minute")
        body = await _json_body(request)
        signed_in: SignedIn = await self._ask(SignIn(str(body.get("link", ""))), "", "")
        response = JSONResponse({"key": signed_in.key})
        set_cookie(response, signed_in.cookie, self._is_tls)
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        await self._ask(SignOut(), *secrets_of(request, self._is_tls))
        response = JSONResponse({})
        delete_cookie(response, self._is_tls)
        return response

    async def events(self, request: Request) -> ASGIApp:
        """The stream of what changes."""
        feed, stream = await self._feeds.open(*secrets_of(request, self._is_tls))
        return EventStream(self._feeds, feed, stream)

    async def models(self, request: Request) -> Response:
        """The models of the server, the same for everybody who is signed in."""
        secrets = secrets_of(request, self._is_tls)
        if self._models is None or self._clock() > self._models[0] + MODELS_S:
            self._models = self._clock(), models_data(await self._ask(GetCapabilities(), *secrets))
        else:
            await self._feeds.check_session(*secrets)
        return JSONResponse({"models": self._models[1]})

    async def preview(self, request: Request) -> Response:
        """A job's newest preview. `step` only names the version, so that the page asks once for each."""
        cookie, key = secrets_of(request, self._is_tls)
        job = request.path_params["job"]
        name = (cookie, job, request.query_params.get("step", "")[:20])
        await self._feeds.check_session(cookie, key)
        data = self._previews.get(name)
        if data is None:
            reply = await self._ask(GetPreview(job), cookie, key)
            try:
                data = await asyncio.to_thread(preview_png, reply.frame)
            except ProtocolError as error:
                raise HTTPException(500, str(error)) from error
            self._previews[name] = data
            if len(self._previews) > PREVIEWS_KEPT:
                self._previews.popitem(last=False)
        return Response(data, media_type="image/png")

    async def act(self, request: Request) -> Response:
        """Do something to a job, a device or the disk."""
        secrets = secrets_of(request, self._is_tls)
        body = await _json_body(request)
        try:
            message = action_request(body)
        except ProtocolError as error:
            raise RequestError("bad-input", str(error)) from error
        reply = await self._ask(message, *secrets)
        return JSONResponse(dataclasses.asdict(reply) if isinstance(reply, DiskFreed) else {})

    async def _ask(self, message: Any, cookie: str, key: str) -> Any:
        return await self._feeds.ask(message, cookie, key)


async def _json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises HTTPException."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                data += piece
                if len(data) > BODY_BYTES:
                    raise HTTPException(413, f"the body has more than {BODY_BYTES} bytes")
        body = json.loads(data)
    except TimeoutError as error:
        raise HTTPException(408, "the body did not arrive in time") from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is no JSON") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "the body is no JSON object")
    return body


def build_application(
    feeds: Feeds,
    names: tuple[str, ...],
    is_tls: bool,
    clock: Callable[[], float] = time.monotonic,
) -> ASGIApp:
    """The application for browsers that reach this server under `names`."""
    pages = Pages(feeds, is_tls, clock)
    routes = [Route(path, pages.file, methods=["GET"]) for path in FILES]
    routes += [
        Route("/api/sign-in", pages.sign_in, methods=["POST"]),
        Route("/api/sign-out", pages.sign_out, methods=["POST"]),
        Route("/api/events", _streamed(pages.events), methods=["GET"]),
        Route("/api/models", pages.models, methods=["GET"]),
        Route("/api/preview/{job}", pages.preview, methods=["GET"]),
        Route("/api/act", pages.act, methods=["POST"]),
    ]
    application = Starlette(
        routes=routes,
        exception_handlers={RequestError: _refused, HTTPException: _http_error, Exception: _failed},
    )
    application.router.redirect_slashes = False
    # Around Starlette and not as its middleware, whose own answer to an exception would have no such headers.
    return SecurityHeaders(RequestGuard(application, names, "https" if is_tls else "http", clock))


def _streamed(handler: Callable[[Request], Awaitable[ASGIApp]]) -> Callable[[Request], Awaitable[Any]]:
    """Starlette takes any ASGI application that a handler returns; its types want a Response."""
    return handler


async def _refused(request: Request, error: Exception) -> Response:
    code, message = (error.code, error.message) if isinstance(error, RequestError) else ("internal", "")
    return JSONResponse({"code": code, "message": message}, STATUSES.get(code, 500))


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = "there is no such page" if status == 404 else str(getattr(error, "detail", ""))
    return JSONResponse({"code": "refused", "message": message}, status)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"code": "internal", "message": "the page failed on this request; see web.log"}, 500)
