# SPDX-License-Identifier: GPL-3.0-or-later
"""Mesh file features beyond the generated files, and refusals by name in one line."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.geometry.color import display_to_linear
from dreamwright.backend.io.mesh_export import export_mesh
from dreamwright.backend.io.mesh_reader import read_input_mesh, read_mesh
from tests.testing.mesh_files import CUBE, GRAY, QUADS, TRIANGLES, png, signed_volume
from tests.testing.primitive_meshes import icosphere

TETRAHEDRON = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype="<f4")
FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], dtype="<u2")
OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"


def gltf(folder: Path, arrays: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
    """A tetrahedron as .gltf; `arrays` become further accessors, numbered from 2, and `changes` top-level entries."""
    blob, views, accessors = bytearray(), [], []
    for array in [TETRAHEDRON, FACES.reshape(-1, 1), *(arrays or {}).values()]:
        blob.extend(bytes(-len(blob) % 4))
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": array.nbytes})
        component = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}[array.dtype.str[1:]]
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[array.shape[1]]
        accessors.append({"bufferView": len(views) - 1, "componentType": component, "count": len(array), "type": kind})
        blob.extend(array.tobytes())
    uri = "data:;base64," + base64.b64encode(blob).decode()
    attributes = {"POSITION": 0, **{name: number for number, name in enumerate(arrays or {}, 2) if name.isupper()}}
    attributes |= {name: number for number, name in enumerate(arrays or {}, 2) if name[:-1] in ("COLOR_", "JOINTS_")}
    document = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 1}]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(blob), "uri": uri}],
        **changes,
    }
    (folder / "mesh.gltf").write_text(json.dumps(document))
    return folder / "mesh.gltf"


def y_up(vertices: np.ndarray) -> np.ndarray:
    return np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], axis=1)


def test_morph_targets_use_their_default_weights(tmp_path: Path) -> None:
    lift = np.tile(np.array([[0, 2, 0]], dtype="<f4"), (4, 1))
    mesh = [
        {"weights": [0.5], "primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "targets": [{"POSITION": 2}]}]}
    ]
    path = gltf(tmp_path, {"target": lift}, meshes=mesh)
    assert np.array_equal(y_up(read_input_mesh(path).vertices), TETRAHEDRON + np.array([0, 1, 0]))
    path = gltf(tmp_path, {"target": lift}, meshes=mesh, nodes=[{"mesh": 0, "weights": [1.0]}])
    assert np.array_equal(y_up(read_input_mesh(path).vertices), TETRAHEDRON + np.array([0, 2, 0]))


def test_skin_is_in_its_rest_pose(tmp_path: Path) -> None:
    """Joint 1 is at (0, 3, 0) and its inverse bind matrix is for (0, 1, 0), so vertices bound to it rise by 2."""
    inverse = np.stack([np.eye(4), np.eye(4)]).astype("<f4")
    inverse[1, 1, 3] = -1
    columns = np.ascontiguousarray(inverse.transpose(0, 2, 1).reshape(2, 16))
    joints = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], dtype="u1")
    weights = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0]], dtype="<f4")
    arrays = {"JOINTS_0": joints, "WEIGHTS_0": weights, "inverse": columns}
    nodes = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},
        {"children": [2]},
        {"translation": [0, 3, 0]},
    ]
    skins = [{"joints": [1, 2], "inverseBindMatrices": 4}]
    path = gltf(tmp_path, arrays, nodes=nodes, skins=skins, scenes=[{"nodes": [0, 1]}])
    expected = TETRAHEDRON + np.array([[0, 0, 0], [0, 2, 0], [0, 1, 0], [0, 2, 0]])
    # float64: a few roundings of coordinates below 4 (4e-16), whose weights and matrices are exact.
    assert np.allclose(y_up(read_input_mesh(path).vertices), expected, rtol=0, atol=1e-14)


def test_instanced_meshes_and_files_without_scenes(tmp_path: Path) -> None:
    nodes = [{"mesh": 0}, {"mesh": 0, "translation": [5, 0, 0]}]
    mesh = read_input_mesh(gltf(tmp_path, nodes=nodes, scenes=[]))
    assert len(mesh.vertices) == 8 and mesh.vertices[:, 0].max() == 6


REFUSED_GLTF = {
    "an unknown required extension": ({"extensionsRequired": ["VENDOR_secret"]}, "VENDOR_secret"),
    "Draco": ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "KHR_draco_mesh_compression"),
    "glTF 1.0": ({"asset": {"version": "1.0"}}, "version is 1.0"),
    "a cycle of nodes": ({"nodes": [{"children": [0], "mesh": 0}]}, "own descendant"),
    "a node that is not there": ({"scenes": [{"nodes": [7]}]}, r"nodes\[7\] of 1"),
    "a quaternion of zeros": ({"nodes": [{"mesh": 0, "rotation": [0, 0, 0, 0]}]}, "quaternion 0"),
    "a short matrix": ({"nodes": [{"mesh": 0, "matrix": [1, 2, 3]}]}, "16 finite numbers"),
    "a buffer elsewhere": ({"buffers": [{"byteLength": 9, "uri": "https://example.org/a.bin"}]}, "example.org"),
    "a missing buffer": ({"buffers": [{"byteLength": 9, "uri": "no%20file.bin"}]}, "'no file.bin' is missing"),
    "a short buffer": ({"buffers": [{"byteLength": 99, "uri": "data:;base64,AAAA"}]}, "3 bytes of 99"),
    "only lines": ({"meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 1}]}]}, "no triangles"),
    "nothing": ({"meshes": [], "nodes": [], "scenes": []}, "no triangles"),
    "accessors of another kind": ({"accessors": 5}, "accessors are no array"),
}


@pytest.mark.parametrize("what", REFUSED_GLTF)
def test_gltf_is_refused_by_name(what: str, tmp_path: Path) -> None:
    changes, message = REFUSED_GLTF[what]
    with pytest.raises(ConfigError, match=message) as caught:
        read_input_mesh(gltf(tmp_path, **changes))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("color", "message"),
    [
        (np.zeros((4, 2), "<f4"), "COLOR_0 has the type VEC2"),
        (np.zeros((4, 3), "<i2"), "COLOR_0 has the component type 5122"),
        (np.zeros((3, 4), "<f4"), "3 entries for 4 vertices"),
        (np.full((4, 4), np.nan, "<f4"), "colors are missing or not finite"),
    ],
)
def test_color_attributes_of_a_wrong_kind_are_refused(color: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_input_mesh(gltf(tmp_path, {"COLOR_0": color}))


def test_second_color_attribute_is_ignored(tmp_path: Path) -> None:
    assert read_input_mesh(gltf(tmp_path, {"COLOR_1": np.zeros((4, 4), "<f4")})).albedo == pytest.approx(GRAY)


# --- PLY and OBJ


def test_obj_materials_and_shared_vertices(tmp_path: Path) -> None:
    (tmp_path / "two.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n")
    (tmp_path / "two.obj").write_text(
        "mtllib two.mtl\n" + OBJ + "usemtl red\nf 1 3 2\nf 1 2 4\nusemtl blue\nf 2 3 4\nf 1 4 3\n"
    )
    mesh = read_input_mesh(tmp_path / "two.obj")
    assert len(mesh.vertices) == 4
    # vertex 1: two red faces and one blue
    assert mesh.albedo[0] == pytest.approx([2 / 3, 0, 1 / 3]) and mesh.albedo[3] == pytest.approx([1 / 3, 0, 2 / 3])


def test_obj_texture_scale_and_offset(tmp_path: Path) -> None:
    pixels = np.zeros((1, 4, 3), np.uint8)
    pixels[0, :, 0] = [0, 80, 160, 240]
    (tmp_path / "my picture.png").write_bytes(png(pixels))
    (tmp_path / "a.mtl").write_text("newmtl a\nmap_Kd -blendu on -s 0.5 1 1 -o 0.25 0 my picture.png\n")
    text = "mtllib a.mtl\n" + OBJ + "vt 0.25 0.5\nvt 1.25 0.5\nusemtl a\nf 1/1 3/1 2/1\nf 4/2 1/1 2/1\n"
    (tmp_path / "a.obj").write_text(text)
    red = read_input_mesh(tmp_path / "a.obj").albedo[:, 0]
    # u 0.25 -> 0.375, the center of texel 1; u 1.25 -> 0.875, that of texel 3
    # The albedo is stored in float32: 6e-8. Texture coordinates are multiples of 1 / 8, so texels are not mixed.
    assert red == pytest.approx(display_to_linear(np.array([80, 80, 80, 240]) / 255), abs=2.5e-7)


@pytest.mark.parametrize(
    ("files", "notices"),
    [
        ({}, ["'no.mtl' is missing", "no material file defines 'a'"]),
        ({"no.mtl": b"newmtl a\nmap_Kd gone.png\n"}, ["'gone.png' is missing"]),
        ({"no.mtl": b"newmtl a\nmap_Kd gone.png\n", "gone.png": b"text"}, ["'gone.png' cannot be read"]),
    ],
)
def test_missing_obj_materials_and_textures_warn(files: dict, notices: list[str], tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a.obj").write_text("mtllib no.mtl\n" + OBJ + "vt 0 0\nusemtl a\nf 1/1 3/1 2/1\nf 1 2 4\n")
    mesh = read_input_mesh(tmp_path / "a.obj")
    assert len(mesh.vertices) == 4 and len(mesh.notices) == len(notices)
    assert all(text in notice for text, notice in zip(notices, mesh.notices, strict=True))


def test_obj_vertex_color_variants(tmp_path: Path) -> None:
    text = "v 0 0 0 255 0 0\nv 1 0 \\\n0 0 255 0 255\nv 0 1 0 0 0 255 # blue\nf 1 2 \\\n 3\n"
    (tmp_path / "a.obj").write_text(text)
    mesh = read_input_mesh(tmp_path / "a.obj")
    assert mesh.albedo.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


PLY = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
PLY_FACE = "element face 1\nproperty list uchar int vertex_indices\n"
REFUSED_TEXT = {
    "empty.obj": ("", "no triangles"),
    "zero.obj": (OBJ + "f 0 1 2\n", "line 5 is damaged"),
    "far.obj": (OBJ + "f 1 2 9\n", "names vertex 8; allowed are 0 to 3"),
    "before.obj": (OBJ + "f -9 1 2\n", "line 5 is damaged"),
    "words.obj": ("v a b c\n", "line 1 is damaged: 'v a b c'"),
    "nan.obj": ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
    "point.obj": ("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "at one place"),
    "far away.obj": ("v 1e30 0 0\nv 1e30 1 0\nv 1e30 0 1\nf 1 2 3\n", "digits are lost"),
    "huge.obj": ("v 0 0 0\nv 1e25 0 0\nv 0 1e25 0\nf 1 2 3\n", "radius of"),
    "surface.obj": (OBJ + "cstype bspline\nf 1 2 3\n", "free-form"),
    "no header.ply": ("nothing", "no PLY header"),
    "short.ply": (
        PLY + "end_header\n0 0 0\n",
        "ends within the element vertex",
    ),
    "half colored.ply": (
        PLY + "property uchar red\n" + PLY_FACE + "end_header\n0 0 0 1\n1 0 0 1\n0 1 0 1\n3 0 1 2\n",
        "red without",
    ),
    "unknown.ply": ("ply\nformat ascii 2.0\nelement vertex 0\nend_header\n", "no vertices|format"),
}


@pytest.mark.parametrize("name", REFUSED_TEXT)
def test_text_files_are_refused_by_name(name: str, tmp_path: Path) -> None:
    text, message = REFUSED_TEXT[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_input_mesh(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_ply_triangle_strips(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 8\nproperty double x\nproperty double y\nproperty double z\n"
    strips = [f"4 {a} {b} {d} {c}" for a, b, c, d in QUADS]
    body = [" ".join(map(str, point)) for point in CUBE.tolist()] + [" -1 ".join(s[2:] for s in strips)]
    body[-1] = f"{4 * 6 + 5} {body[-1]}"
    text = head + "element tristrips 1\nproperty list int int vertex_indices\nend_header\n" + "\n".join(body) + "\n"
    (tmp_path / "strips.ply").write_text(text)
    mesh = read_input_mesh(tmp_path / "strips.ply")
    assert len(mesh.faces) == 12 and signed_volume(mesh.vertices, mesh.faces) == pytest.approx(8)


@pytest.mark.parametrize("size", [1e-15, 1e-6, 1.0, 1e6, 1e15])
@pytest.mark.parametrize("distance", [0.0, 1e5, 4.5e6])
@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_distant_huge_and_tiny_meshes_keep_their_shape(
    size: float, distance: float, suffix: str, tmp_path: Path
) -> None:
    """Relative to the mesh: float64 leaves 2^-52 of the distance; a .glb has float32 about the mesh's own center."""
    vertices, faces = icosphere(2, size)
    vertices = vertices + distance * size * np.array([1.0, -0.5, 0.25])
    text = "".join(f"v {x!r} {y!r} {z!r}\n" for x, y, z in vertices.tolist())
    (tmp_path / "in.obj").write_text(text + "".join(f"f {a} {b} {c}\n" for a, b, c in (faces + 1).tolist()))
    before = read_input_mesh(tmp_path / "in.obj")
    assert np.array_equal(before.vertices, vertices) or before.vertices.dtype == np.float32
    written = before.changed(np.zeros_like(before.unit), np.zeros_like(before.display))
    after = read_input_mesh(export_mesh(written, tmp_path / f"out{suffix}", {}))
    assert np.array_equal(after.faces, before.faces)
    allowed = size * ((2.0**-22 if suffix == ".glb" else 0.0) + 2.0**-52 * distance)
    assert np.abs(after.vertices - vertices).max() <= allowed
    # The unit mesh is the mesh over twice its radius, with a rounding of its own.
    assert after.unit[after.weld] == pytest.approx(before.unit[before.weld], abs=allowed / size + 2.0**-52)


def test_read_mesh_keeps_the_files_normals(tmp_path: Path) -> None:
    corners = CUBE[TRIANGLES.reshape(-1)].astype(np.float32)
    flat = np.repeat(np.cross(corners[1::3] - corners[::3], corners[2::3] - corners[::3]), 3, axis=0)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    faces = np.arange(36, dtype=np.int32).reshape(-1, 3)
    mesh = Mesh(corners, faces, np.full((36, 3), 0.25, np.float32), flat)
    found = read_mesh(export_mesh(mesh, tmp_path / "flat.glb", {}))
    assert np.array_equal(found.normals, flat)  # along the axes: nothing is rounded
    smooth = read_mesh(export_mesh(mesh, tmp_path / "flat.ply", {}))  # whose reader welds and smooths
    # Three float32 components: two roundings of 6e-8.
    assert np.linalg.norm(smooth.normals, axis=1) == pytest.approx(1, abs=2.5e-7)
