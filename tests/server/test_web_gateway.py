# SPDX-License-Identifier: GPL-3.0-or-later
"""What users of the web page can see and do, on the channel between the server and its web process."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from dreamwright.backend.server.transport.authorized_keys import User
from dreamwright.backend.server.web.channel import (
    ANSWER_BYTES,
    Account,
    Answer,
    Call,
    FrameReader,
    SignedIn,
    SignIn,
    SignOut,
    Watch,
    WatchEnded,
    Watching,
    WhoAmI,
    pack_call,
    unpack_answer,
)
from dreamwright.backend.server.web.gateway import CALLS_PER_STEP, PASSED_ON, UNSENT_BYTES, WebGateway
from dreamwright.backend.server.web.login_links import LoginLinks
from dreamwright.backend.server.web.sessions import Secrets, Sessions
from dreamwright.backend.server.workers.worker_protocol import PreviewReport
from dreamwright.shared.messages import (
    MESSAGES,
    CancelJob,
    DeleteJob,
    Done,
    GetPreview,
    GetStatus,
    JobChanged,
    JobReply,
    PauseJob,
    PinJob,
    PreviewFrame,
    PreviewReply,
    Refusal,
    ResumeJob,
    SetPriority,
    Subscribe,
)
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.message_strategies import valid

ADA, BOB, EVE = User("ada", False, ("a",), 1.0), User("bob", False, ("b",), 2.0), User("eve", True, ("e",), 3.0)
NOBODY = Secrets("", "")


class Page:
    """A gateway on an in-memory server, and the web process's end of its channel."""

    def __init__(self, server: InMemoryServer) -> None:
        self.server = server
        self.users = {user.name: user for user in (ADA, BOB, EVE)}
        self.links = LoginLinks(server.folder)
        self.sessions = Sessions(self.users.get, lambda: server.now)
        self.gateway = WebGateway(server.service.answer, self.sessions, self.links, self.users.get)
        server.publisher._send = self.deliver
        self.events: list[Answer] = []
        self.number = 0
        self.open()

    def open(self) -> None:
        own, self.its = socket.socketpair()
        self.its.setblocking(False)
        self.reader = FrameReader(ANSWER_BYTES)
        self.gateway.connect(own)

    def deliver(self, route: bytes, event: Any) -> bool:
        return self.gateway.owns(route) and self.gateway.send_event(route, event)

    def sign_in(self, user: User) -> Secrets:
        reply = self.ask(NOBODY, SignIn(self.links.create(user)))
        assert isinstance(reply, SignedIn)
        return Secrets(reply.cookie, reply.key)

    def ask(self, who: Secrets, message: Any) -> Any:
        self.number += 1
        self.its.sendall(pack_call(Call(self.number, who.cookie, who.key, message)))
        assert self.gateway.step()
        (reply,) = [answer.message for answer in self.receive() if answer.number == self.number]
        return reply

    def receive(self) -> list[Answer]:
        """Everything that was sent; events are kept too."""
        found = []
        while True:
            self.gateway.step()
            try:
                data = self.its.recv(1 << 20)
            except BlockingIOError:
                break
            found += [unpack_answer(frame) for frame in self.reader.feed(data)]
        self.events += [answer for answer in found if not answer.number]
        return found


@pytest.fixture
def page(in_memory_server: InMemoryServer) -> Iterator[Page]:
    page = Page(in_memory_server)
    yield page
    page.its.close()
    page.gateway.disconnect()


def test_nobody_is_let_in_without_a_session(page: Page) -> None:
    job = page.server.submit("ada")
    ada = page.sign_in(ADA)
    for who in (NOBODY, Secrets(ada.cookie, ""), Secrets("", ada.key), Secrets(ada.key, ada.cookie)):
        for message in (WhoAmI(), Watch(), GetStatus(), CancelJob(job), SignOut()):
            reply = page.ask(who, message)
            assert isinstance(reply, Refusal) and reply.code == "not-admitted"
    assert page.server.job(job).state == "queued"


@pytest.mark.parametrize("secret", ["", "x" * 43, "../users"])
def test_no_other_text_is_a_link(page: Page, secret: str) -> None:
    assert page.ask(NOBODY, SignIn(secret)).code == "not-admitted"
    assert len(page.sessions) == 0


def test_a_user_sees_and_changes_only_their_jobs(page: Page) -> None:
    own, other = page.server.submit("ada"), page.server.submit("bob", prompt="a green tree")
    ada = page.sign_in(ADA)
    watching = page.ask(ada, Watch())
    assert isinstance(watching, Watching) and [job.job for job in watching.jobs.jobs] == [own]
    no_such_job = page.ask(ada, CancelJob("0" * 16)).message.replace("0" * 16, other)
    for message in (
        CancelJob(other), PauseJob(other), ResumeJob(other), DeleteJob(other), GetPreview(other), PinJob(other, True),
        SetPriority(other, -1),
    ):  # fmt: skip
        reply = page.ask(ada, message)
        assert (reply.code, reply.message) == ("no-such-job", no_such_job)  # as of a job that does not exist
    assert isinstance(page.ask(ada, CancelJob(own)), JobReply)
    assert page.server.job(own).state == "cancelled" and page.server.job(other).state == "queued"
    status = page.ask(ada, GetStatus())
    assert not status.sees_all and [user.name for user in status.users] == ["ada"]


def test_events_go_to_the_user_of_the_job_and_to_admins(page: Page) -> None:
    ada, bob, eve = (page.ask(page.sign_in(user), Watch()).watch for user in (ADA, BOB, EVE))
    job = page.server.submit("ada")
    page.server.step(1.0)
    page.receive()
    assert {event.watch for event in page.events if isinstance(event.message, JobChanged)} == {ada, eve}
    assert {event.message.job.job for event in page.events} == {job} and bob not in {e.watch for e in page.events}


def test_an_admin_sees_and_cancels_every_job(page: Page) -> None:
    job = page.server.submit("ada")
    eve = page.sign_in(EVE)
    assert page.ask(eve, WhoAmI()) == Account("eve", True, False)
    assert page.ask(eve, Watch()).jobs.jobs[0].owner == "ada"
    assert isinstance(page.ask(eve, CancelJob(job)), JobReply)
    assert page.server.job(job).state == "cancelled"


def test_a_preview_is_shown_to_its_owner_only(page: Page) -> None:
    job = page.server.submit("ada")
    page.server.step()
    page.server.report(lambda job: PreviewReport(PreviewFrame(job, 3, 1, 1, b"x"), 0), job)
    assert isinstance(page.ask(page.sign_in(ADA), GetPreview(job)), PreviewReply)
    assert page.ask(page.sign_in(BOB), GetPreview(job)).code == "no-such-job"


@pytest.mark.parametrize("change", [None, replace(EVE, is_admin=False, since=9.0)])
def test_a_revoked_key_ends_the_session_and_the_stream_at_once(page: Page, change: User | None) -> None:
    eve = page.sign_in(EVE)
    watch = page.ask(eve, Watch()).watch
    page.users.pop("eve")
    if change is not None:
        page.users["eve"] = change
    page.server.submit("ada")
    page.receive()
    assert [(event.watch, event.message) for event in page.events] == [(watch, WatchEnded())]
    assert page.ask(eve, WhoAmI()).code == "not-admitted"
    page.server.submit("ada")
    page.receive()
    assert len(page.events) == 1


def test_a_link_made_before_a_change_of_role_is_refused(page: Page) -> None:
    secret = page.links.create(ADA)
    page.users["ada"] = replace(ADA, is_admin=True, since=9.0)
    assert page.ask(NOBODY, SignIn(secret)).code == "not-admitted"


def test_a_session_ends_when_its_user_signs_out(page: Page) -> None:
    ada, other = page.sign_in(ADA), page.sign_in(ADA)
    assert page.ask(ada, SignOut()) == Done()
    assert page.ask(ada, WhoAmI()).code == "not-admitted"
    assert page.ask(other, WhoAmI()) == Account("ada", False, False)


def test_the_page_may_not_ask_for_anything_else(page: Page) -> None:
    ada = page.sign_in(ADA)
    refused = [kind for kind in MESSAGES.values() if kind not in PASSED_ON]
    assert Subscribe in refused
    for kind in refused:
        reply = page.ask(ada, valid(kind, random.Random(0)))
        assert isinstance(reply, Refusal) and reply.code == "bad-message"


def test_sessions_survive_the_web_process_and_watches_do_not(page: Page) -> None:
    ada = page.sign_in(ADA)
    page.ask(ada, Watch())
    page.its.close()
    assert not page.gateway.step()
    page.gateway.disconnect()
    page.open()
    page.server.submit("ada")
    page.receive()
    assert page.events == []
    assert page.ask(ada, WhoAmI()) == Account("ada", False, False)
    page.ask(ada, Watch())
    page.server.submit("ada")
    page.receive()
    assert page.events


@pytest.mark.parametrize("data", [b"\xff" * 8, (9).to_bytes(4, "big") + b"x" * 9])
def test_broken_frames_end_the_web_process_or_nothing(page: Page, data: bytes) -> None:
    page.its.sendall(data)
    page.gateway.step()
    page.gateway.disconnect()
    page.its.close()
    page.open()
    assert isinstance(page.ask(page.sign_in(ADA), WhoAmI()), Account)


def test_a_flood_of_calls_is_answered_in_turns(page: Page) -> None:
    ada = page.sign_in(ADA)
    page.its.sendall(
        b"".join(pack_call(Call(1000 + n, ada.cookie, ada.key, WhoAmI())) for n in range(3 * CALLS_PER_STEP))
    )
    page.gateway.step()
    assert page.gateway.calls_wait
    assert len([answer for answer in page.receive() if answer.number >= 1000]) == 3 * CALLS_PER_STEP


def test_a_web_process_that_does_not_read_bounds_what_is_kept_for_it(page: Page) -> None:
    ada = page.sign_in(ADA)
    page.ask(ada, Watch())
    route = next(iter(page.gateway._routes))
    frame = PreviewFrame("j", 1, 1, 1, bytes(1 << 20))
    for _ in range(2 * UNSENT_BYTES // (1 << 20)):
        assert page.gateway.send_event(route, frame)
    assert len(page.gateway._unsent) < UNSENT_BYTES + 2 * (1 << 20)
    page.receive()
    assert not page.gateway.has_unsent
