# SPDX-License-Identifier: GPL-3.0-or-later
"""Training images and their captions, composed at each draw from the records of `render_images.py`.

A record holds neither the prompt's color nor the final lighting. Each draw chooses a color with a little jitter, a
plain background, and one of the shadings that the optimization renders: albedo, shaded, untextured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dreamwright.backend.starter import domain


@dataclass(frozen=True)
class Batch:
    """n images (n, 3, r, r) in [0, 1] display sRGB, and their labels."""

    images: torch.Tensor
    captions: list[str]
    props: torch.Tensor  # (n,) index into domain.PROPS
    colors: torch.Tensor  # (n,) index into domain.COLORS, -1 where the look is untextured
    views: torch.Tensor  # (n,) index into domain.VIEWS
    azimuths: torch.Tensor  # (n,) degrees
    elevations: torch.Tensor  # (n,) degrees
    views_of_set: int = 1  # images in a row that show one object


@dataclass(frozen=True)
class LookConfig:
    """Distributions of shading, color, background and incomplete captions."""

    albedo: float = 0.25  # probability of an image without shading
    untextured: float = 0.25  # probability of a white, textureless surface under the same light
    drop_caption: float = 0.1  # empty caption: the unconditional model of classifier-free guidance
    drop_view: float = 0.05  # caption without view words
    # Probability that a left or right side view is called "side view", and a view from above "overhead view".
    plain_side: float = 0.15
    color_jitter: float = 0.02  # standard deviation of each display channel of the prompt's color
    background: tuple[float, float] = (
        0.3,
        0.8,
    )  # gray level behind the prop, uniform; white and black props stay visible
    background_tint: float = 0.03  # standard deviation of the background's display channels around its gray
    any_background: float = 0.2  # share of backgrounds of any color; gray parts cannot be seen before gray
    front_weight: float = 2.0  # relative frequency of props with a front, whose views differ
    overhead_weight: float = 1.5  # relative frequency of views from above, which are 40% of the records


class RenderDataset:
    """All records of a folder; `sample` draws finished images. Raises FileNotFoundError and ValueError."""

    def __init__(self, folder: Path, device: str = "cpu", looks: LookConfig = LookConfig()) -> None:
        files = sorted(folder.glob("shard-*.npy"))
        if not files:
            raise FileNotFoundError(
                f"no shard-*.npy in {folder}; run python -m tools.starter_training.render_images first"
            )
        self.device = device
        self.looks = looks
        self.records = torch.from_numpy(np.concatenate([np.load(file) for file in files])).to(device)
        props, azimuths, elevations, sizes = [], [], [], set()
        for file in files:
            size, entries = _read_views(file.with_suffix(".json"))
            sizes.add(size)
            for entry in entries:
                props.append(entry["prop"])
                azimuths.append(entry["azimuth"])
                elevations.append(entry["elevation"])
        if len(props) != len(self.records):
            raise ValueError(f"{folder}: {len(props)} views for {len(self.records)} records; render them again")
        if len(sizes) > 1:
            raise ValueError(f"{folder}: shards with sets of {sorted(sizes)} views; keep them in folders of their own")
        self.set_size = sizes.pop()  # records in a row that show one prop from around it
        self.props = np.array(props)
        self.azimuths, self.elevations = np.array(azimuths), np.array(elevations)
        self.views = np.array(
            [domain.VIEWS.index(domain.view_of(a, e)) for a, e in zip(azimuths, elevations, strict=True)]
        )
        self.directions = [domain.direction_of(a, e) for a, e in zip(azimuths, elevations, strict=True)]
        has_front = torch.tensor([domain.PROPS[prop].has_front for prop in props])
        is_overhead = torch.from_numpy(self.views == domain.VIEWS.index("overhead"))
        self.weights = torch.where(has_front, looks.front_weight, 1.0) * torch.where(
            is_overhead, looks.overhead_weight, 1.0
        )
        self.colors = torch.tensor(list(domain.COLORS.values()), device=device)
        self.color_names = list(domain.COLORS)

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, n: int, resolution: int, generator: torch.Generator, views: int = 1) -> Batch:
        """Draw n images of resolution x resolution pixels (a divisor of the records' size).

        With `views`, n is a multiple of it, and each `views` images in a row are one prop from around it, of one color,
        look and background and with captions that leave out the same. Raises ValueError where the records are no such
        sets.
        """
        if views not in (1, self.set_size) or n % views:
            raise ValueError(f"{n} images in sets of {views} views of records in sets of {self.set_size}; change one")

        def each(values: torch.Tensor) -> torch.Tensor:
            return values.repeat_interleave(views, dim=0)

        def uniform(*shape: int) -> torch.Tensor:
            return each(torch.rand(*shape, generator=generator)).to(self.device)

        looks = self.looks
        sets = n // views
        index = each(torch.multinomial(self.weights[::views], sets, replacement=True, generator=generator) * views)
        index = index + torch.arange(n) % views
        color = each(torch.randint(len(self.color_names), (sets,), generator=generator))
        look = each(torch.rand(sets, generator=generator))
        albedo_only = look < looks.albedo
        untextured = look >= 1 - looks.untextured

        record = self.records[index.to(self.device)].permute(0, 3, 1, 2).float() / 255  # (n, 6, h, w)
        primary, secondary, alpha = record[:, :1], record[:, 1:4], record[:, 5:6]
        irradiance = 2 * record[:, 4:5].square()
        jitter = each(torch.randn(sets, 3, generator=generator)).to(self.device) * looks.color_jitter
        rgb = (self.colors[color.to(self.device)] + jitter).clamp(0, 1)
        surface = primary * rgb.view(n, 3, 1, 1) + secondary  # premultiplied
        white = untextured.to(self.device).view(n, 1, 1, 1)
        surface = torch.where(white, alpha.expand_as(surface), surface)
        # Shading is between linear irradiance, which eq 7 multiplies by, and its display encoding.
        gamma = 1 / 2.2 + (1 - 1 / 2.2) * uniform(sets, 1, 1, 1)
        strength = 0.5 + 0.5 * uniform(sets, 1, 1, 1)
        shade = 1 + strength * (irradiance.clamp(min=1e-4) ** gamma - 1)
        shade = torch.where(albedo_only.to(self.device).view(n, 1, 1, 1), torch.ones_like(shade), shade)
        background = each(self._backgrounds(sets, generator))
        images = (surface * shade).clamp(max=1) + (1 - alpha) * background
        factor = images.shape[-1] // resolution
        if factor > 1:
            images = functional.avg_pool2d(images, factor)

        draws = each(torch.rand(sets, 3, generator=generator))
        captions = [
            self._caption(int(i), int(c), bool(u), r)
            for i, c, u, r in zip(index, color, untextured, draws.tolist(), strict=True)
        ]
        rows = index.numpy()
        return Batch(
            images.clamp(0, 1),
            captions,
            torch.from_numpy(self.props[rows]),
            torch.where(untextured, torch.full_like(color, -1), color),
            torch.from_numpy(self.views[rows]),
            torch.from_numpy(self.azimuths[rows]).float(),
            torch.from_numpy(self.elevations[rows]).float(),
            views,
        )

    def _backgrounds(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Plain colors (n, 3, 1, 1): slightly tinted grays, and a share of any color.

        Most are gray, because at high noise a colorful background dominates the loss.
        """
        looks = self.looks
        low, high = looks.background
        color = torch.rand(n, 3, generator=generator)
        level = low + (high - low) * torch.rand(n, 1, generator=generator)
        gray = level + looks.background_tint * torch.randn(n, 3, generator=generator)
        plain = torch.rand(n, 1, generator=generator) >= looks.any_background
        return torch.where(plain, gray, color).clamp(0, 1).view(n, 3, 1, 1).to(self.device)

    def _caption(self, row: int, color: int, untextured: bool, draws: list[float]) -> str:
        """The caption of a record with the chosen color and shading; `draws` (3,) in [0, 1) decide what is left out."""
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


def _read_views(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """(views of a set, cameras of the records) of one shard."""
    content = json.loads(path.read_text())
    if isinstance(content, list):  # as shards were written before they could hold sets
        return 1, content
    return int(content.get("views", 1)), content["records"]
