# SPDX-License-Identifier: GPL-3.0-or-later
"""One optimization step of each contender of `peers.py`, on the same rays with the same guidance.

Every step renders one shaded view, asks the same guidance for the gradient on its image, and steps the project's own
optimizer. The peers' modules are imported from the checkout that the caller names; none of their code is included.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peers_stubs
import torch
from peers_workload import POINTS, SAMPLES, SEED, PartTimes, SharedGuidance, Views, with_rest, workload
from torch import Tensor

from dreamwright.backend.config.schema import FieldConfig
from dreamwright.backend.scenes.field_scene import STREAMS, FieldScene

PROGRESS = 0.5  # of a peer's run, passed to the guidance; it has no effect on the time


class Ours:
    """A whole step of `FieldScene.train_step`, with cameras, checks and regularizers."""

    turn = 1  # steps that are timed together

    def __init__(self, resolution: int, variant: str, warm: int) -> None:
        config = workload(resolution)
        if variant in ("as shipped", "at its start", "hash grid"):
            timed = f"timed from step {warm} of {config.run.steps}"
            self.about = f"voxels 16, 32, 64; occupancy grid, unseen samples skipped; {timed}"
            self.turn = config.render.occupancy_interval  # every turn has one update of the grid
        else:
            # Nothing is skipped: every sample inside the sphere gets density, color and normal.
            shown = replace(config.render, occupancy_resolution=0, early_stop_transmittance=0.0, smallest_weight=0.0)
            config = replace(config, render=shown)
        if variant == "dense voxels":
            self.about = "voxels 16, 32, 64, 128; nothing skipped"
            config = replace(config, field=replace(config.field, voxel_resolutions=(16, 32, 64, 128)))
        elif "hash grid" in variant:
            if variant == "hash grid":
                self.about = f"hash grid of 4 levels to 109, 32 units; occupancy grid; {timed}"
                size = {"hash_levels": 4, "hash_growth": 1.9, "hash_log2_size": 15, "hash_hidden_width": 32}
            else:
                self.about = "hash grid of 16 levels to 256, tables of 2^19, 64 units; nothing skipped"
                size = {"hash_growth": (256 / 16) ** (1 / 15)}
            config = replace(
                config,
                field=replace(config.field, kind="hash-grid", **size),
                optimizer=replace(config.optimizer, learning_rate=0.01),
            )
        elif variant == "dense MLP":
            self.about = "MLP of 64 units, 5 hidden layers, 12 frequencies; nothing skipped"
            size = FieldConfig(
                bounding_radius=config.field.bounding_radius, hidden_width=64, hidden_blocks=2, encoding_levels=12
            )
            rates = replace(
                config.optimizer, learning_rate=1e-3, final_rate=1e-4
            )  # an MLP diverges at the voxels' rates
            config = replace(config, field=size, optimizer=rates)
        self.guide = SharedGuidance(config)
        self.scene = FieldScene(config, self.guide, self.guide.bank, SEED)
        self.parameters = sum(p.numel() for p in self.scene.field.parameters())
        self.samples = str(SAMPLES)
        for _ in range(warm):
            self.scene.train_step()
        self.scene.streams["cameras"].manual_seed(SEED * len(STREAMS) + STREAMS.index("cameras") + 1)
        step, guide = self.scene.optimizer.step, self.guide

        def timed_step() -> None:
            with guide.split.part("optimizer"):
                step()

        self.scene.optimizer.step = timed_step

    def step(self) -> dict[str, float]:
        """Seconds by part, and the number of points queried."""
        guide = self.guide
        guide.split = PartTimes()
        backward = torch.Tensor.backward

        def timed(tensor: Tensor, *arguments: Any, **options: Any) -> None:
            with guide.split.part("backward"):
                backward(tensor, *arguments, **options)

        torch.Tensor.backward = timed  # called inside FieldScene.train_step
        started = time.perf_counter()
        try:
            scalars = self.scene.train_step()
        finally:
            torch.Tensor.backward = backward
        return {**with_rest(guide.split, time.perf_counter() - started), POINTS: scalars["samples"]}


class Peer:
    """Base of the two peers: rays, guidance and order of a step."""

    turn = 1
    parameters: int
    samples: str
    points: int  # positions on a ray at which a network is queried
    about: str
    optimizers: list[torch.optim.Optimizer]

    def __init__(self, resolution: int) -> None:
        config = workload(resolution)
        self.resolution, self.views, self.guide = resolution, Views(config), SharedGuidance(config)
        self.noise = torch.Generator().manual_seed(SEED)

    def render(self, origins: Tensor, directions: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
        """The image (1, 3, r, r) and the sum of the project's own regularizers."""
        raise NotImplementedError

    def after_step(self) -> None:
        """The project's schedules."""

    def step(self) -> dict[str, float]:
        """Seconds by part, and the number of points queried."""
        split = self.guide.split = PartTimes()
        started = time.perf_counter()
        cameras, origins, directions, light = self.views.next_rays()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        image, penalty = self.render(origins, directions, light)
        conditioning = self.guide.bank.for_cameras(cameras.azimuth, cameras.elevation, ["shaded"])
        result = self.guide.gradient(image, cameras, conditioning, self.noise, PROGRESS)
        loss = (result.gradient.detach() * image).sum() + penalty
        with split.part("backward"):
            loss.backward()
        with split.part("optimizer"):
            for optimizer in self.optimizers:
                optimizer.step()
            self.after_step()
        if not bool(torch.isfinite(loss.detach())):
            raise RuntimeError(f"{type(self).__name__} rendered NaN or infinity; its time would mean nothing")
        return {**with_rest(split, time.perf_counter() - started), POINTS: float(self.points * len(origins))}


class StableDreamfusion(Peer):
    """`-O2`: the "vanilla" backbone, run() with 64 + 32 samples, Adan with clipping, alpha entropy and orientation."""

    MISSING = (
        "cv2", "trimesh", "nvdiffrast", "mcubes", "pymeshlab", "imageio", "psutil", "tensorboardX", "matplotlib",
        "torchvision", "torchmetrics", "torch_ema",
    )  # fmt: skip

    def __init__(self, checkout: Path, resolution: int) -> None:
        super().__init__(resolution)
        self.finders = peers_stubs.allow(self.MISSING)
        sys.path.insert(0, str(checkout))
        from nerf.network import NeRFNetwork
        from optimizer import Adan

        # The defaults of its main.py that this path reads, and what -O2 sets.
        self.options = SimpleNamespace(
            bound=1, dmtet=False, cuda_ray=False, taichi_ray=False, min_near=0.01, density_thresh=10, bg_radius=1.4,
            density_activation="exp", blob_density=5, blob_radius=0.2, num_steps=64, upsample_steps=32, lock_geo=False,
            lambda_orient=1e-2, lambda_entropy=1e-3, lambda_3d_normal_smooth=0, lambda_2d_normal_smooth=0,
            lambda_normal=0,
        )  # fmt: skip
        torch.manual_seed(SEED)
        self.model = NeRFNetwork(self.options)
        self.model.train()
        self.model.max_level = 1.0  # where progressive_level stands from 0.375 of the run on
        self.optimizers = [
            Adan(self.model.get_params(5e-3), eps=1e-8, weight_decay=2e-5, max_grad_norm=5.0, foreach=False)
        ]
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizers[0], lambda step: 0.1 ** min(step / 10000, 1))
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.samples, self.points = "64 + 32", 64 + 32 + 96  # densities first, then all again for colors and normals
        self.about = "its frequency MLP of 64 units, 5 layers; torch renderer"
        peers_stubs.seal()

    def render(self, origins: Tensor, directions: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
        size = self.resolution
        direction = torch.nn.functional.normalize(light, dim=-1).expand(len(origins), 3)
        ambient = 0.1 + 0.9 * random.random()
        outputs = self.model.render(
            origins[None], directions[None], None, size, size, staged=False, perturb=True, bg_color=None,
            ambient_ratio=ambient, shading="lambertian", light_d=direction, binarize=False,
        )  # fmt: skip
        image = outputs["image"].reshape(1, size, size, 3).permute(0, 3, 1, 2).contiguous()
        alpha = outputs["weights"].clamp(1e-5, 1 - 1e-5)
        entropy = -(alpha * alpha.log2() + (1 - alpha) * (1 - alpha).log2()).mean()
        return image, self.options.lambda_entropy * entropy + self.options.lambda_orient * outputs["loss_orient"]

    def after_step(self) -> None:
        self.schedule.step()


class Nerfstudio(Peer):
    """generfacto in its torch implementation, after the warm-up of its schedules, with the two Adams of its config."""

    MISSING = (
        "jaxtyping", "cv2", "viser", "tyro", "matplotlib", "mediapy", "rich", "sklearn", "splines", "requests",
        "appdirs",
        "torchvision", "wandb", "comet_ml",
    )  # fmt: skip
    # Its diffusion models want weights and CUDA (our guidance takes their place), its logger wants tensorboard.
    REPLACED = ("nerfstudio.generative", "torch.utils.tensorboard")
    STEP = 10_000  # of 30,000: normals, shading and the full orientation weight are on

    def __init__(self, checkout: Path, resolution: int, proposals: tuple[int, int]) -> None:
        super().__init__(resolution)
        self.finders = peers_stubs.allow(self.MISSING, self.REPLACED)
        sys.path.insert(0, str(checkout))
        from nerfstudio.cameras.rays import RayBundle
        from nerfstudio.data.scene_box import SceneBox
        from nerfstudio.engine.callbacks import TrainingCallbackLocation
        from nerfstudio.models.generfacto import GenerfactoModelConfig

        # The model part of its method config "generfacto"; the image's gradient comes from our guidance.
        config = GenerfactoModelConfig(
            implementation="torch", distortion_loss_mult=1.0, interlevel_loss_mult=100.0, max_res=256,
            taper_range=(0, 2000),
            proposal_warmup=2000, proposal_update_every=0, proposal_weights_anneal_max_num_iters=2000,
            start_lambertian_training=500, start_normals_training=2000, opacity_loss_mult=0.001, guidance_scale=25,
            num_proposal_samples_per_ray=proposals,
        )  # fmt: skip
        torch.manual_seed(SEED)
        box = SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
        self.model = config._target(config=config, scene_box=box, num_train_data=1, grad_scaler=None, device="cpu")
        self.model._diffusion_model = SimpleNamespace(sds_loss=lambda embedding, image, **options: image.sum() * 0)
        self.model.text_embeddings = SimpleNamespace(get_text_embedding=lambda **angles: torch.zeros(1))
        self.model.train()
        groups = self.model.get_param_groups()
        rates = {"proposal_networks": 1e-3, "fields": 5e-4}
        self.optimizers = [
            torch.optim.Adam([p for p in groups[name] if p.requires_grad], lr=rate, eps=1e-15)
            for name, rate in rates.items()
        ]
        callbacks = self.model.get_training_callbacks(None)
        before, after = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION
        self.before = [c for c in callbacks if before in c.where_to_run]
        self.after = [c for c in callbacks if after in c.where_to_run]
        for callback in callbacks:  # one-time callbacks are before this step
            for step in callback.iters or ():
                callback.run_callback_at_location(step, callback.where_to_run[0])
        self.now, self.bundle, self.places = self.STEP, RayBundle, (before, after)
        self.parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.samples = f"{proposals[0]} + {proposals[1]} + {config.num_nerf_samples_per_ray}"
        self.points = sum(proposals) + config.num_nerf_samples_per_ray
        self.about = "its torch hash grid (16 levels to 256), two proposal nets, PDF sampler"
        self.after_step()
        peers_stubs.seal()

    def render(self, origins: Tensor, directions: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
        for callback in self.before:
            callback.run_callback_at_location(self.now, self.places[0])
        rays = self.bundle(origins=origins, directions=directions, pixel_area=torch.ones_like(origins[:, :1]))
        outputs = self.model(rays)
        losses = self.model.get_loss_dict(outputs, {"vertical": torch.zeros(1), "central": torch.zeros(1)})
        image = outputs["train_output"].view(1, self.resolution, self.resolution, 3).permute(0, 3, 1, 2)
        return image, sum(losses.values())

    def after_step(self) -> None:
        for callback in self.after:
            callback.run_callback_at_location(self.now, self.places[1])
        self.now += 1


def build(name: str, resolution: int, warm: int, checkouts: dict[str, Path]) -> Ours | Peer:
    """Build the contender of that name, ready to be timed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers use deprecated names of torch
        if name.startswith("ours, "):
            variant = name.removeprefix("ours, ")
            return Ours(resolution, variant, warm if variant in ("as shipped", "hash grid") else 0)
        if name == "stable-dreamfusion -O2":
            return StableDreamfusion(checkouts["stable-dreamfusion"], resolution)
        proposals = (32, 16) if name == "generfacto, 96 samples" else (256, 96)
        return Nerfstudio(checkouts["nerfstudio"], resolution, proposals)
