# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in the user folder, as JSON: the installation's id, cached capabilities, and unanswered submissions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any

from .shared.atomic import write_atomically
from .shared.capabilities import Capabilities
from .shared.errors import ProtocolError
from .shared.messages import SubmitJob
from .shared.schema import from_map, to_map
from .wording import say

MAX_SERVERS = 20  # whose capabilities are cached; the least recently used goes first


def _read(path: Path) -> dict[str, Any]:
    """The map in a file; {} when the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically, since two Blenders may write it at once. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)


def save_fault(what: str, folder: Path, error: OSError) -> str:
    """Message for the user when something cannot be stored."""
    return say(
        "{what} cannot be stored in {folder}: {error}; everything works until Blender quits. "
        "Free some space, or make the folder writable",
        what=what,
        folder=folder,
        error=error.strerror or error,
    )


def client_id(folder: Path) -> str:
    """The id of this installation, created at its first use; a new one each time when nothing can be stored."""
    path = folder / "client.json"
    known = _read(path).get("client")
    if isinstance(known, str) and re.fullmatch(r"[0-9a-f]{32}", known):
        return known
    created = uuid.uuid4().hex
    with contextlib.suppress(OSError):
        _write(path, json.dumps({"client": created}).encode())
    return created


def load_capabilities(folder: Path, address: str) -> Capabilities | None:
    """The cached capabilities of the server at `address`, to draw the panel offline; None when there are none."""
    known = _read(folder / "capabilities.json").get(address)
    try:
        return from_map(Capabilities, known) if known is not None else None
    except ProtocolError:
        return None  # written by another version; the server sends them again


def save_capabilities(folder: Path, address: str, capabilities: Capabilities) -> None:
    """Cache a server's capabilities. Raises OSError."""
    path = folder / "capabilities.json"
    content = {key: value for key, value in _read(path).items() if key != address}
    content = dict(list(content.items())[-(MAX_SERVERS - 1) :])
    content[address] = to_map(capabilities)
    _write(path, json.dumps(content).encode())


def known_addresses(folder: Path) -> list[str]:
    """Addresses of servers with cached capabilities, latest first."""
    return list(reversed(_read(folder / "capabilities.json")))


def save_submission(folder: Path, address: str, request: SubmitJob, mesh: bytes = b"") -> None:
    """Store a submission, in a file of its own so that two Blenders do not overwrite each other's. Raises OSError."""
    if mesh:
        _write(_mesh_path(folder, request.ticket), mesh)
    content = {"address": address, "submit": to_map(request)}
    _write(_submission_path(folder, request.ticket), json.dumps(content).encode())


def delete_submission(folder: Path, ticket: str) -> None:
    """Delete a stored submission and its mesh. Raises OSError."""
    _submission_path(folder, ticket).unlink(missing_ok=True)
    _mesh_path(folder, ticket).unlink(missing_ok=True)


def load_mesh(folder: Path, request: SubmitJob) -> bytes | None:
    """The stored mesh of a submission; None when it is missing or damaged."""
    try:
        data = _mesh_path(folder, request.ticket).read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == request.mesh else None


def load_submissions(folder: Path, address: str) -> dict[str, SubmitJob]:
    """Stored submissions to the server at `address`, by ticket, oldest first."""
    found = []
    for path in (folder / "outbox").glob("*.json"):
        content = _read(path)
        try:
            request, modified_ns = from_map(SubmitJob, content.get("submit")), path.stat().st_mtime_ns
        except (ProtocolError, OSError):
            continue  # damaged, or just answered to another Blender
        if content.get("address") == address and path == _submission_path(folder, request.ticket):
            found.append((modified_ns, request))
    return {request.ticket: request for _, request in sorted(found, key=lambda pair: pair[0])}


def _submission_path(folder: Path, ticket: str) -> Path:
    return folder / "outbox" / f"{ticket}.json"


def _mesh_path(folder: Path, ticket: str) -> Path:
    return folder / "outbox" / f"{ticket}.dwm"
