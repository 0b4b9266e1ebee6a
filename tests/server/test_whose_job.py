# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a job is depends on the key: to everybody else there is none, and an admin sees all."""

from __future__ import annotations

from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import Pictured
from dreamwright.shared.credentials import key_text
from dreamwright.shared.errors import Refused
from dreamwright.shared.messages import (
    Cancel,
    Fetch,
    Forget,
    JobChanged,
    JobList,
    ListJobs,
    Pause,
    PreviewFrame,
    Resume,
    Subscribe,
)
from tests.testing.encrypted_server import Street, street  # noqa: F401 (street is a fixture)
from tests.testing.scripted_worker_server import asked

NOBODY = "f" * 16  # a job that there is not


def test_to_everybody_else_a_job_is_as_if_there_were_none(street: Street) -> None:
    anna, bert = street.guest("anna"), street.guest("bert")
    bert.subscribe()
    job = street.ask(anna, asked("a", prompt="a red chair")).job.job
    street.until(lambda: street.foreman.given == [job])
    (street.ledger.job_folder(job) / MESH_FILE).write_bytes(b"a mesh")
    for make in (Cancel, Pause, Resume, Forget, Subscribe, lambda name: Fetch(name, "mesh", 0, 10)):
        theirs, nobodys = street.ask(bert, make(job)), street.ask(bert, make(NOBODY))
        assert isinstance(theirs, Refused) and theirs.code == nobodys.code == "no-such-job"
        assert theirs.message.replace(job, "X") == nobodys.message.replace(NOBODY, "X")
    assert not street.ask(bert, ListJobs()).jobs and len(street.ask(anna, ListJobs()).jobs) == 1
    assert street.ledger.entries[job].state.value == "running"
    assert not [event for event in street.events[bert] if isinstance(event, (JobChanged, PreviewFrame))]


def test_a_ticket_is_the_users_own_so_that_nobody_gets_anothers_job_by_it(street: Street) -> None:
    anna, bert = street.guest("anna"), street.guest("bert")
    first, second = street.ask(anna, asked("same", prompt="a red chair")), street.ask(bert, asked("same"))
    assert first.job.job != second.job.job and second.job.prompt == "a red mushroom"


def test_two_keys_of_one_name_share_their_jobs(street: Street) -> None:
    desk, couch = street.guest("anna"), street.guest("anna")
    job = street.ask(desk, asked("a")).job.job
    assert [found.job for found in street.ask(couch, ListJobs()).jobs] == [job]


def test_an_admin_sees_and_controls_every_job_until_the_role_is_taken_away(street: Street) -> None:
    anna, chief = street.guest("anna"), street.guest("chief", is_admin=True)
    chief.subscribe()
    street.for_a_while(0.1)
    job = street.ask(anna, asked("a")).job.job
    street.until(lambda: any(isinstance(event, JobChanged) and event.job.job == job for event in street.events[chief]))
    assert [found.job for found in street.ask(chief, ListJobs()).jobs] == [job]
    street.until(lambda: street.foreman.given == [job])
    chief.subscribe(job)
    street.for_a_while(0.1)
    street.foreman.told = [pictured(street, job)]
    street.until(lambda: any(isinstance(event, PreviewFrame) for event in street.events[chief]))
    assert street.ask(chief, Cancel(job)).job.state == "cancelling"
    street.keys.allow("chief", key_text(chief.pair.public), False)
    assert street.ask(chief, Cancel(job)).code == "no-such-job" and not street.ask(chief, ListJobs()).jobs
    street.for_a_while(0.2)  # what was sent before is heard
    street.events[chief].clear()
    street.foreman.told = [pictured(street, job)]
    street.door.service._herald.tell(job)
    street.for_a_while(0.2)
    assert not [event for event in street.events[chief] if isinstance(event, (JobChanged, PreviewFrame))], (
        "nor by what it subscribed to before"
    )
    street.keys.allow("chief", key_text(chief.pair.public), True)
    street.until(
        lambda: any(isinstance(event, JobList) and event.jobs for event in street.events[chief])
    )  # within a pulse


def test_who_was_shut_out_and_let_in_again_between_two_words_still_hears_everything(street: Street) -> None:
    anna = street.guest("anna")
    anna.subscribe()
    job = street.ask(anna, asked("a")).job.job
    street.keys.revoke("anna")
    street.door.service._herald.tell(job)  # nobody hears it, and the server forgets its subscriber
    street.keys.allow("anna", key_text(anna.pair.public))
    street.events[anna].clear()
    street.until(lambda: any(isinstance(event, JobList) for event in street.events[anna]))
    street.ledger.note(job, message="news")
    street.door.service._herald.tell(job)
    street.until(
        lambda: any(isinstance(event, JobChanged) and event.job.message == "news" for event in street.events[anna])
    )


def pictured(street: Street, job: str) -> Pictured:
    """A worker's picture; by name, for a report says also which attempt it is of."""
    fields = {"job": job, "step": 1, "width": 1, "height": 1, "data": b"x", "attempt": 1}
    return Pictured(**{name: value for name, value in fields.items() if name in Pictured.__dataclass_fields__})
