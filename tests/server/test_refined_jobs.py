# SPDX-License-Identifier: GPL-3.0-or-later
"""A job can begin from the field of another one of its user's: what is refused, and that it comes about once, whole and for good."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.scenes.initial_field import FIELD_FILE
from dreamwright.backend.server.jobs import initial_fields
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.dispatcher import SWEEP_S
from dreamwright.backend.server.workers.job_executor import ORIGIN_FILE
from dreamwright.backend.server.workers.worker_protocol import Ended
from dreamwright.shared.messages import AskCapabilities, Cancel, Forget, Submit
from tests.testing.in_memory_server import Yard, yard  # noqa: F401 (fixture)

FIELD = b"a field of some bytes"


def finished(yard: Yard, field: bytes = FIELD, **changes: Any) -> str:
    """A job that has ended with a mesh and its field."""
    name = yard.submit(**changes)
    yard.work()
    (yard.ledger.job_folder(name) / FIELD_FILE).write_bytes(field)
    yard.finish(name)
    return name


def asked(origin: str, **changes: Any) -> Submit:
    fields = {
        "ticket": "refined",
        "prompt": "a blue mushroom",
        "negative": "",
        "model": "starter",
        "preset": "draft",
        "seed": 0,
        "settings": {},
    }
    return Submit(**(fields | {"refines": origin} | changes))


def taken(yard: Yard, job: str) -> bytes:
    return (yard.ledger.job_folder(job) / ORIGIN_FILE).read_bytes()


def folders(yard: Yard) -> set[str]:
    return {path.name for path in (yard.folder / "jobs").iterdir()}


# --- what comes about


def test_only_a_job_that_left_its_field_says_that_it_can_be_refined(yard: Yard) -> None:
    bare = yard.submit()
    yard.work()
    yard.finish(bare)
    assert not yard.job(bare).refinable and yard.job(finished(yard)).refinable


def test_the_new_job_has_the_field_and_begins_in_the_middle_of_its_steps(yard: Yard) -> None:
    origin = finished(yard)
    job = yard.ask(asked(origin, settings={"run.steps": 400, "run.refine_share": 0.25})).job
    assert (job.refines, job.step, job.steps, job.state) == (origin, 100, 400, "queued")
    assert taken(yard, job.job) == FIELD
    yard.work()
    assert yard.hands.at_work["cpu"].refines == origin, "its worker is told"


def test_the_origin_may_be_forgotten_as_soon_as_the_new_job_is_submitted(yard: Yard) -> None:
    origin = finished(yard)
    name = yard.ask(asked(origin)).job.job
    yard.ask(Forget(origin))
    assert not yard.ledger.job_folder(origin).exists() and taken(yard, name) == FIELD
    assert yard.ask(asked(origin)).job.job == name, "nor does the same ticket need it any more"
    yard.kill()
    yard.open()
    assert (yard.job(name).refines, taken(yard, name)) == (origin, FIELD)
    yard.work()
    assert yard.hands.given == [name]


def test_the_same_ticket_makes_one_job_with_one_field(yard: Yard) -> None:
    origin = finished(yard)
    names = {yard.ask(asked(origin)).job.job for _ in range(3)}
    assert len(names) == 1 and folders(yard) == names | {origin}


def test_a_refined_job_is_refined_in_its_turn(yard: Yard) -> None:
    second = yard.ask(asked(finished(yard))).job.job
    yard.work()
    (yard.ledger.job_folder(second) / FIELD_FILE).write_bytes(b"another")
    yard.finish(second)
    assert taken(yard, yard.ask(asked(second, ticket="third")).job.job) == b"another"


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_on_a_disk_without_second_names_of_files_the_field_is_copied(
    reason: int, yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(reason, os.strerror(reason))

    origin = finished(yard)
    monkeypatch.setattr(initial_fields.os, "link", refuse)
    own = yard.ledger.job_folder(yard.ask(asked(origin)).job.job) / ORIGIN_FILE
    assert own.read_bytes() == FIELD and own.stat().st_nlink == 1


def test_the_share_that_is_skipped_is_a_control_of_the_panels(yard: Yard) -> None:
    card = next(card for card in yard.ask(AskCapabilities()).settings if card.name == "run.refine_share")
    assert (card.kind, card.low, card.high, card.defaults["draft"]) == ("number", 0.0, 0.99, 0.5)


# --- what is refused


def test_somebody_elses_job_is_refused_in_the_words_for_one_that_does_not_exist(yard: Yard) -> None:
    origin, nobody = finished(yard), "f" * 16
    theirs, none = (yard.refused(asked(name), "bob") for name in (origin, nobody))
    assert theirs.code == none.code == "no-such-job" and theirs.message.replace(origin, "X") == none.message.replace(
        nobody, "X"
    )
    assert folders(yard) == {origin} and len(yard.ledger.entries) == 1
    assert yard.ask(asked(origin), "chief", admin=True).job.owner == "chief", "an admin sees everybody's"


def test_a_job_that_has_not_ended_is_refused_with_what_to_do(yard: Yard) -> None:
    for _ in range(2):
        name = yard.submit()
        yard.work()
        refused = yard.refused(asked(name))
        assert refused.code == "not-now" and yard.job(name).state in refused.message and "cancel it" in refused.message


def test_a_job_without_a_field_is_refused_with_what_to_do_be_it_that_the_disk_lost_it(yard: Yard) -> None:
    failed = yard.submit()
    yard.work()
    yard.report(Ended, failed, "failed", "no luck", False)
    lost = finished(yard)
    (yard.ledger.job_folder(lost) / FIELD_FILE).unlink()
    for name in (failed, lost):
        refused = yard.refused(asked(name))
        assert (
            refused.code == "not-now"
            and f"job {name} has no field" in refused.message
            and "dream it again" in refused.message
        )
    assert yard.ledger.open_jobs() == 0 and folders(yard) <= {failed, lost}, "nothing of the new job is left"


def test_another_kind_of_field_is_refused_with_the_presets_that_fit(yard: Yard) -> None:
    origin = finished(yard)
    refused = yard.refused(asked(origin, preset="paper"))
    assert refused.code == "bad-input" and "field.kind is mip-mlp, there voxels" in refused.message
    assert "allowed are the presets draft, standard, dream-fields, without any field setting" in refused.message
    assert yard.ask(asked(origin, preset="standard")).job.preset == "standard"


def test_a_field_of_other_settings_is_refused_with_those_to_give(yard: Yard) -> None:
    origin = finished(yard, settings={"field.density_scale": 4, "run.steps": 20})
    refused = yard.refused(asked(origin))
    assert (
        "field.density_scale is 5.0, there 4.0" in refused.message
        and "with field.density_scale=4 and no other field setting" in refused.message
    )
    assert yard.ask(asked(origin, settings={"field.density_scale": 4.0})).job.state == "queued", (
        "the same in other words"
    )


# --- crashes and full disks


def test_a_server_that_dies_before_the_commit_leaves_nothing_and_the_ticket_makes_the_job_after_its_restart(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As SIGKILL between the field's new name and the commit: nothing is cleared up."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    origin = finished(yard)
    with monkeypatch.context() as dying:
        dying.setattr(yard.ledger, "_write", die)
        dying.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            yard.ask(asked(origin))
    (stray,) = folders(yard) - {origin}
    assert taken(yard, stray) == FIELD, "it was on disk by then"
    yard.kill()
    yard.open()
    assert folders(yard) == {origin} and set(yard.ledger.entries) == {origin}
    assert taken(yard, yard.ask(asked(origin)).job.job) == FIELD


@pytest.mark.parametrize("full", ["ledger", "link", "folder"])
def test_on_a_full_disk_it_is_refused_and_leaves_nothing(
    full: str, yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    origin = finished(yard)
    with monkeypatch.context() as disk:
        yard.disk.full = full == "ledger"
        if full == "link":
            disk.setattr(initial_fields.os, "link", refuse)
            disk.setattr(initial_fields.shutil, "copyfile", refuse)
        elif full == "folder":
            disk.setattr(Path, "mkdir", refuse)
        refused = yard.refused(asked(origin))
    assert refused.code == "no-space" and "make room on its disk, then send it again" in refused.message
    assert folders(yard) == {origin} and set(yard.ledger.entries) == {origin}
    yard.disk.full = False
    assert yard.ask(asked(origin)).job.state == "queued"


# --- what is kept


def test_fields_count_for_what_is_kept_and_go_with_their_job(tmp_path: Path) -> None:
    yard = Yard(tmp_path, policy=Policy(keep_gb=0.001))
    heavy = finished(yard, bytes(700_000))
    yard.work(SWEEP_S)
    assert heavy in yard.ledger.entries
    other = finished(yard, bytes(700_000))
    yard.work(2 * SWEEP_S)
    assert set(yard.ledger.entries) == {other} and not yard.ledger.job_folder(heavy).exists(), (
        "1.4 MB are more than one"
    )


def test_the_field_to_begin_from_goes_when_the_job_has_ended_and_stays_while_it_can_go_on(yard: Yard) -> None:
    origin = finished(yard)
    jobs = {
        what: yard.ask(asked(origin, ticket=what)).job.job
        for what in ("succeeds", "is cancelled", "fails", "can go on")
    }
    yard.ask(Cancel(jobs["is cancelled"]))
    yard.work()
    yard.finish(jobs["succeeds"])
    yard.report(Ended, jobs["fails"], "failed", "no luck", False)
    checkpoints = yard.ledger.job_folder(jobs["can go on"]) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "checkpoint.safetensors").write_bytes(b"12")
    yard.report(Ended, jobs["can go on"], "failed", "no luck", False)
    left = {what for what, job in jobs.items() if (yard.ledger.job_folder(job) / ORIGIN_FILE).exists()}
    assert left == {"can go on"}
    assert yard.service._dispatch.sweeper._size(yard.ledger.entries[jobs["can go on"]]) == 2 + len(FIELD)
    assert (yard.ledger.job_folder(origin) / FIELD_FILE).read_bytes() == FIELD, "the other name of the same file"
