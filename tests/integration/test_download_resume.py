# SPDX-License-Identifier: GPL-3.0-or-later
"""Stopped downloads resume, and the progress bar shows their progress."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time

import pytest

from dreamwright.backend.models.download_progress import ProgressFile
from tests.testing.fake_hub import FakeHub, Repository, command, folder_files, run_command
from tests.testing.hub_downloads import MB, SD, SD_COMMIT, assert_refused, models_folder


def stop_in_the_middle(hub: FakeHub, env: dict[str, str], name: str, how: int = signal.SIGKILL) -> tuple[int, int, str]:
    """Stop a download of `big` during its U-Net's weights; returns exit code, bytes kept and stderr."""
    hub.hold_after = 5 * MB
    process = subprocess.Popen(
        command("models", "download", name), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # a background suite ignores it
    )  # fmt: skip
    assert hub.held.wait(60)
    folder = models_folder(env) / name.replace("/", "--")
    deadline = time.monotonic() + 60  # reached only on failure
    while not any(
        part.stat().st_size >= MB for part in (folder / ".dreamwright" / "parts").glob("*")
    ):  # the client may not have read all sent bytes
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    kept = sum(
        len(content)
        for path, content in folder_files(folder).items()
        if not path.startswith(".dreamwright") or "/parts/" in path
    )
    return process.returncode, kept, errors


@pytest.mark.slow
def test_killed_download_resumes(hub, env, big):
    hub.repositories[SD[0]] = Repository(big, SD_COMMIT)
    code, kept, _ = stop_in_the_middle(hub, env, "sd-1.5")
    assert code == -signal.SIGKILL and kept > 3 * MB
    assert "half downloaded" in run_command(env, "models").stdout
    assert_refused(run_command(env, "models", "verify", "sd-1.5"), "`dreamwright models download sd-1.5`")
    hub.reset()
    done = run_command(env, "models", "download", "sd-1.5")
    assert done.returncode == 0, done.stderr
    whole = sum(
        file["size"]
        for file in json.loads((models_folder(env) / "sd-1.5/.dreamwright/download.json").read_text())["files"]
    )
    assert hub.served == whole - kept, "kept bytes are not sent again"
    assert any(requested_range for method, _, requested_range in hub.requests if method == "GET"), (
        "the request has a range"
    )
    assert run_command(env, "models", "verify", "sd-1.5").returncode == 0
    folder = models_folder(env) / "sd-1.5"
    assert not (folder / ".dreamwright" / "parts").exists()
    assert (
        hashlib.sha256((folder / "unet/diffusion_pytorch_model.fp16.safetensors").read_bytes()).digest()
        == hashlib.sha256(big["unet/diffusion_pytorch_model.fp16.safetensors"]).digest()
    )


def test_ctrl_c_message_names_the_resume_command(hub, env, big):
    hub.repositories["tiny/props"] = Repository(big)
    code, _, errors = stop_in_the_middle(hub, env, "tiny/props", signal.SIGINT)
    assert code == 130 and "continues the download" in errors and "Traceback" not in errors


@pytest.mark.slow
def test_server_without_ranges_gives_a_valid_model(hub, env, big):
    hub.repositories["tiny/props"] = Repository(big)
    stop_in_the_middle(hub, env, "tiny/props")
    hub.reset()
    hub.ranges = False
    assert run_command(env, "models", "download", "tiny/props").returncode == 0
    assert run_command(env, "models", "verify", "tiny/props").returncode == 0


@pytest.mark.slow
def test_mirror_finishes_an_interrupted_download(hub, env, big):
    hub.repositories[SD[0]] = Repository(big, SD_COMMIT)
    stop_in_the_middle(hub, env, "sd-1.5")
    hub.reset()
    del hub.repositories[SD[0]]
    hub.repositories[SD[1]] = Repository(big)
    done = run_command(env, "models", "download", "sd-1.5")
    assert done.returncode == 0 and f"served by {SD[1]}" in done.stdout and hub.served < 6 * MB
    assert run_command(env, "models", "verify", "sd-1.5").returncode == 0


def test_disk_full_during_download_keeps_received_bytes(hub, env, run_in_process, big, monkeypatch):
    hub.repositories["tiny/props"] = Repository(big)
    write, written = ProgressFile.write, []

    def until_full(self: ProgressFile, data: bytes) -> int:
        written.append(len(data))
        if sum(written) > 5 * MB:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(ProgressFile, "write", until_full)
    assert_refused(run_in_process("models", "download", "tiny/props"), "is full; free some space", "goes on from here")
    monkeypatch.undo()
    hub.reset()
    assert run_command(env, "models", "download", "tiny/props").returncode == 0 and hub.served < 5 * MB


def test_progress_bar_shows_bytes_rate_and_time_left(hub, env, big):
    hub.repositories["tiny/props"] = Repository(big)
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        command("models", "download", "tiny/props"), env=env, stdout=subprocess.DEVNULL, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    try:
        while block := os.read(master, 65536):
            shown += block
    except OSError:
        pass  # reading a terminal after its last process has ended raises an error on Linux
    os.close(master)
    assert process.wait(60) == 0
    assert b"tiny/props:" in shown and b"100%" in shown and b"B/s" in shown and b"<" in shown
