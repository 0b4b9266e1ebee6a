# SPDX-License-Identifier: GPL-3.0-or-later
"""What R-Precision is measured on: each prompt's pictures, in color and textureless, from meshes or from files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor

from ..errors import ExportError
from ..geometry.build import Mesh
from ..geometry.color import display_to_linear
from ..geometry.topology import Surface, face_cross
from ..io.gltf_reader import read_glb
from ..starter import domain, props
from .captions import slug
from .classifier_metrics import AZIMUTHS, render_views

ELEVATION = 30.0  # degrees, as the paper evaluates (appendix A.3)
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class RenderedSample:
    """One prompt's prop of one seed: pictures (k, 3, r, r) in [0, 1]; None where there are none.

    Without any picture it stands for a job that gave nothing, and counts as wrong.
    """

    prompt: int
    seed: int
    color: Tensor | None
    textureless: Tensor | None
    albedo: Tensor | None = None

    @property
    def shaded(self) -> Tensor | None:
        """The paper's figure 6's name for what its table 1 calls color, beside albedo."""
        return self.color


def render_sample(mesh: Mesh, prompt: int, seed: int, resolution: int, azimuths: int = AZIMUTHS) -> RenderedSample:
    """A mesh from `azimuths` sides at 30 degrees, lit from the camera's side before grey."""
    color, clay = (
        render_views(mesh, 0.0, textureless, ELEVATION, resolution, azimuths) for textureless in (False, True)
    )
    return RenderedSample(prompt, seed, color, clay)


def render_sample_with_albedo(mesh: Mesh, prompt: int, seed: int, resolution: int, azimuths: int = AZIMUTHS) -> RenderedSample:
    """The same, and without any light."""
    unlit = render_views(mesh, 0.0, False, ELEVATION, resolution, azimuths, lit=False)
    return replace(render_sample(mesh, prompt, seed, resolution, azimuths), albedo=unlit)


def starter_prop(prompt: str, seed: int) -> Mesh:
    """The procedural prop that a prompt of the starter's domain names, its proportions varied by the seed: the oracle.

    Raises ValueError for other prompts.
    """
    color, name = domain.parse(prompt)
    model = props.triangles(props.build(name, np.random.default_rng([seed, 2024])))
    corners = model.vertices[model.faces].reshape(-1, 3)  # of each triangle its own, for flat shades and hard edges
    faces = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    cross = face_cross(Surface(corners.astype(np.float64), faces))
    normals = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-12)
    display = np.where(model.primary[:, None], np.array(domain.COLORS[color]), model.colors)
    albedo = display_to_linear(display).astype(np.float32)
    return Mesh(corners, faces, np.repeat(albedo, 3, axis=0), np.repeat(normals, 3, axis=0).astype(np.float32))


def samples_from_meshes(
    folder: Path, prompts: Sequence[str], resolution: int, seeds: int | None, azimuths: int = AZIMUTHS
) -> list[RenderedSample]:
    """Exhibits of `a-red-mushroom.glb` or `a-red-mushroom.1.glb` (the seed) for each prompt; .safetensors as `evaluate` keeps.

    With `seeds` the seeds 0 .. seeds - 1 are looked for, else what is there; what is missing is an sample without
    pictures. Raises ExportError for a folder without any, and files that cannot be read.
    """
    files = _by_prompt(folder, (".glb", ".safetensors"))
    samples = []
    for number, prompt in enumerate(prompts):
        there = files.get(slug(prompt), {})
        for seed in range(seeds) if seeds is not None else sorted(there) or [0]:
            if seed in there:
                samples.append(render_sample(_read_mesh(there[seed]), number, seed, resolution, azimuths))
            else:
                samples.append(RenderedSample(number, seed, None, None))
    _check_any(samples, folder, "a-red-mushroom.glb or a-red-mushroom.1.glb for seed 1")
    return samples


def samples_from_images(folder: Path, prompts: Sequence[str], seeds: int | None) -> list[RenderedSample]:
    """Exhibits of the pictures in `a-red-mushroom/` or `a-red-mushroom.1/`; `textureless*.png` are those without color.

    Square pictures of one size a folder. `seeds` and errors as `samples_from_meshes`.
    """
    folders = _by_prompt(folder, None)
    samples = []
    for number, prompt in enumerate(prompts):
        there = folders.get(slug(prompt), {})
        for seed in range(seeds) if seeds is not None else sorted(there) or [0]:
            files = (
                sorted(file for file in there[seed].iterdir() if file.suffix.lower() in PICTURES)
                if seed in there
                else []
            )
            clay = [file for file in files if file.name.startswith("textureless")]
            samples.append(RenderedSample(number, seed, _stacked([f for f in files if f not in clay]), _stacked(clay)))
    _check_any(samples, folder, "folders of pictures such as a-red-mushroom/color-000.png")
    return samples


def _by_prompt(folder: Path, suffixes: tuple[str, ...] | None) -> dict[str, dict[int, Path]]:
    """Files with those suffixes, or folders, by prompt and seed."""
    if not folder.is_dir():
        raise ExportError(f"there is no folder {folder}; give the one that holds the props")
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() if suffixes is None else path.suffix in suffixes:
            name = path.name if suffixes is None else path.stem
            match = re.fullmatch(r"(.+?)(?:\.(\d+))?", name)
            found.setdefault(slug(match[1]), {})[int(match[2] or 0)] = path
    return found


def _check_any(samples: Sequence[RenderedSample], folder: Path, example: str) -> None:
    if all(e.color is None and e.textureless is None for e in samples):
        raise ExportError(f"{folder} holds nothing for these prompts; needed are {example}")


def _read_mesh(path: Path) -> Mesh:
    if path.suffix == ".glb":
        return read_glb(path)
    try:
        return Mesh(**load_file(path))
    except Exception as error:
        raise ExportError(f"{path} is no mesh that `dreamwright evaluate` kept ({error}); give a .glb") from error


def _stacked(files: Sequence[Path]) -> Tensor | None:
    if not files:
        return None
    pictures = []
    for file in files:
        try:
            with Image.open(file) as opened:
                pictures.append(np.asarray(opened.convert("RGB"), np.float32) / 255)
        except OSError as error:
            raise ExportError(f"{file} is no picture ({error}); allowed are {', '.join(PICTURES)}") from error
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1 or any(shape[0] != shape[1] for shape in shapes):
        raise ExportError(
            f"{files[0].parent} holds pictures of sizes {sorted(s[:2] for s in shapes)}; allowed are square ones of one size"
        )
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
