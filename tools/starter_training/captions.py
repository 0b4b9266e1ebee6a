# SPDX-License-Identifier: GPL-3.0-or-later
"""Training pictures and their captions, composed on the fly from photograph records.

A record holds no color and no final lighting (`photograph.py`), so each draw chooses the prompt's color with a little
jitter, a plain background, and one of the looks that the optimization will render: albedo, shaded, untextured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dreamwright.backend.starter import domain


@dataclass(frozen=True)
class Batch:
    """n pictures (n, 3, r, r) in [0, 1] display sRGB, and what they show."""

    images: torch.Tensor
    captions: list[str]
    props: torch.Tensor  # (n,) index into domain.PROPS
    colors: torch.Tensor  # (n,) index into domain.COLORS, -1 where the look is untextured
    views: torch.Tensor  # (n,) index into domain.VIEWS


@dataclass(frozen=True)
class LookConfig:
    """How often each look and each incomplete caption is drawn."""

    albedo: float = 0.25  # probability of a picture without shading
    untextured: float = 0.25  # probability of white clay under the same light
    drop_caption: float = 0.1  # empty caption: the unconditional model of classifier-free guidance
    drop_view: float = 0.05  # caption without view words
    plain_side: float = 0.15  # a left or right side view is called just "side view" with this probability, and a view
    # from above and some direction just "overhead view"
    color_jitter: float = 0.02  # standard deviation of each display channel of the prompt's color
    background: tuple[float, float] = (0.3, 0.8)  # grey level behind the prop, uniform: neither white nor black hides
    background_tint: float = 0.03  # standard deviation of the background's display channels around its grey
    any_background: float = 0.2  # share of backgrounds of any color at all: before grey ones, grey parts are lost
    fronted: float = 2.0  # props with a front are drawn this much more often: they have more to learn
    overhead: float = 1.5  # and views from above: their eight directions share 40% of the photographs, the others 60%


class PhotographSet:
    """All records of a folder, held compactly; `sample` draws finished pictures."""

    def __init__(self, folder: Path, device: str = "cpu", looks: LookConfig = LookConfig()):
        files = sorted(folder.glob("shard-*.npy"))
        if not files:
            raise FileNotFoundError(f"no shard-*.npy in {folder}: run tools.starter_training.photograph first")
        self.device = device
        self.looks = looks
        self.records = torch.from_numpy(np.concatenate([np.load(file) for file in files])).to(device)
        props, azimuths, elevations = [], [], []
        for file in files:
            for entry in _entries(file.with_suffix(".json")):
                props.append(entry["prop"])
                azimuths.append(entry["azimuth"])
                elevations.append(entry["elevation"])
        if len(props) != len(self.records):
            raise ValueError(f"{folder}: {len(props)} descriptions for {len(self.records)} records; render it again")
        self.props = np.array(props)
        self.azimuths, self.elevations = np.array(azimuths), np.array(elevations)
        self.views = np.array(
            [domain.VIEWS.index(domain.view_of(a, e)) for a, e in zip(azimuths, elevations, strict=True)]
        )
        self.directions = [domain.direction_of(a, e) for a, e in zip(azimuths, elevations, strict=True)]
        fronted = torch.tensor([domain.PROPS[prop].has_front for prop in props])
        above = torch.from_numpy(self.views == domain.VIEWS.index("overhead"))
        self.weights = torch.where(fronted, looks.fronted, 1.0) * torch.where(above, looks.overhead, 1.0)
        self.colors = torch.tensor(list(domain.COLORS.values()), device=device)
        self.color_names = list(domain.COLORS)

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, n: int, resolution: int, generator: torch.Generator) -> Batch:
        """Draw n pictures of resolution x resolution pixels (a divisor of the records' size)."""

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(*shape, generator=generator).to(self.device)

        looks = self.looks
        index = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        color = torch.randint(len(self.color_names), (n,), generator=generator)
        look = torch.rand(n, generator=generator)
        albedo_only = look < looks.albedo
        untextured = look >= 1 - looks.untextured

        record = self.records[index.to(self.device)].permute(0, 3, 1, 2).float() / 255  # (n, 6, h, w)
        primary, secondary, alpha = record[:, :1], record[:, 1:4], record[:, 5:6]
        irradiance = 2 * record[:, 4:5].square()
        jitter = torch.randn(n, 3, generator=generator).to(self.device) * looks.color_jitter
        rgb = (self.colors[color.to(self.device)] + jitter).clamp(0, 1)
        surface = primary * rgb.view(n, 3, 1, 1) + secondary  # premultiplied
        white = untextured.to(self.device).view(n, 1, 1, 1)
        surface = torch.where(white, alpha.expand_as(surface), surface)
        # Display-space shading: between linear irradiance (what eq 7 renders) and its display encoding.
        gamma = 1 / 2.2 + (1 - 1 / 2.2) * uniform(n, 1, 1, 1)
        strength = 0.5 + 0.5 * uniform(n, 1, 1, 1)
        shade = 1 + strength * (irradiance.clamp(min=1e-4) ** gamma - 1)
        shade = torch.where(albedo_only.to(self.device).view(n, 1, 1, 1), torch.ones_like(shade), shade)
        background = self._backgrounds(n, generator)
        images = (surface * shade).clamp(max=1) + (1 - alpha) * background
        factor = images.shape[-1] // resolution
        if factor > 1:
            images = functional.avg_pool2d(images, factor)

        captions = [
            self._caption(int(i), int(c), bool(u), r)
            for i, c, u, r in zip(index, color, untextured, torch.rand(n, 3, generator=generator).tolist(), strict=True)
        ]
        rows = index.numpy()
        return Batch(
            images.clamp(0, 1),
            captions,
            torch.from_numpy(self.props[rows]),
            torch.where(untextured, torch.full_like(color, -1), color),
            torch.from_numpy(self.views[rows]),
        )

    def _backgrounds(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Plain colors (n, 3, 1, 1): greys, slightly tinted, and now and then any color at all.

        At high noise a colorful background is most of the loss, and drowns what the prompt says about shape.
        """
        looks = self.looks
        low, high = looks.background
        color = torch.rand(n, 3, generator=generator)
        level = low + (high - low) * torch.rand(n, 1, generator=generator)
        grey = level + looks.background_tint * torch.randn(n, 3, generator=generator)
        plain = torch.rand(n, 1, generator=generator) >= looks.any_background
        return torch.where(plain, grey, color).clamp(0, 1).view(n, 3, 1, 1).to(self.device)

    def _caption(self, row: int, color: int, untextured: bool, draws: list[float]) -> str:
        """The caption of one record under the chosen color and look; `draws` decide what is left out."""
        if draws[0] < self.looks.drop_caption:
            return ""
        direction = self.directions[row]
        if draws[1] < self.looks.plain_side:
            direction = (
                "overhead" if direction.endswith("overhead") else "side" if direction.endswith("side") else direction
            )
        words = f"{direction} view"
        prompt = domain.caption(domain.PROPS[self.props[row]].name, self.color_names[color], None)
        parts = [prompt]
        if untextured:
            parts.append("untextured")
        if draws[2] >= self.looks.drop_view:
            parts.append(words)
        return ", ".join(parts)


def _entries(path: Path) -> list[dict[str, float]]:
    described = json.loads(path.read_text())
    return described["records"] if isinstance(described, dict) else described
