# SPDX-License-Identifier: GPL-3.0-or-later
"""A shared server: from the pasted connection string to a prop, and which files are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.credentials import ConnectionString, fingerprint, format_key, generate_key_pair
from tests.testing.addon_session import addon_module
from tests.testing.blender_reports import report_of
from tests.testing.blenders import ROOT, Blender, run_script
from tests.testing.built_addon import Built

INSIDE = Path(__file__).parent / "scripts"
FAR = "tcp://gpu.example.org:47630"


class SharedServer:
    """`dreamwright serve` with keys and fast workers, in its own process."""

    def __init__(self, state: Path, *options: str) -> None:
        self.keys = KeyFolder(state)
        self.keys.create()
        command = [
            sys.executable,
            "-m",
            "tests.testing.fast_worker_server",
            "serve",
            "--state",
            str(state),
            "--device",
            "cpu",
            *options,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
        silent = threading.Timer(120, self.process.kill)
        silent.start()
        self.output = ""
        while "allow a user's key with" not in self.output:
            line = self.process.stdout.readline()
            assert line, self.output
            self.output += line
        silent.cancel()
        self.connection_string = re.search(r"dreamwright://\S+", self.output)[0]

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def shared_server(tmp_path: Path) -> Iterator[SharedServer]:
    server = SharedServer(tmp_path / "state", "--address", "tcp://127.0.0.1:0", "--encrypt")
    yield server
    server.end()


@pytest.mark.slow
def test_pairing_from_paste_to_revocation(
    blender_install: Blender,
    built: Built,
    shared_server: SharedServer,
    tmp_path: Path,
) -> None:
    """In every Blender that is here, from the zip; and the secret lies in one file that only its owner reads."""
    blend, resources = tmp_path / "scene.blend", tmp_path / "blender"
    environment = {
        "STRING": shared_server.connection_string,
        "SERVER": "tcp://127.0.0.1:9",
        "STATE": str(shared_server.keys.state),
        "PYTHON": sys.executable,
    }
    environment |= {"ROOT": str(ROOT), "BLEND": str(blend), "BLENDER_USER_RESOURCES": str(resources)}
    done = run_script(blender_install, INSIDE / "pairing.py", built.universal, environment, timeout=200)
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    server_fingerprint = fingerprint(shared_server.keys.pair().public)
    assert report["address"].startswith("tcp://127.0.0.1:") and "dwkey" not in report["address"]
    assert report["server"] == server_fingerprint and server_fingerprint in shared_server.output, (
        "both sides show the same"
    )
    assert "does not know this computer's key yet" in report["reason"] and report["own"] in report["reason"]
    # Reconnects are tried at most 5 s apart (libzmq's limit) and a request after 5 s: twice the sum.
    assert report["let in after"] < 20
    assert report["prop"] == "a red mushroom" and report["owner"] == "anna"
    assert "does not accept your key" in report["shut out"]
    if os.name == "posix":
        assert report["folder"] == "0o700" and set(report["files"].values()) == {"0o600"}
    own = Path(report["own file"])
    secret = json.loads(own.read_text())["secret"]
    kept = [path for path in [blend, *resources.rglob("*")] if path.is_file() and path != own]
    assert blend in kept and any("userpref" in path.name for path in kept)
    for path in kept:
        content = path.read_bytes()
        assert secret.encode() not in content and bytes.fromhex(secret) not in content, path
    print(f"{blender_install.name}: let in {report['let in after']:.1f} s after being allowed")


# --- the session, without Blender


@pytest.fixture
def session(installed: Path, tmp_path: Path) -> Iterator[Any]:
    made = addon_module("session").Session(tmp_path / "user")
    yield made
    made.disconnect()


def test_no_connection_to_another_machine_without_its_key(session: Any) -> None:
    with pytest.raises(ValueError, match="its key is unknown; paste the connection string"):
        session.connect(FAR)
    assert not session.is_open


@pytest.mark.parametrize("damage", ["{", "open to others", "a key with a typo"])
def test_damaged_keys_never_disable_encryption(session: Any, damage: str) -> None:
    invited = ConnectionString("tcp://127.0.0.1:9", generate_key_pair().public)
    session.accept_connection_string(str(invited))
    path = session.folder / "keys" / "servers.json"
    if damage == "{":
        path.write_text("{")
    elif damage == "open to others":
        path.chmod(0o644)
    else:
        path.write_text(json.dumps({invited.address: format_key(invited.server)[:-1]}))
    with pytest.raises(ValueError, match="cannot be read|damaged"):
        session.connect(invited.address)
    assert not session.is_open


def test_connection_string_is_stored_per_address(session: Any) -> None:
    first, second = (ConnectionString(FAR, generate_key_pair().public) for _ in range(2))
    session.accept_connection_string(str(first))
    session.show_cached(FAR)
    assert session.keys.server_fingerprint == first.fingerprint and not session.notices
    session.show_cached("tcp://127.0.0.1:47630")
    assert session.keys.server_fingerprint == ""
    session.accept_connection_string(str(second))
    assert second.fingerprint in session.notices[0].text and "has changed" in session.notices[0].text
    session.show_cached(FAR)
    assert session.keys.server_fingerprint == second.fingerprint
    session.keys.forget(FAR)
    assert session.keys.server_fingerprint == ""


def test_own_key_is_created_once_at_first_use(session: Any) -> None:
    assert not (session.folder / "keys").exists() and session.keys.own_fingerprint == ""
    text = session.keys.own_key_text()
    again = addon_module("session").Session(session.folder)
    assert again.keys.own_key_text() == text
    path = session.folder / "keys" / "own.json"
    path.write_text('{"public": "x"}')
    with pytest.raises(ValueError, match="delete that file to create a new key"):
        again.keys.own_key_text()


def test_unwritable_folder_is_reported(session: Any) -> None:
    session.folder.parent.mkdir(exist_ok=True)
    session.folder.write_text("a file where the folder should be")
    with pytest.raises(ValueError, match="cannot be"):
        session.keys.own_key_text()


def test_handshake_failures_have_distinct_codes_and_texts() -> None:
    from dreamwright.shared.connection_monitor import CurveCredentials, HandshakeResult, describe_result

    lock = CurveCredentials(generate_key_pair().public, generate_key_pair())
    failed = [result for result in HandshakeResult if result is not HandshakeResult.ACCEPTED]
    descriptions = {describe_result(result, FAR, lock) for result in failed[:-1]}
    descriptions |= {describe_result(result, FAR, None) for result in failed[-2:]}
    assert len({code for code, _ in descriptions}) == len({text for _, text in descriptions}) == 6
    assert all(FAR in text and len(text) < 500 for _, text in descriptions)


def test_panel_shows_fingerprints_and_key_button(installed: Path) -> None:
    bpy = pytest.importorskip("bpy")
    del bpy
    drawn: list[str] = []
    column = SimpleNamespace(
        label=lambda text, icon: drawn.append(text), operator=lambda name, **look: drawn.append(name)
    )
    layout = SimpleNamespace(column=lambda align: column)
    draw = addon_module("panel").DREAMWRIGHT_PT_server._draw_keys
    keys = SimpleNamespace(server=b"x", server_fingerprint="aaaa-bbbb", own_fingerprint="cccc-dddd")
    draw(None, layout, SimpleNamespace(keys=keys, connection_state="unauthorized", is_open=True))
    assert drawn == ["Server aaaa-bbbb", "This computer cccc-dddd", "dreamwright.copy_key"]
    drawn.clear()
    draw(None, layout, SimpleNamespace(keys=SimpleNamespace(server=None), connection_state="online", is_open=True))
    assert drawn == []
