# SPDX-License-Identifier: GPL-3.0-or-later
"""A classifier of starter images, independent of the prior: a small CNN that names prop, color and view.

It is trained by `train_classifier` on renders of another seed, with other cameras, lights (`render_images --wide`),
colors and backgrounds, and evaluates ancestral samples and generated props.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from ..errors import ModelError
from . import domain


@dataclass(frozen=True)
class Classification:
    """Log-probabilities of n images: prop (n, 16), color (n, 8), view (n, 4)."""

    prop: torch.Tensor
    color: torch.Tensor
    view: torch.Tensor


class StarterClassifier(nn.Module):
    """Strided convolutions down to 4x4, a second one at the middle resolutions, and a linear head for each label."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        # (channels, stride): 64 -> 32 -> 16 -> 16 -> 8 -> 8 -> 4 pixels a side
        plan = [(width, 2), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1), (6 * width, 2)]
        stages: list[nn.Module] = []
        channels = 3
        for out, stride in plan:
            stages += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(0.2)
        self.prop = nn.Linear(channels * 16, len(domain.PROPS))
        self.color = nn.Linear(channels * 16, len(domain.COLORS))
        self.view = nn.Linear(channels * 16, len(domain.VIEWS))

    def forward(self, images: torch.Tensor) -> Classification:
        """StarterClassifier images (n, 3, 64, 64) in [0, 1]."""
        features = self.dropout(self.stages(images * 2 - 1).flatten(1))
        return Classification(
            *(functional.log_softmax(head(features), dim=-1) for head in (self.prop, self.color, self.view))
        )


def load_classifier(folder: Path) -> StarterClassifier:
    """The trained classifier of a folder, in evaluation mode. Raises ModelError when it is missing."""
    path = folder / "classifier.safetensors"
    if not path.is_file():
        raise ModelError(f"no classifier at {path}; train one with python -m tools.starter_training.train_classifier")
    classifier = StarterClassifier()
    classifier.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
    )
    return classifier.eval().requires_grad_(False)
