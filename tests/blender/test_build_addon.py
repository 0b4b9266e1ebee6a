# SPDX-License-Identifier: GPL-3.0-or-later
"""The build keeps its promises: pinned wheels, the same bytes each time, what Blender accepts and nothing else."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import build_addon
from tests.testing.blenders import ROOT
from tests.testing.built_addon import Built, build_into
from tools.addon_build import archive, repository, wheels
from tools.addon_build.wheels import PACKAGES, PLATFORMS, PUBLISHED, BuildError

CACHE = ROOT / ".wheels"
TOOL = repository.blender_tool()
needs_tool = pytest.mark.skipif(TOOL is None, reason="Blender's extension tool is not here; pip install bpy==4.5.15")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, to spoil."""
    place = tmp_path / "checkout"
    for folder in ("blender_addon", "shared"):
        shutil.copytree(ROOT / folder, place / folder)
    for name in ("LICENSE", wheels.LOCK_NAME):
        shutil.copy(ROOT / name, place / name)
    return place


def names_in(path: Path) -> list[str]:
    """Names of a zip's files."""
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def content_of(path: Path, name: str) -> bytes:
    """One file of a zip, of those in the add-on's folder."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"dreamwright/{name}")


def wheels_in(path: Path) -> list[str]:
    """Names of the wheels in a zip."""
    return [name.rsplit("/", 1)[1] for name in names_in(path) if name.endswith(".whl")]


def replace_in(path: Path, old: str, new: str) -> None:
    """Change a source file, and be sure that it changed."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_build_is_reproducible(built: Built, checkout: Path, tmp_path: Path) -> None:
    for path in sorted(checkout.rglob("*.py"), reverse=True):
        path.touch()  # another date, another order on the disk
    again = build_into(tmp_path / "dist", checkout)
    files = [path.relative_to(built.out) for path in built.out.rglob("*") if path.is_file()]
    assert len(files) == 6 + (7 if built.validated else 0)
    for name in files:
        assert (built.out / name).read_bytes() == (again.out / name).read_bytes(), name


def test_wheels_have_the_pinned_hashes(built: Built) -> None:
    pins = wheels.read_lock(ROOT / wheels.LOCK_NAME)
    assert sorted(wheels_in(built.universal)) == sorted(pins) and len(pins) == 24
    for path in (built.universal, *built.separate.values()):
        for name in wheels_in(path):
            assert hashlib.sha256(content_of(path, f"wheels/{name}")).hexdigest() == pins[name]


@pytest.mark.usefixtures("built")  # which fills the cache
def test_changed_wheel_is_refused(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "dist"
    shutil.copytree(CACHE, cache)
    changed = sorted(cache.glob("pyzmq-*.whl"))[3]
    data = bytearray(changed.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    with pytest.raises(BuildError, match="pins .*: nothing was built. Delete the file") as error:
        build_into(out, cache=cache)
    assert changed.name in str(error.value)
    assert not out.exists()


@pytest.mark.usefixtures("built")
def test_missing_wheel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded: list[str] = []
    cache = tmp_path / "cache"
    shutil.copytree(CACHE, cache)
    missing = next(cache.glob("msgpack-*-win_arm64.whl"))
    missing.unlink()
    monkeypatch.setattr(wheels, "download", lambda folder, platforms: downloaded.extend(platforms))
    with pytest.raises(BuildError, match="is pinned, but the package index has other files for windows-arm64"):
        build_into(tmp_path / "dist", cache=cache)
    assert downloaded == ["windows-arm64"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            f"pyzmq-{PACKAGES['pyzmq']}-cp311-cp311-win_arm64",
            "pyzmq-1.0.0-cp311-cp311-win_arm64",
            "has 1 wheels of pyzmq .* for windows-arm64 and needs 2",
        ),
        ("-win_arm64", "-emscripten_wasm32", "no platform of Blender"),
        ("  pyzmq", " pyzmq", "line 15: .* is not a SHA-256, two spaces"),
        ("  pyzmq", "  ../pyzmq", "is not a SHA-256, two spaces"),
    ],
)
def test_damaged_lock_is_refused(checkout: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    replace_in(checkout / wheels.LOCK_NAME, old, new)
    with pytest.raises(BuildError, match=message):
        build_into(tmp_path / "dist", checkout)


def test_platform_zips_contain_their_own_wheels(built: Built) -> None:
    for platform, path in built.separate.items():
        manifest = tomllib.loads(content_of(path, "blender_manifest.toml").decode())
        assert path.name == f"dreamwright-{manifest['version']}-{platform}.zip"
        assert manifest["platforms"] == [platform]
        assert manifest["wheels"] == [f"./wheels/{name}" for name in wheels_in(path)]
        assert len(manifest["wheels"]) == 6
    universal = tomllib.loads(content_of(built.universal, "blender_manifest.toml").decode())
    assert "platforms" not in universal
    assert universal["wheels"] == [f"./wheels/{name}" for name in wheels_in(built.universal)]


def tool_module() -> ModuleType:
    """Blender's tool, imported."""
    spec = importlib.util.spec_from_file_location("blender_ext", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_tool
def test_wheel_platforms_match_blenders_filter(built: Built) -> None:
    tool = tool_module()
    names = wheels_in(built.universal)
    for platform in PLATFORMS:
        assert tool.paths_filter_wheels_by_platform(names, platform) == [
            name for name in names if platform in wheels.platforms_of(name)
        ]


@needs_tool
def test_blenders_tool_accepts_all_zips(built: Built) -> None:
    assert built.validated and TOOL is not None
    for path in (built.universal, *built.separate.values()):
        repository.run_tool(TOOL, "validate", str(path))


@needs_tool
def test_nothing_is_built_when_blenders_tool_refuses(checkout: Path, tmp_path: Path) -> None:
    replace_in(checkout / "blender_addon" / "blender_manifest.toml", 'tagline = "', 'tagline = "Ends with a stop. ')
    replace_in(checkout / "blender_addon" / "blender_manifest.toml", 'type = "add-on"', 'type = "plugin"')
    out = tmp_path / "dist"
    with pytest.raises(BuildError, match="Blender's extension tool refused"):
        build_into(out, checkout)
    assert not list(out.iterdir())


@needs_tool
def test_repository_index_has_sizes_and_hashes(built: Built) -> None:
    repository = built.out / "repository"
    index = json.loads((repository / "index.json").read_text())
    entries = {entry["platforms"][0]: entry for entry in index["data"]}
    assert list(entries) == sorted(PUBLISHED)
    page = (repository / "index.html").read_text()
    for platform, entry in entries.items():
        data = (repository / built.separate[platform].name).read_bytes()
        assert data == built.separate[platform].read_bytes()
        assert entry["archive_url"] == f"./{built.separate[platform].name}"
        assert entry["archive_size"] == len(data)
        assert entry["archive_hash"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert entry["python_versions"] == ["3.11", "3.13"]
        assert f'href="{entry["archive_url"]}?repository=' in page
    assert {path.name for path in repository.iterdir()} == {
        "index.json",
        "index.html",
        *(path.name for path in built.separate.values()),
    }


def test_caches_tests_and_backups_are_excluded(built: Built, checkout: Path, tmp_path: Path) -> None:
    for folder in ("blender_addon", "shared"):
        for junk in ("__pycache__/a.cpython-311.pyc", "tests/test_a.py", ".editor/a.py", ".env", "a.py~", "a.py.orig"):
            path = checkout / folder / junk
            path.parent.mkdir(exist_ok=True)
            path.write_text("junk")
    (checkout / "shared" / "notes.md").write_text("junk")
    link = checkout / "blender_addon" / "shared"  # for development
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
        link.symlink_to(checkout / "shared")
    assert names_in(build_into(tmp_path / "dist", checkout).universal) == names_in(built.universal)


def test_zip_has_one_top_level_folder(built: Built) -> None:
    for path in (built.universal, *built.separate.values()):
        names = names_in(path)
        assert {name.split("/")[0] for name in names} == {"dreamwright"}
        assert {"dreamwright/LICENSE", "dreamwright/__init__.py", "dreamwright/shared/__init__.py"} <= set(names)
        assert not any("backend" in name.split("/") for name in names)


def test_addon_imports_only_its_dependencies(built: Built) -> None:
    allowed = {
        *sys.stdlib_module_names,
        "bpy",
        "bpy_extras",
        "bl_operators",
        "bl_ui",
        "addon_utils",
        "mathutils",
        "gpu",
        "gpu_extras",
        "blf",
        "numpy",
        "zmq",
        "msgpack",
        "bmesh",
        "dns",
        "ifaddr",
    }
    for name in names_in(built.universal):
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(content_of(built.universal, name.removeprefix("dreamwright/")))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            assert {module.split(".")[0] for module in modules} <= allowed, (
                f"{name} imports {modules}; write `from .` for what is in the zip"
            )


@pytest.mark.parametrize("damaged", ["shared/__init__.py", "blender_addon/blender_manifest.toml"])
def test_different_versions_are_refused(checkout: Path, tmp_path: Path, damaged: str) -> None:
    version = archive.check_version(archive.source_files(ROOT))["version"]
    replace_in(
        checkout / damaged,
        f'version{"__" if "shared" in damaged else ""} = "{version}"',
        f'version{"__" if "shared" in damaged else ""} = "9.9.9"',
    )
    with pytest.raises(BuildError, match="versions differ: .*9.9.9.*make them equal"):
        build_into(tmp_path / "dist", checkout)


@pytest.mark.parametrize("marker", ["", 'wheels = []\nplatforms = "all"', "[build]\nwheels = []"])
def test_manifest_without_wheels_line_is_refused(checkout: Path, tmp_path: Path, marker: str) -> None:
    replace_in(checkout / "blender_addon" / "blender_manifest.toml", "wheels = []", marker)
    with pytest.raises(BuildError, match="blender_manifest.toml"):
        build_into(tmp_path / "dist", checkout)


def test_build_without_blender_skips_validation(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build_addon, "blender_tool", lambda: None)
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "index.json").write_text("of an older build")
    assert build_addon.main(["--root", str(ROOT), "--wheels", str(CACHE), "--out", str(tmp_path)]) == 0
    assert "Not validated, and without repository/" in capsys.readouterr().out
    assert not (tmp_path / "repository").exists()
    for path in (built.universal, *built.separate.values()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("built")
def test_incomplete_checkout_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / wheels.LOCK_NAME, tmp_path)
    assert build_addon.main(["--root", str(tmp_path), "--wheels", str(CACHE), "--out", str(tmp_path / "dist")]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "is missing: run build_addon.py in a complete checkout" in message
