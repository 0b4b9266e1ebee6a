# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of the fake server: a ball, its texture, and previews."""

from __future__ import annotations

import io
import itertools
import zlib

import numpy as np
from PIL import Image

from dreamwright.shared.live_mesh import encode_live_mesh
from dreamwright.shared.live_mesh_messages import LiveMeshFrame
from dreamwright.shared.mesh_file import MeshFile, Texture

RED = (0.7, 0.05, 0.02)


def ball(rings: int = 16, height: float = 1.0, color: tuple[float, float, float] = RED) -> MeshFile:
    """A closed ball on the ground, darker towards its base."""
    polar = np.linspace(0, np.pi, rings + 1)[1:-1]
    around = np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    p, a = (grid.ravel() for grid in np.meshgrid(polar, around, indexing="ij"))
    unit = np.stack([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)], -1)
    unit = np.concatenate([unit, [[0, 0, 1], [0, 0, -1]]]).astype(np.float32)
    wide, top = 2 * rings, len(unit) - 2
    faces = []
    for i, j in itertools.product(range(rings - 2), range(wide)):
        here, right, below, corner = (
            i * wide + j,
            i * wide + (j + 1) % wide,
            (i + 1) * wide + j,
            (i + 1) * wide + (j + 1) % wide,
        )
        faces += [(here, below, corner), (here, corner, right)]
    last = (rings - 2) * wide
    faces += [(top, j, (j + 1) % wide) for j in range(wide)]
    faces += [(top + 1, last + (j + 1) % wide, last + j) for j in range(wide)]
    albedo = np.float32(color) * (0.75 + 0.25 * unit[:, 2:])
    return MeshFile(
        ((unit + np.array([0, 0, 1])) * height / 2).astype(np.float32),
        np.array(faces, np.int32),
        unit,
        albedo.astype(np.float32),
        {"backend": "fake"},
    )


def texture_of(mesh: MeshFile, size: int) -> Texture:
    """A texture: red above, blue below, one green texel at the top left."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[: size // 2], pixels[size // 2 :], pixels[0, 0] = (200, 20, 10), (10, 20, 200), (0, 255, 0)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    height = float(mesh.vertices[:, 2].max())
    uv = np.stack([0.5 + mesh.vertices[:, 0] / height, 1 - mesh.vertices[:, 2] / height], -1)
    return Texture(stream.getvalue(), uv.clip(0, 1).astype(np.float32), mesh.faces)


def live_mesh_frame(job: str, step: int, mesh: MeshFile) -> LiveMeshFrame:
    """A mesh as a live mesh; its colors are taken for display sRGB."""
    colors = np.rint(255 * mesh.albedo.clip(0, 1)).astype(np.uint8)
    data = encode_live_mesh(mesh.vertices, colors, mesh.faces)
    return LiveMeshFrame(job, step, len(mesh.vertices), len(mesh.faces), data)


def preview_bytes(step: int, size: int) -> bytes:
    """A compressed preview whose red shows the step; its top row is white."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[..., 0] = step % 256
    pixels[0] = 255
    return zlib.compress(pixels.tobytes(), 1)
