# SPDX-License-Identifier: GPL-3.0-or-later
"""Textured files are valid and load with the right orientation in other programs; mesh files with a texture."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import struct
import subprocess
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamwright.backend.config.schema import MeshConfig
from dreamwright.backend.errors import ExportError
from dreamwright.backend.geometry.build import Mesh, MeshReport, build_mesh
from dreamwright.backend.geometry.color import linear_to_display
from dreamwright.backend.geometry.texture import Texture
from dreamwright.backend.geometry.unwrap import Unwrapping
from dreamwright.backend.io.gltf_writer import ROUGHNESS, to_y_up
from dreamwright.backend.io.mesh_export import check_output_path, export_mesh
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.mesh_file import FORMAT, MeshFile, decode_mesh, encode_mesh
from dreamwright.shared.mesh_file import Texture as FileTexture
from dreamwright.shared.png import check_square_png
from tests.testing.analytic_fields import AnalyticField, torus
from tests.unit.test_export import NODE_FOLDER, PROVENANCE, glb_json, unavailable
from tests.unit.test_texture import foot_on_torus

SIZE = 128


@pytest.fixture(scope="module")
def made() -> tuple[Mesh, MeshReport]:
    """A torus whose color at each point is the point's position."""
    field = AnalyticField(torus(0.3, 0.12), lambda mu: (foot_on_torus(mu) + 0.5).clamp(0, 1))
    return build_mesh(field, MeshConfig(resolution=32, triangles=800, height_m=0.3, texture=SIZE))


@pytest.fixture(scope="module")
def mesh(made: tuple[Mesh, MeshReport]) -> Mesh:
    return made[0]


def color_at(points: np.ndarray, report: MeshReport) -> np.ndarray:
    """The field's color at points of the mesh, Z up, in metres."""
    return foot_on_torus(torch.from_numpy((points - np.array(report.offset)) / report.scale)).numpy() + 0.5


@pytest.fixture(scope="module")
def files(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("textured")
    return {suffix: export_mesh(mesh, folder / f"a prop{suffix}", PROVENANCE) for suffix in (".glb", ".obj")}


def flag() -> Mesh:
    """Two triangles in the plane y = 0, seen from the front, with a texture of four quarters: red top left, green top
    right, blue bottom left, white bottom right. By hand: the vertex at the lower left, (-1, 0, 0), has u = 0, v = 1.
    """
    vertices = np.array([[-1, 0, 0], [1, 0, 0], [1, 0, 2], [-1, 0, 2]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32], image[:32, 32:], image[32:, :32], image[32:, 32:] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        255,
    )
    places = Unwrapping(uv, faces, np.arange(4, dtype=np.int32))
    return Mesh(
        vertices,
        faces,
        np.full((4, 3), 0.5, np.float32),
        np.tile(np.float32([0, -1, 0]), (4, 1)),
        Texture(image, places),
    )


def glb_part(path: Path, view: int) -> bytes:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    buffer_view = json.loads(data[20 : 20 + length])["bufferViews"][view]
    return data[28 + length :][buffer_view["byteOffset"] : buffer_view["byteOffset"] + buffer_view["byteLength"]]


def test_textured_glb_passes_the_khronos_validator(mesh: Mesh, files: dict[str, Path]) -> None:
    node = shutil.which("node")
    if node is None:
        unavailable("node is not installed; the Khronos validator needs it")
    if not (NODE_FOLDER / "node_modules" / "gltf-validator").is_dir():
        unavailable("the npm package gltf-validator is missing; run `npm ci` in tests/node")
    done = subprocess.run(
        [str(node), "validate.js", str(files[".glb"])], cwd=NODE_FOLDER, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
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
    assert np.abs(loaded.vertex_normals[loaded.faces] - to_y_up(mesh.normals)[mesh.faces]).max() < 1e-5, (
        "normals are smooth across seams"
    )
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    assert loaded.is_watertight


def test_v_direction_by_hand(tmp_path: Path) -> None:
    glb, obj = export_mesh(flag(), tmp_path / "flag.glb", {}), export_mesh(flag(), tmp_path / "flag.obj", {})
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
def test_trimesh_reads_the_texture_colors(made: tuple[Mesh, MeshReport], files: dict[str, Path], suffix: str) -> None:
    """At each vertex of the loaded file, to 0.03 of 1: a texel of the 0.84 wide prop is 0.01."""
    loaded = trimesh.load(files[suffix], process=False, force="mesh")
    material = loaded.visual.material
    image = material.baseColorTexture if suffix == ".glb" else material.image
    shown = looked_up(image, np.asarray(loaded.visual.uv))
    points = loaded.vertices if suffix == ".obj" else loaded.vertices[:, [0, 2, 1]] * [1, -1, 1]
    assert np.abs(shown - color_at(np.asarray(points), made[1])).max() < 0.03
    assert len(loaded.faces) == len(made[0].faces)


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
    made: tuple[Mesh, MeshReport], files: dict[str, Path], tmp_path: Path
) -> None:
    mesh = made[0]
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
    assert np.abs(pixels[row, column] - color_at(points, made[1])).max() < 0.03
    seen = [
        np.asarray(Image.open(tmp_path / name).convert("RGB"), np.float64) / 255
        for name in ("textured.png", "plain.png")
    ]
    print(
        f"mean difference of the two renders {np.abs(seen[0] - seen[1]).mean():.4f}, "
        f"largest {np.abs(seen[0] - seen[1]).max():.3f}"
    )
    assert seen[0].std() > 0.1 and np.abs(seen[0] - seen[1]).mean() < 0.01, "both are equal for a smooth albedo"


# --- the mesh file


def png_of(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def on_its_way(mesh: Mesh) -> MeshFile:
    places = mesh.texture.unwrapping
    texture = FileTexture(mesh.texture.png(), places.uv, places.corners)
    return MeshFile(mesh.vertices, mesh.faces, mesh.normals, mesh.albedo, {}, texture)


def test_textured_mesh_file_round_trip(mesh: Mesh) -> None:
    sent = on_its_way(mesh)
    found = decode_mesh(encode_mesh(sent))
    assert found.texture.png == sent.texture.png
    assert np.array_equal(found.texture.uv, sent.texture.uv) and np.array_equal(
        found.texture.corners, sent.texture.corners
    )


def test_untextured_mesh_file_has_format_1(mesh: Mesh) -> None:
    data = encode_mesh(dataclasses.replace(on_its_way(mesh), texture=None))
    content = msgpack.unpackb(data)
    assert content["format"] == FORMAT == "dreamwright-mesh-1"
    assert set(content) == {"format", "vertices", "faces", "normals", "albedo", "facts"}
    assert decode_mesh(data).texture is None


def changed(**parts: Any) -> bytes:
    sent = on_its_way(flag())
    return encode_mesh(dataclasses.replace(sent, texture=dataclasses.replace(sent.texture, **parts)))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(
    width: int = 64,
    height: int = 64,
    form: tuple[int, ...] = (8, 2, 0, 0, 0),
    pixels: bytes | None = None,
    extra: bytes = b"",
) -> bytes:
    packed = zlib.compress(bytes(64 * 193) if pixels is None else pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *form))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


GOOD = png_with()
BROKEN = {
    "uv that is no number": (changed(uv=np.full((4, 2), np.nan, np.float32)), "uv"),
    "uv outside the image": (changed(uv=np.full((4, 2), 1.5, np.float32)), "from 0 to 1"),
    "uv of three numbers": (changed(uv=np.zeros((4, 3), np.float32)), "uv"),
    "corners of another mesh": (changed(corners=np.zeros((3, 3), np.int32)), "corners"),
    "a corner beyond the places": (changed(corners=np.full((2, 3), 4, np.int32)), "coordinate 4 of 4"),
    "a corner before them": (changed(corners=np.full((2, 3), -1, np.int32)), "coordinate"),
    "no image": (changed(png=b""), "not a PNG"),
    "an image that is no bytes": (changed(png="text"), "not a PNG"),
    "a JPEG": (changed(png=b"\xff\xd8\xff\xe0" * 20), "not a PNG"),
    "half an image": (changed(png=GOOD[: len(GOOD) // 2]), "ends inside"),
    "no end": (changed(png=GOOD[:-12]), "IEND"),
    "more after its end": (changed(png=GOOD + chunk(b"IDAT", b"")), "order"),
    "another chunk": (changed(png=png_with(extra=chunk(b"tEXt", b"a\0b"))), "order"),
    "a wrong checksum": (changed(png=GOOD.replace(b"IEND\xaeB`\x82", b"IEND\xaeB`\x83")), "checksum"),
    "a small image": (changed(png=png_with(16, 16)), "16 x 16"),
    "a bomb": (changed(png=png_with(100_000, 100_000)), "64 to 4096"),
    "no square": (changed(png=png_with(64, 128)), "64 x 128"),
    "with alpha": (changed(png=png_with(form=(8, 6, 0, 0, 0))), "8-bit RGB"),
    "sixteen bits": (changed(png=png_with(form=(16, 2, 0, 0, 0))), "8-bit RGB"),
    "too few pixels": (changed(png=png_with(pixels=bytes(100))), "not hold the pixels"),
    "too many pixels": (changed(png=png_with(pixels=bytes(64 * 193 + 1))), "not hold the pixels"),
    "pixels that bomb": (changed(png=png_with(pixels=bytes(10_000_000))), "not hold the pixels"),
    "an unknown filter": (changed(png=png_with(pixels=b"\x05" + bytes(64 * 193 - 1))), "not hold the pixels"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_bad_texture_in_a_mesh_file_is_refused(fault: str) -> None:
    data, words = BROKEN[fault]
    with pytest.raises(ProtocolError, match=words):
        decode_mesh(data)
    assert check_square_png(GOOD, 64, 4096) == 64, "the same file without the fault is accepted"


@given(st.integers(64, 130), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_square_pngs_by_pillow_are_accepted(size: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
    assert check_square_png(png_of(image), 64, 4096) == size


FLAG = encode_mesh(on_its_way(flag()))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_flipped_byte_is_a_mesh_or_a_protocol_error(data: st.DataObject) -> None:
    packed = bytearray(FLAG)
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_mesh(bytes(packed))
    except ProtocolError:
        return
    if found.texture is not None:
        assert found.texture.corners.max() < len(found.texture.uv)
        with Image.open(io.BytesIO(found.texture.png)) as image:
            assert image.size == (64, 64)


def test_flag_texture_orientation() -> None:
    texture = flag().texture
    shown = linear_to_display(texture.linear_at(np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])))
    assert np.abs(shown - [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]).max() < 1e-9
