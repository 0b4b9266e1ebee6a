# SPDX-License-Identifier: GPL-3.0-or-later
"""Files over the wire in chunks, several in flight, resumed after a lost connection and checked by SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from . import limits
from .client import Client
from .connection_state import ConnectionState
from .errors import RequestError, RequestTimeout
from .messages import Chunk, FetchChunk, UploadChunk, UploadProgress

MAX_STALLS = 5  # retries in a row after which the server still has no more of the file


class Download:
    """Fetches one of a job's files into memory. `on_end` is called with the bytes, or with a `RequestError`."""

    def __init__(self, client: Client, job: str, item: str, size: int, on_end: Callable[[Any], None]) -> None:
        self.client, self.job, self.item, self.size = client, job, item, size
        self._on_end = on_end
        self._chunks: dict[int, bytes] = {}  # by offset
        self._next = self._in_flight = self._received = 0
        self._sha256 = ""
        self._digest, self._hashed = hashlib.sha256(), 0  # updated chunk by chunk: at once, it would block Blender
        self._timed_out: list[int] = []  # offsets of chunks whose requests timed out
        self.ended = False

    @property
    def share(self) -> float:
        """Fraction received, 0 to 1."""
        return self._received / max(1, self.size)

    def start(self) -> Download:
        """Request the first chunks."""
        if not 0 < self.size <= limits.FILE_BYTES:
            self._end(RequestError("not-ready", f"job {self.job} has no {self.item} yet"))
        self._request_chunks()
        return self

    def resume(self) -> None:
        """Repeat requests that timed out; call it when the connection is back."""
        self._request_chunks()

    def cancel(self) -> None:
        """Stop; `on_end` is not called."""
        self.ended = True

    def _request_chunks(self) -> None:
        while not self.ended and self._in_flight < limits.CHUNKS_IN_FLIGHT:
            if self._timed_out:
                offset = self._timed_out.pop()
            elif self._next < self.size:
                offset, self._next = self._next, min(self.size, self._next + limits.CHUNK_BYTES)
            else:
                return
            self._in_flight += 1
            request = FetchChunk(self.job, self.item, offset, min(limits.CHUNK_BYTES, self.size - offset))
            self.client.request(request, self._receiver(offset))

    def _receiver(self, offset: int) -> Callable[[Any], None]:
        return lambda reply: self._on_reply(offset, reply)

    def _on_reply(self, offset: int, reply: Any) -> None:
        self._in_flight -= 1
        if self.ended:
            return
        if isinstance(reply, RequestTimeout):
            self._timed_out.append(offset)  # chunks received so far are kept until `resume`
            return
        if not isinstance(reply, Chunk):
            self._end(
                reply
                if isinstance(reply, RequestError)
                else RequestError("internal", f"the server sent {type(reply).__name__} instead of a file chunk")
            )
            return
        expected = min(limits.CHUNK_BYTES, self.size - offset)
        matches = reply.offset == offset and len(reply.data) == expected and reply.size == self.size
        if not matches or self._sha256 not in ("", reply.sha256):
            self._end(
                RequestError("not-now", f"the {self.item} of job {self.job} changed during the download; try again")
            )
            return
        self._store(offset, reply)
        if self._received == self.size:
            self._finish()
        else:
            self._request_chunks()

    def _store(self, offset: int, chunk: Chunk) -> None:
        self._sha256 = chunk.sha256
        if offset not in self._chunks:
            self._received += len(chunk.data)
        self._chunks[offset] = chunk.data
        while self._hashed in self._chunks:
            self._digest.update(self._chunks[self._hashed])
            self._hashed += len(self._chunks[self._hashed])

    def _finish(self) -> None:
        if self._digest.hexdigest() == self._sha256:
            self._end(b"".join(self._chunks[offset] for offset in sorted(self._chunks)))
        else:
            self._end(RequestError("internal", f"the {self.item} of job {self.job} arrived damaged; try again"))

    def _end(self, result: Any) -> None:
        self.ended = True
        self._on_end(result)


class MeshUpload:
    """Sends one mesh file; what the server already has is not sent again.

    `on_end` is called with the file's SHA-256 once the server has the whole file, or with a `RequestError`;
    `on_progress` whenever the server confirms more of it.
    """

    def __init__(
        self, client: Client, data: bytes, on_end: Callable[[Any], None], on_progress: Callable[[], None] = lambda: None
    ) -> None:
        self.client, self.data, self.sha256 = client, data, hashlib.sha256(data).hexdigest()
        self._on_end, self._on_progress = on_end, on_progress
        self._next = self._confirmed = self._in_flight = 0
        self._most_confirmed, self._stalls = -1, 0  # largest confirmed size, and retries since that did not exceed it
        self._timed_out = False  # ask the server for its size before sending more
        self._must_rewind = False  # the server lacks bytes before a chunk that was sent
        self.ended = False

    @property
    def share(self) -> float:
        """Fraction that the server has confirmed, 0 to 1."""
        return self._confirmed / max(1, len(self.data))

    def start(self) -> MeshUpload:
        """Ask how much the server already has. A file that is too large is refused before anything is sent."""
        if not 0 < len(self.data) <= limits.UPLOAD_BYTES:
            self._end(
                RequestError(
                    "bad-input",
                    f"the mesh has {len(self.data) / 1e6:.1f} MB; at most {limits.UPLOAD_BYTES / 1e6:.1f} are allowed; "
                    "decimate it first",
                )
            )
        else:
            self._request_progress()
        return self

    def resume(self) -> None:
        """Continue after a time-out; call it when the connection is back."""
        if self._timed_out and not self.ended and not self._in_flight:
            self._request_progress()

    def cancel(self) -> None:
        """Stop; `on_end` is not called."""
        self.ended = True

    def _request_progress(self) -> None:
        self._timed_out = self._must_rewind = False
        self._send(self._confirmed, b"")

    def _send(self, offset: int, data: bytes) -> None:
        self._in_flight += 1
        self._next = end = offset + len(data)
        chunk = UploadChunk(self.sha256, len(self.data), offset, data)
        self.client.request(chunk, lambda reply: self._on_reply(end, reply))

    def _on_reply(self, end: int, reply: Any) -> None:
        self._in_flight -= 1
        if self.ended:
            return
        if isinstance(reply, RequestTimeout):
            self._timed_out = True
        elif isinstance(reply, RequestError) and reply.code == "not-ready":
            self._confirmed, self._must_rewind = 0, True  # the file arrived damaged, and the server has deleted it
        elif isinstance(reply, UploadProgress) and reply.offset <= len(self.data):
            self._confirmed = reply.offset
            self._must_rewind |= reply.offset < end
            self._next = max(self._next, reply.offset)
            self._on_progress()
        else:
            self._end(
                reply
                if isinstance(reply, RequestError)
                else RequestError(
                    "internal", f"the server sent {type(reply).__name__} instead of the upload's progress"
                )
            )
            return
        if self._confirmed == len(self.data):
            self._end(self.sha256)
        else:
            self._send_more()

    def _send_more(self) -> None:
        """Send the next chunks. After a time-out or a gap, first wait for all replies, then restart at the gap."""
        if self._timed_out or self._must_rewind:
            if self._in_flight:
                return
            if self._timed_out and self.client.state is not ConnectionState.ONLINE:
                return  # until `resume`
            if not self._count_retry():
                return
            self._timed_out = self._must_rewind = False
            self._next = self._confirmed
        while self._in_flight < limits.UPLOAD_PIECES_IN_FLIGHT and self._next < len(self.data) and not self.ended:
            self._send(self._next, self.data[self._next : self._next + limits.UPLOAD_PIECE_BYTES])

    def _count_retry(self) -> bool:
        """Count a retry; False, and the upload ends, after too many without progress."""
        self._stalls = 0 if self._confirmed > self._most_confirmed else self._stalls + 1
        self._most_confirmed = max(self._most_confirmed, self._confirmed)
        if self._stalls > MAX_STALLS:
            self._end(
                RequestError(
                    "not-ready",
                    f"the upload does not advance: the server has {self._confirmed} of {len(self.data)} bytes after "
                    f"{MAX_STALLS} retries; try again later",
                )
            )
        return not self.ended

    def _end(self, result: Any) -> None:
        self.ended = True
        self._on_end(result)
