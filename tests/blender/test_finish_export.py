# SPDX-License-Identifier: GPL-3.0-or-later
"""Export to FBX: when it is disabled, what the file holds, that the scene stays as it is, and faults."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

bpy = pytest.importorskip("bpy")

import addon_utils

from tests.testing.addon_driver import AddonDriver, why_not

EXPORT = "dreamwright.export_finished"


def add(collection: Any, name: str, size: float, **properties: int) -> Any:
    """A cube with a texture in the collection."""
    bpy.ops.mesh.primitive_cube_add(size=size, location=(3, 2, 1))
    made = bpy.context.view_layer.objects.active
    made.name = name
    for other in list(made.users_collection):
        other.objects.unlink(made)
    collection.objects.link(made)
    for key, value in properties.items():
        made[f"dreamwright_{key}"] = value
    return made


def finished(name: str = "Mug") -> Any:
    """A collection as the finishing makes it: two levels and two hulls, only the finest visible and active."""
    collection = bpy.data.collections.new(name)
    bpy.context.scene.collection.children.link(collection)
    collection["dreamwright_finished"] = "Mug"
    finest = add(collection, "Mug_LOD0", 2.0, level=0)
    others = [add(collection, "Mug_LOD1", 1.9, level=1)]
    others += [add(collection, f"UCX_Mug_LOD0_{number:02d}", 1.0, hull=number) for number in range(2)]
    for one in others:
        one.hide_set(True)
    bpy.context.view_layer.objects.active = finest
    return collection


def export(path: Path) -> set[str]:
    return set(bpy.ops.dreamwright.export_finished(filepath=str(path)))


def state() -> Any:
    """Everything of the objects that an export could change."""
    bpy.context.view_layer.update()
    return {
        one.name: (
            one.data.name if one.data else "", one.data.users if one.data else 0, tuple(map(tuple, one.matrix_world)),
            one.hide_get(), one.hide_viewport, one.select_get(), [group.name for group in one.users_collection],
        )
        for one in bpy.data.objects
    }, bpy.context.view_layer.objects.active.name, [
        sorted(one.name for one in bpy.data.meshes), sorted((one.name, one.filepath) for one in bpy.data.images)
    ]  # fmt: skip


def content(path: Path) -> dict[str, Any]:
    """The objects of an FBX file, imported into an empty scene of this Blender."""
    scene = bpy.data.scenes.new("Read")
    before, window = set(bpy.data.objects), bpy.context.window_manager.windows[0]
    window.scene = scene
    for one in before:
        one.name = f"before {one.name}"[:60]
    bpy.ops.import_scene.fbx(filepath=str(path))
    bpy.context.view_layer.update()
    return {one.name: one for one in bpy.data.objects if one not in before}


def test_button_is_disabled_with_a_reason(blender: AddonDriver) -> None:
    button = bpy.ops.dreamwright.export_finished
    bpy.ops.mesh.primitive_cube_add()
    assert "Select an object of a finished collection" in why_not(button)
    collection = finished()
    assert button.poll()
    bpy.ops.object.mode_set(mode="EDIT")
    assert "Go to Object Mode first" in why_not(button)
    bpy.ops.object.mode_set(mode="OBJECT")
    addon_utils.disable("io_scene_fbx")
    try:
        assert "FBX exporter is switched off" in why_not(button)
    finally:
        addon_utils.enable("io_scene_fbx")
    for one in [one for one in collection.objects if "LOD0" not in one.name or "UCX" in one.name]:
        bpy.data.objects.remove(one)
    assert button.poll()
    bpy.context.view_layer.active_layer_collection = bpy.context.view_layer.layer_collection.children["Mug"]
    bpy.data.objects.remove(bpy.data.objects["Mug_LOD0"])
    assert "No level of detail is left in the collection “Mug”" in why_not(button)


def test_file_has_levels_in_a_group_and_hulls_at_the_origin(blender: AddonDriver, tmp_path: Path) -> None:
    """The finest level's scale is everybody's; a hidden object and one that was moved are where they belong."""
    collection = finished()
    collection.objects["Mug_LOD0"].scale = (2, 2, 2)
    collection.objects["UCX_Mug_LOD0_01"].location.x += 10
    before = state()
    assert export(tmp_path / "mug") == {"FINISHED"}
    assert state() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mug.fbx"]
    found = content(tmp_path / "mug.fbx")
    assert set(found) == {"Mug", "Mug_LOD0", "Mug_LOD1", "UCX_Mug_LOD0_00", "UCX_Mug_LOD0_01"}
    assert found["Mug"]["fbx_type"] == "LodGroup"
    for name, size in (("Mug_LOD0", 4), ("Mug_LOD1", 3.8), ("UCX_Mug_LOD0_00", 2), ("UCX_Mug_LOD0_01", 2)):
        assert list(found[name].dimensions) == pytest.approx([size] * 3, rel=1e-5)
        assert found[name].matrix_world.translation.length < 1e-5
        assert found[name].parent == (found["Mug"] if "_LOD" in name and "UCX" not in name else None)
        assert [len(face.vertices) for face in found[name].data.polygons] == [4] * 6


def test_names_that_were_taken_are_right_in_the_file(blender: AddonDriver, tmp_path: Path) -> None:
    finished()
    second = finished()
    assert "Mug_LOD0.001" in second.objects
    before = state()
    assert export(tmp_path / "mug.fbx") == {"FINISHED"}
    assert state() == before
    assert set(content(tmp_path / "mug.fbx")) == {
        "Mug", "Mug_LOD0", "Mug_LOD1", "UCX_Mug_LOD0_00", "UCX_Mug_LOD0_01"
    }  # fmt: skip


def test_one_level_has_no_group_and_copies_do_not_count(blender: AddonDriver, tmp_path: Path) -> None:
    collection = finished()
    bpy.data.objects.remove(collection.objects["Mug_LOD1"])
    copy = collection.objects["Mug_LOD0"].copy()
    collection.objects.link(copy)
    copy.modifiers.new("Copy", "SUBSURF")
    assert export(tmp_path / "mug.fbx") == {"FINISHED"}
    found = content(tmp_path / "mug.fbx")
    assert set(found) == {"Mug_LOD0", "UCX_Mug_LOD0_00", "UCX_Mug_LOD0_01"}
    assert len(found["Mug_LOD0"].data.polygons) == 6 and found["Mug_LOD0"].parent is None


def test_size_is_in_meters_in_any_unit(blender: AddonDriver, tmp_path: Path) -> None:
    finished()
    units = bpy.context.scene.unit_settings
    units.system, units.scale_length = "METRIC", 0.01
    assert export(tmp_path / "mug.fbx") == {"FINISHED"}
    found = content(tmp_path / "mug.fbx")
    assert list(found["Mug_LOD0"].dimensions) == pytest.approx([0.02] * 3, rel=1e-5)


def test_faults_are_one_sentence_and_leave_nothing(
    blender: AddonDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished()
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    if os.access(locked, os.W_OK):  # root may write in every folder but the kernel's own
        locked = Path("/proc")
    (tmp_path / "kept.fbx").write_bytes(b"mine")
    before = state()
    for path, said in (
        (locked / "mug.fbx", "mug.fbx” cannot be written: .*; choose another place"),
        (tmp_path / "missing" / "mug.fbx", "mug.fbx” cannot be written: No such file or directory"),
        (tmp_path, "No file is named; give the name of an FBX file"),
        (Path(), "No file is named"),
    ):
        with pytest.raises(RuntimeError, match=said) as caught:
            export(path)
        assert len(str(caught.value).strip().splitlines()) == 1
    writer = blender.module("datablocks.fbx_file")

    def fails(*_: Any) -> None:
        raise RuntimeError("Error: the exporter is broken\nLocation: here")

    monkeypatch.setattr(writer, "write_fbx", fails)
    with pytest.raises(RuntimeError, match="Blender wrote no FBX: the exporter is broken"):
        export(tmp_path / "kept.fbx")
    assert (tmp_path / "kept.fbx").read_bytes() == b"mine" and state() == before
    assert not (tmp_path / "mug.fbx").exists()


@pytest.mark.slow
def test_finished_quads_are_told_and_exported(blender: AddonDriver, tmp_path: Path) -> None:
    """One button after the other: a ball is finished with quads, and its file has them, its maps and its names."""
    from tests.blender.test_finish_operator import ball, wait

    blender.preferences.command = str(Path(sys.executable).with_name("dreamwright"))
    ball()
    bpy.ops.dreamwright.finish_mesh(triangles=400, texture=64, levels=1, layout_kind="even", quads=True)
    said = wait(blender)
    levels = [bpy.data.objects[f"Red_Ball_LOD{number}"] for number in range(2)]
    shares = [sum(len(face.vertices) == 4 for face in one.data.polygons) / len(one.data.polygons) for one in levels]
    assert shares[0] > 0.5  # most pairs of even triangles make good quads
    assert [one["dreamwright_quads"] for one in levels] == shares
    counts = ", ".join(str(len(one.data.polygons)) for one in levels)
    told = ", ".join(f"{100 * share:.0f}" for share in shares)
    assert said.startswith(f"Finished “Red Ball”: levels of {counts} faces, of which {told} % are quads and "), said
    before = state()
    assert export(tmp_path / "ball.fbx") == {"FINISHED"}
    assert state() == before
    found = content(tmp_path / "ball.fbx")
    assert {"Red_Ball", "Red_Ball_LOD0", "Red_Ball_LOD1", "UCX_Red_Ball_LOD0_00"} <= set(found)
    mesh = found["Red_Ball_LOD0"].data
    assert len(mesh.polygons) == len(levels[0].data.polygons)
    (material,) = mesh.materials
    nodes = [node for node in material.node_tree.nodes if node.type == "TEX_IMAGE"]
    names = {node.image.name.partition(".")[0]: node.outputs[0].links[0].to_node.type for node in nodes}
    assert names == {"Red_Ball_LOD0_albedo": "BSDF_PRINCIPLED", "Red_Ball_LOD0_normal": "NORMAL_MAP"}
    assert all(tuple(node.image.size) == (64, 64) for node in nodes)
