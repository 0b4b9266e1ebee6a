# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that are killed, stopped or unplugged, and the time until the server frees their resources.

    python -m tests.soak.vanished_clients --rounds 3 --folder runs/vanished_clients

Server and clients run in two network namespaces joined by a virtual cable. The clients watch a job's previews and
vanish all at once. Measured are the seconds until the server has no subscriber, no preview in flight and no connection,
and for clients that return, the seconds until previews arrive again.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared import limits
from dreamwright.shared.credentials import format_key, generate_key_pair, key_pair_to_map
from tests.soak.command_line import print_results, soak_parser
from tests.testing.network_namespaces import SERVER, NetworkNamespace, two_networks

SILENT_S = limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS * 3  # timeout after which the server removes a subscriber
CONNECTION_S = 5.0 + 20.0  # ZMTP heartbeat interval and timeout of the server socket
SLACK_S = 3.0  # scheduling delay allowed on a busy machine
ROOT = Path(__file__).resolve().parents[2]


class JsonLineProcess:
    """A child process that prints lines of JSON."""

    def __init__(self, command: list[str], log: Path, stdin: str = "") -> None:
        self._log = log
        with log.open("ab") as written:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=written, text=True, cwd=ROOT
            )
        self.process.stdin.write(stdin)
        self.process.stdin.close()
        self.lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)  # the process has ended

    def next(self, limit_s: float) -> dict[str, Any]:
        """The next line. Raises queue.Empty after `limit_s`, RuntimeError if the process has ended."""
        line = self.lines.get(timeout=max(0.01, limit_s))
        if line is None:
            raise RuntimeError(
                f"{self.process.args} ended before its next line; its log: {self._log.read_text()[-2000:]}"
            )
        return line

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(30)
        self._reader.join(10)
        self.process.stdout.close()


class TwoNetworkSetup:
    """A server in one network namespace and clients in another."""

    def __init__(self, folder: Path, here: NetworkNamespace, there: NetworkNamespace, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._here, self._there, self._count = folder, here, there, count
        keys = KeyFolder(folder / "state")
        self._server, self._pair = keys.create().public, generate_key_pair()
        keys.allow("anna", format_key(self._pair.public))
        self._address = f"tcp://{SERVER}:47630"
        self.server = JsonLineProcess(
            here.command(
                sys.executable, "-m", "tests.soak.resource_count_server", str(folder / "state"), self._address
            ),
            folder / "server.log",
        )
        self.clients: list[JsonLineProcess] = []
        self.counts: dict[str, Any] = {}

    def start_clients(self) -> None:
        """Start the clients and wait until all receive previews."""
        setup = json.dumps({"server": format_key(self._server), "pair": key_pair_to_map(self._pair)}) + "\n"
        command = self._there.command(sys.executable, "-m", "tests.soak.preview_watcher", self._address)
        self.clients = [JsonLineProcess(command, self._folder / "clients.log", setup) for _ in range(self._count)]
        self.wait_for_previews()

    def wait_for_previews(self, limit_s: float = 120.0) -> float:
        """Time at which the last client receives previews."""
        return max(client.next(limit_s)["watching"] for client in self.clients)

    def wait_until(self, name: str, value: int, limit_s: float) -> float:
        """Time at which a resource count reaches a value. Raises queue.Empty after `limit_s`."""
        end = time.monotonic() + limit_s
        while self.counts.get(name) != value:
            self.counts = self.server.next(end - time.monotonic())
        return float(self.counts["at"])

    def vanish(self, how: str) -> dict[str, float]:
        """Let all clients vanish; returns the seconds until each resource is freed and until previews arrive again."""
        self.wait_until("subscribers", self._count, 60.0)
        time.sleep(1.0)
        while not self.server.lines.empty():
            self.counts = self.server.next(1.0)
        before = dict(self.counts)
        disturbed_at = time.monotonic()
        self._disturb(how)
        figures = {"subscribers before": before["subscribers"], "connections before": before["connections"]}
        freed: dict[str, float] = {}
        end = disturbed_at + CONNECTION_S + 20.0
        while len(freed) < 3 and time.monotonic() < end:
            for name in ("subscribers", "previews in flight", "connections"):
                if name not in freed and self.counts.get(name) == 0 and self.counts["at"] >= disturbed_at:
                    freed[name] = round(self.counts["at"] - disturbed_at, 2)
            try:
                self.counts = self.server.next(0.5) if len(freed) < 3 else self.counts
            except queue.Empty:
                continue
        figures |= {
            f"{name} freed after s": freed.get(name, float("inf"))
            for name in ("subscribers", "previews in flight", "connections")
        }
        if how == "kill":
            self.end_clients()
        else:
            for client in self.clients:
                while not client.lines.empty():
                    client.next(1.0)
            back = time.monotonic()
            self._restore(how)
            figures["previews again after s"] = round(self.wait_for_previews() - back, 2)
            self.end_clients()
        return figures

    def _disturb(self, how: str) -> None:
        if how == "cable":
            self._here.ip("link set cable down")
            return
        for client in self.clients:
            client.process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)

    def _restore(self, how: str) -> None:
        if how == "cable":
            self._here.ip("link set cable up")
            return
        for client in self.clients:
            client.process.send_signal(signal.SIGCONT)

    def end_clients(self) -> None:
        clients, self.clients = self.clients, []
        for client in clients:
            client.end()
        if clients:
            self.wait_until("connections", 0, CONNECTION_S + 20.0)

    def close(self) -> None:
        for client in self.clients:
            client.end()
        self.server.end(signal.SIGTERM)


def soak(folder: Path, count: int, ways: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Let clients vanish in each of the given ways, in turn."""
    figures: dict[str, Any] = {}
    faults: list[str] = []
    with two_networks() as (here, there):
        setup = TwoNetworkSetup(folder, here, there, count)
        try:
            for number, how in enumerate(ways):
                setup.start_clients()
                found = setup.vanish(how)
                figures[f"{number + 1}, {how}"] = found
                print(how, found, flush=True)
                for name, most in (
                    ("subscribers", SILENT_S),
                    ("previews in flight", SILENT_S),
                    ("connections", CONNECTION_S),
                ):
                    if found[f"{name} freed after s"] > most + SLACK_S:
                        faults.append(
                            f"{how}: {name} freed after {found[f'{name} freed after s']} s; the limit is {most:.0f} s"
                        )
        finally:
            setup.close()
    return figures, faults


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way to vanish")
    options = parser.parse_args()
    figures, faults = soak(options.folder, options.clients, ["kill", "stop", "cable"] * options.rounds)
    return print_results(figures, faults)


if __name__ == "__main__":
    sys.exit(main())
