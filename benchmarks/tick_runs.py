# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of a benchmark in Blenders, each against a fake server in a process of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the tests' Blenders and fake server

from tests.testing.blenders import Blender, blenders, run_script  # noqa: E402
from tests.testing.built_addon import build_into  # noqa: E402
from tests.testing.fake_server import FakeServer  # noqa: E402


def tick_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all these benchmarks have; with --serve one is its own server."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blenders", nargs="*", default=["bpy-4.5.15", "blender-3.4.1"])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser


def measure_each(
    names: list[str], benchmark: str, inside: str, variables: Mapping[str, str]
) -> Iterator[tuple[Blender, dict[str, Any]]]:
    """`measure` with the built add-on in each of the named Blenders; one that is missing is said and left out."""
    with tempfile.TemporaryDirectory(prefix="dreamwright-bench-") as folder:
        built = build_into(Path(folder))
        for blender in blenders():
            if blender.name not in names:
                continue
            if blender.missing:
                print(f"{blender.name} is left out: {blender.missing}", file=sys.stderr)
                continue
            yield blender, measure(benchmark, inside, blender, built.universal, variables)


def serve(server: FakeServer) -> None:
    """Serve until killed; the address is the first line."""
    print(server.address, flush=True)
    while True:
        server.step(0.01)


def measure(
    benchmark: str, inside: str, blender: Blender, zip_path: Path, variables: Mapping[str, str]
) -> dict[str, Any]:
    """Run the script `inside`, beside this file, in one Blender; the server is the file `benchmark` with --serve.

    Raises RuntimeError with Blender's words when that fails.
    """
    command = [sys.executable, str(Path(benchmark).resolve()), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            given = {"SERVER": server.stdout.readline().strip() if server.stdout else "", **variables}
            script, window = Path(__file__).with_name(inside), blender.kind == "program"
            done = run_script(blender, script, zip_path, given, timeout=240, window=window)
        finally:
            server.kill()
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    if done.returncode or not lines:
        raise RuntimeError(f"{blender.name}: status {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return json.loads(lines[0].removeprefix("REPORT "))
