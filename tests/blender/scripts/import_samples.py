# SPDX-License-Identifier: GPL-3.0-or-later
"""A job and a mesh that scripts import without a server."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

ADDON = os.environ["DREAMWRIGHT_TEST_ADDON"]
mesh_file: Any = importlib.import_module(f"{ADDON}.shared.mesh_file")
JobSummary: Any = importlib.import_module(f"{ADDON}.shared.messages").JobSummary

JOB = JobSummary(
    job="j", state="succeeded", prompt="a red chair", negative="", model="m", preset="p", seed=0, settings={}, step=1,
    steps=1, elapsed_s=1.0, eta_s=0.0, queue_position=0, health="", message="", submitted_at=0.0, mesh_bytes=1,
    mesh_sha256="", changed=1, mesh="a" * 64,
)  # fmt: skip


def tetrahedron(texture: Any = None, facts: dict[str, Any] | None = None) -> Any:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    return mesh_file.MeshFile(vertices, faces, vertices, np.full((4, 3), 0.5, np.float32), facts or {}, texture)


def import_tetrahedron() -> Any:
    """Import it as a new object."""
    return importlib.import_module(f"{ADDON}.import_mesh").import_mesh(JOB, tetrahedron(), "tcp://x:1")
