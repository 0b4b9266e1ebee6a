# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of `dreamwright finish` in another process: started, followed, stopped. Does not import bpy."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STOP_S = 20.0  # after which a run that was asked to stop is killed
ERROR = "dreamwright: error: "
WARNING = "dreamwright: warning: "
SOURCE, EVENTS, LOG, MADE = "source.glb", "events.jsonl", "log.txt", "made"  # in the run's folder


@dataclass
class FinishRun:
    """folder: of the run's files, removed at its end; name: of the object; done: share in [0, 1]; step: at work."""

    process: subprocess.Popen[bytes]
    folder: Path
    name: str
    source: dict[str, Any] = field(default_factory=dict)  # what the import needs to know of the object
    done: float = 0.0
    step: str = ""
    began: float = field(default_factory=time.monotonic)
    stopped_at: float = 0.0  # when it was asked to stop; 0: it was not

    @property
    def made(self) -> Path:
        """The folder of the finished files."""
        return self.folder / MADE

    @property
    def seconds_left(self) -> float:
        """An estimate from the share that is done; negative while it is unknown."""
        elapsed = time.monotonic() - self.began
        return elapsed * (1.0 - self.done) / self.done if self.done > 0.02 else -1.0

    def poll(self) -> int | None:
        """Read what has happened; the exit status once the process has ended."""
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            last = json.loads(_complete_lines(self.folder / EVENTS)[-1])
            self.done, self.step = float(last["share"]), str(last["step"])
        if self.stopped_at and time.monotonic() - self.stopped_at > STOP_S:
            self.process.kill()
        return self.process.poll()

    def stop(self) -> None:
        """Ask the process to stop; it writes nothing then."""
        if self.process.poll() is None and not self.stopped_at:
            self.stopped_at = time.monotonic()
            self.process.terminate()

    def fault(self) -> str:
        """Why it failed, as the command says it."""
        said = _log(self.folder)
        errors = [line.removeprefix(ERROR) for line in said if line.startswith(ERROR)]
        return (errors or said or [f"exit status {self.process.returncode}"])[-1]

    def warnings(self) -> list[str]:
        """What the command warned of."""
        return [line.removeprefix(WARNING) for line in _log(self.folder) if line.startswith(WARNING)]

    def remove(self) -> None:
        """End the process if it runs, and remove the run's files."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(command: str, folder: Path, name: str, options: list[str], source: dict[str, Any]) -> FinishRun:
    """Start the command on SOURCE in the folder. Raises OSError when it cannot be run."""
    # Without Blender's own Python, which another Python must not use.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
    arguments = [
        command, "finish", str(folder / SOURCE), "--out", str(folder / MADE), "--name", name, "--scene", "--events",
        str(folder / EVENTS), *options,
    ]  # fmt: skip
    with open(folder / LOG, "wb") as log:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder,
            creationflags=_creation_flags(),
        )  # fmt: skip
    return FinishRun(process, folder, name, source)


def _creation_flags() -> int:
    if sys.platform == "win32":
        return subprocess.CREATE_NO_WINDOW
    return 0


def was_stopped(run: FinishRun) -> bool:
    """Whether the run ended because it was asked to."""
    return bool(run.stopped_at) or run.process.returncode in (130, -signal.SIGTERM)


def _complete_lines(path: Path) -> list[str]:
    """The lines of a file that another process writes, without one that is not written to its end."""
    return path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()


def _log(folder: Path) -> list[str]:
    try:
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
