# SPDX-License-Identifier: GPL-3.0-or-later
"""A server and an artist on two machines: two network namespaces with a cable between them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.credentials import fingerprint, parse_connection_string
from tests.blender.conftest import PACKAGE, installed  # noqa: F401 (fixture)
from tests.testing.fake_props import ball

ROOT = Path(__file__).resolve().parents[2]
SERVER, ARTIST = "10.77.0.1", "10.77.0.2"


class Machine:
    """A network of its own, held open by a process that sleeps."""

    def __init__(self, *before: str, beside: int = os.getpid()) -> None:
        """`before` makes the network; `beside` is a process of the one that it is made from."""
        self.holder = subprocess.Popen(
            [*before, "sleep", "1200"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 30
        others = {os.readlink(f"/proc/{pid}/ns/net") for pid in (os.getpid(), beside)}
        # It goes through these before it has its own, and only then becomes who sleeps.
        while self.holder.poll() is None and not (self._network() not in others and "sleep" in self._name()):
            if time.monotonic() > end:
                raise OSError("no network namespace came about")
            time.sleep(0.01)
        if self.holder.poll() is not None:
            raise OSError(self.holder.communicate()[1].strip())

    def _network(self) -> str:
        return os.readlink(f"/proc/{self.holder.pid}/ns/net")

    def _name(self) -> str:
        return Path(f"/proc/{self.holder.pid}/comm").read_text()

    def command(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder.pid), "-U", "-n", "--preserve-credentials", *words]

    def ip(self, words: str) -> None:
        done = subprocess.run(self.command("ip", *words.split()), capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr.strip())

    def end(self) -> None:
        self.holder.kill()
        self.holder.communicate()


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """The server's and the artist's, with a cable between them. Raises OSError saying what this computer lacks."""
    missing = [tool for tool in ("unshare", "nsenter", "ip") if not shutil.which(tool)]
    if sys.platform != "linux" or missing:
        raise OSError(f"needs Linux with {', '.join(missing) or 'network namespaces'}: apt install util-linux iproute2")
    made: list[Machine] = []
    try:
        made.append(Machine("unshare", "--user", "--map-root-user", "--net"))
        made.append(Machine(*made[0].command("unshare", "--net"), beside=made[0].holder.pid))
        server, artist = made
        server.ip(f"link add cable type veth peer name cable netns {artist.holder.pid}")
        for machine, address in ((server, SERVER), (artist, ARTIST)):
            machine.ip("link set lo up")
            machine.ip(f"addr add {address}/24 dev cable")
            machine.ip("link set cable up")
        yield server, artist
    finally:
        for machine in reversed(made):
            machine.end()


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    """The server's and the artist's."""
    with contextlib.ExitStack() as stack:
        try:
            both = stack.enter_context(two_machines())
        except OSError as error:
            pytest.skip(
                f"this machine lets no second network be made ({error}); run as root, or allow unprivileged user namespaces"
            )
        yield both


class Talker:
    """A process on a machine, whose lines are read in turn."""

    def __init__(self, command: list[str], log: Path) -> None:
        with log.open("wb") as written:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written, text=True, cwd=ROOT)
        self._log = log
        self._silent = threading.Timer(100, self.process.kill)
        self._silent.start()

    def line(self) -> str:
        line = self.process.stdout.readline()
        assert line, self._log.read_text()[-3000:]
        return line

    def facts(self) -> dict[str, Any]:
        return json.loads(self.line())

    def end(self, kill: bool = False) -> int:
        if kill:
            self.process.kill()
        status = self.process.wait(30)
        self._silent.cancel()
        self.process.stdout.close()
        return status


@pytest.mark.slow
def test_a_second_machine_pairs_dreams_loses_the_cable_leaves_comes_back_and_fetches(
    machines: tuple[Machine, Machine],
    installed: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("bpy")  # which the add-on's package asks for
    here, there = machines
    keys = KeyFolder(tmp_path / "state")
    state = ["--state", str(keys.state)]
    serve = here.command(
        sys.executable,
        "-m",
        "tests.testing.fast_worker_server",
        "serve",
        "--address",
        f"tcp://{SERVER}:47630",
        "--device",
        "cpu",
        *state,
    )
    refused = subprocess.run(serve, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert refused.returncode == 2 and f"dreamwright keys create --state {keys.state}" in refused.stderr
    keys.create()
    talkers: list[Talker] = []

    def talk(command: list[str], name: str) -> Talker:
        talkers.append(Talker(command, tmp_path / name))
        return talkers[-1]

    def artist(phase: str, address: str) -> Talker:
        script = [
            sys.executable,
            "tests/testing/second_machine.py",
            str(installed.parent),
            PACKAGE,
            str(tmp_path / "user"),
            phase,
            address,
        ]
        return talk(there.command(*script), f"{phase}.log")

    try:
        server = talk(serve, "server.log")
        said = "".join(server.line() for _ in range(5))
        string = next(word for word in said.split() if word.startswith("dreamwright://"))
        assert parse_connection_string(string).address == f"tcp://{SERVER}:47630"

        stranger = artist("stranger", f"tcp://{SERVER}:47630")
        told = stranger.facts()
        assert told["link"] == "unauthorized" and "requires an encrypted connection" in told["reason"]
        assert stranger.end() == 0

        first = artist("pair", string)
        told = first.facts()
        assert "does not know this computer's key yet" in told["reason"]
        assert told["server"] == fingerprint(keys.pair().public) and told["server"] in said
        keys.allow("anna", told["key"])
        began = time.monotonic()
        assert "online" in first.facts()
        let_in = time.monotonic() - began
        job = first.facts()["job"]
        here.ip("link set cable down")
        assert first.facts() == {"link": "lost"}
        here.ip("link set cable up")
        began = time.monotonic()
        assert first.facts() == {"link": "online"}
        back = time.monotonic() - began
        assert first.end() == 0

        second = artist("return", f"tcp://{SERVER}:47630")
        assert "online" in second.facts()
        fetched = second.facts()
        assert second.end() == 0
        assert fetched["job"] == job and fetched["owner"] == "anna"
        assert fetched["sha"] == hashlib.sha256(ball(12).vertices.tobytes()).hexdigest()
        assert let_in < 10
        print(f"let in {let_in:.1f} s after being allowed; back {back:.1f} s after the cable was")
    finally:
        for talker in talkers:
            talker.end(kill=True)
