# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw connections that send nothing, noise or half a greeting; `tests/soak/silent_connections.py` opens 200."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.soak.silent_connections import open_raw_connection, opening_bytes, soak
from tests.testing.scripted_worker_server import ScriptedServer


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["encrypted", "unencrypted"])
def test_unfinished_handshakes_are_closed_while_a_client_works(mode: str, tmp_path: Path) -> None:
    results, faults = soak(tmp_path, 24, 1, quiet_s=0.5, modes=(mode,))
    assert faults == []
    (figures,) = results.values()
    assert len(figures["closed after s (first, last)"]) == 8
    assert figures["during"]["requests"] > 20


def test_noise_is_disconnected_at_once(scripted_server: ScriptedServer) -> None:
    """libzmq would take it for a peer of ZMTP 1.0, which may be silent for ever."""
    connections = [
        open_raw_connection(scripted_server.server.address, kind, opening)
        for kind, opening in opening_bytes(b"NULL", random.Random(0)).items()
        if kind in ("noise", "a browser")
    ]

    def all_closed() -> bool:
        for one in connections:
            one.step(time.monotonic())
        return all(one.closed_s is not None for one in connections)

    scripted_server.wait_until(all_closed)
    for one in connections:
        one.socket.close()
