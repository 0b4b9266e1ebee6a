# SPDX-License-Identifier: GPL-3.0-or-later
"""Models that clients have the server download: who may, progress, stop, continuation, and what can go wrong."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

from dreamwright.backend.models import disk_use, hub_access
from dreamwright.backend.models.download_process import ReportingProgress
from dreamwright.backend.server import model_downloads
from dreamwright.backend.server.model_downloads import TransferRate
from dreamwright.backend.server.transport.authorized_keys import LOCAL
from dreamwright.shared.capabilities import ModelInfo
from dreamwright.shared.messages import GetCapabilities, Subscribe
from dreamwright.shared.model_messages import (
    CapabilitiesChanged,
    DownloadModel,
    ModelDownload,
    ModelDownloadChanged,
    StopDownload,
)
from tests.testing.fake_hub import UNLICENSED_TOKEN, FakeHub, Repository
from tests.testing.hub_downloads import MB, SD, SD_COMMIT, big, env, hub, tiny
from tests.testing.in_memory_server import InMemoryServer

__all__ = ["big", "env", "hub", "tiny"]
NAME = "sd-1.5"


@pytest.fixture
def server(hub: FakeHub, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server whose user has the fake hub and a home of their own."""
    for name in ("HF_ENDPOINT", "HF_HOME", "DREAMWRIGHT_MODELS", "HOME"):
        monkeypatch.setenv(name, env[name])
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub_access, "_users_choice", [None])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    made = InMemoryServer(tmp_path / "state")
    yield made
    made.service.models.close()


def wait(server: InMemoryServer, condition: Callable[[], bool]) -> None:
    """Step the server until a condition holds; the limit is reached only on failure."""
    end = time.monotonic() + 900  # the check of a finished download loads large libraries
    while not condition():
        assert time.monotonic() < end, server.service.models.downloads
        server.step(0.001)  # less than the time after which silent subscribers are dropped
        time.sleep(0.01)


def state(server: InMemoryServer, name: str = NAME) -> ModelDownload:
    return next(download for download in server.service.models.downloads if download.model == name)


def info(server: InMemoryServer, owner: str = LOCAL, name: str = NAME) -> ModelInfo:
    return next(model for model in server.request(GetCapabilities(), owner).models if model.name == name)


def hold(server: InMemoryServer, hub: FakeHub, files: dict[str, bytes]) -> None:
    """Start a download whose connection stalls after some megabytes, of which one is on the disk."""
    hub.repositories[SD[0]] = Repository(files, SD_COMMIT)
    hub.hold_after = 5 * MB
    assert server.request(DownloadModel(NAME), LOCAL).download.state == "running"
    wait(server, lambda: hub.held.is_set() and state(server).received_bytes > MB)


def child(server: InMemoryServer) -> Any:
    running = server.service.models._running
    assert running is not None
    return running.child


def events(server: InMemoryServer, owner: str, kind: type[Any]) -> list[Any]:
    return [event for event in server.events.get(owner.encode(), []) if isinstance(event, kind)]


@pytest.mark.slow
def test_progress_is_sent_and_the_model_becomes_ready_for_everybody(
    server: InMemoryServer, hub: FakeHub, big: dict[str, bytes]
) -> None:
    hub.repositories[SD[0]] = Repository(big, SD_COMMIT)
    for owner, is_admin in ((LOCAL, False), ("root", True), ("bert", False)):
        server.request(Subscribe(), owner, is_admin)
    before = info(server)
    assert (before.ready, before.can_download, before.disk_bytes) == (False, True, 0)
    assert before.license == "CreativeML Open RAIL-M" and before.license_url.startswith("https://huggingface.co/")
    assert before.download_bytes == 2_100_000_000 and before.memory_gb == 6.0 and not before.gated
    server.request(DownloadModel(NAME), "root", True)
    server.request(DownloadModel(NAME), "root", True)  # as a client sends it again whose answer was lost
    wait(server, lambda: state(server).state == "done")
    for owner in (LOCAL, "root"):
        seen = [event.download for event in events(server, owner, ModelDownloadChanged)]
        assert seen[0].state == "running" and seen[-1].state == "done"
        assert any(0 < one.received_bytes < one.total_bytes and one.file.endswith(".safetensors") for one in seen)
        assert any(one.state == "checking" for one in seen)
        assert seen[-1].received_bytes == seen[-1].total_bytes > 8 * MB
    assert not events(server, "bert", ModelDownloadChanged)
    assert [event.revision for event in events(server, "bert", CapabilitiesChanged)] == [1]
    assert server.request(Subscribe(), "bert").capabilities_revision == 1
    after = info(server, "bert")
    assert after.ready and after.disk_bytes > 8 * MB and not after.can_download
    assert after.download_fault == f"the model {NAME} is on the server already"
    assert server.refusal(DownloadModel(NAME), LOCAL).message == f"the model {NAME} is on the server already"


@pytest.mark.slow
def test_a_stopped_download_is_listed_after_a_restart_and_continues(
    server: InMemoryServer, hub: FakeHub, big: dict[str, bytes]
) -> None:
    hold(server, hub, big)
    assert state(server).file.endswith(".safetensors")
    process = child(server)
    assert server.request(StopDownload(NAME), LOCAL).download.state == "stopping"
    process.wait(60)  # at once: the connection stalls, and the child does not wait for it
    wait(server, lambda: state(server).state == "stopped")
    kept = state(server)
    assert MB < kept.received_bytes < kept.total_bytes and kept.message == ""
    assert server.request(StopDownload(NAME), LOCAL).download == kept, "a repeated request changes nothing"
    server.kill()
    server.open()
    assert server.request(Subscribe(), LOCAL).downloads == (kept,), "another server finds it on the disk"
    assert server.request(Subscribe(), "bert").downloads == ()
    assert info(server).disk_bytes == kept.received_bytes and info(server).can_download
    hub.reset()
    server.request(DownloadModel(NAME), LOCAL)
    wait(server, lambda: not state(server).is_active)
    assert state(server).state == "done", state(server)
    assert hub.served == kept.total_bytes - kept.received_bytes, "what was kept is not sent again"


def test_only_admins_and_the_user_of_ones_own_server_may(server: InMemoryServer) -> None:
    for request in (DownloadModel(NAME), StopDownload(NAME), DownloadModel("/etc/passwd")):
        refusal = server.refusal(request, "bert")
        assert refusal.code == "not-allowed"
        assert refusal.message == "only an admin of this server may download models to it; ask one of them"
    seen = info(server, "bert")
    assert not seen.can_download and seen.download_fault == refusal.message
    assert seen.missing == "not on this server; its admins can download it", "no command, and no folder"
    assert server.request(GetCapabilities(), "bert").models_free_bytes == 0
    assert server.request(GetCapabilities(), LOCAL).models_free_bytes > 0


@pytest.mark.parametrize(
    "name", ["", "nonsense", "/etc/passwd", "../sd-1.5", "sd-1.5/", "tiny/props", SD[0], "https://huggingface.co/x/y"]
)
def test_anything_but_a_registered_name_is_refused(server: InMemoryServer, hub: FakeHub, name: str) -> None:
    refusal = server.refusal(DownloadModel(name), LOCAL)
    assert refusal.code == "bad-input" and "there is no registered model" in refusal.message
    assert "sd-1.5" in refusal.message and not hub.requests
    assert server.refusal(StopDownload(name), LOCAL).code == "not-now"


def test_packaged_models_have_nothing_to_download(server: InMemoryServer) -> None:
    assert "part of the server's package" in server.refusal(DownloadModel("starter"), LOCAL).message
    assert info(server, name="starter").license_url == "https://www.gnu.org/licenses/gpl-3.0.html"


def test_a_full_disk_is_found_before_the_download(
    server: InMemoryServer, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_use, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=10**9)))
    refusal = server.refusal(DownloadModel(NAME), LOCAL)
    assert refusal.code == "no-space"
    assert "needs about 2.2 GB more" in refusal.message and "has 1 GB free" in refusal.message
    assert not hub.requests and server.service.models.downloads == ()


def test_an_offline_server_downloads_nothing(server: InMemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "_users_choice", ["1"])
    assert "HF_HUB_OFFLINE" in server.refusal(DownloadModel(NAME), LOCAL).message
    assert "HF_HUB_OFFLINE" in info(server).download_fault


def test_the_servers_own_offline_mode_does_not_reach_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "_users_choice", [])
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    hub_access.forbid_hub()
    hub_access.forbid_hub()
    assert os.environ["HF_HUB_OFFLINE"] == "1" and "HF_HUB_OFFLINE" not in hub_access.users_environment()
    monkeypatch.setattr(hub_access, "_users_choice", [])
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    hub_access.forbid_hub()
    assert hub_access.is_offline(hub_access.users_environment())


def test_a_gated_model_says_how_to_get_access(server: InMemoryServer, hub: FakeHub) -> None:
    refusal = server.refusal(DownloadModel("sd3-medium"), LOCAL)
    for text in ("gated", "https://huggingface.co/stabilityai/", "`hf auth login`", "HF_TOKEN"):
        assert text in refusal.message, refusal.message
    seen = info(server, name="sd3-medium")
    assert seen.gated and not seen.can_download and seen.download_fault == refusal.message
    assert not hub.requests


def test_a_token_without_the_license_fails_and_is_never_shown(
    server: InMemoryServer, hub: FakeHub, tiny: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", UNLICENSED_TOKEN)
    repository = "stabilityai/stable-diffusion-3-medium-diffusers"
    hub.repositories[repository] = Repository(tiny, "ea42f8cef0f178587cf766dc8129abd379c90671", gated=True)
    server.request(DownloadModel("sd3-medium"), LOCAL)
    wait(server, lambda: not state(server, "sd3-medium").is_active)
    ended = state(server, "sd3-medium")
    assert ended.state == "failed" and "has not accepted it" in ended.message
    assert f"Bearer {UNLICENSED_TOKEN}" in hub.tokens
    assert UNLICENSED_TOKEN not in repr(server.events) + repr(server.service.models.downloads) + caplog.text


def test_one_download_at_a_time(server: InMemoryServer, hub: FakeHub, big: dict[str, bytes]) -> None:
    hold(server, hub, big)
    refusal = server.refusal(DownloadModel("sdxl"), LOCAL)
    assert refusal.code == "not-now" and f"is downloading {NAME}; stop that first" in refusal.message
    assert server.refusal(StopDownload("sdxl"), LOCAL).message == "the server is not downloading 'sdxl'"
    assert server.request(DownloadModel(NAME), "root", True).download.state == "running", "another admin's is the same"
    assert child(server).poll() is None
    server.request(StopDownload(NAME), LOCAL)
    assert server.refusal(DownloadModel(NAME), LOCAL).code == "not-now", "while it is being stopped"
    wait(server, lambda: state(server).state == "stopped")


def test_a_hub_that_dies_midway_leaves_what_was_received(
    server: InMemoryServer, hub: FakeHub, big: dict[str, bytes]
) -> None:
    hold(server, hub, big)
    hub.released.set()  # the connection ends in the middle of a file
    wait(server, lambda: not state(server).is_active)
    ended = state(server)
    assert ended.state == "failed" and "cannot reach" in ended.message and "goes on from here" in ended.message
    assert MB < ended.received_bytes < ended.total_bytes
    assert info(server).can_download


def test_a_damaged_file_fails_the_download(server: InMemoryServer, hub: FakeHub, tiny: dict[str, bytes]) -> None:
    hub.repositories[SD[0]] = Repository(tiny, SD_COMMIT, damaged={"unet/config.json"})
    server.request(DownloadModel(NAME), LOCAL)
    wait(server, lambda: not state(server).is_active)
    assert state(server).state == "failed" and "was damaged on its way" in state(server).message


def test_a_child_that_does_not_stop_is_killed(server: InMemoryServer, hub: FakeHub, big: dict[str, bytes]) -> None:
    hold(server, hub, big)
    process = child(server)
    os.kill(process.pid, signal.SIGSTOP)
    server.request(StopDownload(NAME), LOCAL)
    server.step(model_downloads.KILL_AFTER_S / 2)
    assert process.poll() is None and state(server).state == "stopping"
    server.step(model_downloads.KILL_AFTER_S)
    wait(server, lambda: state(server).state == "stopped")
    assert process.returncode == -signal.SIGKILL and state(server).received_bytes > MB


def test_closing_the_server_ends_the_child(server: InMemoryServer, hub: FakeHub, big: dict[str, bytes]) -> None:
    hold(server, hub, big)
    process = child(server)
    server.service.models.close()
    assert process.returncode is not None and state(server).state == "stopped"


def test_a_child_whose_server_is_gone_ends(server: InMemoryServer, hub: FakeHub, big: dict[str, bytes]) -> None:
    hold(server, hub, big)
    process = child(server)
    process.stdin.close()  # as the end of the server's process does
    assert process.wait(60) != 0


def test_a_partial_folder_that_was_deleted_is_no_download(server: InMemoryServer, env: dict[str, str]) -> None:
    shutil.rmtree(Path(env["DREAMWRIGHT_MODELS"]), ignore_errors=True)
    server.kill()
    server.open()
    assert server.service.models.downloads == ()


def test_output_of_the_child_that_is_no_report_is_ignored(
    server: InMemoryServer, hub: FakeHub, big: dict[str, bytes]
) -> None:
    hold(server, hub, big)
    models, before = server.service.models, state(server)
    for line in (b"", b"Traceback (most recent call last):", b"\xff\xfe", b"[1, 2]", b"7", b'{"message"'):
        assert models._take(models._running, before, line) == before, line
    said = models._take(models._running, before, b'{"message": "a\\u0000b\\ud800"}')
    assert said == replace(before, message="ab?")


def test_the_rate_is_that_of_the_network_over_the_last_seconds() -> None:
    rate = TransferRate()
    rate.add(0.0, 0)
    assert rate.per_second == 0
    for second in range(1, 20):
        rate.add(float(second), 10 * second if second <= 10 else 100 + 1000 * (second - 10))
    assert rate.per_second == 1000


def test_the_rate_falls_when_the_connection_stalls(server: InMemoryServer, hub: FakeHub, big: dict[str, bytes]) -> None:
    hold(server, hub, big)
    assert state(server).rate > 0

    def has_fallen() -> bool:  # once no report comes between two steps
        server.step(2 * model_downloads.RATE_WINDOW_S)
        return (state(server).rate, state(server).eta_s) == (0, -1)

    wait(server, has_fallen)
    assert state(server).state == "running" and state(server).file


def test_bytes_that_were_here_are_not_received() -> None:
    sent: list[dict[str, Any]] = []
    now = [0.0]
    progress = ReportingProgress(lambda **fields: sent.append(fields), lambda: now[0])
    progress.begin(1000, 0)
    progress.advance(300)  # files in place, whose hashes are compared
    progress.begin_file("unet/model.safetensors", 200)
    progress.advance(50)
    assert sent[-1] == {"done": 500, "total": 1000, "received": 0, "file": "unet/model.safetensors"}
    now[0] = 1.0
    progress.advance(50)
    assert sent[-1] == {"done": 600, "total": 1000, "received": 100, "file": "unet/model.safetensors"}
