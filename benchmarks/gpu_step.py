# SPDX-License-Identifier: GPL-3.0-or-later
"""A step on a GPU, split into its parts, against the targets; models of full size with random weights, no download.

    python benchmarks/gpu_step.py [--cases if-xl-4 ...] [--steps 20] [--set model.compile=default ...]
    python benchmarks/gpu_step.py --tiny          # the same with tiny models on the CPU, to test the command

Targets: a step of 4 views costs at most 1.25 times its U-Net's forward pass, 15,000 iterations of `paper` take under 20
minutes, and Stable-Diffusion-class guidance needs under 6 GB. Prints Markdown for docs/results/results.md.

The whole step is timed with one synchronization at its end. The parts are timed in a second pass with a synchronization
around each, so they add up to a little more. "forward alone" is the bare network on the batch that the step gives it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import torch
from checkout import commit
from random_models import SIZES, TINY, TOKENS, random_denoiser, weights

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import get_preset
from dreamwright.backend.config.schema import Config
from dreamwright.backend.errors import DreamwrightError
from dreamwright.backend.guidance.denoisers.loading import chosen_dtype
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.text.prompts import PromptEmbeddings

ITERATIONS, MINUTES, RATIO, GIGABYTES = 15_000, 20.0, 1.25, 6.0  # the targets
PARTS = ("U-Net forward", "rest of the guidance", "rendering", "backward", "optimizer")


@dataclass(frozen=True)
class Case:
    """Model size, views a step and further settings."""

    model: str
    views: int
    settings: tuple[str, ...] = ()


CASES = {
    "if-xl-4": Case("if-xl", 4),  # the paper's step
    "sd-1.5-1": Case("sd-1.5", 1),  # the smallest case, with one view
    "sd-1.5-4": Case("sd-1.5", 4),
    "sd-1.5-4-recompute": Case("sd-1.5", 4, ("model.vae_recompute=true",)),
}
# The command is what --tiny tries, so the field is as small as the models.
TINY_SETTINGS = ("render.resolution=8", "render.samples=8", "field.hidden_width=8", "field.hidden_blocks=1")


class Clock:
    """Seconds by part, each between two synchronizations; a nested part does not count in the outer one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._inner = [0.0]

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = self.now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = self.now() - start
            self.seconds[name] += spent - self._inner.pop()
            self._inner[-1] += spent

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as that part."""

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*arguments, **options)

        return timed


@dataclass(frozen=True)
class Timings:
    """Timings of one case: seconds of the forward pass alone, of whole steps and of each part; peak bytes; weights."""

    forward: float
    steps: list[float]
    parts: dict[str, float]
    peak: int
    unet_weights: int

    @property
    def step(self) -> float:
        return statistics.median(self.steps)

    @property
    def minutes(self) -> float:
        """Minutes of the paper's run, by the mean step, since views are shaded differently."""
        return statistics.fmean(self.steps) * ITERATIONS / 60


def peak_bytes(device: torch.device) -> int:
    """Peak memory: torch's allocator with its cache, without CUDA's context, on a GPU; the process's peak on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forward_alone(denoiser: Any, rows: int, width: int, repeats: int, clock: Clock) -> float:
    """Median seconds of the network alone on `rows` noisy images."""
    config, device, dtype = denoiser.network.config, denoiser.device, denoiser.dtype
    side = getattr(denoiser, "latent_size", config.sample_size)
    z = torch.randn(rows, config.in_channels, side, side, device=device, dtype=dtype)
    t = torch.full((rows,), 500, device=device)
    hidden = torch.randn(rows, TOKENS, width, device=device, dtype=dtype)
    times = []
    with torch.no_grad():
        for _ in range(3 + repeats):
            start = clock.now()
            denoiser.network(z, t, encoder_hidden_states=hidden, return_dict=False)
            times.append(clock.now() - start)
    return statistics.median(times[3:])


def time_case(case: Case, config: Config, tiny: bool, steps: int, device: torch.device) -> Timings:
    """Build the model and time a run of this configuration. Raises DreamwrightError."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    size = (TINY if tiny else SIZES)[case.model]
    denoiser = random_denoiser(size, device, chosen_dtype(config.model, device), config.model)
    count = weights(denoiser.network)
    bank = PromptEmbeddings(denoiser, "a red mushroom", config.guidance)
    run = FieldScene(config, ScoreDistillation(denoiser, config.guidance), bank, 0, device)
    run.step = config.run.steps // 2  # shading is on, annealing is done
    clock = Clock(device)
    passes = 1 if config.guidance.omega == 0 else 2 + config.guidance.opposite_prompts
    rows = passes * config.guidance.noises * config.run.views_per_step
    forward = forward_alone(denoiser, rows, size.text_width, steps, clock)
    for _ in range(3):
        run.train_step()
    whole = []
    for _ in range(steps):
        start = clock.now()
        run.train_step()
        whole.append(clock.now() - start)
    peak = peak_bytes(device)
    return Timings(forward, whole, split(run, denoiser, steps, clock), peak, count)


def split(run: FieldScene, denoiser: Any, steps: int, clock: Clock) -> dict[str, float]:
    """Mean seconds of each part over `steps` more steps."""
    clock.seconds = dict.fromkeys(PARTS, 0.0)
    predict_raw, gradient, step, backward = (
        denoiser.predict_raw,
        run.guidance.gradient,
        run.optimizer.step,
        torch.Tensor.backward,
    )
    denoiser.predict_raw = clock.around("U-Net forward", predict_raw)
    run.guidance.gradient = clock.around("rest of the guidance", gradient)
    run.optimizer.step = clock.around("optimizer", step)
    torch.Tensor.backward = clock.around("backward", backward)
    try:
        for _ in range(steps):
            with clock.part("rendering"):  # the rest: cameras, rays, field, compositing, checks
                run.train_step()
    finally:
        torch.Tensor.backward = backward
        denoiser.predict_raw, run.guidance.gradient, run.optimizer.step = predict_raw, gradient, step
    return {part: seconds / steps for part, seconds in clock.seconds.items()}


def verdict(met: bool, text: str) -> str:
    """The text, bold where the target is missed."""
    return text if met else f"**{text}**"


def row(name: str, case: Case, f: Timings, tiny: bool) -> str:
    """One row of the table; missed targets are bold, except with tiny models."""
    ratio = f.step / f.forward
    cells = [
        f"{name}, {f.unet_weights / 1e6:.0f} M", str(case.views), f"{1e3 * f.forward:.1f}", f"{1e3 * f.step:.1f}",
        verdict(tiny or case.model != "if-xl" or ratio <= RATIO, f"{ratio:.2f}"),
        *(f"{1e3 * f.parts[part]:.1f}" for part in PARTS),
        verdict(tiny or case.model != "if-xl" or f.minutes < MINUTES, f"{f.minutes:.1f}"),
        verdict(tiny or case.model != "sd-1.5" or f.peak < GIGABYTES * 1e9, f"{f.peak / 1e9:.1f}"),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="which to time")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each case, twice")
    parser.add_argument("--preset", default="paper")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="SECTION.NAME=VALUE", help="a setting of the run"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny models and pictures on the CPU, to try the command")
    options = parser.parse_args()
    if options.steps < 1:
        raise SystemExit(f"gpu_step.py: --steps {options.steps}; allowed are 1 or more; give a larger number")
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit(
            "gpu_step.py: no CUDA device, so there is nothing to measure; run it on a GPU, or try the command with "
            "--tiny"
        )
    device = torch.device("cpu" if options.tiny else "cuda")
    where = (
        f"tiny models on the CPU ({platform.machine()}), which says nothing about speed"
        if options.tiny
        else torch.cuda.get_device_name()
    )
    print(f"## A step on a GPU, {date.today()}, commit {commit()}, {where}, torch {torch.__version__}\n")
    print(
        f"`{options.preset}`{', ' + ', '.join(options.settings) if options.settings else ''}; milliseconds; "
        f"{'no targets apply' if options.tiny else 'missed targets in bold'}.\n"
    )
    heads = (
        "case, U-Net's weights",
        "views",
        "forward alone",
        "step",
        "step / forward",
        *PARTS,
        "15k iterations, min",
        "peak memory, GB",
    )
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    for name in options.cases:
        case = CASES[name]
        settings = [
            *(TINY_SETTINGS if options.tiny else ()),
            *case.settings,
            *options.settings,
            f"run.views_per_step={case.views}",
        ]
        try:
            config = apply_settings(get_preset(options.preset).config, settings)
            print(
                row(name, case, time_case(case, config, options.tiny, options.steps, device), options.tiny), flush=True
            )
        except torch.cuda.OutOfMemoryError:
            print(f"| {name} | {case.views} | out of memory on this device |" + " |" * (len(heads) - 3), flush=True)
        except DreamwrightError as error:
            raise SystemExit(f"gpu_step.py: {name}: {error}") from error
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
