# SPDX-License-Identifier: GPL-3.0-or-later
"""Output paths are checked before a run, and the sidecar files of a textured OBJ never replace other files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dreamwright.backend.errors import ExportError
from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.geometry.texture import Texture
from dreamwright.backend.geometry.unwrap import Unwrapping
from dreamwright.backend.io.mesh_export import check_output_path, export_mesh
from dreamwright.backend.io.mesh_reader import read_input_mesh
from dreamwright.backend.io.obj_writer import sidecar_names
from dreamwright.backend.io.output_files import check_folder_writable, check_writable, write_output


def flag(shade: int) -> Mesh:
    """Two triangles with a plain texture."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    uv = np.array([[0.1, 0.9], [0.9, 0.9], [0.9, 0.1], [0.1, 0.1]], np.float32)
    texture = Texture(np.full((8, 8, 3), shade, np.uint8), Unwrapping(uv, faces, np.arange(4, dtype=np.int32)))
    normals = np.tile(np.array([[0, -1, 0]], np.float32), (4, 1))
    return Mesh(vertices, faces, np.full((4, 3), 0.5, np.float32), normals, texture)


@pytest.mark.parametrize("name", ["m" * 251 + ".glb", "红蘑菇" * 27 + ".glb", "é" * 125 + ".glb"])
def test_names_up_to_the_limit_are_written(name: str, tmp_path: Path) -> None:
    assert len(os.fsencode(name)) <= 255
    export_mesh(flag(9), check_output_path(tmp_path / name), {})
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("length", [256, 300, 5000])
@pytest.mark.parametrize("check", [check_writable, check_folder_writable])
def test_longer_names_are_refused_with_their_length_in_bytes(check, length: int, tmp_path: Path) -> None:
    name = "é" * ((length - 4) // 2) + ".glb"
    with pytest.raises(ExportError, match=f"has {length} bytes; allowed are 255|path is too long"):
        check(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_textured_obj_name_leaves_room_for_sidecars(tmp_path: Path) -> None:
    name = "a" * 245 + ".obj"  # 249 bytes, but 256 with _albedo.png
    assert check_output_path(tmp_path / name) == tmp_path / name
    with pytest.raises(ExportError, match="has 256 bytes"):
        check_output_path(tmp_path / name, textured=True)


def test_unwritable_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for check, name, message in (
        (check_writable, "file/x.glb", "no folder"),
        (check_writable, "missing/x.glb", "no folder"),
        (check_writable, ".", "directory"),
        (check_writable, "loop", "loop"),
        (check_writable, "pipe", "regular file"),
        (check_writable, "a\0b", "null"),
        (check_folder_writable, "file", "is a file"),
        (check_folder_writable, "file/sub", "is a file"),
        (check_folder_writable, "loop", "loop"),
    ):
        with pytest.raises(ExportError, match=message) as caught:
            check(tmp_path / name)
        assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert check_folder_writable(tmp_path / "new" / "deeper") and not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only files and folders")
def test_read_only_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file.glb").touch(mode=0o444)
    (tmp_path / "folder").mkdir(mode=0o555)
    for check, name in (
        (check_writable, "file.glb"),
        (check_writable, "folder/x.glb"),
        (check_folder_writable, "folder/work"),
    ):
        with pytest.raises(ExportError, match=r"read-only|takes no files"):
            check(tmp_path / name)


def test_symlink_target_is_checked_and_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "prop.glb"
    link.symlink_to(tmp_path / "there" / "real.glb")
    write_output(check_writable(link), b"mesh")
    assert link.is_symlink() and (tmp_path / "there" / "real.glb").read_bytes() == b"mesh"
    (tmp_path / "bad.glb").symlink_to(tmp_path / "nowhere" / "real.glb")
    with pytest.raises(ExportError, match="no folder"):
        check_writable(tmp_path / "bad.glb")


file_stems = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(file_stems, file_stems, st.sampled_from([".obj", ".OBJ"]), st.sampled_from([".obj", ".OBJ"]))
def test_objs_do_not_share_sidecars(first: str, second: str, one: str, other: str) -> None:
    assume(first + one != second + other)
    # x.OBJ and x.OBJ.obj collide, and only the check of the owner distinguishes them.
    assume(not (first + one == second or second + other == first))
    assert set(sidecar_names(first + one)).isdisjoint(sidecar_names(second + other))
    for name in sidecar_names(first + one):
        assert not any(character.isspace() or character == "#" for character in name)


@pytest.mark.parametrize("names", [("a b.obj", "a_b.obj"), ("a#b.obj", "a%23b.obj"), ("x.obj", "x.OBJ")])
def test_textured_objs_keep_their_own_textures(names: tuple[str, str], tmp_path: Path) -> None:
    for shade, name in zip((40, 200), names, strict=True):
        export_mesh(flag(shade), tmp_path / name, {})
    for shade, name in zip((40, 200), names, strict=True):
        found = read_input_mesh(tmp_path / name)
        # Albedo in float32 (6e-8) and the sRGB curve with a slope of at most 13.
        assert found.notices == () and found.display == pytest.approx(shade / 255, abs=1e-6)
    assert len(list(tmp_path.iterdir())) == 6
    export_mesh(flag(90), tmp_path / names[0], {})  # an OBJ may replace its own sidecars
    # As above.
    assert read_input_mesh(tmp_path / names[0]).display == pytest.approx(90 / 255, abs=1e-6)


@pytest.mark.parametrize("sidecar", ["prop.mtl", "prop_albedo.png"])
@pytest.mark.parametrize("content", [b"", b"newmtl mine\nKd 1 0 0\n", "image"])
def test_sidecar_never_replaces_a_user_file(sidecar: str, content: bytes | str, tmp_path: Path) -> None:
    mine = flag(7).texture.png() if content == "image" else content
    (tmp_path / sidecar).write_bytes(mine)
    for write in (lambda path: check_output_path(path, textured=True), lambda path: export_mesh(flag(7), path, {})):
        with pytest.raises(ExportError, match=f"would replace .*{sidecar}.*another name"):
            write(tmp_path / "prop.obj")
    assert [path.name for path in tmp_path.iterdir()] == [sidecar] and (tmp_path / sidecar).read_bytes() == mine
