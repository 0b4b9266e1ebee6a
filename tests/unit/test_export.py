# SPDX-License-Identifier: GPL-3.0-or-later
"""Exported files hold what the mesh holds, pass the Khronos validator, show color in Blender, and keep the old file on
failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dreamwright.backend.config.schema import MeshConfig
from dreamwright.backend.errors import ExportError
from dreamwright.backend.geometry.build import Mesh, build_mesh
from dreamwright.backend.geometry.color import linear_to_display
from dreamwright.backend.io import output_files
from dreamwright.backend.io.gltf_writer import to_y_up
from dreamwright.backend.io.mesh_export import check_output_path, export_mesh
from tests.testing.analytic_fields import AnalyticField, torus
from tests.testing.exported_files import PROVENANCE, glb_json, khronos_report


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    field = AnalyticField(torus(0.3, 0.12), lambda mu: (mu + 0.5).clamp(0, 1))
    return build_mesh(field, MeshConfig(resolution=32, triangles=800, height_m=0.3))[0]


@pytest.fixture(scope="module")
def files(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("export")
    return {suffix: export_mesh(mesh, folder / f"prop{suffix}", PROVENANCE) for suffix in (".glb", ".ply", ".obj")}


@pytest.mark.parametrize("wide", [False, True])
def test_glb_passes_the_khronos_validator(mesh: Mesh, files: dict[str, Path], tmp_path: Path, wide: bool) -> None:
    path = files[".glb"]
    if wide:  # more than 65535 vertices need 32-bit indices
        copies = 65536 // len(mesh.vertices) + 1
        shift = len(mesh.vertices) * np.arange(copies, dtype=np.int32)
        big = Mesh(
            np.tile(mesh.vertices, (copies, 1)),
            (mesh.faces[None] + shift[:, None, None]).reshape(-1, 3),
            np.tile(mesh.albedo, (copies, 1)),
            np.tile(mesh.normals, (copies, 1)),
        )
        path = export_mesh(big, tmp_path / "big.glb", {})
    report = khronos_report(path)
    assert report["issues"]["numErrors"] == 0, report["issues"]
    assert report["issues"]["numWarnings"] == 0, report["issues"]
    assert report["info"]["totalTriangleCount"] == (len(mesh.faces) if not wide else copies * len(mesh.faces))


def test_glb_holds_its_provenance(files: dict[str, Path]) -> None:
    document = glb_json(files[".glb"])
    assert document["asset"]["extras"] == PROVENANCE == document["nodes"][0]["extras"]
    assert document["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0.0
    assert document["meshes"][0]["primitives"][0]["attributes"].keys() == {"POSITION", "NORMAL", "COLOR_0"}


def test_glb_round_trip_through_trimesh(mesh: Mesh, files: dict[str, Path]) -> None:
    scene = trimesh.load(files[".glb"], process=False)
    (loaded,) = scene.geometry.values()
    assert loaded.is_watertight and loaded.is_winding_consistent and loaded.volume > 0
    assert np.array_equal(loaded.faces, mesh.faces)
    assert np.array_equal(loaded.vertices.astype(np.float32), to_y_up(mesh.vertices).astype(np.float32))
    colors = np.asarray(loaded.visual.vertex_attributes["color"])
    colors = colors / 255.0 if colors.dtype.kind in "ui" else colors
    # trimesh may cut colors to eight bits, by less than a level.
    assert np.abs(colors[:, :3] - mesh.albedo).max() < 1 / 255 and (colors[:, 3] == 1).all()
    # float32 coordinates below 1: a few roundings of 6e-8.
    assert loaded.vertices[:, 1].min() == pytest.approx(0, abs=1e-6)  # stands on the ground in glTF's Y up


def test_ply_round_trip_through_trimesh(mesh: Mesh, files: dict[str, Path]) -> None:
    loaded = trimesh.load(files[".ply"], process=False)
    assert np.array_equal(loaded.faces, mesh.faces) and np.array_equal(
        loaded.vertices.astype(np.float32), mesh.vertices
    )
    # Colors are rounded to eight bits, by half a level; 1e-6 for float32.
    assert np.abs(loaded.visual.vertex_colors[:, :3] / 255.0 - linear_to_display(mesh.albedo)).max() < 0.5 / 255 + 1e-6
    # trimesh normalizes the float32 normals again: a few roundings of 6e-8.
    assert np.abs(loaded.vertex_normals - mesh.normals).max() < 1e-6
    header = files[".ply"].read_bytes().split(b"end_header")[0].decode("ascii")
    assert 'comment prompt: "a \\"red\\"\\nmushroom \\u00e9"\n' in header and "comment seed: 7\n" in header


def test_obj_holds_colors_and_normals(mesh: Mesh, files: dict[str, Path]) -> None:
    rows = [line.split() for line in files[".obj"].read_text(encoding="ascii").splitlines()]
    points = np.array([[float(value) for value in row[1:]] for row in rows if row[0] == "v"])
    normals = np.array([[float(value) for value in row[1:]] for row in rows if row[0] == "vn"])
    faces = np.array([[int(value.split("//")[0]) for value in row[1:]] for row in rows if row[0] == "f"]) - 1
    # At least six decimals of a coordinate, and five of a color or normal: half of the last one, and float32.
    assert points[:, :3] == pytest.approx(mesh.vertices, abs=0.6e-6)
    assert points[:, 3:] == pytest.approx(linear_to_display(mesh.albedo), abs=0.6e-5)
    assert normals == pytest.approx(mesh.normals, abs=0.6e-5) and np.array_equal(faces, mesh.faces)
    assert trimesh.load(files[".obj"], process=False).is_watertight


BLENDER_SCRIPT = """
import bpy, json, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[1])
(thing,) = bpy.data.objects
data = thing.data
attribute = data.color_attributes.active_color
node = next(n for n in data.materials[0].node_tree.nodes if n.type == "BSDF_PRINCIPLED")
link = node.inputs["Base Color"].links[0]
corner = attribute.domain == "CORNER"
colors = [None] * len(data.vertices)
for loop in data.loops:
    colors[loop.vertex_index] = list(attribute.data[loop.index if corner else loop.vertex_index].color)
print("REPORT" + json.dumps({
    "name": thing.name, "properties": {key: thing[key] for key in thing.keys()},
    "default": data.color_attributes[data.color_attributes.render_color_index].name,
    "attribute": [attribute.name, attribute.domain, attribute.data_type],
    "wired": [link.from_node.bl_idname, link.from_node.layer_name, link.from_socket.name],
    "metallic": node.inputs["Metallic"].default_value, "roughness": node.inputs["Roughness"].default_value,
    "points": [list(thing.matrix_world @ v.co) for v in data.vertices], "colors": colors,
    "faces": len(data.polygons)}))
"""


def test_blender_connects_colors_to_base_color(mesh: Mesh, files: dict[str, Path]) -> None:
    """Blender 4.5 makes a byte color attribute "Color" on face corners and links it to Principled Base Color."""
    if find_spec("bpy") is None:
        pytest.skip("bpy is not installed (pip install dreamwright[blender]): Blender's importer was not tried")
    result = subprocess.run(
        [sys.executable, "-c", BLENDER_SCRIPT, str(files[".glb"])], capture_output=True, text=True, timeout=200
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("REPORT")]
    assert lines, result.stdout + result.stderr
    report = json.loads(lines[0][len("REPORT") :])
    assert report["attribute"] == ["Color", "CORNER", "BYTE_COLOR"]
    # The node names no layer: it shows the object's default color attribute, which is the exported one.
    assert report["wired"] == ["ShaderNodeVertexColor", "", "Color"] and report["default"] == "Color"
    assert report["metallic"] == 0.0 and report["roughness"] == pytest.approx(0.95, abs=1e-7)  # float32
    assert report["name"] == 'a "red" mushroom é' and report["properties"] == PROVENANCE
    assert report["faces"] == len(mesh.faces)
    # Z is up again, the front is at -Y, the size is in metres.
    # float32 coordinates below 1, turned twice: a few roundings of 6e-8.
    assert np.array(report["points"]) == pytest.approx(mesh.vertices, abs=1e-6)
    # `.color` is linear; the attribute keeps 8 bits of display sRGB: half a level, and one for the importer's rounding.
    shown = linear_to_display(np.array(report["colors"])[:, :3])
    assert np.abs(shown - linear_to_display(mesh.albedo)).max() < 1.5 / 255


@pytest.mark.parametrize("name", ["prop.stl", "prop", "prop.glb.gz", ".glb"])
def test_unsupported_extension_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=r"\.glb, \.ply, \.obj") as caught:
        check_output_path(tmp_path / name)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_unusable_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.glb").mkdir()
    with pytest.raises(ExportError, match="is a directory"):
        check_output_path(tmp_path / "folder.glb")
    with pytest.raises(ExportError, match="no folder"):
        check_output_path(tmp_path / "missing" / "prop.glb")

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(
        output_files.tempfile, "TemporaryFile", refuse
    )  # root may write anywhere, so the error is simulated
    with pytest.raises(ExportError, match="takes no files .Permission denied"):
        check_output_path(tmp_path / "prop.glb")


def test_checking_a_path_leaves_no_file(tmp_path: Path) -> None:
    assert check_output_path(str(tmp_path / "PROP.GLB")) == tmp_path / "PROP.GLB"
    assert list(tmp_path.iterdir()) == []


def test_failed_export_keeps_the_old_file(mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prop.glb"
    path.write_bytes(b"precious")
    with pytest.raises(ExportError, match="no JSON"):
        export_mesh(mesh, path, {"loss": float("nan")})
    with pytest.raises(ExportError, match="no JSON"):
        export_mesh(mesh, path, {"what": object()})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output_files.os, "replace", full)
    with pytest.raises(ExportError, match="No space left"):
        export_mesh(mesh, path, {})
    monkeypatch.undo()
    assert path.read_bytes() == b"precious" and list(tmp_path.iterdir()) == [path]
    export_mesh(mesh, path, {})
    assert path.read_bytes()[:4] == b"glTF" and list(tmp_path.iterdir()) == [path]
