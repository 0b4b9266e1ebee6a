# SPDX-License-Identifier: GPL-3.0-or-later
"""A full disk loses no job: what cannot be written is refused or waits with a message, and continues later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dreamwright.backend.server.workers.dispatcher import RETRY_S
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import CancelJob, DeleteJob, PauseJob, PinJob, SetPriority
from tests.testing.in_memory_server import InMemoryServer


def test_submit_on_a_full_disk_is_refused(
    in_memory_server: InMemoryServer,
) -> None:
    in_memory_server.disk.full = True
    with pytest.raises(
        RequestError, match="cannot write to .*disk is full.*make room on its disk, then send it again"
    ) as refused:
        in_memory_server.submit()
    assert (
        refused.value.code == "no-space"
        and not in_memory_server.store.records
        and in_memory_server.store.find_ticket("ada", "t1") is None
    )
    in_memory_server.disk.full = False
    in_memory_server.request_count = 0
    assert in_memory_server.job(in_memory_server.submit()).state == "queued"


def test_job_waits_while_the_disk_is_full(
    in_memory_server: InMemoryServer,
) -> None:
    name = in_memory_server.submit()
    in_memory_server.disk.full = True
    in_memory_server.step()
    assert (
        in_memory_server.job(name).state == "queued"
        and "waiting: the server cannot write" in in_memory_server.job(name).message
    )
    assert in_memory_server.runner.given == []
    in_memory_server.disk.full = False
    in_memory_server.step(RETRY_S)
    assert in_memory_server.runner.given == [name] and in_memory_server.job(name).message == "starting"


def test_job_waits_while_its_folder_cannot_be_made(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    (in_memory_server.folder / "jobs").write_text("in the way")
    in_memory_server.step()
    assert (
        in_memory_server.job(name).state == "queued" and "make room on its disk" in in_memory_server.job(name).message
    )
    (in_memory_server.folder / "jobs").unlink()
    in_memory_server.step(RETRY_S)
    assert in_memory_server.runner.given == [name]


@pytest.mark.parametrize(
    "request_of", [CancelJob, PauseJob, lambda job: SetPriority(job, -1), lambda job: PinJob(job, True)]
)
def test_failed_writes_leave_the_cache_unchanged(
    request_of: Callable[[str], Any], in_memory_server: InMemoryServer
) -> None:
    name = in_memory_server.submit()
    before = in_memory_server.job(name)
    in_memory_server.disk.full = True
    assert in_memory_server.refusal(request_of(name)).code == "no-space"
    assert in_memory_server.job(name) == before


def test_sqlite_full_disk_leaves_cache_and_file_unchanged(in_memory_server: InMemoryServer) -> None:
    """A real error: the size of SQLite's file is limited."""
    pages = in_memory_server.disk.execute("PRAGMA page_count").fetchone()[0]
    in_memory_server.disk.execute(f"PRAGMA max_page_count={pages + 3}")
    made = []
    with pytest.raises(RequestError, match="disk is full"):
        for _ in range(50):
            made.append(in_memory_server.submit(prompt="a red mushroom", settings={"mesh.height_m": 1.0}))
    assert 0 < len(made) < 50
    in_memory_server.disk.execute("PRAGMA max_page_count=1000000")
    made.append(in_memory_server.submit())
    before = {name: (entry.arrival, entry.state) for name, entry in in_memory_server.store.records.items()}
    in_memory_server.kill()
    in_memory_server.open()
    assert {name: (entry.arrival, entry.state) for name, entry in in_memory_server.store.records.items()} == before
    assert list(before) == made


def test_delete_works_on_a_full_disk(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.finish(name)
    in_memory_server.disk.full = True
    assert in_memory_server.refusal(DeleteJob(name)).code == "no-space"
    assert not in_memory_server.store.job_folder(name).exists(), "its files went, so that the next try can be written"
