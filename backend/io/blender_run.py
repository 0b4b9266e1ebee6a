# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a script in a Blender that reports in lines of JSON, among the lines that Blender itself prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..errors import RunError
from .blender_program import own_folder_first

MARK = "DREAMWRIGHT "  # begins the lines of a script's reports


def blender_reports(
    command: Sequence[str], script: Path, variables: Mapping[str, str], log: TextIO
) -> Iterator[dict[str, Any]]:
    """Run `script` by the command of `blender_command`; yields its reports and writes the other lines to `log`.

    A report with the key "error" is not yielded. Closing the iterator ends Blender. Raises RunError with that error, or
    with the exit status and the last line when Blender ends with another status than 0.
    """
    failure, last = "", ""
    process = subprocess.Popen(
        [*command, str(script)], env=own_folder_first(command[0], variables), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    try:
        for line in process.stdout or ():
            if not line.startswith(MARK):
                log.write(line)
                last = line.strip() or last
                continue
            report = json.loads(line.removeprefix(MARK))
            if "error" in report:
                failure = report["error"]
            else:
                yield report
    finally:
        if process.poll() is None and sys.exc_info()[0] is not None:
            process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if failure or process.returncode:
        raise RunError(failure or f"Blender ended with status {process.returncode} ({last})")
