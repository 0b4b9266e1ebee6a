# SPDX-License-Identifier: GPL-3.0-or-later
"""Time of an optimization step by part, for each preset; and the renderer compared with a dense reference.

    python benchmarks/step_time.py [--presets draft standard paper] [--steps 20] [--threads 2] [--json FILE]

The paper's field is timed on one view of 32 x 32 pixels by default (--paper-full times the whole step): a full step
takes minutes on a CPU. All values of a table come from one run; compare ratios of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dreamwright.backend.cameras.poses import camera_rays, orbit_cameras
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import get_preset
from dreamwright.backend.fields import Field
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.interfaces import Denoiser
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.rendering.shading import Shading, shade
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.text.prompts import PromptEmbeddings

TEXTURELESS = Shading("textureless", 0.3, 0.7)


class Stopwatch:
    """Wraps functions and sums the time spent in each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return timed


def dense_image(field: Field, cameras: Any, light: torch.Tensor, resolution: int, samples: int) -> torch.Tensor:
    """The dense reference: every sample of every ray is queried and shaded."""
    rays = camera_rays(cameras, resolution)
    radius = field.bounding_radius
    center = cameras.position.norm(dim=1)[:, None, None]
    t = center + torch.linspace(-radius, radius, samples)  # (n, 1, samples)
    mu = rays.origins[:, :, None] + t[..., None] * rays.directions[:, :, None]
    flat = mu.reshape(-1, 3)
    sample = field.query(flat, with_normals=True)
    inside = flat.norm(dim=1) < radius
    tau = torch.where(inside, sample.tau, torch.zeros_like(sample.tau)).view(mu.shape[:3])
    color = shade(
        torch.ones_like(sample.rho), sample.normal, flat, light.expand_as(flat), torch.tensor(0.3), torch.tensor(0.7)
    )
    alpha = 1 - torch.exp(-tau * (2 * radius / samples))
    before = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha[..., :-1]], dim=-1), dim=-1)
    weights = alpha * before
    return (weights[..., None] * color.view(mu.shape)).sum(2) + (1 - weights.sum(-1, keepdim=True)) * 0.5


def time_preset(name: str, denoiser: Denoiser, steps: int, warm: int, full_paper: bool) -> dict[str, Any]:
    """Print one preset's table; returns its milliseconds by part, and gigabytes."""
    settings = (
        [] if name != "paper" or full_paper else ["render.resolution=32", "run.views_per_step=1", "render.samples=64"]
    )
    config = apply_settings(get_preset(name).config, settings)
    bank = PromptEmbeddings(denoiser, "a red mushroom", config.guidance)
    run = FieldScene(config, ScoreDistillation(denoiser, config.guidance), bank, 0)
    count, warming = (steps, warm) if name != "paper" else (2, 0)
    for _ in range(warming):
        run.train_step()
    # Half-way through the run, shading is on and the occupancy grid has something to skip.
    run.step = max(run.step, int(0.5 * config.run.steps))
    watch = Stopwatch()
    run.renderer.render = watch.around("rendering", run.renderer.render)
    run.guidance.gradient = watch.around("guidance", run.guidance.gradient)
    run.optimizer.step = watch.around("optimizer", run.optimizer.step)
    run.field.begin_step = watch.around("field preparation", run.field.begin_step)
    run.renderer.update_occupancy = watch.around("occupancy", run.renderer.update_occupancy)
    backward = torch.Tensor.backward
    torch.Tensor.backward = watch.around("backward", backward)
    started = time.perf_counter()
    try:
        for _ in range(count):
            run.train_step()
    finally:
        torch.Tensor.backward = backward
    total = (time.perf_counter() - started) / count
    print(f"\n{name}{' (' + ', '.join(settings) + ')' if settings else ''}: {1e3 * total:.0f} ms a step")
    for part, seconds in sorted(watch.seconds.items(), key=lambda item: -item[1]):
        print(f"  {part:18s} {1e3 * seconds / count:8.1f} ms  {100 * seconds / count / total:5.1f}%")
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  peak memory of the process so far: {peak_gb:.2f} GB")
    if config.field.kind == "voxels":
        compare_renderers(run)
    parts = {part: 1e3 * seconds / count for part, seconds in watch.seconds.items()}
    return {"settings": settings, "step_ms": 1e3 * total, "parts_ms": parts, "peak_gb": peak_gb}


def compare_renderers(run: FieldScene, repeats: int = 5) -> None:
    """Forward and backward of one textureless view: ours and the dense reference, same rays and samples."""
    resolution, samples = run.config.render.resolution, run.config.render.samples
    cameras, light = orbit_cameras([30.0], 20.0, 1.9, 1.5), torch.tensor([[1.0, -1.0, 1.0]])
    background = torch.full((1, resolution**2, 3), 0.5)

    def ours() -> torch.Tensor:
        return run.renderer.render(run.field, background, cameras, [TEXTURELESS], light, resolution).image

    def dense() -> torch.Tensor:
        return dense_image(run.field, cameras, light, resolution, samples)

    times = {}
    for label, picture in (("ours", ours), ("dense", dense)):
        spent = []
        for _ in range(repeats):
            started = time.perf_counter()
            run.field.begin_step(0.5)
            picture().sum().backward()
            spent.append(time.perf_counter() - started)
        times[label] = sorted(spent)[repeats // 2]
    print(
        f"  one textureless view, forward and backward: ours {1e3 * times['ours']:.0f} ms, dense reference "
        f"{1e3 * times['dense']:.0f} ms: {times['dense'] / times['ours']:.1f} times as long"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", default=["draft", "standard", "paper"])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm", type=int, default=120, help="steps before timing, so that there is something to see")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--paper-full", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times there as well")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    denoiser = load_denoiser(resolve_model(options.model))
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
    print("torch {torch}, {threads} threads, load {load:.1f} before the start".format(**machine))
    presets = {
        name: time_preset(name, denoiser, options.steps, options.warm, options.paper_full) for name in options.presets
    }
    if options.json is not None:
        options.json.write_text(json.dumps({**machine, "presets": presets}, indent=2) + "\n")


if __name__ == "__main__":
    main()
