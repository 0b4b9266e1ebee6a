# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clients may connect to an encrypted server, why others are refused, and who may see and control a job."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamwright.backend.server.app import Server
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import PreviewReport
from dreamwright.shared import limits
from dreamwright.shared.connection_monitor import MechanismProbe
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import fingerprint, format_key, generate_key_pair
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
from tests.testing.scripted_worker_server import submit_message


def test_unknown_key_is_refused_until_allowed(
    encrypted_server: EncryptedServer,
) -> None:
    pair = generate_key_pair()
    client = encrypted_server.connect_client(pair)
    encrypted_server.wait_until(lambda: client.state is ConnectionState.UNAUTHORIZED)
    for text in ("does not know this computer's key yet", "dreamwright keys allow NAME KEY", fingerprint(pair.public)):
        assert text in client.reason
    encrypted_server.run_for()
    assert client.state is ConnectionState.UNAUTHORIZED
    encrypted_server.keys.allow("anna", format_key(pair.public))
    encrypted_server.run_for()
    assert client.state is ConnectionState.UNAUTHORIZED, "libzmq never tries a refused socket again"
    encrypted_server.skip_reconnect_delay()
    encrypted_server.wait_until(lambda: client.state is ConnectionState.ONLINE)


def test_wrong_server_key_is_reported(
    encrypted_server: EncryptedServer,
) -> None:
    pair = generate_key_pair()
    encrypted_server.keys.allow("anna", format_key(pair.public))
    wrong = generate_key_pair().public
    client = encrypted_server.connect_client(pair, wrong)
    encrypted_server.wait_until(lambda: client.state is ConnectionState.UNAUTHORIZED)
    assert "is not the one of the connection string" in client.reason and fingerprint(wrong) in client.reason
    encrypted_server.skip_reconnect_delay()
    encrypted_server.run_for()
    assert client.state is ConnectionState.UNAUTHORIZED and "is not the one" in client.reason, (
        "the reason stays while it tries again"
    )


def test_unencrypted_client_is_refused(encrypted_server: EncryptedServer) -> None:
    client = encrypted_server.connect_client(None)
    encrypted_server.wait_until(lambda: client.state is ConnectionState.UNAUTHORIZED)
    assert "requires an encrypted connection" in client.reason and "connection string" in client.reason


def test_encrypted_client_refuses_an_unencrypted_server(encrypted_server: EncryptedServer, tmp_path: Path) -> None:
    plain = Server("tcp://127.0.0.1:*", tmp_path / "plain", ("cpu",))
    received: list[Any] = []
    plain._answer = lambda route, frame: received.append(frame.bytes)
    try:
        client = encrypted_server.connect_client(generate_key_pair(), address=plain.address)
        for _ in range(60):
            plain.step(0.005)
            encrypted_server.step()
        assert (
            client.state is ConnectionState.UNAUTHORIZED
            and "does not encrypt, although its connection string requires it" in client.reason
        )
        assert not received
    finally:
        plain.close()


@pytest.mark.parametrize("encrypt", [True, False], ids=["CURVE", "NULL"])
def test_encryption_mismatch_is_always_reported(encrypt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypted_server = EncryptedServer(tmp_path / "state", monkeypatch, encrypt=encrypt)
    try:
        greeting = MechanismProbe(zmq.Context.instance(), encrypted_server.server.address)
        encrypted_server.wait_until(lambda: greeting.mechanism() == ("CURVE" if encrypt else "NULL"))
        greeting.close()
        clients = [encrypted_server.connect_client(None if encrypt else generate_key_pair()) for _ in range(10)]
        encrypted_server.wait_until(lambda: all(client.state is ConnectionState.UNAUTHORIZED for client in clients))
        encrypted_server.run_for(0.5)
        text = "requires an encrypted connection" if encrypt else "does not encrypt"
        assert [client.reason for client in clients if text not in client.reason] == []
    finally:
        encrypted_server.close()


def test_tunnel_without_a_server_is_reported(encrypted_server: EncryptedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tunnel:
        tunnel.setblocking(False)
        address = f"tcp://127.0.0.1:{tunnel.getsockname()[1]}"
        locked, plain = (
            encrypted_server.connect_client(generate_key_pair(), address=address),
            encrypted_server.connect_client(None, address=address),
        )
        end = time.monotonic() + 10
        while (
            not all(client.state is ConnectionState.UNAUTHORIZED for client in (locked, plain))
            and time.monotonic() < end
        ):
            encrypted_server.step()
            with contextlib.suppress(BlockingIOError):
                tunnel.accept()[0].close()
    assert "behind a tunnel, check that the server runs" in locked.reason
    assert (
        "accepts connections and closes them" in plain.reason and "behind a tunnel that the server runs" in plain.reason
    )


def test_missing_answer_differs_from_a_refusal(encrypted_server: EncryptedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = encrypted_server.connect_client(
            generate_key_pair(), address=f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        )
        encrypted_server.run_for()
        encrypted_server.skip_reconnect_delay()
        encrypted_server.wait_until(lambda: client.state is ConnectionState.CONNECTING and "no answer" in client.reason)
    gone = encrypted_server.connect_client(generate_key_pair(), address="tcp://127.0.0.1:1")
    encrypted_server.skip_reconnect_delay()
    encrypted_server.wait_until(
        lambda: gone.state is ConnectionState.CONNECTING and "is the server running" in gone.reason
    )


def test_revoked_key_is_refused_mid_session(
    encrypted_server: EncryptedServer,
) -> None:
    anna = encrypted_server.authorized_client("anna")
    anna.subscribe()
    job = encrypted_server.request(anna, submit_message("a")).job.job
    encrypted_server.wait_until(lambda: any(isinstance(event, JobChanged) for event in encrypted_server.events[anna]))
    encrypted_server.keys.revoke("anna")
    encrypted_server.events[anna].clear()
    encrypted_server.server.store.update_in_memory(job, message="a secret word")
    encrypted_server.server.publisher.publish_job(encrypted_server.server.store.records[job])
    encrypted_server.run_for(0.2)
    received = [event.job.message for event in encrypted_server.events[anna] if isinstance(event, JobChanged)]
    assert "a secret word" not in received, "though its connection lives"
    answers: list[Any] = []
    anna.request(submit_message("b"), answers.append)
    encrypted_server.wait_until(lambda: anna.state is ConnectionState.UNAUTHORIZED)
    assert "does not accept your key any more" in anna.reason and not answers
    assert len(encrypted_server.store.records) == 1
    encrypted_server.keys.allow("anna", format_key(anna.pair.public))
    encrypted_server.wait_until(lambda: anna.state is ConnectionState.ONLINE)  # the old connection serves again
    encrypted_server.clock_offset_s += limits.REQUEST_TIMEOUT_S + 0.1
    encrypted_server.wait_until(lambda: bool(answers))
    assert answers[0].job.prompt == "a red mushroom", "what was asked meanwhile is carried out now"
    encrypted_server.wait_until(lambda: any(isinstance(event, JobList) for event in encrypted_server.events[anna]))


def test_revoked_key_cannot_reconnect(encrypted_server: EncryptedServer) -> None:
    anna = encrypted_server.authorized_client("anna")
    encrypted_server.keys.revoke("anna")
    again = encrypted_server.connect_client(anna.pair)
    encrypted_server.wait_until(lambda: again.state is ConnectionState.UNAUTHORIZED)


@pytest.mark.parametrize("damage", ["gone", "cut short", "open to all", "another's form"])
def test_untrusted_users_file_blocks_everyone(
    encrypted_server: EncryptedServer, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    anna = encrypted_server.authorized_client("anna")
    path = encrypted_server.keys.users_path
    good = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(good[: len(good) // 2])
    elif damage == "open to all":
        path.chmod(0o644)
    else:
        path.write_bytes(good.replace(b'"form": 1', b'"form": 9'))
    answers: list[Any] = []
    with caplog.at_level(logging.ERROR):
        anna.request(ListJobs(), answers.append)
        encrypted_server.wait_until(lambda: anna.state is ConnectionState.UNAUTHORIZED)
    assert not answers
    assert damage == "gone" or "nobody is allowed" in caplog.text
    unauthorized = encrypted_server.connect_client(anna.pair)
    encrypted_server.wait_until(lambda: unauthorized.state is ConnectionState.UNAUTHORIZED)
    path.write_bytes(good)
    path.chmod(0o600)
    encrypted_server.wait_until(lambda: anna.state is ConnectionState.ONLINE)


UNKNOWN_JOB = "f" * 16  # no job has this id


def test_jobs_of_other_users_are_unknown(encrypted_server: EncryptedServer) -> None:
    anna, bert = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("bert")
    bert.subscribe()
    job = encrypted_server.request(anna, submit_message("a", prompt="a red chair")).job.job
    encrypted_server.wait_until(lambda: encrypted_server.runner.given == [job])
    (encrypted_server.store.job_folder(job) / MESH_FILE).write_bytes(b"a mesh")
    for make in (CancelJob, PauseJob, ResumeJob, DeleteJob, Subscribe, lambda name: FetchChunk(name, "mesh", 0, 10)):
        foreign, unknown = (
            encrypted_server.request(bert, make(job)),
            encrypted_server.request(bert, make(UNKNOWN_JOB)),
        )
        assert isinstance(foreign, RequestError) and foreign.code == unknown.code == "no-such-job"
        assert foreign.message.replace(job, "X") == unknown.message.replace(UNKNOWN_JOB, "X")
    assert (
        not encrypted_server.request(bert, ListJobs()).jobs
        and len(encrypted_server.request(anna, ListJobs()).jobs) == 1
    )
    assert encrypted_server.store.records[job].state.value == "running"
    assert not [event for event in encrypted_server.events[bert] if isinstance(event, (JobChanged, PreviewFrame))]


def test_tickets_belong_to_their_user(encrypted_server: EncryptedServer) -> None:
    anna, bert = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("bert")
    first, second = (
        encrypted_server.request(anna, submit_message("same", prompt="a red chair")),
        encrypted_server.request(bert, submit_message("same")),
    )
    assert first.job.job != second.job.job and second.job.prompt == "a red mushroom"


def test_two_keys_of_one_user_share_jobs(encrypted_server: EncryptedServer) -> None:
    first_client, second_client = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("anna")
    job = encrypted_server.request(first_client, submit_message("a")).job.job
    assert [found.job for found in encrypted_server.request(second_client, ListJobs()).jobs] == [job]


def test_admin_controls_every_job(encrypted_server: EncryptedServer) -> None:
    anna, admin = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("admin", is_admin=True)
    admin.subscribe()
    encrypted_server.run_for(0.1)
    job = encrypted_server.request(anna, submit_message("a")).job.job
    encrypted_server.wait_until(
        lambda: any(isinstance(event, JobChanged) and event.job.job == job for event in encrypted_server.events[admin])
    )
    assert [found.job for found in encrypted_server.request(admin, ListJobs()).jobs] == [job]
    encrypted_server.wait_until(lambda: encrypted_server.runner.given == [job])
    admin.subscribe(job)
    encrypted_server.run_for(0.1)
    encrypted_server.runner.queued = [preview_report(encrypted_server, job)]
    encrypted_server.wait_until(
        lambda: any(isinstance(event, PreviewFrame) for event in encrypted_server.events[admin])
    )
    assert encrypted_server.request(admin, CancelJob(job)).job.state == "cancelling"
    encrypted_server.keys.allow("admin", format_key(admin.pair.public), False)
    assert (
        encrypted_server.request(admin, CancelJob(job)).code == "no-such-job"
        and not encrypted_server.request(admin, ListJobs()).jobs
    )
    encrypted_server.run_for(0.2)  # what was sent before is received
    encrypted_server.events[admin].clear()
    encrypted_server.runner.queued = [preview_report(encrypted_server, job)]
    encrypted_server.server.publisher.publish_job(encrypted_server.server.store.records[job])
    encrypted_server.run_for(0.2)
    assert not [event for event in encrypted_server.events[admin] if isinstance(event, (JobChanged, PreviewFrame))], (
        "nor by what it subscribed to before"
    )
    encrypted_server.keys.allow("admin", format_key(admin.pair.public), True)
    encrypted_server.wait_until(
        lambda: any(isinstance(event, JobList) and event.jobs for event in encrypted_server.events[admin])
    )  # within a heartbeat


def test_readmitted_user_receives_every_event(
    encrypted_server: EncryptedServer,
) -> None:
    anna = encrypted_server.authorized_client("anna")
    anna.subscribe()
    job = encrypted_server.request(anna, submit_message("a")).job.job
    encrypted_server.keys.revoke("anna")
    encrypted_server.server.publisher.publish_job(
        encrypted_server.server.store.records[job]
    )  # no client receives it, and the server forgets its subscriber
    encrypted_server.keys.allow("anna", format_key(anna.pair.public))
    encrypted_server.events[anna].clear()
    encrypted_server.wait_until(lambda: any(isinstance(event, JobList) for event in encrypted_server.events[anna]))
    encrypted_server.store.update_in_memory(job, message="news")
    encrypted_server.server.publisher.publish_job(encrypted_server.server.store.records[job])
    encrypted_server.wait_until(
        lambda: any(
            isinstance(event, JobChanged) and event.job.message == "news" for event in encrypted_server.events[anna]
        )
    )


def preview_report(encrypted_server: EncryptedServer, job: str) -> PreviewReport:
    """The preview of a worker's first attempt."""
    return PreviewReport(PreviewFrame(job, 1, 1, 1, b"x"), 1)
