# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's status as tables for a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dreamwright.shared.status import DeviceStatus, JobStatus, ServerStatus, UserStatus

AROUND = 14  # lines of titles, headings and gaps
MISSING = "-"
ONLY_OWN = "You see your own jobs only. To see all, whoever runs the server types: dreamwright keys allow NAME KEY --admin (your key: dreamwright keys mine)"


def tables(status: ServerStatus, address: str, height: int | None = None, note: str = "") -> RenderableType:
    """Everything, one below the other; in a screen of `height` lines the jobs get what the rest leaves."""
    room = None if height is None else max(1, height - AROUND - len(status.devices) - min(len(status.users), 5))
    parts: list[RenderableType] = [heading(status, address)]
    if note:
        parts.append(Text(clean(note), "bold red"))
    if not status.sees_all:
        parts.append(Text(ONLY_OWN, "yellow"))
    if status.is_closing:
        parts.append(Text("The server is being stopped.", "bold yellow"))
    parts += [devices(status.devices), jobs(status.jobs[:room])]
    more = status.jobs_open - len(status.jobs[:room])
    if more:
        parts.append(Text(f"and {more} more"))
    shown = status.users if height is None else status.users[:5]
    parts.append(users(shown))
    if status.users_known > len(shown):
        parts.append(Text(f"and {status.users_known - len(shown)} more"))
    return Group(*parts)


def heading(status: ServerStatus, address: str) -> Text:
    """The server in a line."""
    words = [clean(status.software), address, f"up {span(status.uptime_s)}", f"{status.connections} connections"]
    if status.sees_all:
        words.append(f"disk {size(status.disk_used_bytes)} used, {size(status.disk_free_bytes)} free")
    return Text("  ".join(words), "bold")


def devices(lines: Sequence[DeviceStatus]) -> Table:
    """What each device works on."""
    table = sheet("DEVICE", "STATE", "JOB", "USER", "STEPS/S", "SILENT", right=(4, 5))
    for line in lines:
        pace = f"{line.steps_per_s:.3g}" if line.steps_per_s else MISSING
        row(table, line.name, line.state, line.job, line.user, pace, span(line.silent_s))
    return table


def jobs(lines: Sequence[JobStatus]) -> Table:
    """Jobs that have not ended."""
    table = sheet("JOB", "USER", "STATE", "PLACE", "STEP", "ETA", "DEVICE", "PRI", right=(3, 4, 5, 7))
    for line in lines:
        row(
            table,
            line.job,
            line.user,
            line.state,
            str(line.place or MISSING),
            f"{line.step}/{line.steps}",
            span(line.eta_s),
            line.device,
            str(line.priority),
        )
    return table


def users(lines: Sequence[UserStatus]) -> Table:
    """Who has jobs or was here."""
    table = sheet("USER", "RUNNING", "QUEUED", "PAUSED", "CONN", "SEEN", right=(1, 2, 3, 4, 5))
    for line in lines:
        seen = "now" if 0 <= line.seen_s < 5 else span(line.seen_s)
        row(table, line.name, str(line.running), str(line.queued), str(line.paused), str(line.connections), seen)
    return table


def sheet(*heads: str, right: Sequence[int]) -> Table:
    """An empty table; cells that do not fit are cut and never wrapped."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="reverse", pad_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index in right else "left", no_wrap=True, overflow="ellipsis")
    return table


def row(table: Table, *cells: str) -> None:
    """Add a row, whose cells come from another machine."""
    table.add_row(*(Text(clean(cell) or MISSING) for cell in cells))


def clean(text: str) -> str:
    """Without control characters: a server must not command this terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def span(seconds: float) -> str:
    """A time in two units at most; "-" for one that is not known."""
    if seconds < 0:
        return MISSING
    total = int(round(seconds))
    for unit, smaller, long, short in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if total >= long:
            return f"{total // long}{unit}{total % long // short:02d}{smaller}"
    return f"{total}s"


def size(count: int) -> str:
    """Bytes in decimal units."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
