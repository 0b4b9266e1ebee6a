# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright refine`: input and output files, kept properties, Ctrl-C and resume, and one-line errors."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dreamwright.backend.cli.main import main
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.geometry.color import display_to_linear
from dreamwright.backend.io.mesh_export import export_mesh
from dreamwright.backend.io.mesh_reader import read_input_mesh
from tests.testing.primitive_meshes import icosphere
from tests.testing.tiny_model import ONE_VIEW, save_tiny_model

QUICK = [
    part
    for setting in (
        *ONE_VIEW,
        "run.steps=4",
        "run.checkpoint_interval=2",
        "run.preview_interval=2",
        "render.resolution=16",
    )
    for part in ("--set", setting)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


def colored_ball() -> Mesh:
    vertices, faces = icosphere(2, 0.8)
    rng = np.random.default_rng(0)
    where = (vertices + np.array([2.0, -1.0, 0.5])).astype(np.float32)
    return Mesh(
        where,
        faces.astype(np.int32),
        rng.uniform(size=where.shape).astype(np.float32),
        (vertices / 0.8).astype(np.float32),
    )


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    return export_mesh(colored_ball(), tmp_path / "ball.glb", {"prompt": "a ball"})


def refine(model: str, mesh: Path, out: Path, *extra: str, prompt: str = "a red mushroom") -> int:
    return main(["refine", str(mesh), prompt, "--model", model, "--out", str(out), *QUICK, *extra])


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_mesh_file_round_trip(suffix: str, tmp_path: Path) -> None:
    """Positions and faces bitwise from .glb and .ply; colors exactly from .glb, to 8 bits or less from the others."""
    mesh = colored_ball()
    subject = read_input_mesh(export_mesh(mesh, tmp_path / f"ball{suffix}", {}))
    assert np.array_equal(subject.faces, mesh.faces)
    # An OBJ's decimals are rounded to float32 again: half a unit of 2.8 is 1.2e-7, twice that.
    assert np.allclose(subject.vertices, mesh.vertices, rtol=0, atol=0 if suffix != ".obj" else 2.5e-7)
    # Half a level of 8 bits is 0.002 in sRGB, times the curve's slope of at most 2.4 / 1.055 = 2.3: 0.0045 linear.
    assert np.abs(subject.albedo - mesh.albedo).max() <= (0 if suffix == ".glb" else 0.005)


def test_nodes_of_a_y_up_file_are_joined(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    box = trimesh.creation.box((1, 2, 3))
    box.visual.vertex_colors = np.tile([255, 0, 0, 255], (8, 1))
    scene.add_geometry(box, geom_name="second by name", node_name="z")
    scene.add_geometry(
        trimesh.creation.box((1, 1, 1)),
        geom_name="first by name",
        node_name="a",
        transform=trimesh.transformations.translation_matrix([0, 5, 0]),
    )
    path = tmp_path / "two.glb"
    path.write_bytes(scene.export(file_type="glb"))
    subject = read_input_mesh(path)
    assert (len(subject.vertices), len(subject.faces)) == (16, 24)
    assert subject.vertices.min(0).tolist() == [-0.5, -1.5, -1.0] and subject.vertices.max(0).tolist() == [
        0.5,
        1.5,
        5.5,
    ]
    assert subject.albedo[0].tolist() == [1.0, 0.0, 0.0]  # the file's first mesh first
    assert subject.albedo[-1] == pytest.approx(float(display_to_linear(np.array(0.5))), rel=1.2e-7)  # float32
    assert read_input_mesh(path, "z").vertices.max(0).tolist() == [0.5, 5.5, 1.5]


@pytest.mark.parametrize("suffix", ["glb", "ply"])
def test_refine_keeps_faces_and_records_provenance(
    model: str, ball: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"refined.{suffix}"
    assert refine(model, ball, out, "--strength", "0.8", "--seed", "5", "--previews", str(tmp_path / "seen")) == 0
    before, after = read_input_mesh(ball), read_input_mesh(out)
    assert np.array_equal(before.faces, after.faces) and before.vertices.shape == after.vertices.shape
    # At most strength x reach (half) x the ball's radius of 0.8.
    assert 0 < np.abs(before.vertices - after.vertices).max() < 0.8 * 0.5 * 0.8 and not np.array_equal(
        before.albedo, after.albedo
    )
    assert (
        b'"strength": 0.8' in out.read_bytes()
        or b'"strength":0.8' in out.read_bytes()
        or b"strength: 0.8" in out.read_bytes()
    )
    assert "320 triangles, 162 vertices as before" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "seen").iterdir()) == [
        "step-000002.png",
        "step-000004.png",
        "turntable.png",
    ]
    assert not out.with_name(out.name + ".work").exists()


def test_strength_0_writes_the_same_mesh_bitwise(model: str, ball: Path, tmp_path: Path) -> None:
    assert refine(model, ball, tmp_path / "same.glb", "--strength", "0") == 0
    before, after = read_input_mesh(ball), read_input_mesh(tmp_path / "same.glb")
    assert all(
        getattr(before, name).tobytes() == getattr(after, name).tobytes() for name in ("vertices", "faces", "albedo")
    )


MIRRORED = {
    "asset": {"version": "2.0"},
    "nodes": [{"mesh": 0, "scale": [-2, 1, 3], "translation": [1e6, 0, 0]}],
    "scenes": [{"nodes": [0]}],
    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
    "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [0.25, 0.5, 0.75, 1]}}],
    "accessors": [
        {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
        {"bufferView": 0, "byteOffset": 48, "componentType": 5121, "count": 12, "type": "SCALAR"},
    ],
    "bufferViews": [{"buffer": 0, "byteLength": 60}],
}
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "<f4")
GIVEN_FILES = {
    "concave.obj": b"mtllib gone.mtl\nusemtl a\nv 1e5 0 0\nv 100002 0 0\nv 100001 0.25 0\nv 100001 2 0\nf 1 2 3 4\n",
    "quads.ply": b"ply\nformat ascii 1.0\nelement vertex 4\nproperty double x\nproperty double y\nproperty double z\n"
    b"property uchar r\nproperty uchar g\nproperty uchar b\nelement face 1\nproperty list uchar int vertex_index\n"
    b"end_header\n0 0 0 255 0 0\n0.1 0 0 0 255 0\n0.1 0.1 0 0 0 255\n0 0.1 0 9 9 9\n4 0 1 2 3\n",
    "mirrored.gltf": b"",
}


@pytest.mark.parametrize("name", GIVEN_FILES)
def test_strength_0_keeps_files_of_other_programs(
    name: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(GIVEN_FILES[name])
    if name.endswith(".gltf"):
        blob = CORNERS.tobytes() + bytes([0, 2, 1, 0, 1, 3, 1, 2, 3, 0, 3, 2])
        uri = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
        (tmp_path / name).write_text(json.dumps({**MIRRORED, "buffers": [{"byteLength": 60, "uri": uri}]}))
    assert refine(model, tmp_path / name, tmp_path / "same.obj", "--strength", "0") == 0
    before, after = read_input_mesh(tmp_path / name), read_input_mesh(tmp_path / "same.obj")
    assert np.array_equal(before.faces, after.faces) and np.array_equal(before.vertices, after.vertices)
    # An OBJ's colors have five decimals, half a unit of which is 5e-6; float32 adds 6e-8.
    assert np.abs(before.display - after.display).max() < 5.2e-6
    assert ("'gone.mtl' is missing" in capsys.readouterr().err) == (name == "concave.obj")


def test_interrupted_refine_resumes_bitwise(
    model: str, ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dreamwright.backend.scenes.mesh_scene import MeshScene

    assert refine(model, ball, tmp_path / "whole.glb") == 0
    plain = MeshScene.train_step

    def interrupted(self: MeshScene) -> dict[str, float]:
        figures = plain(self)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return figures

    out = tmp_path / "broken.glb"
    monkeypatch.setattr(MeshScene, "train_step", interrupted)
    assert refine(model, ball, out) == 130 and out.is_file()
    monkeypatch.setattr(MeshScene, "train_step", plain)
    assert refine(model, ball, out) == 2 and "--resume" in capsys.readouterr().err
    assert refine(model, ball, out, "--resume") == 0
    first, second = read_input_mesh(tmp_path / "whole.glb"), read_input_mesh(out)
    assert first.vertices.tobytes() == second.vertices.tobytes() and first.albedo.tobytes() == second.albedo.tobytes()


MISTAKES = {
    "missing mesh": (["nothing.glb", "a red mushroom"], ("nothing.glb", "No such file")),
    "no mesh": (["text.glb", "a red mushroom"], ("text.glb", "export it again")),
    "another kind": (["text.fbx", "a red mushroom"], ("text.fbx", ".glb", "convert")),
    "no triangles": (["points.ply", "a red mushroom"], ("points.ply", "no triangles")),
    "empty prompt": (["ball.glb", " "], ("empty",)),
    "unknown word": (["ball.glb", "a red mushrom"], ("'mushrom'", "mushroom")),
    "too strong": (["ball.glb", "a red mushroom", "--strength", "2"], ("refine.strength", "0 to 1")),
    "setting of a field": (
        ["ball.glb", "a red mushroom", "--set", "field.kind=mip-mlp"],
        ("field.kind", "the refinement of a mesh", "docs/user/settings.md"),
    ),
    "unsupported output": (["ball.glb", "a red mushroom", "--out", "prop.fbx"], (".fbx", ".glb")),
    "nothing to resume": (["ball.glb", "a red mushroom", "--resume"], ("no checkpoint", "--resume")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_arguments_are_one_line_errors_with_exit_code_2(
    mistake: str,
    model: str,
    ball: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text.glb", "text.fbx"):
        (tmp_path / name).write_text("no mesh at all")
    (tmp_path / "points.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\n"
        "property float x\nproperty float y\nproperty float z\nend_header\n0 0 0\n"
    )
    before = sorted(p.name for p in tmp_path.iterdir())
    arguments, words = MISTAKES[mistake]
    assert main(["refine", *arguments, "--model", model]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("dreamwright: error: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_generate_refuses_settings_of_a_refinement(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "generate",
                "a red mushroom",
                "--model",
                model,
                "--out",
                str(tmp_path / "a.glb"),
                "--set",
                "refine.strength=1",
            ]
        )
        == 2
    )
    assert "refine.strength means nothing to dreamfusion" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_damaged_glb_is_a_one_line_error(cut: float, ball: Path) -> None:
    data = ball.read_bytes()
    ball.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(ConfigError, match="export it again") as caught:
        read_input_mesh(ball)
    assert "\n" not in str(caught.value) and json.dumps(str(caught.value))
