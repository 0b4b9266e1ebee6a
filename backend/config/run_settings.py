# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the run itself: its method, its length, its reports, and the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from dreamwright.shared.limits import SEED_LARGEST

from .setting import SceneKind, Section, setting

Method = Literal["dreamfusion", "dream-fields", "clip-mesh"]
SHARE, RATE = (0, 1), (0, 10)
PROMPTED: tuple[SceneKind, ...] = ("field", "sphere")  # scenes that start from a prompt alone


@dataclass(frozen=True)
class RunConfig:
    SECTION: ClassVar = Section("Length, views and reports of a run.")

    method: Method = setting(
        "dreamfusion",
        scenes=PROMPTED,
        help="What guides what: a diffusion model's score a field, CLIP's cosine a field, or CLIP's cosine a mesh.",
    )
    steps: int = setting(
        15000,
        (1, 1_000_000),
        panel=True,
        duration=False,
        help="Optimization steps. More steps give more detail and take longer.",
    )
    views_per_step: int = setting(
        4,
        (1, 64),
        panel=True,
        label="Views per Step",
        reduce_memory=(1,),
        help="Views rendered and scored by the model in one step.",
    )
    seed: int = setting(
        0, (0, SEED_LARGEST), duration=False, help="Seed of the field, the cameras, the lights and the noise."
    )
    checkpoint_interval: int = setting(
        500, (1, 1_000_000), unit="steps", identity=False, help="Steps between two checkpoints."
    )
    preview_interval: int = setting(
        100, (1, 1_000_000), unit="steps", identity=False, help="Steps between two preview images."
    )
    live_mesh_interval: int = setting(
        10,
        (1, 1_000_000),
        unit="steps",
        zero="none",
        identity=False,
        duration=False,
        help=(
            "Steps between two live meshes. They are made only while somebody watches the run, and wait where they "
            "would take more than 2% of its time."
        ),
    )
    max_restarts: int = setting(
        2,
        (0, 10),
        identity=False,
        duration=False,
        scenes=("field",),
        help="Restarts from another seed when a run is empty, full or not finite.",
    )
    threads: int = setting(
        0,
        (0, 1024),
        zero="PyTorch's own choice",
        identity=False,
        label="CPU Threads",
        help="Threads that PyTorch uses on the CPU.",
    )
    views_at_once: int = setting(
        0,
        (0, 64),
        zero="all of them",
        identity=False,
        reduce_memory=(1,),
        help=(
            "Views of a step that are rendered and scored together, at least those of a set. Fewer views take less "
            "memory; the step stays the same."
        ),
    )
    finetune_share: float = setting(
        0.5,
        (0, 0.99),
        panel=True,
        label="Keep when Fine-Tuning",
        duration=False,
        scenes=("field",),
        initial_field=True,
        help=(
            "Share of all schedules that is skipped by a run that starts from another run's field. A larger share "
            "keeps more of that field."
        ),
    )
    ignore_memory: bool = setting(
        False,
        identity=False,
        duration=False,
        scenes=("field",),
        guidance=("diffusion",),
        help="Start even when the memory estimate exceeds what is free.",
    )


@dataclass(frozen=True)
class OptimizerConfig:
    SECTION: ClassVar = Section("The optimizer of a field and its learning rates.", scenes=("field",))

    kind: Literal["shampoo", "adam"] = setting(
        "shampoo", reduce_memory=("adam",), help="Distributed Shampoo as in the paper, or Adam."
    )
    learning_rate: float = setting(1e-4, RATE, duration=False, help="Peak learning rate of the field.")
    color_rate_multiplier: float = setting(
        1.0,
        (0, 1000),
        duration=False,
        fields=("voxels", "hash-grid"),
        help="Factor on the learning rate of the albedo's grids or network.",
    )
    network_rate_multiplier: float = setting(
        1.0,
        (0, 1000),
        duration=False,
        fields=("hash-grid",),
        help="Factor on the learning rate of the density's network, beside that of the table of its grid.",
    )
    background_rate_multiplier: float = setting(
        1.0, (0, 1000), duration=False, help="Factor on the learning rate of the background."
    )
    warmup_start: float = setting(1e-9, RATE, duration=False, help="Learning rate at step 0, as an absolute number.")
    warmup_share: float = setting(
        3000 / 15000, SHARE, unit="share of the run", duration=False, help="Length of the linear warm-up."
    )
    final_rate: float = setting(
        1e-6, RATE, duration=False, help="Learning rate at the end of the cosine decay, as an absolute number."
    )
    beta1: float = setting(0.9, (0, 0.99999), duration=False, help="Decay of the first moment.")
    beta2: float = setting(0.9, (0, 0.99999), duration=False, help="Decay of the second moment.")
    epsilon: float = setting(
        1e-6, (1e-20, 1), duration=False, help="Added to denominators by Adam, to statistics by Shampoo."
    )
    weight_decay: float = setting(
        0.0,
        (0, 1),
        zero="Adam",
        unit="of the learning rate",
        duration=False,
        help="Share by which a step scales down all weights, as AdamW does.",
    )
    block_size: int = setting(128, (8, 4096), help="Largest side of a block that Shampoo preconditions.")
    exponent_override: int = setting(2, (1, 16), help="Shampoo takes the inverse root of this order.")
