# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts and icons of the list of models: sizes, memory, states, progress. Does not import bpy."""

from __future__ import annotations

from . import labels
from .shared.capabilities import ModelInfo
from .shared.model_messages import ModelDownload
from .shared.numbers import number_text
from .wording import mark, say

# (icon, label) of a model that is no longer, or not yet, being downloaded; always both.
READY, FAILED, STOPPED = ("CHECKMARK", mark("Ready")), ("ERROR", mark("Failed")), ("PAUSE", mark("Stopped"))
GATED, ABSENT = ("LOCKED", mark("Gated")), ("IMPORT", mark("Not here"))
ACTIVE = {
    "running": ("TIME", mark("Downloading")),
    "checking": ("TIME", mark("Checking")),
    "stopping": ("CANCEL", mark("Stopping")),
}


def size_text(size: int) -> str:
    """A number of bytes in GB (1e9), MB or kB, with one decimal where it matters."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{number_text(round(size / unit, 1 if size < 100 * unit else 0))} {name}"
    return f"{number_text(round(size / 1e3))} kB"


def state_of(info: ModelInfo, download: ModelDownload | None) -> tuple[str, str]:
    """(icon, label) of a model's state on the server."""
    if download is not None and download.is_active:
        return ACTIVE[download.state]
    if info.ready:
        return READY
    if download is not None and download.state == "failed":
        return FAILED
    if info.disk_bytes:
        return STOPPED
    return GATED if info.gated else ABSENT


def is_active(download: ModelDownload | None) -> bool:
    """Whether the server works on a download."""
    return download is not None and download.is_active


def row_state(info: ModelInfo, download: ModelDownload | None) -> tuple[str, str]:
    """As `state_of`, with the share of a running download instead of its label."""
    icon, label = state_of(info, download)
    label = say(label)
    if download is not None and download.state == "running" and download.total_bytes:
        label = f"{int(100 * fraction(download))} %"
    return icon, label


def shown_size(info: ModelInfo) -> str:
    """Its size on the server's disk, or that of its download; "" where neither is known."""
    size = info.disk_bytes if info.ready else info.download_bytes
    return size_text(size) if size else ""


def size_details(info: ModelInfo) -> str:
    """How large it is on the server, or how much of it is there."""
    if info.ready:
        return say("Size: {size} on the server", size=size_text(info.disk_bytes))
    received = say(", {size} of it on the server", size=size_text(info.disk_bytes)) if info.disk_bytes else ""
    return say("Size: about {size} to download{received}", size=size_text(info.download_bytes), received=received)


def memory_details(info: ModelInfo) -> str:
    """The memory of the device, and that for the text encoder; "" where it is unknown."""
    if not info.memory_gb:
        return ""
    return say(
        "Memory: about {device} GB of the device, {text} GB while the prompt is encoded",
        device=number_text(info.memory_gb),
        text=number_text(info.text_encoder_gb),
    )


def fraction(download: ModelDownload) -> float:
    """Progress of a download, or of its check, from 0 to 1."""
    return min(1.0, download.received_bytes / download.total_bytes) if download.total_bytes else 0.0


def progress_text(download: ModelDownload) -> str:
    """Progress of a download in one line."""
    if download.state == "stopping":
        return say("Stopping")
    if not download.total_bytes:
        return say("Starting")
    share = say(
        "{received} of {total}", received=size_text(download.received_bytes), total=size_text(download.total_bytes)
    )
    if download.state == "checking":
        return say("Checking {share}", share=share)
    rate = f", {size_text(int(download.rate))}/s" if download.rate else ""
    left = say(", {time} left", time=labels.duration(download.eta_s)) if download.eta_s >= 0 else ""
    return f"{share}{rate}{left}"


def missing_text(info: ModelInfo) -> str:
    """Why a model cannot be used, and what to do; "" when it can."""
    if info.ready:
        return ""
    return say("Not on the server yet; download it under Server, Models") if info.can_download else info.missing


def confirmation(info: ModelInfo, where: str, free_bytes: int) -> list[str]:
    """The sentences to confirm a download with."""
    left = max(0, info.download_bytes - info.disk_bytes)
    texts = [
        say("The server {where} downloads {model}: about {size}", where=where, model=info.name, size=size_text(left)),
        say("Its disk has {size} free", size=size_text(free_bytes)) if free_bytes else "",
        say("License: {license}", license=info.license),
        memory_details(info),
    ]
    return [text for text in texts if text]
