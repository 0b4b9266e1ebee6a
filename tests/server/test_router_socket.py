# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients' socket: messages of very many frames are dropped in parts, and slow peers never block."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import zmq

from dreamwright.backend.server.monitoring.counters import Counters
from dreamwright.backend.server.transport import connection_limiter
from dreamwright.backend.server.transport.connection_limiter import ConnectionLimiter
from dreamwright.backend.server.transport.router_socket import FRAMES_PER_STEP, RouterSocket


@pytest.fixture
def sockets() -> Iterator[tuple[RouterSocket, zmq.Socket[bytes]]]:
    context = zmq.Context()
    router = RouterSocket(context, Counters())
    dealer = context.socket(zmq.DEALER)
    dealer.connect(router.bind("tcp://127.0.0.1:*", loopback_only=True))
    yield router, dealer
    context.destroy(0)


@pytest.mark.parametrize("frames", [1, 2, FRAMES_PER_STEP, FRAMES_PER_STEP + 1, 3 * FRAMES_PER_STEP + 7])
def test_a_message_is_read_in_bounded_parts_and_counted_whole(
    sockets: tuple[RouterSocket, zmq.Socket[bytes]], frames: int
) -> None:
    router, dealer = sockets
    dealer.send_multipart([b"first", *[b""] * (frames - 1)])
    dealer.send(b"next")
    parts = 0
    while True:
        assert router.socket.poll(10_000)
        request = router.receive()
        parts += 1
        if request is not None:
            break
    # One call reads the first frame and FRAMES_PER_STEP more; each later call another FRAMES_PER_STEP.
    assert parts == max(1, -(-(frames - 1) // FRAMES_PER_STEP))
    assert request.frames == frames and request.frame.bytes == b"first"
    assert router.socket.poll(10_000)
    following = router.receive()
    assert following is not None and (following.frame.bytes, following.frames) == (b"next", 1)
    with pytest.raises(zmq.Again):
        router.receive()


def test_a_reply_can_be_sent_while_a_message_is_dropped(sockets: tuple[RouterSocket, zmq.Socket[bytes]]) -> None:
    router, dealer = sockets
    dealer.send(b"hello")
    assert router.socket.poll(10_000)
    hello = router.receive()
    assert hello is not None
    dealer.send_multipart([b""] * (2 * FRAMES_PER_STEP + 2))
    assert router.socket.poll(10_000) and router.receive() is None
    assert router.send(hello.route, b"reply")
    assert dealer.poll(10_000) and dealer.recv() == b"reply"


def test_a_peer_that_is_gone_is_reported(sockets: tuple[RouterSocket, zmq.Socket[bytes]]) -> None:
    router, _ = sockets
    assert not router.send(b"\x00none", b"reply")


def test_the_limiter_is_off_where_the_kernel_does_not_count(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on macOS and Windows: no connection is looked at, nothing is disconnected, and the log says so once."""

    def forbidden(*_: object) -> None:
        raise AssertionError("the system call was made")

    monkeypatch.setattr(connection_limiter.socket, "socket", forbidden)
    now = 0.0
    with caplog.at_level("INFO"):
        limiter = ConnectionLimiter(lambda: {5: 1}, lambda: now, supported=False)
        for _ in range(5):
            now += 1.0
            limiter.message_completed(5)
            assert limiter.enforce() == 0
    assert caplog.text.count("needs Linux and is off") == 1
    assert sys.platform.startswith("linux") == connection_limiter.IS_SUPPORTED
