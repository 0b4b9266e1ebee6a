# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh on its way to the server, piece by piece: what a client sends, and how much of it the server has."""

from __future__ import annotations

from dataclasses import dataclass

from . import limits
from .schema import raw, text, whole


@dataclass(frozen=True)
class Upload:
    """A piece of a mesh file, which is named by its SHA-256. Any piece may be sent again; one without data only asks."""

    sha256: str = text(64)
    total: int = whole(1, limits.UPLOAD_BYTES)  # of the whole file
    offset: int = whole(0, limits.UPLOAD_BYTES)
    data: bytes = raw(limits.UPLOAD_PIECE_BYTES)


@dataclass(frozen=True)
class Uploaded:
    """So many bytes from the beginning are there, which is where to go on; all of them: the mesh was checked, and can be submitted."""

    offset: int = whole(0, limits.UPLOAD_BYTES)
