# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright finish`: its files, their names and figures, the Khronos validator, FBX in a Blender, and faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from dreamwright.backend.cli.main import main
from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.geometry.topology import Surface, vertex_normals
from dreamwright.backend.io.mesh_export import export_mesh
from tests.testing.exported_files import glb_json, khronos_report
from tests.testing.primitive_meshes import grid, icosphere

QUICK = ("--triangles", "300", "--texture", "64", "--set", "finish.levels=2", "--set", "finish.hulls=1")
needs_bpy = pytest.mark.skipif(find_spec("bpy") is None, reason="bpy is not installed (extra: blender)")


def write(path: Path, vertices: np.ndarray, faces: np.ndarray) -> Path:
    """A mesh file with colors by position."""
    normals = vertex_normals(Surface(vertices, faces)).astype(np.float32)
    albedo = np.clip(vertices + 0.5, 0, 1).astype(np.float32)
    return export_mesh(Mesh(vertices.astype(np.float32), faces.astype(np.int32), albedo, normals), path, {})


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    return write(tmp_path / "a red ball.glb", *icosphere(4, 0.5))


def finish(mesh: Path, out: Path, *options: str) -> int:
    return main(["finish", str(mesh), "--out", str(out), *options])


@needs_bpy
@pytest.mark.slow
def test_files_of_the_game_preset(ball: Path, tmp_path: Path) -> None:
    """Names as Unity and Unreal Engine want them, in one glTF of levels, one of hulls, and an FBX."""
    out = tmp_path / "new" / "folder"
    assert finish(ball, out, *QUICK, "--roughness", "0.3", "--metallic", "1", "--height", "2", "--fbx") == 0
    name = "a_red_ball"
    maps = {f"{name}_LOD{level}_{kind}.png" for level in range(3) for kind in ("albedo", "normal")}
    assert {path.name for path in out.iterdir()} == {
        *maps, f"{name}.glb", f"{name}.fbx", f"{name}.json", f"{name}_collision.glb"
    }  # fmt: skip
    document = glb_json(out / f"{name}.glb")
    assert [node["name"] for node in document["nodes"]] == [f"{name}_LOD{level}" for level in range(3)]
    assert document["scenes"][0]["nodes"] == [0]
    assert document["nodes"][0]["extensions"]["MSFT_lod"]["ids"] == [1, 2]
    coverage = document["nodes"][0]["extras"]["MSFT_screencoverage"]
    assert 1 > coverage[0] >= coverage[1] > coverage[2] == 0
    for material in document["materials"]:
        assert material["pbrMetallicRoughness"]["roughnessFactor"] == 0.3
        assert material["pbrMetallicRoughness"]["metallicFactor"] == 1
        assert "normalTexture" in material
    hulls = glb_json(out / f"{name}_collision.glb")
    assert [node["name"] for node in hulls["nodes"]] == [f"UCX_{name}_LOD0_00"]
    report = json.loads((out / f"{name}.json").read_text())
    assert report["steps"]["pivot"]["height_m"] == pytest.approx(2)
    counts = [level["triangles"] for level in report["levels"]]
    assert counts[0] <= 300 and counts[1] <= 150 and counts[2] <= 75
    finest = report["levels"][0]
    assert 0 < finest["hausdorff"] < 0.05 and finest["shading_deg"] < finest["shading_deg_without_map"]
    for file in (f"{name}.glb", f"{name}_collision.glb"):
        issues = khronos_report(out / file)["issues"]
        assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]
    check_fbx(out / f"{name}.fbx", name)


def check_fbx(path: Path, name: str) -> None:
    """A Blender reads the levels under one parent, in meters, and the hull."""
    script = (
        "import bpy, json, sys\n"
        "bpy.ops.wm.read_factory_settings(use_empty=True)\n"
        "bpy.ops.import_scene.fbx(filepath=sys.argv[1])\n"
        "print('FOUND ' + json.dumps({o.name: [o.parent.name if o.parent else '', *map(float, o.dimensions)]"
        " for o in bpy.data.objects}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=200)
    assert "FOUND " in done.stdout, done.stderr
    found = json.loads(done.stdout.partition("FOUND ")[2].splitlines()[0])
    assert set(found) == {name, *(f"{name}_LOD{level}" for level in range(3)), f"UCX_{name}_LOD0_00"}
    for level in range(3):
        parent, *size = found[f"{name}_LOD{level}"]
        assert parent == name
        assert size == pytest.approx([2, 2, 2], rel=0.15)  # a coarse ball's corners reach in by the sagitta


@needs_bpy
@pytest.mark.slow
def test_quads_and_textures_of_the_fbx(ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Most faces are quads, as is said; each level has its own two textures."""
    assert finish(ball, tmp_path, *QUICK, "--set", "finish.layout=even", "--fbx", "--quads", "--name", "ball") == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("quads in the FBX: ")]
    script = (
        "import bpy, json, sys\n"
        "bpy.ops.wm.read_factory_settings(use_empty=True)\n"
        "bpy.ops.import_scene.fbx(filepath=sys.argv[1])\n"
        "levels = [bpy.data.objects[f'ball_LOD{number}'].data for number in range(3)]\n"
        "sides = [[len(face.vertices) for face in one.polygons] for one in levels]\n"
        "nodes = [[node for node in one.materials[0].node_tree.nodes if node.type == 'TEX_IMAGE'] for one in levels]\n"
        "print('FOUND ' + json.dumps([sides, [sorted(node.image.name for node in one) for one in nodes]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "ball.fbx")], capture_output=True, text=True, timeout=200
    )
    assert "FOUND " in done.stdout, done.stderr
    sides, images = json.loads(done.stdout.partition("FOUND ")[2].splitlines()[0])
    shares = [one.count(4) / len(one) for one in sides]
    assert shares[0] > 0.5
    assert line == f"quads in the FBX: {', '.join(f'{100 * share:.0f}%' for share in shares)} of each level's faces"
    assert images == [[f"ball_LOD{number}_albedo", f"ball_LOD{number}_normal"] for number in range(3)]


def test_steps_alone(ball: Path, tmp_path: Path) -> None:
    """Only the pivot: the same triangles and vertex colors; uv and bake: a texture on the given triangles."""
    assert finish(ball, tmp_path / "pivot", "--only", "pivot", "--name", "Ball!") == 0
    assert {path.name for path in (tmp_path / "pivot").iterdir()} == {"Ball.glb", "Ball.json"}
    document = glb_json(tmp_path / "pivot" / "Ball.glb")
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    assert set(attributes) == {"POSITION", "NORMAL", "COLOR_0"} and "extensionsUsed" not in document
    # Y up in the file: the base at zero.
    assert document["accessors"][attributes["POSITION"]]["min"][1] == pytest.approx(0, abs=1e-6)
    assert finish(ball, tmp_path / "bake", "--only", "remesh", "--only", "bake", *QUICK) == 0
    document = glb_json(tmp_path / "bake" / "a_red_ball.glb")
    assert set(document["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "NORMAL", "TANGENT", "TEXCOORD_0"}


def test_faults_are_one_sentence_and_leave_nothing(
    ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = write(tmp_path / "line.ply", np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for mesh, out, options, said in (
        (line, tmp_path / "line", (), "none of the mesh's 1 triangles has an area"),
        (ball, taken, (), "it is a file; give the name of a folder"),
        (ball, tmp_path / "ball", ("--roughness", "2"), "finish.roughness is 2; allowed is 0 to 1"),
        (ball, tmp_path / "quads", ("--quads",), "--quads is given without --fbx"),
        (tmp_path / "none.glb", tmp_path / "none", (), "No such file"),
        (ball, tmp_path / "shape", (*QUICK, "--set", "finish.deviation=0.0001"), "collapses at a budget of 300"),
    ):
        assert finish(mesh, out, *options) in (1, 2)
        error = [text for text in capsys.readouterr().err.splitlines() if text.startswith("dreamwright: error: ")]
        assert len(error) == 1 and said in error[0]
        assert not out.is_dir()
    assert taken.read_text() == "mine"


def test_read_only_folder_is_refused_before_the_work(
    ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    if os.access(locked, os.W_OK):  # root may write in every folder but the kernel's own
        locked = Path("/proc")
    assert finish(ball, locked) == 2
    assert "takes no files" in capsys.readouterr().err


def test_mesh_without_volume_is_finished_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plane = write(tmp_path / "plane.ply", *grid(12))
    assert finish(plane, tmp_path / "out", *QUICK, "--only", "remesh", "--only", "collision") == 0
    said = capsys.readouterr().err
    assert "encloses no volume" in said and "its collision is a slab" in said
    assert (tmp_path / "out" / "plane_collision.glb").is_file()
