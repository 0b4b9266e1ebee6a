# SPDX-License-Identifier: GPL-3.0-or-later
"""Time of the add-on's timer ticks in Blender while a prop of 10,000 triangles grows in the 3D view.

    python benchmarks/live_mesh_tick.py [--blenders bpy-4.5.15 blender-3.4.1]

The job has a step, a new preview and a new live mesh four times a second, more often than a run makes them. Blender as
a module has no window: its ticks are called at the intervals of its timers, and nothing is drawn.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from blender_tick import TARGETS, machine
from contact_sheet_tick import HEIGHT, WIDTH, noisy_pictures
from tick_runs import measure_each, serve, tick_parser

from dreamwright.shared.limits import LIVE_MESH_TRIANGLES
from dreamwright.shared.live_mesh_messages import LiveMeshFrame
from dreamwright.shared.messages import PreviewFrame
from tests.testing.blenders import Blender
from tests.testing.fake_props import ball, live_mesh_frame
from tests.testing.fake_server import FakeServer

PER_SECOND, RINGS, MESHES = 4, 51, 8


class GrowingServer(FakeServer):
    """A job that runs without end, with previews and live meshes that cost something to unpack."""

    def __init__(self) -> None:
        self._due, self._pictures = 0.0, noisy_pictures()
        random = np.random.default_rng(0)
        self._frames = []
        for _ in range(MESHES):
            mesh = ball(RINGS)
            mesh.vertices[:] += random.normal(0, 0.01, mesh.vertices.shape)  # which packs worse than a smooth ball
            mesh = replace(mesh, faces=mesh.faces[:LIVE_MESH_TRIANGLES])
            self._frames.append(live_mesh_frame("", 0, mesh))
        super().__init__()
        self.live_rings = RINGS

    def work(self) -> None:
        """A step of every job, when it is due."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + 1 / PER_SECOND
        for job in list(self.jobs.values()):
            step = job.step + 1
            self.change(job.job, state="running", queue_position=0, step=step, steps=100_000, preview_step=step)
            self.publish_preview(job.job, step)
            self.publish_live_mesh(job.job, step)

    def frame_of(self, job: str, step: int) -> PreviewFrame:
        """A picture of the size of the server's."""
        return PreviewFrame(job, step, WIDTH, HEIGHT, self._pictures[step % len(self._pictures)])

    def live_mesh_of(self, job: str, step: int) -> LiveMeshFrame:
        """One of the meshes."""
        frame = self._frames[step % MESHES]
        return LiveMeshFrame(job, step, frame.vertices, frame.triangles, frame.data)


def row_of(blender: Blender, report: dict[str, Any]) -> str:
    """The table's row."""
    wall, cpu = ([tick["tick"] for tick in report[name]] for name in ("ticks", "cpu"))
    unpacked = [tick["live mesh"] for tick in report["cpu"] if tick.get("live mesh", 0.0) > 0.5]
    drawn = report["drawn"]
    return (
        f"| {blender.name}{' with a window' if blender.kind == 'program' else ', a module'} | {len(wall)} "
        f"| {np.median(wall):.2f} | {np.percentile(wall, 99):.1f} | {max(wall):.1f} "
        f"| {np.median(cpu):.2f} | {max(cpu):.1f} "
        f"| {np.median(unpacked):.2f} / {max(unpacked):.2f} ({len(unpacked)}) "
        f"| {f'{np.median(drawn):.2f} / {max(drawn):.1f} ({len(drawn)})' if drawn else 'none'} |"
    )


def main() -> None:
    """Measure and print."""
    options = tick_parser(__doc__).parse_args()
    if options.serve:
        serve(GrowingServer())
        return
    notes: list[str] = []
    print(f"{machine()}; milliseconds, targets: median {TARGETS['median']:.0f}, maximum {TARGETS['max']:.0f}\n")
    print("| Blender | ticks | median | 99% | maximum | median CPU | maximum CPU | a live mesh, CPU | a drawing, CPU |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for blender, report in measure_each(options.blenders, __file__, "inside_live_mesh.py", {}):
        print(row_of(blender, report), flush=True)
        notes += [
            f"{blender.name}, slow tick, ms of CPU: " + ", ".join(f"{name} {ms:.1f}" for name, ms in tick.items())
            for tick in sorted(report["cpu"], key=lambda tick: -tick["tick"])[:3]
        ]
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
