# SPDX-License-Identifier: GPL-3.0-or-later
"""Conditioning tensors of a model, and the protocol of whatever encodes prompts to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Conditioning of n images: named tensors with n rows each, opaque to all but the denoiser.

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
        """The same rows with further tensors."""
        return Conditioning({**self.tensors, **tensors})

    @staticmethod
    def blend(first: Conditioning, second: Conditioning, share: Tensor) -> Conditioning:
        """share first + (1 - share) second, share (n,) in [0, 1], of all tensors, which are floating-point numbers."""

        def mixed(one: Tensor, other: Tensor) -> Tensor:
            part = share.to(one.device).view(-1, *[1] * (one.dim() - 1))
            return (part * one + (1 - part) * other).to(one.dtype)

        return Conditioning({name: mixed(one, second.tensors[name]) for name, one in first.tensors.items()})

    @staticmethod
    def stack(parts: Sequence[Conditioning]) -> Conditioning:
        """All rows of all parts, in order. Raises ValueError when the parts hold different tensors."""
        names = {tuple(sorted(part.tensors)) for part in parts}
        if len(names) != 1:
            raise ValueError(f"cannot stack conditionings that hold {sorted(names)}; allowed are ones of one denoiser")
        return Conditioning({name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors})


@dataclass(frozen=True)
class Negatives:
    """Perp-Neg's negatives of n views: one or more prompts of n rows each, with the weight (n,) of each row, float64.

    A weight is 0 or more. Raises ValueError when prompts and weights differ in their number or their rows.
    """

    prompts: tuple[Conditioning, ...]
    weights: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        rows = [len(prompt) for prompt in self.prompts]
        if not rows or rows != [len(weight) for weight in self.weights] or len(set(rows)) != 1:
            raise ValueError(
                f"negatives of {rows} rows with weights of shapes {[tuple(weight.shape) for weight in self.weights]}; "
                "allowed are one or more prompts of equally many rows, with a weight for each row"
            )

    @staticmethod
    def of(prompt: Conditioning, weight: float) -> Negatives:
        """One prompt, of one weight in all views."""
        return Negatives((prompt,), (torch.full((len(prompt),), weight, dtype=torch.float64),))

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Negatives:
        """The chosen views."""
        return Negatives(
            tuple(prompt[rows] for prompt in self.prompts),
            tuple(weight[rows.cpu() if isinstance(rows, Tensor) else rows] for weight in self.weights),
        )

    def with_prompts(self, change: Callable[[Conditioning], Conditioning]) -> Negatives:
        """Each prompt as `change` gives it, of n rows or of n rows several times over; weights are repeated alike."""
        prompts = tuple(map(change, self.prompts))
        times = len(prompts[0]) // len(self.weights[0])
        return Negatives(prompts, tuple(weight.repeat(times) for weight in self.weights))


@dataclass(frozen=True)
class PromptConditioning:
    """Conditioning of n views: rows of the prompt, of the negative prompt and, for Perp-Neg, of the prompt with other
    views' texts; `empty` is of the empty prompt, for rules that need it beside another negative prompt; `words`
    are the prompts' texts.
    """

    positive: Conditioning
    negative: Conditioning
    words: tuple[str, ...]
    opposite: Negatives | None = None
    empty: Conditioning | None = None


class TextEncoder(Protocol):
    """Encodes prompts for a denoiser, in this process or in another."""

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt, on any device."""
        ...

    def free(self) -> None:
        """Release the memory of the encoders; embeddings that are cached stay available."""
        ...


class PromptEncoder(Protocol):
    """Text side of a model, all that `text.prompts.PromptEmbeddings` needs: embeddings, and a check of a prompt."""

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt; the empty prompt is the unconditional model."""
        ...

    def check_prompt(self, prompt: str) -> list[str]:
        """Warnings about a prompt that the model can use. Raises PromptError: empty, or words that it does not know."""
        ...
