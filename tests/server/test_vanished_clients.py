# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients on a second machine that are killed, stopped or cut off: `tests/soak/vanished_clients.py` measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamwright.shared import limits
from tests.soak.vanished_clients import CONNECTION_S, SILENT_S, soak
from tests.testing.network_namespaces import two_networks


def test_soak_timeouts_match_the_server() -> None:
    assert SILENT_S == 12.0 == limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS * 3
    assert CONNECTION_S == 25.0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["kill", "cable"])
def test_resources_of_vanished_clients_are_freed(way: str, tmp_path: Path) -> None:
    try:
        with two_networks():
            pass
    except OSError as error:
        pytest.skip(
            f"this machine lets no second network be made ({error}); run as root, or allow unprivileged user namespaces"
        )
    figures, faults = soak(tmp_path, 2, [way])
    assert faults == []
    (found,) = figures.values()
    assert found["subscribers before"] == found["connections before"] == 2
    if way == "kill":
        # The kernel closes a killed client's socket at once; 12 s are for a busy machine, and half of a silent one's 25
        # s.
        assert found["connections freed after s"] < SILENT_S, "it is noticed, and not waited out"
