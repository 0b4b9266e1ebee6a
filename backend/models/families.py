# SPDX-License-Identifier: GPL-3.0-or-later
"""Families of text-to-image pipelines that guidance supports: the parts of each and their allowed classes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from .mvdream_layout import NETWORK as MVDREAM_UNET

FamilyName = Literal["pixel", "multi-view", "multi-view-latent", "latent", "sdxl", "flow"]

# Schedulers with the table alphas_cumprod; guidance reads that table and uses no sampler.
DIFFUSION_SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
)
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler",)
PLAIN_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", *PLAIN_TOKENIZERS)
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast", *PLAIN_TOKENIZERS)
VAES = ("AutoencoderKL",)


@dataclass(frozen=True)
class TextPart:
    """One text encoder with its tokenizer, by the names of their folders, and the most tokens that it reads."""

    encoder: str
    tokenizer: str
    max_tokens: int
    optional: bool = False  # the pipeline's index may say null for both


@dataclass(frozen=True)
class Family:
    """A kind of pipeline; `parts` maps folder names to the classes allowed in them."""

    name: FamilyName
    pipelines: tuple[str, ...]  # class names in model_index.json
    parts: Mapping[str, tuple[str, ...]]
    network: str  # the part that denoises
    text: tuple[TextPart, ...]

    @property
    def works_on_pixels(self) -> bool:
        """Whether its network denoises images, not latents."""
        return "vae" not in self.parts

    @property
    def optional(self) -> frozenset[str]:
        """Parts that may be null."""
        return frozenset(name for part in self.text if part.optional for name in (part.encoder, part.tokenizer))


PIXEL = Family(
    "pixel",
    ("IFPipeline",),
    {
        "unet": ("UNet2DConditionModel",),
        "scheduler": DIFFUSION_SCHEDULERS,
        "tokenizer": (*T5_TOKENIZERS, "CLIPTokenizer", "CLIPTokenizerFast"),
        "text_encoder": ("T5EncoderModel", "CLIPTextModel"),
    },
    "unet",
    (TextPart("text_encoder", "tokenizer", 77),),  # DeepFloyd IF pads to this although T5 reads more
)
# The starter: diffusers has no pipeline class for a pixel model of several views.
MULTI_VIEW = replace(PIXEL, name="multi-view", pipelines=("MultiViewIFPipeline",))
LATENT = Family(
    "latent",
    ("StableDiffusionPipeline",),
    {
        "unet": ("UNet2DConditionModel",),
        "vae": VAES,
        "scheduler": DIFFUSION_SCHEDULERS,
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder": ("CLIPTextModel",),
    },
    "unet",
    (TextPart("text_encoder", "tokenizer", 77),),
)
# MVDream in the layout of its published folder, whose U-Net `mvdream_layout` reads as diffusers'.
MULTI_VIEW_LATENT = replace(
    LATENT,
    name="multi-view-latent",
    pipelines=("MVDreamPipeline",),
    parts={**LATENT.parts, "unet": (MVDREAM_UNET,)},
)
SDXL = Family(
    "sdxl",
    ("StableDiffusionXLPipeline",),
    {
        "unet": ("UNet2DConditionModel",),
        "vae": VAES,
        "scheduler": DIFFUSION_SCHEDULERS,
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder": ("CLIPTextModel",),
        "tokenizer_2": CLIP_TOKENIZERS,
        "text_encoder_2": ("CLIPTextModelWithProjection",),
    },
    "unet",
    (TextPart("text_encoder", "tokenizer", 77), TextPart("text_encoder_2", "tokenizer_2", 77)),
)
FLOW = Family(
    "flow",
    ("StableDiffusion3Pipeline",),
    {
        "transformer": ("SD3Transformer2DModel",),
        "vae": VAES,
        "scheduler": FLOW_SCHEDULERS,
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder": ("CLIPTextModelWithProjection",),
        "tokenizer_2": CLIP_TOKENIZERS,
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer_3": T5_TOKENIZERS,
        "text_encoder_3": ("T5EncoderModel",),
    },
    "transformer",
    (
        TextPart("text_encoder", "tokenizer", 77),
        TextPart("text_encoder_2", "tokenizer_2", 77),
        TextPart("text_encoder_3", "tokenizer_3", 256, optional=True),  # zeros stand in for it
    ),
)
FAMILIES = (PIXEL, MULTI_VIEW, LATENT, MULTI_VIEW_LATENT, SDXL, FLOW)
BY_PIPELINE: Mapping[str, Family] = {pipeline: family for family in FAMILIES for pipeline in family.pipelines}
# Parts that change what a pipeline computes. One that the family lacks shows that parts of different models are mixed.
DISTINCTIVE_PARTS = (
    "unet",
    "transformer",
    "prior",
    "vae",
    "vqvae",
    "movq",
    "vae_decoder",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "controlnet",
)


def pipeline_class(index: Mapping[str, Any]) -> str:
    """The class in a model_index.json, which is a name or, with code of the folder's own, [module, name]."""
    name = index.get("_class_name", "pipeline without a class name")
    return str(name[-1] if isinstance(name, list) and name else name)


def supported() -> str:
    """The supported pipeline classes, for messages."""
    return ", ".join(BY_PIPELINE)
