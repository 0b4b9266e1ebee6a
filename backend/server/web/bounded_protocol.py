# SPDX-License-Identifier: GPL-3.0-or-later
"""uvicorn's HTTP protocol with limits on connections, in all and of one address, and on how long a client may stall.

uvicorn itself waits for ever for the first request of a connection and for a client that does not read, and counts
connections only with a request.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 400
OF_ONE_ADDRESS = 250
FIRST_REQUEST_S = 10.0  # from the connection on
STALLED_S = 30.0  # without reading what was sent
SENTENCE = b"this server's page has too many connections; try again in a minute\n"
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    + f"content-length: {len(SENTENCE)}\r\n\r\n".encode()
    + SENTENCE
)


class BoundedProtocol(H11Protocol):
    """One connection."""

    _first: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it with one sentence."""
        super().connection_made(transport)
        # So that a few unread bytes call pause_writing; with 0 asyncio's TLS pauses even when there are none.
        transport.set_write_buffer_limits(high=1, low=0)
        address = _address(self)
        same = sum(_address(other) == address for other in self.connections)
        if len(self.connections) > MOST_CONNECTIONS or same > OF_ONE_ADDRESS:
            transport.write(BUSY)
            transport.close()
            return
        self._first = self.loop.call_later(FIRST_REQUEST_S, self._check_first)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        for timer in (self._first, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read what was sent."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read everything."""
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def _check_first(self) -> None:
        if getattr(self, "cycle", None) is None:  # uvicorn's types say that it is never None
            self.transport.close()


def _address(connection: asyncio.Protocol) -> str:
    """The other side's address; "" when it went away at once."""
    client = getattr(connection, "client", None)
    return "" if client is None else str(client[0])
