# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guidance is: a denoiser that knows no renderer, and a rule that turns its predictions into image gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from .prediction import PredictionType

if TYPE_CHECKING:
    from ..cameras.poses import Cameras
    from ..text.prompts import PromptConditioning


@dataclass(frozen=True)
class Conditioning:
    """What a denoiser was told about n pictures: named tensors with n rows each, opaque to everybody else.

    Raises ValueError when there is no tensor or the tensors differ in their number of rows.
    """

    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if len({len(tensor) for tensor in self.tensors.values()}) != 1:
            shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
            raise ValueError(f"conditioning of {shapes}: allowed are one or more tensors of equally many rows")

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Conditioning:
        """The chosen rows; an int gives a conditioning of one row. Raises IndexError outside the rows."""
        if isinstance(index, int):
            index = [range(len(self))[index]]
        return Conditioning({name: tensor[index] for name, tensor in self.tensors.items()})

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors.values())).device

    def to(self, device: torch.device | str) -> Conditioning:
        """The same rows on another device."""
        return Conditioning({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def with_tensors(self, **tensors: Tensor) -> Conditioning:
        """The same rows, knowing more."""
        return Conditioning({**self.tensors, **tensors})

    @staticmethod
    def stack(parts: Sequence[Conditioning]) -> Conditioning:
        """All rows of all parts, in order. Raises ValueError when the parts hold different tensors."""
        names = {tuple(sorted(part.tensors)) for part in parts}
        if len(names) != 1:
            raise ValueError(f"cannot stack conditionings that hold {sorted(names)}; allowed are ones of one denoiser")
        return Conditioning({name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors})


@runtime_checkable
class Denoiser(Protocol):
    """A frozen diffusion model; it knows no classifier-free guidance and no renderer."""

    image_size: int

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of z_t = alpha_t x + sigma_t eps, each (n,), for t (n,) in [0, 1]."""
        ...

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt; the empty prompt is the unconditional model."""
        ...

    def predict_noise(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """eps_phi(z_t; y, t), like z_t, (n, 3, h, w) in [-1, 1] or latents; never with a gradient."""
        ...


@runtime_checkable
class NativeDenoiser(Denoiser, Protocol):
    """A denoiser that also gives what it was trained to predict, which loses no digits on the way to noise."""

    prediction_type: PredictionType

    def predict(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The model's own output, of `prediction_type` (`guidance.prediction`)."""
        ...


@runtime_checkable
class LatentDenoiser(Denoiser, Protocol):
    """A denoiser whose space is not the picture's: z has shape (n, channels, latent_size, latent_size).

    `image_size` is in pixels, as for every denoiser. Pixel models are their own space and have no `encode`.
    """

    channels: int
    latent_size: int

    def encode(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """z of pictures x (n, 3, image_size, image_size) in [-1, 1], float32, differentiable with respect to x."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Pictures (n, 3, image_size, image_size), about [-1, 1], float32, without gradient; never needed in a step."""
        ...


@runtime_checkable
class CameraAware(Protocol):
    """A denoiser that is told where the pictures are taken from (oracles, multi-view models)."""

    def with_cameras(self, conditioning: Conditioning, cameras: Cameras) -> Conditioning:
        """The conditioning, row i knowing camera i."""
        ...


@dataclass(frozen=True)
class GuidanceResult:
    """Gradient (n, 3, h, w) with respect to the [0, 1] image, and named numbers for monitors."""

    gradient: Tensor
    scalars: Mapping[str, float]


@dataclass(frozen=True)
class LayerGradients:
    """Gradients with respect to premultiplied color (n, 3, h, w) and opacity (n, 1, h, w), and numbers for monitors."""

    color: Tensor
    opacity: Tensor
    scalars: Mapping[str, float]


class Guidance(Protocol):
    """A rule that says how an image should change."""

    def gradient(
        self,
        image: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> GuidanceResult:
        """Image (n, 3, h, w) in [0, 1], progress in [0, 1]: the gradient of each view, summed over its pixels."""
        ...


@runtime_checkable
class LayeredGuidance(Guidance, Protocol):
    """A guidance that chooses what stands behind the object, and so wants it without a background."""

    def layer_gradients(
        self,
        color: Tensor,
        opacity: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> LayerGradients:
        """Color (n, 3, h, w) premultiplied in [0, 1], opacity (n, 1, h, w): the gradient of each view."""
        ...
