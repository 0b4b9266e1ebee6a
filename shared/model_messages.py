# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages about downloads of models to the server; `messages` registers them."""

from __future__ import annotations

from dataclasses import dataclass

from . import limits
from .limits import LARGEST
from .schema import enum, integer, number, record, text

# "checking": all files are here and are verified. "stopped" and "failed" keep what was received.
DOWNLOAD_STATES = ("running", "checking", "stopping", "stopped", "failed", "done")
ACTIVE_STATES = ("running", "checking", "stopping")


@dataclass(frozen=True)
class ModelDownload:
    """The download of one model, for users who may start and stop it."""

    model: str = text(limits.NAME_CHARACTERS)
    state: str = enum(*DOWNLOAD_STATES)
    received_bytes: int = integer(0, LARGEST, 0)  # that are on the server's disk; while checking: that are checked
    total_bytes: int = integer(0, LARGEST, 0)  # 0: not known yet
    rate: float = number(0, 1e15, 0.0)  # bytes per second, over the last seconds; 0: unknown
    eta_s: float = number(-1, 1e12, -1.0)  # -1: unknown
    file: str = text(limits.VALUE_CHARACTERS, "")  # path in the model's repository of the file that is received
    message: str = text(limits.MESSAGE_CHARACTERS, "")  # why it failed, or what it does before the first byte

    @property
    def is_active(self) -> bool:
        """Whether the server works on it."""
        return self.state in ACTIVE_STATES


@dataclass(frozen=True)
class DownloadModel:
    """Download a registered model by its name, or continue. Repeated while it runs, it changes nothing."""

    model: str = text(limits.NAME_CHARACTERS)


@dataclass(frozen=True)
class StopDownload:
    """Stop the download of a model and keep what was received."""

    model: str = text(limits.NAME_CHARACTERS)


@dataclass(frozen=True)
class ModelDownloadReply:
    """The present state of the download that the request named."""

    download: ModelDownload = record(ModelDownload)


@dataclass(frozen=True)
class ModelDownloadChanged:
    """A download of a model changed; `count` as in `JobChanged`. Sent to users who may start one."""

    count: int = integer(1, LARGEST)
    download: ModelDownload = record(ModelDownload)


@dataclass(frozen=True)
class CapabilitiesChanged:
    """The server offers something else, such as a new model: ask for its capabilities again. Sent to all."""

    count: int = integer(1, LARGEST)
    revision: int = integer(0, LARGEST)
