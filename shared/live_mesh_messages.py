# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of live meshes. `live_mesh` turns their data into arrays and back."""

from __future__ import annotations

from dataclasses import dataclass

from . import limits
from .limits import LARGEST
from .schema import binary, integer, text


@dataclass(frozen=True)
class LiveMeshFrame:
    """A coarse mesh of a job's prop after `step` steps, in the place and size of the finished one.

    Sent only to those who asked for it with `Subscribe.meshes_of`. data: see `live_mesh.encode_live_mesh`.
    """

    job: str = text(limits.JOB_CHARACTERS)
    step: int = integer(0, LARGEST)
    vertices: int = integer(1, limits.LIVE_MESH_VERTICES)
    triangles: int = integer(1, limits.LIVE_MESH_TRIANGLES)
    data: bytes = binary(limits.LIVE_MESH_BYTES)


@dataclass(frozen=True)
class LiveMeshAck:
    """As `PreviewAck`, for live meshes. Has no reply."""

    count: int = integer(1, 100)
