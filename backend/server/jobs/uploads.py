# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploaded meshes: received in chunks, validated when complete, kept for a while, and visible to their user only.

A job links the mesh into its own folder, so removing an upload never affects a job. Partial uploads continue after a
restart. Ages use the monotonic clock from the server's start, so that a wrong clock removes nothing too early.
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
from .durable_files import link_or_copy, sync_folder

log = logging.getLogger(__name__)

FOLDER = "uploads"
INPUT_MESH_FILE = "input_mesh.dwm"  # in a job's folder: the mesh that it refines
MEGABYTE = 10**6
UNDER_WAY_S = 600.0  # since its last chunk, during which an upload is not removed to make room for another user's
CLEANUP_INTERVAL_S = 60.0
UploadKey = tuple[str, str]  # the user's folder, the file's SHA-256


@dataclass(frozen=True)
class UploadedMesh:
    """An upload, complete or not."""

    total: int  # bytes of the whole file, which count from its first chunk on
    is_complete: bool
    used_at: float  # monotonic, seconds


def read_uploaded_mesh(data: bytes) -> MeshFile:
    """The mesh in an uploaded file. Raises ConfigError for anything that cannot be refined."""
    try:
        mesh = decode_mesh(data, UPLOAD_BYTES)
    except ProtocolError as error:
        raise ConfigError(
            f"the uploaded file is not a mesh that can be refined ({error}); "
            "send a mesh file of vertices, faces, normals and albedo"
        ) from error
    if mesh.texture is not None:
        raise ConfigError("the mesh has a texture; allowed are vertex colors; send it without")
    validate_mesh(mesh.vertices, mesh.faces, mesh.albedo)
    return mesh


class Uploads:
    """The uploads in one state folder. All methods raise RequestError with what to do."""

    def __init__(self, folder: Path, policy: Policy, clock: Callable[[], float]) -> None:
        self._folder, self._policy, self._clock = folder / FOLDER, policy, clock
        self._uploads: dict[UploadKey, UploadedMesh] = {}
        self._cleanup_at = clock() + CLEANUP_INTERVAL_S
        for path in sorted(self._folder.glob("*/*"), key=lambda path: path.stat().st_mtime):
            match = re.fullmatch(r"([0-9a-f]{64})(?:\.dwm|\.(\d{1,9})\.part)", path.name)
            if match is None:
                log.warning("unknown file in the folder of uploads", extra={"path": str(path)})
                continue
            total = int(match[2]) if match[2] else path.stat().st_size
            self._uploads[path.parent.name, match[1]] = UploadedMesh(total, not match[2], clock())

    def use_policy(self, policy: Policy) -> None:
        """Follow these limits from now on."""
        self._policy = policy

    def receive(self, owner: str, chunk: UploadChunk) -> UploadProgress:
        """Store a chunk unless it is there already; returns the bytes received. The last chunk validates the mesh."""
        if not re.fullmatch("[0-9a-f]{64}", chunk.sha256):
            raise RequestError(
                "bad-input",
                f"the upload's sha256 is {chunk.sha256!r}; allowed are 64 digits 0 to 9 and a to f; "
                "give the file's SHA-256",
            )
        if chunk.offset + len(chunk.data) > chunk.total:
            raise RequestError(
                "bad-input",
                f"a chunk of {len(chunk.data)} bytes at {chunk.offset} of a file of {chunk.total} bytes; "
                f"allowed are {chunk.total} in all",
            )
        key = _user_folder(owner), chunk.sha256
        received = self._received(key, chunk.total)
        if received == chunk.total or not chunk.data or chunk.offset > received:
            return UploadProgress(received)
        if key not in self._uploads:
            self._make_room(key[0], chunk.total)
            self._uploads[key] = UploadedMesh(chunk.total, False, self._clock())
        fresh = chunk.data[received - chunk.offset :]
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(fresh)
            if received + len(fresh) == chunk.total:
                self._complete(key)
        except OSError as error:
            raise _no_space(path.parent, error) from error
        return UploadProgress(received + len(fresh))

    def _received(self, key: UploadKey, total: int) -> int:
        """Bytes received of a file of this size. Forgets an upload that is gone from the disk or has another size."""
        upload = self._uploads.get(key)
        if upload is None:
            return 0
        path = self._path(key)
        size = path.stat().st_size if path.is_file() else 0
        if not size or size > total or upload.total != total or (upload.is_complete and size != total):
            self._remove(key)
            return 0
        self._uploads[key] = replace(upload, used_at=self._clock())
        return size

    def _complete(self, key: UploadKey) -> None:
        """Validate a file that has arrived in full, then give it its final name. Raises OSError."""
        path = self._path(key)
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != key[1]:
            self._remove(key)
            raise RequestError(
                "not-ready",
                f"the mesh arrived damaged: its SHA-256 is {digest}, announced was {key[1]}; "
                "send it again from its beginning",
            )
        try:
            read_uploaded_mesh(data)
        except ConfigError as error:
            self._remove(key)
            raise RequestError("bad-input", str(error)) from error
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        complete = replace(self._uploads[key], is_complete=True)
        os.replace(path, self._complete_path(key))
        sync_folder(path.parent)
        self._uploads[key] = complete
        log.info("mesh received", extra={"bytes": len(data)})

    def take(self, owner: str, sha256: str, folder: Path) -> None:
        """Put a user's mesh into a job's folder, which is created; both are on the disk before this returns."""
        key = _user_folder(owner), sha256
        upload = self._uploads.get(key)
        received = self._received(key, upload.total) if upload is not None else 0
        if upload is None or not upload.is_complete or received != upload.total:
            raise RequestError(
                "not-ready",
                f"the server has {received} bytes of the mesh {sha256!r} from you; "
                "send all of it first, then submit again",
            )
        try:
            folder.mkdir(parents=True)
            link_or_copy(self._complete_path(key), folder / INPUT_MESH_FILE)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _no_space(folder, error) from error

    def remove_expired(self) -> None:
        """Remove uploads that were not used for long; call it often."""
        now = self._clock()
        if now < self._cleanup_at:
            return
        self._cleanup_at = now + CLEANUP_INTERVAL_S
        for key, upload in list(self._uploads.items()):
            if now - upload.used_at > 3600 * self._policy.upload_hours:
                self._remove(key)

    def _make_room(self, own: str, size: int) -> None:
        """Remove the least recently used uploads: own ones above the user's limits, idle ones above the total limit."""
        for limit_mb, own_only in ((self._policy.upload_mb_per_user, True), (self._policy.upload_mb_total, False)):
            limit = int(limit_mb * MEGABYTE)
            counted = {key: upload for key, upload in self._uploads.items() if key[0] == own or not own_only}
            excess = size + sum(upload.total for upload in counted.values()) - limit
            too_many = len(counted) + 1 - self._policy.uploads_per_user if own_only else 0
            now = self._clock()
            removable = [key for key, upload in counted.items() if own_only or now - upload.used_at > UNDER_WAY_S]
            for key in sorted(removable, key=lambda key: counted[key].used_at):
                if excess <= 0 and too_many <= 0:
                    break
                self._remove(key)
                excess -= counted[key].total
                too_many -= 1
            if excess > 0 and own_only:
                raise RequestError(
                    "too-many",
                    f"a mesh of {size / MEGABYTE:.1f} MB; allowed are {number_text(limit_mb)} MB a user; "
                    "decimate it, or ask for a larger --upload-mb-per-user",
                )
            if excess > 0:
                raise RequestError(
                    "queue-full",
                    f"uploads of all users together may use {number_text(limit_mb)} MB, which other uploads fill; "
                    "try again in some minutes, or ask for a larger --upload-mb-total",
                )

    def _remove(self, key: UploadKey) -> None:
        path = self._path(key)
        del self._uploads[key]
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("upload not removed", extra={"path": str(path), "why": str(error)})

    def _complete_path(self, key: UploadKey) -> Path:
        return self._folder / key[0] / f"{key[1]}.dwm"

    def _path(self, key: UploadKey) -> Path:
        """The file of a known upload; a partial one has its size in its name."""
        upload = self._uploads[key]
        if upload.is_complete:
            return self._complete_path(key)
        return self._folder / key[0] / f"{key[1]}.{upload.total}.part"


def _user_folder(owner: str) -> str:
    """A user's folder: a hash, since a name may hold any character."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def _no_space(folder: Path, error: OSError) -> RequestError:
    return RequestError(
        "no-space",
        f"the server cannot write to {folder} ({error.strerror or error}); make room on its disk, then send it again",
    )
