# SPDX-License-Identifier: GPL-3.0-or-later
"""A job that refines an artist's mesh: what of it is asked for on the wire, and how a worker makes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamwright.shared.messages import JobSummary, SubmitJob

from ...config.parsing import apply_settings
from ...config.presets import REFINE, REFINE_PRESET
from ...errors import ConfigError
from ...training.refine_job import RefineJob, refine_job
from ..jobs.uploads import INPUT_MESH_FILE, read_uploaded_mesh
from .worker_protocol import RunJob

if TYPE_CHECKING:
    from ...geometry.build import Mesh
    from ...training.events import RunState

ECHOED, ECHOES = (
    "source_",
    20,
)  # facts of the mesh as it was sent that go back with the refined one: what the client needs to put it in its place


def refine_job_of(asked: SubmitJob | JobSummary | RunJob) -> RefineJob:
    """The validated job on the mesh that was asked for. Raises PromptError and ConfigError."""
    if asked.preset != REFINE_PRESET:
        raise ConfigError(
            f"the preset {asked.preset!r} makes props from nothing; allowed for a mesh that was sent is {REFINE_PRESET!r}; choose that, or leave the mesh out"
        )
    config = apply_settings(REFINE, [f"{name}={value}" for name, value in asked.settings.items()])
    config = replace(
        config,
        run=replace(config.run, seed=asked.seed),
        guidance=replace(config.guidance, negative_prompt=asked.negative),
    )
    return refine_job(asked.prompt, asked.model, config, asked.mesh)


class Report:
    """What is told of a refined mesh beside where it came from."""

    def __init__(self, mesh: Mesh) -> None:
        from ...geometry.topology import is_watertight

        self.triangles, self.watertight = len(mesh.faces), bool(is_watertight(mesh.faces))


class SentRefinement:
    """A refinement of the mesh in a job's folder, with what a worker asks of a `TextTo3DPipeline`.

    Raises ConfigError when the mesh is not there as it was sent, and the errors of `RefineProduction`.
    """

    def __init__(
        self, job: RefineJob, folder: Path, device: Any, resume: RunState | None, should_stop: Callable[[], bool]
    ) -> None:
        from ...geometry.input_mesh import make_input_mesh
        from ...training.refine_pipeline import RefineProduction

        try:
            data = (folder / INPUT_MESH_FILE).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"the mesh of this job cannot be read on the server ({error.strerror or error}); send the mesh again, as a new job"
            ) from error
        if hashlib.sha256(data).hexdigest() != job.mesh:
            raise ConfigError(
                "the mesh of this job was damaged on the server's disk; send the mesh again, as a new job"
            )
        sent = read_uploaded_mesh(data)
        echoed = [(name, value) for name, value in sent.facts.items() if name.startswith(ECHOED)][:ECHOES]
        self._echo: Mapping[str, Any] = dict(echoed)
        self.job = job
        self._inner = RefineProduction(
            job, make_input_mesh(sent.vertices, sent.faces, sent.albedo), device, resume, should_stop
        )
        self.notices, self.warnings, self.events = self._inner.notices, self._inner.warnings, self._inner.events

    @property
    def step(self) -> int:
        """Steps taken."""
        return self._inner.step

    def mesh(self, progress: Callable[[float], None], enough: Callable[[], bool]) -> tuple[Mesh, Report]:
        """The mesh as it is now, and a report; at once, so `progress` and `enough` are not asked."""
        mesh = self._inner.mesh()
        return mesh, Report(mesh)

    def provenance(self) -> Mapping[str, Any]:
        """Where the mesh came from, and what was sent along with it."""
        return {**self._echo, **self._inner.provenance()}
