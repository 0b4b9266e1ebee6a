# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw connections that say nothing, noise or half a greeting; `tests/soak/silent_connections.py` does it with 200."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.soak.silent_connections import kinds, knock, soak
from tests.testing.scripted_worker_server import ScriptedServer


@pytest.mark.slow
@pytest.mark.parametrize("door", ["encrypted", "open"])
def test_unfinished_handshakes_are_closed_while_a_client_works(door: str, tmp_path: Path) -> None:
    told, faults = soak(tmp_path, 24, 1, calm_s=0.5, doors=(door,))
    assert faults == []
    (figures,) = told.values()
    assert len(figures["hung up on after s (first, last)"]) == 8
    assert figures["meanwhile"]["requests"] > 20


def test_noise_is_disconnected_at_once(scripted_server: ScriptedServer) -> None:
    """libzmq would take it for a peer of ZMTP 1.0, which may be silent for ever."""
    strangers = [
        knock(scripted_server.server.address, kind, said)
        for kind, said in kinds(b"NULL", random.Random(0)).items()
        if kind in ("noise", "a browser")
    ]

    def all_dropped() -> bool:
        for one in strangers:
            one.step(time.monotonic())
        return all(one.dropped_s is not None for one in strangers)

    scripted_server.wait_until(all_dropped)
    for one in strangers:
        one.socket.close()
