# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees of a run in a terminal: a bar with steps, ETA and health, and preview files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from dreamwright.backend.events import Event
    from dreamwright.backend.job import Job


class RunDisplay:
    """Shows events; raises ExportError at once when the preview folder cannot be used."""

    def __init__(self, job: "Job", previews: Path | None, done: int) -> None:
        from dreamwright.backend.errors import ExportError

        self._previews = previews
        if previews is not None:
            try:
                previews.mkdir(parents=True, exist_ok=True)
                (previews / ".probe").touch()
                (previews / ".probe").unlink()
            except OSError as error:
                raise ExportError(f"cannot write previews to {previews}: {error.strerror}; choose another --previews folder") from error
        self._bar = tqdm(total=job.config.run.steps, initial=done, desc=job.prompt[:32], unit="step", file=sys.stderr, dynamic_ncols=True)

    def __enter__(self) -> "RunDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, event: "Event") -> None:
        """Reflect one event."""
        from PIL import Image

        from dreamwright.backend import events

        if isinstance(event, events.Progress):
            self._bar.update(event.step - self._bar.n)
            self._bar.set_postfix_str(f"opacity {event.scalars.get('opacity', 0.0):.2f}", refresh=False)
        elif isinstance(event, events.Preview) and self._previews is not None:
            Image.fromarray(event.image).save(self._previews / f"step-{event.step:06d}.png")
        elif isinstance(event, events.Health):
            self._bar.write(f"health at step {event.step}: {event.verdict} ({event.message})", file=sys.stderr)
        elif isinstance(event, events.Restarted):
            self._bar.write(f"starting again with seed {event.new_seed}: {event.reason}", file=sys.stderr)
            self._bar.reset()
