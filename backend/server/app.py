# SPDX-License-Identifier: GPL-3.0-or-later
"""The server: one port that clients connect to, one thread, and the objects that answer, store, publish and count.

On a loopback address everybody is the same user. On any other address connections are encrypted and need keys.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from dreamwright.shared import __version__, limits
from dreamwright.shared.codec import VersionMismatchError, pack, unpack
from dreamwright.shared.errors import ProtocolError, RequestError
from dreamwright.shared.messages import PreviewFrame, Refusal, Subscribe, Welcome

from ..errors import DreamwrightError
from .jobs.cleanup import Cleanup
from .jobs.groups import JobGroups
from .jobs.job_store import JobStore
from .jobs.uploads import Uploads
from .model_downloads import ModelDownloads
from .monitoring.audit_log import AuditLog
from .monitoring.counters import Counters
from .monitoring.status_reporter import MetricsSnapshot, StatusReporter
from .policy import Policy
from .request_audit import RequestAudit
from .service import RequestContext, Service
from .state_folder import lock_state_folder
from .transport.access_control import AccessControl
from .transport.authorized_keys import LOCAL, AuthorizedKeys, KeyFolder, User
from .transport.connection_counts import ConnectionCounts
from .transport.connection_limiter import ConnectionLimiter
from .transport.event_publisher import EventPublisher
from .transport.router_socket import Request, RouterSocket, is_loopback_address
from .transport.zap_authenticator import DOMAIN, ZapAuthenticator
from .web.address import WebAddress
from .web.front import WebFront
from .web.gateway import WebGateway
from .web.login_links import LOCAL_USER, LoginLinks
from .web.sessions import Sessions
from .workers.dispatcher import Dispatcher
from .workers.local_runner import LocalRunner
from .workers.runner import Runner

log = logging.getLogger(__name__)

INTERNAL_ERROR = Refusal("internal", "the server failed on this request; see its log")
REQUESTS_PER_STEP, REQUESTS_S = 200, 0.1  # answered in one step, before the workers' reports get their turn
# For the current steps when the server is told to stop; a step of a large model on a CPU may take that long.
GRACE_S = 30.0
LINGER_MS = 500  # for the last messages to clients
METRICS_INTERVAL_S = 1.0  # between two snapshots for an exporter


def build_service(
    welcome: Welcome,
    policy: Policy,
    store: JobStore,
    publisher: EventPublisher,
    counters: Counters,
    runner: Runner,
    clock: Callable[[], float] = time.monotonic,
    audit: AuditLog | None = None,
) -> Service:
    """The service of a store and a runner, with the jobs of an earlier server recovered.

    `welcome` names this start of the server. `clock` returns seconds and never goes back. Raises StorageError.
    """
    cleanup = Cleanup(store, policy)
    dispatcher = Dispatcher(store, publisher, counters, runner, cleanup, policy, clock)
    reporter = StatusReporter(
        store,
        counters,
        lambda: runner.devices,
        welcome.software,
        dispatcher.step_rate,
        clock,
        lambda device: device in dispatcher.drained,
    )
    uploads = Uploads(store.folder, policy, clock)
    dispatcher.recover()
    groups = JobGroups(store, cleanup, dispatcher.cancel, clock)
    return Service(
        welcome, policy, store, publisher, dispatcher, cleanup, uploads, groups, ModelDownloads(publisher, clock),
        reporter, lambda: runner.devices, RequestAudit(audit or AuditLog(store.folder, clock=clock), store),
    )  # fmt: skip


class Server:
    """`step` does what there is to do; `run` repeats it until told to stop.

    `encrypt` asks for keys on a loopback address too. `runner` makes the runner of the jobs; None: worker processes of
    this machine, on `devices`. Raises ConfigError for an address, a port or a folder that cannot be used, and
    CheckpointError for such a database.
    """

    def __init__(
        self,
        address: str,
        state: Path,
        devices: tuple[str, ...],
        encrypt: bool = False,
        policy: Policy = Policy(),
        runner: Callable[[zmq.Context[zmq.Socket[bytes]]], Runner] | None = None,
    ) -> None:
        encrypt = not is_loopback_address(address) or encrypt
        self._policy, self.audit = policy, AuditLog(state)
        keys = KeyFolder(state)
        pair = keys.pair() if encrypt else None
        self._lock = lock_state_folder(state)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._authenticator: ZapAuthenticator | None = None
        self._authorized: AuthorizedKeys | None = None  # None: a server without keys
        try:
            self.counters = Counters()
            self.router = RouterSocket(self._context, self.counters)
            self.connections = ConnectionCounts(self.router.socket, time.monotonic)
            if pair is None:
                # With a ZAP domain libzmq speaks ZMTP 3 only. Without one it takes arbitrary bytes for a peer of ZMTP
                # 1, which has no handshake and no heartbeat, and keeps that connection for ever.
                self.router.socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
            else:
                self._authorized = AuthorizedKeys(keys)
                self._authenticator = ZapAuthenticator(
                    self._context, self._authorized, self._admit, self._note_connection
                )
                self._authenticator.secure(self.router.socket, pair)
            self.address = self.router.bind(address, loopback_only=pair is None)
            self.publisher = EventPublisher(self._send_event, time.monotonic)
            self.store = JobStore(state, listener=self.publisher)
            self.runner = runner(self._context) if runner else LocalRunner(self._context, devices, state / "logs")
        except DreamwrightError:
            self._context.destroy(linger=0)
            self._lock.release()
            raise
        self.server_key = None if pair is None else pair.public
        self.access = AccessControl(self._authenticator)
        self.limiter = ConnectionLimiter(lambda: self.connections.living, time.monotonic)
        welcome = Welcome(f"dreamwright {__version__}", secrets.token_hex(8))
        self.service = build_service(
            welcome, policy, self.store, self.publisher, self.counters, self.runner, audit=self.audit
        )
        self.publish_metrics: Callable[[MetricsSnapshot], None] | None = None  # called every METRICS_INTERVAL_S
        self._metrics_at = 0.0
        self.web: WebFront | None = None
        self._poller = zmq.Poller()
        self._poller.register(self.router.socket, zmq.POLLIN)
        self._poller.register(self.runner.socket, zmq.POLLIN)
        if self._authenticator is not None:
            self._poller.register(self._authenticator.socket, zmq.POLLIN)

    def step(self, wait_s: float = 0.1) -> None:
        """Wait until something arrives, at most `wait_s`, and handle it."""
        calls_wait = self.web is not None and self.web.gateway.calls_wait
        self._poller.poll(0 if calls_wait else int(1000 * wait_s))
        if self._authenticator is not None:
            self._authenticator.answer()
        self._answer_requests()
        silent = self.connections.step()
        if silent:
            log.info("clients disconnected that sent nothing", extra={"connections": silent})
        disconnected = self.limiter.enforce()
        if disconnected:
            log.warning(
                "clients disconnected that sent too much without completing a message",
                extra={"connections": disconnected},
            )
        self.service.step()
        if self.web is not None:
            self.web.step()
        if self.publish_metrics is not None and time.monotonic() >= self._metrics_at:
            self._metrics_at = time.monotonic() + METRICS_INTERVAL_S
            self.publish_metrics(self.service.metrics())

    def serve_web(self, address: WebAddress) -> str:
        """Serve the web page from now on. Returns its URL. Raises ConfigError."""
        state = self.store.folder
        gateway = WebGateway(
            self.service.answer,
            Sessions(self._user_named),
            LoginLinks(state),
            self._user_named,
            lambda name: self.audit.note(name, "", "web sign in"),
        )
        self.web = WebFront(address, gateway, self._wait_for, state / "logs")
        return self.web.url

    def use_policy(self, policy: Policy) -> None:
        """Follow these limits from now on; clients see them when they ask for the capabilities again."""
        self._policy = policy
        self.service.use_policy(policy)

    def run(
        self,
        stopping: Callable[[], int],
        grace_s: float = GRACE_S,
        between_steps: Callable[[Server], None] = lambda server: None,
    ) -> bool:
        """Serve until `stopping` counts one request to stop, then let running jobs write a checkpoint, and close.

        After `grace_s`, or a second request, the workers that still run a job are killed; False if there were any.
        """
        drained = False
        try:
            while not stopping():
                self.step()
                between_steps(self)
            drained = self._drain(stopping, grace_s)
        finally:
            self.close(0.0, LINGER_MS if stopping() < 2 else 0)  # the workers have had their time
        return drained

    def close(self, grace_s: float = 5.0, linger_ms: int = 0) -> None:
        """End the workers, whose checkpoints keep what was done, and release the port and the folder."""
        self.service.models.close()
        if self.web is not None:
            self.web.close()
        self.runner.close(grace_s)
        self.store.close()
        self.audit.flush()
        self.connections.close()
        self._context.destroy(linger=linger_ms)
        self._lock.release()

    def _drain(self, stopping: Callable[[], int], grace_s: float) -> bool:
        started = time.monotonic()
        log.info("server stops", extra={"jobs": len(self.service.running_jobs()), "grace_s": grace_s})
        self.service.begin_shutdown()
        self._metrics_at = 0.0  # health checks hear of it at the next step
        while self.service.running_jobs() and time.monotonic() - started < grace_s and stopping() < 2:
            self.step(0.02)
        for job in self.service.running_jobs():
            log.warning("worker is killed while it runs a job", extra={"job": job})
        return not self.service.running_jobs()

    def _answer_requests(self) -> None:
        end = time.monotonic() + REQUESTS_S
        for _ in range(REQUESTS_PER_STEP):
            try:
                request = self.router.receive()
            except zmq.Again:
                return
            if request is None:
                return
            self._message_completed(request.frame)
            if request.frames == 1:
                self._answer(request)
            else:
                refusal = Refusal("bad-message", f"a message of {request.frames} frames; allowed is one")
                self.router.send(request.route, pack(refusal, 0))
            if time.monotonic() > end:
                return

    def _message_completed(self, frame: zmq.Frame) -> None:
        try:
            descriptor = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            return  # not from a TCP connection
        self.limiter.message_completed(descriptor)
        authenticator = self._authenticator
        self.connections.message(descriptor, lambda: LOCAL if authenticator is None else authenticator.name_of(frame))

    def _admit(self, user: str) -> bool:
        """Whether a user may have one more connection."""
        return self.connections.admit(user, self._policy.connections_per_user, self._policy.connections_total)

    def _note_connection(self, user: str, mark: str, outcome: str) -> None:
        """Record that a key of this fingerprint was admitted or refused."""
        self.audit.note(user, mark, "connect", outcome=outcome)

    def _answer(self, message: Request) -> None:
        started = time.perf_counter()
        number, kind, reply = 0, "none", None
        try:
            try:
                number, request = unpack(message.frame.bytes, limits.REQUEST_BYTES)
            except ProtocolError as error:
                number = error.number
                code = "version" if isinstance(error, VersionMismatchError) else "bad-message"
                raise RequestError(code, str(error)) from error
            kind = type(request).__name__
            reply = self._reply(message, request)
        except RequestError as error:
            reply = Refusal(error.code, error.message[: limits.MESSAGE_CHARACTERS])
            log.debug("request refused", extra={"request": kind, "code": error.code, "why": error.message})
        except Exception:
            log.exception("request failed", extra={"request": kind})
            reply = INTERNAL_ERROR
        if reply is not None:
            try:
                data = pack(reply, number)
            except ProtocolError:  # text of a client in a reply may break the protocol, and must not end the server
                log.exception("reply breaks the protocol", extra={"request": kind})
                reply, data = INTERNAL_ERROR, pack(INTERNAL_ERROR, number)
            self.router.send(message.route, data)
        self.counters.requests[kind] += 1
        if isinstance(reply, Refusal):
            self.counters.refusals[reply.code] += 1
        self.counters.answers.add(time.perf_counter() - started)

    def _reply(self, message: Request, request: Any) -> Any:
        identity = self.access.identify(message.route, message.frame)
        if isinstance(request, Subscribe):
            self.access.remember_subscriber(message.route, identity, self.publisher)
        reply = self.service.answer(
            request, RequestContext(identity.user, message.route, identity.is_admin, identity.fingerprint)
        )
        if isinstance(reply, Welcome):
            reply = replace(reply, epoch=reply.epoch + identity.epoch_suffix())
        return reply

    def _wait_for(self, connection: socket.socket, at_all: bool, to_send: bool) -> None:
        """Wake `step` when something arrives on the connection, and when there is room to send."""
        if at_all:
            self._poller.register(connection, zmq.POLLIN | (zmq.POLLOUT if to_send else 0))
        else:
            self._poller.unregister(connection)

    def _user_named(self, name: str) -> User | None:
        """The user of the web page with this name, as they are now; without keys there is only one."""
        if self._authorized is None:
            return LOCAL_USER if name == LOCAL_USER.name else None
        return self._authorized.user_named(name)

    def _send_event(self, route: bytes, event: Any) -> bool:
        """False for a connection that is gone, or whose key is not authorized any more."""
        if self.web is not None and self.web.gateway.owns(route):
            return self.web.gateway.send_event(route, event)
        if not self.access.may_receive(route):
            return False
        try:
            data = pack(event, 0)
        except ProtocolError:
            log.exception("event breaks the protocol and is not sent")
            return True  # it is counted: the gap makes the client request a new snapshot
        lost = self.counters.lost_events
        is_connected = self.router.send(route, data)
        if is_connected and self.counters.lost_events == lost and isinstance(event, PreviewFrame):
            self.counters.preview_bytes += len(data)
        return is_connected
