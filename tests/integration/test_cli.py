# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright generate`: files, options, resuming, and one-line errors with an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dreamwright.backend.cli.generate import job_from
from dreamwright.backend.cli.main import build_parser, main
from dreamwright.backend.guidance.denoisers import pixel
from dreamwright.backend.scenes.field_scene import FieldScene
from tests.testing.tiny_model import QUICK, save_tiny_model

SETTINGS = [part for setting in QUICK for part in ("--set", setting)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


def generate(model: str, out: Path, *extra: str, prompt: str = "a red mushroom") -> int:
    return main(["generate", prompt, "--model", model, "--out", str(out), *SETTINGS, *extra])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["glb", "ply", "obj"])
def test_prompt_becomes_a_mesh_file(
    model: str, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import trimesh

    out = tmp_path / f"prop.{suffix}"
    assert generate(model, out) == 0
    mesh = trimesh.load(out, force="mesh")
    assert len(mesh.faces) > 20
    # Coordinates of two ends are float32 (6e-8) or have six decimals (5e-7).
    assert mesh.extents[1 if suffix == "glb" else 2] == pytest.approx(1.0, abs=1.5e-6)  # mesh.height_m; glTF is Y up
    assert "watertight" in capsys.readouterr().out
    assert not out.with_name(out.name + ".work").exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_texture_is_an_image(model: str, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    import trimesh

    out = tmp_path / f"a prop.{suffix}"
    assert generate(model, out, "--texture", "64", "--previews", str(tmp_path / "seen")) == 0
    output = capsys.readouterr()
    assert "texture 64 x 64" in output.out and "texture: 100%" in output.err
    assert (tmp_path / "seen" / "turntable.png").is_file()
    files = {"a prop.obj", "a%20prop.mtl", "a%20prop_albedo.png"} if suffix == "obj" else {"a prop.glb"}
    assert {p.name for p in tmp_path.iterdir()} == {"seen", *files}
    material = trimesh.load(out, force="mesh").visual.material
    texture = material.baseColorTexture if suffix == "glb" else material.image
    assert texture.size == (64, 64)


@pytest.mark.slow
def test_previews_and_turntable(model: str, tmp_path: Path) -> None:
    assert generate(model, tmp_path / "a.ply", "--previews", str(tmp_path / "seen")) == 0
    assert sorted(p.name for p in (tmp_path / "seen").iterdir()) == [
        "step-000003.png",
        "step-000006.png",
        "turntable.png",
    ]


def test_glb_has_its_provenance(model: str, tmp_path: Path) -> None:
    out = tmp_path / "prop.glb"
    assert generate(model, out, "--seed", "5") == 0
    data = out.read_bytes()
    header = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    extras = json.dumps(header)
    assert '"a red mushroom"' in extras and '"draft"' in extras and '"seed": 5' in extras


MISTAKES = {
    "empty prompt": (["generate", "  "], ("empty",)),
    "endless prompt": (["generate", "x" * 10_000], ("10000", "1000")),
    "unknown word": (["generate", "a red mushrom"], ("'mushrom'", "mushroom", "knows")),
    "unknown preset": (["generate", "a red mushroom", "--preset", "ultra"], ("'ultra'", "draft")),
    "unknown model": (["generate", "a red mushroom", "--model", "imagen"], ("'imagen'", "starter")),
    "missing model folder": (["generate", "a red mushroom", "--model", "./nowhere"], ("./nowhere",)),
    "unknown field": (["generate", "a red mushroom", "--set", "field.kind=hash"], ("hash", "voxels")),
    "unknown setting": (["generate", "a red mushroom", "--set", "guidance.omga=3"], ("guidance.omega",)),
    "negative steps": (["generate", "a red mushroom", "--steps", "-5"], ("-5", "run.steps")),
    "huge seed": (["generate", "a red mushroom", "--seed", str(2**70)], ("run.seed",)),
    "unsupported output": (["generate", "a red mushroom", "--out", "prop.fbx"], (".fbx", ".glb")),
    "output in a missing folder": (["generate", "a red mushroom", "--out", "no/such/prop.glb"], ("no/such",)),
    "work folder is a file": (["generate", "a red mushroom", "--work", "prop.glb"], ("prop.glb", "--work")),
    "preview folder is a file": (["generate", "a red mushroom", "--previews", "prop.glb"], ("prop.glb", "--previews")),
    "no field to begin from": (["generate", "a red mushroom", "--from", "nowhere"], ("nowhere", "--keep-work")),
    "beginning from its own work folder": (
        ["generate", "a red mushroom", "--work", "here", "--from", "here"],
        ("here", "--work"),
    ),
    "texture of a few texels": (["generate", "a red mushroom", "--texture", "16"], ("16", "64", "4096")),
    "texture in a ply": (
        ["generate", "a red mushroom", "--out", "prop.ply", "--texture", "64"],
        (".ply", ".glb", ".obj", "--texture"),
    ),
    "texture by --set in a ply": (
        ["generate", "a red mushroom", "--out", "prop.ply", "--set", "mesh.texture=64"],
        (".ply", "mesh.texture"),
    ),
    "nothing to resume": (["generate", "a red mushroom", "--resume"], ("no checkpoint", "--resume")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_arguments_are_one_line_errors(
    mistake: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prop.glb").write_bytes(b"precious")
    arguments, words = MISTAKES[mistake]
    if "--model" not in arguments:
        arguments = [*arguments, "--model", model]
    assert main(arguments) == 2
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("dreamwright: error: ")
    assert all(word in lines[0] for word in words)
    assert (tmp_path / "prop.glb").read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["prop.glb"]


def test_unfinished_run_is_not_overwritten(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "prop.glb"
    assert generate(model, out, "--keep-work") == 0
    assert generate(model, out) == 2
    assert "--resume" in capsys.readouterr().err
    assert generate(model, out, "--resume") == 0


def test_success_deletes_only_the_checkpoints(model: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    assert generate(model, tmp_path / "prop.ply", "--work", str(mine)) == 0
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]


def test_field_can_be_finetuned_to_another_prompt(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(model, tmp_path / "first.glb", "--keep-work") == 0
    assert (
        generate(model, tmp_path / "second.glb", "--from", str(tmp_path / "first.glb.work"), prompt="a blue mushroom")
        == 0
    )
    data = (tmp_path / "second.glb").read_bytes()
    extras = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["asset"]["extras"]
    assert (extras["prompt"], extras["finetuned_from"]) == ("a blue mushroom", "a red mushroom")
    assert (tmp_path / "first.glb.work").exists() and not (tmp_path / "second.glb.work").exists()


def test_texture_overrides_set() -> None:
    parser = build_parser()
    common = ["generate", "a red mushroom", "--set", "mesh.texture=128"]
    assert job_from(parser.parse_args(common)).config.mesh.texture == 128
    assert job_from(parser.parse_args([*common, "--texture", "0"])).config.mesh.texture == 0
    assert job_from(parser.parse_args(common[:2])).config.mesh.texture == 0


def test_steps_and_seed_override_set() -> None:
    parser = build_parser()
    common = ["generate", "a red mushroom", "--set", "run.steps=6", "--set", "run.seed=4"]
    run = job_from(parser.parse_args(common)).config.run
    assert (run.steps, run.seed) == (6, 4)
    run = job_from(parser.parse_args([*common, "--steps", "4000", "--seed", "0"])).config.run
    assert (run.steps, run.seed) == (4000, 0)


def test_ctrl_c_without_a_surface_keeps_the_checkpoint(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step = FieldScene.train_step

    def interrupted(self: FieldScene) -> dict[str, float]:
        scalars = train_step(self)
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return scalars

    monkeypatch.setattr(FieldScene, "train_step", interrupted)
    out = tmp_path / "prop.ply"
    out.write_bytes(b"precious")
    assert generate(model, out, "--steps", "60", "--set", "mesh.threshold=1000000") == 130
    errors = capsys.readouterr().err
    assert "no mesh yet" in errors and "--resume" in errors
    assert out.read_bytes() == b"precious" and (tmp_path / "prop.ply.work" / "checkpoint.safetensors").is_file()


def test_foreign_checkpoint_is_refused(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "prop.glb"
    assert generate(model, out, "--keep-work") == 0
    made = out.read_bytes()
    capsys.readouterr()
    assert generate(model, out, "--resume", prompt="a blue chair") == 2
    assert "another run" in capsys.readouterr().err
    assert out.read_bytes() == made


def test_nan_from_the_guidance_fails_the_run(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel.PixelDiffusion, "predict_raw", lambda self, z_t, t, conditioning: z_t * float("nan"))
    out = tmp_path / "prop.glb"
    out.write_bytes(b"precious")
    assert generate(model, out) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dreamwright: error: ")]
    assert len(error) == 1 and "NaN" in error[0]
    assert out.read_bytes() == b"precious"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_out_of_memory_fails_with_advice(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[Exception],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("tried to allocate 80 GiB\nand a long report")

    monkeypatch.setattr(pixel.PixelDiffusion, "predict_raw", fail)
    assert generate(model, tmp_path / "a.glb") == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "80 GiB" in line and "--resume" in line and "render.samples" in line and "report" not in line


@pytest.mark.slow
def test_ctrl_c_keeps_a_resumable_checkpoint(model: str, tmp_path: Path) -> None:
    """A separate process gets a real SIGINT. Resuming then finishes the run."""
    out = tmp_path / "prop.ply"
    command = [sys.executable, "-m", "dreamwright.backend.cli.main", "generate", "a red mushroom", "--model", model]
    command += ["--out", str(out), *SETTINGS, "--steps", "4000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    work = tmp_path / "prop.ply.work"
    deadline = time.monotonic() + 120
    while not (work / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert out.stat().st_size > 500 and (work / "checkpoint.safetensors").is_file()
    assert "--resume" in errors and "Traceback" not in errors


@pytest.mark.slow
def test_errors_of_a_process_have_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dreamwright.backend.cli.main", "generate", "", "--out", str(tmp_path / "x.glb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_models_and_doctor_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "starter" in capsys.readouterr().out
    assert main(["doctor"]) in (0, 1)
    output = capsys.readouterr().out
    assert f"torch {torch.__version__}" in output and "nerfacc" in output and "memory" in output


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0 and "dreamwright" in capsys.readouterr().out
