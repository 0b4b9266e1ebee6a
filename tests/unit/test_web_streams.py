# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages that read slowly, connections that say nothing, and floods of connections, at the web process's own sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

from starlette.responses import Response

from dreamwright.backend.server.web import bounded_protocol, event_stream
from dreamwright.backend.server.web.event_stream import EventStream
from dreamwright.backend.server.web.feeds import Feed, Stream
from dreamwright.backend.server.web.process import QuietServer, uvicorn_config

LIMIT_S = 120.0  # for any wait on a busy machine


def test_a_page_that_reads_slowly_skips_to_the_newest_state_of_each_job() -> None:
    stream = Stream("cookie", "key")
    for step in range(1000):
        for job in ("a", "b"):
            stream.put("job", job, {"job": job, "step": step})
    assert stream.take() == [("job", {"job": "a", "step": 999}), ("job", {"job": "b", "step": 999})]
    assert stream.take() == []


class Closed:
    """In place of all feeds: notes that a stream was closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def close(self, feed: Feed, stream: Stream) -> None:
        self.closed.set()


async def serve(
    application: Any, use: Callable[[tuple[str, int]], Awaitable[None]], tls: tuple[Path, Path] | None = None
) -> None:
    """Run `use` with the address of a server of this application, with the protocol of the web process."""
    listener = socket.create_server(("127.0.0.1", 0))
    certificate, key = (None, None) if tls is None else map(str, tls)
    config = uvicorn_config(application, {"certificate": certificate, "key": key})
    server = QuietServer(config)
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        await asyncio.wait_for(use(listener.getsockname()), LIMIT_S)
    finally:
        server.should_exit = True
        await serving


async def no_application(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing was asked")


def test_a_page_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_protocol, "STALLED_S", 0.2)
    monkeypatch.setattr(event_stream, "PACE_S", 0.0)

    async def scenario() -> None:
        feeds, stream = Closed(), Stream("cookie", "key")

        async def use(address: tuple[str, int]) -> None:
            _, writer = await asyncio.open_connection(*address, limit=1024)  # reads no more than this ahead
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while not feeds.closed.is_set():
                stream.put("job", "a", {"text": "x" * 1_000_000})
                await asyncio.sleep(0.01)
            writer.close()

        await serve(EventStream(feeds, Feed("watch"), stream), use)

    asyncio.run(scenario())


def test_a_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_protocol, "FIRST_REQUEST_S", 0.2)

    async def use(address: tuple[str, int]) -> None:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: "):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(said)
            assert await reader.read() == b""
            writer.close()

    asyncio.run(serve(no_application, use))


def test_connections_above_the_limit_get_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_protocol, "OF_ONE_ADDRESS", 3)

    async def use(address: tuple[str, int]) -> None:
        opened = [await asyncio.open_connection(*address) for _ in range(4)]
        answer = await opened[-1][0].read()
        assert answer.startswith(b"HTTP/1.1 503 ") and b"too many connections" in answer
        for _, writer in opened:
            writer.close()

    asyncio.run(serve(no_application, use))


def test_the_stream_ends_with_the_reason() -> None:
    async def scenario() -> None:
        feeds, stream = Closed(), Stream("cookie", "key")
        stream.end("your key was revoked")

        async def use(address: tuple[str, int]) -> None:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b'event: ended\ndata: {"text":"your key was revoked"}\n\n' in await reader.read()
            writer.close()
            await feeds.closed.wait()

        await serve(EventStream(feeds, Feed("watch"), stream), use)

    asyncio.run(scenario())


def test_large_answers_arrive_whole_with_and_without_tls(certificate: tuple[Path, Path]) -> None:
    body = b"x" * 3_000_000

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await Response(body)(scope, receive, send)

    for files in (None, certificate):
        context = None if files is None else ssl.create_default_context(cafile=str(files[0]))

        async def use(address: tuple[str, int], context: ssl.SSLContext | None = context) -> None:
            reader, writer = await asyncio.open_connection(*address, ssl=context)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\n" + body)
            writer.close()

        asyncio.run(serve(application, use, files))
