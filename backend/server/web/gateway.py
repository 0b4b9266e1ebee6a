# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's side of the web page: finds the user of each call, asks the service, and sends users their events.

A call goes through the same service, and so the same access rules, as a request of Blender.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.errors import ProtocolError, RequestError
from dreamwright.shared.messages import (
    CancelJob,
    DeleteJob,
    Done,
    GetCapabilities,
    GetPreview,
    GetStatus,
    Hello,
    PauseJob,
    PinJob,
    Refusal,
    ResumeJob,
    SetPriority,
    Subscribe,
)
from dreamwright.shared.operator_messages import DrainDevice, FreeDisk, MoveJob

from ..request_context import RequestContext
from ..transport.authorized_keys import LOCAL, User
from .channel import (
    CALL_BYTES,
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
    pack_answer,
    unpack_call,
)
from .login_links import LoginLinks
from .sessions import Sessions

log = logging.getLogger(__name__)

# What a browser may ask for. Submissions, uploads and downloads are not among them.
PASSED_ON = (
    GetStatus,
    GetCapabilities,
    GetPreview,
    CancelJob,
    PauseJob,
    ResumeJob,
    SetPriority,
    PinJob,
    DeleteJob,
    MoveJob,
    DrainDevice,
    FreeDisk,
)
CALLS_PER_STEP = 50  # answered in one step of the server, before its other work gets its turn
RECEIVE_BYTES = 256 * 1024  # read in one step
UNSENT_BYTES = 4 * limits.REPLY_BYTES  # for a web process that reads slowly; above it events are lost, and it notices
SIGN_IN_AGAIN = "you are not signed in, or your session has ended; ask the operator for: dreamwright keys web NAME"
LINK_REFUSED = "this link was used before, has expired, or is not one of this server; ask the operator for a new one"

Respond = Callable[[Any, RequestContext], Any]  # the service's answer to a request; raises RequestError


@dataclass(frozen=True)
class UserWatch:
    """The one subscription of all sessions of a user. `route` cannot be guessed, so that no connection has the same."""

    watch: str
    route: bytes
    login_status: str


class WebGateway:
    """Answers the calls that arrive on a connection to the web process; never waits for it.

    `user_named` returns a user as they are now. `respond` is the service's `answer`. `on_sign_in` is called with the
    name of each user who signs in.
    """

    def __init__(
        self,
        respond: Respond,
        sessions: Sessions,
        links: LoginLinks,
        user_named: Callable[[str], User | None],
        on_sign_in: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._on_sign_in = on_sign_in
        self._respond, self._sessions, self._links, self._user_named = respond, sessions, links, user_named
        self._connection: socket.socket | None = None
        self._reader = FrameReader(CALL_BYTES)
        self._frames: list[bytes] = []
        self._unsent = bytearray()
        self._watches: dict[str, tuple[UserWatch, str]] = {}  # (watch, user's name) by the user's status
        self._routes: dict[bytes, str] = {}  # status by route

    # --- the connection

    def connect(self, connection: socket.socket) -> None:
        """Use a connection to a new web process, which knows nothing of the previous one's watches."""
        connection.setblocking(False)
        self._connection = connection
        self._reader, self._frames, self._unsent = FrameReader(CALL_BYTES), [], bytearray()
        self._watches, self._routes = {}, {}

    def disconnect(self) -> None:
        """Close the connection to the web process; the sessions stay open for the next one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._watches, self._routes = {}, {}

    @property
    def calls_wait(self) -> bool:
        """Whether calls that have arrived wait for the next step."""
        return bool(self._frames)

    @property
    def has_unsent(self) -> bool:
        """Whether the web process has to read before more can be sent."""
        return bool(self._unsent)

    def step(self) -> bool:
        """Answer what has arrived, at most CALLS_PER_STEP. False when the web process is gone or breaks the rules."""
        try:
            if not self._receive():
                return False
        except ProtocolError as error:
            log.error("web process breaks the rules of its channel", extra={"why": str(error)})
            return False
        for _ in range(min(CALLS_PER_STEP, len(self._frames))):
            self._answer(self._frames.pop(0))
        return self._flush()

    def _receive(self) -> bool:
        if self._connection is None:
            return False
        if len(self._frames) >= CALLS_PER_STEP:
            return True  # what it sends meanwhile waits in the socket
        try:
            data = self._connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._frames += self._reader.feed(data)
        return bool(data)

    def _flush(self) -> bool:
        if self._connection is None:
            return False
        while self._unsent:
            try:
                sent = self._connection.send(self._unsent)
            except BlockingIOError:
                return True
            except OSError:
                return False
            del self._unsent[:sent]
        return True

    def _send(self, answer: Answer) -> None:
        if len(self._unsent) > UNSENT_BYTES:
            log.warning("web process reads too slowly; a message to it is lost")
            return
        try:
            self._unsent += pack_answer(answer)
        except ProtocolError:
            log.exception("answer to the web process breaks the protocol")
            if answer.number:
                refusal = Refusal("internal", "the server failed on this request; see its log")
                self._unsent += pack_answer(Answer(answer.number, "", refusal))

    # --- calls

    def _answer(self, frame: bytes) -> None:
        number, kind = 0, "none"
        try:
            try:
                call = unpack_call(frame)
            except ProtocolError as error:
                number = error.number
                raise RequestError("bad-message", str(error)) from error
            number, kind = call.number, type(call.message).__name__
            reply = self._reply(call)
        except RequestError as error:
            reply = Refusal(error.code, error.message[: limits.MESSAGE_CHARACTERS])
            log.debug("web request refused", extra={"request": kind, "code": error.code, "why": error.message})
        except Exception:
            log.exception("web request failed", extra={"request": kind})
            reply = Refusal("internal", "the server failed on this request; see its log")
        if number:
            self._send(Answer(number, "", reply))

    def _reply(self, call: Call) -> Any:
        if isinstance(call.message, SignIn):
            return self._sign_in(call.message.link)
        user = self._sessions.user_of(call.cookie, call.key)
        if user is None:
            raise RequestError("not-admitted", SIGN_IN_AGAIN)
        watch = self._watch_of(user)
        context = RequestContext(user.name, watch.route, user.is_admin)
        if isinstance(call.message, Watch):
            return Watching(watch.watch, self._respond(Subscribe(), context))
        if isinstance(call.message, WhoAmI):
            self._respond(Hello("web", "web"), context)  # keeps the watch, which ends without requests
            return Account(user.name, user.is_admin, user.name == LOCAL)
        if isinstance(call.message, SignOut):
            self._sessions.end(call.cookie, call.key)
            log.info("web user signs out", extra={"user": user.name})
            return Done()
        if not isinstance(call.message, PASSED_ON):
            raise RequestError("bad-message", f"{type(call.message).__name__} is not a request of the web page")
        return self._respond(call.message, context)

    def _sign_in(self, link: str) -> SignedIn:
        login = self._links.use(link)
        secrets_made = None if login is None else self._sessions.begin(login)
        if login is None or secrets_made is None:
            log.warning("web sign-in refused")
            raise RequestError("not-admitted", LINK_REFUSED)
        log.info("web user signs in", extra={"user": login.name})
        self._on_sign_in(login.name)
        return SignedIn(secrets_made.cookie, secrets_made.key)

    # --- events

    def _watch_of(self, user: User) -> UserWatch:
        known = self._watches.get(user.status)
        if known is not None:
            return known[0]
        watch = UserWatch(secrets.token_hex(16), b"web/" + secrets.token_bytes(16), user.status)
        self._watches[user.status] = watch, user.name
        self._routes[watch.route] = user.status
        return watch

    def owns(self, route: bytes) -> bool:
        """Whether a subscriber is a user of the web page."""
        return route in self._routes

    def send_event(self, route: bytes, event: Any) -> bool:
        """Send an event of a user's jobs; False when the user was revoked, has another role, or is gone."""
        status = self._routes.get(route)
        if status is None or self._connection is None:
            return False
        watch, name = self._watches[status]
        user = self._user_named(name)
        if user is None or user.status != status:
            del self._watches[status], self._routes[route]
            self._send(Answer(0, watch.watch, WatchEnded()))
            return False
        self._send(Answer(0, watch.watch, event))
        return True
