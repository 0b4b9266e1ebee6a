# SPDX-License-Identifier: GPL-3.0-or-later
"""Run many jobs one after the other, each kept in its own folder, with a progress bar; signals stop between steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ...evaluation.baselines import RunResult
    from ...geometry.build import Mesh
    from ...training.job import Job

BAR_STEPS = 10  # steps between two updates of a job's remaining time


@dataclass(frozen=True)
class PlannedRun:
    """A job, the folder of its result, and its label in the progress bar."""

    label: str
    job: Job
    folder: Path


def run_all(
    planned: Sequence[PlannedRun], device: torch.device, use: Callable[[PlannedRun, RunResult, Mesh | None], None]
) -> bool:
    """Run the jobs without a result and pass every result to `use`, in order; False when a signal stopped it.

    Failed jobs are kept as failed. Raises what `use` raises, and errors of a job that are no DreamwrightError.
    """
    from tqdm import tqdm

    from ...errors import StoppedError
    from ...evaluation import baselines
    from ...mesh_rendering.turntable import turntable_image
    from ...training.events import Event, StepCompleted
    from ..run_display import PreviewFolder
    from ..signals import StopSignal

    fingerprints = [baselines.job_fingerprint(run.job) for run in planned]
    pairs = list(zip(planned, fingerprints, strict=True))
    done = sum(baselines.load_result(run.folder, fingerprint) is not None for run, fingerprint in pairs)
    with StopSignal() as stop, tqdm(total=len(planned), initial=done, unit="job", dynamic_ncols=True) as bar:
        for run, fingerprint in pairs:
            found = baselines.load_result(run.folder, fingerprint)
            if found is None:

                def watch(event: Event, label: str = run.label) -> None:
                    if isinstance(event, StepCompleted) and event.step % BAR_STEPS == 0:
                        bar.set_postfix_str(f"{label}, step {event.step} of {event.steps}, {event.eta_s:.0f} s left")

                try:
                    found = baselines.run_experiment(run.job, run.folder, device, stop, watch)
                except StoppedError as stopped:
                    tqdm.write(
                        f"{stopped}; {bar.n} of {len(planned)} jobs are kept, and the same command continues",
                        file=sys.stderr,
                    )
                    return False
                result, mesh = found
                if mesh is not None:
                    PreviewFolder(run.folder).save("turntable", turntable_image(mesh))
                else:
                    tqdm.write(f"{run.label}: failed ({result.error}); it counts as wrong", file=sys.stderr)
                bar.update()
            use(run, *found)
    return True
