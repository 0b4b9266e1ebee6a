# SPDX-License-Identifier: GPL-3.0-or-later
"""Random numbers of a step: drawn for all its views in every process, of which each keeps those of its own views.

Two processes with one view each therefore use the same cameras, lights and noise as one process with two views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


class PerViewGenerator(torch.Generator):
    """A CPU generator for `views` views a step, of which `local_views` are drawn for.

    torch's own functions draw from it as from any generator; `sample_for_views` leaves the other views out.
    """

    views: int
    local_views: slice

    @staticmethod
    def of(views: int, local_views: slice, seed: int) -> PerViewGenerator:
        """A seeded generator."""
        generator = PerViewGenerator()
        generator.views, generator.local_views = views, local_views
        generator.manual_seed(seed)
        return generator


def sample_for_views(sample: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """`sample` (torch.rand, torch.randn) of `shape`, one row a view, on the generator's device.

    With a `PerViewGenerator` the numbers of all views of the step are drawn and the rows of its local views returned;
    `shape` must have as many rows as those. Raises ValueError for another number.
    """
    if not isinstance(generator, PerViewGenerator):
        return sample(tuple(shape), generator=generator, device=generator.device)
    drawn = sample((generator.views, *shape[1:]), generator=generator, device=generator.device)[generator.local_views]
    if len(drawn) != shape[0]:
        raise ValueError(
            f"{shape[0]} rows asked of a generator for {len(drawn)} of {generator.views} views; ask for {len(drawn)}"
        )
    return drawn


class RandomStreams(dict[str, PerViewGenerator]):
    """Named generators of one run, one for each purpose, so that more draws for one leave the others as they are."""

    def __init__(self, names: Sequence[str], seed: int, views: int, local_views: slice) -> None:
        super().__init__(
            (name, PerViewGenerator.of(views, local_views, seed * len(names) + index + 1))
            for index, name in enumerate(names)
        )

    def draw_for(self, views: int, local_views: slice) -> None:
        """Draw for this many views a step from now on, whatever was drawn before."""
        for generator in self.values():
            generator.views, generator.local_views = views, local_views

    def snapshot(self) -> dict[str, Tensor]:
        """The state of each generator by its name."""
        return {name: generator.get_state() for name, generator in self.items()}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Load the states of `snapshot`. Raises KeyError or RuntimeError for states that do not fit."""
        for name, generator in self.items():
            generator.set_state(states[name].to(torch.uint8).cpu())
