# SPDX-License-Identifier: GPL-3.0-or-later
"""Models from Blender: the list, reasons of greyed buttons, the question, and downloads by a real server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.testing.blender_reports import report_of, run_at_window
from tests.testing.blenders import Blender, run_script
from tests.testing.built_addon import Built
from tests.testing.hub_downloads import big, env, hub, tiny
from tests.testing.model_server import model_server
from tests.testing.server_process import ServerProcess

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.recording_layout import ModernRecordingLayout, draw_all

__all__ = ["big", "env", "hub", "model_server", "tiny"]
INSIDE = Path(__file__).parent / "scripts"
GIB = 2**30


def offered(blender: AddonDriver, **changes: Any) -> Any:
    """Replace what the fake server says of the model "giant", as another server would say it; its description."""
    session = blender.session
    models = tuple(replace(one, **changes) if one.name == "giant" else one for one in session.capabilities.models)
    session.capabilities = replace(session.capabilities, models=models, models_free_bytes=50 * 10**9)
    session.revision += 1
    blender.poll(seconds=0.05)
    return next(one for one in models if one.name == "giant")


DOWNLOADABLE: dict[str, Any] = {
    "license": "Open License",
    "license_url": "https://huggingface.co/owner/giant",
    "memory_gb": 6.0,
    "text_encoder_gb": 0.5,
    "download_bytes": 2_100_000_000,
    "can_download": True,
}


def select(blender: AddonDriver, name: str) -> Any:
    """Select a model; the context of the panel's buttons."""
    mine = blender.module("model_rows").models()
    mine.index = [row.model for row in mine.rows].index(name)
    return bpy.context.temp_override(dreamwright_models_panel=mine)


def download(blender: AddonDriver, state: str, received: int = 0, total: int = 0, **more: Any) -> None:
    """What the server says of the download of "giant"."""
    messages = blender.module("shared.model_messages")
    told = messages.ModelDownload("giant", state, received, total, **more)
    blender.session.models.take(messages.ModelDownloadChanged(1, told))
    blender.poll(seconds=0.05)


def test_the_list_has_name_license_size_memory_and_state(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve().address)
    offered(blender, **DOWNLOADABLE)
    rows = blender.module("model_rows")
    assert [row.model for row in rows.models().rows] == ["starter", "giant"]
    select(blender, "giant")
    for modern in (True, False):
        texts = draw_all(blender.module("models_panel"), modern)
        assert {
            "starter",
            "giant",
            "2.1 GB",
            "6 GB",
            "Ready",
            "Not here",
            "giant: Not here",
            "License: Open License",
        } <= set(texts)
        shown = " ".join(texts)
        assert "Size: about 2.1 GB to download" in shown and "6 GB of the device, 0.5 GB while" in shown
    assert "Not on the server yet; download it under Server, Models" in blender.module("model_labels").missing_text(
        offered(blender)
    )


def test_buttons_are_greyed_with_the_servers_reason(blender: AddonDriver, serve: Any) -> None:
    assert "Not connected" in why_not(bpy.ops.dreamwright.download_model)
    blender.connect(serve().address)
    reason = "only an admin of this server may download models to it; ask one of them"
    offered(blender, **{**DOWNLOADABLE, "can_download": False, "download_fault": reason})
    with select(blender, "giant"):
        assert "Only an admin of this server may" in why_not(bpy.ops.dreamwright.download_model)
        assert "is not downloading this model" in why_not(bpy.ops.dreamwright.stop_model_download)
    assert "Only an admin of this server may" in " ".join(draw_all(blender.module("models_panel")))
    offered(blender, **DOWNLOADABLE, download_fault="")
    bpy.context.preferences.system.use_online_access = True
    with select(blender, "giant"):
        assert bpy.ops.dreamwright.download_model.poll()
        download(blender, "running", 1, 2)
        assert "is downloading giant; stop that first" in why_not(bpy.ops.dreamwright.download_model)
        assert bpy.ops.dreamwright.stop_model_download.poll()
    with select(blender, "starter"):
        assert "No page with this model's license" in why_not(bpy.ops.dreamwright.open_license)


def test_a_local_server_downloads_only_with_blenders_online_access(
    blender: AddonDriver, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    blender.connect(serve().address)
    offered(blender, **DOWNLOADABLE)
    app = SimpleNamespace(online_access=False, online_access_override=False)
    monkeypatch.setattr(blender.module("compat"), "bpy", SimpleNamespace(app=app))
    with select(blender, "giant"):
        assert "Enable online access in the System preferences to download models" in why_not(
            bpy.ops.dreamwright.download_model
        )
    with pytest.raises(RuntimeError, match="Enable online access"):
        bpy.ops.dreamwright.download_model(model="giant")
    blender.session.address = "tcp://gpu.example.org:47630"  # whose server uses its own network
    with select(blender, "giant"):
        assert (
            blender.module("model_operators").DREAMWRIGHT_OT_download_model.fault(
                blender.module("model_rows").active_model()
            )
            == ""
        )


def test_only_web_pages_are_opened(blender: AddonDriver, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blender.connect(serve().address)
    for url in ("", "file:///etc/passwd", "http://example.org", "javascript:alert(1)", "/bin/sh"):
        offered(blender, license_url=url)
        with pytest.raises(RuntimeError, match="No page with this model's license is known"):
            bpy.ops.dreamwright.open_license(model="giant")


def test_the_question_names_size_license_and_free_disk(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve().address)
    info, texts = offered(blender, **DOWNLOADABLE), []
    kind = blender.module("model_operators").DREAMWRIGHT_OT_download_model
    dialog = SimpleNamespace(layout=ModernRecordingLayout(texts), target=lambda: info)
    kind.draw(dialog, bpy.context)
    shown = " ".join(texts)
    for part in ("on this machine downloads giant: about 2.1 GB", "50 GB free", "License: Open License", "6 GB"):
        assert part in shown, shown


def test_progress_is_drawn_in_words_and_as_a_bar(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve().address)
    offered(blender, **DOWNLOADABLE)
    select(blender, "giant")
    download(blender, "running", 500_000_000, 2_000_000_000, rate=25e6, eta_s=60.0, file="unet/model.safetensors")
    mine = blender.module("model_rows").models()
    assert mine.rows[mine.index].percent == pytest.approx(25)
    for modern in (True, False):
        shown = " ".join(draw_all(blender.module("models_panel"), modern))
        for part in ("25 %", "Downloading", "500 MB of 2 GB", "25 MB/s", "1 min 00 s left", "unet/model.safetensors"):
            assert part in shown, (part, shown)
    download(blender, "checking", 1, 2)
    assert "Checking" in " ".join(draw_all(blender.module("models_panel")))
    download(blender, "failed", 1, 2, message="the disk of /m is full; free some space")
    assert "The disk of /m is full; free some space" in " ".join(draw_all(blender.module("models_panel")))
    assert "giant was not downloaded: the disk of /m is full" in blender.notices()


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 kB"), (1500, "2 kB"), (999_999, "1000 kB"), (2_100_000, "2.1 MB"), (123_456_789, "123 MB"),
     (1_710_000_000, "1.7 GB"), (18_000_000_000, "18 GB"), (1_234_000_000_000, "1234 GB")],
)  # fmt: skip
def test_sizes_are_short(installed: Path, size: int, expected: str) -> None:
    from tests.testing.addon_session import addon_module

    assert addon_module("model_labels").size_text(size) == expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_server_downloads_in_each_blender(
    blender_install: Blender, built: Built, model_server: ServerProcess
) -> None:
    done = run_script(
        blender_install, INSIDE / "model_download.py", built.universal, {"SERVER": model_server.address}, timeout=1500
    )
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr and "ResourceWarning" not in done.stderr
    assert report["listed"] == [True, False, True]
    assert "part of the server's package" in report["starter"]
    assert "has no model /etc/passwd" in report["unknown"]
    assert "accept the license at https://huggingface.co/" in report["gated"] and "hf auth login" in report["gated"]
    assert report["running"] == ["running", True]
    assert "The server is downloading sd-1.5; stop that first" in report["second"]
    assert report["stopped"] == [False, True, True]
    assert report["ended"] == ["done", ""]
    assert report["ready"][:2] == [True, ""] and "is on the server already" in report["ready"][2]
    assert "The model sd-1.5 is on the server and can be used" in report["notices"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_models_at_a_window(built: Built, model_server: ServerProcess) -> None:
    report, folder, _ = run_at_window(
        "models_in_window.py", built.universal, "models", {"SERVER": model_server.address}, timeout=1500
    )
    assert report["running"] == "running" and report["ended"] == "done"
    assert [Path(name).stem for name in report["pictures"]] == [
        "1-gated", "2-list", "3-question", "4-progress", "5-stopped", "6-ready",
    ]  # fmt: skip
    assert all((folder / name).is_file() for name in report["pictures"])
