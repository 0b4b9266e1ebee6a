# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that R-Precision is measured on: renders of meshes, or image files, by prompt and seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from ..errors import ConfigError, ExportError, one_line
from ..geometry.build import Mesh
from ..geometry.color import display_to_linear
from ..geometry.topology import Surface, face_cross
from ..io.mesh_reader import SUFFIXES, read_mesh
from ..starter import domain, props
from .captions import slug
from .classifier_metrics import AZIMUTHS, render_views

# DreamFusion, A.3: all methods are judged at 45 degrees, which the CLIP methods do not see in training.
HELD_OUT_ELEVATION = 45.0
ELEVATION_RANGE = (-90.0, 90.0)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
KEPT_SUFFIX = ".safetensors"  # of meshes as `dreamwright evaluate` keeps them
MESH_SUFFIXES = (*SUFFIXES, KEPT_SUFFIX)


@dataclass(frozen=True)
class RenderedSample:
    """Images of one prompt's prop of one seed: (k, 3, r, r) in [0, 1], or None where there are none.

    A sample without any image stands for a job that gave no mesh, and counts as wrong.
    """

    prompt: int  # index
    seed: int
    color: Tensor | None
    textureless: Tensor | None
    albedo: Tensor | None = None

    @property
    def shaded(self) -> Tensor | None:
        """The images that table 1 calls color and figure 6 calls shaded."""
        return self.color


def check_elevation(elevation_deg: float) -> float:
    """The elevation. Raises ConfigError for one that is no angle of an orbit camera."""
    low, high = ELEVATION_RANGE
    if not low <= elevation_deg <= high:  # false for NaN as well
        raise ConfigError(
            f"--elevation {elevation_deg}; allowed are {low:.0f} to {high:.0f} degrees above the horizon; change it"
        )
    return elevation_deg


def render_sample(
    mesh: Mesh, prompt: int, seed: int, resolution: int, elevation_deg: float, azimuths: int = AZIMUTHS
) -> RenderedSample:
    """Render a mesh, lit, in color and textureless, from `azimuths` sides."""
    color, textureless = (
        render_views(mesh, 0.0, is_textureless, elevation_deg, resolution, azimuths) for is_textureless in (False, True)
    )
    return RenderedSample(prompt, seed, color, textureless)


def render_sample_with_albedo(
    mesh: Mesh, prompt: int, seed: int, resolution: int, elevation_deg: float, azimuths: int = AZIMUTHS
) -> RenderedSample:
    """Like `render_sample`, and unlit as well."""
    albedo = render_views(mesh, 0.0, False, elevation_deg, resolution, azimuths, lit=False)
    return replace(render_sample(mesh, prompt, seed, resolution, elevation_deg, azimuths), albedo=albedo)


def true_prop(prompt: str) -> Mesh:
    """The procedural prop that a prompt of the starter's domain names, in its mean proportions.

    Each triangle has its own vertices, for flat shading. Raises ValueError for other prompts.
    """
    color, name = domain.parse(prompt)
    return _flat_shaded(props.triangles(props.build(name)), color)


def starter_prop(prompt: str, seed: int) -> Mesh:
    """Like `true_prop`, its proportions varied by the seed."""
    color, name = domain.parse(prompt)
    return _flat_shaded(props.triangles(props.build(name, np.random.default_rng([seed, 2024]))), color)


def _flat_shaded(model: props.TriangleMesh, color: str) -> Mesh:
    corners = model.vertices[model.faces].reshape(-1, 3)
    faces = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    cross = face_cross(Surface(corners.astype(np.float64), faces))
    normals = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-12)
    display = np.where(model.primary[:, None], np.array(domain.COLORS[color]), model.colors)
    albedo = display_to_linear(display).astype(np.float32)
    return Mesh(corners, faces, np.repeat(albedo, 3, axis=0), np.repeat(normals, 3, axis=0).astype(np.float32))


def samples_from_meshes(
    folder: Path,
    prompts: Sequence[str],
    resolution: int,
    seeds: int | None,
    elevation_deg: float,
    azimuths: int = AZIMUTHS,
) -> list[RenderedSample]:
    """Render `a-red-mushroom.glb`, or `a-red-mushroom.1.glb` of seed 1, for each prompt.

    With `seeds`, seeds 0 to seeds - 1 are looked for, else those that are there; a missing file gives a sample without
    images. Raises ExportError for a folder without any mesh, and for a file that cannot be read.
    """
    files = files_by_prompt(folder, MESH_SUFFIXES)
    samples = []
    for number, prompt in enumerate(prompts):
        of_prompt = files.get(slug(prompt), {})
        for seed in range(seeds) if seeds is not None else sorted(of_prompt) or [0]:
            if seed in of_prompt:
                mesh = read_mesh_file(of_prompt[seed])
                samples.append(render_sample(mesh, number, seed, resolution, elevation_deg, azimuths))
            else:
                samples.append(RenderedSample(number, seed, None, None))
    _check_any(samples, folder, "a-red-mushroom.glb, or a-red-mushroom.1.glb of seed 1")
    return samples


def samples_from_images(folder: Path, prompts: Sequence[str], seeds: int | None) -> list[RenderedSample]:
    """Read the images of `a-red-mushroom/`, or `a-red-mushroom.1/`; files named `textureless*` have no color.

    Images are square and of one size in a folder. `seeds` and errors are those of `samples_from_meshes`.
    """
    folders = files_by_prompt(folder, None)
    samples = []
    for number, prompt in enumerate(prompts):
        of_prompt = folders.get(slug(prompt), {})
        for seed in range(seeds) if seeds is not None else sorted(of_prompt) or [0]:
            files = (
                sorted(file for file in of_prompt[seed].iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
                if seed in of_prompt
                else []
            )
            bare = [file for file in files if file.name.startswith("textureless")]
            color = [file for file in files if file not in bare]
            samples.append(RenderedSample(number, seed, _read_images(color), _read_images(bare)))
    _check_any(samples, folder, "folders of images such as a-red-mushroom/color-000.png")
    return samples


def files_by_prompt(folder: Path, suffixes: tuple[str, ...] | None) -> dict[str, dict[int, Path]]:
    """Files with one of the suffixes, or folders when it is None, by the prompt's slug and the seed.

    Raises ExportError for a folder that is not there.
    """
    if not folder.is_dir():
        raise ExportError(f"there is no folder {str(folder)!r}; give the one that holds the props")
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() if suffixes is None else path.suffix.lower() in suffixes:
            name = path.name if suffixes is None else path.stem
            stem, _, number = name.rpartition(".")
            is_numbered = bool(stem) and re.fullmatch("[0-9]{1,9}", number) is not None
            found.setdefault(slug(stem if is_numbered else name), {})[int(number) if is_numbered else 0] = path
    return found


def _check_any(samples: Sequence[RenderedSample], folder: Path, example: str) -> None:
    if all(sample.color is None and sample.textureless is None for sample in samples):
        raise ExportError(f"{str(folder)!r} holds nothing for these prompts; needed are {example}")


def read_mesh_file(path: Path) -> Mesh:
    """The mesh of a file that `dreamwright evaluate` kept, or of any format that it reads. Raises ExportError."""
    if path.suffix.lower() != KEPT_SUFFIX:
        try:
            return read_mesh(path)
        except ConfigError as error:
            raise ExportError(str(error)) from error
    try:
        return mesh_of(load_file(path))
    except (OSError, KeyError, SafetensorError) as error:
        raise ExportError(
            f"{str(path)!r} is no mesh that `dreamwright evaluate` kept ({one_line(error)}); give a mesh file"
        ) from error


def mesh_of(arrays: dict[str, np.ndarray]) -> Mesh:
    """The mesh without its texture, of the arrays that a kept file holds. Raises KeyError."""
    return Mesh(arrays["vertices"], arrays["faces"], arrays["albedo"], arrays["normals"])


def arrays_of(mesh: Mesh) -> dict[str, np.ndarray]:
    """What is kept of a mesh: vertices, faces, albedo, normals."""
    names = ("vertices", "faces", "albedo", "normals")
    return {name: np.ascontiguousarray(getattr(mesh, name)) for name in names}


def _read_images(files: Sequence[Path]) -> Tensor | None:
    """The files as one tensor (k, 3, r, r) in [0, 1]; None for no file. Raises ExportError."""
    if not files:
        return None
    images = []
    for file in files:
        try:
            with Image.open(file) as opened:
                images.append(np.asarray(opened.convert("RGB"), np.float32) / 255)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow raises all of these
            raise ExportError(
                f"{str(file)!r} is no image ({one_line(error)}); allowed are {', '.join(IMAGE_SUFFIXES)}"
            ) from error
    shapes = {image.shape for image in images}
    if len(shapes) > 1 or any(shape[0] != shape[1] for shape in shapes):
        raise ExportError(
            f"{str(files[0].parent)!r} holds images of sizes {sorted(s[:2] for s in shapes)}; "
            "allowed are square ones of one size"
        )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
