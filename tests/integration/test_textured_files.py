# SPDX-License-Identifier: GPL-3.0-or-later
"""Textured files are valid and load with the right orientation in other programs."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dreamwright.backend.errors import ExportError
from dreamwright.backend.geometry.build import Mesh, MeshReport
from dreamwright.backend.geometry.color import linear_to_display
from dreamwright.backend.io.gltf_writer import ROUGHNESS, to_y_up
from dreamwright.backend.io.mesh_export import check_output_path, export_mesh
from tests.testing.analytic_fields import foot_on_torus
from tests.testing.exported_files import PROVENANCE, glb_json, glb_part, khronos_report
from tests.testing.textured_meshes import SIZE, flag_mesh


@pytest.fixture(scope="module")
def mesh(textured_torus: tuple[Mesh, MeshReport]) -> Mesh:
    return textured_torus[0]


def color_at(points: np.ndarray, report: MeshReport) -> np.ndarray:
    """The field's color at points of the mesh, Z up, in metres."""
    return foot_on_torus(torch.from_numpy((points - np.array(report.offset)) / report.scale)).numpy() + 0.5


@pytest.fixture(scope="module")
def files(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("textured")
    return {suffix: export_mesh(mesh, folder / f"a prop{suffix}", PROVENANCE) for suffix in (".glb", ".obj")}


def test_textured_glb_passes_the_khronos_validator(mesh: Mesh, files: dict[str, Path]) -> None:
    report = khronos_report(files[".glb"])
    assert report["issues"]["messages"] == [], report["issues"]
    assert report["info"]["totalTriangleCount"] == len(mesh.faces)
    (image,) = [one["image"] for one in report["info"]["resources"] if "image" in one]
    assert (image["width"], image["height"], image["format"], image["bits"]) == (SIZE, SIZE, "rgb", 8)


def test_textured_glb_has_no_vertex_colors(mesh: Mesh, files: dict[str, Path]) -> None:
    """glTF multiplies COLOR_0 into the texture."""
    document = glb_json(files[".glb"])
    (material,), (primitive,) = document["materials"], document["meshes"][0]["primitives"]
    surface = material["pbrMetallicRoughness"]
    assert primitive["attributes"].keys() == {"POSITION", "NORMAL", "TEXCOORD_0"}
    assert surface["baseColorTexture"] == {"index": 0} and surface["baseColorFactor"] == [1, 1, 1, 1]
    assert (surface["metallicFactor"], surface["roughnessFactor"]) == (
        0,
        ROUGHNESS,
    ) and "metallicRoughnessTexture" not in surface
    with Image.open(io.BytesIO(glb_part(files[".glb"], document["images"][0]["bufferView"]))) as image:
        assert np.array_equal(np.asarray(image), mesh.texture.image), "display sRGB without conversion"


def test_only_seams_split_vertices(mesh: Mesh, files: dict[str, Path]) -> None:
    (loaded,) = trimesh.load(files[".glb"], process=False).geometry.values()
    assert len(loaded.vertices) > len(mesh.vertices) and len(loaded.faces) == len(mesh.faces)
    assert np.array_equal(loaded.vertices[loaded.faces].astype(np.float32), to_y_up(mesh.vertices)[mesh.faces])
    assert np.abs(loaded.vertex_normals[loaded.faces] - to_y_up(mesh.normals)[mesh.faces]).max() < 1e-5, (  # float32
        "normals are smooth across seams"
    )
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    assert loaded.is_watertight


def test_v_direction_by_hand(tmp_path: Path) -> None:
    glb, obj = export_mesh(flag_mesh(), tmp_path / "flag.glb", {}), export_mesh(flag_mesh(), tmp_path / "flag.obj", {})
    accessor = glb_json(glb)["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]
    uv = np.frombuffer(glb_part(glb, glb_json(glb)["accessors"][accessor]["bufferView"]), "<f4").reshape(-1, 2)
    assert uv.tolist() == [[0, 1], [1, 1], [1, 0], [0, 0]]
    rows = obj.read_text().splitlines()
    assert [row for row in rows if row.startswith("vt ")] == ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    assert [row for row in rows if row.startswith("f ")] == ["f 1/1/1 2/2/2 3/3/3", "f 1/1/1 3/3/3 4/4/4"]
    with Image.open(tmp_path / "flag_albedo.png") as image:
        assert [image.getpixel(at) for at in ((0, 0), (63, 0), (0, 63), (63, 63))] == [
            (255, 0, 0),
            (0, 255, 0),
            (0, 0, 255),
            (255, 255, 255),
        ]


def looked_up(image: Image.Image, uv: np.ndarray) -> np.ndarray:
    """Nearest texels of an image at UVs with v from the bottom, as in trimesh."""
    pixels = np.asarray(image.convert("RGB"), np.float64) / 255.0
    column, row = (uv * [1, -1] + [0, 1]).clip(0, 0.999999).T
    return pixels[(row * len(pixels)).astype(int), (column * len(pixels)).astype(int)]


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_trimesh_reads_the_texture_colors(
    textured_torus: tuple[Mesh, MeshReport], files: dict[str, Path], suffix: str
) -> None:
    """At each vertex of the loaded file, to 0.03 of 1: a texel of the 0.84 wide prop is 0.01."""
    loaded = trimesh.load(files[suffix], process=False, force="mesh")
    material = loaded.visual.material
    image = material.baseColorTexture if suffix == ".glb" else material.image
    shown = looked_up(image, np.asarray(loaded.visual.uv))
    points = loaded.vertices if suffix == ".obj" else loaded.vertices[:, [0, 2, 1]] * [1, -1, 1]
    # The color is the position, the nearest texel is up to sqrt(2) / 2 of 0.01 away, and chords of 800 faces cut 0.01;
    # twice their sum.
    assert np.abs(shown - color_at(np.asarray(points), textured_torus[1])).max() < 0.03
    assert len(loaded.faces) == len(textured_torus[0].faces)


def test_textured_obj_names_its_sidecars(
    files: dict[str, Path],
) -> None:
    rows = [row.split() for row in files[".obj"].read_text(encoding="utf-8").splitlines()]
    assert ["mtllib", "a%20prop.mtl"] in rows and ["usemtl", "albedo"] in rows
    assert {len(row) for row in rows if row[0] == "v"} == {4}
    material = (files[".obj"].parent / "a%20prop.mtl").read_text().splitlines()
    assert {"newmtl albedo", "Kd 1 1 1", "Ks 0 0 0", f"Pr {ROUGHNESS}", "Pm 0", "map_Kd a%20prop_albedo.png"} <= set(
        material
    )


def test_ply_with_texture_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"\.ply files hold colors of vertices.*\.glb and \.obj"):
        check_output_path(tmp_path / "prop.ply", textured=True)
    with pytest.raises(ExportError, match="no texture"):
        export_mesh(mesh, tmp_path / "prop.ply", {})
    assert list(tmp_path.iterdir()) == []
    assert export_mesh(dataclasses.replace(mesh, texture=None), tmp_path / "prop.ply", {}).is_file()


BLENDER_SCRIPT = """
import bpy, json, sys
textured, plain, folder = sys.argv[1:4]
def texture_of(path, name):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path)
    (thing,) = bpy.data.objects
    scene = bpy.context.scene
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location, camera.rotation_euler = (0.7, -1.5, 1.2), (1.0, 0, 0.44)
    camera.data.lens = 40
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.world = bpy.data.worlds.new("white")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 16, False
    scene.render.resolution_x = scene.render.resolution_y = 64
    scene.view_settings.view_transform = "Standard"
    scene.render.filepath = folder + "/" + name
    bpy.ops.render.render(write_still=True)
    return thing
thing = texture_of(plain, "plain.png")
thing = texture_of(textured, "textured.png")
node = next(n for n in thing.data.materials[0].node_tree.nodes if n.type == "BSDF_PRINCIPLED")
source = node.inputs["Base Color"].links[0].from_node
layer = thing.data.uv_layers.active
print("REPORT" + json.dumps({
    "source": source.bl_idname,
    "image": [*source.image.size, source.image.colorspace_settings.name, source.image.packed_file is not None],
    "metallic": node.inputs["Metallic"].default_value, "roughness": node.inputs["Roughness"].default_value,
    "layers": len(thing.data.uv_layers), "colors": len(thing.data.color_attributes), "faces": len(thing.data.polygons),
    "corners": [[list(thing.matrix_world @ thing.data.vertices[l.vertex_index].co), list(p.uv)]
                for l, p in zip(thing.data.loops, layer.data)],
    "pixels": source.image.pixels[:]}))
"""


@pytest.mark.slow
def test_blender_renders_the_texture_as_vertex_colors(
    textured_torus: tuple[Mesh, MeshReport], files: dict[str, Path], tmp_path: Path
) -> None:
    mesh = textured_torus[0]
    if find_spec("bpy") is None:
        pytest.skip("bpy is not installed (pip install dreamwright[blender]): Blender's importer was not tried")
    plain = export_mesh(dataclasses.replace(mesh, texture=None), tmp_path / "plain.glb", {})
    command = [sys.executable, "-c", BLENDER_SCRIPT, str(files[".glb"]), str(plain), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT")]
    assert lines, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads(lines[0].removeprefix("REPORT"))
    assert report["source"] == "ShaderNodeTexImage" and report["image"] == [SIZE, SIZE, "sRGB", True]
    assert report["metallic"] == 0 and report["roughness"] == pytest.approx(ROUGHNESS)
    assert (report["layers"], report["colors"], report["faces"]) == (1, 0, len(mesh.faces))
    # Blender samples with v from the bottom, so each corner has its position as color, as in the test with trimesh.
    pixels = np.array(report["pixels"]).reshape(SIZE, SIZE, 4)[..., :3]
    points, uv = (np.array([corner[part] for corner in report["corners"]]) for part in (0, 1))
    column, row = (uv.clip(0, 0.999999) * SIZE).astype(int).T
    assert np.abs(pixels[row, column] - color_at(points, textured_torus[1])).max() < 0.03  # as there
    seen = [
        np.asarray(Image.open(tmp_path / name).convert("RGB"), np.float64) / 255
        for name in ("textured.png", "plain.png")
    ]
    print(
        f"mean difference of the two renders {np.abs(seen[0] - seen[1]).mean():.4f}, "
        f"largest {np.abs(seen[0] - seen[1]).max():.3f}"
    )
    # Two renders with 16 samples of the same random numbers differ by the albedo alone: its error above has a mean of a
    # third, 0.01.
    assert seen[0].std() > 0.1 and np.abs(seen[0] - seen[1]).mean() < 0.01, "both are equal for a smooth albedo"


def test_flag_texture_orientation() -> None:
    texture = flag_mesh().texture
    shown = linear_to_display(texture.linear_at(np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])))
    # float64: the sRGB curve there and back, a few roundings of 1.1e-16 times its slope of 13.
    assert np.abs(shown - [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]).max() < 1e-13
