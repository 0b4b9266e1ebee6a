# SPDX-License-Identifier: GPL-3.0-or-later
"""What the add-on remembers between sessions, as JSON in the user folder.

Its own id, what each server offers, and what was asked for and not answered yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

from .shared.errors import ProtocolError
from .shared.messages import Capabilities, SubmitJob
from .shared.schema import from_map, to_map

SERVERS = 20  # remembered; the one not used for longest goes first


def _read(path: Path) -> dict[str, Any]:
    """The map in a file; {} when there is none or somebody else wrote over it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replace a file whole: two Blenders may write it at once. Raises OSError."""
    _replace(path, json.dumps(content).encode())


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.replace(path)


def client_id(folder: Path) -> str:
    """The id of this installation, made at its first use; a fresh one each time where nothing can be written."""
    path = folder / "client.json"
    known = _read(path).get("client")
    if isinstance(known, str) and re.fullmatch(r"[0-9a-f]{32}", known):
        return known
    made = uuid.uuid4().hex
    try:
        _write(path, {"client": made})
    except OSError:
        return made
    return made


def recall_capabilities(folder: Path, address: str) -> Capabilities | None:
    """What the server at `address` offered when it was last seen, to draw the panel without it."""
    known = _read(folder / "capabilities.json").get(address)
    try:
        return from_map(Capabilities, known) if known is not None else None
    except ProtocolError:
        return None  # of an older add-on: the server will say it again


def remember_capabilities(folder: Path, address: str, offered: Capabilities) -> None:
    """Keep what a server offers. Raises OSError when the folder cannot be written."""
    path = folder / "capabilities.json"
    content = {key: value for key, value in _read(path).items() if key != address}
    content = dict(list(content.items())[-(SERVERS - 1) :])
    content[address] = to_map(offered)
    _write(path, content)


def known_addresses(folder: Path) -> list[str]:
    """Servers that were connected to, the latest first."""
    return list(reversed(_read(folder / "capabilities.json")))


def keep_submit(folder: Path, address: str, asked: SubmitJob, mesh: bytes = b"") -> None:
    """Keep a request until it is answered; a file each, so that two Blenders never lose each other's. Raises OSError."""
    if mesh:
        _replace(_mesh_path(folder, asked.ticket), mesh)
    _write(_submit_path(folder, asked.ticket), {"address": address, "submit": to_map(asked)})


def drop_submit(folder: Path, ticket: str) -> None:
    """The request is answered. Raises OSError."""
    _submit_path(folder, ticket).unlink(missing_ok=True)
    _mesh_path(folder, ticket).unlink(missing_ok=True)


def recall_mesh(folder: Path, asked: SubmitJob) -> bytes | None:
    """The mesh that a request is to refine; None when it is no more as it was."""
    try:
        data = _mesh_path(folder, asked.ticket).read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == asked.mesh else None


def recall_submits(folder: Path, address: str) -> dict[str, SubmitJob]:
    """What was asked of the server at `address` and not answered, by ticket, oldest first."""
    found = []
    for path in (folder / "outbox").glob("*.json"):
        content = _read(path)
        try:
            asked, age = from_map(SubmitJob, content.get("submit")), path.stat().st_mtime_ns
        except (ProtocolError, OSError):
            continue  # damaged, or answered to another Blender this moment
        if content.get("address") == address and path == _submit_path(folder, asked.ticket):
            found.append((age, asked))
    return {asked.ticket: asked for _, asked in sorted(found, key=lambda pair: pair[0])}


def _submit_path(folder: Path, ticket: str) -> Path:
    return folder / "outbox" / f"{ticket}.json"


def _mesh_path(folder: Path, ticket: str) -> Path:
    return folder / "outbox" / f"{ticket}.dwm"
