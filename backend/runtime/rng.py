# SPDX-License-Identifier: GPL-3.0-or-later
"""Random numbers of a step: drawn for all its views by every process, each of which keeps those of its own views.

So two processes with one view each see the same cameras, lights and noise as one process with two views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class ViewStream(torch.Generator):
    """A CPU generator that knows which rows of a step's views are this process's.

    `views` views of a step in all, of which `rows` are its own. Torch's own functions draw from it as from any
    generator; `draw_rows` is what leaves the other processes' rows out.
    """

    views: int
    rows: slice

    @staticmethod
    def of(views: int, rows: slice, seed: int) -> ViewStream:
        """A seeded stream."""
        stream = ViewStream()
        stream.views, stream.rows = views, rows
        stream.manual_seed(seed)
        return stream


def draw_rows(sample: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """`sample` (torch.rand, torch.randn) of `shape`, one row a view, on the generator's device.

    From a `ViewStream` the numbers of all the step's views are drawn and its own rows are kept, so `shape` must have as
    many rows as it owns. Raises ValueError for another number.
    """
    if not isinstance(generator, ViewStream):
        return sample(tuple(shape), generator=generator, device=generator.device)
    drawn = sample((generator.views, *shape[1:]), generator=generator, device=generator.device)[generator.rows]
    if len(drawn) != shape[0]:
        raise ValueError(
            f"{shape[0]} rows asked of a stream that owns {len(drawn)} of {generator.views}; ask for those"
        )
    return drawn
