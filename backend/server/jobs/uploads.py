# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes that artists send to be refined: taken in piece by piece, checked when whole, kept a while, each user's for that user alone.

A job links the mesh into its own folder, so nothing that happens here takes it away. What is half there goes on after a
restart. Ages are counted by the monotonic clock from the server's start, so that a wrong clock removes nothing too early.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dreamwright.shared.errors import ProtocolError, RequestError
from dreamwright.shared.limits import UPLOAD_BYTES
from dreamwright.shared.mesh_file import MeshFile, decode_mesh
from dreamwright.shared.messages import UploadChunk, UploadProgress
from dreamwright.shared.numbers import number_text

from ...errors import ConfigError
from ...geometry.mesh_validation import validate_mesh
from ..policy import Policy

log = logging.getLogger(__name__)

FOLDER = "uploads"
INPUT_MESH_FILE = "subject.dwm"  # in a job's folder: the mesh that it refines
MEGABYTE = 10**6
UNDER_WAY_S = 600.0  # since its last piece, for which nobody else's need for room takes a mesh away
SWEEP_S = 60.0
Key = tuple[str, str]  # the user's folder, the file's SHA-256


@dataclass(frozen=True)
class UploadedMesh:
    """A mesh that is here, or on its way."""

    total: int  # bytes of the whole file, which count from its first piece on
    is_whole: bool
    used_at: float  # by the clock


def read_uploaded_mesh(data: bytes) -> MeshFile:
    """The mesh of an uploaded file. Raises ConfigError for whatever cannot be refined."""
    try:
        mesh = decode_mesh(data, UPLOAD_BYTES)
    except ProtocolError as error:
        raise ConfigError(
            f"the file that was sent is no mesh that can be refined ({error}); send a mesh file of vertices, faces, normals and albedo"
        ) from error
    if mesh.texture is not None:
        raise ConfigError("the mesh has a picture; allowed are colors of vertices; send it without")
    validate_mesh(mesh.vertices, mesh.faces, mesh.albedo)
    return mesh


class Uploads:
    """The uploads of one state folder. All methods raise Refused with what to do."""

    def __init__(self, folder: Path, policy: Policy, clock: Callable[[], float]) -> None:
        self._folder, self._policy, self._clock = folder / FOLDER, policy, clock
        self._sent: dict[Key, UploadedMesh] = {}
        self._sweep_at = clock() + SWEEP_S
        for path in sorted(self._folder.glob("*/*"), key=_written_at):
            found = re.fullmatch(r"([0-9a-f]{64})(?:\.dwm|\.(\d{1,9})\.part)", path.name)
            if found is None:
                log.warning("file in the folder of uploads is none of the server's", extra={"path": str(path)})
                continue
            total = int(found[2]) if found[2] else path.stat().st_size
            self._sent[path.parent.name, found[1]] = UploadedMesh(total, not found[2], clock())

    def receive(self, owner: str, piece: UploadChunk) -> UploadProgress:
        """Keep a piece, unless it is there already; how much there is then. The last one has the whole mesh checked."""
        if not re.fullmatch("[0-9a-f]{64}", piece.sha256):
            raise RequestError(
                "bad-input",
                f"the upload's sha256 is {piece.sha256!r}; allowed are 64 digits 0 to 9 and a to f; give the file's SHA-256",
            )
        if piece.offset + len(piece.data) > piece.total:
            raise RequestError(
                "bad-input",
                f"a piece from {piece.offset} of {len(piece.data)} bytes of a file of {piece.total}; allowed are {piece.total} in all",
            )
        key = _folder_of(owner), piece.sha256
        have = self._have(key, piece.total)
        if have == piece.total or not piece.data or piece.offset > have:
            return UploadProgress(have)
        if key not in self._sent:
            self._make_room(key[0], piece.total)
            self._sent[key] = UploadedMesh(piece.total, False, self._clock())
        fresh = piece.data[have - piece.offset :]
        path = self._part(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(fresh)
            if have + len(fresh) == piece.total:
                self._complete(key)
        except OSError as error:
            raise RequestError(
                "no-space",
                f"the server cannot write to {path.parent} ({error.strerror or error}); make room on its disk, then send it again",
            ) from error
        return UploadProgress(have + len(fresh))

    def _have(self, key: Key, total: int) -> int:
        """Bytes that are here of a file of that size. What is not on the disk any more, or was announced as of another size, is forgotten."""
        known = self._sent.get(key)
        if known is None:
            return 0
        path = self._whole(key) if known.is_whole else self._part(key)
        size = path.stat().st_size if path.is_file() else 0
        if not size or size > total or known.total != total or (known.is_whole and size != total):
            self._remove(key)
            return 0
        self._sent[key] = replace(known, used_at=self._clock())
        return size

    def _complete(self, key: Key) -> None:
        """Check what has arrived in full, and only then give it its name. Raises OSError."""
        path = self._part(key)
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != key[1]:
            self._remove(key)
            raise RequestError(
                "not-ready",
                f"the mesh arrived damaged: its SHA-256 is {digest}, announced was {key[1]}; send it again from its beginning",
            )
        try:
            read_uploaded_mesh(data)
        except ConfigError as error:
            self._remove(key)
            raise RequestError("bad-input", str(error)) from error
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(path, self._whole(key))
        sync_folder(path.parent)
        self._sent[key] = replace(self._sent[key], is_whole=True)
        log.info("mesh received", extra={"bytes": len(data)})

    def take(self, owner: str, sha256: str, folder: Path) -> None:
        """Put a user's mesh into a job's folder, which is made, and on the disk before this returns."""
        key = _folder_of(owner), sha256
        known = self._sent.get(key)
        have = self._have(key, known.total) if known is not None else 0
        if known is None or not known.is_whole or have != known.total:
            raise RequestError(
                "not-ready",
                f"the server has {have} bytes of the mesh {sha256!r} from you; send all of it first, then submit again",
            )
        try:
            folder.mkdir(parents=True)
            try:
                os.link(self._whole(key), folder / INPUT_MESH_FILE)
            except OSError:  # a disk without links, or another one
                shutil.copyfile(self._whole(key), folder / INPUT_MESH_FILE)
                with (folder / INPUT_MESH_FILE).open("rb+") as file:
                    os.fsync(file.fileno())
            sync_folder(folder)
            sync_folder(folder.parent)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise RequestError(
                "no-space",
                f"the server cannot write to {folder} ({error.strerror or error}); make room on its disk, then send it again",
            ) from error

    def sweep(self) -> None:
        """Now and then: remove what was not used for long."""
        now = self._clock()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        for key, sent in list(self._sent.items()):
            if now - sent.used_at > 3600 * self._policy.upload_hours:
                self._remove(key)

    def _make_room(self, own: str, size: int) -> None:
        """Let go of what was not used for longest: this user's above the user's share, anybody's idle ones above the limit of all."""
        for limit_mb, mine in ((self._policy.upload_mb_per_user, True), (self._policy.upload_mb_total, False)):
            limit = int(limit_mb * MEGABYTE)
            counted = {key: sent for key, sent in self._sent.items() if key[0] == own or not mine}
            excess = size + sum(sent.total for sent in counted.values()) - limit
            may_go = [key for key, sent in counted.items() if mine or self._clock() - sent.used_at > UNDER_WAY_S]
            for key in sorted(may_go, key=lambda key: counted[key].used_at):
                if excess <= 0:
                    break
                self._remove(key)
                excess -= counted[key].total
            if excess > 0 and mine:
                raise RequestError(
                    "too-many",
                    f"a mesh of {size / MEGABYTE:.1f} MB; allowed are {number_text(limit_mb)} MB a user; decimate it, or ask for a larger --upload-mb-per-user",
                )
            if excess > 0:
                raise RequestError(
                    "queue-full",
                    f"meshes of all users together may have {number_text(limit_mb)} MB and are being sent; try again in some minutes, or ask for a larger --upload-mb-total",
                )

    def _remove(self, key: Key) -> None:
        known = self._sent.pop(key)
        path = self._whole(key) if known.is_whole else self._folder / key[0] / f"{key[1]}.{known.total}.part"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("upload stays on the disk", extra={"path": str(path), "why": str(error)})

    def _whole(self, key: Key) -> Path:
        return self._folder / key[0] / f"{key[1]}.dwm"

    def _part(self, key: Key) -> Path:
        return self._folder / key[0] / f"{key[1]}.{self._sent[key].total}.part"


def _folder_of(owner: str) -> str:
    """A user's folder: a name may hold anything, a hash of it leads nowhere."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def _written_at(path: Path) -> float:
    return path.stat().st_mtime


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a power cut, where the system lets a folder be opened. Raises OSError."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
