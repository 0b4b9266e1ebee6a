# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees of a run in a terminal: a bar with steps, ETA and health, and preview files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..errors import ExportError

if TYPE_CHECKING:
    from ..training.events import Event
    from ..training.job import Job


def check_preview_folder(folder: Path) -> None:
    """Make the folder if it is missing. Raises ExportError when pictures cannot be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink()
    except OSError as error:
        raise ExportError(
            f"cannot write previews to {folder}: {error.strerror}; choose another --previews folder"
        ) from error


class RunDisplay:
    """Shows events; previews go to a folder that `check_preview_folder` has seen."""

    def __init__(self, job: Job, previews: Path | None, done: int) -> None:
        self._previews = previews
        self._bar = tqdm(
            total=job.config.run.steps,
            initial=done,
            desc=job.prompt[:32],
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def __enter__(self) -> RunDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, event: Event) -> None:
        """Reflect one event."""
        from PIL import Image

        from ..training import events

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


class BakeDisplay:
    """A bar for the baking of a texture; nothing where there is none."""

    def __enter__(self) -> BakeDisplay:
        self._bar: tqdm | None = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, share: float) -> None:
        """The share that is done."""
        if self._bar is None:
            self._bar = tqdm(total=100, desc="texture", unit="%", file=sys.stderr, dynamic_ncols=True)
        self._bar.update(int(100 * share) - self._bar.n)
