# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright demo`: from prompt to lit scene, with a server and a headless Blender that has the built add-on."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dreamwright.shared import __version__

from ..errors import DreamwrightError, ExportError, RunError
from ..io.blender_program import blender_command, blender_variables

MARK = "DREAMWRIGHT "  # starts the lines of demo_scene.py among those of Blender
STOP_S = 60.0  # for the server to stop its worker and itself


class DemoError(DreamwrightError):
    """Something that the demo needs is missing."""


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser(
        "demo", help="from prompt to lit scene: server, Blender, job, import and renders", description=__doc__
    )
    parser.add_argument("prompt", nargs="?", default="a red mushroom")
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, as for generate")
    parser.add_argument("--size", type=int, default=512, help="pixels a side of the two renders (default 512)")
    parser.add_argument("--samples", type=int, default=64, help="Cycles samples a pixel (default 64)")
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder for scene.blend, sun.png, lamp.png and the logs"
    )
    parser.add_argument(
        "--addon", type=Path, metavar="ZIP", help="the built add-on (default: built from this checkout)"
    )
    parser.add_argument(
        "--blender",
        type=Path,
        metavar="PROGRAM",
        help="a Blender of 4.2 or later (default: bpy in this Python, else blender on PATH)",
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the demo; its files are in --out. Raises DreamwrightError."""
    settings = dict(_setting(text) for text in options.set)
    for name, value, high in (("--size", options.size, 8192), ("--samples", options.samples, 65536)):
        if not 1 <= value <= high:
            raise DemoError(f"{name} is {value}; allowed is 1 to {high}; give a number in that range")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"cannot make the folder {options.out}: {error.strerror}; choose another with --out"
        ) from error
    out = options.out.resolve()
    command = blender_command(options.blender)
    zip_path = options.addon.resolve() if options.addon else _built(out)
    if not zip_path.is_file():
        raise DemoError(
            f"there is no add-on at {zip_path}; build one with python build_addon.py and name it with --addon"
        )
    with _server(out) as address:
        print(f"server on {address}", flush=True)
        arguments = {
            "zip": str(zip_path), "address": address, "out": str(out), "prompt": options.prompt,
            "preset": options.preset, "seed": options.seed, "settings": settings, "size": options.size,
            "samples": options.samples,
        }  # fmt: skip
        _drive(command, arguments, out)
    print(f"{out / 'scene.blend'}, {out / 'sun.png'}, {out / 'lamp.png'}")
    return 0


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise DemoError(f"setting {text!r} has no '='; allowed is section.name=value, for example run.steps=400")
    return name.strip(), value.strip()


def _built(out: Path) -> Path:
    """Build the add-on from the checkout in the working directory. Raises DemoError."""
    script = Path("build_addon.py").resolve()
    if not script.is_file():
        raise DemoError(
            "the working directory has no build_addon.py; run this in a checkout of Dreamwright, or name a built zip "
            "with --addon"
        )
    made = subprocess.run([sys.executable, str(script), "--out", str(out / "addon")], capture_output=True, text=True)
    if made.returncode:
        raise DemoError(f"the add-on could not be built: {(made.stderr or made.stdout).strip()[-600:]}")
    return out / "addon" / f"dreamwright-{__version__}.zip"


@contextmanager
def _server(out: Path) -> Iterator[str]:
    """Start a server on a free port; yields its address and stops the server afterwards."""
    command = [
        sys.executable,
        "-m",
        "dreamwright.backend.cli.main",
        "serve",
        "--address",
        "tcp://127.0.0.1:*",
        "--state",
        str(out / "server"),
    ]
    with (out / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        output = _output_of(process)
        try:
            line = output.readline()
            addresses = [word for word in line.split() if word.startswith("tcp://")]
            if not addresses:
                raise DemoError(f"the server did not start; see {out / 'server.log'}")
            yield addresses[0]
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            output.close()


def _output_of(process: subprocess.Popen[str]) -> IO[str]:
    """The pipe of a process that was started with stdout=PIPE."""
    if process.stdout is None:
        raise RuntimeError("the process has no pipe for its output")
    return process.stdout


def _drive(command: list[str], arguments: dict[str, Any], out: Path) -> None:
    """Run demo_scene.py in Blender and show what it reports. Raises RunError."""
    from tqdm import tqdm

    script = Path(__file__).with_name("demo_scene.py")
    variables = {**blender_variables(out / "blender"), "DREAMWRIGHT_DEMO": json.dumps(arguments)}
    failure, bar = "", None
    with (out / "blender.log").open("w") as log:
        process = subprocess.Popen(
            [*command, str(script)], env=variables, stdout=subprocess.PIPE, stderr=log, text=True, errors="replace"
        )
        output = _output_of(process)
        try:
            for line in output:
                if not line.startswith(MARK):
                    log.write(line)
                    continue
                report = json.loads(line.removeprefix(MARK))
                if "step" in report:
                    bar = bar or tqdm(
                        total=report["steps"], desc=arguments["prompt"][:32], unit="step", file=sys.stderr
                    )
                    bar.update(report["step"] - bar.n)
                elif "error" in report:
                    failure = report["error"]
                else:
                    print(report["message"], flush=True)
        finally:
            if bar is not None:
                bar.close()
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.terminate()
            process.wait()
            output.close()
    if failure or process.returncode:
        raise RunError(failure or f"Blender ended with status {process.returncode}; see {out / 'blender.log'}")
