# SPDX-License-Identifier: GPL-3.0-or-later
"""A step on a GPU, split into its parts, against the targets; models of full size with random weights, no download.

    python benchmarks/gpu_step.py [--cases if-xl ...] [--steps 20] [--set model.compile=default ...] [--json FILE]
    python benchmarks/gpu_step.py --tiny          # the same with tiny models on the CPU, to test the command

Each case runs the preset of its model's family. Targets: a step costs at most 1.25 times its network's forward pass,
`standard` on DeepFloyd IF takes under 20 minutes, and Stable-Diffusion-class guidance needs under 5 GB. Prints Markdown
for docs/results/results.md. A case that fails is named, and the others follow.

The whole step is timed with one synchronization at its end, after the resolution and the views of a step have reached
their final values. The parts are timed in a second pass with a synchronization around each, so they add up to a little
more. "forward alone" repeats the step's own calls of the bare network. The minutes of a run are those of steps at five
places of it, since resolution and views change.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import platform
import resource
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from checkout import commit
from random_models import SIZES, TINY, random_denoiser, weights

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import get_preset
from dreamwright.backend.config.schema import Config
from dreamwright.backend.guidance.denoisers.loading import chosen_dtype
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.text.prompts import PromptEmbeddings

MINUTES, RATIO, GIGABYTES = 20.0, 1.25, 5.0  # the targets
PARTS = ("U-Net forward", "rest of the guidance", "rendering", "backward", "optimizer")
LATE = 0.75  # progress at which a step is timed: shading is on, and all recipes' resolutions have grown
PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)  # progress at which a run's steps are sampled


@dataclass(frozen=True)
class Case:
    """A model's size, and what is changed in its family's recipe."""

    model: str
    settings: tuple[str, ...] = ()


CASES = {
    "if-xl": Case("if-xl"),
    "if-xl-4": Case("if-xl", ("run.views_per_step=4",)),  # as many views as the paper's step
    "sd-1.5": Case("sd-1.5"),
    "sd-1.5-4": Case("sd-1.5", ("run.views_per_step=4",)),
    "sd-1.5-4-recompute": Case("sd-1.5", ("run.views_per_step=4", "model.vae_recompute=true")),
    "sdxl": Case("sdxl"),
    "sd-3": Case("sd-3"),
    "mvdream": Case("mvdream"),
}
# The command is what --tiny tries, so the field is as small as the models.
TINY_SETTINGS = (
    "render.resolution=8", "render.coarse_resolution=0", "render.samples=8", "field.hidden_width=8",
    "field.hidden_blocks=1", "field.hash_levels=2", "field.hash_start_level=1", "field.hash_log2_size=8",
    "background.hidden_width=8", "model.image_size=0",
)  # fmt: skip


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
    """Timings of one case: seconds of the forward pass alone, of a step, of the whole run and of each part; peak bytes.

    views, rows: of a step, and of the network's batch. weights: of the network.
    """

    forward: float
    step: float
    run: float
    parts: dict[str, float]
    peak: int
    views: int
    rows: int
    weights: int

    @property
    def ratio(self) -> float:
        return self.step / self.forward

    @property
    def minutes(self) -> float:
        return self.run / 60


def peak_bytes(device: torch.device) -> int:
    """Peak memory: torch's allocator with its cache, without CUDA's context, on a GPU; the process's peak on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


Call = tuple[tuple[Any, ...], dict[str, Any]]


def recorded_calls(run: FieldScene, network: torch.nn.Module) -> list[Call]:
    """What one step gives the network, call by call."""
    calls: list[Call] = []
    hook = network.register_forward_pre_hook(lambda _, args, named: calls.append((args, named)), with_kwargs=True)
    try:
        run.train_step()
    finally:
        hook.remove()
    return calls


def forward_alone(network: torch.nn.Module, calls: list[Call], repeats: int, clock: Clock) -> float:
    """Median seconds of the network alone on these inputs."""
    times = []
    with torch.no_grad():
        for _ in range(3 + repeats):
            start = clock.now()
            for arguments, named in calls:
                network(*arguments, **named)
            times.append(clock.now() - start)
    return statistics.median(times[3:])


def step_times(run: FieldScene, progress: float, warm: int, steps: int, clock: Clock) -> list[float]:
    """Seconds of each of `steps` steps from that progress on, after `warm` others."""
    run.step = int(progress * run.config.run.steps)
    for _ in range(warm):
        run.train_step()
    times = []
    for _ in range(steps):
        start = clock.now()
        run.train_step()
        times.append(clock.now() - start)
    return times


def time_case(case: Case, config: Config, tiny: bool, steps: int, device: torch.device) -> Timings:
    """Build the model and time a run of this configuration. Raises DreamwrightError."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    size = (TINY if tiny else SIZES)[case.model]
    denoiser = random_denoiser(size, device, chosen_dtype(config.model, device), config.model)
    bank = PromptEmbeddings(denoiser, "a red mushroom", config.guidance)
    run = FieldScene(config, ScoreDistillation(denoiser, config.guidance), bank, 0, device)
    clock = Clock(device)
    whole = [step_times(run, place, 1, max(1, steps // len(PLACES)), clock) for place in PLACES]
    late = step_times(run, LATE, 3, steps, clock)
    peak = peak_bytes(device)
    calls = recorded_calls(run, denoiser.network)
    return Timings(
        forward=forward_alone(denoiser.network, calls, steps, clock),
        step=statistics.median(late),
        run=statistics.fmean(statistics.fmean(times) for times in whole) * config.run.steps,
        parts=split(run, denoiser, steps, clock),
        peak=peak,
        views=config.run.views_per_step,
        rows=sum(len(named["encoder_hidden_states"]) for _, named in calls),
        weights=weights(denoiser.network),
    )


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
    cells = [
        f"{name}, {f.weights / 1e6:.0f} M", str(f.views), str(f.rows), f"{1e3 * f.forward:.1f}", f"{1e3 * f.step:.1f}",
        verdict(tiny or f.ratio <= RATIO, f"{f.ratio:.2f}"),
        *(f"{1e3 * f.parts[part]:.1f}" for part in PARTS),
        verdict(tiny or case.model != "if-xl" or f.minutes < MINUTES, f"{f.minutes:.1f}"),
        verdict(tiny or case.model != "sd-1.5" or f.peak < GIGABYTES * 1e9, f"{f.peak / 1e9:.1f}"),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


HEADS = (
    "case, network's weights", "views", "rows", "forward alone", "step", "step / forward", *PARTS, "whole run, min",
    "peak memory, GB",
)  # fmt: skip


def run_case(name: str, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Print the case's row, and return its figures, or its "error" for a case that failed."""
    case, extra = CASES[name], [*options.settings, *(TINY_SETTINGS if options.tiny else ())]
    try:
        recipe = get_preset(options.preset, SIZES[case.model].kind)
        config = apply_settings(recipe.config, [*case.settings, *extra])
        timings = time_case(case, config, options.tiny, options.steps, device)
    except torch.cuda.OutOfMemoryError:
        error = "out of memory on this device"
    except (
        Exception
    ) as fault:  # drivers, kernels and settings fail in many ways; the other cases are timed all the same
        traceback.print_exc()
        error = " ".join(f"{type(fault).__name__}: {fault}".split())
    else:
        print(row(name, case, timings, options.tiny), flush=True)
        return {"case": name, "model": case.model, **asdict(timings), "ratio": timings.ratio}
    print(f"| {name} | {error} |" + " |" * (len(HEADS) - 2), flush=True)
    return {"case": name, "model": case.model, "error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="which to time")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each case, three times")
    parser.add_argument("--preset", default="standard")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="SECTION.NAME=VALUE", help="a setting of the run"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too, after every case")
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
    print("| " + " | ".join(HEADS) + " |\n" + "| --- " * len(HEADS) + "|", flush=True)
    done: list[dict[str, Any]] = []
    for name in options.cases:
        done.append(run_case(name, options, device))
        if options.json is not None:
            options.json.write_text(json.dumps(done, indent=1) + "\n")
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if failed := [figures["case"] for figures in done if "error" in figures]:
        raise SystemExit(f"gpu_step.py: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
