# SPDX-License-Identifier: GPL-3.0-or-later
"""The session when the server is silent, gone, foreign or of another version, and when the disk is full."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bpy")

from tests.testing.addon_session import SessionBench, addon_module
from tests.testing.fake_server import FakeServer


def restart_session(bench: SessionBench) -> None:
    """Blender is killed, and another one starts."""
    bench.session._client.close()
    bench.session = addon_module("session").Session(bench.session.folder, lambda: time.monotonic() + bench.ahead)


@pytest.mark.parametrize("arrives", [True, False], ids=["the reply was lost", "the server was gone"])
def test_unanswered_submission_is_sent_by_the_next_session(bench: SessionBench, arrives: bool) -> None:
    bench.connect()
    if arrives:
        bench.server.faults.lose_replies = 10**6
    else:
        bench.server.close()
    tickets = [
        bench.session.submit(prompt, "", "starter", "quick", 1, {}) for prompt in ("a red chair", "a blue chair")
    ]
    if arrives:
        bench.settle(lambda: len(bench.server.jobs) == 2)
    restart_session(bench)
    bench.session.show_cached(bench.server.address)
    assert list(bench.session.pending) == tickets, (
        "shown before there is a connection, in the order in which they were asked for"
    )
    bench.server.faults.lose_replies = 0
    if not arrives:
        bench.server.open()
    bench.connect()
    bench.settle(lambda: not bench.session.pending)
    assert sorted(job.prompt for job in bench.server.jobs.values()) == ["a blue chair", "a red chair"]
    assert len(bench.session.jobs) == 2 and not bench.session.notices
    restart_session(bench)
    bench.session.show_cached(bench.server.address)
    assert not bench.session.pending, "what was answered is not asked again"


def test_pending_submission_belongs_to_its_server(bench: SessionBench) -> None:
    bench.connect()
    bench.server.close()
    bench.session.submit("a red chair", "", "starter", "quick", 1, {})
    other = FakeServer(pace=0)
    try:
        bench.session.connect(other.address)
        assert not bench.session.pending
        first, bench.server = bench.server, other
        bench.settle(lambda: bench.session.is_online)
        assert not other.jobs
        first.open()
        bench.server = first
        bench.connect()
        bench.settle(lambda: len(first.jobs) == 1 and not bench.session.pending)
    finally:
        other.close()


@pytest.mark.parametrize("ends", ["refused", "withdrawn"])
def test_refused_or_cancelled_submission_is_deleted_from_disk(bench: SessionBench, ends: str) -> None:
    bench.connect()
    if ends == "refused":
        bench.server.faults.refuse_submit = "the queue is full"
    ticket = bench.session.submit("a red chair", "", "starter", "quick", 1, {})
    assert len(list((bench.session.folder / "outbox").iterdir())) == 1, "kept before anything is sent"
    if ends == "refused":
        bench.settle(lambda: not bench.session.pending)
        assert "the queue is full" in bench.session.notices[0].text
    else:
        bench.session.cancel_pending(ticket)
    assert not list((bench.session.folder / "outbox").iterdir())


def test_damaged_pending_files_are_ignored(bench: SessionBench) -> None:
    folder = bench.session.folder / "outbox"
    folder.mkdir()
    for name, damage in (
        ("a", ""),
        ("b", "{"),
        ("c", '{"address": 5}'),
        ("d", json.dumps({"address": bench.server.address, "submit": {"ticket": 7}})),
    ):
        (folder / f"{name}.json").write_text(damage)
    bench.connect()
    assert not bench.session.pending and not bench.session.notices


def test_full_disk_is_reported_and_harmless(bench: SessionBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(addon_module("storage"), "_write", full)
    bench.connect()
    job = bench.submit()
    bench.server.finish(job, "succeeded")
    bench.settle(lambda: bench.session.jobs[job].mesh_bytes > 0)
    bench.session.download_mesh(job)
    bench.settle(lambda: any(type(event).__name__ == "MeshDownloaded" for event in bench.events))
    texts = [notice.text for notice in bench.session.notices]
    assert len(texts) == 2 and all("No space left on device" in text and "Free some space" in text for text in texts)


def test_download_resumes_after_the_server_returns(bench: SessionBench) -> None:
    bench.connect()
    job = bench.submit()
    bench.server.rings = 120
    bench.server.finish(job, "succeeded")
    bench.settle(lambda: bench.session.jobs[job].mesh_bytes > 0)
    bench.server.faults.lose_chunks = 2
    bench.session.download_mesh(job)
    bench.settle(lambda: bench.session.downloads[job].share > 0.2)
    bench.server.close()
    for _ in range(40):
        bench.ahead += 1
        bench.session.tick()
    assert bench.session.connection_state == "lost" and "trying again" in bench.session.reason
    assert job in bench.session.downloads and not bench.session.notices, "it waits"
    bench.server.open()
    bench.settle(lambda: any(type(event).__name__ == "MeshDownloaded" for event in bench.events), 12)
    assert not bench.session.downloads and not bench.session.notices


def test_older_server_must_be_updated(bench: SessionBench) -> None:
    bench.server.faults.version = 0
    bench.session.connect(bench.server.address)
    bench.settle(lambda: bench.session.connection_state == "incompatible")
    assert "speaks version 0" in bench.session.reason and "update the server" in bench.session.reason


def test_foreign_server_message_names_what_to_check(bench: SessionBench) -> None:
    bench.server.faults.malformed_replies = True
    bench.session.connect(bench.server.address)
    bench.settle(lambda: bench.session.connection_state == "incompatible")
    assert "not as Dreamwright does" in bench.session.reason and "check address and port" in bench.session.reason


def test_garbage_ends_the_connection_and_reconnecting_recovers(
    bench: SessionBench,
) -> None:
    bench.connect()
    job = bench.submit()
    bench.server.faults.malformed_replies = True
    bench.server.change(job, step=3)
    bench.settle(lambda: bench.session.connection_state == "incompatible")
    assert "connect again" in bench.session.reason and job in bench.session.jobs
    bench.server.faults.malformed_replies = False
    bench.session.connect(bench.server.address)
    bench.settle(lambda: bench.session.is_online and bench.session.jobs[job].step == 3)
