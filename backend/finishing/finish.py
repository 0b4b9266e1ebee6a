# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop that finishes a mesh: it runs the steps in order, yields events, writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dreamwright.shared.numbers import number_text

from ..config.finish_settings import STEPS, FinishConfig
from ..errors import StoppedError
from ..geometry.topology import Surface, diagonal, is_watertight, signed_volume, vertex_normals
from ..geometry.unwrap import check_unwrapper, unwrap
from .asset import Asset, DenseMesh, Hull, Level
from .bake import Baker, bake
from .bake_error import normal_map_error
from .budget import reduce_to_budget
from .collision import convex_hulls
from .even import even_triangles
from .figures import ShapeError, shape_error, texel_density
from .lod import bounding_diameter, falling, level_budgets, screen_size
from .pivot import placement
from .surface_search import SurfaceSearch
from .tangents import with_tangents

SMALLEST_TEXTURE = 64  # texels a side, of the coarsest level
COLLISION_TRIANGLES = 500  # of the mesh that the convex parts are looked for in
# Shares of the time that the steps of the preset `game` take, for the progress.
COST = {"pivot": 1, "remesh": 12, "uv": 8, "bake": 30, "lod": 34, "collision": 15}


@dataclass(frozen=True)
class StepStarted:
    """A step begins; share: of the whole work that is done, in [0, 1]."""

    step: str
    share: float


@dataclass(frozen=True)
class StepProgress:
    """A step is on its way; share: of the whole work that is done."""

    step: str
    share: float


@dataclass(frozen=True)
class StepFinished:
    """A step has ended; figures: what was measured, meters and degrees."""

    step: str
    share: float
    figures: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """The end: the asset."""

    asset: Asset


Event = StepStarted | StepProgress | StepFinished | Finished


def steps_for(wanted: Collection[str]) -> tuple[str, ...]:
    """The steps that run, in order: those wanted, and uv where bake is wanted."""
    return tuple(step for step in STEPS if step in wanted or (step == "uv" and "bake" in wanted))


class Finishing:
    """One mesh on its way to an asset. `should_stop` is asked between pieces of work of at most seconds."""

    def __init__(
        self,
        dense: DenseMesh,
        name: str,
        config: FinishConfig,
        wanted: Collection[str] = STEPS,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Raises ConfigError where xatlas is needed and missing."""
        self._dense, self._name, self._config = dense, name, config
        self._steps, self._should_stop = steps_for(wanted), should_stop
        if "uv" in self._steps:
            check_unwrapper()
        self._done = 0.0
        self._figures: dict[str, dict[str, Any]] = {}
        self._warnings: list[str] = []

    def events(self) -> Iterator[Event]:
        """Run the steps. Raises RunError for a remesh that collapses and StoppedError where it was asked to stop."""
        config = self._config
        yield StepStarted("pivot", 0.0)
        yield from self._end("pivot", self._place())
        search = SurfaceSearch(self._dense.welded)
        baker = Baker(self._dense, SurfaceSearch(self._dense.surface), config.reach)
        yield StepStarted("remesh", self._done)
        level, figures = self._remesh(self._dense.welded, config.triangles, search, baker)
        yield from self._end("remesh", figures)
        level = yield from self._textured(level, config.texture, baker, whole=True)
        levels = [level]
        if "lod" in self._steps:
            yield StepStarted("lod", self._done)
            yield from self._coarser_levels(levels, config.texture, search, baker)
        hulls: tuple[Hull, ...] = ()
        if "collision" in self._steps:
            yield StepStarted("collision", self._done)
            self._check_stop()
            finest = level.surface
            coarse, _ = reduce_to_budget(finest, COLLISION_TRIANGLES, 1.0, finest, SurfaceSearch(finest))
            hulls, warning = convex_hulls(
                coarse, finest.vertices, config.hulls, config.hull_vertices, config.concavity, self._should_stop
            )
            self._warnings += [warning] if warning else []
            counts = [len(hull.vertices) for hull in hulls]
            yield from self._end("collision", {"hulls": len(hulls), "most_vertices": max(counts)})
        sizes = falling([one.screen_size for one in levels])
        levels = [replace(one, screen_size=size) for one, size in zip(levels, sizes, strict=True)]
        yield Finished(
            Asset(
                self._name, tuple(levels), hulls, config.roughness, config.metallic, self._figures,
                tuple(self._warnings),
            )
        )  # fmt: skip

    def _place(self) -> dict[str, Any]:
        """Move and scale the mesh where that is wanted; the figures of what was given."""
        surface = self._dense.welded
        figures: dict[str, Any] = {
            "triangles": len(surface.faces),
            "watertight": is_watertight(surface.faces),
            "height_m": float(np.ptp(surface.vertices[:, 2])),
        }
        if "pivot" in self._steps:
            scale, offset = placement(surface.vertices, self._config.pivot, self._config.height_m)
            self._dense = self._dense.placed(scale, offset)
            figures |= {
                "scale": scale,
                "offset": [float(value) for value in offset],
                "height_m": float(np.ptp(self._dense.welded.vertices[:, 2])),
            }
        if not figures["watertight"] or signed_volume(surface) <= 0:
            self._warnings.append("the mesh encloses no volume: it is open or turned inside out")
        return figures

    def _remesh(
        self, source: Surface, triangles: int, search: SurfaceSearch, baker: Baker
    ) -> tuple[Level, dict[str, Any]]:
        """A level of at most `triangles`, colored at its vertices, and its figures."""
        self._check_stop()
        config, error = self._config, ShapeError(0.0, 0.0, 0.0)
        surface = source
        if "remesh" in self._steps:
            surface, error = reduce_to_budget(source, triangles, config.deviation, source, search)
            if len(surface.faces) > triangles:
                self._warnings.append(
                    f"{len(surface.faces)} triangles instead of {triangles}: fewer do not hold the shape within "
                    f"{number_text(100 * config.deviation)}% of the diagonal"
                )
            if config.layout == "even":
                even = even_triangles(surface, search, source, triangles, config.crease)
                # A few too many, where sharp edges are close together, are taken away by quadrics.
                surface, error = reduce_to_budget(even, triangles, config.deviation, source, search)
        level = Level(surface, vertex_normals(surface), np.zeros_like(surface.vertices))
        figures = self._shape_figures(surface, error)
        return replace(level, albedo=baker.vertex_albedo(level), figures=figures), figures

    def _shape_figures(self, surface: Surface, error: ShapeError) -> dict[str, Any]:
        share = error.hausdorff / max(diagonal(self._dense.welded), 1e-300)
        return {"triangles": len(surface.faces), **asdict(error), "hausdorff_share": share}

    def _textured(self, level: Level, size: int, baker: Baker, whole: bool) -> Generator[Event, None, Level]:
        """Unwrap and bake a level as far as these steps run, and return it. `whole`: with events of their own."""
        if "uv" in self._steps:
            if whole:
                yield StepStarted("uv", self._done)
            self._check_stop()
            surface = level.surface
            places = unwrap(surface.vertices, surface.faces, size)
            places, tangents = with_tangents(surface.vertices, surface.faces, level.normals, places)
            density = texel_density(surface, places, size)
            figures = {
                "texels_per_m": density.median, "texels_per_m_low": density.low, "texels_per_m_high": density.high,
                "used": density.used, "texture": size,
            }  # fmt: skip
            level = replace(level, unwrapping=places, tangents=tangents, figures={**level.figures, **figures})
            if whole:
                yield from self._end("uv", figures)
        if "bake" in self._steps:
            if whole:
                yield StepStarted("bake", self._done)
            for result in bake(level, baker, size, self._config.normal_map):
                self._check_stop()
                if isinstance(result, Level):
                    level = result
                elif whole:
                    yield StepProgress("bake", self._done + result * self._cost("bake"))
            figures = normal_map_error(level, baker) if self._config.normal_map else {}
            level = replace(level, figures={**level.figures, **figures})
            if whole:
                yield from self._end("bake", figures)
        return level

    def _coarser_levels(self, levels: list[Level], size: int, search: SurfaceSearch, baker: Baker) -> Iterator[Event]:
        config, before = self._config, self._done
        finest = levels[0].surface
        budgets = level_budgets(len(finest.faces), config.levels, config.level_ratio)
        diameter, finest_search = bounding_diameter(self._dense.welded), SurfaceSearch(finest)
        for number, triangles in enumerate(budgets, 1):
            self._check_stop()
            # From the level before, in a tenth of the time; the error is measured from the dense mesh, and the level
            # may deviate from it, since its screen size says from where it is seen.
            source = levels[-1].surface
            surface, error = reduce_to_budget(source, triangles, 1.0, self._dense.welded, search)
            if len(surface.faces) >= len(levels[-1].surface.faces):
                self._warnings.append(
                    f"there are {number} levels instead of {config.levels + 1}: {triangles} triangles do not hold the "
                    "shape"
                )
                break
            level = Level(surface, vertex_normals(surface), np.zeros_like(surface.vertices))
            level = replace(level, albedo=baker.vertex_albedo(level), figures=self._shape_figures(surface, error))
            own = max(min(SMALLEST_TEXTURE, size), size >> number)
            level = yield from self._textured(level, own, baker, whole=False)
            # What is seen of a change of level is its distance from the finest, not from the given mesh.
            apart = shape_error(surface, finest, finest_search).hausdorff
            shown_at = screen_size(apart, diameter, config.pixel_error, config.screen_height)
            levels.append(replace(level, screen_size=shown_at, figures={**level.figures, "from_lod0": apart}))
            yield StepProgress("lod", before + self._cost("lod") * number / len(budgets))
        sizes = falling([one.screen_size for one in levels])
        yield from self._end(
            "lod",
            {
                f"LOD{number}": {"triangles": len(one.surface.faces), "screen_size": size,
                                 "hausdorff": one.figures.get("hausdorff", 0.0)}
                for number, (one, size) in enumerate(zip(levels, sizes, strict=True))
            },
        )  # fmt: skip

    def _cost(self, step: str) -> float:
        total = sum(COST[one] for one in {*self._steps, "pivot", "remesh"})
        return COST[step] / total

    def _end(self, step: str, figures: dict[str, Any]) -> Iterator[Event]:
        self._check_stop()
        self._done = min(1.0, self._done + self._cost(step))
        self._figures[step] = figures
        yield StepFinished(step, self._done, figures)

    def _check_stop(self) -> None:
        if self._should_stop():
            raise StoppedError("stopped; nothing was written")
