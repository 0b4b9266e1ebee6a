# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright demo`: from prompt to lit scene, with a server and a headless Blender that has the built add-on.

With --scene a set of props is made as an asset library, placed on the ground, rendered under sun, lamp and sky, and its
albedo is measured in the renders. The same command continues.
"""

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
from ..io.blender_run import blender_reports
from .relight import SAMPLES as SCENE_SAMPLES
from .relight import WIDTH, run_scene

PROMPT, SIZE, SAMPLES = "a red mushroom", 512, 64
STOP_S = 60.0  # for the server to stop its worker and itself


class DemoError(DreamwrightError):
    """Something that the demo needs is missing."""


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser(
        "demo", help="from prompt to lit scene: server, Blender, job, import and renders", description=__doc__
    )
    parser.add_argument("prompt", nargs="?", help=f"default: {PROMPT}")
    parser.add_argument(
        "--scene",
        nargs="?",
        const="",
        metavar="FILE",
        help="a set of props instead of one: the default set, or a JSON list of props with name, prompt, height_m, at, "
        "on, turn_deg and lamp",
    )
    parser.add_argument("--library", type=Path, metavar="DIR", help="with --scene: of its props (default OUT/library)")
    parser.add_argument(
        "--world",
        type=Path,
        metavar="RUN",
        help="with --scene: a run's folder, kept with --keep-work, whose learned background takes the place of the sky",
    )
    parser.add_argument("--retry", action="store_true", help="with --scene: make the props again that failed before")
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, as for generate")
    parser.add_argument(
        "--size", type=int, help=f"width of the renders in pixels (default {SIZE}, square; with --scene {WIDTH}, 16:9)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        help=f"Cycles samples a pixel (default {SAMPLES}; with --scene {SCENE_SAMPLES}, and the denoiser)",
    )
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
    for name, value, high in (("--size", options.size, 8192), ("--samples", options.samples, 65536)):
        if value is not None and not 1 <= value <= high:
            raise DemoError(f"{name} is {value}; allowed is 1 to {high}; give a number in that range")
    if options.scene is not None:
        if options.prompt is not None:
            raise DemoError(
                f"the prompt {options.prompt!r} and --scene were given; leave the prompt out, or put it into the "
                "file of the scene"
            )
        return run_scene(options)
    settings = dict(_setting(text) for text in options.set)
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
            "zip": str(zip_path), "address": address, "out": str(out), "prompt": options.prompt or PROMPT,
            "preset": options.preset, "seed": options.seed, "settings": settings, "size": options.size or SIZE,
            "samples": options.samples or SAMPLES,
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
    bar = None
    with (out / "blender.log").open("w") as log:
        try:
            for report in blender_reports(command, script, variables, log):
                if "step" in report:
                    bar = bar or tqdm(
                        total=report["steps"], desc=arguments["prompt"][:32], unit="step", file=sys.stderr
                    )
                    bar.update(report["step"] - bar.n)
                else:
                    print(report["message"], flush=True)
        except RunError as error:
            raise RunError(f"{error}; see {out / 'blender.log'}") from error
        finally:
            if bar is not None:
                bar.close()
