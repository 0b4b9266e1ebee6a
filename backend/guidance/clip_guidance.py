# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP guidance (Dream Fields, Jain et al. 2022, eq 4): minus the cosine of an image's and a prompt's embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..config.schema import ClipConfig
from ..errors import RunError
from ..runtime.rng import sample_for_views
from ..text.conditioning import PromptConditioning
from .backgrounds import random_backgrounds
from .clip_model import TEXT, ImageTextModel, normalize_images
from .interfaces import GuidanceResult, LayerGradients

if TYPE_CHECKING:
    from ..cameras.poses import Cameras


class ClipGuidance:
    """-cosine, by autograd through the image tower.

    Implements `Guidance` for any images, and `LayeredGuidance` for images whose background it chooses.
    """

    def __init__(self, model: ImageTextModel, config: ClipConfig) -> None:
        self.model, self.config = model, config

    def gradient(
        self,
        image: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> GuidanceResult:
        """d(-cosine) / d(image), (n, 3, h, w), of the images as they are: no crops, no backgrounds, no random numbers.

        Scalars: cosine, gradient_norm (means over views). Raises RunError for NaN or infinity.
        """
        leaf = image.detach().requires_grad_()
        with torch.enable_grad():
            cosine = (self.model.embed_images(leaf) * _text(conditioning)).sum(-1)
            gradient = torch.autograd.grad(-cosine.sum(), leaf)[0]
        _check_finite(gradient)
        return GuidanceResult(gradient, _scalars(cosine, gradient))

    def layer_gradients(
        self,
        color: Tensor,
        opacity: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> LayerGradients:
        """Gradients of the mean of -cosine over `clip.crops` random crops of a view, each with its own background.

        `color` (n, 3, h, w) is premultiplied (composited on black); `opacity` is (n, 1, h, w). Crops are square, of
        `clip.crop_share` of the width, and resized bicubically. Scalars and errors as `gradient`.
        """
        layers = torch.cat([color, opacity], dim=1).detach().requires_grad_()
        views, crops = len(layers), self.config.crops
        with torch.enable_grad():
            cut = self._cropped(layers, generator)
            if self.config.backgrounds:
                behind = random_backgrounds(views, crops, self.model.image_size, generator).to(cut).flatten(0, 1)
            else:
                behind = torch.ones_like(cut[:, :3])
            images = (cut[:, :3] + (1 - cut[:, 3:]) * behind).clamp(0, 1)
            embedded = self.model.embed_pixels(normalize_images(images, self.model.preprocessing))
            text = _text(conditioning).repeat_interleave(crops, dim=0)
            cosine = (embedded * text).sum(-1).view(views, crops).mean(1)
            gradient = torch.autograd.grad(-cosine.sum(), layers)[0]
        _check_finite(gradient)
        return LayerGradients(gradient[:, :3], gradient[:, 3:], _scalars(cosine, gradient))

    def _cropped(self, layers: Tensor, generator: torch.Generator) -> Tensor:
        """Random crops of the layers (views * crops, 4, size, size), view by view."""
        views, side = len(layers), layers.shape[-1]
        cut = max(1, round(self.config.crop_share * side))
        # As many positions as Dream Fields' integer sampling has, and one where nothing is cut off.
        uniform = sample_for_views(torch.rand, (views, self.config.crops, 2), generator)
        corner = (uniform * max(1, side - cut)).long().tolist()
        parts = [
            layers[view, :, top : top + cut, left : left + cut] for view in range(views) for top, left in corner[view]
        ]
        stacked, size = torch.stack(parts), self.model.image_size
        if cut == size:
            return stacked
        return functional.interpolate(stacked, (size, size), mode="bicubic", align_corners=False, antialias=True)


def _text(conditioning: PromptConditioning) -> Tensor:
    return conditioning.positive.tensors[TEXT]


def _scalars(cosine: Tensor, gradient: Tensor) -> dict[str, float]:
    return {"cosine": float(cosine.detach().mean()), "gradient_norm": float(gradient.flatten(1).norm(dim=1).mean())}


def _check_finite(gradient: Tensor) -> None:
    if not bool(torch.isfinite(gradient).all()):
        raise RunError(
            "the image-text model returned NaN or infinity; gradients must be finite; set model.dtype to bfloat16 or "
            "float32"
        )
