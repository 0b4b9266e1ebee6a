# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of what guides a run: score distillation, CLIP, the model's weights and its text encoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .setting import GuidanceKind, Rule, Section, setting

DIFFUSION: tuple[GuidanceKind, ...] = ("diffusion",)
TIME, WEIGHT = (0, 1), (0, 100)
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class GuidanceConfig:
    SECTION: ClassVar = Section("Score distillation, and the words that a view adds to the prompt.")

    rule: Rule = setting(
        "sds",
        guidance=DIFFUSION,
        help=(
            "Rule of distillation. sds: DreamFusion's. csd: the classifier's part of it alone. sdi: with the noise of "
            "DDIM inversion. vsd: ProlificDreamer's, with a LoRA trained on the renders."
        ),
    )
    omega: float = setting(
        100.0,
        (0, 1000),
        panel=True,
        label="Guidance Weight",
        guidance=DIFFUSION,
        duration=False,
        help=(
            "How strictly the prompt is followed: omega in (1 + omega) eps_c - omega eps_u. diffusers' guidance_scale "
            "is 1 + omega."
        ),
    )
    rescale: float = setting(
        0.0,
        (0, 1),
        unit="share",
        guidance=DIFFUSION,
        duration=False,
        help=(
            "CFG rescale (Lin et al. 2023): how far the contrast of the guided x0 goes back to that of eps_c's. It "
            "keeps a large omega from saturating colors."
        ),
    )
    t_min: float = setting(
        0.02, TIME, at_most="t_max", guidance=DIFFUSION, duration=False, help="Lowest diffusion time."
    )
    t_max: float = setting(0.98, TIME, guidance=DIFFUSION, duration=False, help="Highest diffusion time at the start.")
    t_min_end: float = setting(
        0.0,
        (1e-3, 1),
        zero="guidance.t_min throughout",
        at_most="t_max_end",
        guidance=DIFFUSION,
        duration=False,
        help="Lowest diffusion time once annealed.",
    )
    t_max_end: float = setting(
        0.98, TIME, guidance=DIFFUSION, duration=False, help="Highest diffusion time once annealed."
    )
    t_anneal_begin: float = setting(
        0.0,
        TIME,
        unit="share of the run",
        guidance=DIFFUSION,
        duration=False,
        help="Part of the run before the times change.",
    )
    t_anneal_share: float = setting(
        1.0,
        TIME,
        unit="share of the run",
        guidance=DIFFUSION,
        duration=False,
        help="Part of the run over which the times change linearly. 0: at once.",
    )
    weighting: Literal["sigma2", "uniform", "clean"] = setting(
        "sigma2",
        guidance=DIFFUSION,
        duration=False,
        help="w(t) of eq 3: sigma_t^2, or 1, or clean: sigma_t / alpha_t, whose gradient is x - x0_hat.",
    )
    noises: int = setting(
        1,
        (1, 64),
        guidance=DIFFUSION,
        help=(
            "Pairs of time and noise for a view, whose gradients are averaged, from one render and one call of the "
            "network. More pairs give less noise in the gradient, and take more time and memory."
        ),
    )
    view_dependent: bool = setting(
        True,
        panel=True,
        label="View-Dependent Prompt",
        duration=False,
        help='Append the side that a camera sees to the prompt, such as "front view".',
    )
    overhead_elevation: float = setting(
        60.0, (-90, 90), unit="degrees", duration=False, help='Elevation above which a view is an "overhead view".'
    )
    side_azimuth: float = setting(
        45.0,
        (1, 89),
        unit="degrees",
        duration=False,
        help='Angle from the front or the back beyond which a view is a "side view" (view_words four).',
    )
    view_words: Literal["four", "eight", "sixteen"] = setting(
        "four",
        duration=False,
        help=(
            'Directions that have words. four: front, side, back, overhead. eight: also "front left view". sixteen: '
            'also "front left overhead view".'
        ),
    )
    textureless_words: str = setting(
        "", duration=False, help="Appended to the prompt of textureless renders, for models trained with such captions."
    )
    negative_prompt: str = setting("", duration=False, help="The prompt of eps_u. CLIP has no use for it.")
    opposite_weight: float = setting(
        0.0,
        WEIGHT,
        guidance=DIFFUSION,
        help=(
            "Weight of the opposite side's prompt as a perpendicular negative (Perp-Neg). 0 disables it and saves one "
            "forward pass, or two with guidance.perp_neg azimuth."
        ),
    )
    perp_neg: Literal["opposite", "azimuth"] = setting(
        "opposite",
        guidance=DIFFUSION,
        help=(
            "Perp-Neg's negatives. opposite: the prompt of the opposite side. azimuth: those of front and side, with "
            "weights that follow the angle, times guidance.opposite_weight, and prompts are blended between two view "
            "words, as in threestudio (view_words four)."
        ),
    )
    gradient_clip: float = setting(
        0.0,
        (0, 1e9),
        zero="no clipping",
        guidance=DIFFUSION,
        duration=False,
        help="Largest norm of one view's image gradient.",
    )

    csd_negative: float = setting(
        1.0,
        (0, 2),
        unit="share of omega",
        guidance=DIFFUSION,
        rules=("csd",),
        help="Weight of the negative prompt at the start. 1: in place of the empty prompt.",
    )
    csd_negative_end: float = setting(
        0.5,
        (0, 2),
        unit="share of omega",
        guidance=DIFFUSION,
        rules=("csd",),
        help="Weight of the negative prompt at the end. It changes linearly over the whole run.",
    )
    inversion_steps: int = setting(
        10,
        (1, 100),
        guidance=DIFFUSION,
        rules=("sdi",),
        help="Steps of the DDIM inversion over all times. A view takes those up to its time.",
    )
    inversion_omega: float = setting(
        -8.5,
        (-1000, 1000),
        guidance=DIFFUSION,
        rules=("sdi",),
        help="omega of the inversion; -8.5 is diffusers' guidance_scale -7.5.",
    )
    inversion_eta: float = setting(
        0.3,
        (0, 1),
        guidance=DIFFUSION,
        rules=("sdi",),
        duration=False,
        help="Noise that the inversion adds, as a share of DDPM's. 0: none.",
    )
    lora_rank: int = setting(
        4, (1, 256), guidance=DIFFUSION, rules=("vsd",), help="Rank of the LoRA that estimates the renders' score."
    )
    lora_rate: float = setting(
        1e-4, (0, 1), guidance=DIFFUSION, rules=("vsd",), duration=False, help="Learning rate of the LoRA, by AdamW."
    )
    lora_recompute: bool = setting(
        False,
        identity=False,
        reduce_memory=(True,),
        guidance=DIFFUSION,
        rules=("vsd",),
        help="Gradient checkpointing of the network while the LoRA learns: less memory, slower.",
    )

    @property
    def opposite_prompts(self) -> int:
        """Negatives of Perp-Neg, each a row of the network's batch for every image: 0, 1 or 2."""
        return 0 if self.opposite_weight == 0 else 2 if self.perp_neg == "azimuth" else 1

    @property
    def rows_per_draw(self) -> int:
        """Rows of the network's batch for each draw of a view."""
        guided = 2 + self.opposite_prompts
        if self.rule == "csd":
            shares = self.csd_negative, self.csd_negative_end
            return guided + (self.negative_prompt != "" and shares != (1, 1))
        unguided = self.omega == 0 and (self.rule != "sdi" or self.inversion_omega == 0)
        return 1 if unguided else guided


@dataclass(frozen=True)
class ClipConfig:
    """Numbers of Dream Fields (Jain et al. 2022), as its published code sets them."""

    SECTION: ClassVar = Section("Augmentations of CLIP guidance.", guidance=("image-text",))

    crops: int = setting(8, (1, 64), help="Random crops of a view, each before a background of its own.")
    crop_share: float = setting(224 / 252, (0.1, 1), unit="share of the view", help="Side of a crop.")
    backgrounds: bool = setting(True, help="Noise, checkerboards and Fourier textures behind the crops. Off: white.")


@dataclass(frozen=True)
class ModelConfig:
    SECTION: ClassVar = Section("How the model's weights are loaded and run.", guidance=DIFFUSION)

    dtype: Precision = setting(
        "auto",
        identity=False,
        reduce_memory=("float16", "bfloat16"),
        guidance=("diffusion", "image-text"),
        help="Precision of the network. auto: float16 on a GPU, else float32.",
    )
    image_size: int = setting(
        0,
        (0, 4096),
        unit="pixels a side",
        zero="its own size",
        reduce_memory=(512, 256),
        help="Image that a latent model is shown. A smaller one is faster and shows less.",
    )
    compile: Literal["off", "default", "reduce-overhead"] = setting(
        "off", help="torch.compile of the network, which takes minutes at the start. reduce-overhead: with CUDA graphs."
    )
    channels_last: bool = setting(
        False,
        help=(
            "Channels-last memory layout, which speeds up half-precision convolutions on a GPU. For models with a "
            "U-Net."
        ),
    )
    attention_slicing: bool = setting(
        False,
        identity=False,
        help="Compute attention one head at a time: less memory, slower. For models with a U-Net.",
    )
    vae_tiling: bool = setting(
        False, identity=False, help="The VAE works on overlapping tiles: less memory, faint differences at their seams."
    )
    offload: Literal["off", "blocks", "leaves"] = setting(
        "off",
        identity=False,
        reduce_memory=("blocks", "leaves"),
        help="Keep the network in main memory and move it to the GPU block by block or layer by layer: slower.",
    )
    vae_recompute: bool = setting(
        False,
        identity=False,
        reduce_memory=(True,),
        help="Gradient checkpointing of the VAE encoder, view by view: less memory, slower.",
    )
    loras: str = setting(
        "",
        help=(
            "LoRA files, or names of files in the folder loras beside the models, with their weights: "
            "FILE:0.8; NAME. For Stable Diffusion 1.x, 2.x and XL. A run knows them by their contents."
        ),
    )


@dataclass(frozen=True)
class TextConfig:
    SECTION: ClassVar = Section("Where and how text encoders run.", identity=False, guidance=DIFFUSION)

    process: Literal["auto", "own", "same"] = setting(
        "auto", help="Process of the text encoders. auto: a process of their own from 500 MB on."
    )
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", help="auto: the device of the run, or the CPU where they do not fit there."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = setting(
        "auto", help="auto: the network's on its device, float32 on the CPU."
    )
    cache: bool = setting(
        True, help="Keep embeddings in the user's cache folder. A prompt that is cached needs no encoder."
    )
