# SPDX-License-Identifier: GPL-3.0-or-later
"""The container of glTF 2.0, .glb or .gltf: JSON document, buffers by any URI, accessors of every kind as arrays."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from .mesh_data import UnreadableMeshError

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
LARGEST_ACCESSOR = 1 << 26  # numbers; one that no buffer backs costs no byte of the file
GLB_MAGIC, JSON_CHUNK, BINARY_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942
# Required extensions that change neither shape nor base color beyond what `gltf_reader` and `gltf_materials` read.
READABLE_EXTENSIONS = frozenset(
    ["KHR_mesh_quantization", "KHR_texture_transform", "EXT_texture_webp", "KHR_lights_punctual", "KHR_xmp_json_ld"]
    + ["KHR_animation_pointer"]
    + ["KHR_materials_" + name for name in ("unlit", "pbrSpecularGlossiness", "emissive_strength", "clearcoat", "ior")]
    + ["KHR_materials_" + name for name in ("sheen", "specular", "transmission", "volume", "iridescence", "anisotropy")]
    + ["KHR_materials_" + name for name in ("dispersion", "variants", "diffuse_transmission")]
)


class GltfFile:
    """A parsed file. Every method raises UnreadableMeshError, or a LookupError, TypeError or ValueError, for damage."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        text, self._binary = _glb_chunks(content) if content[:4] == GLB_MAGIC else (content, None)
        try:
            self.document = json.loads(text.decode("utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise UnreadableMeshError(f"its JSON is damaged: {error}") from error
        if not isinstance(self.document, dict):
            raise UnreadableMeshError("its JSON is no glTF document")
        version = str(mapping(self.document.get("asset"), "asset").get("version", "missing"))
        if not version.startswith("2."):
            raise UnreadableMeshError(f"its glTF version is {version}; allowed is 2.0")
        self._folder = path.parent
        self._buffers: dict[int, bytes] = {}
        self._check_extensions()

    def items(self, name: str) -> list[dict[str, Any]]:
        """A top-level array of objects, for example "nodes"; empty when it is missing."""
        entries = self.document.get(name, [])
        if not isinstance(entries, list):
            raise UnreadableMeshError(f"its {name} are no array")
        return [mapping(entry, f"entry of {name}") for entry in entries]

    def item(self, name: str, index: Any) -> dict[str, Any]:
        """One object of a top-level array."""
        entries = self.items(name)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(entries):
            raise UnreadableMeshError(f"it refers to {name}[{index}] of {len(entries)}")
        return entries[index]

    def numbers(self, index: Any, kinds: tuple[str, ...], what: str) -> NDArray[Any]:
        """(count, width) numbers of an accessor as they are stored, sparse values put in. `what` names it in errors."""
        accessor = self.item("accessors", index)
        kind, component = accessor.get("type"), accessor.get("componentType")
        if kind not in kinds:
            raise UnreadableMeshError(f"its {what} has the type {kind}; allowed is {' or '.join(kinds)}")
        if component not in COMPONENTS:
            raise UnreadableMeshError(f"its {what} has the component type {component}; allowed are {list(COMPONENTS)}")
        count, width = natural(accessor.get("count"), "count"), WIDTHS[kind]
        if count * width > LARGEST_ACCESSOR:
            raise UnreadableMeshError(f"its {what} has {count} entries, which are too many")
        if "bufferView" in accessor:
            array = self._view(accessor["bufferView"], accessor.get("byteOffset", 0), component, count, width, what)
        else:
            array = np.zeros((count, width), COMPONENTS[component])
        sparse = accessor.get("sparse")
        if sparse is None:
            return array
        few = natural(sparse["count"], "count")
        rows, values = sparse["indices"], sparse["values"]
        at = self._view(rows["bufferView"], rows.get("byteOffset", 0), rows["componentType"], few, 1, what)[:, 0]
        new = self._view(values["bufferView"], values.get("byteOffset", 0), component, few, width, what)
        if few and int(at.max()) >= count:
            raise UnreadableMeshError(f"its {what} has a sparse value for entry {int(at.max())} of {count}")
        array = array.copy()
        array[at.astype(np.int64)] = new
        return array

    def floats(self, index: Any, kinds: tuple[str, ...], what: str, normalized: bool = False) -> NDArray[np.float64]:
        """(count, width) float64 of an accessor; integers are scaled to [0, 1] or [-1, 1] where it says `normalized`.

        `normalized` True scales them in any case, for attributes that have no other meaning.
        """
        raw = self.numbers(index, kinds, what)
        if raw.dtype.kind == "f" or not (normalized or self.item("accessors", index).get("normalized") is True):
            return raw.astype(np.float64)
        return np.maximum(raw.astype(np.float64) / np.iinfo(raw.dtype).max, -1.0)

    def bytes_at(self, uri: str, what: str) -> bytes:
        """Content of a data URI or of a file beside this one."""
        if uri.startswith("data:"):
            head, comma, body = uri.partition(",")
            if not comma:
                raise UnreadableMeshError(f"its {what} has a damaged data URI")
            try:
                return base64.b64decode(unquote(body), validate=False) if ";base64" in head else unquote_to_bytes(body)
            except binascii.Error as error:
                raise UnreadableMeshError(f"its {what} has damaged base64: {error}") from error
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri):
            raise UnreadableMeshError(f"its {what} is at {uri[:80]!r}; allowed are files beside it and data URIs")
        for name in dict.fromkeys((unquote(uri), uri)):  # some writers do not encode their names
            try:
                return (self._folder / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError, ValueError):
                continue
            except OSError as error:
                raise UnreadableMeshError(f"its {what} {name!r} cannot be read: {error.strerror}") from error
        raise UnreadableMeshError(f"its {what} {unquote(uri)!r} is missing; put that file beside it")

    def view_bytes(self, index: Any) -> bytes:
        """The bytes of a buffer view."""
        view = self.item("bufferViews", index)
        _refuse_compression(view)
        data = self._buffer(view.get("buffer"))
        start, length = natural(view.get("byteOffset", 0), "byteOffset"), natural(view.get("byteLength"), "byteLength")
        if start + length > len(data):
            raise UnreadableMeshError(
                f"a view of bytes {start} to {start + length} reaches beyond a buffer of {len(data)}"
            )
        return data[start : start + length]

    def _view(self, index: Any, offset: Any, component: Any, count: int, width: int, what: str) -> NDArray[Any]:
        data, dtype = self.view_bytes(index), np.dtype(COMPONENTS[component])
        offset = natural(offset, "byteOffset")
        stride = natural(self.item("bufferViews", index).get("byteStride", dtype.itemsize * width), "byteStride")
        if count and offset + (count - 1) * stride + width * dtype.itemsize > len(data):
            raise UnreadableMeshError(f"its {what} reaches beyond its buffer view of {len(data)} bytes")
        if stride < width * dtype.itemsize and count > 1:
            raise UnreadableMeshError(f"its {what} has a byteStride of {stride}, less than one entry")
        if not count:
            return np.zeros((0, width), dtype)
        return np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))

    def _buffer(self, index: Any) -> bytes:
        buffer = self.item("buffers", index)
        if index not in self._buffers:
            length = natural(buffer.get("byteLength"), "byteLength")
            if "uri" in buffer:
                data = self.bytes_at(str(buffer["uri"]), "buffer")
            elif index == 0 and self._binary is not None:
                data = self._binary
            else:
                _refuse_compression(buffer)
                raise UnreadableMeshError(f"its buffer {index} has no data")
            if len(data) < length:
                raise UnreadableMeshError(f"its buffer {index} has {len(data)} bytes of {length}")
            self._buffers[index] = data
        return self._buffers[index]

    def _check_extensions(self) -> None:
        required = self.document.get("extensionsRequired", [])
        unknown = sorted({str(name) for name in required} - READABLE_EXTENSIONS)
        if unknown:
            raise UnreadableMeshError(
                f"it requires the glTF extension{'s' * (len(unknown) > 1)} {', '.join(unknown)}, which cannot be read; "
                "export it without (compression and KTX2 textures are common reasons)"
            )


def mapping(value: Any, what: str) -> dict[str, Any]:
    """The value, if it is a JSON object."""
    if not isinstance(value, dict):
        raise UnreadableMeshError(f"its {what} is no object")
    return value


def natural(value: Any, what: str) -> int:
    """The value, if it is a whole number of at least 0."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value != int(value)
    ):
        raise UnreadableMeshError(f"a {what} is {value!r}; allowed are whole numbers")
    if value < 0:
        raise UnreadableMeshError(f"a {what} is {value}; allowed is at least 0")
    return int(value)


def _refuse_compression(owner: Mapping[str, Any]) -> None:
    """Raise for data that an extension compresses, where the file holds no plain copy."""
    for name, extension in (owner.get("extensions") or {}).items():
        if "compression" in name and "buffer" not in owner:
            raise UnreadableMeshError(f"it is compressed with the glTF extension {name}; export it without")
        if "compression" in name and isinstance(extension, dict) and extension.get("fallback"):
            raise UnreadableMeshError(f"it is compressed with the glTF extension {name}; export it without")


def _glb_chunks(content: bytes) -> tuple[bytes, bytes | None]:
    """The JSON chunk and the binary chunk, if there is one."""
    if len(content) < 20:
        raise UnreadableMeshError("it ends within its header")
    version, total = struct.unpack_from("<II", content, 4)
    if version != 2:
        raise UnreadableMeshError(f"its glTF version is {version}; allowed is 2")
    if total > len(content):
        raise UnreadableMeshError(f"it has {len(content)} bytes of {total}: it is cut off")
    chunks: dict[int, bytes] = {}
    place = 12
    while place + 8 <= total:
        length, kind = struct.unpack_from("<II", content, place)
        if place + 8 + length > total:
            raise UnreadableMeshError("one of its chunks is cut off")
        chunks.setdefault(kind, content[place + 8 : place + 8 + length])
        place += 8 + length
    if JSON_CHUNK not in chunks:
        raise UnreadableMeshError("it has no JSON chunk")
    return chunks[JSON_CHUNK], chunks.get(BINARY_CHUNK)
