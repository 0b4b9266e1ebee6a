# SPDX-License-Identifier: GPL-3.0-or-later
"""Wavefront .mtl files: the diffuse color and texture of each material, with the options of map_Kd."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..geometry.color import display_to_linear
from ..geometry.topology import FloatArray
from .mesh_data import UnreadableMeshError
from .texture_sampling import ImageTexture, Wrap, decode_image

OPTION_WORDS = {"-blendu": 1, "-blendv": 1, "-bm": 1, "-boost": 1, "-cc": 1, "-imfchan": 1, "-texres": 1, "-type": 1}


@dataclass(frozen=True)
class ObjTexture:
    """A map_Kd: texture coordinates become scale * uv + offset, its display values base + gain * value."""

    image: ImageTexture
    scale: FloatArray
    offset: FloatArray
    base: float
    gain: float

    def linear_at(self, uv: FloatArray) -> FloatArray:
        """Linear RGB (n, 3) at uv (n, 2), v up from the bottom."""
        moved = self.scale * uv + self.offset
        return self.image.linear_at(moved * [1, -1] + [0, 1])


@dataclass
class ObjMaterial:
    """diffuse (3,) linear; None where the file gives none."""

    diffuse: FloatArray | None = None
    texture: ObjTexture | None = None

    def linear_colors(self, uv: FloatArray) -> FloatArray | None:
        """(n, 3) linear at uv (n, 2), NaN where a corner has no uv; None for a material that gives no color."""
        if self.texture is None:
            return None if self.diffuse is None else np.tile(self.diffuse, (len(uv), 1))
        factor = np.ones(3) if self.diffuse is None else self.diffuse
        colors = np.tile(factor, (len(uv), 1))
        there = np.isfinite(uv).all(axis=1)
        colors[there] *= self.texture.linear_at(uv[there])
        return colors


def find_file(folder: Path, text: str) -> Path | None:
    """The file that a line of an .obj or .mtl names: its text as it is, without quotes, or with Windows' separators."""
    text = text.strip()
    for name in dict.fromkeys((text, text.strip('"'), text.strip('"').replace("\\", "/"))):
        try:
            if name and (folder / name).is_file():
                return folder / name
        except (OSError, ValueError):  # a name that no file system takes
            continue
    return None


def read_materials(path: Path) -> tuple[dict[str, ObjMaterial], list[str]]:
    """Materials by name, and a notice for each texture that is missing or cannot be read. Raises OSError."""
    materials: dict[str, ObjMaterial] = {}
    notices: list[str] = []
    current = ObjMaterial()
    for line in path.read_bytes().decode("utf-8-sig", errors="surrogateescape").splitlines():
        key, _, rest = line.strip().partition(" " if " " in line.strip() else "\t")
        key, rest = key.lower(), rest.strip()
        if key == "newmtl":
            current = materials.setdefault(rest, ObjMaterial())
        elif key == "kd":
            current.diffuse = _diffuse(rest, notices)
        elif key == "map_kd":
            current.texture = _texture(rest, path.parent, notices)
    return materials, notices


def _diffuse(text: str, notices: list[str]) -> FloatArray | None:
    words = text.split("#")[0].split()
    try:
        numbers = [float(word) for word in words[:3]]
    except ValueError:
        notices.append(f"the material color 'Kd {text[:40]}' is not RGB; what it colors is gray")
        return None
    if len(numbers) not in (1, 3) or not np.isfinite(numbers).all():
        raise UnreadableMeshError(f"its material color 'Kd {text[:40]}' is not three finite numbers")
    return display_to_linear(np.array(numbers * (3 if len(numbers) == 1 else 1)))


def _texture(text: str, folder: Path, notices: list[str]) -> ObjTexture | None:
    scale, offset, base, gain, clamp = np.ones(2), np.zeros(2), 0.0, 1.0, False
    rest = text
    while rest.startswith("-"):
        option, _, after = rest.partition(" ")
        if find_file(folder, rest) is not None or not after:  # a file's name may begin with a dash
            break
        rest = after.strip()
        if option in ("-s", "-o", "-t"):
            numbers, rest = _leading_numbers(rest, 3)
            if option == "-s":
                scale[: len(numbers[:2])] = numbers[:2]
            elif option == "-o":
                offset[: len(numbers[:2])] = numbers[:2]
        elif option == "-mm":
            numbers, rest = _leading_numbers(rest, 2)
            base, gain = (*numbers, 0.0, 1.0)[:2] if len(numbers) == 2 else (0.0, 1.0)
        elif option == "-clamp":
            word, _, rest = rest.partition(" ")
            clamp, rest = word == "on", rest.strip()
        elif option in OPTION_WORDS:
            rest = rest.partition(" ")[2].strip()
        else:
            break
    found = find_file(folder, rest)
    if found is None:
        notices.append(f"the texture {rest!r} is missing; what it colors has its material's plain color")
        return None
    try:
        pixels = decode_image(found.read_bytes(), repr(rest))
    except (OSError, UnreadableMeshError) as error:
        notices.append(f"the texture {rest!r} cannot be read ({error}); what it colors has its material's plain color")
        return None
    if (base, gain) != (0.0, 1.0):
        pixels = np.clip(base + gain * pixels, 0.0, 1.0).astype(np.float32)
    wrap: Wrap = "clamp" if clamp else "repeat"
    return ObjTexture(ImageTexture(pixels, (wrap, wrap)), scale, offset, base, gain)


def _leading_numbers(text: str, most: int) -> tuple[list[float], str]:
    """Up to `most` numbers at the beginning, and what follows them."""
    numbers: list[float] = []
    while len(numbers) < most:
        word, _, rest = text.partition(" ")
        try:
            numbers.append(float(word))
        except ValueError:
            break
        text = rest.strip()
    return numbers, text
