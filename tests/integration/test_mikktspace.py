# SPDX-License-Identifier: GPL-3.0-or-later
"""Our tangents beside Blender's, which are those of mikktspace.c."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from dreamwright.backend.finishing.tangents import corner_tangents
from dreamwright.backend.geometry.topology import Surface, vertex_normals
from dreamwright.backend.geometry.unwrap import unwrap
from tests.testing.primitive_meshes import icosphere

SCRIPT = """
import sys
import bpy
import numpy as np
data = np.load(sys.argv[1])
mesh = bpy.data.meshes.new("m")
mesh.from_pydata(data["vertices"].tolist(), [], data["faces"].tolist())
layer = mesh.uv_layers.new(name="uv")
layer.data.foreach_set("uv", data["uv"].astype("f4").ravel())
mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
mesh.normals_split_custom_set_from_vertices(data["normals"].tolist())
mesh.calc_tangents(uvmap="uv")
tangent = np.zeros(3 * len(mesh.loops), "f4")
sign = np.zeros(len(mesh.loops), "f4")
mesh.loops.foreach_get("tangent", tangent)
mesh.loops.foreach_get("bitangent_sign", sign)
np.savez(sys.argv[2], tangent=tangent.reshape(-1, 3), sign=sign)
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("bpy") is None, reason="bpy is not installed (extra: blender)")
def test_tangents_are_those_of_blender(tmp_path: Path) -> None:
    """A lumpy ball, half of its charts mirrored. Blender keeps custom normals in 16 bits each, some 0.01 degrees."""
    vertices, faces = icosphere(3, 0.5)
    vertices = vertices * (1 + 0.1 * np.sin(7 * vertices[:, :1]) + 0.1 * np.cos(9 * vertices[:, 1:2]))
    normals = vertex_normals(Surface(vertices, faces))
    places = unwrap(vertices, faces, 256)
    # Each row is in one chart; mirror the charts whose first corner is on the left.
    uv = places.uv.astype(np.float64)
    flipped = uv[:, 0] < 0.5
    in_flipped = flipped[places.corners].sum(axis=1)
    mixed = (in_flipped > 0) & (in_flipped < 3)
    uv[:, 0] = np.where(flipped, 0.5 - uv[:, 0], uv[:, 0])
    places = type(places)(uv.astype(np.float32), places.corners, places.vertex)
    tangents, _ = corner_tangents(vertices, faces, normals, places)
    loops = uv[places.corners].reshape(-1, 2)
    loops = np.stack([loops[:, 0], 1 - loops[:, 1]], axis=1)
    np.savez(tmp_path / "in.npz", vertices=vertices, faces=faces, uv=loops, normals=normals)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    theirs = np.load(tmp_path / "out.npz")
    ours = tangents.reshape(-1, 4)
    # Faces torn by the mirroring are needles in uv, whose tangents are rounding.
    whole = np.repeat(~mixed, 3)
    touched = np.isin(places.corners, places.corners[mixed]).any(axis=1).repeat(3)
    compared = whole & ~touched
    assert compared.mean() > 0.5
    np.testing.assert_array_equal(ours[compared, 3], theirs["sign"][compared])
    assert {-1.0, 1.0} == set(ours[compared, 3])
    cosine = (ours[:, :3] * theirs["tangent"]).sum(axis=1)[compared]
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.1
