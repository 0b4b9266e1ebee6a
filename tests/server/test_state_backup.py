# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup of a running server restores to the same jobs, each with its files or queued again; a hostile or damaged
archive restores to nothing.
"""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamwright.backend.cli.main import main
from dreamwright.backend.errors import CheckpointError, ConfigError, DreamwrightError, RunError
from dreamwright.backend.server import state_backup
from dreamwright.backend.server.jobs.schema import DATABASE_FILE, SCHEMA_VERSION
from dreamwright.backend.server.state_archive import MANIFEST, is_plain_name
from dreamwright.backend.server.state_backup import back_up, restore
from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.job_states import JobState
from dreamwright.shared.messages import DeleteJob, JobReply, ListJobs
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.scripted_worker_server import submit_message
from tests.testing.server_process import server_process


@pytest.fixture
def running(tmp_path: Path) -> InMemoryServer:
    """A server with one finished job, one that runs and has a checkpoint, and one that waits."""
    server = InMemoryServer(tmp_path / "state")
    done = server.submit()
    server.step()
    server.finish(done, b"the mesh")
    server.submit()
    server.step()
    server.submit("bob")
    (job,) = (record.job for record in server.store.records.values() if record.state is JobState.RUNNING)
    checkpoints = server.store.job_folder(job) / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / "step_10.safetensors").write_bytes(b"a state")
    (server.store.job_folder(job) / "mesh.dwm.part").write_bytes(b"half")
    (server.store.folder / "logs").mkdir()
    (server.store.folder / "logs" / "worker.log").write_text("not in a backup")
    KeyFolder(server.store.folder).create()
    return server


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != ".backup.lock"}


def test_a_backup_restores_jobs_files_and_keys(running: InMemoryServer, tmp_path: Path) -> None:
    changing = {".backup.lock", f"{DATABASE_FILE}-shm"}  # readers of a database in WAL mode mark themselves there
    before = {n: d for n, d in files_below(running.store.folder).items() if n not in changing}
    report = back_up(running.store.folder, tmp_path / "backup.tar")
    assert report.jobs == 3 and not report.damaged and (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600
    assert {n: d for n, d in files_below(running.store.folder).items() if n not in changing} == before
    with tarfile.open(tmp_path / "backup.tar") as archive:
        names = archive.getnames()
    assert names[-1] == MANIFEST and all(is_plain_name(name) for name in names)
    assert not any("lock" in name or "logs" in name or ".part" in name for name in names)
    about = restore(tmp_path / "backup.tar", tmp_path / "new")
    assert set(about["files"]) | {MANIFEST} == set(names)
    for path in (tmp_path / "new").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"
    assert KeyFolder(tmp_path / "new").pair() == KeyFolder(running.store.folder).pair()
    states = {r.job: r.state for r in running.store.records.values()}
    running.kill()
    restored = InMemoryServer(tmp_path / "new")
    try:
        for job, state in states.items():
            now = restored.store.records[job].state
            assert now is (JobState.QUEUED if state is JobState.RUNNING else state)
            folder = restored.store.job_folder(job)
            if state is JobState.SUCCEEDED:
                assert (folder / "mesh.dwm").read_bytes() == b"the mesh"
            if state is JobState.RUNNING:
                assert (folder / "checkpoints" / "step_10.safetensors").read_bytes() == b"a state"
        restored.step()  # and the server goes on with the job
        assert restored.runner.given
    finally:
        restored.kill()


@pytest.mark.parametrize("change", ["finish", "delete", "submit"])
def test_a_job_that_changes_during_the_backup_is_copied_again(
    running: InMemoryServer, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change comes after the files were linked and before the job store is copied, where it would tear them."""
    jobs = {record.state: record.job for record in running.store.records.values()}
    copy, copies = state_backup._copy_jobs, []

    def copy_and_change(state: Path, target: Path) -> dict[str, object]:
        copies.append(target)
        if len(copies) == 2 and change == "finish":
            running.finish(jobs[JobState.RUNNING], b"another mesh")
        elif len(copies) == 2 and change == "delete":
            running.request(DeleteJob(jobs[JobState.SUCCEEDED]))
        elif len(copies) == 2:
            running.submit("eve")
        return copy(state, target)

    monkeypatch.setattr(state_backup, "_copy_jobs", copy_and_change)
    report = back_up(running.store.folder, tmp_path / "backup.tar")
    assert not report.damaged and len(copies) == 3
    restore(tmp_path / "backup.tar", tmp_path / "new")
    expected = {job: record.state for job, record in running.store.records.items()}
    running.kill()
    restored = InMemoryServer(tmp_path / "new")
    try:
        assert set(restored.store.records) == set(expected)
        for job, record in restored.store.records.items():
            mesh = restored.store.job_folder(job) / "mesh.dwm"
            assert mesh.is_file() == (record.state is JobState.SUCCEEDED) == (expected[job] is JobState.SUCCEEDED)
            assert not mesh.is_file() or mesh.stat().st_size == record.summary.mesh_bytes
    finally:
        restored.kill()


def test_jobs_that_never_rest_are_reported(
    running: InMemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = state_backup._copy_jobs

    def copy_and_submit(state: Path, target: Path) -> dict[str, object]:
        running.submit("eve")
        return copy(state, target)

    monkeypatch.setattr(state_backup, "_copy_jobs", copy_and_submit)
    with pytest.raises(RunError, match="try again"):
        back_up(running.store.folder, tmp_path / "backup.tar")
    assert not (tmp_path / "backup.tar").exists() and not leftovers(tmp_path) | leftovers(running.store.folder)


def test_a_missing_mesh_is_named(running: InMemoryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = (r.job for r in running.store.records.values() if r.state is JobState.SUCCEEDED)
    (running.store.job_folder(job) / "mesh.dwm").unlink()
    arguments = ["state", "backup", str(tmp_path / "backup.tar"), "--state", str(running.store.folder)]
    assert main(arguments) == 1
    assert f"job {job}: its mesh is missing" in capsys.readouterr().err


def test_a_backup_replaces_nothing_and_a_full_disk_leaves_nothing(
    running: InMemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "backup.tar"
    target.write_text("mine")
    with pytest.raises(ConfigError, match="exists"):
        back_up(running.store.folder, target)
    assert target.read_text() == "mine"
    target.unlink()
    with pytest.raises(ConfigError, match="holds no jobs"):
        back_up(tmp_path, target)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(state_backup, "write_archive", full)
        with pytest.raises(ConfigError, match="No space left on device"):
            back_up(running.store.folder, target)
    assert not target.exists() and not leftovers(tmp_path) | leftovers(running.store.folder)
    left = running.store.folder / ".backup-of-a-killed-one"
    left.mkdir()
    back_up(running.store.folder, target)
    assert not left.exists()


def test_restore_refuses_a_folder_in_use_and_a_newer_store(running: InMemoryServer, tmp_path: Path) -> None:
    back_up(running.store.folder, tmp_path / "backup.tar")
    before = files_below(running.store.folder)
    with pytest.raises(ConfigError, match="is not empty"):
        restore(tmp_path / "backup.tar", running.store.folder)
    assert files_below(running.store.folder) == before
    with pytest.raises(ConfigError, match="No such file"):
        restore(tmp_path / "no.tar", tmp_path / "new")
    running.kill()
    with sqlite3.connect(running.store.folder / DATABASE_FILE) as database:
        database.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(CheckpointError, match="a newer Dreamwright"):
        back_up(running.store.folder, tmp_path / "second.tar")
    assert not (tmp_path / "new").exists() and not leftovers(tmp_path)


def member(name: str, data: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, data


HOSTILE: dict[str, Callable[[], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "parent": lambda: [member("../outside")],
    "parent below": lambda: [member("jobs/../../outside")],
    "absolute": lambda: [member("/tmp/outside")],
    "backslash": lambda: [member("jobs\\..\\outside")],
    "drive": lambda: [member("C:/outside")],
    "hidden": lambda: [member(".profile")],
    "control characters": lambda: [member("jobs/a\nb")],
    "too deep": lambda: [member("/".join("abcdefgh"))],
    "symlink": lambda: [member("jobs", b"", type=tarfile.SYMTYPE, linkname="/tmp"), member("jobs/outside")],
    "hard link": lambda: [member("keys", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "device": lambda: [member("jobs", b"", type=tarfile.CHRTYPE)],
    "fifo": lambda: [member("jobs", b"", type=tarfile.FIFOTYPE)],
    "folder": lambda: [member("jobs", b"", type=tarfile.DIRTYPE)],
    "extended header": lambda: [member("a", b"30 path=../../outside\n", type=tarfile.XHDTYPE), member("b")],
    "long name": lambda: [member("a", b"../outside", type=tarfile.GNUTYPE_LONGNAME), member("b")],
    "sparse": lambda: [member("a", type=tarfile.GNUTYPE_SPARSE)],
    "twice": lambda: [member("a"), member("a")],
    "a file as a folder": lambda: [member("a"), member("a/b")],
    "manifest of nothing": lambda: [member("a"), member(MANIFEST, b"{}")],
    "manifest of another form": lambda: [member(MANIFEST, b'{"form": 2, "files": {}}')],
    "manifest that nests": lambda: [member(MANIFEST, b"[" * 100_000)],
    "not listed": lambda: [member("a"), member(MANIFEST, b'{"form": 1, "files": {}}')],
    "no manifest": lambda: [member(DATABASE_FILE, b"")],
    "no job store": lambda: [member(MANIFEST, b'{"form": 1, "files": {}}')],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_writes_nothing(kind: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for header, data in HOSTILE[kind]():
            archive.addfile(header, io.BytesIO(data))
    path = tmp_path / "hostile.tar"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DreamwrightError) as caught:
        restore(path, tmp_path / "new")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["hostile.tar"]


def test_a_member_that_claims_more_than_the_disk_has_is_refused(tmp_path: Path) -> None:
    header, _ = member("jobs.sqlite3")
    header.size = 1 << 60
    (tmp_path / "hostile.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    with pytest.raises(ConfigError, match="make room"):
        restore(tmp_path / "hostile.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_archive_is_refused_or_restores_the_same(
    running: InMemoryServer, tmp_path: Path, data: st.DataObject
) -> None:
    """A flipped bit or a cut. Bits that mean nothing, such as a member's mode, may differ."""
    path = tmp_path / "backup.tar"
    if not path.exists():
        back_up(running.store.folder, path)
        restore(path, tmp_path / "first")
    expected, content = files_below(tmp_path / "first"), bytearray(path.read_bytes())
    end = content.rindex(b"}") + 1  # of the manifest; only zeros follow
    place = data.draw(st.integers(0, end - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "damaged.tar").write_bytes(content)
    try:
        restore(tmp_path / "damaged.tar", tmp_path / "second")
    except DreamwrightError:
        assert not (tmp_path / "second").exists() and not leftovers(tmp_path)
        return
    try:
        assert files_below(tmp_path / "second") == expected
    finally:
        os.rename(tmp_path / "second", tmp_path / f"old-{os.urandom(4).hex()}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_server_is_backed_up_while_it_runs_and_another_takes_over(tmp_path: Path) -> None:
    fast = "tests.testing.fast_worker_server"
    with server_process(tmp_path / "one", module=fast) as server, server.connected_client() as client:
        assert isinstance(server.request(client, submit_message("t1")), JobReply)
        server.wait_until(lambda: server.request(client, ListJobs()).jobs[0].state == "succeeded", client)
        job = server.request(client, ListJobs()).jobs[0]
        state = ["--state", str(tmp_path / "one" / "state")]
        assert main(["state", "backup", str(tmp_path / "backup.tar"), *state]) == 0
    assert main(["state", "restore", str(tmp_path / "backup.tar"), "--state", str(tmp_path / "two" / "state")]) == 0
    with server_process(tmp_path / "two", module=fast) as server, server.connected_client() as client:
        (again,) = server.request(client, ListJobs()).jobs
        assert (again.job, again.state, again.mesh_sha256) == (job.job, "succeeded", job.mesh_sha256)
    assert (tmp_path / "two" / "state" / "jobs" / job.job / "mesh.dwm").stat().st_size == job.mesh_bytes
