# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job starts from besides its prompt, read from its folder: another job's field, or an uploaded mesh."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, ConfigError
from ...geometry.input_mesh import InputMesh, make_input_mesh
from ...scenes.initial_field import InitialField, read_initial_field
from ..jobs.uploads import INPUT_MESH_FILE, read_uploaded_mesh
from .job_executor import INITIAL_FIELD_FILE
from .worker_protocol import RunJob

# Facts of an uploaded mesh that its refined mesh carries too: the client needs them to put it in its place.
ECHOED_PREFIX, ECHOED_FACTS = "source_", 20


@dataclass(frozen=True)
class JobInputs:
    """The field or the mesh that a job starts from, None without one, and facts that its mesh repeats."""

    initial_field: InitialField | None = None
    input_mesh: InputMesh | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_inputs(order: RunJob) -> JobInputs:
    """The inputs that the order names.

    Raises CheckpointError for a field and ConfigError for a mesh that cannot be read.
    """
    folder = Path(order.folder)
    if order.mesh:
        return _read_mesh(folder, order.mesh)
    if not order.parent_job:
        return JobInputs()
    try:
        return JobInputs(initial_field=read_initial_field(folder / INITIAL_FIELD_FILE))
    except CheckpointError as error:
        reason = str(error).partition(";")[0]
        raise CheckpointError(
            f"the field of job {order.parent_job}, from which it begins, cannot be read: {reason}; start from that job "
            "again, or send the prompt without it"
        ) from error


def _read_mesh(folder: Path, sha256: str) -> JobInputs:
    try:
        data = (folder / INPUT_MESH_FILE).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the mesh of this job cannot be read on the server ({error.strerror or error}); send the mesh again, as a "
            "new job"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ConfigError("the mesh of this job was damaged on the server's disk; send the mesh again, as a new job")
    mesh = read_uploaded_mesh(data)
    echoed = [(name, value) for name, value in mesh.facts.items() if name.startswith(ECHOED_PREFIX)][:ECHOED_FACTS]
    return JobInputs(input_mesh=make_input_mesh(mesh.vertices, mesh.faces, mesh.albedo), facts=dict(echoed))
