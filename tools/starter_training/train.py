# SPDX-License-Identifier: GPL-3.0-or-later
"""Train the starter prior on 2D images and captions; an interrupted training can be resumed.

    python -m tools.starter_training.train --data runs/starter-data --work runs/starter-train --minutes 60
    python -m tools.starter_training.train --work runs/starter-train --export backend/starter/weights

The loss is min-SNR weighted x0 regression: min(1 / sigma_t^2, cap) |x0_hat - x0|^2 (a v-prediction loss, capped so
that low noise levels do not dominate the gradient). `--resolution 32` trains on images of half the size at a quarter
of the cost; the U-Net is convolutional, so training can continue at 64.

`--views 4` trains a multi-view model on sets of four views (`render_images --views 4`), mixed with single views so that
words from any camera still hold. It can start from the weights of a single-view model:

    python -m tools.starter_training.train --data runs/multi-view-data --work runs/multi-view-train --views 4 \\
        --start-from backend/starter/weights --rate 3e-4 --minutes 90
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from dreamwright.backend.cameras.poses import pose_vectors
from dreamwright.backend.starter.architecture import VIEWS_TOGETHER, StarterParts, build_parts, encode, save_pipeline
from tools.starter_training.captions import Batch, RenderDataset
from tools.starter_training.moving_average import MovingAverage
from tools.starter_training.muon import Muon

# Parameters that AdamW trains: embeddings, and the first and last convolution. Muon is for maps of hidden features.
ADAMW_PARAMETERS = re.compile(r"shared|embed_tokens|relative_attention_bias|conv_in|conv_out|class_embedding")


@dataclass(frozen=True)
class TrainingConfig:
    """Hyperparameters."""

    seed: int = 0  # of the initial weights and of every random draw
    batch: int = 32  # images per step
    learning_rate: float = 1e-3  # peak rate, of Muon for the hidden matrices and of AdamW for all else
    final_rate: float = 1e-5  # rate at the end of a cosine decay over the planned images
    warmup_steps: int = 50  # linear warm-up
    time_power: float = 0.5  # t = u^power of a uniform u: below 1 favors high noise
    weight_cap: float = 6.0  # cap of 1 / sigma_t^2
    average_decay: float = 0.995  # of the moving average of the weights, which is exported
    gradient_norm: float = 1.0  # largest gradient norm
    views: int = 1  # of one object that are denoised together
    single_share: float = 0.3  # share of the steps that a multi-view model is trained on single views
    drop_pose: float = 0.5  # share of single views whose camera is unknown


def diffusion_loss(
    parts: StarterParts,
    batch: Batch,
    generator: torch.Generator,
    cap: float,
    time_power: float,
    views: int = 1,
    drop_pose: float = 0.0,
) -> torch.Tensor:
    """Capped v-weighted x0 loss of one batch, mean over pixels and images.

    Each `views` images in a row are one object and have one time. A multi-view model is given their cameras' poses, or
    zeros for the share `drop_pose` of the objects.

    The times are stratified over the batch, and t = u^time_power favors high noise: global shape, and with it the
    meaning of prop and view words, is decided there, while local denoising is learned from few images.
    """
    channels = parts.unet.config.in_channels
    x0 = functional.pixel_unshuffle(batch.images * 2 - 1, math.isqrt(channels // 3))  # 3 k^2 channels
    n, objects = len(x0), len(x0) // views
    steps = parts.scheduler.config.num_train_timesteps
    t = ((torch.arange(objects) + torch.rand(objects, generator=generator)) / objects) ** time_power
    t = t.repeat_interleave(views)
    indices = (t * steps).long().clamp(0, steps - 1)
    alpha_bar = parts.scheduler.alphas_cumprod[indices].to(x0).view(n, 1, 1, 1)
    noise = torch.randn(x0.shape, generator=generator).to(x0)
    z_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
    hidden = encode(parts, batch.captions)
    inputs: dict[str, Any] = {}
    if parts.views > 1:
        known = torch.rand(objects, 1, generator=generator).repeat_interleave(views, dim=0) >= drop_pose
        poses = torch.where(known, pose_vectors(batch.azimuths, batch.elevations), 0.0)
        inputs = {"class_labels": poses.to(x0), "cross_attention_kwargs": {"views": views}}
    predicted = parts.unet(z_t, indices.to(x0.device), encoder_hidden_states=hidden, **inputs).sample
    weight = (1 / (1 - alpha_bar)).clamp(max=cap)
    return (weight * (predicted - x0).square()).mean()


def learning_rate(config: TrainingConfig, step: int, images: int, planned: int) -> float:
    """Linear warm-up, then cosine from the peak to the final rate over the planned number of images."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    share = min(1.0, images / max(1, planned))
    cosine = 0.5 * (1 + np.cos(np.pi * share))
    return warm * (config.final_rate + (config.learning_rate - config.final_rate) * cosine)


class Training:
    """One training run: model parts, optimizers, moving average and counters, saved and restored together."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.config = config
        self.parts = build_parts(config.seed, views=config.views)
        self.parts.unet.to(device)
        self.parts.text_encoder.to(device)
        self.modules = torch.nn.ModuleDict({"unet": self.parts.unet, "text_encoder": self.parts.text_encoder})
        hidden: list[torch.nn.Parameter] = []
        rest: list[torch.nn.Parameter] = []
        for name, parameter in self.modules.named_parameters():
            (
                hidden if parameter.dim() > 1 and len(parameter) > 1 and not ADAMW_PARAMETERS.search(name) else rest
            ).append(parameter)
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            Muon(hidden, config.learning_rate),
            torch.optim.AdamW(rest, config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
        )
        self.average = MovingAverage(self.modules, config.average_decay)
        self.step = 0
        self.images = 0

    def advance(self, batch: Batch, generator: torch.Generator, planned: int) -> float:
        """One optimizer step; returns the loss."""
        rate = learning_rate(self.config, self.step, self.images, planned)
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate
        config = self.config
        drop_pose = config.drop_pose if batch.views_of_set == 1 else 0.0
        loss = diffusion_loss(
            self.parts, batch, generator, config.weight_cap, config.time_power, batch.views_of_set, drop_pose
        )
        loss.backward()
        average_gradients(self.modules)
        torch.nn.utils.clip_grad_norm_(self.modules.parameters(), self.config.gradient_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.images += len(batch.images) * world_size()
        self.average.update(self.modules, self.step)
        return float(loss.detach())

    def save(self, folder: Path, generator: torch.Generator) -> None:
        """Write the state atomically: model, average, optimizers, generator and counters."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{name}": value.contiguous() for name, value in self.modules.state_dict().items()}
        tensors |= {f"average.{name}": value.contiguous() for name, value in self.average.values.items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{key}": value.contiguous() for key, value in state.items()}
        tensors["generator"] = generator.get_state()
        counters = {"step": str(self.step), "images": str(self.images)}
        # safetensors refuses shared storage, and T5 shares its embedding under two names.
        temporary = folder / "training.safetensors.part"
        save_file({name: value.clone() for name, value in tensors.items()}, temporary, metadata=counters)
        os.replace(temporary, folder / "training.safetensors")
        (folder / "counters.json").write_text(json.dumps({"step": self.step, "images": self.images}) + "\n")

    def restore(self, folder: Path, generator: torch.Generator) -> bool:
        """Load the newest state; False when there is none."""
        path = folder / "training.safetensors"
        if not path.is_file():
            return False
        tensors = load_file(path)
        self.modules.load_state_dict(_with_prefix("model.", tensors))
        device = next(self.modules.parameters()).device
        self.average.values = {name: value.to(device) for name, value in _with_prefix("average.", tensors).items()}
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in _with_prefix(f"optimizer.{number}.", tensors).items():
                index, key = name.split(".", 1)
                state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        generator.set_state(tensors["generator"].to(torch.uint8))
        counters = json.loads((folder / "counters.json").read_text())
        self.step, self.images = counters["step"], counters["images"]
        return True

    def start_from(self, folder: Path) -> None:
        """Load the weights of an exported pipeline folder, which has no optimizer state."""
        device = next(self.modules.parameters()).device
        state: dict[str, torch.Tensor] = {}
        for part, file in (("unet", "diffusion_pytorch_model.safetensors"), ("text_encoder", "model.safetensors")):
            loaded = load_file(folder / part / file)
            state |= {f"{part}.{name}": value.float().to(device) for name, value in loaded.items()}
        if self.config.views > 1:  # a single-view model has no embedding of poses
            own = self.modules.state_dict()
            state |= {name: own[name] for name in own if "class_embedding" in name and name not in state}
        # T5 has its token embedding under two names and saves one.
        state.setdefault("text_encoder.encoder.embed_tokens.weight", state["text_encoder.shared.weight"])
        self.modules.load_state_dict(state)
        self.average = MovingAverage(self.modules, self.config.average_decay)

    def averaged_parts(self) -> StarterParts:
        """A copy of the parts with the averaged weights."""
        parts = build_parts(self.config.seed, views=self.config.views)
        modules = torch.nn.ModuleDict({"unet": parts.unet, "text_encoder": parts.text_encoder})
        modules.load_state_dict(self.average.values)
        return parts


def world_size() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def average_gradients(module: torch.nn.Module) -> None:
    """Replace each gradient by its mean over all processes, in one all-reduce."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _with_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def train(
    training: Training, dataset: RenderDataset, resolution: int, planned: int, generator: torch.Generator
) -> Iterator[tuple[int, int, float]]:
    """Train without end; yields (step, images, loss) after each step. The caller stops and saves.

    Each step seeds the generator from its number and the process's rank, so that a resumed training draws the numbers
    of an uninterrupted one.
    """
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    while True:
        generator.manual_seed(training.config.seed + 2 * (training.step * world_size() + rank) + 1)
        config = training.config
        single = config.views == 1 or float(torch.rand((), generator=generator)) < config.single_share
        count = config.batch // world_size()
        batch = dataset.sample(count, resolution, generator, 1 if single else config.views)
        yield training.step + 1, training.images, training.advance(batch, generator, planned)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the starter prior; stops after --minutes and can be resumed.")
    parser.add_argument("--data", type=Path, help="folder of records from tools.starter_training.render_images")
    parser.add_argument("--work", type=Path, required=True, help="folder of the resumable state")
    parser.add_argument("--minutes", type=float, default=0.0, help="wall-clock minutes to train")
    parser.add_argument(
        "--start-from", type=Path, help="exported pipeline folder to train further, when --work is empty"
    )
    parser.add_argument("--views", type=int, choices=(1, VIEWS_TOGETHER), default=1, help="4: a multi-view model")
    parser.add_argument("--resolution", type=int, choices=(32, 64), default=64, help="pixels a side")
    parser.add_argument("--rate", type=float, default=TrainingConfig.learning_rate, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=TrainingConfig.batch, help="images per step, over all processes")
    parser.add_argument("--planned", type=int, default=300_000, help="images over which the rate decays")
    parser.add_argument("--save-minutes", type=float, default=3.0, help="minutes between saved states")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes that share each batch; one per core is fastest"
    )
    parser.add_argument("--port", type=int, default=29511, help="loopback port of the process group")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--export", type=Path, help="write the averaged weights as a pipeline folder")
    options = parser.parse_args()
    if options.processes > 1 and options.minutes > 0:
        spawn(_run, (options,), nprocs=options.processes)
    else:
        _run(0, options)


def _run(rank: int, options: argparse.Namespace) -> None:
    """Train and export as one of `options.processes` processes; rank 0 prints, saves and exports."""
    torch.set_num_threads(options.threads)
    together = options.processes > 1 and options.minutes > 0
    if together:
        address = f"tcp://127.0.0.1:{options.port}"
        distributed.init_process_group("gloo", init_method=address, world_size=options.processes, rank=rank)
    generator = torch.Generator().manual_seed(1)
    config = TrainingConfig(learning_rate=options.rate, batch=options.batch, views=options.views)
    training = Training(config, torch.device(options.device))
    if training.restore(options.work, generator):
        print(f"resumed at step {training.step}, {training.images} images", flush=True)
    elif options.start_from is not None:
        training.start_from(options.start_from)
        print(f"started from {options.start_from}", flush=True)
    if options.minutes > 0:
        dataset = RenderDataset(options.data, options.device)
        end = time.monotonic() + 60 * options.minutes
        saved, losses, start, first = time.monotonic(), [], time.monotonic(), training.images
        for step, images, loss in train(training, dataset, options.resolution, options.planned, generator):
            losses.append(loss)
            now = time.monotonic()
            if step % 100 == 0 and rank == 0:
                rate = (images - first) / (now - start)
                recent = float(np.mean(losses[-100:]))
                left = (end - now) / 60
                print(f"step {step} images {images} loss {recent:.4f} {rate:.1f}/s, {left:.1f} min left", flush=True)
            over = now > end
            if together:
                # The clock of rank 0 decides, so that all processes stop at the same step.
                verdict = torch.tensor([float(over)])
                distributed.broadcast(verdict, 0)
                over = bool(verdict.item())
            if rank == 0 and (over or now - saved > 60 * options.save_minutes):
                training.save(options.work, generator)
                saved = now
            if over:
                break
    if options.export is not None and rank == 0:
        save_pipeline(training.averaged_parts(), options.export)
        print(f"exported to {options.export}", flush=True)


if __name__ == "__main__":
    main()
