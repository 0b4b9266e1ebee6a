# SPDX-License-Identifier: GPL-3.0-or-later
"""`generate --live-mesh`: a file of the growing prop, replaced as it grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamwright.backend.cli.main import main
from dreamwright.backend.cli.run_display import LiveMeshFile
from dreamwright.backend.errors import ExportError
from dreamwright.backend.geometry.live_mesh import LiveMesh
from dreamwright.backend.io import mesh_export
from dreamwright.backend.io.mesh_reader import read_mesh
from dreamwright.backend.training import live_meshes
from tests.testing.tiny_model import QUICK, save_tiny_model

SETTINGS = [part for setting in QUICK for part in ("--set", setting)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


def generate(model: str, out: Path, *extra: str) -> int:
    return main(["generate", "a red mushroom", "--model", model, "--out", str(out), *SETTINGS, *extra])


def test_live_mesh_is_replaced_while_the_prop_grows(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, replace = [], LiveMeshFile.replace

    def replace_and_read(self: LiveMeshFile, mesh: LiveMesh, step: int) -> None:
        replace(self, mesh, step)
        contents.append((step, read_mesh(tmp_path / "live.glb").faces.shape == mesh.faces.shape))

    monkeypatch.setattr(LiveMeshFile, "replace", replace_and_read)
    monkeypatch.setattr(live_meshes, "TIME_SHARE", 1e9)  # none waits, however slow the machine is
    live = ("--live-mesh", str(tmp_path / "live.glb"), "--set", "run.live_mesh_interval=2")
    assert generate(model, tmp_path / "prop.glb", *live) == 0
    assert contents == [(1, True), (3, True), (5, True)]
    assert (tmp_path / "prop.glb").is_file()


def test_a_live_mesh_that_cannot_be_written_is_one_warning(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export = mesh_export.export_mesh

    def fail(mesh: object, path: Path, provenance: object) -> Path:
        if path.name == "live.ply":
            raise ExportError("cannot write live.ply: No space left on device")
        return export(mesh, path, provenance)

    monkeypatch.setattr(mesh_export, "export_mesh", fail)
    live = ("--live-mesh", str(tmp_path / "live.ply"), "--set", "run.live_mesh_interval=1")
    assert generate(model, tmp_path / "prop.glb", *live) == 0
    errors = capsys.readouterr().err
    assert errors.count("cannot write the live mesh") == 1 and "No space left" in errors
    assert (tmp_path / "prop.glb").is_file()
