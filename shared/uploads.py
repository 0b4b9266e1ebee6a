# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh on its way to the server, piece by piece: what a client sends, and how much of it the server has."""

from __future__ import annotations

from dataclasses import dataclass

from . import limits
from .schema import binary, text, integer


@dataclass(frozen=True)
class UploadChunk:
    """A piece of a mesh file, which is named by its SHA-256. Any piece may be sent again; one without data only asks."""

    sha256: str = text(64)
    total: int = integer(1, limits.UPLOAD_BYTES)  # of the whole file
    offset: int = integer(0, limits.UPLOAD_BYTES)
    data: bytes = binary(limits.UPLOAD_PIECE_BYTES)


@dataclass(frozen=True)
class UploadProgress:
    """So many bytes from the beginning are there, which is where to go on; all of them: the mesh was checked, and can be submitted."""

    offset: int = integer(0, limits.UPLOAD_BYTES)
