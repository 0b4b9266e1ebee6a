# SPDX-License-Identifier: GPL-3.0-or-later
"""What a terminal shows of a run: a progress bar with ETA, health messages, preview files and a live mesh."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from dreamwright.shared.atomic import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..geometry.live_mesh import LiveMesh
    from ..training.events import Event


def print_warning(message: str) -> None:
    """Print a warning line on stderr, above a progress bar if there is one."""
    tqdm.write(f"dreamwright: warning: {message}", file=sys.stderr)


class PreviewFolder:
    """Image files in a folder, or nowhere when it is None. A failure never ends the run: it is reported once."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._is_made = self._has_failed = False

    def save(self, name: str, image: Image) -> None:
        """Write the image as NAME.png; the first call makes the folder."""
        if self._folder is None:
            return
        stream = io.BytesIO()
        image.save(stream, format="PNG")
        path = self._folder / f"{name}.png"
        try:
            if not self._is_made:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._is_made = True
            write_atomically(path, stream.getvalue())
        except OSError as error:
            if not self._has_failed:
                print_warning(f"cannot write the preview {str(path)!r}: {error.strerror or error}; the run goes on")
            self._has_failed = True


class LiveMeshFile:
    """A mesh file that each live mesh replaces, or none when the path is None. A failure never ends the run."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._has_failed = False

    @property
    def is_wanted(self) -> bool:
        """Whether the run makes live meshes."""
        return self._path is not None

    def replace(self, mesh: LiveMesh, step: int) -> None:
        """Write the mesh in place of the one before."""
        from ..errors import ExportError
        from ..geometry.live_mesh import as_mesh
        from ..io.mesh_export import export_mesh

        if self._path is None:
            return
        try:
            export_mesh(as_mesh(mesh), self._path, {"step": step})
        except (ExportError, OSError) as error:
            if not self._has_failed:
                print_warning(f"cannot write the live mesh ({error}); the run goes on")
            self._has_failed = True


class RunDisplay:
    """Context manager that shows the events of a run."""

    def __init__(
        self,
        prompt: str,
        steps: int,
        done: int,
        previews: PreviewFolder,
        live_mesh: LiveMeshFile = LiveMeshFile(None),
    ) -> None:
        """`done` steps of `steps` were taken before, in a run that is resumed."""
        self._previews, self._live_mesh = previews, live_mesh
        self._bar = tqdm(total=steps, initial=done, desc=prompt[:32], unit="step", file=sys.stderr, dynamic_ncols=True)

    def __enter__(self) -> RunDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, event: Event) -> None:
        """Show one event."""
        from PIL import Image

        from ..training import events

        if isinstance(event, events.StepCompleted):
            self._bar.update(event.step - self._bar.n)
            self._bar.set_postfix_str(f"opacity {event.scalars.get('opacity', 0.0):.2f}", refresh=False)
        elif isinstance(event, events.Preparing):
            if event.what:
                self._bar.write(f"step {event.step}: {event.what}", file=sys.stderr)
        elif isinstance(event, events.Preview):
            self._previews.save(f"step-{event.step:06d}", Image.fromarray(event.image))
        elif isinstance(event, events.LiveMeshMade):
            self._live_mesh.replace(event.mesh, event.step)
        elif isinstance(event, events.Health):
            self._bar.write(f"health at step {event.step}: {event.verdict} ({event.message})", file=sys.stderr)
        elif isinstance(event, events.Restarted):
            self._bar.write(f"starting again with seed {event.new_seed}: {event.reason}", file=sys.stderr)
            self._bar.reset()


class BakeDisplay:
    """Context manager with a bar for the baking of a texture; without one it shows nothing."""

    def __enter__(self) -> BakeDisplay:
        self._bar: tqdm | None = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, share: float) -> None:
        """Show the share in [0, 1] that is done."""
        if self._bar is None:
            self._bar = tqdm(total=100, desc="texture", unit="%", file=sys.stderr, dynamic_ncols=True)
        self._bar.update(int(100 * share) - self._bar.n)
