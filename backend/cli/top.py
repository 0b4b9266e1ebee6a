# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright top`: what a server does now, its devices, jobs and users; drawn anew each second in a terminal.

Without --server it looks at the server of this machine, whose address and key lie in its state folder. A server that
encrypts wants a key: `dreamwright keys mine` prints yours, and `dreamwright keys allow NAME KEY --admin` on the server's
machine lets it see everything. Without --admin it sees its own jobs only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
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
LOOK_S = 0.02  # between two looks at the socket
LONGEST_WAIT_S = 3600.0
PIPED_COLUMNS = 160  # where the output is no terminal, so that nothing is cut


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser(
        "top",
        help="what a server does now: devices, jobs, users",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--server",
        metavar="ADDRESS",
        help="tcp://HOST:PORT, or the connection string that dreamwright serve prints (default: this machine's)",
    )
    parser.add_argument(
        "--state", type=Path, help="the server's folder on this machine, where its address and its key are looked up"
    )
    parser.add_argument(
        "--once", action="store_true", help="print once and end, as it does where the output is no terminal"
    )
    parser.add_argument(
        "--json", action="store_true", help="a JSON object instead of a table; one a second, or with --once one"
    )
    parser.add_argument(
        "--alive",
        action="store_true",
        help="only see whether the server answers, be it that it does not know this key; for health checks",
    )
    parser.add_argument(
        "--wait", type=float, default=10.0, metavar="SECONDS", help="for the server's answer (default 10)"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Draw until Ctrl-C, or once. Raises RunError when the server does not answer."""
    from ..errors import ConfigError
    from .signals import INTERRUPTED

    if not math.isfinite(options.wait) or not 0 < options.wait <= LONGEST_WAIT_S:
        raise ConfigError(
            f"the wait is {number_text(options.wait)} s; allowed is more than 0 to {number_text(LONGEST_WAIT_S)}; "
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
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # `| head` has seen enough; Python would complain at its end
    except KeyboardInterrupt:
        return 0 if is_live else INTERRUPTED  # it is how one leaves a picture that would go on for ever
    finally:
        watch.close()
    return 0


def choose_server(named: str | None, state: Path | None) -> tuple[str, CurveCredentials | None]:
    """The address to ask and what to encrypt it with. Raises ConfigError."""
    from dreamwright.shared.connection_monitor import CurveCredentials
    from dreamwright.shared.credentials import is_connection_string, parse_connection_string

    from ..errors import ConfigError
    from ..server.transport.router_socket import is_loopback_address
    from ..server.transport.authorized_keys import KeyFolder, state_folder
    from .client_key import own_pair
    from .serve import ADDRESS

    if named is not None and is_connection_string(named):
        try:
            invited = parse_connection_string(named)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return invited.address, CurveCredentials(invited.server, own_pair())
    folder = KeyFolder(state or state_folder())
    served = folder.served() if named is None or state is not None else ""
    address = named or served or ADDRESS
    if served:
        return address, CurveCredentials(folder.pair().public, own_pair())
    if not is_loopback_address(address):
        raise ConfigError(
            f"{address} is another machine; name it by the connection string that dreamwright serve prints: --server dreamwright://…"
        )
    return address, None


class StatusWatch:
    """A client that asks one question again and again."""

    def __init__(self, address: str, lock: CurveCredentials | None, wait_s: float) -> None:
        from dreamwright.shared import __version__
        from dreamwright.shared.client import Client

        from ..errors import ConfigError

        self.address, self._lock, self._wait_s = address, lock, wait_s
        self.client: Client = Client(address, software=f"dreamwright top {__version__}", credentials=lock)
        try:
            self.client.connect()
        except Exception as error:  # zmq.ZMQError, whose module is for the server's rooms only
            self.client.close()
            raise ConfigError(f"the server address {address} cannot be used: {error}") from error

    def ask(self) -> ServerStatus:
        """How the server does. Raises RunError."""
        from dreamwright.shared.errors import RequestError
        from dreamwright.shared.messages import GetStatus

        from ..errors import RunError

        self._until_settled()
        self._fail_unless_online()
        answers: list[Any] = []
        self.client.request(GetStatus(), answers.append)
        if not self._until(lambda: bool(answers) or self.is_barred()):
            raise RunError(f"{self.address} did not answer in {number_text(self._wait_s)} s")
        self._fail_unless_online()
        if isinstance(answers[0], RequestError):
            raise RunError(f"the server refuses: {answers[0]}")
        return answers[0]

    def alive(self) -> str:
        """A sentence when the server is there, whoever it lets in. Raises RunError."""
        from dreamwright.shared.connection_state import ConnectionState

        self._until_settled()
        if self.client.state is ConnectionState.UNAUTHORIZED and "does not know" in self.client.reason:
            return f"{self.address} answers, and does not know this key"
        self._fail_unless_online()
        return self.client.reason

    def close(self) -> None:
        """Hang up."""
        self.client.close()

    def pause(self, seconds: float) -> None:
        """Let time pass without losing the connection."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.client.tick()
            time.sleep(LOOK_S)

    def _until(self, happened: Callable[[], bool]) -> bool:
        end = time.monotonic() + self._wait_s
        while not happened():
            if time.monotonic() > end:
                return False
            self.client.tick()
            time.sleep(LOOK_S)
        return True

    def is_barred(self) -> bool:
        """Whether waiting alone will not help."""
        from dreamwright.shared.connection_state import ConnectionState

        return self.client.state in (ConnectionState.UNAUTHORIZED, ConnectionState.INCOMPATIBLE)

    def _until_settled(self) -> None:
        from dreamwright.shared.connection_state import ConnectionState

        self._until(lambda: self.client.state is ConnectionState.ONLINE or self.is_barred())

    def _fail_unless_online(self) -> None:
        from dreamwright.shared.connection_state import ConnectionState
        from dreamwright.shared.credentials import format_key

        from ..errors import RunError

        if self.client.state is ConnectionState.ONLINE:
            return
        reason = self.client.reason
        if self._lock is not None and self.is_barred() and ("does not know" in reason or "does not let" in reason):
            raise RunError(
                f"the server at {self.address} does not let your key in; where it runs, type: "
                f"dreamwright keys allow NAME {format_key(self._lock.own.public)} --admin"
            )
        if self._lock is None and "encrypted" in reason:
            raise RunError(
                f"the server at {self.address} wants an encrypted connection; name its folder with --state, or its connection "
                "string with --server (dreamwright keys show prints it)"
            )
        if self._lock is not None and "does not encrypt" in reason:
            reason += (
                f"; to look at it without keys, name its address: --server tcp://{self.address.removeprefix('tcp://')}"
            )
        if self.client.state is ConnectionState.CONNECTING:
            reason = f"no answer from {self.address} in {number_text(self._wait_s)} s; is the server running?"
        raise RunError(reason)


def print_json(watch: StatusWatch, once: bool) -> None:
    """One JSON object a line."""
    while True:
        print(json.dumps(dataclasses.asdict(watch.ask())), flush=True)
        if once:
            return
        watch.pause(REFRESH_S)


def draw(watch: StatusWatch, is_live: bool) -> None:
    """The tables, once or again and again in their place."""
    from rich.console import Console
    from rich.live import Live

    from ..errors import RunError
    from .status_table import tables

    console: Console = Console() if sys.stdout.isatty() else Console(width=PIPED_COLUMNS)
    status = watch.ask()
    if not is_live:
        console.print(tables(status, watch.address))
        return
    with Live(tables(status, watch.address), console=console, screen=True, auto_refresh=False) as live:
        note = ""
        while True:
            live.update(tables(status, watch.address, console.size.height, note), refresh=True)
            watch.pause(REFRESH_S)
            try:
                status, note = watch.ask(), ""
            except RunError as error:
                if watch.is_barred():
                    raise
                note = str(error)  # it may be back soon; until then what was seen last stays
