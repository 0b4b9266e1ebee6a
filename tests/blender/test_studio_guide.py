# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/operator/studio.md is followed to the letter: its commands on one machine, two artists' Blenders on another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.testing.blender_reports import report_of
from tests.testing.blenders import PATIENCE, ROOT, blenders, run_script
from tests.testing.built_addon import Built
from tests.testing.network_namespaces import SERVER, NetworkNamespace

INSIDE = Path(__file__).parent / "scripts"
GUIDE = ROOT / "docs" / "operator" / "studio.md"
ARTISTS = {"anna": ("bpy-4.5.15", "a red mushroom"), "ben": ("bpy-5.0.1", "a blue chair")}
KEY_S = 120.0 * PATIENCE


def commands_of_the_guide(first_word: str = "dreamwright") -> list[list[str]]:
    """The words of each such command in the guide's blocks, in their order, without those for a container."""
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line.split() for line in lines if line.startswith(f"{first_word} ")]


def test_the_guide_has_the_commands_that_are_tried() -> None:
    assert [words[1:3] for words in commands_of_the_guide()] == [
        ["keys", "create"],
        ["serve", "--address"],
        ["keys", "allow"],
        ["keys", "allow"],
    ]


@pytest.mark.slow
def test_two_artists_join_by_the_guide_alone(
    networks: tuple[NetworkNamespace, NetworkNamespace], built: Built, tmp_path: Path
) -> None:
    """Only the workers are simulated: their props come at once."""
    found = {one.name: one for one in blenders()}
    for name, _ in ARTISTS.values():
        if found[name].missing:
            pytest.skip(found[name].missing)
    here, there = networks
    desk = tmp_path / "desk"
    desk.mkdir()
    own = {**os.environ, "HOME": str(tmp_path / "home"), "XDG_DATA_HOME": str(tmp_path / "data")}
    create, serve, *allow = commands_of_the_guide()

    def on_the_server(words: list[str], program: str = "dreamwright.backend.cli.main") -> list[str]:
        return here.command(sys.executable, "-m", program, *(word.replace("HOST", SERVER) for word in words[1:]))

    subprocess.run(on_the_server(create), check=True, env=own, cwd=ROOT, capture_output=True)
    server = subprocess.Popen(
        on_the_server(serve, "tests.testing.fast_worker_server"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=own,
        cwd=ROOT,
    )
    try:
        output = ""
        while "allow a user's key with" not in output:
            line = server.stdout.readline()
            assert line, output
            output += line
        string = re.search(r"dreamwright://\S+", output)[0]
        assert f"//{SERVER}:47630/" in string

        def artist(name: str) -> subprocess.CompletedProcess[str]:
            program, prompt = ARTISTS[name]
            far = replace(found[program], command=tuple(there.command(*found[program].command)))
            given = {
                "STRING": string,
                "SERVER": "tcp://127.0.0.1:9",
                "DESK": str(desk),
                "NAME": name,
                "PROMPT": prompt,
                "OTHERS": ",".join(ARTISTS),
            }
            return run_script(far, INSIDE / "studio_guide.py", built.universal, given, timeout=200)

        with ThreadPoolExecutor(len(ARTISTS)) as pool:
            running = {name: pool.submit(artist, name) for name in ARTISTS}
            for words in allow:
                key, end = desk / f"{words[3]}.key", time.monotonic() + KEY_S
                while not key.exists() and time.monotonic() < end and not running[words[3]].done():
                    time.sleep(0.05)
                assert key.exists(), running[words[3]].result().stderr
                allowed = [word if word != "dwkey_..." else key.read_text() for word in words]
                subprocess.run(on_the_server(allowed), check=True, env=own, cwd=ROOT, capture_output=True)
            reports = {name: report_of(one.result()) for name, one in running.items()}
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()
    for name, report in reports.items():
        assert "does not know this computer's key yet" in report["reason"]
        assert report["address"] == f"tcp://{SERVER}:47630"
        assert report["jobs"] == [[ARTISTS[name][1], name]], "nobody sees the other's jobs"
        assert report["objects"] == [ARTISTS[name][1]]
