# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending a mesh: a few pieces ahead, going on with what the server has, and never sending what it has already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from . import limits
from .client import Client
from .connection_state import ConnectionState
from .errors import RequestError, RequestTimeout
from .uploads import UploadChunk, UploadProgress

STALLS = 5  # times that the server has no more than at the beginning of the last try, until it is given up


class MeshUpload:
    """Sends one file. `on_end` gets its SHA-256 once the server has and took all of it, or a `RequestError`."""

    def __init__(
        self, client: Client, data: bytes, on_end: Callable[[Any], None], on_progress: Callable[[], None] = lambda: None
    ) -> None:
        self.client, self.data, self.sha256 = client, data, hashlib.sha256(data).hexdigest()
        self._on_end, self._on_progress = on_end, on_progress
        self._next = self._there = self._in_flight = 0
        self._most, self._stalls = -1, 0  # the most that was ever there, and tries since in which it was not more
        self._waits = False  # nobody answered: what is there must be asked for anew
        self._goes_back = False  # the server lacks what comes before a piece that was sent
        self.ended = False

    @property
    def share(self) -> float:
        """How much the server has, 0 to 1."""
        return self._there / max(1, len(self.data))

    def start(self) -> MeshUpload:
        """Ask what the server has of it. Too large a file is refused before anything is sent."""
        if not 0 < len(self.data) <= limits.UPLOAD_BYTES:
            self._end(
                RequestError(
                    "bad-input",
                    f"the mesh has {len(self.data) / 1e6:.1f} MB; allowed are {limits.UPLOAD_BYTES / 1e6:.1f}; decimate it first",
                )
            )
        else:
            self._ask()
        return self

    def resume(self) -> None:
        """Go on when nobody answered; call it when the connection is back."""
        if self._waits and not self.ended and not self._in_flight:
            self._ask()

    def cancel(self) -> None:
        """Send no more."""
        self.ended = True

    def _ask(self) -> None:
        self._waits = self._goes_back = False
        self._send(self._there, b"")

    def _send(self, offset: int, data: bytes) -> None:
        self._in_flight += 1
        self._next = offset + len(data)
        self.client.request(
            UploadChunk(self.sha256, len(self.data), offset, data),
            lambda reply, end=offset + len(data): self._answered(end, reply),
        )

    def _answered(self, end: int, reply: Any) -> None:
        self._in_flight -= 1
        if self.ended:
            return
        if isinstance(reply, RequestTimeout):
            self._waits = True
        elif isinstance(reply, RequestError) and reply.code == "not-ready":
            self._there, self._goes_back = 0, True  # it arrived damaged, and the server has thrown it away
        elif not isinstance(reply, UploadProgress) or reply.offset > len(self.data):
            self._end(
                reply
                if isinstance(reply, RequestError)
                else RequestError("internal", "the server gave an answer that does not fit")
            )
            return
        else:
            self._there = reply.offset
            self._goes_back |= reply.offset < end
            self._next = max(self._next, reply.offset)
            self._on_progress()
        if self._there == len(self.data):
            self._end(self.sha256)
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Send the next pieces, unless what was sent is not where it should be; then wait for its answers and ask anew."""
        if self._waits or self._goes_back:
            if self._in_flight:
                return
            if self._waits and self.client.state is not ConnectionState.ONLINE:
                return  # until `resume`
            if not self._makes_headway():
                return
            self._waits = self._goes_back = False
            self._next = self._there
        while self._in_flight < limits.UPLOAD_PIECES_IN_FLIGHT and self._next < len(self.data) and not self.ended:
            self._send(self._next, self.data[self._next : self._next + limits.UPLOAD_PIECE_BYTES])

    def _makes_headway(self) -> bool:
        self._stalls = 0 if self._there > self._most else self._stalls + 1
        self._most = max(self._most, self._there)
        if self._stalls > STALLS:
            self._end(
                RequestError(
                    "not-ready",
                    f"the server does not keep what it is sent of the mesh; it has {self._there} of {len(self.data)} bytes; try again later",
                )
            )
        return not self.ended

    def _end(self, result: Any) -> None:
        self.ended = True
        self._on_end(result)
