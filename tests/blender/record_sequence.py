# SPDX-License-Identifier: GPL-3.0-or-later
"""Record one of the sequences of docs/user in a window of Blender, against a real server with the built-in model.

    python -m tests.blender.record_sequence collect --out docs/pictures/collect

Builds the add-on, starts a server, and lets scripts/NAME_in_window.py do by mouse and keyboard what the page tells.
`record_first_prop` records what comes before: installation, server and the first prop.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.blender.record_first_prop import RecordError, command, missing, publish
from tests.testing.blender_reports import INSIDE, report_of
from tests.testing.blenders import ROOT, blenders, run_script
from tests.testing.built_addon import build_into
from tests.testing.server_process import server_process

SEQUENCES = ("collect", "finish", "variations", "watch")
SCREEN = (1280, 1000)
PROPS = (
    "a red mushroom", "a blue chair", "a green mug", "a white table", "a yellow duck", "a white house", "a black lamp",
    "a green tree", "a blue car", "a purple sofa",
)  # fmt: skip


def record(
    name: str, zip_path: Path, out: Path, prompts: tuple[str, ...], settings: Mapping[str, Any], timeout: float
) -> dict[str, Any]:
    """Record the sequence, keep the screenshots in `out`, and return the report of the script.

    prompts: what is made, all of them or the first. settings: those of the panel's Advanced part. Raises RecordError,
    AssertionError when the script failed, and subprocess.TimeoutExpired.
    """
    if missing():
        raise RecordError(missing())
    with tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as top:
        shots, files = Path(top) / "shots", Path(top) / "files"
        for folder in (shots, files):
            folder.mkdir()
        with server_process(Path(top) / "server") as server:
            given = {
                "SERVER": server.address, "PICTURES": str(shots), "FILES": str(files), "COMMAND": str(command()),
                "PROMPTS": json.dumps(prompts), "SETTINGS": json.dumps(settings), "PATIENCE_S": str(timeout),
            }  # fmt: skip
            script = INSIDE / f"{name}_in_window.py"
            done = run_script(blenders()[0], script, zip_path, given, timeout, window=True, screen=SCREEN)
        fault = shots / "fault.png"
        if fault.exists():
            out.mkdir(parents=True, exist_ok=True)
            shutil.copy(fault, out)
        report = report_of(done)
        if "Traceback" in done.stdout + done.stderr:
            raise AssertionError(done.stdout + done.stderr)
        publish([shots / picture for picture in report["pictures"]], report["pointers"], out)
    return report


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SEQUENCES)
    parser.add_argument("--out", type=Path, help="folder of the pictures (default docs/pictures/NAME)")
    parser.add_argument("--prompts", nargs="+", default=PROPS, metavar="PROMPT")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a number of the panel's Advanced part"
    )
    parser.add_argument("--minutes", type=float, default=90, help="how long it may take (default 90)")
    options = parser.parse_args()
    settings = {name: json.loads(value) for name, value in (text.split("=", 1) for text in options.set)}
    out = options.out or ROOT / "docs" / "pictures" / options.name
    with tempfile.TemporaryDirectory(prefix="dreamwright-built-") as built:
        zip_path = build_into(Path(built)).universal
        try:
            report = record(options.name, zip_path, out, tuple(options.prompts), settings, 60 * options.minutes)
        except RecordError as error:
            print(error, file=sys.stderr)
            return 2
    print(json.dumps({key: value for key, value in report.items() if key not in ("places", "pointers")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
