# SPDX-License-Identifier: GPL-3.0-or-later
"""The device memory that a run needs, estimated before anything is loaded, and compared with what is free.

Weights are exact, from the safetensors headers. Activations follow one rule a family, in numbers of the network's dtype
for each image, measured on the CPU with torch 2.13 (`tests/unit/test_memory.py` measures again):

    U-Net       skip connections + K max_i(C_i h_i^2), K = 12 without transformer blocks (pixel models), 21 with them
    transformer 10 x tokens x width
    LoRA        G sum_i((2 l_i + 1) C_i h_i^2) for the graph of one view, l_i layers of level i, G = 36 with transformer
                blocks, 13 without them, and G = 12 of tokens x width of each layer of a transformer; where it is
                recomputed 7 or 8 and 1.3 of those and the graph of one block
    VAE encoder 13.5 sum_i(C_i h_i^2) with its gradient; with `model.vae_recompute` 2 while the network runs, 7 after it
    renderer    170 bytes a sample of a ray; the mip MLP besides 88 bytes x width x blocks a point of one chunk, the
                hash grid 8 bytes x features x levels a sample; the compiled loops 400 bytes a ray and 66 numbers a cell
    field       weight, gradient and optimizer state of each parameter; voxels 24 numbers a cell besides, the hash grid
                another gradient of its table
    rasterizer  320 bytes a pixel, each of a supersampled one, and 300 a face of each view
    mesh        600 bytes a vertex, 140 a texel

with C_i channels and h_i pixels a side of level i. The estimate is within a factor of two of the measured peak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config.parsing import apply_settings
from ..config.schema import Config
from ..config.usage import memory_settings, resumable_memory_settings
from ..errors import ConfigError, InsufficientMemoryError
from ..fields.dense_grids import is_compiled
from .activation_numbers import graph_numbers, network_numbers, vae_work
from .lora_targets import camera_numbers, lora_numbers
from .parameter_counts import largest_tensor, resident_numbers, weight_bytes
from .pipeline_folder import PipelineFolder
from .scene_memory import (
    RAY_BYTES,
    field_bytes,
    field_weight_bytes,
    mesh_bytes,
    mesh_renderer_bytes,
    renderer_bytes,
    views_together,
)

GB = 1e9
LORA_COPIES = 5  # of each number: weight, gradient, its sum over views, two moments
VIEW_SAMPLE_BYTES = 90  # a sample of a preview's ray
PREVIEW_RAYS = 2 * 96 * 96
WORTH_NAMING = 20_000_000  # bytes that a setting must save to be advised
LIBRARIES = 400_000_000  # bytes that cuBLAS, cuDNN and fragmentation take on a CUDA device
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by purpose; all of them are needed at the same time."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        named = ", ".join(f"{name} {size_text(size)}" for name, size in self.parts.items() if size >= 0.01 * self.total)
        return f"about {size_text(self.total)} ({named})"


def estimate_memory(
    folder: PipelineFolder,
    config: Config,
    dtype: torch.dtype,
    device: torch.device | str,
    surface_folder: PipelineFolder | None = None,
) -> MemoryEstimate:
    """The memory that a run needs on this device, in that of its stages which needs most.

    Text encoders do not count, as they are freed before, nor does the making of a mesh between the stages.
    surface_folder: of the model of a field's surface stage, where it is another one than the field's; one is freed
    before the other is loaded. Raises ModelError for files that cannot be read.
    """
    field = MemoryEstimate(_field_stage(folder, config, dtype, device))
    if not config.surface.steps:
        return field
    surface = MemoryEstimate(_surface_stage(surface_folder or folder, config.for_surface_model, dtype, device))
    return max(field, surface, key=lambda estimate: estimate.total)


def _field_stage(
    folder: PipelineFolder, config: Config, dtype: torch.dtype, device: torch.device | str
) -> dict[str, int]:
    """Bytes by purpose while a field is optimized."""
    stages = [views_together(config, progress) for progress in (0.0, 1.0)]  # with the early resolution, and after it
    parts = _guidance_parts(folder, config, dtype, device, max(stages))
    compiled = is_compiled(config.render, config.field, device)
    rendered = (
        renderer_bytes(config, views, progress, compiled) for views, progress in zip(stages, (0.0, 1.0), strict=True)
    )
    preview = PREVIEW_RAYS * (RAY_BYTES if compiled else VIEW_SAMPLE_BYTES * config.render.samples)
    return {
        **parts,
        "renderer": max(*rendered, preview - _activations(parts)),
        "field and optimizer": field_bytes(config),
        **_libraries(device),
    }


def _surface_stage(
    folder: PipelineFolder, config: Config, dtype: torch.dtype, device: torch.device | str
) -> dict[str, int]:
    """Bytes by purpose while the field's mesh is optimized; the field's weights are kept."""
    views = views_together(config, 1.0)
    return {
        **_guidance_parts(folder, config, dtype, device, views),
        "rasterizer": mesh_renderer_bytes(config, views),
        "mesh, texture and optimizer": mesh_bytes(config),
        "field": field_weight_bytes(config),
        **_libraries(device),
    }


def _activations(parts: Mapping[str, int]) -> int:
    """What the guidance frees before a preview: it is larger than a step's views may be."""
    return sum(size for name, size in parts.items() if "activations" in name)


def _libraries(device: torch.device | str) -> dict[str, int]:
    return {"CUDA's libraries": LIBRARIES} if torch.device(device).type == "cuda" else {}


def _guidance_parts(
    folder: PipelineFolder, config: Config, dtype: torch.dtype, device: torch.device | str, views: int
) -> dict[str, int]:
    """Bytes by purpose of a diffusion model that scores so many views together."""
    offload = config.model.offload if torch.device(device).type != "cpu" else "off"
    parts = {"network": resident_numbers(folder, folder.network, offload, dtype) * dtype.itemsize}
    activations = views * config.guidance.noises * config.guidance.rows_per_draw * network_numbers(folder, config)
    if config.guidance.rule == "vsd":
        lora = lora_numbers(folder, config.guidance.lora_rank, dtype) + camera_numbers(folder)
        parts["LoRA and its optimizer"] = LORA_COPIES * torch.float32.itemsize * lora
        activations = max(activations, views * graph_numbers(folder, config))
    activations += largest_tensor(folder, folder.network, dtype)
    parts["its activations"] = activations * dtype.itemsize
    if "vae" in folder.classes:
        upcast = dtype == torch.float16 and folder.config("vae").get("force_upcast", False)
        number = torch.float32 if upcast else dtype
        parts["VAE"] = weight_bytes(folder, "vae", number)
        work = views * vae_work(folder, config) * number.itemsize
        recomputed = max(2 * work, 7 * work - parts["its activations"])
        parts["its encoder's activations"] = recomputed if config.model.vae_recompute else int(13.5 * work)
    return parts


def check_memory(
    folder: PipelineFolder,
    config: Config,
    dtype: torch.dtype,
    device: torch.device | str,
    surface_folder: PipelineFolder | None = None,
) -> str:
    """One line with the memory that is needed and free; see `estimate_memory`.

    Raises InsufficientMemoryError with advice when the run cannot fit.
    """
    needed, free = estimate_memory(folder, config, dtype, device, surface_folder), free_bytes(device)
    if free is None:
        return f"memory: {needed} on {device}, whose free memory is unknown"
    if needed.total > free and not config.run.ignore_memory:
        advice = reduce_memory(
            folder, config, dtype, device, memory_settings(), fits=free, surface_folder=surface_folder
        )
        raise InsufficientMemoryError(
            f"this run needs {needed} on {device}, where {size_text(free)} is free; {advice}; or free some memory, "
            "or set run.ignore_memory=true to try all the same"
        )
    return f"memory: {needed} of {size_text(free)} free on {device}"


def reduce_memory(
    folder: PipelineFolder,
    config: Config,
    dtype: torch.dtype,
    device: torch.device | str,
    candidates: Sequence[str] = resumable_memory_settings(),
    fits: int | None = None,
    otherwise: str = "no setting would help much; choose a smaller model",
    surface_folder: PipelineFolder | None = None,
) -> str:
    """Advice: the candidates that save memory, the most effective first, each with what it saves on its own.

    `fits`: bytes that the run must fit in, if known. `otherwise`: the advice where no candidate helps.
    """
    now = estimate_memory(folder, config, dtype, device, surface_folder).total
    savings: dict[str, int] = {}
    for setting in candidates:
        name, _, value = setting.partition("=")
        if name == "model.dtype":
            smaller = getattr(torch, value)
            useful = torch.device(device).type == "cuda" or value == "bfloat16"
            changed, number = config, smaller if useful and smaller.itemsize < dtype.itemsize else dtype
        else:
            try:
                changed, number = apply_settings(config, [setting]), dtype
            except ConfigError:
                continue  # it contradicts another setting
        saved = now - estimate_memory(folder, changed, number, device, surface_folder).total
        if saved > max(0.02 * now, WORTH_NAMING) and not any(
            known.split("=")[0] == name and savings[known] >= saved for known in savings
        ):
            savings[setting] = saved
    if not savings:
        return otherwise
    ranked = sorted(savings, key=lambda setting: -savings[setting])
    listed = ", ".join(f"{setting} (saves {size_text(savings[setting])})" for setting in ranked[:4])
    enough = fits is None or now - max(savings.values()) <= fits
    return f"lower one of: {listed}" if enough else f"lower several of: {listed}; or choose a smaller model"


def free_bytes(device: torch.device | str) -> int | None:
    """Free bytes of a device, as CUDA reports them or as Linux's MemAvailable; None where they are unknown."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
    limit = _cgroup_left()
    return available if limit is None else min(available, limit)


def size_text(size: int) -> str:
    """A size with its unit: "2.5 GB", "81 MB"."""
    return f"{size / GB:.1f} GB" if size >= 0.1 * GB else f"{max(1, round(size / 1e6))} MB"


def _cgroup_left() -> int | None:
    """Bytes left below a container's limit (cgroup v2), not counting caches that can be dropped; None without one."""
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
