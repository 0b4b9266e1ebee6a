# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's core when the server is silent, gone, of another version or a stranger, when the disk is full, when Blender ends."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bpy")

from tests.blender.test_session import Table, module, table  # noqa: F401 (table is a fixture)
from tests.testing.fake_server import FakeServer


def reborn(table: Table) -> None:
    """Blender ends without a word, and another one begins."""
    table.session._client.close()
    table.session = module("session").Session(table.session.folder, lambda: time.monotonic() + table.ahead)


@pytest.mark.parametrize("arrives", [True, False], ids=["the reply was lost", "the server was gone"])
def test_an_unanswered_submit_outlives_blender_and_becomes_one_job(table: Table, arrives: bool) -> None:
    table.connect()
    if arrives:
        table.server.faults.lose_replies = 10**6
    else:
        table.server.close()
    tickets = [
        table.session.submit(prompt, "", "starter", "quick", 1, {}) for prompt in ("a red chair", "a blue chair")
    ]
    if arrives:
        table.settle(lambda: len(table.server.jobs) == 2)
    reborn(table)
    table.session.show_offline(table.server.address)
    assert list(table.session.outbox) == tickets, (
        "shown before there is a connection, in the order in which they were asked for"
    )
    table.server.faults.lose_replies = 0
    if not arrives:
        table.server.open()
    table.connect()
    table.settle(lambda: not table.session.outbox)
    assert sorted(job.prompt for job in table.server.jobs.values()) == ["a blue chair", "a red chair"]
    assert len(table.session.jobs) == 2 and not table.session.notices
    reborn(table)
    table.session.show_offline(table.server.address)
    assert not table.session.outbox, "what was answered is not asked again"


def test_an_unanswered_submit_is_for_its_own_server_only(table: Table) -> None:
    table.connect()
    table.server.close()
    table.session.submit("a red chair", "", "starter", "quick", 1, {})
    other = FakeServer(pace=0)
    try:
        table.session.connect(other.address)
        assert not table.session.outbox
        first, table.server = table.server, other
        table.settle(lambda: table.session.is_online)
        assert not other.jobs
        first.open()
        table.server = first
        table.connect()
        table.settle(lambda: len(first.jobs) == 1 and not table.session.outbox)
    finally:
        other.close()


@pytest.mark.parametrize("ends", ["refused", "withdrawn"])
def test_a_submit_that_was_refused_or_withdrawn_is_forgotten_on_disk_as_well(table: Table, ends: str) -> None:
    table.connect()
    if ends == "refused":
        table.server.faults.refuse_submit = "the queue is full"
    ticket = table.session.submit("a red chair", "", "starter", "quick", 1, {})
    assert len(list((table.session.folder / "outbox").iterdir())) == 1, "kept before anything is sent"
    if ends == "refused":
        table.settle(lambda: not table.session.outbox)
        assert "the queue is full" in table.session.notices[0].text
    else:
        table.session.withdraw(ticket)
    assert not list((table.session.folder / "outbox").iterdir())


def test_damage_to_what_waits_on_disk_breaks_nothing(table: Table) -> None:
    folder = table.session.folder / "outbox"
    folder.mkdir()
    for name, damage in (
        ("a", ""),
        ("b", "{"),
        ("c", '{"address": 5}'),
        ("d", json.dumps({"address": table.server.address, "submit": {"ticket": 7}})),
    ):
        (folder / f"{name}.json").write_text(damage)
    table.connect()
    assert not table.session.outbox and not table.session.notices


def test_on_a_full_disk_everything_works_and_what_cannot_be_kept_is_told(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module("storage"), "_write", full)
    table.connect()
    job = table.submit()
    table.server.finish(job, "succeeded")
    table.settle(lambda: table.session.jobs[job].mesh_bytes > 0)
    table.session.fetch(job)
    table.settle(lambda: any(type(event).__name__ == "MeshArrived" for event in table.happened))
    told = [notice.text for notice in table.session.notices]
    assert len(told) == 2 and all("No space left on device" in text and "Make room there" in text for text in told)


def test_a_fetch_that_a_dead_server_interrupts_is_finished_after_its_return(table: Table) -> None:
    table.connect()
    job = table.submit()
    table.server.rings = 120
    table.server.finish(job, "succeeded")
    table.settle(lambda: table.session.jobs[job].mesh_bytes > 0)
    table.server.faults.lose_chunks = 2
    table.session.fetch(job)
    table.settle(lambda: table.session.downloads[job].share > 0.2)
    table.server.close()
    for _ in range(40):
        table.ahead += 1
        table.session.tick()
    assert table.session.connection_state == "lost" and "trying again" in table.session.reason
    assert job in table.session.downloads and not table.session.notices, "it waits"
    table.server.open()
    table.settle(lambda: any(type(event).__name__ == "MeshArrived" for event in table.happened), 12)
    assert not table.session.downloads and not table.session.notices


def test_an_older_server_is_to_be_updated_itself(table: Table) -> None:
    table.server.faults.version = 0
    table.session.connect(table.server.address)
    table.settle(lambda: table.session.connection_state == "incompatible")
    assert "speaks version 0" in table.session.reason and "update the server" in table.session.reason


def test_a_stranger_at_the_address_is_told_with_what_to_check(table: Table) -> None:
    table.server.faults.babble = True
    table.session.connect(table.server.address)
    table.settle(lambda: table.session.connection_state == "incompatible")
    assert "not as Dreamwright does" in table.session.reason and "check address and port" in table.session.reason


def test_garbage_in_mid_job_ends_the_connection_with_a_sentence_and_the_job_is_back_after_the_next(
    table: Table,
) -> None:
    table.connect()
    job = table.submit()
    table.server.faults.babble = True
    table.server.change(job, step=3)
    table.settle(lambda: table.session.connection_state == "incompatible")
    assert "connect again" in table.session.reason and job in table.session.jobs
    table.server.faults.babble = False
    table.session.connect(table.server.address)
    table.settle(lambda: table.session.is_online and table.session.jobs[job].step == 3)
