# SPDX-License-Identifier: GPL-3.0-or-later
"""The zips of the add-on: source files, manifest, version check, and reproducible archives."""

from __future__ import annotations

import ast
import re
import tomllib
import zipfile
from pathlib import Path

from .wheels import PUBLISHED, BuildError, platforms_of

MARKER = re.compile(r"^wheels = \[\]$", re.MULTILINE)
FIXED_TIME = (1980, 1, 1, 0, 0, 0)


def wanted(path: Path) -> bool:
    """Whether a file of the source folders belongs in the zip: no caches, tests or backup files."""
    return not any(
        part.startswith(".") or part in ("__pycache__", "tests") for part in path.parts
    ) and not path.name.endswith((".pyc", ".pyo", ".orig", "~"))


def source_files(root: Path) -> dict[str, bytes]:
    """The add-on, shared/ and the license, by path in the add-on's folder."""
    for needed in ("blender_addon/__init__.py", "blender_addon/blender_manifest.toml", "shared/__init__.py", "LICENSE"):
        if not (root / needed).is_file():
            raise BuildError(
                f"{root / needed} is missing: run build_addon.py in a complete checkout, or name one with --root"
            )
    files = {"LICENSE": (root / "LICENSE").read_bytes()}
    for folder, prefix in ((root / "blender_addon", ""), (root / "shared", "shared/")):
        for path in folder.rglob("*"):
            inside = path.relative_to(folder)
            if not path.is_file() or not wanted(inside) or (prefix and path.suffix != ".py"):
                continue
            if not prefix and inside.parts[0] in ("shared", "wheels"):
                continue  # links for development: shared/ comes from the checkout, the wheels from the cache
            files[prefix + inside.as_posix()] = path.read_bytes()
    return files


def assigned(source: bytes, name: str, where: str) -> object:
    """A constant of a module, read without executing the module, which needs Blender."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                break
    raise BuildError(
        f"{where} has no line `{name} = ` with literal values, which Blender and this build read without executing it"
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
            f"blender_manifest.toml has {count} lines `wheels = []`; the build needs exactly one, above the first "
            "[table], to fill in"
        )
    return text


def check_version(files: dict[str, bytes]) -> dict[str, object]:
    """The manifest. Raises BuildError unless manifest, bl_info and shared have the same version."""
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
            f"versions differ: blender_manifest.toml {manifest.get('version')}, bl_info {legacy}, shared.__version__ "
            f"{protocol}; make them equal"
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(manifest.get("id"))):
        raise BuildError(
            f"blender_manifest.toml: id {manifest.get('id')!r} must be lower-case letters, digits and underscores, "
            "since it names the folder"
        )
    return manifest


def write_zip(path: Path, folder: str, files: dict[str, bytes]) -> None:
    """A reproducible zip: sorted, with a fixed date, and uncompressed, since zlib's output varies by version."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{folder}/{name}", FIXED_TIME)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])


def write_zips(root: Path, wheels: dict[str, bytes], out: Path) -> tuple[Path, list[Path]]:
    """Write the universal zip and those of the published platforms."""
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
