# SPDX-License-Identifier: GPL-3.0-or-later
"""Mesh files of any format keep their shape, orientation, vertices and colors when read and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamwright.backend.geometry.input_mesh import InputMesh
from dreamwright.backend.io.gltf_writer import to_y_up
from dreamwright.backend.io.mesh_export import export_mesh
from dreamwright.backend.io.mesh_reader import read_input_mesh
from tests.testing.gltf_files import gltf_files
from tests.testing.mesh_files import MeshCase, obj_files, ply_files, signed_volume

CASES = {"gltf": gltf_files(), "ply": ply_files(), "obj": obj_files()}
# Colors are float32: half a unit in the last place of 1, and as much again where texels are filtered.
COLOR_TOLERANCE = 1e-6


def unchanged(mesh: InputMesh):
    """The mesh that refining with strength 0 writes."""
    return mesh.changed(np.zeros_like(mesh.unit), np.zeros_like(mesh.display))


def rolled(faces: np.ndarray) -> np.ndarray:
    """Faces with their smallest vertex first: the same triangles and orientation."""
    first = faces.argmin(axis=1)
    return np.take_along_axis(np.asarray(faces), (first[:, None] + np.arange(3)) % 3, axis=1)


def assert_is_case(mesh: InputMesh, case: MeshCase, y_up: bool) -> None:
    vertices = to_y_up(mesh.vertices) if y_up else mesh.vertices
    size = np.abs(case.vertices).max()
    assert vertices.shape == case.vertices.shape
    # float64 throughout; a few roundings of a product of up to three matrices
    assert np.abs(vertices - case.vertices).max() <= 1e-12 * size
    if case.faces is not None:
        assert np.array_equal(rolled(mesh.faces), rolled(case.faces))
    # Vertices that err by 1e-12 of the size change the volume by some 3e-12 of it; thin cases have a tenth to a
    # hundredth.
    assert signed_volume(vertices.astype(np.float64), mesh.faces) == pytest.approx(case.volume, rel=1e-9)
    assert np.abs(mesh.albedo - case.albedo).max() <= COLOR_TOLERANCE


@pytest.mark.parametrize("kind", CASES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_file_is_read_correctly(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    case = data.draw(CASES[kind])
    mesh = read_input_mesh(case.write(tmp_path))
    assert mesh.notices == ()
    assert_is_case(mesh, case, kind == "gltf")


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_strength_0_is_the_identity_between_formats(suffix: str, data: st.DataObject, tmp_path: Path) -> None:
    case = data.draw(st.one_of(*CASES.values()))
    before = read_input_mesh(case.write(tmp_path))
    after = read_input_mesh(export_mesh(unchanged(before), tmp_path / f"same{suffix}", {}))
    # GLB has float32 positions: 2^-24 of coordinates that are at most 4 radii, or of the mesh about its own center.
    tolerance = (2.0**-22 if suffix == ".glb" else 0.0) * 0.5 / before.scale
    assert np.abs(after.vertices - before.vertices).max() <= tolerance
    assert np.array_equal(after.faces, before.faces)
    if suffix == ".glb":
        assert np.array_equal(after.albedo, before.albedo)
    else:  # half a step of 1/255 in PLY; five decimals in OBJ
        step = 0.5 / 255 if suffix == ".ply" else 0.5e-5
        assert np.abs(after.display - before.display).max() <= step + 1e-7
