# SPDX-License-Identifier: GPL-3.0-or-later
"""A server with keys that announces itself in a network namespace."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from tests.testing.network_namespaces import NetworkNamespace

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def announced_server(
    machine: NetworkNamespace, state: Path, address: str
) -> Iterator[tuple[subprocess.Popen[str], KeyFolder]]:
    """`dreamwright serve --announce` with workers that end at once; its process and its keys."""
    keys = KeyFolder(state)
    keys.create()
    serve = ["-m", "tests.testing.fast_worker_server", "serve", "--announce", "--address", address, "--device", "cpu"]
    process = subprocess.Popen(
        machine.command(sys.executable, *serve, "--state", str(state)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        line = ""
        while not line.startswith("announced"):
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(process.stderr.read())
        yield process, keys
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
        process.stderr.close()
