# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of the stage after the field: the estimate against the peak that torch allocates, and the larger stage's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import RECIPES
from dreamwright.backend.config.schema import Config
from dreamwright.backend.config.usage import memory_settings
from dreamwright.backend.errors import InsufficientMemoryError
from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.geometry.texture import Texture
from dreamwright.backend.geometry.unwrap import unwrap
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.models import memory_estimate
from dreamwright.backend.models.memory_estimate import check_memory, estimate_memory
from dreamwright.backend.models.pipeline_folder import open_pipeline
from dreamwright.backend.scenes.derived_config import surface_guidance
from dreamwright.backend.scenes.surface_scene import SurfaceScene
from dreamwright.backend.scenes.textured_surface_scene import TexturedSurfaceScene
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.primitive_meshes import icosphere
from tests.testing.recipe_folders import WRITERS
from tests.unit.test_memory import FACTOR, peak_bytes

SMALL_FIELD = ("render.samples=8", "field.hash_log2_size=10", "field.hash_levels=4", "field.voxel_resolutions=6,12")
LIT = ("shading.shaded_probability=1", "shading.textureless_probability=0")


def fine(family: str, *settings: str) -> Config:
    return apply_settings(RECIPES[family]["fine"].config, [*LIT, *SMALL_FIELD, *settings])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    return {family: WRITERS[family](top / family) for family in ("starter", "latent")}


def measured(folder: Path, config: Config, subdivisions: int) -> int:
    """Peak of two steps on a ball, and the tensors that the scene holds, the model's weights among them."""
    denoiser = load_denoiser(folder, config=config.model)
    bank = PromptEmbeddings(denoiser, "a red mushroom", config.guidance)
    denoiser.free_text_encoder()
    parts = [denoiser.network, *([denoiser.vae.model] if hasattr(denoiser, "vae") else [])]
    weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    vertices, faces = icosphere(subdivisions, 0.45)
    tensors = {
        "vertices": torch.from_numpy(vertices).float(), "faces": torch.from_numpy(faces).int(),
        "albedo": torch.full((len(vertices), 3), 0.5),
    }  # fmt: skip
    kind: type[SurfaceScene] = SurfaceScene
    if config.surface.texture_rate > 0:
        places, kind = unwrap(vertices, faces, config.mesh.texture), TexturedSurfaceScene
        tensors |= {
            "uv": torch.from_numpy(places.uv), "corners": torch.from_numpy(places.corners),
            "texels": torch.full((config.mesh.texture**2, 3), 128, dtype=torch.uint8),
        }  # fmt: skip

    scene = kind(config, ScoreDistillation(denoiser, surface_guidance(config)), bank, tensors, 0)
    held = [*scene.parameters.values(), scene.rest, scene.colors, scene._laplacian.coalesce().values()]
    if isinstance(scene, TexturedSurfaceScene):
        texels = scene.texels
        held += [texels.base, texels.uv, texels._pixel, texels._source, texels._weight]

    def run() -> None:
        scene.train_step()
        scene.train_step()

    return weights + sum(tensor.numel() * tensor.element_size() for tensor in held) + peak_bytes(run)


CASES = {
    "one view of 256 pixels": ("latent", 4, ("surface.resolution=256", "mesh.texture=512")),
    "a large texture": ("latent", 3, ("surface.resolution=64", "mesh.texture=1024")),
    "faces finer than pixels": ("starter", 4, ("run.views_per_step=4", "surface.resolution=16", "mesh.texture=64")),
    "the starter's views": ("starter", 4, ("run.views_per_step=4", "guidance.noises=1")),
    "one at a time": ("starter", 4, ("run.views_at_once=1", "guidance.noises=1", "mesh.texture=128")),
    "colors of vertices": ("starter", 4, ("surface.texture_rate=0", "mesh.texture=0", "guidance.noises=1")),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_estimate_is_within_a_factor_of_two_of_the_measured_peak(case: str, folders: dict[str, Path]) -> None:
    """Of the second stage alone: the field is small, so the estimate is of the larger stage."""
    family, subdivisions, settings = CASES[case]
    config = fine(family, *settings, f"mesh.triangles={20 * 4**subdivisions}")
    parts = estimate_memory(open_pipeline(folders[family]), config, torch.float32, "cpu").parts
    estimate, actual = sum(parts.values()), measured(folders[family], config, subdivisions)
    print(f"{case}: estimate {estimate / 1e6:.1f} MB, measured {actual / 1e6:.1f} MB, ratio {estimate / actual:.2f}")
    assert "rasterizer" in parts and actual / FACTOR <= estimate <= actual * FACTOR


def test_a_run_needs_what_its_larger_stage_needs(folders: dict[str, Path]) -> None:
    folder = open_pipeline(folders["latent"])

    def total(*settings: str) -> int:
        return estimate_memory(folder, fine("latent", *settings), torch.float32, "cpu").total

    second, first = total(), total("surface.steps=0")
    large = ("render.samples=512", "render.resolution=128")
    assert second > first and total(*large) == total(*large, "surface.steps=0") > second
    # A pixel adds 320 bytes, a texel 140, and the field's 64-pixel views are no part of it.
    assert total() - total("surface.resolution=256") == 320 * (512**2 - 256**2)
    assert total("mesh.texture=2048") - total() == 140 * (2048**2 - 1024**2)
    assert total("render.resolution=48") == total()


def test_another_model_of_the_second_stage_is_not_loaded_beside_the_first(folders: dict[str, Path]) -> None:
    """One is freed before the other is loaded, so the parts are those of one model alone."""
    starter, latent = (open_pipeline(folders[family]) for family in ("starter", "latent"))
    config = fine("latent")
    both = estimate_memory(starter, config, torch.float32, "cpu", latent).parts
    assert both == estimate_memory(latent, config, torch.float32, "cpu").parts
    short = fine("latent", "surface.resolution=16", "mesh.texture=64", "render.samples=400")
    assert estimate_memory(starter, short, torch.float32, "cpu", latent).parts["network"] in {
        estimate_memory(one, short, torch.float32, "cpu").parts["network"] for one in (starter, latent)
    }


def test_a_stage_that_cannot_fit_is_refused_with_its_own_settings(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, config = open_pipeline(folders["latent"]), fine("latent")
    needed = estimate_memory(folder, config, torch.float32, "cpu").total
    monkeypatch.setattr(memory_estimate, "free_bytes", lambda device: needed - 1)
    assert "surface.resolution=256" in memory_settings()
    with pytest.raises(InsufficientMemoryError, match=r"rasterizer .*surface\.resolution=(256|128) \(saves"):
        check_memory(folder, config, torch.float32, "cpu")


def test_mesh_tensors_have_the_parts_of_the_mesh() -> None:
    """The stored parts of a mesh with a texture: all six, of the declared types."""
    from dreamwright.backend.geometry.build import MeshReport
    from dreamwright.backend.geometry.topology import Surface
    from dreamwright.backend.scenes.surface_scene import PARTS, surface_tensors

    vertices, faces = icosphere(1, 0.5)
    places = unwrap(vertices, faces, 64)
    mesh = Mesh(
        (2 * vertices + [0, 0, 1]).astype(np.float32), faces.astype(np.int32),
        np.full(vertices.shape, 0.2, np.float32), (2 * vertices).astype(np.float32),
        Texture(np.zeros((64, 64, 3), np.uint8), places),
    )  # fmt: skip
    report = MeshReport.of(
        Surface(vertices, faces), mesh, 2.0, np.array([0.0, 0, 1]), threshold=1.0, cell=0.1, components_dropped=0,
        triangles_extracted=len(faces), error=None,
    )  # fmt: skip
    tensors = surface_tensors(mesh, report)
    assert {name: (value.dtype, value.shape[1]) for name, value in tensors.items()} == dict(PARTS)
    assert torch.allclose(tensors["vertices"].double(), torch.from_numpy(vertices), atol=1e-6)
    assert len(tensors["texels"]) == 64 * 64 and len(tensors["uv"]) == len(places.uv)
