# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright batch`: props of a list on all devices, what is kept, what is refused; kills, Ctrl-C and resume."""

from __future__ import annotations

import csv
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from dreamwright.backend.cli.main import main
from dreamwright.backend.io import blender_program
from dreamwright.backend.io.mesh_reader import read_mesh
from dreamwright.backend.library.library_folder import JOBS, LOCK, SCHEMA_VERSION
from dreamwright.backend.runtime.file_lock import file_lock
from dreamwright.backend.scenes.initial_field import FIELD_FILE
from dreamwright.backend.server import local_queue
from tests.testing.ball_runner import BallRunner
from tests.testing.tiny_model import QUICK, save_tiny_model

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 400.0  # limit for waits on another process; reached only on failure
TABLE = """prompt,name,seed,tags,catalog
a red mushroom,Toadstool,0,plant;red,Garden/Plants
a blue mug,,1,,Kitchen
a green chair,,2,,
a blue mug,,2,,Kitchen
"""


@pytest.fixture(autouse=True)
def no_blender(monkeypatch: pytest.MonkeyPatch) -> None:
    """The .blend file has tests of its own."""
    monkeypatch.setattr(blender_program.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(blender_program.shutil, "which", lambda name: None)


@pytest.fixture
def balls(monkeypatch: pytest.MonkeyPatch) -> type[BallRunner]:
    monkeypatch.setattr(local_queue, "LocalRunner", BallRunner)
    monkeypatch.setattr(BallRunner, "made", [])
    monkeypatch.setattr(BallRunner, "most_at_work", 0)
    return BallRunner


def write_list(folder: Path, text: str = TABLE, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def batch(listed: Path, library: Path, *extra: str) -> int:
    return main(["batch", str(listed), "--library", str(library), *extra])


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("dreamwright: error")]
    return line


def record_of(library: Path) -> dict[str, dict[str, object]]:
    content = json.loads((library / "library.json").read_text(encoding="utf-8"))
    assert content["schema_version"] == SCHEMA_VERSION
    return {prop["stem"]: prop for prop in content["props"]}


def test_library_of_a_list(balls: type[BallRunner], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every prop has a mesh, an image and its provenance; without a Blender they are kept."""
    library = tmp_path / "library"
    assert batch(write_list(tmp_path), library, "--device", "cpu") == 2
    props = record_of(library)
    assert sorted(balls.made) == ["a blue mug", "a blue mug", "a green chair", "a red mushroom"]
    assert set(props) == {"toadstool.0", "a-blue-mug.1", "a-green-chair.2", "a-blue-mug.2"}
    toadstool = props["toadstool.0"]
    assert (toadstool["name"], toadstool["tags"], toadstool["catalog"]) == (
        "Toadstool", ["plant", "red"], "Garden/Plants",
    )  # fmt: skip
    for prop in props.values():
        assert read_mesh(library / str(prop["glb"])).faces.shape == (960, 3)
        with Image.open(library / str(prop["thumbnail"])) as image:
            assert image.size == (256, 256)
        assert prop["provenance"]["prompt"] == prop["prompt"] and prop["provenance"]["seed"] == prop["seed"]  # type: ignore[index]
    assert not list(library.rglob(FIELD_FILE)) and not (library / "failures.csv").exists()
    assert "there is no Blender" in last_error(capsys) and not (library / "library.blend").exists()


def test_all_devices_are_busy(balls: type[BallRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamwright.backend.cli.serve.all_devices", tuple)
    batch(write_list(tmp_path), tmp_path / "library", "--device", "one", "--device", "two", "--device", "three")
    assert balls.most_at_work == 3 and len(balls.made) == 4


def test_nothing_is_done_twice(balls: type[BallRunner], tmp_path: Path) -> None:
    """The same rows again, in another order, with other tags and one more: one job. Files that are gone come back."""
    library = tmp_path / "library"
    batch(write_list(tmp_path), library)
    before = record_of(library)
    kept = (library / "props" / "a-blue-mug.1.glb").stat().st_mtime_ns
    (library / "props" / "toadstool.0.glb").unlink()
    (library / "thumbnails" / "a-green-chair.2.png").unlink()
    made = len(balls.made)
    batch(
        write_list(tmp_path, "prompt,seed,tags\na white house,0,\na green chair,2,seat\na red mushroom.,0,\n"), library
    )
    props = record_of(library)
    assert balls.made[made:] == ["a white house"]
    assert (library / "props" / "toadstool.0.glb").is_file()
    assert (library / "thumbnails" / "a-green-chair.2.png").is_file()
    assert (library / "props" / "a-blue-mug.1.glb").stat().st_mtime_ns == kept
    assert list(props) == [*before, "a-white-house.0"] and props["a-green-chair.2"]["tags"] == ["seat"]
    assert props["toadstool.0"]["job"] == before["toadstool.0"]["job"]


def test_failures_are_listed_and_tried_again_when_asked(
    balls: type[BallRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(balls, "fail_words", ("mug",))
    monkeypatch.setattr("dreamwright.backend.cli.batch.write_library_blend", lambda *options: None)
    library, listed = tmp_path / "library", write_list(tmp_path)
    for _ in range(2):
        assert batch(listed, library) == 1
        assert len(balls.made) == 4, "a failed row is not tried again unless asked"
        with (library / "failures.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["row"], row["prompt"], row["seed"], row["reason"]) for row in csv.DictReader(file)]
        assert rows == [(str(row), "a blue mug", seed, "the density is empty") for row, seed in ((3, "1"), (5, "2"))]
        assert "2 of 4 rows failed; they are in" in capsys.readouterr().err
    monkeypatch.setattr(balls, "fail_words", ())
    assert batch(listed, library, "--retry") == 0
    assert len(balls.made) == 6 and not (library / "failures.csv").exists() and len(record_of(library)) == 4


def test_library_in_use_is_refused(balls: type[BallRunner], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = tmp_path / "library"
    (library / JOBS).mkdir(parents=True)
    with file_lock(library / JOBS / LOCK, give_up=lambda: True, retry_s=0):
        assert batch(write_list(tmp_path), library) == 2
    assert "another batch works in the library" in last_error(capsys) and not balls.made


def test_broken_workers_and_a_damaged_state_end_the_batch(
    balls: type[BallRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(balls, "failed_starts", 4)
    assert batch(write_list(tmp_path), tmp_path / "one") == 1
    assert "no worker process can be started; the logs in" in last_error(capsys)
    (tmp_path / "two" / JOBS).mkdir(parents=True)
    (tmp_path / "two" / JOBS / "jobs.sqlite3").write_bytes(b"not a database" * 100)
    assert batch(write_list(tmp_path), tmp_path / "two") == 2
    assert "choose another folder with --library" in last_error(capsys)


@pytest.mark.parametrize(
    ("text", "extra", "words"),
    [
        ("a zebra\n\na red mushroom\nan xyzzy", [], "list.txt' cannot be used: row 1: .*zebra.*row 4: .*xyzzy"),
        ("a red mushroom", ["--preset", "best"], "row 1: unknown preset 'best'"),
        ("a red mushroom", ["--set", "run.seed=3"], "each row states its seed"),
        ("a red mushroom", ["--set", "run.stepz=3"], "row 1: .*run.stepz"),
        ("a red mushroom", ["--set", "run.steps"], "has no '='"),
        ("a red mushroom", ["--seed", "-1"], "--seed -1; allowed are 0 to 2147483647"),
        ("a red mushroom", ["--model", "no-such-model"], "no-such-model"),
        ("a red mushroom", ["--encoding", "martian"], "encoding 'martian' is not known"),
        ("a red mushroom", ["--blender", "/no/such/blender"], "no Blender at /no/such/blender"),
        ("", [], "it holds no prompt"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    text: str, extra: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch(write_list(tmp_path, text, "list.txt"), tmp_path / "library", *extra) == 2
    assert re.search(words, last_error(capsys)) and not (tmp_path / "library").exists()


def test_lists_and_libraries_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = write_list(tmp_path, "a red mushroom", "list.txt")
    # Nobody may make files there, not even root.
    assert batch(listed, Path("/proc/library")) == 2 and "--library: cannot write" in last_error(capsys)
    assert batch(listed, listed) == 2 and "it is a file" in last_error(capsys)
    assert batch(tmp_path / "none.txt", tmp_path / "library") == 2 and "cannot read the list" in last_error(capsys)
    assert batch(write_list(tmp_path, "a red mushroom"), tmp_path / "library") == 2
    assert "names no column `prompt`" in last_error(capsys), "a .csv file is a table"
    library = tmp_path / "old"
    library.mkdir()
    (library / "library.json").write_text('{"schema_version": 99}')
    assert batch(listed, library) == 2 and "has schema version 99" in last_error(capsys)
    (library / "library.json").write_text("{")
    assert batch(listed, library) == 2 and "is no record of a library" in last_error(capsys)


@contextmanager
def started(listed: Path, library: Path, model: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A batch in a process of its own, which ends with the block at the latest."""
    settings = [part for setting in (*QUICK, "run.steps=2000", "mesh.threshold=1.0") for part in ("--set", setting)]
    command = [sys.executable, "-m", "dreamwright.backend.cli.main", "batch", str(listed), "--library", str(library)]
    with (library.parent / "errors.txt").open("ab") as errors:
        process = subprocess.Popen(
            [*command, "--model", str(model), "--device", "cpu", *settings], stdout=errors, stderr=errors, cwd=ROOT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def jobs_of(library: Path) -> dict[str, dict[str, object]]:
    """The summaries of the jobs by prompt, read from the database."""
    with sqlite3.connect(library / JOBS / "jobs.sqlite3") as database:
        rows = database.execute("SELECT summary FROM jobs ORDER BY arrival").fetchall()
    database.close()
    return {summary["prompt"]: summary for summary in map(json.loads, (row[0] for row in rows))}


def wait_for(condition: object, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():  # type: ignore[operator]
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine each start of a process takes a minute
def test_kill_and_interrupt_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real worker: after a kill its job goes on from a checkpoint, and Ctrl-C ends it after a step with another."""
    model, library = save_tiny_model(tmp_path / "model"), tmp_path / "library"
    listed = write_list(tmp_path, "a red mushroom\na blue mug\n", "list.txt")

    def has_checkpoint() -> bool:
        return bool(list(library.glob("jobs/jobs/*/checkpoints/*.safetensors")))

    def steps_at_begin() -> list[int]:
        log = (library / JOBS / "logs" / "worker-cpu.log").read_text()
        return [int(step) for step in re.findall("attempt begins .* step=([0-9]+)", log)]

    with started(listed, library, model) as killed:
        wait_for(has_checkpoint, killed)
        assert batch(listed, library) == 2 and "another batch works" in last_error(capsys), "while it runs"
    with started(listed, library, model) as stopped:
        wait_for(lambda: len(steps_at_begin()) == 2, stopped)
        stopped.send_signal(signal.SIGINT)
        assert stopped.wait(WAIT_S) == 130
    assert "the same command continues" in (tmp_path / "errors.txt").read_text()
    first, second = steps_at_begin()
    assert first == 0 < second
    jobs = jobs_of(library)
    assert [job["state"] for job in jobs.values()] == ["queued", "queued"] and has_checkpoint()
    assert [job["attempt"] for job in jobs.values()] == [2, 0]
