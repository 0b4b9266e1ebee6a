# SPDX-License-Identifier: GPL-3.0-or-later
"""A request that arrives again, under the same number or another, does what it does once; numbers are nobody's identity."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import zmq

from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.credentials import format_key, generate_key_pair
from dreamwright.shared.messages import CancelJob, DeleteJob, JobReply, PauseJob, PinJob, ResumeJob, SetPriority
from tests.server.test_on_the_wire import raw_guest
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.scripted_worker_server import asked

TICKETS, TIMES = 20, 5


def let_in(encrypted_server: EncryptedServer, name: str) -> zmq.Socket:
    """A socket of a guest with a key that the server knows."""
    pair = generate_key_pair()
    encrypted_server.keys.allow(name, format_key(pair.public))
    return raw_guest(encrypted_server, pair)


def answers(
    encrypted_server: EncryptedServer, own: zmq.Socket, sent: list[bytes], seconds: float = 60.0
) -> list[tuple[int, Any]]:
    """(number, reply) of each."""
    end, heard = time.monotonic() + seconds, []
    for data in sent:
        own.send(data)
        encrypted_server.step()
    while len(heard) < len(sent):
        assert time.monotonic() < end, heard
        encrypted_server.step()
        while own.poll(0):
            heard.append(unpack(own.recv(), limits.REPLY_BYTES))
    return heard


def test_a_hundred_submits_of_twenty_tickets_under_one_number_are_twenty_jobs_for_each_key(
    encrypted_server: EncryptedServer,
) -> None:
    anna, bert = let_in(encrypted_server, "anna"), let_in(encrypted_server, "bert")
    sent = [pack(asked(f"t{number}"), 7) for _ in range(TIMES) for number in range(TICKETS)]
    jobs: dict[str, Counter[str]] = {}
    for name, own in (("anna", anna), ("bert", bert)):
        heard = answers(encrypted_server, own, sent)
        assert {number for number, _ in heard} == {7} and all(isinstance(reply, JobReply) for _, reply in heard)
        jobs[name] = Counter(reply.job.job for _, reply in heard)
        assert len(jobs[name]) == TICKETS and set(jobs[name].values()) == {TIMES}
    assert not set(jobs["anna"]) & set(jobs["bert"]), "the same bytes with another key are another user's"
    assert Counter(entry.owner for entry in encrypted_server.ledger.entries.values()) == {
        "anna": TICKETS,
        "bert": TICKETS,
    }
    for own in (anna, bert):
        own.close(0)


@pytest.mark.parametrize(
    "make", [CancelJob, PauseJob, ResumeJob, lambda job: PinJob(job, True), lambda job: SetPriority(job, -3)]
)
def test_a_change_that_is_sent_again_under_its_number_changes_nothing_more(
    make: Any, encrypted_server: EncryptedServer
) -> None:
    anna = let_in(encrypted_server, "anna")
    first, job = (
        reply.job.job for _, reply in answers(encrypted_server, anna, [pack(asked("a"), 1), pack(asked("b"), 2)])
    )
    encrypted_server.wait_until(lambda: encrypted_server.runner.given == [first])
    if make is ResumeJob:
        answers(encrypted_server, anna, [pack(PauseJob(job), 3)])
    ((_, once),) = answers(encrypted_server, anna, [pack(make(job), 9)])
    for _, again in answers(encrypted_server, anna, [pack(make(job), 9)] * 10):
        assert again == once, "the same answer, down to the number of the change"
    anna.close(0)


def test_a_job_that_is_forgotten_twice_is_gone_once_and_takes_nothing_else_along(
    encrypted_server: EncryptedServer,
) -> None:
    anna = let_in(encrypted_server, "anna")
    first, job = (
        reply.job.job for _, reply in answers(encrypted_server, anna, [pack(asked("a"), 1), pack(asked("b"), 2)])
    )
    answers(encrypted_server, anna, [pack(CancelJob(job), 3)])
    heard = [
        type(reply).__name__ + getattr(reply, "code", "")
        for _, reply in answers(encrypted_server, anna, [pack(DeleteJob(job), 4)] * 3)
    ]
    assert heard == ["Done", "Refusalno-such-job", "Refusalno-such-job"] and set(encrypted_server.ledger.entries) == {
        first
    }
    anna.close(0)
