# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs in one work folder: the second is refused with the process id of the first; SIGKILL frees the lock."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dreamwright.backend.cli.main import main
from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.training.checkpoints import NEWEST
from dreamwright.backend.training.run_lock import LOCK_FILE, OWNER_FILE, locked_work_folder
from tests.testing.tiny_model import QUICK, save_tiny_model

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from dreamwright.backend.training.run_lock import locked_work_folder
with locked_work_folder(Path(sys.argv[1]), False):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "first")


def generate(model: str, out: Path, *extra: str) -> int:
    settings = [part for setting in (*QUICK, "mesh.threshold=1.0") for part in ("--set", setting)]
    return main(["generate", "a red mushroom", "--model", model, "--out", str(out), *settings, *extra])


@pytest.mark.slow
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_second_run_is_refused_and_names_the_first(
    resume: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prop.glb"
    work = tmp_path / "prop.glb.work"
    with holder(work) as other:
        before = sorted(path.name for path in work.iterdir())
        assert generate(str(model), out, *resume) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert re.search(rf"in use by another run \(process {other.pid}, since \d{{4}}-\d\d-\d\dT.*--work", line), line
        assert sorted(path.name for path in work.iterdir()) == before and not out.exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (work / OWNER_FILE).is_file(), "the killed process leaves its lock file"
        assert generate(str(model), out) == 0 and out.is_file()
    assert not work.exists()


def test_lock_is_released_and_existing_folder_kept(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for folder, stays in ((own, True), (tmp_path / "new" / "deep", False)):
        with locked_work_folder(folder, False):
            owner = json.loads((folder / OWNER_FILE).read_text())
            assert owner["pid"] == os.getpid() and (folder / LOCK_FILE).exists()
        assert folder.exists() == stays and (not stays or not list(folder.iterdir()))
    (own / "thesis.txt").write_text("precious")
    with locked_work_folder(own, False):
        pass
    assert [path.name for path in own.iterdir()] == ["thesis.txt"]


def test_errors_of_the_run_pass_through_and_release_the_lock(tmp_path: Path) -> None:
    for error in (OSError("of the run"), ValueError("of the run"), KeyboardInterrupt()):
        with pytest.raises(type(error)), locked_work_folder(tmp_path / "work", False):
            raise error
    assert not (tmp_path / "work").exists()


def test_one_of_two_simultaneous_runs_starts(tmp_path: Path) -> None:
    results: list[str] = []
    ready, done = threading.Barrier(4), threading.Event()

    def start() -> None:
        ready.wait()
        try:
            with locked_work_folder(tmp_path / "work", False):
                results.append("runs")
                done.wait(30)
        except CheckpointError as error:
            results.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(results) < 4:
        done.wait(0.02)
    done.set()
    for thread in threads:
        thread.join()
    assert results.count("runs") == 1 and sum("in use by another run" in result for result in results) == 3


def test_unfinished_run_is_not_started_over(tmp_path: Path) -> None:
    (tmp_path / NEWEST).write_bytes(b"x")
    with pytest.raises(CheckpointError, match="add --resume"), locked_work_folder(tmp_path, False):
        pass
    with locked_work_folder(tmp_path, True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [NEWEST]


def test_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file in the way")
    refusal = pytest.raises(CheckpointError, match="cannot write to the work folder.*--work")
    with refusal as caught, locked_work_folder(tmp_path / "file" / "work", False):
        pytest.fail("it began")
    assert "\n" not in str(caught.value) and (tmp_path / "file").read_text() == "a file in the way"


def test_resume_depends_on_weights_not_path(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    import torch

    from dreamwright.backend.starter.architecture import build_parts, save_pipeline
    from tests.testing.tiny_model import TINY

    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "m")
    out = tmp_path / "prop.ply"
    assert generate("./m", out, "--keep-work") == 0
    assert generate("m", out, "--keep-work", "--resume") == 0
    assert generate(str(model), out, "--keep-work", "--resume") == 0
    shutil.rmtree("m")
    save_pipeline(build_parts(1, TINY), tmp_path / "m", torch.float32)
    capsys.readouterr()
    made = out.read_bytes()
    assert generate("./m", out, "--keep-work", "--resume") == 2
    assert "another run" in capsys.readouterr().err and out.read_bytes() == made
