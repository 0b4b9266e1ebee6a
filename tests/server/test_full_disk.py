# SPDX-License-Identifier: GPL-3.0-or-later
"""A full disk loses no job: what cannot be written is refused or waits, with a sentence, and goes on when there is room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dreamwright.backend.server.workers.dispatcher import RETRY_S
from dreamwright.shared.errors import Refused
from dreamwright.shared.messages import Cancel, Forget, Pause, Pin, Prioritize
from tests.testing.in_memory_server import Yard, yard  # noqa: F401 (fixture)


def test_a_submit_that_cannot_be_written_is_refused_with_what_to_do_and_leaves_no_job(yard: Yard) -> None:
    yard.disk.full = True
    with pytest.raises(
        Refused, match="cannot write to .*disk is full.*make room on its disk, then send it again"
    ) as refused:
        yard.submit()
    assert refused.value.code == "no-space" and not yard.ledger.entries and yard.ledger.find_ticket("ada", "t1") is None
    yard.disk.full = False
    yard.tickets = 0
    assert yard.job(yard.submit()).state == "queued"


def test_a_job_waits_with_a_sentence_while_the_disk_is_full_and_starts_when_it_is_not(yard: Yard) -> None:
    name = yard.submit()
    yard.disk.full = True
    yard.work()
    assert yard.job(name).state == "queued" and "waiting: the server cannot write" in yard.job(name).message
    assert yard.hands.given == []
    yard.disk.full = False
    yard.work(RETRY_S)
    assert yard.hands.given == [name] and yard.job(name).message == "starting"


def test_a_job_folder_that_cannot_be_made_lets_the_job_wait(yard: Yard) -> None:
    name = yard.submit()
    (yard.folder / "jobs").write_text("in the way")
    yard.work()
    assert yard.job(name).state == "queued" and "make room on its disk" in yard.job(name).message
    (yard.folder / "jobs").unlink()
    yard.work(RETRY_S)
    assert yard.hands.given == [name]


@pytest.mark.parametrize("request_of", [Cancel, Pause, lambda job: Prioritize(job, -1), lambda job: Pin(job, True)])
def test_what_cannot_be_written_is_not_believed_either(request_of: Callable[[str], Any], yard: Yard) -> None:
    name = yard.submit()
    before = yard.job(name)
    yard.disk.full = True
    assert yard.refused(request_of(name)).code == "no-space"
    assert yard.job(name) == before


def test_sqlite_s_own_full_disk_leaves_memory_and_file_as_they_were(yard: Yard) -> None:
    """Not a pretended error: SQLite is told that its file may not grow."""
    pages = yard.disk.execute("PRAGMA page_count").fetchone()[0]
    yard.disk.execute(f"PRAGMA max_page_count={pages + 3}")
    made = []
    with pytest.raises(Refused, match="disk is full"):
        for _ in range(50):
            made.append(yard.submit(prompt="a red mushroom", settings={"mesh.height_m": 1.0}))
    assert 0 < len(made) < 50
    yard.disk.execute("PRAGMA max_page_count=1000000")
    made.append(yard.submit())
    before = {name: (entry.arrival, entry.state) for name, entry in yard.ledger.entries.items()}
    yard.kill()
    yard.open()
    assert {name: (entry.arrival, entry.state) for name, entry in yard.ledger.entries.items()} == before
    assert list(before) == made


def test_forgetting_makes_room_even_on_a_full_disk(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    yard.finish(name)
    yard.disk.full = True
    assert yard.refused(Forget(name)).code == "no-space"
    assert not yard.ledger.job_folder(name).exists(), "its files went, so that the next try can be written"
