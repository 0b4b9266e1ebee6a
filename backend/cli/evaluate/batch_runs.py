# SPDX-License-Identifier: GPL-3.0-or-later
"""Many jobs one after the other, each load_result in a folder of its own: a bar with the time left, and Ctrl-C between steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ...evaluation.baselines import RunResult
    from ...geometry.build import Mesh
    from ...training.job import Job

STEPS_SHOWN = 10  # steps between two updates of a job's own time left


@dataclass(frozen=True)
class PlannedRun:
    """A job, where it is load_result, and what the bar calls it."""

    words: str
    job: Job
    folder: Path


def run_all(
    planned: Sequence[PlannedRun], device: torch.device, use: Callable[[PlannedRun, RunResult, Mesh | None], None]
) -> bool:
    """Make what is missing and hand every cell to `use`, in order; False when Ctrl-C stopped it. What was made stays.

    Raises what `use` raises, and whatever in a job is no DreamwrightError: those are load_result as failed.
    """
    import sys

    from tqdm import tqdm

    from ...errors import StoppedError
    from ...evaluation.baselines import fingerprint, load_result, run_experiment
    from ...mesh_rendering.turntable import turntable_picture
    from ...training.events import Event, StepCompleted
    from ..signals import StopSignal

    there = sum(load_result(cell.folder, fingerprint(cell.job)) is not None for cell in planned)
    # Cells that are there cost nothing, so the bar begins behind them: its time left is that of the others.
    with (
        StopSignal() as stop,
        tqdm(total=len(planned), initial=there, unit="job", dynamic_ncols=True) as bar,
    ):
        for cell in planned:
            known = load_result(cell.folder, fingerprint(cell.job))
            if known is None:

                def watch(event: Event, words: str = cell.words) -> None:
                    if isinstance(event, StepCompleted) and event.step % STEPS_SHOWN == 0:
                        bar.set_postfix_str(f"{words}, step {event.step} of {event.steps}, {event.eta_s:.0f} s left")

                try:
                    known = run_experiment(cell.job, cell.folder, device, stop, watch)
                except StoppedError as stopped:
                    tqdm.write(
                        f"{stopped}; {bar.n} of {len(planned)} jobs are load_result, and the same command goes on from here",
                        file=sys.stderr,
                    )
                    return False
                if known[0].error:
                    tqdm.write(f"{cell.words}: failed ({known[0].error}); it counts as wrong", file=sys.stderr)
                else:
                    turntable_picture(known[1]).save(cell.folder / "turntable.png")
                bar.update()
            use(cell, *known)
    return True
