# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright serve` with simulated workers whose jobs never end and send a preview every half second.

python -m tests.testing.preview_stream_server serve --address … --state …
"""

from __future__ import annotations

import random
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

from dreamwright.backend.cli import main as command
from dreamwright.backend.server import app
from dreamwright.backend.server.workers.worker_protocol import PreviewReport, ProgressReport
from dreamwright.shared.messages import PreviewFrame
from tests.testing.scripted_worker_server import ScriptedRunner

INTERVAL_S = 0.5
SIDE = 128  # pixels of a preview: about 50 kB, since noise does not compress


class StreamingRunner(ScriptedRunner):
    """A job on each device, with a step and a preview each INTERVAL_S."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._step, self._due = 0, time.monotonic()
        self._pixels = zlib.compress(random.Random(1).randbytes(SIDE * SIDE * 3), 1)

    def watch(self, job: str, is_watched: bool) -> None:
        """Live meshes are not simulated."""

    def reports(self) -> Iterator[Any]:
        yield from super().reports()
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + INTERVAL_S
        self._step += 1
        for job, attempt in list(self.attempts.items()):
            yield ProgressReport(job, self._step, 1_000_000, 1.0, 1.0, attempt)
            yield PreviewReport(PreviewFrame(job, self._step, SIDE, SIDE, self._pixels), attempt)


if __name__ == "__main__":
    app.LocalRunner = StreamingRunner
    sys.exit(command.main(sys.argv[1:]))
