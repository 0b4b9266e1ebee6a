# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders of a scene inside Blender: pictures, and the linear images that its albedo is measured in.

relit_script.py imports this file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blender_lightings  # type: ignore[import-not-found]
import bpy
import numpy as np

EXPECTED = "expected_albedo"  # color attribute from the mesh file, which no material of the scene reads
INDEX_SCALE = 1.0 / 64.0  # an emission of index / 64 is exact in floating point
POINT_WIDTH = 0.01  # pixels: all samples of a pixel see one point, so that no two props share a pixel
SEED = 1


def prepare(scene: Any, width: int, height: int) -> None:
    """Cycles on the CPU at that size, the same on every run."""
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.seed = "CPU", SEED
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = width, height, 100
    scene.render.use_persistent_data = False


def render_picture(scene: Any, path: Path, samples: int, bounces: int) -> None:
    """A picture as artists see it: AgX or Filmic, denoised, with the material's coat of reflection."""
    scene.cycles.samples, scene.cycles.use_denoising = samples, True
    scene.cycles.denoiser = "OPENIMAGEDENOISE"
    scene.cycles.pixel_filter_type = "BLACKMAN_HARRIS"
    set_bounces(scene, bounces)
    transforms = [item.identifier for item in scene.view_settings.bl_rna.properties["view_transform"].enum_items]
    scene.view_settings.view_transform = "AgX" if "AgX" in transforms else "Filmic"
    scene.view_settings.look = "AgX - Medium High Contrast" if "AgX" in transforms else "Medium High Contrast"
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGB"
    scene.render.image_settings.color_depth = "8"
    _render(scene, path)


def set_bounces(scene: Any, bounces: int) -> None:
    """The longest path of light; 0 is direct light alone."""
    scene.cycles.max_bounces = bounces
    scene.cycles.diffuse_bounces, scene.cycles.glossy_bounces = bounces, bounces
    scene.cycles.sample_clamp_direct = scene.cycles.sample_clamp_indirect = 0.0


def render_measured(
    scenes: dict[str, Any],
    props: Sequence[Any],
    ground: Any,
    gray: float,
    light: Sequence[tuple[int, int]],
    folder: Path,
    tell: Callable[[], None],
) -> dict[str, np.ndarray]:
    """Linear images for `measurement.measure`, of the props as Lambertians and of gray Lambertians of their shape.

    light: bounces, and samples a pixel. `tell` is called after each of 2 + 2 x lightings x len(light) renders.
    """
    arrays: dict[str, np.ndarray] = {}
    with _without_coat(props), _without_glow(scenes.values()):
        for scene in scenes.values():
            _set_for_measuring(scene)
        first = next(iter(scenes.values()))
        set_bounces(first, 0)
        first.render.film_transparent = True  # black where no prop is
        indices = [_emission_of_index(number) for number in range(1, len(props) + 1)]
        with _materials([*props, ground], [*indices, _emission_of_index(0)]):
            arrays["index"] = _pixels(first, folder)[..., 0] / INDEX_SCALE
        tell()
        with _materials([*props, ground], [*map(_emission_of_expected, props), _emission_of_index(0)]):
            arrays["expected"] = _pixels(first, folder)
        tell()
        first.render.film_transparent = False
        for name, scene in scenes.items():
            for count, samples in light:
                set_bounces(scene, count)
                scene.cycles.samples = samples
                arrays[f"{name}.{count}.render"] = _pixels(scene, folder)
                tell()
                with _materials(props, [blender_lightings.diffuse("Gray", (gray, gray, gray))] * len(props)):
                    arrays[f"{name}.{count}.reference"] = _pixels(scene, folder)
                tell()
    return arrays


def _set_for_measuring(scene: Any) -> None:
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.use_adaptive_sampling = 1, False, False
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "GAUSSIAN", POINT_WIDTH  # BOX has no width
    scene.view_settings.view_transform = "Standard"  # an EXR file is linear whatever this says
    scene.view_settings.look = "None"
    scene.view_settings.exposure, scene.view_settings.gamma = 0.0, 1.0
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "OPEN_EXR", "RGB"
    scene.render.image_settings.color_depth = "32"


def _pixels(scene: Any, folder: Path) -> np.ndarray:
    """The linear image (h, w, 3), row 0 at the top."""
    path = folder / "measured.exr"
    _render(scene, path)
    image = bpy.data.images.load(str(path), check_existing=False)
    image.colorspace_settings.is_data = True
    width, height = image.size
    values = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(values)
    found = values.reshape(height, width, image.channels)[::-1, :, :3].copy()
    bpy.data.images.remove(image)
    path.unlink()
    return found


def _render(scene: Any, path: Path) -> None:
    """Render to a file that appears whole."""
    partial = path.with_name(f"partial-{path.name}")
    scene.render.filepath = str(partial)
    bpy.ops.render.render(write_still=True, scene=scene.name)
    os.replace(partial, path)


def _principled(prop: Any) -> Any:
    return next(node for node in prop.data.materials[0].node_tree.nodes if node.type == "BSDF_PRINCIPLED")


@contextmanager
def _without_coat(props: Sequence[Any]) -> Iterator[None]:
    """Without the reflection on top of the albedo, which is the material's and not the albedo's."""
    sockets = [_principled(prop).inputs["Specular IOR Level"] for prop in props]
    before = [socket.default_value for socket in sockets]
    for socket in sockets:
        socket.default_value = 0.0
    try:
        yield
    finally:
        for socket, value in zip(sockets, before, strict=True):
            socket.default_value = value


@contextmanager
def _without_glow(scenes: Any) -> Iterator[None]:
    """Without the light that the lampshade gives off, which is no light that it reflects."""
    before = [(scene, scene.get(blender_lightings.GLOW)) for scene in scenes]
    for scene, strength in before:
        if strength is not None:
            scene[blender_lightings.GLOW] = 0.0
    try:
        yield
    finally:
        for scene, strength in before:
            if strength is not None:
                scene[blender_lightings.GLOW] = strength


@contextmanager
def _materials(props: Sequence[Any], materials: Sequence[Any]) -> Iterator[None]:
    """Other materials on the props for a while; they are removed afterwards."""
    before = [prop.data.materials[0] for prop in props]
    for prop, material in zip(props, materials, strict=True):
        prop.data.materials[0] = material
    try:
        yield
    finally:
        for prop, material in zip(props, before, strict=True):
            prop.data.materials[0] = material
        for material in set(materials):
            bpy.data.materials.remove(material)


def _emission(name: str) -> tuple[Any, Any]:
    """(material, its color socket)"""
    material = bpy.data.materials.new(name)
    nodes = blender_lightings.node_tree(material).nodes
    nodes.clear()
    shader, output = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
    material.node_tree.links.new(shader.outputs["Emission"], output.inputs["Surface"])
    return material, shader.inputs["Color"]


def _emission_of_index(number: int) -> Any:
    material, color = _emission(f"Index {number}")
    color.default_value = (number * INDEX_SCALE,) * 3 + (1.0,)
    return material


def _emission_of_expected(prop: Any) -> Any:
    """The albedo of the prop's file; for one with a texture, that image by its UV map."""
    material, color = _emission(f"Expected {prop.name}")
    nodes, links = material.node_tree.nodes, material.node_tree.links
    if EXPECTED in prop.data.color_attributes:
        source = nodes.new("ShaderNodeVertexColor")
        source.layer_name = EXPECTED
    else:
        own = next(node for node in prop.data.materials[0].node_tree.nodes if node.type == "TEX_IMAGE")
        source, uv_map = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeUVMap")
        source.image, source.extension = own.image, "EXTEND"
        uv_map.uv_map = prop.data.uv_layers[0].name
        links.new(uv_map.outputs["UV"], source.inputs["Vector"])
    links.new(source.outputs["Color"], color)
    return material


def add_expected(prop: Any, albedo: np.ndarray) -> None:
    """Give a prop the albedo of its file beside its own: (V, 3) linear. Raises ValueError for another mesh."""
    if len(prop.data.vertices) != len(albedo):
        raise ValueError(f"{prop.name} has {len(prop.data.vertices)} vertices, and its file {len(albedo)}")
    attribute = prop.data.color_attributes.new(EXPECTED, "FLOAT_COLOR", "POINT")
    colors = np.ones((len(albedo), 4), np.float32)
    colors[:, :3] = albedo
    attribute.data.foreach_set("color", colors.ravel())
