# SPDX-License-Identifier: GPL-3.0-or-later
"""The web process's end of its channel: calls that wait for their answer, and the events of watches."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from dreamwright.shared.errors import ProtocolError, RequestError
from dreamwright.shared.messages import Refusal

from .channel import ANSWER_BYTES, Answer, Call, FrameReader, Watching, pack_call, unpack_answer

CALLS_IN_FLIGHT = 16  # of all browsers; others wait in the web process and not in the server
ANSWER_TIMEOUT_S = 10.0
RECEIVE_BYTES = 1024 * 1024


class ServerLink:
    """`on_event` is called with each event. `run` reads until the server is gone."""

    def __init__(self, connection: socket.socket, on_event: Callable[[Answer], None]) -> None:
        self._connection, self._on_event = connection, on_event
        self._connection.setblocking(False)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._room = asyncio.Semaphore(CALLS_IN_FLIGHT)
        self._writing = asyncio.Lock()
        self.is_open = True

    async def ask(self, message: Any, cookie: str = "", key: str = "") -> Any:
        """The server's reply. Raises RequestError for a refusal, and for no answer."""
        async with self._room:
            if not self.is_open:
                raise RequestError("not-now", "the server has ended")
            self._number += 1
            number = self._number
            try:
                frame = pack_call(Call(number, cookie, key, message))
            except ProtocolError as error:
                raise RequestError("bad-input", str(error)) from error
            answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._waiting[number] = answered
            try:
                # Shielded: a browser that goes away must not leave half a frame in the channel.
                await asyncio.shield(asyncio.ensure_future(self._write(frame)))
                reply = await asyncio.wait_for(answered, ANSWER_TIMEOUT_S)
            except TimeoutError as error:
                raise RequestError("not-now", "the server does not answer; try again") from error
            except OSError as error:
                raise RequestError("not-now", "the server has ended") from error
            finally:
                self._waiting.pop(number, None)
        if isinstance(reply, Refusal):
            raise RequestError(reply.code, reply.message)
        return reply

    async def run(self) -> None:
        """Receive answers and events until the server closes the channel."""
        reader = FrameReader(ANSWER_BYTES)
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(self._connection, RECEIVE_BYTES):
                for frame in reader.feed(data):
                    self._take(unpack_answer(frame))
        except ConnectionError:
            pass  # the server was killed
        finally:
            self.is_open = False
            for answered in self._waiting.values():
                if not answered.done():
                    answered.set_result(Refusal("not-now", "the server has ended"))

    async def _write(self, frame: bytes) -> None:
        async with self._writing:
            await asyncio.get_running_loop().sock_sendall(self._connection, frame)

    def _take(self, answer: Answer) -> None:
        if isinstance(answer.message, Watching):
            # At once, and not when the waiting task runs again: events that follow belong to this snapshot.
            self._on_event(Answer(0, answer.message.watch, answer.message))
        if not answer.number:
            self._on_event(answer)
            return
        answered = self._waiting.get(answer.number)
        if answered is not None and not answered.done():
            answered.set_result(answer.message)
