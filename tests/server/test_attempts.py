# SPDX-License-Identifier: GPL-3.0-or-later
"""One job, several attempts: only the latest is heard, deaths are counted, and the turn and the last checkpoint stay until the end."""

from __future__ import annotations

from dreamwright.backend.server.workers.dispatcher import RETRY_S
from dreamwright.backend.server.workers.fencing import FENCE_FILE
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.local_runner import Died
from dreamwright.backend.server.workers.worker_protocol import Ended, Noted, Stepped
from tests.testing.in_memory_server import Yard, yard  # noqa: F401 (fixture)


def test_the_fence_is_raised_before_a_worker_hears_of_the_job(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    assert (yard.ledger.job_folder(name) / FENCE_FILE).read_text() == "1\n"


def test_what_an_earlier_attempt_reports_changes_nothing(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    yard.hands.told.append(Died(name, -9))
    yard.work()
    assert yard.job(name).attempt == 2 and yard.job(name).state == "running"
    for late in (
        Stepped(name, 9, 10, 1.0, 1.0, 1),
        Noted(name, "", "late", 1),
        Ended(name, "succeeded", "", False, 1),
        Ended(name, "failed", "", False),
    ):
        before = yard.job(name)
        yard.hands.told.append(late)
        for device in list(yard.hands.at_work):
            yard.service._dispatch._take(yard.hands.told.pop())
        assert yard.job(name) == before


def test_a_job_that_gets_on_survives_more_deaths_than_one_that_does_not(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    steps = yard.job(name).steps
    for death in range(1, 6):
        yard.report(Stepped, name, death * steps // 10, steps, 1.0, 1.0)
        yard.hands.told.append(Died(name, -9))
        yard.work()
        assert yard.job(name).state == "running"
    for _ in range(2):
        yard.hands.told.append(Died(name, -9))
        yard.work()
    assert yard.job(name).state == "failed" and "3 times" in yard.job(name).message


def test_a_job_that_dies_at_the_same_step_each_time_fails_at_the_third(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    for death in (1, 2, 3):
        assert yard.job(name).state == "running" and yard.job(name).attempt == death
        yard.report(Stepped, name, yard.job(name).steps // 2, yard.job(name).steps, 1.0, 1.0)
        yard.hands.told.append(Died(name, -11))
        yard.work()
    assert yard.job(name).state == "failed" and yard.job(name).cause == "crashed"


def test_the_death_of_a_worker_is_counted_once_the_disk_takes_it(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    yard.disk.full = True
    yard.hands.told.append(Died(name, -9))
    yard.work()
    assert yard.job(name).state == "running"
    yard.disk.full = False
    yard.work(RETRY_S)
    assert yard.ledger.entries[name].attempts == 1 and yard.job(name).attempt == 2


def test_turns_and_interrupted_work_are_remembered_over_a_kill(yard: Yard) -> None:
    mine = [yard.submit("ada") for _ in range(3)]
    yard.work()
    yard.finish(mine[0])
    assert yard.hands.given == mine[:2]
    other = yard.submit("bob")
    yard.kill()
    yard.open()
    assert yard.job(mine[1]).state == "queued" and yard.job(mine[1]).queue_place == 1, "it had its turn and keeps it"
    assert yard.job(other).queue_place == 2, "bob was not served yet, ada was"
    yard.work()
    assert yard.hands.given == [mine[1]] and yard.job(mine[1]).attempt == 2


def test_the_last_checkpoint_stays_until_the_end_is_written_down(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    checkpoints = yard.ledger.job_folder(name) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "checkpoint.safetensors").write_bytes(b"x")
    yard.disk.full = True
    (yard.ledger.job_folder(name) / MESH_FILE).write_bytes(b"mesh")
    yard.report(Ended, name, "succeeded", "", True)
    assert yard.job(name).state == "running" and checkpoints.exists()
    yard.disk.full = False
    yard.work(RETRY_S)
    assert yard.job(name).state == "succeeded" and yard.job(name).mesh_bytes == 4 and not checkpoints.exists()
