# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the procedural props with Cycles: the 2D training data of the starter prior and of its classifier.

    python -m tools.starter_training.render_images --out runs/starter-data --records 12000 --seed 1 --processes 2
    python -m tools.starter_training.render_images --out runs/multi-view-data --records 16000 --seed 31 --views 4

A record (64, 64, 6) uint8 = [primary coverage, secondary albedo (3, display sRGB, premultiplied), irradiance, alpha]
holds neither the prompt's color nor the background, which `captions.py` adds. Irradiance E is stored as sqrt(E / 2),
without surface color; a surface facing the key light has E near 1. With `--views` n, each n records in a row are one
prop from cameras spaced evenly around it at one elevation, distance and focal length.
A shard is written atomically, depends on (seed, index) only, and is skipped when present, so that an interrupted run
can be repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dreamwright.backend.starter import domain, props

SIZE = 64  # pixels a side
SHARD = 240  # records a file, a multiple of the views of a set
RENDERS_PER_BUILD = 5  # single views of a prop with the same random proportions
SET_SIZES = (1, 2, 4, 8)  # views of a set


@dataclass(frozen=True)
class RenderSettings:
    """Distributions of props, cameras and lights; distances in scene units, angles in degrees.

    The defaults are narrow because a small prior has little capacity.
    """

    distance: tuple[float, float] = (1.7, 2.1)
    fill: tuple[float, float] = (0.72, 0.92)  # share of the image width that a prop of radius 0.5 covers
    look_at_std: float = 0.015
    up_std: float = 0.01
    elevation: tuple[float, float] = (-5.0, 60.0)  # of all but the overhead views, uniform
    overhead: tuple[float, float] = (60.0, 88.0)  # elevation of the overhead views, uniform
    overhead_share: float = 0.15
    ambient: tuple[float, float] = (0.25, 0.55)  # share of uniform light from all directions
    light_std: float = 0.7  # of the light's direction around that of the camera, before normalizing
    point_light: bool = False  # a point light near the prop instead of a sun
    variation: float = 0.5  # of the props' proportions, as a share of what `props.build` allows


# Directions are hardest to see from above, so those views are the most frequent.
NARROW = RenderSettings(overhead_share=0.4)
WIDE = RenderSettings(
    distance=(1.4, 2.5),
    fill=(0.5, 0.95),
    look_at_std=0.05,
    up_std=0.03,
    elevation=(-10.0, 60.0),
    ambient=(0.2, 0.6),
    light_std=1.0,
    point_light=True,
    variation=1.0,
)


@dataclass(frozen=True)
class View:
    """Prop and camera of one render; azimuth and elevation in degrees, distance in scene units."""

    prop: int
    azimuth: float
    elevation: float
    distance: float
    focal: float  # multiple of the image width


def sample_view(settings: RenderSettings, rng: np.random.Generator) -> View:
    """One random camera: azimuth uniform, elevation by the settings, focal length from fill and distance."""
    bounds = settings.overhead if rng.random() < settings.overhead_share else settings.elevation
    elevation = rng.uniform(*bounds)
    distance = rng.uniform(*settings.distance)
    prop = int(rng.integers(len(domain.PROPS)))
    return View(prop, rng.uniform(0.0, 360.0), elevation, distance, rng.uniform(*settings.fill) * distance)


def around(view: View, count: int) -> list[View]:
    """The view and count - 1 more at equal steps of azimuth."""
    return [replace(view, azimuth=(view.azimuth + 360.0 * k / count) % 360.0) for k in range(count)]


def camera_matrix(view: View, settings: RenderSettings, rng: np.random.Generator) -> np.ndarray:
    """Camera-to-world (4, 4), columns right, up, back, position."""
    a, e = math.radians(view.azimuth), math.radians(view.elevation)
    position = view.distance * np.array([math.cos(e) * math.sin(a), -math.cos(e) * math.cos(a), math.sin(e)])
    back = position - rng.normal(0, settings.look_at_std, 3)
    back /= np.linalg.norm(back)
    # The tangent of the meridian is an up vector also for a camera straight above, where Z is not.
    up = np.array([-math.sin(e) * math.sin(a), math.sin(e) * math.cos(a), math.cos(e)]) + rng.normal(
        0, settings.up_std, 3
    )
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return matrix


class BlenderScene:
    """The Blender scene: a camera, a light, a white world, and one prop."""

    def __init__(self, samples: int = 12) -> None:
        import bpy

        self._bpy = bpy
        bpy.ops.wm.read_factory_settings(use_empty=True)
        scene = bpy.context.scene
        scene.render.engine = "CYCLES"
        scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", samples, False
        scene.cycles.max_bounces = scene.cycles.diffuse_bounces = 1
        scene.render.resolution_x = scene.render.resolution_y = SIZE
        scene.render.film_transparent = True
        scene.render.use_persistent_data = False
        scene.render.threads_mode, scene.render.threads = "FIXED", 1
        scene.render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
        scene.view_settings.view_transform = "Raw"
        layer = scene.view_layers[0]
        layer.use_pass_diffuse_direct = layer.use_pass_diffuse_indirect = layer.use_pass_diffuse_color = True
        aov = layer.aovs.add()
        aov.name, aov.type = "primary", "VALUE"
        self.scene = scene
        self.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        scene.collection.objects.link(self.camera)
        scene.camera = self.camera
        self.lights = {kind: bpy.data.objects.new(kind, bpy.data.lights.new(kind, kind)) for kind in ("SUN", "POINT")}
        for light in self.lights.values():
            scene.collection.objects.link(light)
        scene.world = bpy.data.worlds.new("world")
        scene.world.use_nodes = True
        self._materials: dict[props.Color | None, Any] = {}
        self._objects: list[Any] = []

    def _material(self, color: props.Color | None) -> Any:
        if color not in self._materials:
            material = self._bpy.data.materials.new(str(color))
            material.use_nodes = True
            nodes, links = material.node_tree.nodes, material.node_tree.links
            nodes.clear()
            surface, output = nodes.new("ShaderNodeBsdfDiffuse"), nodes.new("ShaderNodeOutputMaterial")
            links.new(surface.outputs[0], output.inputs[0])
            # The diffuse passes are divided by the albedo of primary parts, so it must not be zero.
            linear = (0.6, 0.6, 0.6) if color is None else tuple(max(0.01, srgb_to_linear(c)) for c in color)
            surface.inputs["Color"].default_value = (*linear, 1.0)
            mark = nodes.new("ShaderNodeOutputAOV")
            mark.aov_name = "primary"
            mark.inputs["Value"].default_value = 1.0 if color is None else 0.0
            self._materials[color] = material
        return self._materials[color]

    def set_prop(self, parts: list[props.Part]) -> None:
        """Replace the prop in the scene."""
        data = self._bpy.data
        for old in self._objects:
            mesh = old.data
            data.objects.remove(old)
            data.meshes.remove(mesh)
        self._objects = []
        for part in parts:
            mesh = data.meshes.new("part")
            mesh.from_pydata(part.vertices.tolist(), [], part.faces)
            mesh.polygons.foreach_set("use_smooth", [part.smooth] * len(mesh.polygons))
            mesh.materials.append(self._material(part.color))
            mesh.update()
            new = data.objects.new("part", mesh)
            self.scene.collection.objects.link(new)
            self._objects.append(new)

    def render(self, view: View, settings: RenderSettings, rng: np.random.Generator, path: Path) -> np.ndarray:
        """Render one record (64, 64, 6) uint8."""
        from mathutils import Matrix, Vector

        matrix = camera_matrix(view, settings, rng)
        self.camera.matrix_world = Matrix(matrix.tolist())
        self.camera.data.angle = 2 * math.atan(0.5 / view.focal)
        toward = matrix[:3, 3] / np.linalg.norm(matrix[:3, 3]) + rng.normal(0, settings.light_std, 3)
        toward /= np.linalg.norm(toward)
        ambient = rng.uniform(*settings.ambient)
        kind = "POINT" if settings.point_light else "SUN"
        for name, light in self.lights.items():
            light.hide_render = name != kind
        light = self.lights[kind]
        light.rotation_euler = Vector(toward.tolist()).to_track_quat("Z", "Y").to_euler()
        if kind == "SUN":
            light.data.angle = math.radians(4.0)
            light.data.energy = math.pi * (1 - ambient)  # E = energy / pi on a facing diffuse surface
        else:
            reach = rng.uniform(1.2, 2.0)
            light.location = (toward * reach).tolist()
            light.data.shadow_soft_size = 0.05
            light.data.energy = (1 - ambient) * 4 * math.pi**2 * (reach - 0.25) ** 2
        background = self.scene.world.node_tree.nodes["Background"]
        background.inputs["Color"].default_value = (1, 1, 1, 1)
        background.inputs["Strength"].default_value = ambient
        self.scene.cycles.seed = int(rng.integers(1 << 30))
        self.scene.render.filepath = str(path)
        self._bpy.ops.render.render(write_still=True)
        return record_from_passes(path)


def record_from_passes(path: Path) -> np.ndarray:
    """Read a multilayer EXR into a record (64, 64, 6) uint8."""
    import OpenEXR

    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = {name.split(".", 1)[-1]: channel.pixels for name, channel in file.channels().items()}

    def rgb(name: str) -> np.ndarray:
        return np.stack([channels[f"{name}.{c}"] for c in "RGB"], axis=-1)

    alpha = np.clip(channels["Combined.A"], 0, 1)
    primary = np.clip(channels["primary.X" if "primary.X" in channels else "primary.V"], 0, 1)
    primary = np.minimum(primary, alpha)
    # Coverage and color are averages over the pixel; Cycles divides the light passes by the color, coverage included.
    albedo = rgb("DiffCol") - 0.6 * primary[..., None]
    secondary_cover = np.maximum(alpha - primary, 1e-3)[..., None]
    secondary = linear_to_srgb(np.clip(albedo / secondary_cover, 0, 1)) * np.clip(alpha - primary, 0, 1)[..., None]
    light = (rgb("DiffDir") + rgb("DiffInd")).mean(-1, keepdims=True)
    light = _spread_inward_light(light[..., 0], alpha)[..., None]
    stored_light = np.sqrt(np.clip(light, 0, 2) / 2)
    record = np.concatenate([primary[..., None], secondary, stored_light, alpha[..., None]], axis=-1)
    return np.round(record * 255).astype(np.uint8)


def _spread_inward_light(light: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Light (h, w) in which partly covered pixels have that of their covered neighbors; their own ratio is noise."""
    weights = np.pad(alpha**4, 1)
    weighted = weights * np.pad(light, 1)
    height, width = light.shape
    shifts = [(i, j) for i in range(3) for j in range(3)]
    total = sum(weights[i : i + height, j : j + width] for i, j in shifts)
    spread = sum(weighted[i : i + height, j : j + width] for i, j in shifts) / np.maximum(total, 1e-6)
    return np.where(alpha < 0.97, spread, light)


def srgb_to_linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def linear_to_srgb(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.0031308, 12.92 * value, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)


def render_shard(out: Path, seed: int, index: int, settings: RenderSettings, views: int = 1) -> None:
    """Render one shard unless it is there already. Its JSON file holds the views of a set and the records' cameras."""
    stem = out / f"shard-{seed:03d}-{index:04d}"
    if stem.with_suffix(".npy").is_file():
        return
    rng = np.random.default_rng([seed, index])
    scene, records, entries = BlenderScene(), np.zeros((SHARD, SIZE, SIZE, 6), np.uint8), []
    builds = RENDERS_PER_BUILD if views == 1 else 1  # sets of views with the same random proportions
    prop = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SHARD // views):
            drawn = sample_view(settings, rng)
            if number % builds == 0:
                prop = drawn.prop
                scene.set_prop(props.build(domain.PROPS[prop].name, rng, settings.variation))
            for k, view in enumerate(around(replace(drawn, prop=prop), views)):
                records[number * views + k] = scene.render(view, settings, rng, Path(folder) / "passes.exr")
                entries.append(asdict(view))
    stem.with_suffix(".json").write_text(json.dumps({"views": views, "records": entries}) + "\n")
    temporary = stem.with_suffix(".part.npy")
    np.save(temporary, records)
    os.replace(temporary, stem.with_suffix(".npy"))


def _work(task: tuple[Path, int, int, RenderSettings, int]) -> int:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # Cycles prints two lines for each render
    render_shard(*task)
    return task[2]


def main() -> None:
    parser = argparse.ArgumentParser(description="Render training images of the starter props.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--records", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--views", type=int, choices=SET_SIZES, default=1, help="views of a set, evenly around the prop"
    )
    parser.add_argument("--wide", action="store_true", help="the classifier's cameras and lights")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = WIDE if options.wide else NARROW
    shards = math.ceil(options.records / SHARD)
    tasks = [(options.out, options.seed, index, settings, options.views) for index in range(shards)]
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=4) as pool:
        for done, _ in enumerate(pool.imap_unordered(_work, tasks), start=1):
            left = (time.monotonic() - start) / done * (shards - done)
            print(f"{done}/{shards} shards, {left / 60:.1f} min left", flush=True)


if __name__ == "__main__":
    main()
