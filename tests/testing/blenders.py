# SPDX-License-Identifier: GPL-3.0-or-later
"""The Blenders of this machine, and running a script in one with the built add-on installed and enabled."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dreamwright.backend.io.blender_program import own_folder_first

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("DREAMWRIGHT_BLENDERS", ROOT / ".blenders"))
RUN_INSTALLED = Path(__file__).resolve().parents[1] / "blender" / "scripts" / "run_installed.py"
MODULES = ("4.2.23", "4.5.15", "5.0.1", "5.2.3")
SETUP = "run bash tests/blender/environments.sh"
SCREEN = (1600, 1000)
PATIENCE = float(
    os.environ.get("DREAMWRIGHT_PATIENCE", "1")
)  # on a machine so many times slower, wait so many times longer


@dataclass(frozen=True)
class Blender:
    """One Blender: `module` is bpy in a Python of its own, `program` is the application, which can show a window."""

    name: str
    kind: str
    version: tuple[int, ...]
    command: tuple[str, ...]
    missing: str = ""  # why it cannot be used here
    windowless: str = ""  # why it cannot show a window

    @property
    def legacy(self) -> bool:
        """Whether it is older than extensions: the zip installs as a legacy add-on and brings no wheels."""
        return self.version < (4, 2)


def module_blender(version: str) -> Blender:
    """Blender as a module, where environments.sh has set it up."""
    place = FOLDER / f"bpy-{version}"
    missing = "" if (place / "ready").is_file() else f"bpy {version} is not set up; {SETUP}"
    numbers = tuple(int(part) for part in version.split("."))
    return Blender(
        f"bpy-{version}", "module", numbers, (str(place / "bin" / "python"), "-B"), missing, "a module has no windows"
    )


def program_blender() -> Blender:
    """The application on PATH: Debian 12's is 3.4."""
    path = shutil.which("blender")
    if path is None:
        return Blender("blender", "program", (0,), (), f"no blender on PATH; {SETUP}")
    shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"Blender (\d+)\.(\d+)\.(\d+)", shown)
    if not found:
        return Blender("blender", "program", (0,), (path,), f"{path} --version does not name a version")
    version = tuple(int(part) for part in found.groups())
    windowless = "" if shutil.which("Xvfb") else f"no virtual display; {SETUP}"
    return Blender(f"blender-{'.'.join(found.groups())}", "program", version, (path,), "", windowless)


@functools.cache
def blenders() -> tuple[Blender, ...]:
    """Every Blender that the tests know, here or missing, oldest first."""
    return program_blender(), *(module_blender(version) for version in MODULES)


def command_of(blender: Blender, window: bool, screen: tuple[int, int] = SCREEN) -> list[str]:
    """The command that runs run_installed.py in this Blender, with a window that fills a screen of that width and
    height, or without.
    """
    if blender.kind == "module":
        return [*blender.command, str(RUN_INSTALLED)]
    arguments = ["--factory-startup", "-noaudio", "--python-exit-code", "1"]
    if not window:
        return [*blender.command, "--background", *arguments, "--python", str(RUN_INSTALLED)]
    width, height = screen
    size = ["--window-geometry", "0", "0", str(width), str(height)]
    return [*blender.command, *arguments, *size, "--enable-event-simulate", "--python", str(RUN_INSTALLED)]


@contextlib.contextmanager
def display(screen: tuple[int, int]) -> Iterator[dict[str, str]]:
    """A virtual screen for one Blender; gives the variables that lead there.

    Not by xvfb-run: on a busy machine it can miss its server's word that it is ready, and then waits for ever.
    """
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{screen[0]}x{screen[1]}x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=(writing,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        try:
            with open(reading) as file:
                number = file.readline().strip()
            if not number:
                raise RuntimeError(
                    f"Xvfb ended with status {server.wait()} before it had a display; try: "
                    f"{' '.join(command[:1] + command[3:])}"
                )
            yield {"DISPLAY": f":{number}", "WAYLAND_DISPLAY": ""}  # a person's own desktop would be taken before ours
        finally:
            server.terminate()


def environment(home: Path, script: Path, zip_path: Path | None, extra: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the person's own Blender, Python or home is read or written."""
    result = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BLENDER_", "PYTHON", "XDG_", "DREAMWRIGHT_"))
    }
    resources = Path(extra.get("BLENDER_USER_RESOURCES", home / "blender"))
    result |= {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "LIBGL_ALWAYS_SOFTWARE": "1",
    }
    result |= {"OMP_NUM_THREADS": "1", "BLENDER_USER_RESOURCES": str(resources)}
    # 3.4 does not know the variable above, and takes these.
    result |= {f"BLENDER_USER_{part.upper()}": str(resources / part) for part in ("config", "scripts", "datafiles")}
    result |= {
        "DREAMWRIGHT_TEST_SCRIPT": str(script.resolve()),
        "DREAMWRIGHT_TEST_ZIP": str(zip_path.resolve()) if zip_path else "",
    }
    result |= {"DREAMWRIGHT_TEST_PATIENCE": str(PATIENCE)}
    return result | dict(extra)


def run_script(
    blender: Blender,
    script_path: Path,
    zip_path: Path | None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    window: bool = False,
    screen: tuple[int, int] = SCREEN,
) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh Blender with the zip installed and enabled.

    `zip_path` may also be a repository's index.json. The script finds the globals ADDON (the add-on's module name; also
    $DREAMWRIGHT_TEST_ADDON), finish(status), which a script with a window must call to end Blender, and what
    run_installed.py
    names besides. An exception ends any Blender with status 1, except one in a timer
    or a handler, which Blender only prints. A BLENDER_USER_RESOURCES in `env` is kept, so that a second run with
    zip_path None finds the add-on, its preferences and its files as the first left them; otherwise all is forgotten.
    """
    reason = blender.missing or (blender.windowless if window else "")
    if reason:
        raise ValueError(f"{blender.name} cannot run this: {reason}")
    with tempfile.TemporaryDirectory(prefix="dreamwright-", ignore_cleanup_errors=True) as home:
        variables = environment(Path(home), script_path, zip_path, env or {})
        for part in ("config", "scripts", "datafiles"):
            Path(variables["BLENDER_USER_RESOURCES"], part).mkdir(parents=True, exist_ok=True)
        command = command_of(blender, window, screen)
        variables = own_folder_first(command[0], variables)
        with contextlib.ExitStack() as stack:
            if window:
                variables |= stack.enter_context(display(screen))
            process = stack.enter_context(_start(command, variables, home))
            try:
                out, err = process.communicate(timeout=timeout * PATIENCE)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise subprocess.TimeoutExpired(command, timeout * PATIENCE, out, err) from None
                raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _start(command: list[str], variables: Mapping[str, str], folder: str) -> subprocess.Popen[str]:
    # A group of its own: on a timeout its children must go as well.
    return subprocess.Popen(
        command,
        env=variables,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
