# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic writes: a complete new or old file, symlinks followed, permission bits kept, no temporary files left."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from dreamwright.shared.atomic import atomic_path, create_atomically, write_atomically

LONGEST_NAME = 255  # bytes, of Linux, macOS and Windows file systems


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", ["a.txt", "n" * LONGEST_NAME, "名" * 85, ".hidden", "no suffix", "a." + "s" * 200])
def test_writes_and_replaces_any_legal_name(tmp_path: Path, name: str) -> None:
    for data in (b"", b"first", b"second\x00"):
        write_atomically(tmp_path / name, data)
        assert (tmp_path / name).read_bytes() == data
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("is_relative", [True, False])
def test_follows_a_symlink_to_its_target(tmp_path: Path, is_relative: bool) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "mesh.glb", tmp_path / "link.glb"
    link.symlink_to(Path("real/mesh.glb") if is_relative else target)
    write_atomically(link, b"new")  # the target does not exist yet
    write_atomically(link, b"newer")
    assert link.is_symlink() and target.read_bytes() == b"newer"
    assert os.listdir(tmp_path / "real") == ["mesh.glb"] and sorted(os.listdir(tmp_path)) == ["link.glb", "real"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444, 0o755])
def test_keeps_the_mode_of_an_existing_file(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_atomically(path, b"new")
    assert (path.read_bytes(), mode_of(path)) == (b"new", mode)


def test_new_file_mode_follows_argument_or_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "default", b"")
        write_atomically(tmp_path / "private", b"", mode=0o600)
        write_atomically(tmp_path / "shared", b"", mode=0o666)
    finally:
        os.umask(before)
    assert [mode_of(tmp_path / name) for name in ("default", "private", "shared")] == [0o640, 0o600, 0o666]


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.png"
    write_atomically(path, b"old")
    with pytest.raises(RuntimeError, match="encoder"), atomic_path(path) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise RuntimeError("encoder failed")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file.png"]


def test_refuses_special_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("folder", "pipe", "loop", "missing/file", "pipe/file"):
        with pytest.raises(OSError):
            write_atomically(tmp_path / name, b"data")
    assert sorted(os.listdir(tmp_path)) == ["folder", "loop", "pipe"]


def test_create_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    assert create_atomically(path, b"first", 0o600) and not create_atomically(path, b"second", 0o600)
    assert (path.read_bytes(), mode_of(path), os.listdir(tmp_path)) == (b"first", 0o600, ["key.json"])


def test_one_of_concurrent_creators_succeeds(tmp_path: Path) -> None:
    path, won = tmp_path / "key.json", []
    threads = [
        threading.Thread(target=lambda n=n: won.append(n) if create_atomically(path, str(n).encode()) else None)
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes().decode()] == [str(n) for n in won]
