# SPDX-License-Identifier: GPL-3.0-or-later
"""A request that arrives again, under the same number or another, does what it does once; numbers are nobody's identity."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import zmq

from dreamwright.shared import limits
from dreamwright.shared.credentials import key_text, new_pair
from dreamwright.shared.messages import Cancel, Forget, JobReply, Pause, Pin, Prioritize, Resume, pack, unpack
from tests.server.test_on_the_wire import raw_guest
from tests.testing.encrypted_server import Street, street  # noqa: F401 (fixture)
from tests.testing.scripted_worker_server import asked

TICKETS, TIMES = 20, 5


def let_in(street: Street, name: str) -> zmq.Socket:
    """A socket of a guest with a key that the server knows."""
    pair = new_pair()
    street.keys.allow(name, key_text(pair.public))
    return raw_guest(street, pair)


def answers(street: Street, own: zmq.Socket, sent: list[bytes], seconds: float = 60.0) -> list[tuple[int, Any]]:
    """(number, reply) of each."""
    end, heard = time.monotonic() + seconds, []
    for data in sent:
        own.send(data)
        street.turn()
    while len(heard) < len(sent):
        assert time.monotonic() < end, heard
        street.turn()
        while own.poll(0):
            heard.append(unpack(own.recv(), limits.REPLY_BYTES))
    return heard


def test_a_hundred_submits_of_twenty_tickets_under_one_number_are_twenty_jobs_for_each_key(street: Street) -> None:
    anna, bert = let_in(street, "anna"), let_in(street, "bert")
    sent = [pack(asked(f"t{number}"), 7) for _ in range(TIMES) for number in range(TICKETS)]
    jobs: dict[str, Counter[str]] = {}
    for name, own in (("anna", anna), ("bert", bert)):
        heard = answers(street, own, sent)
        assert {number for number, _ in heard} == {7} and all(isinstance(reply, JobReply) for _, reply in heard)
        jobs[name] = Counter(reply.job.job for _, reply in heard)
        assert len(jobs[name]) == TICKETS and set(jobs[name].values()) == {TIMES}
    assert not set(jobs["anna"]) & set(jobs["bert"]), "the same bytes with another key are another user's"
    assert Counter(entry.owner for entry in street.ledger.entries.values()) == {"anna": TICKETS, "bert": TICKETS}
    for own in (anna, bert):
        own.close(0)


@pytest.mark.parametrize("make", [Cancel, Pause, Resume, lambda job: Pin(job, True), lambda job: Prioritize(job, -3)])
def test_a_change_that_is_sent_again_under_its_number_changes_nothing_more(make: Any, street: Street) -> None:
    anna = let_in(street, "anna")
    first, job = (reply.job.job for _, reply in answers(street, anna, [pack(asked("a"), 1), pack(asked("b"), 2)]))
    street.until(lambda: street.foreman.given == [first])
    if make is Resume:
        answers(street, anna, [pack(Pause(job), 3)])
    ((_, once),) = answers(street, anna, [pack(make(job), 9)])
    for _, again in answers(street, anna, [pack(make(job), 9)] * 10):
        assert again == once, "the same answer, down to the number of the change"
    anna.close(0)


def test_a_job_that_is_forgotten_twice_is_gone_once_and_takes_nothing_else_along(street: Street) -> None:
    anna = let_in(street, "anna")
    first, job = (reply.job.job for _, reply in answers(street, anna, [pack(asked("a"), 1), pack(asked("b"), 2)]))
    answers(street, anna, [pack(Cancel(job), 3)])
    heard = [
        type(reply).__name__ + getattr(reply, "code", "")
        for _, reply in answers(street, anna, [pack(Forget(job), 4)] * 3)
    ]
    assert heard == ["Done", "Refusalno-such-job", "Refusalno-such-job"] and set(street.ledger.entries) == {first}
    anna.close(0)
