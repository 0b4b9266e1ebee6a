# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream of server-sent events to one page. `BoundedProtocol` ends it when the page does not read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from .feeds import Feed, Feeds, Stream

PACE_S = 0.25  # at least, between two messages to a page
KEEP_ALIVE_S = 10.0  # without a change, after which a comment shows that the connection lives


class EventStream:
    """An ASGI response. `ended` is sent last, with the reason, when the session ends."""

    def __init__(self, feeds: Feeds, feed: Feed, stream: Stream) -> None:
        self._feeds, self._feed, self._stream = feeds, feed, stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the page is closed or may not see more."""
        sending = asyncio.ensure_future(self._send_all(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._feeds.close(self._feed, self._stream)
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        stream = self._stream
        while not stream.ended:
            try:
                await asyncio.wait_for(stream.changed.wait(), KEEP_ALIVE_S)
            except TimeoutError:
                await send(_body(b":\n\n"))
                continue
            found = stream.take()
            if found:
                await send(_body(b"".join(event_bytes(kind, data) for kind, data in found)))
                await asyncio.sleep(PACE_S)
        await send(_body(event_bytes("ended", {"text": stream.ended}), more=False))


def _body(data: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event_bytes(kind: str, data: dict[str, Any]) -> bytes:
    """One server-sent event. JSON has no raw line breaks."""
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
