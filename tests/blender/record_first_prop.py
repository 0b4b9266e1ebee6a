# SPDX-License-Identifier: GPL-3.0-or-later
"""Record a new user's first prop in a window of Blender, driven by mouse and keyboard, from the zip to the object.

    python -m tests.blender.record_first_prop --out docs/pictures/first-prop

Builds the add-on, starts Blender with a home folder of its own on a virtual display, and lets scripts/first_prop.py
do what docs/user/first-prop.md tells. The server is the real one, started by the panel's button and ended at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tests.testing.blender_reports import report_of
from tests.testing.blenders import ROOT, blenders, run_script
from tests.testing.built_addon import build_into

SCRIPT = Path(__file__).parent / "scripts" / "first_prop.py"
SCREEN = (1280, 1000)
LARGEST = 200_000  # bytes of a picture
DEFAULT_PORT = 47630
ARROW = ((0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12))  # a mouse's, its tip first
STOP_S = 30.0


class RecordError(Exception):
    """Something that the recording needs is not here."""


def missing() -> str:
    """Why nothing can be recorded on this machine; "" when it can."""
    program = blenders()[0]
    return (
        program.missing
        or program.windowless
        or ("" if command().is_file() else f"no dreamwright command at {command()}; pip install -e .")
    )


def command() -> Path:
    """The command that this environment installed."""
    return Path(sys.executable).parent / "dreamwright"


def free_address() -> str:
    """The add-on's own address, or another port where that one is taken."""
    for port in (DEFAULT_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    raise RecordError("no port of 127.0.0.1 is free")


def record(
    zip_path: Path, out: Path, prompt: str, settings: Mapping[str, Any], job_s: float, timeout: float
) -> dict[str, Any]:
    """Record the sequence, keep the screenshots in `out`, and return the report of the script.

    `settings` are those of the panel's Advanced part, `job_s` how long the job may take. Raises RecordError,
    AssertionError when the script failed, and subprocess.TimeoutExpired; the server is ended in any case.
    """
    if missing():
        raise RecordError(missing())
    with tempfile.TemporaryDirectory(prefix="first-prop-", ignore_cleanup_errors=True) as top:
        home, shots = Path(top) / "home", Path(top) / "shots"
        for folder in (home, shots):
            folder.mkdir()
        shutil.copy(zip_path, home)
        given = {
            "HOME": str(home), "BLENDER_USER_RESOURCES": str(Path(top) / "blender"), "DREAMWRIGHT_TEST_BY_HAND": "1",
            "PICTURES": str(shots), "ZIP": str(home / zip_path.name), "COMMAND": str(command()),
            "ADDRESS": free_address(),
            "PROMPT": prompt, "SETTINGS": json.dumps(settings), "JOB_S": str(job_s),
        }  # fmt: skip
        try:
            done = run_script(blenders()[0], SCRIPT, None, given, timeout, window=True, screen=SCREEN)
        finally:
            left = end_servers(Path(top))
            fault = shots / "fault.png"
            if fault.exists():
                out.mkdir(parents=True, exist_ok=True)
                shutil.copy(fault, out)
        report = report_of(done)
        if "Traceback" in done.stdout + done.stderr:
            raise AssertionError(done.stdout + done.stderr)
        report["servers left"] = left
        report["state"] = [str(path.relative_to(home)) for path in home.rglob("jobs.sqlite3")]
        publish([shots / name for name in report["pictures"]], report["pointers"], out)
    return report


def end_servers(top: Path) -> list[int]:
    """Stop a server that the button started and that still runs, by the add-on's record; the process ids."""
    ended = []
    for written in top.rglob("server.json"):
        number = int(json.loads(written.read_text())["process"])
        if "dreamwright" in _command_line(number):
            ended.append(number)
            _end(number)
    return ended


def _command_line(number: int) -> str:
    shown = subprocess.run(
        ["ps", "-ww", "-o", "stat=,command=", "-p", str(number)], capture_output=True, text=True, check=False
    ).stdout
    return "" if shown.startswith("Z") else shown


def _end(number: int) -> None:
    os.kill(number, signal.SIGTERM)
    end = time.monotonic() + STOP_S
    while _command_line(number):
        if time.monotonic() > end:
            os.kill(number, signal.SIGKILL)
            return
        time.sleep(0.1)


def publish(shots: list[Path], pointers: Mapping[str, tuple[int, int]], out: Path) -> None:
    """Convert the screenshots for the page: with mouse pointer, few colors, small. Deletes old ones."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.png"):
        old.unlink()
    for shot in shots:
        with Image.open(shot) as opened:
            picture = opened.convert("RGB")
        if shot.name in pointers:
            draw_pointer(picture, *pointers[shot.name])
        write_small(picture, out / shot.name)


def draw_pointer(picture: Image.Image, x: int, y: int) -> None:
    """The mouse, which Blender's screenshots leave out, at `x` from the left and `y` from the bottom."""
    corners = [(x + right, picture.height - 1 - y + down) for right, down in ARROW]
    ImageDraw.Draw(picture).polygon(corners, fill="white", outline="black")


def write_small(picture: Image.Image, path: Path) -> None:
    """A PNG under the limit, with as many colors as fit. Raises ValueError when even 32 do not."""
    for colors in (256, 128, 64, 32):
        picture.quantize(colors, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            return
    raise ValueError(f"{path} has {path.stat().st_size} bytes; allowed are {LARGEST}; make the window smaller")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "pictures" / "first-prop", help="folder of the pictures"
    )
    parser.add_argument("--prompt", default="a red mushroom")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a number of the panel's Advanced part"
    )
    parser.add_argument("--minutes", type=float, default=30, help="how long the job may take (default 30)")
    options = parser.parse_args()
    settings = {name: json.loads(value) for name, value in (text.split("=", 1) for text in options.set)}
    with tempfile.TemporaryDirectory(prefix="dreamwright-built-") as built:
        zip_path = build_into(Path(built)).universal
        try:
            report = record(
                zip_path, options.out, options.prompt, settings, 60 * options.minutes, 60 * options.minutes + 600
            )
        except RecordError as error:
            print(error, file=sys.stderr)
            return 2
    print(json.dumps({name: value for name, value in report.items() if name not in ("places", "pointers")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
