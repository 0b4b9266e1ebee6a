# SPDX-License-Identifier: GPL-3.0-or-later
"""Time of the add-on's timer ticks in Blender while 256-pixel previews stream at 10/s and 200k triangles are imported.

    python benchmarks/blender_tick.py [--record] [--blenders bpy-4.5.15 blender-3.4.1]

--record appends the table to docs/results/results.md. Blender as a module has no window: its ticks are called at the
intervals of its timers.
"""

from __future__ import annotations

import datetime
import os
import platform
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from checkout import commit
from tick_runs import ROOT, measure_each, serve, tick_parser

from dreamwright.shared.messages import PreviewFrame
from tests.testing.blenders import Blender
from tests.testing.fake_server import FakeServer

SIZE, PER_SECOND, RINGS = 256, 10, 225
TARGETS = {"median": 5.0, "max": 16.0, "import": 500.0}  # milliseconds


def pictures(count: int = 16) -> list[bytes]:
    """Packed pictures of a lit ball on noise, which packs as badly as a render does."""
    random = np.random.default_rng(0)
    across = np.linspace(-1, 1, SIZE, dtype=np.float32)
    x, y = np.meshgrid(across, -across)
    inside = x * x + y * y < 0.6
    made = []
    for number in range(count):
        turn = 2 * np.pi * number / count
        light = np.clip(0.6 + 0.4 * (x * np.cos(turn) + y * np.sin(turn)), 0, 1)[..., None] * np.float32(
            [0.8, 0.2, 0.1]
        )
        shown = np.where(inside[..., None], light, 0.5) + random.normal(0, 0.02, (SIZE, SIZE, 3))
        made.append(zlib.compress((255 * np.clip(shown, 0, 1)).astype(np.uint8).tobytes(), 1))
    return made


class Streamer(FakeServer):
    """The tests' server at a steady pace, with pictures that cost something to unpack."""

    def __init__(self) -> None:
        self._due, self._pictures = 0.0, pictures()
        super().__init__(size=SIZE, rings=RINGS)

    def work(self) -> None:
        """One step every tenth of a second."""
        if time.monotonic() >= self._due:
            self._due = max(self._due + 1 / PER_SECOND, time.monotonic())
            super().work()

    def _picture(self, job: str, step: int) -> None:
        for route, peer in self.peers.items():
            if peer.previews_of == job and peer.credit:
                peer.credit -= 1
                self._send(route, PreviewFrame(job, step, SIZE, SIZE, self._pictures[step % len(self._pictures)]), 0)


def importing(tick: dict[str, float]) -> float:
    """The import's share of a tick: the fetched bytes checked and decoded, and the object made."""
    return tick.get("decode", 0.0) + tick.get("import", 0.0)


def row_of(blender: Blender, report: dict[str, Any]) -> tuple[str, list[str]]:
    """The table's row, and notes."""
    ticks = report["ticks"]
    own = np.array([tick["tick"] - importing(tick) for tick in ticks])
    first, last = report["fetching"]
    with_preview = np.array([tick["tick"] for tick in ticks[:first] + ticks[last:] if "show" in tick])
    delivered = max(importing(tick) for tick in ticks)
    worked = np.array([tick["tick"] - importing(tick) for tick in report["cpu"]])
    figures = {"median": float(np.median(own)), "max": float(own.max()), "import": delivered}
    missed = [name for name, value in figures.items() if value > TARGETS[name]]
    row = (
        f"| {blender.name}{' with a window' if blender.kind == 'program' else ', a module'} | {len(own)} "
        f"| {figures['median']:.2f} | {np.percentile(own, 99):.1f} | {figures['max']:.1f} | {worked.max():.1f} "
        f"| {np.median(with_preview):.2f} / {with_preview.max():.1f} | "
        f"{delivered:.0f} | {', '.join(missed) or 'all met'} |"
    )
    size, megabytes = report["size"], report["mesh_bytes"] / 1e6
    previews = f"{report['previews_per_s']:.1f} of {PER_SECOND} previews a second ({size[0]} x {size[1]})"
    mesh = f"{report['triangles']} triangles ({megabytes:.1f} MB) fetched and imported in {report['fetch_s']:.2f} s"
    slow = sorted(ticks, key=lambda tick: importing(tick) - tick["tick"])[:4]
    notes = [f"{blender.name}: {previews}, {mesh}"] + [
        f"{blender.name}, slow tick, ms: " + ", ".join(f"{name} {value:.1f}" for name, value in tick.items())
        for tick in slow
    ]
    return row, notes


def machine() -> str:
    """The processor, and how busy it is."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    noisy = (
        "; other programs are running, so the values are noisy and the maxima are upper bounds"
        if load > 0.5 * cores
        else ""
    )
    return f"{cores} cores of {names[0] if names else platform.machine()}, load {load:.1f} before the start{noisy}"


def main() -> None:
    """Measure, print, and append where asked."""
    parser = tick_parser(__doc__)
    parser.add_argument("--record", action="store_true", help="append the table to docs/results/results.md")
    options = parser.parse_args()
    if options.serve:
        serve(Streamer())
        return
    where = machine()
    rows, notes = [], []
    for blender, report in measure_each(options.blenders, __file__, "inside_blender_tick.py", {}):
        row, more = row_of(blender, report)
        rows.append(row)
        notes += more
    text = "\n".join([
        f"## Time of the add-on's ticks in Blender, {datetime.date.today()}, commit {commit()}, {where}",
        "",
        f"`python benchmarks/blender_tick.py`: {SIZE}-pixel previews at {PER_SECOND}/s, one import of 200k triangles.",
        f"Milliseconds. Targets: median < {TARGETS['median']:.0f}, maximum without the import < {TARGETS['max']:.0f},",
        f"import (decoding the bytes and making the object) < {TARGETS['import']:.0f}.",
        "",
        "| Blender | ticks | median | 99% | maximum | maximum CPU | with a preview: median / max | import | missed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ])  # fmt: skip
    print(text, *notes, sep="\n")
    if options.record:
        with (ROOT / "docs" / "results" / "results.md").open("a", encoding="utf-8") as results:
            results.write(
                f"\n{text}\n\n" + "\n".join(f"- {line.strip()}" for line in notes if ", slow tick, " not in line) + "\n"
            )


if __name__ == "__main__":
    main()
