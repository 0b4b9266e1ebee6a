# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright top`: devices, jobs and users of a server; in a terminal it is updated every second.

Without --server it shows the server of this machine, whose address and key are in its state folder. A server that
encrypts requires a key: `dreamwright keys mine` prints yours, and `dreamwright keys allow NAME KEY --admin` on the
server's machine lets it see everything. Without --admin it sees its own jobs only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamwright.shared.numbers import number_text

if TYPE_CHECKING:
    from rich.console import Console

    from dreamwright.shared.client import Client
    from dreamwright.shared.connection_monitor import CurveCredentials
    from dreamwright.shared.status import ServerStatus

REFRESH_S = 1.0
POLL_S = 0.02  # between two reads of the socket
MAX_WAIT_S = 3600.0
PIPE_COLUMNS = 160  # width without a terminal, so that nothing is cut


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "top",
        help="devices, jobs and users of a server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--server",
        metavar="ADDRESS",
        help="tcp://HOST:PORT, or the connection string that dreamwright serve prints (default: this machine's server)",
    )
    parser.add_argument(
        "--state", type=Path, help="the server's state folder on this machine, which holds its address and its key"
    )
    parser.add_argument("--once", action="store_true", help="print once and exit; the default without a terminal")
    parser.add_argument(
        "--json", action="store_true", help="a JSON object instead of a table; one each second, or one with --once"
    )
    parser.add_argument(
        "--alive",
        action="store_true",
        help="for health checks: succeed if the server answers, even if it does not know this key",
    )
    parser.add_argument(
        "--wait", type=float, default=10.0, metavar="SECONDS", help="for the server's answer (default 10)"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Show the status once, or until Ctrl-C. Raises RunError when the server does not answer."""
    from ..errors import ConfigError
    from .signals import INTERRUPTED

    if not math.isfinite(options.wait) or not 0 < options.wait <= MAX_WAIT_S:
        raise ConfigError(
            f"the wait is {number_text(options.wait)} s; allowed is more than 0 to {number_text(MAX_WAIT_S)}; "
            "change --wait"
        )
    watch = StatusWatch(*choose_server(options.server, options.state), options.wait)
    is_live = sys.stdout.isatty() and not options.once
    try:
        if options.alive:
            print(watch.alive())
        elif options.json:
            print_json(watch, options.once)
        else:
            draw(watch, is_live)
    except KeyboardInterrupt:
        return 0 if is_live else INTERRUPTED  # Ctrl-C is how one leaves the live view
    finally:
        watch.close()
    return 0


def choose_server(named: str | None, state: Path | None) -> tuple[str, CurveCredentials | None]:
    """Address and credentials of the server to ask. Raises ConfigError."""
    from dreamwright.shared.connection_monitor import CurveCredentials
    from dreamwright.shared.credentials import is_connection_string, parse_connection_string

    from ..errors import ConfigError
    from ..server.transport.authorized_keys import KeyFolder, state_folder
    from ..server.transport.router_socket import is_loopback_address
    from .client_key import client_key_pair
    from .serve import ADDRESS

    if named is not None and is_connection_string(named):
        try:
            connection = parse_connection_string(named)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return connection.address, CurveCredentials(connection.server, client_key_pair())
    folder = KeyFolder(state or state_folder())
    served = folder.served() if named is None or state is not None else ""
    address = named or served or ADDRESS
    if served:
        return address, CurveCredentials(folder.pair().public, client_key_pair())
    if not is_loopback_address(address):
        raise ConfigError(
            f"{address} is another machine; give the connection string that dreamwright serve prints there: "
            "--server dreamwright://…"
        )
    return address, None


class StatusWatch:
    """A client that asks a server for its status again and again."""

    def __init__(self, address: str, credentials: CurveCredentials | None, wait_s: float) -> None:
        from dreamwright.shared import __version__
        from dreamwright.shared.client import Client

        from ..errors import ConfigError

        self.address, self._credentials, self._wait_s = address, credentials, wait_s
        self.client: Client = Client(address, software=f"dreamwright top {__version__}", credentials=credentials)
        try:
            self.client.connect()
        except Exception as error:  # zmq.ZMQError; only the server may import zmq
            self.client.close()
            raise ConfigError(f"the server address {address} cannot be used: {error}") from error

    def ask(self) -> ServerStatus:
        """The server's status. Raises RunError."""
        from dreamwright.shared.errors import RequestError
        from dreamwright.shared.messages import GetStatus

        from ..errors import RunError

        self._wait_for_connection()
        self._check_online()
        answers: list[Any] = []
        self.client.request(GetStatus(), answers.append)
        if not self._wait_until(lambda: bool(answers) or self.is_refused()):
            raise RunError(f"{self.address} did not answer in {number_text(self._wait_s)} s")
        self._check_online()
        if isinstance(answers[0], RequestError):
            raise RunError(f"the server refused the request: {answers[0]}")
        status: ServerStatus = answers[0]
        return status

    def alive(self) -> str:
        """A sentence when the server answers, even if it does not know this key. Raises RunError."""
        from dreamwright.shared.connection_state import ConnectionReason

        self._wait_for_connection()
        if self.client.code is ConnectionReason.UNKNOWN_CLIENT_KEY:
            return f"{self.address} answers, and does not know this key"
        self._check_online()
        return self.client.reason

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def pause(self, seconds: float) -> None:
        """Wait and keep the connection alive."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.client.tick()
            time.sleep(POLL_S)

    def is_refused(self) -> bool:
        """Whether waiting alone cannot open the connection."""
        from dreamwright.shared.connection_state import ConnectionState

        return self.client.state in (ConnectionState.UNAUTHORIZED, ConnectionState.INCOMPATIBLE)

    def _wait_until(self, condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + self._wait_s
        while not condition():
            if time.monotonic() > end:
                return False
            self.client.tick()
            time.sleep(POLL_S)
        return True

    def _wait_for_connection(self) -> None:
        from dreamwright.shared.connection_state import ConnectionState

        self._wait_until(lambda: self.client.state is ConnectionState.ONLINE or self.is_refused())

    def _check_online(self) -> None:
        """Raise RunError with what to do about a connection that is not open."""
        from dreamwright.shared.connection_state import ConnectionReason, ConnectionState
        from dreamwright.shared.credentials import format_key

        from ..errors import RunError

        if self.client.state is ConnectionState.ONLINE:
            return
        code, reason = self.client.code, self.client.reason
        is_unknown = code in (ConnectionReason.UNKNOWN_CLIENT_KEY, ConnectionReason.KEY_REVOKED)
        if is_unknown and self._credentials is not None:
            reason = (
                f"the server at {self.address} does not accept your key; on its machine, run: "
                f"dreamwright keys allow NAME {format_key(self._credentials.own.public)} --admin"
            )
        elif code is ConnectionReason.ENCRYPTION_REQUIRED:
            reason = (
                f"the server at {self.address} requires an encrypted connection; name its folder with --state, or its "
                "connection string with --server (dreamwright keys show prints it)"
            )
        elif code is ConnectionReason.SERVER_NOT_ENCRYPTED:
            address = self.address.removeprefix("tcp://")
            reason += f"; to look at it without keys, name its address: --server tcp://{address}"
        elif self.client.state is ConnectionState.CONNECTING:
            reason = f"no answer from {self.address} in {number_text(self._wait_s)} s; is the server running?"
        raise RunError(reason)


def print_json(watch: StatusWatch, once: bool) -> None:
    """Print one JSON object a line, until nobody reads them any more."""
    while True:
        print(json.dumps(dataclasses.asdict(watch.ask())), flush=True)
        if once or getattr(sys.stdout, "reader_is_gone", False):
            return
        watch.pause(REFRESH_S)


def draw(watch: StatusWatch, is_live: bool) -> None:
    """Draw the tables once, or again and again in the same place."""
    from rich.console import Console
    from rich.live import Live

    from ..errors import RunError
    from .status_table import status_view

    console: Console = Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)
    status = watch.ask()
    if not is_live:
        console.print(status_view(status, watch.address))
        return
    with Live(status_view(status, watch.address), console=console, screen=True, auto_refresh=False) as live:
        note = ""
        while True:
            live.update(status_view(status, watch.address, console.size.height, note), refresh=True)
            watch.pause(REFRESH_S)
            try:
                status, note = watch.ask(), ""
            except RunError as error:
                if watch.is_refused():
                    raise
                note = str(error)  # the server may come back; until then the last status stays
