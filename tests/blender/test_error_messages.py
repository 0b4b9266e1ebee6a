# SPDX-License-Identifier: GPL-3.0-or-later
"""Error messages name a remedy; panels draw in all states; ticks stay short."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.recording_layout import draw_all

# --- faults


def test_buttons_are_disabled_with_a_reason_without_a_server(blender: AddonDriver) -> None:
    assert "Not connected" in why_not(bpy.ops.dreamwright.generate)
    assert "Not connected" in why_not(bpy.ops.dreamwright.cancel)
    assert "no connection" in why_not(bpy.ops.dreamwright.disconnect)
    assert "No preview" in why_not(bpy.ops.dreamwright.step_preview)


def test_invalid_address_shows_the_format(blender: AddonDriver) -> None:
    for address in ("", "localhost", "http://127.0.0.1:1", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "tcp://:5"):
        blender.preferences.address = address
        assert "tcp://127.0.0.1:47630" in why_not(bpy.ops.dreamwright.connect), address


def test_offline_mode_disables_other_machines_only(blender: AddonDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    compat = blender.module("compat")
    monkeypatch.setattr(compat, "online_fault", lambda: "Enable online access")
    blender.preferences.address = "tcp://gpu.example.org:47630"
    assert "Enable online access" in why_not(bpy.ops.dreamwright.connect)
    blender.preferences.address = "tcp://127.0.0.1:1"
    assert bpy.ops.dreamwright.connect.poll()


@pytest.mark.parametrize(
    ("override", "remedy"),
    [(True, "start it without --offline-mode"), (False, "Enable online access in the System preferences")],
)
def test_offline_message_names_the_remedy(
    blender: AddonDriver, monkeypatch: pytest.MonkeyPatch, override: bool, remedy: str
) -> None:
    app = SimpleNamespace(online_access=False, online_access_override=override)
    monkeypatch.setattr(blender.module("compat"), "bpy", SimpleNamespace(app=app))
    blender.preferences.address = "tcp://gpu.example.org:47630"
    assert remedy in why_not(bpy.ops.dreamwright.connect)


def test_absent_server_is_reported_without_blocking(blender: AddonDriver) -> None:
    blender.preferences.address = "tcp://127.0.0.1:9"
    assert bpy.ops.dreamwright.connect() == {"FINISHED"}
    began = time.monotonic()
    assert blender.poll(lambda: "is the server running" in blender.session.reason)
    assert not bpy.ops.dreamwright.generate.poll()
    bpy.ops.dreamwright.disconnect()
    # `poll` waits for 10 s at most; a connection that blocks would take a minute or more. The rest is for a busy
    # machine.
    assert time.monotonic() - began < 20


def test_unknown_word_and_empty_prompt_are_refused_before_sending(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve().address)
    with pytest.raises(RuntimeError, match="does not know 'dragon'.*a red mushroom"):
        bpy.ops.dreamwright.generate(prompt="a red dragon")
    with pytest.raises(RuntimeError, match="prompt is empty"):
        bpy.ops.dreamwright.generate()
    assert not blender.session.jobs and not blender.session.pending


def test_reconnects_after_the_server_was_killed(blender: AddonDriver, serve: Any) -> None:
    server = serve("--steps", "3000")
    blender.connect(server.address)
    blender.generate()
    server.kill()
    assert blender.poll(lambda: blender.session.connection_state == "lost", 8)
    assert "Not connected" in why_not(bpy.ops.dreamwright.pause)
    again = serve("--address", server.address)
    assert blender.poll(lambda: blender.session.is_online, 10)
    assert again.process.poll() is None
    assert blender.poll(lambda: len(blender.panel.job_rows) == 0), (
        "the fake one forgets; the list says what the server says"
    )


def test_exception_in_a_tick_is_reported_and_the_timer_continues(
    blender: AddonDriver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def burst() -> None:
        raise KeyError("surprise")

    ticking = blender.module("timer")
    monkeypatch.setattr(ticking, "tick", burst)
    assert ticking._on_timer() > 0
    assert "surprise" in blender.notices() and "surprise" in capsys.readouterr().err


def test_scripts_name_any_job_and_the_panel_uses_the_selected_one(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "5000").address)
    first, second = blender.generate(), blender.generate("a blue chair")
    blender.poll(lambda: blender.session.jobs[first].state == "running")
    assert blender.module("addon_state").active_job().job == second
    assert bpy.ops.dreamwright.cancel(job=second) == {"FINISHED"}
    assert blender.poll(lambda: blender.session.jobs[second].state == "cancelled")
    with bpy.context.temp_override(dreamwright_panel=blender.panel):  # what the panel's layout gives to its buttons
        assert "Only a queued or running job can be paused" in why_not(bpy.ops.dreamwright.pause)
        assert "cancel" in why_not(bpy.ops.dreamwright.cancel)
        assert "paused job" in why_not(bpy.ops.dreamwright.resume)
        assert "no mesh yet" in why_not(bpy.ops.dreamwright.import_mesh)
        assert bpy.ops.dreamwright.delete_job.poll()
        blender.panel.job_index = -1
        assert "Select a job" in why_not(bpy.ops.dreamwright.delete_job)
        blender.module("properties").choose_job(second)
    assert bpy.ops.dreamwright.pause(job=first) == {"FINISHED"}, "the chosen job is another, and has ended"
    assert blender.poll(lambda: blender.session.jobs[first].state == "paused")
    assert bpy.ops.dreamwright.resume(job=first) == {"FINISHED"}
    assert bpy.ops.dreamwright.delete_job(job=second) == {"FINISHED"}
    assert blender.poll(lambda: second not in blender.session.jobs)
    with pytest.raises(RuntimeError, match="has no job nonsense"):
        bpy.ops.dreamwright.cancel(job="nonsense")
    with pytest.raises(RuntimeError, match="cancel it first"):
        bpy.ops.dreamwright.delete_job(job=first)


# --- the local server


def stub_command(folder: Path, body: str) -> Path:
    command = folder / "dreamwright"
    command.write_text(f"#!/bin/sh\n{body}\n")
    command.chmod(0o755)
    return command


def test_local_server_starts_logs_and_stops(blender: AddonDriver, tmp_path: Path) -> None:
    blender.preferences.command = str(stub_command(tmp_path, 'echo "serving: $@"; exec sleep 60'))
    assert bpy.ops.dreamwright.start_server() == {"FINISHED"}
    assert "already running" in why_not(bpy.ops.dreamwright.start_server)
    blender.poll(lambda: "serving" in blender.module("local_server").read_log(), 5)
    assert bpy.ops.dreamwright.show_log() == {"FINISHED"}
    assert "serving: serve --address tcp://127.0.0.1:47630" in bpy.data.texts["Dreamwright Server Log"].as_string()
    assert bpy.ops.dreamwright.stop_server() == {"FINISHED"}
    assert blender.poll(lambda: "has stopped" in blender.notices(), 5)
    assert not blender.module("local_server").is_running()


def test_failed_local_server_shows_its_last_log_line(blender: AddonDriver, tmp_path: Path) -> None:
    blender.preferences.command = str(stub_command(tmp_path, 'echo "cannot listen: the port is taken" >&2; exit 2'))
    bpy.ops.dreamwright.start_server()
    assert blender.poll(lambda: "the port is taken" in blender.notices(), 5)


def test_missing_command_names_the_remedy(blender: AddonDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "choose the command in the add-on's preferences" in why_not(bpy.ops.dreamwright.start_server)
    blender.preferences.address = "tcp://10.0.0.9:47630"
    assert "another machine" in why_not(bpy.ops.dreamwright.start_server)


# --- drawing


def test_all_panels_draw_in_all_states(blender: AddonDriver, serve: Any) -> None:
    draw_all(blender.module("panel"))
    blender.connect(serve("--steps", "3000").address)
    draw_all(blender.module("panel"))
    job = blender.generate()
    blender.poll(lambda: len(blender.session.previews.get(job, ())) > 1)
    blender.panel.prompt = "a red dragon"
    blender.session.notify("Something " * 20, fix="dreamwright.show_log")
    for modern in (False, True):
        texts = draw_all(blender.module("panel"), modern)
    assert any("does not know 'dragon'" in text for text in texts)
    assert any(text.startswith("Step ") and "left" in text for text in texts)


def test_pending_submission_is_shown_and_can_be_cancelled(blender: AddonDriver, serve: Any) -> None:
    server = serve()
    blender.connect(server.address)
    server.kill()
    assert bpy.ops.dreamwright.generate(prompt="a red mushroom") == {"FINISHED"}
    assert "Sending “a red mushroom”" in draw_all(blender.module("panel"))
    assert blender.poll(lambda: blender.session.connection_state == "lost", 8)
    texts = draw_all(blender.module("panel"))
    assert "Waiting: “a red mushroom”" in texts and "even if Blender is closed" in " ".join(texts)
    assert bpy.ops.dreamwright.cancel_pending() == {"FINISHED"}
    assert "No submission waits" in why_not(bpy.ops.dreamwright.cancel_pending)
    assert not any("a red mushroom" in text for text in draw_all(blender.module("panel")))


def test_address_field_suggests_known_servers(blender: AddonDriver, serve: Any) -> None:
    address = serve().address
    blender.connect(address)
    offered = blender.module("preferences")._suggest_addresses(blender.preferences, bpy.context, "tcp")
    assert offered == ["tcp://127.0.0.1:47630", address]
    assert blender.module("preferences")._suggest_addresses(blender.preferences, bpy.context, address[-5:]) == [address]


def test_prompt_from_a_text_editor(blender: AddonDriver) -> None:
    blender.panel.prompt = "a red"
    bpy.ops.dreamwright.edit_prompt()
    bpy.data.texts["Dreamwright Prompt"].write("\nmushroom ")
    assert bpy.ops.dreamwright.use_text() == {"FINISHED"}
    assert blender.panel.prompt in ("a red mushroom", "mushroom a red")


# --- time


def test_tick_is_short_while_previews_stream(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--size", "256", "--steps", "5000", "--wait", "0.04").address)
    job = blender.generate()
    tick, times, frames = blender.module("timer").tick, [], blender.session.previews
    assert blender.poll(lambda: len(frames.get(job, ())) > 1)
    for _ in range(120):
        time.sleep(0.01)
        began = time.perf_counter()
        tick()
        times.append(1000 * (time.perf_counter() - began))
    print(f"tick: median {np.median(times):.2f} ms, largest {max(times):.1f} ms, {len(frames[job])} pictures")
    # Ticks take some 0.1 ms, and 5 ms is a third of a frame at 60 Hz. The median is unmoved by what else the machine
    # runs.
    assert np.median(times) < 5
