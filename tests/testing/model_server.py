# SPDX-License-Identifier: GPL-3.0-or-later
"""A real server process beside a fake hub, whose first download stalls after some megabytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testing.fake_hub import FakeHub, Repository
from tests.testing.hub_downloads import MB, SD, SD_COMMIT
from tests.testing.server_process import ServerProcess, server_process

VARIABLES = ("HF_ENDPOINT", "HF_HOME", "DREAMWRIGHT_MODELS", "HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def model_server(
    hub: FakeHub, env: dict[str, str], big: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    """The server of a user whose hub has sd-1.5. Its first download stalls, the next ones do not."""
    hub.repositories[SD[0]] = Repository(big, SD_COMMIT)
    hub.hold_after, hub.hold_s = 5 * MB, 3600.0

    def let_others_pass() -> None:
        hub.held.wait()
        hub.hold_after = None

    threading.Thread(target=let_others_pass, daemon=True).start()
    with monkeypatch.context() as patch:
        for name in VARIABLES:
            patch.setenv(name, env[name])
        patch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "3600")  # else the hub's client tries again after 10 s without a byte
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            patch.delenv(name, raising=False)
        with server_process(tmp_path / "server") as server:
            yield server
