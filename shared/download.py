# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching a job's file: a few pieces asked for ahead, going on where it stopped, checked by its SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from . import limits
from .client import Client
from .errors import RequestError, RequestTimeout
from .messages import Chunk, FetchChunk


class Download:
    """Fetches one file into memory. `on_end` gets the bytes, or a `RequestError`."""

    def __init__(self, client: Client, job: str, item: str, size: int, on_end: Callable[[Any], None]) -> None:
        self.client, self.job, self.item, self.size = client, job, item, size
        self._on_end = on_end
        self._pieces: dict[int, bytes] = {}
        self._next = self._in_flight = 0
        self._sha256 = ""
        self._digest, self._hashed = hashlib.sha256(), 0  # taken piece by piece: at the end it would hold Blender up
        self._missing: list[int] = []  # pieces that were asked for and not answered
        self.ended = False

    @property
    def share(self) -> float:
        """How much has arrived, 0 to 1."""
        return sum(len(piece) for piece in self._pieces.values()) / max(1, self.size)

    def start(self) -> Download:
        """Ask for the first pieces."""
        if not 0 < self.size <= limits.FILE_BYTES:
            self._end(RequestError("not-ready", f"job {self.job} has no {self.item} yet"))
        self._ask()
        return self

    def resume(self) -> None:
        """Ask again for what nobody answered; call it when the connection is back."""
        self._ask()

    def cancel(self) -> None:
        """Take in no more."""
        self.ended = True

    def _ask(self) -> None:
        while (
            not self.ended and self._in_flight < limits.CHUNKS_IN_FLIGHT and (self._missing or self._next < self.size)
        ):
            if self._missing:
                offset = self._missing.pop()
            else:
                offset, self._next = self._next, min(self.size, self._next + limits.CHUNK_BYTES)
            size = min(limits.CHUNK_BYTES, self.size - offset)
            self._in_flight += 1
            self.client.request(
                FetchChunk(self.job, self.item, offset, size), lambda reply, offset=offset: self._arrived(offset, reply)
            )

    def _arrived(self, offset: int, reply: Any) -> None:
        self._in_flight -= 1
        if self.ended:
            return
        if isinstance(reply, RequestTimeout):
            self._missing.append(offset)  # what has arrived is kept until `resume`
            return
        if not isinstance(reply, Chunk):
            self._end(
                reply if isinstance(reply, RequestError) else RequestError("internal", "the server sent no piece of the file")
            )
            return
        wanted = min(limits.CHUNK_BYTES, self.size - offset)
        right = reply.offset == offset and len(reply.data) == wanted
        if not right or reply.size != self.size or self._sha256 not in ("", reply.sha256):
            self._end(
                RequestError("not-now", f"the {self.item} of job {self.job} changed while it was fetched; fetch it again")
            )
            return
        self._sha256 = reply.sha256
        self._pieces[reply.offset] = reply.data
        while self._hashed in self._pieces:
            self._digest.update(self._pieces[self._hashed])
            self._hashed += len(self._pieces[self._hashed])
        if self.share >= 1:
            whole = b"".join(self._pieces[offset] for offset in sorted(self._pieces))
            fine = self._digest.hexdigest() == self._sha256
            self._end(
                whole
                if fine
                else RequestError("internal", f"the {self.item} of job {self.job} arrived damaged; fetch it again")
            )
        else:
            self._ask()

    def _end(self, result: Any) -> None:
        self.ended = True
        self._on_end(result)
