# SPDX-License-Identifier: GPL-3.0-or-later
"""Processor time of a `draft` step with each kind of field, at equal samples of one shape.

    python benchmarks/field_step.py [--warm 120] [--rounds 5]

Voxels are trained for `--warm` steps. The hash grids are fitted to their density, all get their occupancy grid, and
every step draws the same views, so that all query the same samples. They take turns; a ratio is the median over the
rounds of the ratio within a round. Both halves of a run are timed: with views of 32 pixels and with views of 64. Prints
Markdown for docs/results/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from checkout import commit

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import get_preset
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.interfaces import Denoiser
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.text.prompts import PromptEmbeddings

HASH = ("field.kind=hash-grid", "field.hash_log2_size=15", "optimizer.learning_rate=0.01")
NARROW = "field.hash_hidden_width=32"
CASES: dict[str, Sequence[str]] = {
    "voxels 16, 32, 64": (),
    "the same, arrays of all samples": ("render.marching=dense",),
    "hash grid, 4 levels to 109, 32 units": (*HASH, NARROW, "field.hash_levels=4", "field.hash_growth=1.9"),
    "hash grid, 6 levels to 121, 32 units": (*HASH, NARROW, "field.hash_levels=6", "field.hash_growth=1.5"),
    "hash grid, 8 levels to 212, 64 units": (*HASH, "field.hash_levels=8"),
}
FIRST = next(iter(CASES))
HALVES = {0.3: "32 x 32", 0.6: "64 x 64"}  # progress, and draft's resolution there
VIEW_SEED = 5


def scene_of(denoiser: Denoiser, settings: Sequence[str]) -> FieldScene:
    config = apply_settings(get_preset("draft").config, settings)
    bank = PromptEmbeddings(denoiser, "a red mushroom", config.guidance)
    return FieldScene(config, ScoreDistillation(denoiser, config.guidance), bank, 0)


def fit(scene: FieldScene, target: FieldScene, steps: int = 400, points: int = 8000) -> None:
    """Regress the density on the target's at random points, without blobs."""
    optimizer = torch.optim.Adam(scene.field.parameters(), lr=0.01)
    draws = torch.Generator().manual_seed(0)
    target.field.begin_step(1.0)
    for _ in range(steps):
        mu = (2 * torch.rand(points, 3, generator=draws) - 1) * scene.field.bounding_radius
        with torch.no_grad():
            wanted = target.field.density(mu)
        scene.field.begin_step(1.0)
        optimizer.zero_grad()
        (scene.field.density(mu) - wanted).square().mean().backward()
        optimizer.step()


def step_seconds(scene: FieldScene, progress: float, occupancy: dict[str, torch.Tensor]) -> tuple[float, int]:
    """Processor seconds and samples of one step, without an update of the occupancy grid."""
    scene.step = int(progress * scene.config.run.steps) | 1
    scene.renderer.load_state_dict(occupancy)
    for name in scene.streams:
        scene.streams[name].manual_seed(VIEW_SEED)
    started = time.process_time()
    figures = scene.train_step()
    return time.process_time() - started, int(figures["samples"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm", type=int, default=120, help="steps that the voxels take before the others are fitted")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each field")
    options = parser.parse_args()
    torch.set_num_threads(1)
    denoiser = load_denoiser(resolve_model("starter"))
    scenes = {name: scene_of(denoiser, settings) for name, settings in CASES.items()}
    voxels = scenes[FIRST]
    for _ in range(options.warm):
        voxels.train_step()
    occupancy = {name: value.clone() for name, value in voxels.renderer.state_dict().items()}
    for name in list(scenes)[1:]:
        fit(scenes[name], voxels)
    print(f"commit {commit()}, one thread, {options.rounds} rounds\n")
    print("| field | views | samples of a step | step, ms of processor time | ratio |\n| --- | --- | --- | --- | --- |")
    for progress, views in HALVES.items():
        seconds: dict[str, list[float]] = {name: [] for name in scenes}
        for turn in range(options.rounds + 1):
            for name, scene in scenes.items():
                spent, samples = step_seconds(scene, progress, occupancy)
                if turn:  # the first allocates
                    seconds[name].append(spent)
        for name, spent in seconds.items():
            ratios = sorted(a / b for a, b in zip(spent, seconds[FIRST], strict=True))
            print(
                f"| {name} | {views} | {samples:,} | {1e3 * statistics.median(spent):.0f} "
                f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
