# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes and upload chunks as sent by a client."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from dreamwright.shared import limits
from dreamwright.shared.mesh_file import MeshFile, encode_mesh
from dreamwright.shared.messages import UploadChunk
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.primitive_meshes import icosphere


def sent_ball(subdivisions: int = 2, radius: float = 0.8, **facts: Any) -> MeshFile:
    """A ball off the origin in random colors, with facts."""
    vertices, faces = icosphere(subdivisions, radius)
    albedo = np.random.default_rng(0).uniform(size=vertices.shape)
    where = vertices + np.array([2.0, -1.0, 0.5])
    return MeshFile(
        where.astype(np.float32),
        faces.astype(np.int32),
        (vertices / radius).astype(np.float32),
        albedo.astype(np.float32),
        facts,
    )


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pieces(data: bytes, size: int = limits.UPLOAD_PIECE_BYTES) -> Iterator[UploadChunk]:
    """All chunks of a file, in order."""
    for offset in range(0, len(data), size):
        yield UploadChunk(sha256(data), len(data), offset, data[offset : offset + size])


BALL = encode_mesh(sent_ball())
MESH = sha256(BALL)  # its name on the server


def upload(in_memory_server: InMemoryServer, data: bytes = BALL, owner: str = "ada", size: int = 3000) -> int:
    """Send all chunks; returns the number of bytes that the server has."""
    have = 0
    for piece in pieces(data, size):
        have = in_memory_server.request(piece, owner).offset
    return have


def submit_refinement(in_memory_server: InMemoryServer, owner: str = "ada", **changes: Any) -> str:
    """Submit a refinement of `MESH`; returns the job."""
    return in_memory_server.submit(owner, **({"preset": "refine", "mesh": MESH} | changes))


def uploaded_files(in_memory_server: InMemoryServer) -> list[str]:
    """Names of the files in the upload folder, sorted."""
    return sorted(path.name for path in (in_memory_server.folder / "uploads").rglob("*.*"))
