# SPDX-License-Identifier: GPL-3.0-or-later
"""Base color of glTF primitives at their vertices: texture x factor x COLOR_0, all in linear RGB (glTF 2.0, 3.9.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..geometry.topology import FloatArray, IntArray
from .gltf_file import GltfFile, mapping
from .mesh_data import PLAIN, FaceTexture, UnreadableMeshError
from .texture_sampling import ImageTexture, Wrap, decode_image

NEAREST_FILTER = 9728
WRAPS: dict[int, Wrap] = {10497: "repeat", 33648: "mirror", 33071: "clamp"}


class MaterialReader:
    """Base colors of the primitives of one file; each image is decoded once."""

    def __init__(self, gltf: GltfFile) -> None:
        self._gltf = gltf
        self._images: dict[int, Any] = {}

    def linear_colors(self, primitive: Mapping[str, Any], count: int) -> FloatArray:
        """(count, 3) linear RGB in [0, 1]. Plain gray for a primitive with neither material nor COLOR_0."""
        tint, texture, attributes = self._tint(primitive, count)
        colors = tint if texture is None else tint * self._texture_colors(texture, attributes, count)
        return np.clip(colors, 0.0, 1.0) if np.isfinite(colors).all() else colors

    def face_texture(self, primitive: Mapping[str, Any], count: int, faces: IntArray, first: int) -> FaceTexture | None:
        """The texture of a primitive's faces (n, 3), numbered from `first`; None without one."""
        tint, texture, attributes = self._tint(primitive, count)
        if texture is None:
            return None
        image, uv = self._texture_places(texture, attributes, count)
        return FaceTexture(first, image, uv[faces], np.clip(tint, 0.0, 1.0)[faces])

    def _tint(
        self, primitive: Mapping[str, Any], count: int
    ) -> tuple[FloatArray, Mapping[str, Any] | None, Mapping[str, Any]]:
        """(count, 3) factor x COLOR_0, the texture's reference if there is one, and the primitive's attributes."""
        attributes = mapping(primitive.get("attributes"), "primitive's attributes")
        has_material = primitive.get("material") is not None
        if not has_material and "COLOR_0" not in attributes:
            return np.full((count, 3), PLAIN), None, attributes
        colors, texture = np.ones((count, 3)), None
        if "COLOR_0" in attributes:
            colors = colors * self._vertex_colors(attributes["COLOR_0"], count)
        if has_material:
            factor, texture = self._base_color(self._gltf.item("materials", primitive["material"]))
            colors = colors * factor
        return colors, texture, attributes

    def _vertex_colors(self, index: Any, count: int) -> FloatArray:
        component = self._gltf.item("accessors", index).get("componentType")
        if component not in (5121, 5123, 5126):
            raise UnreadableMeshError(
                f"its COLOR_0 has the component type {component}; allowed are 5121, 5123 and 5126 "
                "(bytes, shorts, floats)"
            )
        colors = self._gltf.floats(index, ("VEC3", "VEC4"), "COLOR_0", normalized=True)
        if len(colors) != count:
            raise UnreadableMeshError(f"its COLOR_0 has {len(colors)} entries for {count} vertices")
        return colors[:, :3]

    def _base_color(self, material: Mapping[str, Any]) -> tuple[FloatArray, Mapping[str, Any] | None]:
        """Linear factor (3,) and the texture's reference, if there is one."""
        glossy = (material.get("extensions") or {}).get("KHR_materials_pbrSpecularGlossiness")
        if glossy is not None:  # its base color supersedes the metallic one, which is there as a fallback
            source, names = mapping(glossy, "material"), ("diffuseFactor", "diffuseTexture")
        else:
            source = mapping(material.get("pbrMetallicRoughness", {}), "material")
            names = ("baseColorFactor", "baseColorTexture")
        factor = np.asarray(source.get(names[0], [1.0, 1.0, 1.0, 1.0]), dtype=np.float64)
        if factor.shape != (4,):
            raise UnreadableMeshError(f"its {names[0]} has {factor.size} numbers; allowed are 4")
        return factor[:3], source.get(names[1])

    def _texture_colors(self, reference: Mapping[str, Any], attributes: Mapping[str, Any], count: int) -> FloatArray:
        image, uv = self._texture_places(reference, attributes, count)
        return image.linear_at(uv)

    def _texture_places(
        self, reference: Mapping[str, Any], attributes: Mapping[str, Any], count: int
    ) -> tuple[ImageTexture, FloatArray]:
        """The image and the places (count, 2) in it."""
        transform = (reference.get("extensions") or {}).get("KHR_texture_transform") or {}
        name = f"TEXCOORD_{int(transform.get('texCoord', reference.get('texCoord', 0)))}"
        if name not in attributes:
            raise UnreadableMeshError(f"its base color texture needs the attribute {name}, which is missing")
        uv = self._gltf.floats(attributes[name], ("VEC2",), name)
        if len(uv) != count:
            raise UnreadableMeshError(f"its {name} has {len(uv)} entries for {count} vertices")
        return self._texture(reference.get("index")), _transformed(uv, transform)

    def _texture(self, index: Any) -> ImageTexture:
        texture = self._gltf.item("textures", index)
        extensions = texture.get("extensions") or {}
        source = texture.get("source")
        if source is None and "EXT_texture_webp" in extensions:
            source = extensions["EXT_texture_webp"].get("source")
        if source is None:
            raise UnreadableMeshError(
                "its base color texture has no image that can be read "
                f"(extensions: {', '.join(extensions) or 'none'}); export it with PNG or JPEG textures"
            )
        sampler = self._gltf.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wraps = [sampler.get(name, 10497) for name in ("wrapS", "wrapT")]
        if any(wrap not in WRAPS for wrap in wraps):
            raise UnreadableMeshError(f"its sampler wraps by {wraps}; allowed are {list(WRAPS)}")
        nearest = sampler.get("magFilter") == NEAREST_FILTER
        return ImageTexture(self._image(source), (WRAPS[wraps[0]], WRAPS[wraps[1]]), nearest)

    def _image(self, index: Any) -> Any:
        if index not in self._images:
            image = self._gltf.item("images", index)
            name = repr(image.get("name") or f"images[{index}]")
            if "uri" in image:
                data = self._gltf.bytes_at(str(image["uri"]), f"texture {name}")
            else:
                data = self._gltf.view_bytes(image.get("bufferView"))
            self._images[index] = decode_image(data, name)
        return self._images[index]


def _transformed(uv: FloatArray, transform: Mapping[str, Any]) -> FloatArray:
    """KHR_texture_transform: offset + R(rotation) (scale * uv), counter-clockwise in uv with v down."""
    angle = float(transform.get("rotation", 0.0))
    scaled = uv * np.asarray(transform.get("scale", [1.0, 1.0]), dtype=np.float64)
    cosine, sine = math.cos(angle), math.sin(angle)
    turned = np.stack(
        [cosine * scaled[:, 0] + sine * scaled[:, 1], cosine * scaled[:, 1] - sine * scaled[:, 0]], axis=1
    )
    shift: FloatArray = np.asarray(transform.get("offset", [0.0, 0.0]), dtype=np.float64)
    return turned + shift
