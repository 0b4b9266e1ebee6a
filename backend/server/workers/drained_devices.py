# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices on which no job is started, kept in the state folder so that a restart does not forget them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from dreamwright.shared.atomic import write_atomically

from ..jobs.job_store import StorageError

log = logging.getLogger(__name__)

DRAINED_FILE = "drained.json"
MOST_DEVICES = 1000  # names that are kept; a cluster's devices come and go


class DrainedDevices:
    """The drained devices of one state folder, by name. A damaged file counts as empty, and the log says so."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / DRAINED_FILE
        self._names = self._read()

    def __contains__(self, device: object) -> bool:
        return device in self._names

    def set(self, device: str, draining: bool) -> None:
        """Drain a device, or use it again. Raises StorageError, with nothing changed."""
        names = self._names | {device} if draining else self._names - {device}
        try:
            write_atomically(self._path, json.dumps(sorted(names)[:MOST_DEVICES]).encode())
        except OSError as error:
            raise StorageError(
                f"the server cannot write to {self._path.parent} ({error.strerror}); make room on its disk"
            ) from error
        self._names = names

    def _read(self) -> frozenset[str]:
        try:
            names = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError) as error:
            log.error("drained devices cannot be read; all are used", extra={"why": type(error).__name__})
            return frozenset()
        return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()
