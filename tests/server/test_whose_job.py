# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a job is depends on the key: to everybody else there is none, and an admin sees all."""

from __future__ import annotations

from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import PreviewReport
from dreamwright.shared.credentials import format_key
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import (
    CancelJob,
    DeleteJob,
    FetchChunk,
    JobChanged,
    JobList,
    ListJobs,
    PauseJob,
    PreviewFrame,
    ResumeJob,
    Subscribe,
)
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.scripted_worker_server import asked

NOBODY = "f" * 16  # a job that there is not


def test_to_everybody_else_a_job_is_as_if_there_were_none(encrypted_server: EncryptedServer) -> None:
    anna, bert = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("bert")
    bert.subscribe()
    job = encrypted_server.request(anna, asked("a", prompt="a red chair")).job.job
    encrypted_server.wait_until(lambda: encrypted_server.runner.given == [job])
    (encrypted_server.ledger.job_folder(job) / MESH_FILE).write_bytes(b"a mesh")
    for make in (CancelJob, PauseJob, ResumeJob, DeleteJob, Subscribe, lambda name: FetchChunk(name, "mesh", 0, 10)):
        theirs, nobodys = encrypted_server.request(bert, make(job)), encrypted_server.request(bert, make(NOBODY))
        assert isinstance(theirs, RequestError) and theirs.code == nobodys.code == "no-such-job"
        assert theirs.message.replace(job, "X") == nobodys.message.replace(NOBODY, "X")
    assert (
        not encrypted_server.request(bert, ListJobs()).jobs
        and len(encrypted_server.request(anna, ListJobs()).jobs) == 1
    )
    assert encrypted_server.ledger.entries[job].state.value == "running"
    assert not [event for event in encrypted_server.events[bert] if isinstance(event, (JobChanged, PreviewFrame))]


def test_a_ticket_is_the_users_own_so_that_nobody_gets_anothers_job_by_it(encrypted_server: EncryptedServer) -> None:
    anna, bert = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("bert")
    first, second = (
        encrypted_server.request(anna, asked("same", prompt="a red chair")),
        encrypted_server.request(bert, asked("same")),
    )
    assert first.job.job != second.job.job and second.job.prompt == "a red mushroom"


def test_two_keys_of_one_name_share_their_jobs(encrypted_server: EncryptedServer) -> None:
    desk, couch = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("anna")
    job = encrypted_server.request(desk, asked("a")).job.job
    assert [found.job for found in encrypted_server.request(couch, ListJobs()).jobs] == [job]


def test_an_admin_sees_and_controls_every_job_until_the_role_is_taken_away(encrypted_server: EncryptedServer) -> None:
    anna, chief = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("chief", is_admin=True)
    chief.subscribe()
    encrypted_server.run_for(0.1)
    job = encrypted_server.request(anna, asked("a")).job.job
    encrypted_server.wait_until(
        lambda: any(isinstance(event, JobChanged) and event.job.job == job for event in encrypted_server.events[chief])
    )
    assert [found.job for found in encrypted_server.request(chief, ListJobs()).jobs] == [job]
    encrypted_server.wait_until(lambda: encrypted_server.runner.given == [job])
    chief.subscribe(job)
    encrypted_server.run_for(0.1)
    encrypted_server.runner.told = [pictured(encrypted_server, job)]
    encrypted_server.wait_until(
        lambda: any(isinstance(event, PreviewFrame) for event in encrypted_server.events[chief])
    )
    assert encrypted_server.request(chief, CancelJob(job)).job.state == "cancelling"
    encrypted_server.keys.allow("chief", format_key(chief.pair.public), False)
    assert (
        encrypted_server.request(chief, CancelJob(job)).code == "no-such-job"
        and not encrypted_server.request(chief, ListJobs()).jobs
    )
    encrypted_server.run_for(0.2)  # what was sent before is heard
    encrypted_server.events[chief].clear()
    encrypted_server.runner.told = [pictured(encrypted_server, job)]
    encrypted_server.server.service._herald.tell(job)
    encrypted_server.run_for(0.2)
    assert not [event for event in encrypted_server.events[chief] if isinstance(event, (JobChanged, PreviewFrame))], (
        "nor by what it subscribed to before"
    )
    encrypted_server.keys.allow("chief", format_key(chief.pair.public), True)
    encrypted_server.wait_until(
        lambda: any(isinstance(event, JobList) and event.jobs for event in encrypted_server.events[chief])
    )  # within a pulse


def test_who_was_shut_out_and_let_in_again_between_two_words_still_hears_everything(
    encrypted_server: EncryptedServer,
) -> None:
    anna = encrypted_server.authorized_client("anna")
    anna.subscribe()
    job = encrypted_server.request(anna, asked("a")).job.job
    encrypted_server.keys.revoke("anna")
    encrypted_server.server.service._herald.tell(job)  # nobody hears it, and the server forgets its subscriber
    encrypted_server.keys.allow("anna", format_key(anna.pair.public))
    encrypted_server.events[anna].clear()
    encrypted_server.wait_until(lambda: any(isinstance(event, JobList) for event in encrypted_server.events[anna]))
    encrypted_server.ledger.note(job, message="news")
    encrypted_server.server.service._herald.tell(job)
    encrypted_server.wait_until(
        lambda: any(
            isinstance(event, JobChanged) and event.job.message == "news" for event in encrypted_server.events[anna]
        )
    )


def pictured(encrypted_server: EncryptedServer, job: str) -> PreviewReport:
    """The preview of a worker's first attempt."""
    return PreviewReport(PreviewFrame(job, 1, 1, 1, b"x"), 1)
