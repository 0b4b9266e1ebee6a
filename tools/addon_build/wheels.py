# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheels in the zips: which are pinned, where they are downloaded from, and for which platforms they are."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK_NAME = "wheels.lock"
PACKAGES = {"pyzmq": "27.3.0", "msgpack": "1.2.4", "dnspython": "2.9.2", "ifaddr": "0.2.0"}
PURE = ("dnspython", "ifaddr")  # one wheel serves every platform and Python
PYTHONS = ("3.11", "3.13")  # Blender 4.2 to 5.0, and 5.1 onwards
# Blender's name of a platform -> pip's. Blender 4.2 needs macOS 11 and glibc 2.28; wheels for newer ones do not load.
PLATFORMS = {
    "windows-x64": ("win_amd64",),
    "windows-arm64": ("win_arm64",),
    "macos-arm64": ("macosx_11_0_arm64",),
    "macos-x64": ("macosx_11_0_x86_64",),
    "linux-x64": ("manylinux_2_28_x86_64", "manylinux2014_x86_64"),
    "linux-arm64": ("manylinux_2_28_aarch64", "manylinux2014_aarch64"),
}
# Platforms with a zip of their own. linux-arm64 has none: only some distributions build Blender for it, and an
# extension may not name it. Its wheels are in the universal zip.
PUBLISHED = {
    "windows-x64": "Windows, Intel or AMD",
    "windows-arm64": "Windows, ARM",
    "macos-arm64": "macOS, Apple silicon",
    "macos-x64": "macOS, Intel",
    "linux-x64": "Linux",
}


class BuildError(Exception):
    """The build cannot continue; the message says what was found, what is needed and what to do."""


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def platforms_of(wheel: str) -> set[str]:
    """Blender's platforms for which a wheel is, by its file name."""
    tag = wheel.removesuffix(".whl").rsplit("-", 1)[-1]
    if tag == "any":
        return set(PLATFORMS)
    system = {"win": "windows", "mac": "macos", "man": "linux"}.get(tag[:3])
    for ending, machines in (
        ("universal2", ("arm64", "x64")),
        ("arm64", ("arm64",)),
        ("aarch64", ("arm64",)),
        ("64", ("x64",)),
    ):
        if system and tag.endswith(ending):
            return {f"{system}-{machine}" for machine in machines}
    raise BuildError(
        f"{wheel}: no platform of Blender ({', '.join(PLATFORMS)}) uses this wheel; remove it from {LOCK_NAME}, or run "
        "build_addon.py --lock"
    )


def read_lock(path: Path) -> dict[str, str]:
    """SHA-256 by file name, from lines in the format of sha256sum. Every platform needs all packages and Pythons."""
    if not path.is_file():
        raise BuildError(
            f"{path} is missing, so no wheel can be verified: restore it from version control, or run "
            "build_addon.py --lock"
        )
    pins = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9_.+-]+\.whl)", line)
        if not match:
            raise BuildError(
                f"{path}, line {number}: {line!r} is not a SHA-256, two spaces and the name of a wheel; restore the "
                "file, or run build_addon.py --lock"
            )
        pins[match[2]] = match[1]
    for platform in PLATFORMS:
        for package, version in PACKAGES.items():
            found = [
                name for name in pins if name.startswith(f"{package}-{version}-") and platform in platforms_of(name)
            ]
            needed = 1 if package in PURE else len(PYTHONS)
            if len(found) != needed:
                raise BuildError(
                    f"{path} has {len(found)} wheels of {package} {version} for {platform} and needs {needed}, "
                    f"for Python {' and '.join(PYTHONS)}: run build_addon.py --lock"
                )
    return pins


def download(folder: Path, platforms: list[str]) -> None:
    """Download the wheels of some platforms into a folder with pip."""
    folder.mkdir(parents=True, exist_ok=True)
    for platform in platforms:
        for python in PYTHONS:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--disable-pip-version-check",
                "--only-binary=:all:",
                "--no-deps",
            ]
            command += ["--implementation=cp", f"--python-version={python}", f"--dest={folder}"]
            command += [f"--platform={name}" for name in PLATFORMS[platform]]
            command += [f"{package}=={version}" for package, version in PACKAGES.items()]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip() or "no message").splitlines()[-1]
                raise BuildError(
                    f"pip could not download the wheels for {platform}, Python {python}: {reason}. Check the network, "
                    f"or put the files that {LOCK_NAME} names into {folder}"
                )


def write_lock(path: Path, cache: Path) -> int:
    """Pin the wheels of the package index; their number. Uses a new folder, so that the cache cannot be pinned."""
    with tempfile.TemporaryDirectory() as fresh:
        download(Path(fresh), list(PLATFORMS))
        wheels = sorted(Path(fresh).glob("*.whl"))
        path.write_text("".join(f"{sha256(wheel)}  {wheel.name}\n" for wheel in wheels), encoding="utf-8")
        cache.mkdir(parents=True, exist_ok=True)
        for wheel in wheels:
            shutil.copyfile(wheel, cache / wheel.name)
    return len(read_lock(path))


def fetch_wheels(pins: dict[str, str], cache: Path) -> dict[str, bytes]:
    """All pinned wheels by name, downloaded when missing in the cache. Raises BuildError for a wrong SHA-256."""
    absent = [name for name in pins if not (cache / name).is_file()]
    if absent:
        download(cache, [platform for platform in PLATFORMS if any(platform in platforms_of(name) for name in absent)])
    wheels = {}
    for name, pin in sorted(pins.items()):
        path = cache / name
        if not path.is_file():
            raise BuildError(
                f"{name} is pinned, but the package index has other files for "
                f"{', '.join(sorted(platforms_of(name)))}: run build_addon.py --lock, and review what changed"
            )
        wheels[name] = path.read_bytes()
        found = hashlib.sha256(wheels[name]).hexdigest()
        if found != pin:
            raise BuildError(
                f"{path} has SHA-256 {found}, but {LOCK_NAME} pins {pin}: nothing was built. Delete the file and build "
                "again; if the new download differs as well, do not trust it"
            )
    return wheels
