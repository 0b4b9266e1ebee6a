# SPDX-License-Identifier: GPL-3.0-or-later
"""Output that cannot be written: closed pipes, full disks, other encodings, deleted folders; and unexpected errors."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.cli import doctor, run_display, training_run
from dreamwright.backend.cli import main as main_module
from dreamwright.backend.cli.main import main
from dreamwright.backend.cli.run_display import PreviewFolder
from dreamwright.backend.cli.streams import SafeStream, safe_streams
from dreamwright.backend.errors import CheckpointError, ExportError
from dreamwright.backend.io import mesh_export
from dreamwright.backend.training import checkpoints
from tests.testing.tiny_model import QUICK, save_tiny_model

SETTINGS = [part for setting in QUICK for part in ("--set", setting)]
MODULE = [sys.executable, "-m", "dreamwright.backend.cli.main"]
LIMIT_S = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


def generate(model: str, out: Path, *extra: str) -> int:
    return main(["generate", "a red mushroom", "--model", model, "--out", str(out), *SETTINGS, *extra])


class FailingStream(io.StringIO):
    """A stream whose writes raise an OSError, as on a closed pipe or a full disk."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["models"], ["keys", "--help"], ["--help"], ["doctor"]])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_pipe_ends_quietly(arguments: list[str], stream: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
    done = subprocess.run([*MODULE, *arguments], text=True, timeout=LIMIT_S, **pipes)
    os.close(writer)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("arguments", [["models"], ["keys", "list", "--state", "."]])
def test_full_disk_is_one_line_for_commands_that_print(arguments: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*MODULE, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S, cwd=tmp_path
        )
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left on device" in done.stderr


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_output_that_fails_does_not_fail_a_run(
    number: int, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", FailingStream(number))
    monkeypatch.setattr(sys, "stderr", FailingStream(number))
    assert generate(model, tmp_path / "prop.glb") == 0
    assert (tmp_path / "prop.glb").is_file() and not (tmp_path / "prop.glb.work").exists()


def test_started_with_closed_descriptors(tmp_path: Path) -> None:
    """With `>&- 2>&-` the next opened file must not become the standard output."""
    command = [*MODULE, "models"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *command], timeout=LIMIT_S, cwd=tmp_path)
    assert done.returncode == 0 and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda environment: " ".join(f"{name}={value}" for name, value in environment.items()),
)
def test_encodings_without_the_characters_of_a_file_name(
    environment: dict[str, str], model: str, tmp_path: Path
) -> None:
    command = [
        *MODULE,
        "generate",
        "a red mushroom",
        "--model",
        model,
        "--out",
        "红蘑菇.glb",
        *SETTINGS,
        "--steps",
        "2",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, timeout=LIMIT_S
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert os.fsencode("红蘑菇.glb") in os.listdir(os.fsencode(tmp_path))
    assert b".glb: " in done.stdout


@given(st.text(max_size=200), st.sampled_from(["ascii", "cp1252", "utf-8", "shift_jis"]))
def test_any_text_can_be_written_in_any_encoding(text: str, encoding: str) -> None:
    data = io.BytesIO()
    stream = SafeStream(io.TextIOWrapper(data, encoding=encoding))
    assert stream.write(text) == len(text)
    stream.flush()
    assert stream.failure is None
    if encoding == "utf-8" and text.isascii():
        assert data.getvalue() == text.replace("\n", os.linesep).encode()


def test_streams_are_restored() -> None:
    before = sys.stdout, sys.stderr
    with safe_streams():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before


def test_deleted_preview_folder_is_one_warning(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, save = tmp_path / "previews", PreviewFolder.save

    def save_and_delete(self: PreviewFolder, name: str, image: object) -> None:
        save(self, name, image)
        shutil.rmtree(folder, ignore_errors=True)

    monkeypatch.setattr(PreviewFolder, "save", save_and_delete)
    assert generate(model, tmp_path / "prop.glb", "--previews", str(folder)) == 0
    errors = capsys.readouterr().err
    assert errors.count("cannot write the preview") == 1 and "the run goes on" in errors
    assert (tmp_path / "prop.glb").is_file()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_full_disk_under_previews_is_one_warning(
    number: int, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(run_display, "write_atomically", fail)
    assert generate(model, tmp_path / "prop.glb", "--previews", str(tmp_path / "previews")) == 0
    errors = capsys.readouterr().err
    assert errors.count("dreamwright: warning: ") == 1 and os.strerror(number) in errors
    assert (tmp_path / "prop.glb").is_file()


def test_failed_checkpoints_are_one_warning(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise CheckpointError("cannot write a checkpoint to work: No space left on device")

    monkeypatch.setattr(checkpoints, "write_checkpoint", fail)
    assert generate(model, tmp_path / "prop.glb") == 0
    assert capsys.readouterr().err.count("cannot write a checkpoint") == 1


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_mesh_is_kept_when_its_path_cannot_be_written(
    suffix: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, export = tmp_path / f"prop{suffix}", mesh_export.export_mesh

    def fail_there(mesh: object, path: Path, provenance: object) -> Path:
        if Path(path) == out:
            raise ExportError(f"cannot write {str(path)!r}: No space left on device; free some space")
        return export(mesh, path, provenance)

    monkeypatch.setattr(mesh_export, "export_mesh", fail_there)
    assert generate(model, out) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    kept = tmp_path / f"prop{suffix}.work" / f"mesh{suffix}"
    assert "No space left" in line and f"the mesh is kept as {kept}" in line and "--resume" in line
    assert kept.stat().st_size > 500 and not out.exists()
    assert (kept.parent / "checkpoint.safetensors").is_file()
    monkeypatch.setattr(mesh_export, "export_mesh", export)
    other = tmp_path / f"other{suffix}"
    assert generate(model, other, "--resume", "--work", str(kept.parent)) == 0 and other.is_file()


def test_mesh_is_kept_in_a_temporary_folder_when_the_work_folder_fails_too(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export = mesh_export.export_mesh
    monkeypatch.setattr(training_run.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "temporary"))

    def fail_there(mesh: object, path: Path, provenance: object) -> Path:
        if "temporary" not in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return export(mesh, path, provenance)

    monkeypatch.setattr(mesh_export, "export_mesh", fail_there)
    assert generate(model, tmp_path / "prop.glb") == 1
    assert str(tmp_path / "temporary" / "mesh.glb") in capsys.readouterr().err
    assert (tmp_path / "temporary" / "mesh.glb").is_file()


LONG = "蘑" * 85 + ".glb"  # 259 bytes in UTF-8; file systems allow 255
PLACES = {
    "long --out": (["generate", "a red mushroom", "--out", LONG], "255"),
    "long --out by its suffix": (["generate", "a red mushroom", "--out", "m" * 252 + ".glb"], "255"),
    "--out in a file": (["generate", "a red mushroom", "--out", "file/prop.glb"], "file"),
    "--out is a folder": (["generate", "a red mushroom", "--out", "folder.glb"], "folder.glb"),
    "long --work": (["generate", "a red mushroom", "--work", "w" * 300], "--work"),
    "--work in a file": (["generate", "a red mushroom", "--work", "file/work"], "--work"),
    "long --previews": (["generate", "a red mushroom", "--previews", "p" * 300], "--previews"),
    "--previews in a file": (["generate", "a red mushroom", "--previews", "file/x"], "--previews"),
    "--live-mesh of another kind": (["generate", "a red mushroom", "--live-mesh", "a.png"], "--live-mesh: cannot"),
    "--live-mesh in a file": (["generate", "a red mushroom", "--live-mesh", "file/x.glb"], "--live-mesh"),
    "--live-mesh is --out": (["generate", "a red mushroom", "--live-mesh", "prop.glb"], "choose two files"),
    "--live-mesh of variations": (
        ["generate", "a red mushroom", "--variations", "2", "--live-mesh", "a.glb"],
        "--live-mesh shows one prop",
    ),
    "long --from": (["generate", "a red mushroom", "--from", "f" * 300], "f" * 300),
    "--from in a file": (["generate", "a red mushroom", "--from", "file/x"], "file/x"),
    "long --model": (["generate", "a red mushroom", "--model", "m" * 300], "too long"),
    "long --out of sample": (["sample", "a red mushroom", "--out", "s" * 300 + ".png"], "255"),
    "--out of sample in a file": (["sample", "a red mushroom", "--out", "file/x.png"], "file"),
    "long mesh": (["refine", "r" * 300 + ".glb", "a red mushroom"], "too long"),
    "long --work of refine": (["refine", "file", "a red mushroom", "--work", "w" * 300], "--work"),
    "long --out of evaluate": (["evaluate", "guidance-2d", "--prompts", "1", "--out", "e" * 300], "e" * 300),
    "--out of evaluate in a file": (["evaluate", "sweep", "--models", "classifier", "--out", "file/x"], "file/x"),
    "long prompts file": (["evaluate", "ablation", "--prompts", "p" * 300], "p" * 300),
    "--out of demo in a file": (["demo", "--out", "file/x"], "file/x"),
    "long state of keys": (["keys", "create", "--state", "k" * 300], "k" * 300),
    "negative seed": (["generate", "a red mushroom", "--seed", "-1"], "0 to 2147483647"),
    "negative seed of sample": (["sample", "a red mushroom", "--out", "x.png", "--seed", "-1"], "0 to 2147483647"),
    "no number": (["generate", "a red mushroom", "--seed", "x"], "invalid int value: 'x'"),
    "unknown command": (["paint"], "paint"),
    "unknown option": (["generate", "a red mushroom", "--colour"], "--colour"),
    "line break in a name": (["generate", "a red mushroom", "--out", "a\nb.fbx"], r"a\nb.fbx"),
    "prompt that is no text": (["generate", "a red \udcff"], "UTF-8"),
    "wait": (["top", "--wait", "-1"], "0 to 3600"),
    "grace": (["serve", "--grace", "1e9"], "1000000000 s; allowed is 0 to 3600"),
}


@pytest.mark.parametrize("mistake", PLACES)
def test_bad_arguments_are_one_line_and_leave_nothing(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder.glb").mkdir()
    arguments, expected = PLACES[mistake]
    try:
        code = main(arguments)
    except SystemExit as end:  # errors of argparse
        code = end.code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert code == 2 and len(lines) == 1 and lines[0].startswith("dreamwright: error: "), lines
    assert expected in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.glb"]
    assert (tmp_path / "file").read_text() == "precious" and not list((tmp_path / "folder.glb").iterdir())


def test_unexpected_errors_are_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: object) -> int:
        raise KeyError("missing\npart")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv(main_module.DEBUG, raising=False)
    monkeypatch.setattr(doctor, "run", fail)
    assert main(["doctor"]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "unexpected KeyError" in errors and "Traceback" not in errors
    (report,) = tmp_path.rglob("error-*.log")
    assert str(report) in errors and "Traceback" in report.read_text() and report.stat().st_mode & 0o077 == 0
    for arguments, variable in ((["--debug", "doctor"], ""), (["doctor"], "1")):
        monkeypatch.setenv(main_module.DEBUG, variable)
        with pytest.raises(KeyError):
            main(arguments)


def test_output_follows_a_symlink(model: str, tmp_path: Path) -> None:
    target, link = tmp_path / "target.glb", tmp_path / "link.glb"
    target.write_bytes(b"old")
    link.symlink_to(target)
    assert generate(model, link) == 0
    assert link.is_symlink() and target.read_bytes()[:4] == b"glTF"


def test_sample_output_in_other_encodings(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding="cp1252"))
    out = tmp_path / "红.png"
    assert main(["sample", "a red mushroom", "--model", model, "--steps", "2", "--out", str(out)]) == 0
    assert out.is_file() and rb"\u7ea2.png" in data.getvalue()
