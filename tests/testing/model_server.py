# SPDX-License-Identifier: GPL-3.0-or-later
"""A real server process beside a fake hub, where a download stalls after some megabytes until it is continued."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testing.fake_hub import FakeHub, Repository
from tests.testing.hub_downloads import MB, SD, SD_COMMIT
from tests.testing.server_process import ServerProcess, server_process

WEIGHTS = "unet/diffusion_pytorch_model.fp16.safetensors"  # during which the download stalls
VARIABLES = ("HF_ENDPOINT", "HF_HOME", "DREAMWRIGHT_MODELS", "HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def model_server(
    hub: FakeHub, env: dict[str, str], big: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    """The server of a user whose hub has sd-1.5, which stalls until the download is stopped and continued."""
    hub.repositories[SD[0]] = Repository(big, SD_COMMIT)
    hub.hold_after, hub.hold_s = 5 * MB, 3600.0

    has_ended = threading.Event()

    def let_others_pass() -> None:
        while not has_ended.wait(0.05):
            asked = [path for method, path, _ in list(hub.requests) if method == "GET" and path.endswith(WEIGHTS)]
            if len(asked) > 1:
                hub.hold_after = None
                hub.released.set()  # a connection that stalls already ends, and the hub's client tries again
                return

    threading.Thread(target=let_others_pass, daemon=True).start()
    with monkeypatch.context() as patch:
        for name in VARIABLES:
            patch.setenv(name, env[name])
        patch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "3600")  # else the hub's client tries again after 10 s without a byte
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            patch.delenv(name, raising=False)
        with server_process(tmp_path / "server") as server:
            yield server
    has_ended.set()
