# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections of one user and of all are limited, and those that send nothing are closed."""

from __future__ import annotations

import logging
import os
import time

import pytest
import zmq

from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.transport import connection_counts
from dreamwright.shared.connection_state import ConnectionReason, ConnectionState
from dreamwright.shared.credentials import format_key, generate_key_pair
from dreamwright.shared.messages import JobList, ListJobs
from tests.testing.encrypted_server import EncryptedServer, raw_client


def test_one_user_has_so_many_connections_and_others_are_not_kept_out(
    encrypted_server: EncryptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    encrypted_server.server.use_policy(Policy(connections_per_user=3))
    first = encrypted_server.authorized_client("anna")
    second_key = generate_key_pair()
    encrypted_server.keys.allow("anna", format_key(second_key.public))
    more = [encrypted_server.connect_client(pair) for pair in (first.pair, second_key)]
    encrypted_server.wait_until(lambda: all(client.state is ConnectionState.ONLINE for client in more))
    with caplog.at_level(logging.WARNING):
        for pair in (first.pair, second_key, first.pair):
            fourth = encrypted_server.connect_client(pair)
            encrypted_server.wait_until(lambda client=fourth: client.state is ConnectionState.UNAUTHORIZED)
            assert fourth.code is ConnectionReason.NOT_ADMITTED and "admits no more connections" in fourth.reason
            fourth.close()
            encrypted_server.clients.remove(fourth)
    (line,) = [record for record in caplog.records if record.msg == "connections not admitted"]
    assert (line.user, line.used, line.limit) == ("anna", 3, 3), "said once"
    bert = encrypted_server.authorized_client("bert")
    assert isinstance(encrypted_server.request(bert, ListJobs()), JobList)
    assert encrypted_server.server.connections.of("anna") == 3 and encrypted_server.server.connections.of("bert") == 1
    more[0].close()
    encrypted_server.clients.remove(more[0])
    encrypted_server.wait_until(lambda: encrypted_server.server.connections.of("anna") == 2)
    again = encrypted_server.connect_client(first.pair)
    encrypted_server.wait_until(lambda: again.state is ConnectionState.ONLINE)


def test_all_users_together_have_so_many_connections(encrypted_server: EncryptedServer) -> None:
    encrypted_server.server.use_policy(Policy(connections_total=2))
    anna = encrypted_server.authorized_client("anna")
    encrypted_server.authorized_client("bert")
    pair = generate_key_pair()
    encrypted_server.keys.allow("carl", format_key(pair.public))
    carl = encrypted_server.connect_client(pair)
    encrypted_server.wait_until(lambda: carl.state is ConnectionState.UNAUTHORIZED)
    assert isinstance(encrypted_server.request(anna, ListJobs()), JobList)


def test_admissions_without_a_message_count_for_a_while(
    encrypted_server: EncryptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that are opened and never used are limited too, and then closed."""
    encrypted_server.server.use_policy(Policy(connections_per_user=5))
    anna = encrypted_server.authorized_client("anna")
    counts = encrypted_server.server.connections
    silent = [raw_client(encrypted_server, anna.pair) for _ in range(8)]
    try:
        encrypted_server.wait_until(lambda: counts.of("anna") == 5)
        encrypted_server.run_for(0.3)
        assert counts.of("anna") == 5
        monkeypatch.setattr(connection_counts, "FIRST_MESSAGE_S", 0.0)
        before = counts.total
        if os.name == "posix":
            encrypted_server.wait_until(lambda: counts.total < before)
        for own in silent:
            own.close(0)
        silent.clear()
        encrypted_server.wait_until(lambda: counts.total == 1 and counts.of("anna") == 1)
        assert isinstance(encrypted_server.request(anna, ListJobs()), JobList), "who has sent a message stays"
    finally:
        for own in silent:
            own.close(0)


def test_a_descriptor_that_is_used_again_has_its_new_user() -> None:
    context = zmq.Context()
    router, dealers = context.socket(zmq.ROUTER), []
    counts = connection_counts.ConnectionCounts(router, lambda: 0.0)
    router.bind("tcp://127.0.0.1:*")
    address = router.getsockopt_string(zmq.LAST_ENDPOINT)
    try:
        for user in ("anna", "bert", "bert"):
            dealer = context.socket(zmq.DEALER)
            dealers.append(dealer)
            dealer.connect(address)
            dealer.send(b"x")
            assert router.poll(10_000)
            descriptor = router.recv_multipart(copy=False)[1].get(zmq.SRCFD)
            counts.step()
            counts.message(descriptor, lambda user=user: user)
            counts.message(descriptor, lambda: "nobody else")
            assert (counts.of(user), counts.total) == (1, 1)
            dealer.close(0)
            end = time.monotonic() + 10
            while counts.total and time.monotonic() < end:
                counts.step()
            assert (counts.of(user), counts.total) == (0, 0)
        counts.message(99, lambda: "anna")
        assert counts.of("anna") == 0, "no connection of this socket"
    finally:
        counts.close()
        context.destroy(0)
