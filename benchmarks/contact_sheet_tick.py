# SPDX-License-Identifier: GPL-3.0-or-later
"""Time of the add-on's timer ticks in Blender while eight variations run at once and their contact sheet is shown.

    python benchmarks/contact_sheet_tick.py [--blenders bpy-4.5.15 blender-3.4.1]

Each of the eight has a step and a new preview four times a second. Blender as a module has no window: its ticks are
called at the intervals of its timers, and no icons are drawn.
"""

from __future__ import annotations

import time
import zlib
from typing import Any

import numpy as np
from blender_tick import TARGETS, machine
from tick_runs import measure_each, serve, tick_parser

from dreamwright.shared.messages import PreviewFrame
from tests.testing.blenders import Blender
from tests.testing.fake_server import FakeServer

VARIATIONS, HEIGHT, WIDTH = 8, 96, 288  # pixels of the server's previews
PER_SECOND = 4  # steps and previews of each: a server tells of no more


def noisy_pictures(count: int = 16) -> list[bytes]:
    """Packed noise of the size of a preview, which packs worse than a render does."""
    random = np.random.default_rng(0)
    pictures = random.normal(128, 20, (count, HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    return [zlib.compress(picture.tobytes(), 1) for picture in pictures]


class GroupServer(FakeServer):
    """Every job that was submitted runs at once, without end, and has a new preview PER_SECOND times a second."""

    def __init__(self) -> None:
        self._due, self._pictures = 0.0, noisy_pictures()
        super().__init__()

    def work(self) -> None:
        """A step of every job, when it is due."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 1 / PER_SECOND
            for job in list(self.jobs.values()):
                self.change(
                    job.job, state="running", queue_position=0, step=job.step + 1, steps=100_000,
                    preview_step=job.step + 1,
                )  # fmt: skip

    def frame_of(self, job: str, step: int) -> PreviewFrame:
        """A picture that costs something to unpack."""
        return PreviewFrame(job, step, WIDTH, HEIGHT, self._pictures[step % len(self._pictures)])


def row_of(blender: Blender, report: dict[str, Any]) -> str:
    """The table's row."""
    wall, cpu = ([tick["tick"] for tick in report[name]] for name in ("ticks", "cpu"))
    parts = []
    for name in ("thumbnail", "sheet"):
        cost = [tick[name] for tick in report["cpu"] if tick.get(name, 0.0) > 0.05]
        parts.append(f"{np.median(cost):.2f} / {max(cost):.2f} ({len(cost)})" if cost else "none")
    return (
        f"| {blender.name}{' with a window' if blender.kind == 'program' else ', a module'} | {len(wall)} "
        f"| {np.median(wall):.2f} | {np.percentile(wall, 99):.1f} | {max(wall):.1f} "
        f"| {np.median(cpu):.2f} | {max(cpu):.1f} | {' | '.join(parts)} |"
    )


def main() -> None:
    """Measure and print."""
    options = tick_parser(__doc__).parse_args()
    if options.serve:
        serve(GroupServer())
        return
    print(f"{VARIATIONS} variations, {machine()}; milliseconds, target: median below {TARGETS['median']:.0f}\n")
    print("| Blender | ticks | median | 99% | maximum | median CPU | maximum CPU | a thumbnail, CPU | the sheet, CPU |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    variables = {"VARIATIONS": str(VARIATIONS)}
    for blender, report in measure_each(options.blenders, __file__, "inside_contact_sheet.py", variables):
        print(row_of(blender, report))


if __name__ == "__main__":
    main()
