# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that vanish: killed, standing still, or with their cable pulled; and when the server has let go of them.

    python -m tests.soak.vanished_clients --rounds 3 --folder runs/vanished_clients

Server and clients are on two machines: two network namespaces with a cable. Some artists watch a job's pictures; then all
of them vanish at once. Measured: seconds until the server has no subscriber and no preview on the way, and no connection;
and, for those who come back, until pictures come again.
"""

from __future__ import annotations

import argparse
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
from tests.testing.network_namespaces import SERVER, NetworkNamespace, two_networks

SILENT_S = limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS * 3  # after which the server forgets a subscriber
CONNECTION_S = 5.0 + 20.0  # of the door: a ping, and the time for its answer
SLACK_S = 3.0  # of a busy machine
ROOT = Path(__file__).resolve().parents[2]


class Speaker:
    """A process that prints lines of JSON."""

    def __init__(self, command: list[str], log: Path, told: str = "") -> None:
        with log.open("ab") as written:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=written, text=True, cwd=ROOT
            )
        self.process.stdin.write(told)
        self.process.stdin.close()
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def next(self, limit_s: float) -> dict[str, Any]:
        """Raises queue.Empty."""
        return self.lines.get(timeout=max(0.01, limit_s))

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(30)
        self._reader.join(10)
        self.process.stdout.close()


class Scene:
    """A door on one machine, artists on the other."""

    def __init__(self, folder: Path, here: NetworkNamespace, there: NetworkNamespace, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._here, self._there, self._count = folder, here, there, count
        keys = KeyFolder(folder / "state")
        self._server, self._pair = keys.create().public, generate_key_pair()
        keys.allow("anna", format_key(self._pair.public))
        self._address = f"tcp://{SERVER}:47630"
        self.server = Speaker(
            here.command(sys.executable, "-m", "tests.soak.watched_door", str(folder / "state"), self._address),
            folder / "door.log",
        )
        self.artists: list[Speaker] = []
        self.held: dict[str, Any] = {}

    def bring_artists(self) -> None:
        """Until all of them watch."""
        told = json.dumps({"server": format_key(self._server), "pair": key_pair_to_map(self._pair)}) + "\n"
        command = self._there.command(sys.executable, "-m", "tests.soak.watching_artist", self._address)
        self.artists = [Speaker(command, self._folder / "artists.log", told) for _ in range(self._count)]
        self.all_watch()

    def all_watch(self, limit_s: float = 120.0) -> float:
        """When the last of them has a picture."""
        return max(artist.next(limit_s)["watching"] for artist in self.artists)

    def wait_until(self, name: str, value: int, limit_s: float) -> float:
        """The time at which the door first held so many. Raises queue.Empty."""
        end = time.monotonic() + limit_s
        while self.held.get(name) != value:
            self.held = self.server.next(end - time.monotonic())
        return float(self.held["at"])

    def vanish(self, how: str) -> dict[str, float]:
        """All artists at once; seconds until each thing was freed, and until they were back."""
        self.wait_until("subscribers", self._count, 60.0)
        time.sleep(1.0)
        while not self.server.lines.empty():
            self.held = self.server.next(1.0)
        before = dict(self.held)
        struck = time.monotonic()
        self._strike(how)
        told = {"subscribers before": before["subscribers"], "connections before": before["connections"]}
        freed: dict[str, float] = {}
        end = struck + CONNECTION_S + 20.0
        while len(freed) < 3 and time.monotonic() < end:
            for name in ("subscribers", "previews on the way", "connections"):
                if name not in freed and self.held.get(name) == 0 and self.held["at"] >= struck:
                    freed[name] = round(self.held["at"] - struck, 2)
            try:
                self.held = self.server.next(0.5) if len(freed) < 3 else self.held
            except queue.Empty:
                continue
        told |= {
            f"{name} freed after s": freed.get(name, float("inf"))
            for name in ("subscribers", "previews on the way", "connections")
        }
        if how == "kill":
            self.drop_artists()
        else:
            for artist in self.artists:
                while not artist.lines.empty():
                    artist.next(1.0)
            back = time.monotonic()
            self._mend(how)
            told["pictures again after s"] = round(self.all_watch() - back, 2)
            self.drop_artists()
        return told

    def _strike(self, how: str) -> None:
        if how == "cable":
            self._here.ip("link set cable down")
            return
        for artist in self.artists:
            artist.process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)

    def _mend(self, how: str) -> None:
        if how == "cable":
            self._here.ip("link set cable up")
            return
        for artist in self.artists:
            artist.process.send_signal(signal.SIGCONT)

    def drop_artists(self) -> None:
        artists, self.artists = self.artists, []
        for artist in artists:
            artist.end()
        if artists:
            self.wait_until("connections", 0, CONNECTION_S + 20.0)

    def close(self) -> None:
        for artist in self.artists:
            artist.end()
        self.server.end(signal.SIGTERM)


def soak(folder: Path, count: int, ways: list[str]) -> tuple[dict[str, Any], list[str]]:
    """One after the other."""
    told: dict[str, Any] = {}
    faults: list[str] = []
    with two_networks() as (here, there):
        scene = Scene(folder, here, there, count)
        try:
            for number, how in enumerate(ways):
                scene.bring_artists()
                found = scene.vanish(how)
                told[f"{number + 1}, {how}"] = found
                print(how, found, flush=True)
                for name, most in (
                    ("subscribers", SILENT_S),
                    ("previews on the way", SILENT_S),
                    ("connections", CONNECTION_S),
                ):
                    if found[f"{name} freed after s"] > most + SLACK_S:
                        faults.append(
                            f"{how}: {name} freed after {found[f'{name} freed after s']} s; promised are {most:.0f}"
                        )
        finally:
            scene.close()
    return told, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="of each way to vanish")
    options = parser.parse_args()
    told, faults = soak(options.folder, options.clients, ["kill", "stop", "cable"] * options.rounds)
    print(json.dumps(told, indent=1))
    print(f"{len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
