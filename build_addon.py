# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the Blender add-on: one zip for every system, one a platform, and a folder to host them as a repository.

    python build_addon.py              # dist/dreamwright-VERSION.zip, dist/dreamwright-VERSION-PLATFORM.zip, dist/repository/
    python build_addon.py --lock       # take the wheels named in PACKAGES from the package index and pin them anew

The universal zip is an extension for Blender 4.2 and later and a legacy add-on for older ones. The same input gives the
same bytes. Needs Python 3.11 and pip; with Blender as a module (pip install bpy) the zips are also validated by
Blender's own tool, which then writes the repository's index.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import html
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.parse
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LOCK_NAME = "wheels.lock"
PACKAGES = {"pyzmq": "27.3.0", "msgpack": "1.2.4"}
PYTHONS = ("3.11", "3.13")  # Blender 4.2 to 5.0, and 5.1 onwards
# Blender's name of a platform -> pip's. Blender 4.2 asks for macOS 11 and glibc 2.28, so newer wheels would not load.
PLATFORMS = {
    "windows-x64": ("win_amd64",),
    "windows-arm64": ("win_arm64",),
    "macos-arm64": ("macosx_11_0_arm64",),
    "macos-x64": ("macosx_11_0_x86_64",),
    "linux-x64": ("manylinux_2_28_x86_64", "manylinux2014_x86_64"),
    "linux-arm64": ("manylinux_2_28_aarch64", "manylinux2014_aarch64"),
}
# Those with a zip of their own. linux-arm64 has none: only some distributions build Blender for it, and it is not among the
# platforms that an extension may name. Its wheels are in the universal zip.
PUBLISHED = {
    "windows-x64": "Windows, Intel or AMD",
    "windows-arm64": "Windows, ARM",
    "macos-arm64": "macOS, Apple silicon",
    "macos-x64": "macOS, Intel",
    "linux-x64": "Linux",
}
MARKER = re.compile(r"^wheels = \[\]$", re.MULTILINE)
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name} for Blender</title></head>
<body>
<h1>{name} {version} for Blender</h1>
<p>{tagline}</p>
<p>Drag the line of your system into a Blender {oldest} or later. Blender then asks to add this page as a repository, and
brings updates from it.</p>
<ul>
{links}
</ul>
<p>Or add it by hand: Preferences, Get Extensions, Repositories, Add Remote Repository, with the address of
<a href="index.json">index.json</a> beside this page.</p>
</body>
</html>
"""


class BuildError(Exception):
    """The build cannot go on; the text says what was found, what is needed and what to do."""


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def platforms_of(wheel: str) -> set[str]:
    """Blender's platforms that a wheel's file name serves."""
    tag = wheel.removesuffix(".whl").rsplit("-", 1)[-1]
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
        f"{wheel}: no platform of Blender ({', '.join(PLATFORMS)}) uses this wheel; take it out of {LOCK_NAME}, or run build_addon.py --lock"
    )


# Wheels


def read_lock(path: Path) -> dict[str, str]:
    """Pins by file name, from lines as sha256sum writes them; every platform must have each package for each Python."""
    if not path.is_file():
        raise BuildError(
            f"{path} is missing, so no wheel can be trusted: restore it from version control, or run build_addon.py --lock"
        )
    pins = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9_.+-]+\.whl)", line)
        if not match:
            raise BuildError(
                f"{path}, line {number}: {line!r} is not a SHA-256, two spaces and the name of a wheel; restore the file, or run build_addon.py --lock"
            )
        pins[match[2]] = match[1]
    for platform in PLATFORMS:
        for package, version in PACKAGES.items():
            found = [
                name for name in pins if name.startswith(f"{package}-{version}-") and platform in platforms_of(name)
            ]
            if len(found) != len(PYTHONS):
                raise BuildError(
                    f"{path} has {len(found)} wheels of {package} {version} for {platform} and needs {len(PYTHONS)}, for Python {' and '.join(PYTHONS)}: run build_addon.py --lock"
                )
    return pins


def download(folder: Path, platforms: list[str]) -> None:
    """Let pip put the wheels of some platforms into a folder."""
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
                    f"pip could not download the wheels for {platform}, Python {python}: {reason}. Look at the network, or put the files that {LOCK_NAME} names into {folder}"
                )


def write_lock(path: Path, cache: Path) -> int:
    """Pin what the package index gives today. A fresh folder, so that nothing tampered with in the cache is pinned."""
    with tempfile.TemporaryDirectory() as fresh:
        download(Path(fresh), list(PLATFORMS))
        wheels = sorted(Path(fresh).glob("*.whl"))
        path.write_text("".join(f"{sha256(wheel)}  {wheel.name}\n" for wheel in wheels), encoding="utf-8")
        cache.mkdir(parents=True, exist_ok=True)
        for wheel in wheels:
            shutil.copyfile(wheel, cache / wheel.name)
    return len(read_lock(path))


def fetch_wheels(pins: dict[str, str], cache: Path) -> dict[str, bytes]:
    """Every pinned wheel by name, downloaded where the cache lacks it and refused where its bytes are not the pinned ones."""
    absent = [name for name in pins if not (cache / name).is_file()]
    if absent:
        download(cache, [platform for platform in PLATFORMS if any(platform in platforms_of(name) for name in absent)])
    wheels = {}
    for name, pin in sorted(pins.items()):
        path = cache / name
        if not path.is_file():
            raise BuildError(
                f"{name} is pinned, but the package index offers other files for {', '.join(sorted(platforms_of(name)))}: run build_addon.py --lock, and look at what changed"
            )
        wheels[name] = path.read_bytes()
        found = hashlib.sha256(wheels[name]).hexdigest()
        if found != pin:
            raise BuildError(
                f"{path} has SHA-256 {found}, but {LOCK_NAME} pins {pin}: nothing was built. Delete the file and build again; if the new download differs too, do not trust it"
            )
    return wheels


# The add-on


def wanted(path: Path) -> bool:
    """Whether a file of the source folders belongs in the zip: no caches, no tests, no editor's leavings."""
    return not any(
        part.startswith(".") or part in ("__pycache__", "tests") for part in path.parts
    ) and not path.name.endswith((".pyc", ".pyo", ".orig", "~"))


def source_files(root: Path) -> dict[str, bytes]:
    """The add-on, shared/ and the licence, by their path in the add-on's folder."""
    for needed in ("blender_addon/__init__.py", "blender_addon/blender_manifest.toml", "shared/__init__.py", "LICENSE"):
        if not (root / needed).is_file():
            raise BuildError(
                f"{root / needed} is missing: run build_addon.py in a whole checkout, or name one with --root"
            )
    files = {"LICENSE": (root / "LICENSE").read_bytes()}
    for folder, prefix in ((root / "blender_addon", ""), (root / "shared", "shared/")):
        for path in folder.rglob("*"):
            inside = path.relative_to(folder)
            if not path.is_file() or not wanted(inside) or (prefix and path.suffix != ".py"):
                continue
            if not prefix and inside.parts[0] in ("shared", "wheels"):
                continue  # a link for development: these two come from the checkout and from the pins
            files[prefix + inside.as_posix()] = path.read_bytes()
    return files


def assigned(source: bytes, name: str, where: str) -> object:
    """Value of a module's constant, read without running the module, which would need Blender."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                break
    raise BuildError(
        f"{where} has no line `{name} = ` with plain values: Blender and this build read it without running the file"
    )


def manifest_text(source: str, wheels: list[str], platform: str = "") -> str:
    """The manifest with its wheels, and with its platform where the zip is for one."""
    lines = [f'platforms = ["{platform}"]'] if platform else []
    lines += ["wheels = [", *(f'    "./wheels/{name}",' for name in wheels), "]"]
    text, count = MARKER.subn("\n".join(lines), source)
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"blender_manifest.toml cannot be read with its wheels in place: {error}") from error
    if count != 1 or len(read.get("wheels", ())) != len(wheels):
        raise BuildError(
            f"blender_manifest.toml has {count} lines `wheels = []` that count; it needs exactly one, above the first [table], for the build to fill in"
        )
    return text


def check_version(files: dict[str, bytes]) -> dict[str, object]:
    """The manifest, once it, bl_info and shared agree on the version."""
    try:
        manifest = tomllib.loads(files["blender_manifest.toml"].decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"blender_manifest.toml cannot be read: {error}") from error
    bl_info = assigned(files["__init__.py"], "bl_info", "blender_addon/__init__.py")
    legacy = (
        ".".join(str(part) for part in bl_info["version"])
        if isinstance(bl_info, dict) and "version" in bl_info
        else "none"
    )
    protocol = assigned(files["shared/__init__.py"], "__version__", "shared/__init__.py")
    if not manifest.get("version") == legacy == protocol:
        raise BuildError(
            f"versions differ: blender_manifest.toml {manifest.get('version')}, bl_info {legacy}, shared.__version__ {protocol}; make them the same"
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(manifest.get("id"))):
        raise BuildError(
            f"blender_manifest.toml: id {manifest.get('id')!r} must be lower-case letters, digits and underscores, as it names the folder"
        )
    return manifest


def write_zip(path: Path, folder: str, files: dict[str, bytes]) -> None:
    """A zip whose bytes depend on the files alone: sorted, undated, and stored, since zlib's output varies by machine."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{folder}/{name}", FIXED_TIME)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])


def write_zips(root: Path, wheels: dict[str, bytes], out: Path) -> tuple[Path, list[Path]]:
    """The universal zip, and the zips of the published platforms."""
    files = source_files(root)
    manifest = check_version(files)
    template = files["blender_manifest.toml"].decode()
    folder, version = str(manifest["id"]), str(manifest["version"])

    def write(platform: str = "") -> Path:
        own = {name: data for name, data in wheels.items() if not platform or platform in platforms_of(name)}
        content = {**files, **{f"wheels/{name}": data for name, data in own.items()}}
        content["blender_manifest.toml"] = manifest_text(template, list(own), platform).encode()
        path = out / f"{folder}-{version}{'-' if platform else ''}{platform}.zip"
        write_zip(path, folder, content)
        return path

    return write(), [write(platform) for platform in PUBLISHED]


# Blender's own tool


def blender_tool() -> Path | None:
    """Blender's extension tool, a plain Python program inside the bpy wheel; bpy itself is not loaded."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py"), None)


def run_tool(tool: Path, *arguments: str) -> None:
    """Run one command of Blender's tool; its complaint becomes ours."""
    done = subprocess.run([sys.executable, "-B", str(tool), *arguments], capture_output=True, text=True)
    if done.returncode or re.search(r"^(WARN|ERROR|FATAL_ERROR)", done.stdout, re.MULTILINE):
        raise BuildError(
            f"Blender's extension tool refused `{' '.join(arguments)}`: {(done.stdout + done.stderr).strip()}"
        )


def write_repository(tool: Path, folder: Path, zips: list[Path]) -> None:
    """A static repository: Blender's index of the zips, in a fixed order, and a page to drag from."""
    folder.mkdir()
    for path in zips:
        shutil.copyfile(path, folder / path.name)
    run_tool(tool, "server-generate", f"--repo-dir={folder}")
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    index["data"].sort(key=lambda entry: entry["archive_url"])
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    links = []
    for entry in index["data"]:
        # Blender reads these when the link is dropped on its window.
        query = {"repository": "./index.json", "blender_version_min": entry["blender_version_min"]}
        query |= {key: ",".join(entry[key]) for key in ("platforms", "python_versions")}
        link = html.escape(f"{entry['archive_url']}?{urllib.parse.urlencode(query)}")
        links.append(
            f'<li><a href="{link}">{PUBLISHED[entry["platforms"][0]]}</a>, {entry["archive_size"] / 1e6:.1f} MB</li>'
        )
    first = {key: html.escape(str(index["data"][0][key])) for key in ("name", "version", "tagline")}
    oldest = index["data"][0]["blender_version_min"].rsplit(".", 1)[0]
    (folder / "index.html").write_text(PAGE.format(**first, oldest=oldest, links="\n".join(links)), encoding="utf-8")


def build(root: Path, out: Path, cache: Path) -> tuple[list[Path], bool]:
    """Build everything into `out`; the zips, and whether Blender's tool validated them. On an error `out` stays as it was."""
    wheels = fetch_wheels(read_lock(root / LOCK_NAME), cache)
    tool = blender_tool()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as name:
        fresh = Path(name)
        universal, separate = write_zips(root, wheels, fresh)
        if tool:
            for path in (universal, *separate):
                run_tool(tool, "validate", str(path))
            write_repository(tool, fresh / "repository", separate)
        # An index without its zips, or one of an older build, would be served as true: the folder is replaced whole.
        shutil.rmtree(out / "repository", ignore_errors=True)
        for path in sorted(fresh.iterdir()):
            path.replace(out / path.name)
    return [out / path.name for path in (universal, *separate)], tool is not None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="build_addon.py", description="Build the Blender add-on's zips and a repository folder to host them."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("dist"),
        help="folder for the zips; its repository/ is replaced (default: dist)",
    )
    parser.add_argument("--wheels", type=Path, help="cache of downloaded wheels (default: .wheels beside the sources)")
    parser.add_argument(
        "--root",
        type=Path,
        default=ROOT,
        help=f"checkout with blender_addon/, shared/, LICENSE and {LOCK_NAME} (default: this one)",
    )
    parser.add_argument(
        "--lock", action="store_true", help=f"download the wheels anew and write {LOCK_NAME}; builds nothing"
    )
    options = parser.parse_args(arguments)
    cache = options.wheels or options.root / ".wheels"
    try:
        if options.lock:
            print(f"{options.root / LOCK_NAME}: {write_lock(options.root / LOCK_NAME, cache)} wheels pinned")
            return 0
        zips, validated = build(options.root, options.out, cache)
    except (BuildError, OSError) as error:
        print(f"build_addon.py: {error}", file=sys.stderr)
        return 1
    for path in zips:
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    if validated:
        print(f"{options.out / 'repository'}  validated and indexed by Blender's own tool")
    else:
        print(
            "Not validated, and no repository/ made: Blender is not in this Python. For both: pip install bpy==4.5.15, then build again"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
