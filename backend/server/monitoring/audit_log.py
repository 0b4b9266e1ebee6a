# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log of a state folder: who did what when, in lines of JSON that are only appended, without prompts.

`audit.jsonl` has mode 0600. Above ROTATE_BYTES it becomes `audit.1.jsonl` and so on; FILES_KEPT are kept.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)

AUDIT_FILE = "audit.jsonl"
ROTATE_BYTES = 10_000_000
FILES_KEPT = 10
FLUSH_INTERVAL_S = 1.0
WAITING_LARGEST = 10_000  # entries that wait for room on the disk; more are counted only
ENTRIES_PER_MINUTE = 300  # of a user who is no admin; more are counted only, so that nobody floods the log away
MINUTE_S = 60.0


@dataclass(frozen=True)
class AuditEntry:
    """One action. Every text is the server's own or was checked: nothing that a user typed."""

    time: str  # UTC, ISO 8601
    user: str
    key: str  # fingerprint of the key; "" on a server without keys, on the web page and for commands
    action: str
    job: str  # ""; none
    owner: str  # of the job
    outcome: str  # "ok", or the code of the refusal
    count: int = 1  # of actions, where several are one entry


def audit_time(wall_s: float) -> str:
    """A Unix time in UTC as the log writes it."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AuditLog:
    """Entries are written by `flush`. A disk that refuses them stops nothing: they wait, and the server's log says so.

    Safe beside other processes that append, as `dreamwright keys` does; only a server rotates.
    """

    def __init__(
        self,
        state: Path,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        rotate_bytes: int = ROTATE_BYTES,
    ) -> None:
        self._path, self._wall, self._clock, self._rotate_bytes = state / AUDIT_FILE, wall, clock, rotate_bytes
        self._waiting: list[AuditEntry] = []
        self._lost = 0
        self._minutes: dict[str, tuple[float, int]] = {}  # by user: when the minute began, entries since
        self._flush_at = clock()
        self._warn_at = clock()

    def note(
        self,
        user: str,
        key: str,
        action: str,
        job: str = "",
        owner: str = "",
        outcome: str = "ok",
        limited: bool = True,
    ) -> None:
        """Take an entry, which the next `flush` writes. `limited`: at most ENTRIES_PER_MINUTE of this user."""
        if limited and not self._has_room(user):
            return
        self._add(AuditEntry(audit_time(self._wall()), user, key, action, job, owner, outcome))

    def step(self) -> None:
        """Write what waits, every FLUSH_INTERVAL_S."""
        now = self._clock()
        if now < self._flush_at:
            return
        self._flush_at = now + FLUSH_INTERVAL_S
        for user, (began, count) in list(self._minutes.items()):
            if now - began >= MINUTE_S:
                self._end_minute(user, count)
        if self._waiting or self._lost:
            self.flush()

    def flush(self) -> bool:
        """Write what waits to the disk; False when the disk refuses it."""
        entries = list(self._waiting)
        if self._lost:
            entries.append(AuditEntry(audit_time(self._wall()), "", "", "entries lost", "", "", "no-space", self._lost))
        data = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries).encode()
        try:
            self._append(data)
        except OSError as error:
            if self._clock() >= self._warn_at:
                self._warn_at = self._clock() + MINUTE_S
                context = {"path": str(self._path), "why": error.strerror or str(error), "waiting": len(entries)}
                log.error("audit log cannot be written; entries wait in memory", extra=context)
            return False
        self._waiting.clear()
        self._lost = 0
        return True

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            written = os.write(descriptor, data)
            if written < len(data):  # a full disk; the part would be written twice
                os.ftruncate(descriptor, size)
                raise OSError(28, "No space left on device")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if size + len(data) > self._rotate_bytes:
            self._rotate()

    def _rotate(self) -> None:
        for number in range(FILES_KEPT - 1, 0, -1):
            older = rotated(self._path, number - 1)
            if older.exists():
                os.replace(older, rotated(self._path, number))

    def _has_room(self, user: str) -> bool:
        """Count an entry of a user's present minute; False above the limit."""
        now = self._clock()
        began, count = self._minutes.get(user, (now, 0))
        if now - began >= MINUTE_S:
            self._end_minute(user, count)
            began, count = now, 0
        self._minutes[user] = began, count + 1
        return count < ENTRIES_PER_MINUTE

    def _end_minute(self, user: str, count: int) -> None:
        self._minutes.pop(user, None)
        if count > ENTRIES_PER_MINUTE:
            more = count - ENTRIES_PER_MINUTE
            self._add(AuditEntry(audit_time(self._wall()), user, "", "more actions in a minute", "", "", "ok", more))

    def _add(self, entry: AuditEntry) -> None:
        if len(self._waiting) < WAITING_LARGEST:
            self._waiting.append(entry)
        else:
            self._lost += 1


def rotated(path: Path, number: int) -> Path:
    """The log's file `number` ages ago; 0 is the one that is appended to."""
    return path if not number else path.with_name(f"{path.stem}.{number}{path.suffix}")


def append_entry(state: Path, user: str, action: str, owner: str = "", key: str = "") -> bool:
    """Append what a command did to the log of a state folder; False when the disk refuses it."""
    audit = AuditLog(state, rotate_bytes=1 << 62)
    audit.note(user, key, action, "", owner, limited=False)
    return audit.flush()


def read_entries(state: Path) -> Iterator[AuditEntry]:
    """All entries of a state folder's log, oldest first; a line cut by a crash is skipped. Raises OSError."""
    for number in range(FILES_KEPT - 1, -1, -1):
        path = rotated(state / AUDIT_FILE, number)
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                entry = _parsed(line)
                if entry is not None:
                    yield entry


def _parsed(line: str) -> AuditEntry | None:
    try:
        content = json.loads(line)
        return AuditEntry(**{name: content[name] for name in _names()})
    except (ValueError, TypeError, KeyError):
        return None


def _names() -> Sequence[str]:
    return [field.name for field in fields(AuditEntry)]


def csv_cell(text: object) -> str:
    """Text that a spreadsheet does not take for a formula."""
    shown = str(text)
    return "'" + shown if re.match(r"[=+\-@\t\r]", shown) else shown
