# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest preview of each listed job, as a small picture: asked for when there is a newer one. Without bpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .preview_history import decode_frame
from .shared.errors import ProtocolError, RequestTimeout
from .shared.messages import GetPreview, JobSummary, PreviewFrame, PreviewReply

if TYPE_CHECKING:
    from .shared.client import Client

TILE_PIXELS = 96  # a side: that of a view in the server's previews
MAX_TILES = 64  # 27 kB each
IN_FLIGHT = 2  # requests at a time
INTERVAL_S = 1.0  # between two requests for the same job


@dataclass(frozen=True)
class Tile:
    """The first view of a preview after `step` steps: (TILE_PIXELS, TILE_PIXELS, 3) uint8, display sRGB, top first."""

    step: int
    pixels: np.ndarray


def tile_of(frame: PreviewFrame) -> Tile:
    """The square at the left of a preview, in which its first view is. Raises ProtocolError for a false size."""
    pixels = decode_frame(frame)
    side = min(pixels.shape[:2])
    nearest = (np.arange(TILE_PIXELS) * 2 + 1) * side // (2 * TILE_PIXELS)
    return Tile(frame.step, np.ascontiguousarray(pixels[:side, :side][nearest][:, nearest]))


class NewestPreviews:
    """Tiles by job. Call `request` and `decode_next` in each tick: each does a bounded amount of work."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.tiles: dict[str, Tile] = {}  # least recently updated first
        self._clock = clock
        self._in_flight: set[str] = set()
        self._asked_at: dict[str, float] = {}
        self._missing: dict[str, int] = {}  # step of the preview that the server no longer has, by job
        self._arrived: dict[str, PreviewFrame] = {}

    @property
    def is_busy(self) -> bool:
        """Whether pictures are on their way."""
        return bool(self._in_flight or self._arrived)

    def clear(self) -> None:
        """Forget everything: another server has other jobs."""
        self.tiles.clear()
        self._arrived.clear()
        self._missing.clear()
        self.disconnect()

    def disconnect(self) -> None:
        """No answer arrives any more."""
        self._in_flight.clear()
        self._asked_at.clear()

    def remove(self, job: str) -> None:
        """A job was deleted."""
        for by_job in (self.tiles, self._arrived, self._missing, self._asked_at):
            by_job.pop(job, None)

    def add(self, frame: PreviewFrame) -> None:
        """A preview arrived by itself, because its job is the selected one."""
        now = self._clock()
        if now - self._asked_at.get(frame.job, float("-inf")) >= INTERVAL_S:
            self._asked_at[frame.job] = now
            self._arrived[frame.job] = frame

    def request(self, client: Client, jobs: Mapping[str, JobSummary], wanted: Iterable[str]) -> None:
        """Ask for previews that are newer than the tiles, of the jobs in `wanted`, first those that come first."""
        now = self._clock()
        for name in wanted:
            if len(self._in_flight) >= IN_FLIGHT:
                return
            job = jobs.get(name)
            if job is None or name in self._in_flight or name in self._arrived or self._is_newest(job):
                continue
            if now - self._asked_at.get(name, float("-inf")) >= INTERVAL_S:
                self._asked_at[name] = now
                self._in_flight.add(name)
                client.request(GetPreview(name), self._on_reply(job))

    def _is_newest(self, job: JobSummary) -> bool:
        tile = self.tiles.get(job.job)
        known = (0, tile.step if tile else 0, self._missing.get(job.job, 0))
        return job.preview_step in known

    def _on_reply(self, job: JobSummary) -> Callable[[Any], None]:
        def on_reply(reply: Any) -> None:
            self._in_flight.discard(job.job)
            if isinstance(reply, PreviewReply) and reply.frame.job == job.job:
                self._arrived[job.job] = reply.frame
            elif not isinstance(reply, RequestTimeout):
                self._missing[job.job] = job.preview_step

        return on_reply

    def decode_next(self) -> str:
        """Turn one preview that has arrived into a tile; its job, "" when there is none."""
        while self._arrived:
            job = next(iter(self._arrived))
            frame = self._arrived.pop(job)
            try:
                tile = tile_of(frame)
            except ProtocolError:
                self._missing[job] = frame.step
                continue
            self.tiles.pop(job, None)
            self.tiles[job] = tile
            while len(self.tiles) > MAX_TILES:
                del self.tiles[next(iter(self.tiles))]
            return job
        return ""
