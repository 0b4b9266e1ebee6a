# SPDX-License-Identifier: GPL-3.0-or-later
"""Two network namespaces with a virtual cable, as the machines of a server and a client."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER, CLIENT = "10.77.0.1", "10.77.0.2"


class NetworkNamespace:
    """A network namespace, held open by a sleeping process."""

    def __init__(self, *before: str, beside: int = os.getpid()) -> None:
        """`before` is a command that creates the network; `beside` is a process in the namespace to create it from."""
        self.holder = subprocess.Popen(
            [*before, "sleep", "1200"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 30
        others = {os.readlink(f"/proc/{pid}/ns/net") for pid in (os.getpid(), beside)}
        # The process runs these programs before it enters its namespace and executes sleep.
        while self.holder.poll() is None and not (self._network() not in others and "sleep" in self._name()):
            if time.monotonic() > end:
                raise OSError("no network namespace was created")
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
def two_networks() -> Iterator[tuple[NetworkNamespace, NetworkNamespace]]:
    """The namespaces of server and client. Raises OSError with the missing programs or permissions."""
    missing = [tool for tool in ("unshare", "nsenter", "ip") if not shutil.which(tool)]
    if sys.platform != "linux" or missing:
        raise OSError(f"needs Linux with {', '.join(missing) or 'network namespaces'}: apt install util-linux iproute2")
    made: list[NetworkNamespace] = []
    try:
        made.append(NetworkNamespace("unshare", "--user", "--map-root-user", "--net"))
        made.append(NetworkNamespace(*made[0].command("unshare", "--net"), beside=made[0].holder.pid))
        server, client = made
        server.ip(f"link add cable type veth peer name cable netns {client.holder.pid}")
        for machine, address in ((server, SERVER), (client, CLIENT)):
            machine.ip("link set lo up")
            machine.ip(f"addr add {address}/24 dev cable")
            machine.ip("link set cable up")
        yield server, client
    finally:
        for machine in reversed(made):
            machine.end()


@pytest.fixture
def networks() -> Iterator[tuple[NetworkNamespace, NetworkNamespace]]:
    """The namespaces of server and client."""
    with contextlib.ExitStack() as stack:
        try:
            both = stack.enter_context(two_networks())
        except OSError as error:
            pytest.skip(
                f"this machine lets no second network be made ({error}); run as root, or allow unprivileged user "
                "namespaces"
            )
        yield both
