# SPDX-License-Identifier: GPL-3.0-or-later
"""How true a render is to albedo: render / render of a gray Lambertian of its shape = albedo / gray. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEAST_LIGHT = 1e-4  # of the brightest pixel; a darker one is in shadow, and its quotient is rounding and noise
LEAST_PIXELS = 10  # of a prop in a lighting; below, no figure is given
LEAST_ALBEDO = 0.01  # linear; errors of darker albedo are relative to it
LIMIT = 0.02  # of the 95th percentile under direct light, for a scene that counts as relit: below what an eye sees
RENDER, REFERENCE = "render", "reference"


@dataclass(frozen=True)
class AlbedoError:
    """What a prop's pixels say of its albedo under one lighting.

    pixels: how many show the prop; lit: the share of them that some light reaches, which are measured. albedo,
    expected: mean linear RGB of those. mean_error, p95_error: of |measured - expected| / |expected|; None: too few.
    """

    prop: str
    lighting: str
    bounces: int
    pixels: int
    lit: float
    albedo: tuple[float, ...] | None
    expected: tuple[float, ...] | None
    mean_error: float | None
    p95_error: float | None


@dataclass(frozen=True)
class Spread:
    """How far the albedo that a prop shows differs between lightings: p95 over pixels lit in all of them.

    p95: of max - min of the measured albedo over the lightings, by its length over RGB, relative to the expected one.
    """

    prop: str
    bounces: int
    p95: float | None


def measured_albedo(render: np.ndarray, reference: np.ndarray, gray: float) -> np.ndarray:
    """albedo = gray render / reference, (h, w, 3) linear; NaN where the reference is dark in a channel.

    Both have the same shape, light, camera and random numbers. Under direct light a Lambertian's radiance is albedo /
    pi times an irradiance that does not depend on albedo, so that the quotient is exact.
    """
    lit = (reference > LEAST_LIGHT * reference.max()).all(-1, keepdims=True)
    return np.where(lit, gray * render / np.where(lit, reference, 1.0), np.nan)


def albedo_error(
    prop: str, lighting: str, bounces: int, measured: np.ndarray, expected: np.ndarray, shown: np.ndarray
) -> AlbedoError:
    """The error of a prop whose pixels are `shown` (h, w) bool; measured and expected (h, w, 3) linear."""
    pixels = int(shown.sum())
    lit = shown & np.isfinite(measured).all(-1)
    if lit.sum() < LEAST_PIXELS:
        return AlbedoError(prop, lighting, bounces, pixels, float(lit.sum() / max(pixels, 1)), None, None, None, None)
    found, true = measured[lit].astype(np.float64), expected[lit].astype(np.float64)
    errors = np.linalg.norm(found - true, axis=-1) / _length(true)
    return AlbedoError(
        prop, lighting, bounces, pixels, float(lit.sum() / pixels), tuple(found.mean(0).tolist()),
        tuple(true.mean(0).tolist()), float(errors.mean()), float(np.percentile(errors, 95)),
    )  # fmt: skip


def spread(prop: str, bounces: int, measured: Sequence[np.ndarray], expected: np.ndarray, shown: np.ndarray) -> Spread:
    """How far a prop's measured albedo differs between lightings, each (h, w, 3)."""
    stack = np.stack(measured).astype(np.float64)
    lit = shown & np.isfinite(stack).all((0, -1))
    if lit.sum() < LEAST_PIXELS:
        return Spread(prop, bounces, None)
    ranges = np.linalg.norm(np.ptp(stack[:, lit], axis=0), axis=-1)
    return Spread(prop, bounces, float(np.percentile(ranges / _length(expected[lit].astype(np.float64)), 95)))


def measure(arrays: Mapping[str, np.ndarray], names: Sequence[str], gray: float) -> dict[str, Any]:
    """All figures of a scene, as JSON holds them, and whether they agree with the albedo.

    arrays: `index` (h, w), 1 for the first prop and so on, 0 for none; `expected` (h, w, 3); and for every lighting and
    number of bounces `LIGHTING.BOUNCES.render` and `LIGHTING.BOUNCES.reference`, (h, w, 3), all linear.
    """
    found: dict[tuple[str, int], np.ndarray] = {}
    for name in arrays:
        lighting, _, rest = name.partition(".")
        if rest.endswith(f".{RENDER}"):
            bounces = int(rest.partition(".")[0])
            found[lighting, bounces] = measured_albedo(arrays[name], arrays[f"{lighting}.{bounces}.{REFERENCE}"], gray)
    expected = arrays["expected"]
    errors, spreads = [], []
    for number, prop in enumerate(names, start=1):
        shown = np.rint(arrays["index"]) == number
        errors += [
            albedo_error(prop, lighting, bounces, albedo, expected, shown)
            for (lighting, bounces), albedo in found.items()
        ]
        for bounces in sorted({key[1] for key in found}):
            same = [albedo for key, albedo in found.items() if key[1] == bounces]
            spreads.append(spread(prop, bounces, same, expected, shown))
    direct = [one.p95_error for one in errors if one.bounces == 0 and one.p95_error is not None]
    return {
        "gray": gray,
        "limit": LIMIT,
        "agrees": bool(direct) and max(direct) <= LIMIT,
        "errors": [asdict(one) for one in errors],
        "spreads": [asdict(one) for one in spreads],
    }


def _length(albedo: np.ndarray) -> Any:
    return np.maximum(np.linalg.norm(albedo, axis=-1), LEAST_ALBEDO)
