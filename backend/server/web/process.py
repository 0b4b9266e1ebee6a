# SPDX-License-Identifier: GPL-3.0-or-later
"""The web process: uvicorn on the socket that it inherits. It ends when the server closes its channel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from ..monitoring.logging_setup import inherit_log
from .application import build_application
from .bounded_protocol import BoundedProtocol
from .feeds import Feeds
from .server_link import ServerLink

log = logging.getLogger(__name__)

HEADER_BYTES = 16 * 1024  # of one request
KEEP_ALIVE_S = 20
BACKLOG = 128


class QuietServer(uvicorn.Server):
    """A server that leaves the signals alone: only the channel ends this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield


def main() -> int:
    """Read the request from stdin, and serve until the server ends."""
    request = json.loads(sys.stdin.readline())
    inherit_log()
    _raise_file_limit()
    try:
        asyncio.run(_serve(request))
    except KeyboardInterrupt:
        return 1
    return 0


async def _serve(request: dict[str, Any]) -> None:
    channel = socket.socket(fileno=request["channel"])
    listener = socket.socket(fileno=request["listener"])
    is_tls = request["certificate"] is not None
    feeds = Feeds()
    feeds.link = ServerLink(channel, feeds.on_event)
    server = QuietServer(uvicorn_config(build_application(feeds, tuple(request["names"]), is_tls), request))
    serving = asyncio.ensure_future(server.serve([listener]))
    checking = asyncio.ensure_future(feeds.check())
    reading = asyncio.ensure_future(feeds.link.run())
    await asyncio.wait((serving, checking, reading), return_when=asyncio.FIRST_COMPLETED)
    for task in (serving, checking, reading):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def uvicorn_config(app: Any, request: dict[str, Any]) -> uvicorn.Config:
    """HTTP/1.1 only, no proxy headers, no names of software, nothing logged but faults."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ssl_certfile=None if request["certificate"] is None else Path(request["certificate"]),
        ssl_keyfile=None if request["key"] is None else Path(request["key"]),
    )


def _raise_file_limit() -> None:
    """Each connection is an open file, and `BoundedProtocol` counts only those whose TLS handshake is complete."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
