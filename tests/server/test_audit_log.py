# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: every change with its user, key, job, owner and outcome, without prompts, and in bounded files."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.cli import main as command
from dreamwright.backend.server.monitoring import audit_log
from dreamwright.backend.server.monitoring.audit_log import AuditLog, csv_cell, read_entries, rotated
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import fingerprint, format_key, generate_key_pair
from dreamwright.shared.messages import CancelJob, DeleteJob, DiscardGroup, FetchChunk, ListJobs, PinJob, UploadChunk
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.scripted_worker_server import submit_message


def entries(state: Path) -> list[tuple[str, str, str, str, str]]:
    return [(e.user, e.action, e.job, e.owner, e.outcome) for e in read_entries(state)]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_changes_are_recorded_with_who_what_whose_and_how_it_ended(in_memory_server: InMemoryServer) -> None:
    server = in_memory_server
    job = server.submit("ada", prompt="a red mushroom", settings={})
    server.step()
    server.finish(job, b"m" * 1000)
    server.request(ListJobs())
    server.request(FetchChunk(job, "mesh", 0, 600))
    server.request(FetchChunk(job, "mesh", 600, 400))
    server.request(UploadChunk("0" * 64, 2, 0, b"x"))
    server.refusal(PinJob(job, True), "bert")
    server.refusal(CancelJob("=cmd()"), "bert")
    waiting = [server.submit("ada", group="g", group_index=index) for index in range(2)]
    assert waiting[1] not in (server.folder / audit_log.AUDIT_FILE).read_text(), "written once a second"
    server.request(DiscardGroup("g"), "root", True)
    assert entries(server.folder)[-1][:3] == ("root", "discard", waiting[1]), "an admin's before the answer"
    server.request(DeleteJob(job))
    server.step(2.0)
    own = [("submit", "ok"), ("fetch", "ok")]
    assert entries(server.folder) == [
        *(("ada", action, job, "ada", outcome) for action, outcome in own),
        ("bert", "pin", job, "ada", "no-such-job"),
        ("bert", "cancel", "", "", "no-such-job"),
        *(("ada", "submit", name, "ada", "ok") for name in waiting),
        *(("root", "discard", name, "ada", "ok") for name in waiting),
        ("ada", "delete", job, "ada", "ok"),
    ]
    text = (server.folder / audit_log.AUDIT_FILE).read_text()
    assert "mushroom" not in text and "cmd" not in text
    assert stat.S_IMODE((server.folder / audit_log.AUDIT_FILE).stat().st_mode) == 0o600 or os.name != "posix"


def test_connections_are_recorded_with_their_key(encrypted_server: EncryptedServer) -> None:
    anna = encrypted_server.authorized_client("anna")
    job = encrypted_server.request(anna, submit_message("a")).job.job
    stranger = generate_key_pair()
    unknown = encrypted_server.connect_client(stranger)
    encrypted_server.wait_until(lambda: unknown.state is ConnectionState.UNAUTHORIZED)
    encrypted_server.server.audit.flush()
    found = [(e.user, e.key, e.action, e.job, e.outcome) for e in read_entries(encrypted_server.store.folder)]
    mark = fingerprint(anna.pair.public)
    assert found[:2] == [("anna", mark, "connect", "", "ok"), ("anna", mark, "submit", job, "ok")]
    assert ("", fingerprint(stranger.public), "connect", "", "not-admitted") in found


def test_one_user_cannot_flood_the_log(tmp_path: Path) -> None:
    clock = Clock()
    audit = AuditLog(tmp_path, lambda: 1.8e9, clock)
    for number in range(1000):
        audit.note("bert", "", "pin", f"{number}")
        audit.note("root", "", "pin", f"{number}", limited=False)
    audit.note("ada", "", "submit", "j")
    clock.now += audit_log.MINUTE_S + 1
    audit.step()
    found = list(read_entries(tmp_path))
    assert [e.user for e in found].count("root") == 1000 and found[-2].user == "ada"
    assert [e.user for e in found].count("bert") == audit_log.ENTRIES_PER_MINUTE + 1
    assert (found[-1].action, found[-1].count) == ("more actions in a minute", 1000 - audit_log.ENTRIES_PER_MINUTE)
    audit.note("bert", "", "pin", "again")
    audit.flush()
    assert list(read_entries(tmp_path))[-1].job == "again"


def test_files_are_rotated_and_bounded(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path, rotate_bytes=400)
    for number in range(100):
        audit.note("ada", "", "pin", f"{number:03}", limited=False)
        audit.flush()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) in (audit_log.FILES_KEPT - 1, audit_log.FILES_KEPT)
    assert all(path.stat().st_size < 800 for path in tmp_path.iterdir())
    jobs = [entry.job for entry in read_entries(tmp_path)]
    assert jobs == [f"{number:03}" for number in range(100 - len(jobs), 100)] and len(jobs) > 15


def test_a_full_disk_is_said_and_the_entries_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_log, "WAITING_LARGEST", 3)
    clock = Clock()
    audit = AuditLog(tmp_path, lambda: 1.8e9, clock)
    audit.note("ada", "", "submit", "first")
    assert audit.flush()
    real = os.write
    monkeypatch.setattr(audit_log.os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))  # as a full disk does
    with caplog.at_level(logging.ERROR):
        for number in range(5):
            audit.note("ada", "", "pin", str(number))
            assert not audit.flush()
    assert [record.msg for record in caplog.records] == ["audit log cannot be written; entries wait in memory"]
    monkeypatch.setattr(audit_log.os, "write", real)
    assert audit.flush()
    found = [(e.action, e.job, e.count) for e in read_entries(tmp_path)]
    assert found == [("submit", "first", 1), *(("pin", str(n), 1) for n in range(3)), ("entries lost", "", 2)]


def test_lines_cut_by_a_crash_are_skipped(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    audit.note("ada", "", "submit", "j")
    audit.flush()
    path = tmp_path / audit_log.AUDIT_FILE
    path.write_bytes(path.read_bytes() + b'{"time": "2026\n[]\n{"user": "x"}\n' + path.read_bytes())
    assert [e.job for e in read_entries(tmp_path)] == ["j", "j"]


def export(capsys: pytest.CaptureFixture[str], *options: Any) -> tuple[int, str, str]:
    code = command.main(["audit", "export", *map(str, options)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_export_selects_by_time_and_user_and_writes_both_formats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wall = Clock()
    audit = AuditLog(tmp_path, wall)
    for day, (user, owner) in enumerate([("ada", "ada"), ("root", "ada"), ("bert", "bert")], start=1):
        wall.now = 1_800_000_000 + 86_400 * day
        audit.note(user, "k", "delete", f"j{day}", owner)
    audit.flush()
    code, text, _ = export(capsys, "--state", tmp_path)
    lines = [json.loads(line) for line in text.splitlines()]
    assert code == 0 and [line["job"] for line in lines] == ["j1", "j2", "j3"]
    assert lines[0]["time"] == "2027-01-16T08:00:00.000Z"

    def jobs(*options: str) -> list[str]:
        return [json.loads(line)["job"] for line in export(capsys, "--state", tmp_path, *options)[1].splitlines()]

    assert jobs("--since", "2027-01-17") == ["j2", "j3"] and jobs("--until", "2027-01-17T08:00") == ["j1"]
    assert jobs("--since", "2027-01-17T10:00+02:00") == ["j2", "j3"]
    assert jobs("--user", "ada") == ["j1", "j2"]
    out = tmp_path / "audit.csv"
    code, text, _ = export(capsys, "--state", tmp_path, "--format", "csv", "--out", out)
    assert code == 0 and "3 entries" in text
    table = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["user"] for row in table] == ["ada", "root", "bert"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600 or os.name != "posix"
    assert "exists" in export(capsys, "--state", tmp_path, "--out", out)[2]
    code, _, error = export(capsys, "--state", tmp_path, "--since", "yesterday")
    assert code == 2 and "allowed is a UTC date" in error
    code, _, error = export(capsys, "--state", tmp_path / "none")
    assert code == 2 and "there is no audit log" in error


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_cells_are_no_formulas(text: str) -> None:
    assert csv_cell(text) == f"'{text}" and csv_cell("ada") == "ada"


def test_key_commands_are_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, pair = ["--state", str(tmp_path)], generate_key_pair()
    assert command.main(["keys", "create", *state]) == 0
    assert command.main(["keys", "allow", "anna", format_key(pair.public), *state]) == 0
    assert command.main(["keys", "allow", "anna", format_key(pair.public), "--admin", *state]) == 0
    assert command.main(["keys", "revoke", "anna", *state]) == 0
    found = [(e.action, e.owner, e.key) for e in read_entries(tmp_path)]
    mark = fingerprint(pair.public)
    assert found[1:] == [("allow", "anna", mark), ("allow admin", "anna", mark), ("revoke", "anna", "")]
    assert found[0][0] == "create server keys"
    assert format_key(pair.public) not in (tmp_path / audit_log.AUDIT_FILE).read_text()
    assert rotated(tmp_path / "a.jsonl", 2).name == "a.2.jsonl"
    capsys.readouterr()
