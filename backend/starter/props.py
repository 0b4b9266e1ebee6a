# SPDX-License-Identifier: GPL-3.0-or-later
"""The sixteen props of the starter domain, modelled procedurally. Z up, front towards -Y; pure numpy.

Each part is `primary` (None: it takes the prompt's color) or has a fixed display-sRGB color of its own. `build`
puts the bounding-box center at the origin and the farthest vertex at radius 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .solids import Solid, box, ellipsoid, lathe, move, prism, ring, rod, tube, turn

Color = tuple[float, float, float]
CREAM: Color = (0.95, 0.90, 0.76)
BROWN: Color = (0.45, 0.28, 0.14)
DARK: Color = (0.13, 0.13, 0.15)
GREY: Color = (0.55, 0.57, 0.60)
SLATE: Color = (0.33, 0.34, 0.38)
CARROT: Color = (0.95, 0.45, 0.08)
GLASS: Color = (0.60, 0.82, 0.95)
LIGHT: Color = (1.00, 0.93, 0.55)
TAIL: Color = (0.75, 0.08, 0.10)


@dataclass(frozen=True)
class Part:
    """One solid of a prop."""

    vertices: np.ndarray  # (V, 3) float64
    faces: list[tuple[int, ...]]
    color: Color | None  # display sRGB; None: the prompt's color
    smooth: bool  # shade smooth


@dataclass(frozen=True)
class TriangleMesh:
    """A whole prop as triangles."""

    vertices: np.ndarray  # (V, 3) float32
    faces: np.ndarray  # (F, 3) int32
    primary: np.ndarray  # (F,) bool
    colors: np.ndarray  # (F, 3) float32 display sRGB, zero where primary


class _Sketch:
    """Collects parts while a prop is being drawn; `vary` gives its random proportions."""

    def __init__(self, rng: np.random.Generator, variation: float) -> None:
        self.parts: list[Part] = []
        self._rng, self._variation = rng, variation

    def vary(self, value: float, share: float = 0.06) -> float:
        return value * (1 + self._variation * float(self._rng.uniform(-share, share)))

    def add(self, solid: Solid, color: Color | None = None, smooth: bool = False) -> None:
        self.parts.append(Part(solid[0], solid[1], color, smooth))


def build(name: str, rng: np.random.Generator | None = None, variation: float = 1.0) -> list[Part]:
    """Parts of the named prop; variation 0 (or no rng) gives the mean proportions. KeyError for unknown names."""
    sketch = _Sketch(rng or np.random.default_rng(0), 0.0 if rng is None else variation)
    _MAKERS[name](sketch)
    points = np.concatenate([part.vertices for part in sketch.parts])
    center = 0.5 * (points.min(0) + points.max(0))
    scale = 0.5 / np.linalg.norm(points - center, axis=1).max()
    return [Part((p.vertices - center) * scale, p.faces, p.color, p.smooth) for p in sketch.parts]


def triangles(parts: list[Part]) -> TriangleMesh:
    """All parts as one triangle soup (fans of their convex faces)."""
    vertices, faces, primary, colors, base = [], [], [], [], 0
    for part in parts:
        fans = [(f[0] + base, f[i] + base, f[i + 1] + base) for f in part.faces for i in range(1, len(f) - 1)]
        faces += fans
        primary += [part.color is None] * len(fans)
        colors += [part.color or (0.0, 0.0, 0.0)] * len(fans)
        vertices.append(part.vertices)
        base += len(part.vertices)
    return TriangleMesh(
        np.concatenate(vertices).astype(np.float32),
        np.array(faces, np.int32),
        np.array(primary, bool),
        np.array(colors, np.float32),
    )


def _mushroom(s: _Sketch) -> None:
    w, h = s.vary(0.5), s.vary(0.40)
    s.add(lathe([(0, 0), (0.20, 0), (0.17, 0.12), (0.15, 0.42), (0, 0.46)]), CREAM, True)
    dome = [(w * np.cos(a), 0.40 + h * np.sin(a)) for a in np.linspace(0, np.pi / 2, 9)[:-1]]
    s.add(lathe([(0, 0.38), (w * 0.8, 0.36), (w * 0.97, 0.38), *dome, (0, 0.40 + h)], 32), None, True)
    for azimuth, elevation in ((-80, 35), (-10, 40), (60, 32), (130, 42), (205, 36), (20, 78)):
        a, e = np.radians(azimuth), np.radians(elevation)
        normal = np.array([np.cos(e) * np.cos(a) * w, np.cos(e) * np.sin(a) * w, h * np.sin(e)])
        s.add(ellipsoid((0.075, 0.075, 0.075), normal * 0.96 + (0, 0, 0.40), 12), CREAM, True)


def _snowman(s: _Sketch) -> None:
    r = s.vary(0.33)
    s.add(ellipsoid((r, r, 0.9 * r), (0, 0, 0.9 * r)), None, True)
    s.add(ellipsoid((0.25, 0.25, 0.23), (0, 0, 0.72)), None, True)
    s.add(ellipsoid((0.19, 0.19, 0.18), (0, 0, 1.06)), None, True)
    s.add(rod((0, -0.15, 1.06), (0, -0.42, 1.04), 0.06, 0.012), CARROT, True)
    for x in (-0.08, 0.08):
        s.add(ellipsoid((0.036, 0.036, 0.036), (x, -0.165, 1.13), 10), DARK, True)
    for z in (0.64, 0.80):
        s.add(ellipsoid((0.045, 0.045, 0.045), (0, -0.235, z), 10), DARK, True)
    s.add(lathe([(0, 1.18), (0.24, 1.18), (0.24, 1.22), (0.15, 1.22), (0.14, 1.42), (0, 1.42)]), DARK)
    for side in (-1, 1):
        s.add(rod((side * 0.2, 0, 0.78), (side * s.vary(0.50), 0, 0.98), 0.035, 0.025), BROWN, True)


def _table(s: _Sketch) -> None:
    x, y, h = s.vary(1.0), s.vary(0.72), s.vary(0.62)
    s.add(box((x, y, 0.1), (0, 0, h), 0.06), None)
    for i in (-1, 1):
        for j in (-1, 1):
            s.add(box((0.1, 0.1, h), (i * (0.5 * x - 0.1), j * (0.5 * y - 0.1), 0.5 * h)), BROWN)


def _chair(s: _Sketch) -> None:
    w, h, back = s.vary(0.56), s.vary(0.46), s.vary(0.62)
    s.add(box((w, w, 0.1), (0, 0, h), 0.04), None)
    s.add(box((w, 0.09, back), (0, 0.5 * w - 0.03, h + 0.5 * back)), None)
    for i in (-1, 1):
        for j in (-1, 1):
            s.add(box((0.085, 0.085, h), (i * (0.5 * w - 0.05), j * (0.5 * w - 0.05), 0.5 * h)), BROWN)


def _house(s: _Sketch) -> None:
    x, y, h, roof = s.vary(0.9), s.vary(0.7), s.vary(0.48), s.vary(0.42)
    s.add(box((x, y, h), (0, 0, 0.5 * h)), None)
    e = 0.07  # eaves
    outline = [(-0.5 * y - e, -0.03), (0.5 * y + e, -0.03), (0.0, roof)]
    gable = turn(prism(outline, -0.5 * x - e, 0.5 * x + e), "x", 90)
    s.add(move(turn(gable, "z", 90), (0, 0, h)), SLATE)
    s.add(box((0.2, 0.04, 0.32), (0, -0.5 * y - 0.005, 0.16)), BROWN)
    for i in (-1, 1):
        s.add(box((0.17, 0.04, 0.16), (i * 0.29, -0.5 * y - 0.005, 0.29)), GLASS)
        s.add(box((0.04, 0.2, 0.16), (i * (0.5 * x + 0.005), 0, 0.29)), GLASS)
    s.add(box((0.12, 0.12, 0.3), (0.25 * x, 0.12, h + 0.62 * roof)), BROWN)


def _tree(s: _Sketch) -> None:
    r = s.vary(0.36)
    s.add(lathe([(0, 0), (0.12, 0), (0.085, 0.3), (0.08, 0.5), (0, 0.5)], 16), BROWN, True)
    for z, k, h in ((0.30, 1.0, 0.42), (0.56, 0.8, 0.38), (0.80, 0.58, 0.36)):
        s.add(lathe([(0, z), (r * k, z), (r * k * 0.98, z + 0.03), (0, z + h)], 24), None, False)


def _mug(s: _Sketch) -> None:
    r, h = s.vary(0.34), s.vary(0.74)
    s.add(lathe([(0, 0), (r * 0.94, 0), (r, 0.05), (r, h), (r * 0.84, h)], 32), None, True)
    outer = [(r * 0.85, h + 0.004), (r * 0.83, 0.12), (0, 0.1)]
    inside = lathe([*outer], 32)
    s.add((inside[0], inside[1][:-1] if len(inside[1][-1]) > 4 else inside[1]), CREAM, True)
    angles = np.radians(np.linspace(-88, 88, 13))
    path = [(r - 0.03 + 0.27 * np.cos(a), 0.0, 0.5 * h + 0.24 * np.sin(a)) for a in angles]
    s.add(tube(path, 0.055), None, True)


def _rocket(s: _Sketch) -> None:
    r, h = s.vary(0.22), s.vary(0.82)
    body = [(0, 0.12), (r * 0.72, 0.12), (r * 0.95, 0.3), (r, 0.5), (r * 0.92, 0.7), (r * 0.72, h)]
    s.add(lathe([*body, (0, h)]), None, True)
    s.add(lathe([(0, h), (r * 0.72, h), (r * 0.45, h + 0.14), (0, h + 0.26)]), GREY, True)
    s.add(lathe([(0, 0.02), (r * 0.62, 0.02), (r * 0.5, 0.14), (0, 0.14)]), DARK, True)
    for azimuth in (45, 135, 225, 315):
        fin = prism([(0.12, 0.30), (r * 0.9, 0.02), (0.42, -0.06), (0.40, 0.12), (r * 0.9, 0.44)], -0.028, 0.028)
        s.add(turn(turn(fin, "x", 90), "z", azimuth), GREY)
    s.add(
        move(turn(lathe([(0, -0.03), (0.105, -0.03), (0.105, 0.03), (0, 0.03)], 20), "x", 90), (0, -r * 0.97, 0.58)),
        GLASS,
    )


def _torus(s: _Sketch) -> None:
    s.add(ring(s.vary(0.34), s.vary(0.135), "y"), None, True)


def _car(s: _Sketch) -> None:
    w, length = s.vary(0.52), s.vary(1.08)
    s.add(box((w, length, 0.24), (0, 0, 0.26), 0.06), None)
    cabin = prism([(-0.30, 0.0), (0.34, 0.0), (0.24, 0.24), (-0.14, 0.24)], -0.5 * w + 0.03, 0.5 * w - 0.03)
    cabin = turn(turn(cabin, "x", 90), "z", 90)  # outline's x runs along +Y: the windscreen slopes to the front
    s.add(move(cabin, (0, 0.02, 0.37)), None)
    s.add(move(turn(box((w - 0.14, 0.03, 0.2)), "x", -33.7), (0, -0.205, 0.49)), GLASS)
    s.add(move(turn(box((w - 0.14, 0.03, 0.18)), "x", 22.6), (0, 0.32, 0.485)), GLASS)
    for i in (-1, 1):
        s.add(box((0.03, 0.30, 0.14), (i * (0.5 * w - 0.025), 0.06, 0.48)), GLASS)
        for j in (-0.33, 0.33):
            wheel = turn(lathe([(0, -0.055), (0.15, -0.055), (0.15, 0.055), (0, 0.055)], 20), "y", 90)
            s.add(move(wheel, (i * 0.5 * w, j * length, 0.15)), DARK)
        s.add(ellipsoid((0.065, 0.03, 0.065), (i * 0.16, -0.5 * length, 0.29), 12), LIGHT, True)
        s.add(box((0.12, 0.03, 0.07), (i * 0.16, 0.5 * length, 0.30)), TAIL)


def _robot(s: _Sketch) -> None:
    w, h = s.vary(0.46), s.vary(0.44)
    s.add(box((w, 0.32, h), (0, 0, 0.28 + 0.5 * h), 0.03), None)
    top = 0.28 + h
    s.add(box((0.34, 0.28, 0.26), (0, 0, top + 0.17), 0.03), None)
    s.add(rod((0, 0, top - 0.02), (0, 0, top + 0.06), 0.07), GREY)
    for i in (-1, 1):
        s.add(box((0.13, 0.15, 0.30), (i * 0.12, 0, 0.15)), GREY)
        s.add(box((0.10, 0.13, 0.42), (i * (0.5 * w + 0.055), 0, top - 0.23)), GREY)
        s.add(box((0.085, 0.04, 0.085), (i * 0.085, -0.14, top + 0.215)), (0.55, 0.95, 0.95))
    s.add(box((0.19, 0.04, 0.045), (0, -0.14, top + 0.10)), (0.55, 0.95, 0.95))
    s.add(box((0.24, 0.04, 0.18), (0, -0.16, 0.28 + 0.55 * h)), GREY)
    s.add(rod((0, 0, top + 0.28), (0, 0, top + 0.40), 0.028), GREY)
    s.add(ellipsoid((0.055, 0.055, 0.055), (0, 0, top + 0.42), 12), TAIL, True)


def _duck(s: _Sketch) -> None:
    length = s.vary(0.42)
    s.add(ellipsoid((0.29, length, 0.25), (0, 0.04, 0.25)), None, True)
    s.add(rod((0, 0.30, 0.28), (0, 0.56, 0.46), 0.16, 0.025), None, True)
    s.add(rod((0, -0.18, 0.36), (0, -0.22, 0.60), 0.14, 0.12), None, True)
    s.add(ellipsoid((0.19, 0.20, 0.19), (0, -0.24, 0.68)), None, True)
    s.add(ellipsoid((0.11, 0.15, 0.05), (0, -0.46, 0.65), 16), CARROT, True)
    for i in (-1, 1):
        s.add(ellipsoid((0.04, 0.04, 0.045), (i * 0.125, -0.37, 0.76), 10), DARK, True)
        s.add(ellipsoid((0.06, 0.24, 0.14), (i * 0.27, 0.10, 0.29), 16), None, True)


def _sofa(s: _Sketch) -> None:
    w, d = s.vary(1.1), s.vary(0.5)
    s.add(box((w, d, 0.24), (0, 0, 0.22), 0.03), None)
    s.add(box((w, 0.15, 0.46), (0, 0.5 * d - 0.02, 0.40), 0.03), None)
    for i in (-1, 1):
        s.add(box((0.14, d, 0.34), (i * (0.5 * w - 0.06), 0, 0.30), 0.03), None)
        s.add(box((0.40, d - 0.14, 0.09), (i * 0.21, -0.06, 0.37), 0.03), CREAM)
        for j in (-1, 1):
            s.add(box((0.08, 0.08, 0.12), (i * (0.5 * w - 0.09), j * (0.5 * d - 0.07), 0.06)), BROWN)


def _boat(s: _Sketch) -> None:
    length, w = s.vary(0.95), s.vary(0.38)
    stations = ((-0.5, 0.02, 0.10), (-0.3, 0.62, 0.03), (0.0, 1.0, 0.0), (0.3, 0.92, 0.0), (0.5, 0.7, 0.02))
    rings = []
    for along, beam, keel in stations:
        half = 0.5 * w * beam
        y = along * length
        rings.append(
            [(-half, y, 0.28), (-0.6 * half, y - 0.02 * (along < -0.4), keel), (0.6 * half, y, keel), (half, y, 0.28)]
        )
    vertices = np.array([point for station in rings for point in station])
    faces: list[tuple[int, ...]] = [(0, 1, 2, 3), tuple(reversed(range(len(vertices) - 4, len(vertices))))]
    for i in range(len(rings) - 1):
        a, b = 4 * i, 4 * (i + 1)
        faces += [(a + k, b + k, b + (k + 1) % 4, a + (k + 1) % 4) for k in range(4)]
    s.add((vertices, faces), None)
    s.add(box((0.55 * w, 0.36 * length, 0.07), (0, 0.18 * length, 0.29)), BROWN)
    s.add(rod((0, -0.02, 0.2), (0, -0.02, 1.0), 0.032), BROWN, True)
    sail = turn(turn(prism([(0.03, 0.0), (0.46, 0.0), (0.03, 0.6)], -0.022, 0.022), "x", 90), "z", 90)
    s.add(move(sail, (0, -0.02, 0.38)), CREAM)
    jib = turn(turn(prism([(-0.40, 0.0), (-0.04, 0.0), (-0.04, 0.46)], -0.022, 0.022), "x", 90), "z", 90)
    s.add(move(jib, (0, -0.02, 0.38)), TAIL)


def _cactus(s: _Sketch) -> None:
    r, h = s.vary(0.15), s.vary(0.82)
    s.add(lathe([(0, 0), (0.20, 0), (0.25, 0.24), (0.27, 0.24), (0.27, 0.29), (0, 0.29)]), BROWN, False)
    cap = [(r * np.cos(a), h + r * np.sin(a)) for a in np.linspace(0, np.pi / 2, 6)[:-1]]
    s.add(lathe([(0, 0.25), (r, 0.25), *cap, (0, h + r)]), None, True)
    for side, low, high in ((1, 0.48, 0.80), (-1, 0.58, 0.95)):
        path = [
            (0, 0, low),
            (side * 0.2, 0, low),
            (side * 0.285, 0, low + 0.04),
            (side * 0.31, 0, low + 0.12),
            (side * 0.31, 0, high),
        ]
        s.add(tube(path, 0.085), None, True)
        s.add(ellipsoid((0.085, 0.085, 0.085), path[-1], 14), None, True)


def _lamp(s: _Sketch) -> None:
    r, h = s.vary(0.34), s.vary(0.42)
    s.add(lathe([(0, 0), (0.24, 0), (0.23, 0.05), (0.06, 0.09), (0, 0.09)]), GREY, True)
    s.add(rod((0, 0, 0.05), (0, 0, 0.62), 0.042), GREY, True)
    s.add(lathe([(0, 0.52), (r, 0.52), (r * 0.55, 0.52 + h), (0, 0.52 + h)]), None, True)


_MAKERS: dict[str, Callable[[_Sketch], None]] = {
    "mushroom": _mushroom, "snowman": _snowman, "table": _table, "chair": _chair, "house": _house, "tree": _tree,
    "mug": _mug, "rocket": _rocket, "torus": _torus, "car": _car, "robot": _robot, "duck": _duck, "sofa": _sofa,
    "boat": _boat, "cactus": _cactus, "lamp": _lamp,
}  # fmt: skip
