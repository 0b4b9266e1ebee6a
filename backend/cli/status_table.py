# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's status as tables for a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dreamwright.shared.status import DeviceStatus, JobStatus, ServerStatus, UserStatus

FIXED_LINES = 14  # of titles, headings and gaps
UNKNOWN = "-"
OWN_JOBS_ONLY = (
    "You see your own jobs only. To see all, the server's administrator runs: dreamwright keys allow NAME KEY --admin "
    "(your key: dreamwright keys mine)"
)


def status_view(status: ServerStatus, address: str, height: int | None = None, note: str = "") -> RenderableType:
    """All tables, one below the other; with a screen of `height` lines the jobs get the lines that are left."""
    room = None if height is None else max(1, height - FIXED_LINES - len(status.devices) - min(len(status.users), 5))
    parts: list[RenderableType] = [heading(status, address)]
    if note:
        parts.append(Text(printable(note), "bold red"))
    if not status.sees_all:
        parts.append(Text(OWN_JOBS_ONLY, "yellow"))
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
    """One line about the server."""
    parts = [
        printable(status.software),
        address,
        f"up {format_duration(status.uptime_s)}",
        f"{status.connections} connections",
    ]
    if status.sees_all:
        parts.append(f"disk {format_size(status.disk_used_bytes)} used, {format_size(status.disk_free_bytes)} free")
    return Text("  ".join(parts), "bold")


def devices(lines: Sequence[DeviceStatus]) -> Table:
    """Devices and their jobs."""
    table = make_table("DEVICE", "STATE", "JOB", "USER", "STEPS/S", "SILENT", right=(4, 5))
    for line in lines:
        pace = f"{line.steps_per_s:.3g}" if line.steps_per_s else UNKNOWN
        state = {"idle": "drained", "busy": "draining"}[line.state] if line.draining else line.state
        add_row(table, line.name, state, line.job, line.user, pace, format_duration(line.silent_s))
    return table


def jobs(lines: Sequence[JobStatus]) -> Table:
    """Jobs that have not ended."""
    table = make_table("JOB", "USER", "STATE", "PLACE", "STEP", "ETA", "DEVICE", "PRI", right=(3, 4, 5, 7))
    for line in lines:
        add_row(
            table,
            line.job,
            line.user,
            line.state,
            str(line.place or UNKNOWN),
            f"{line.step}/{line.steps}",
            format_duration(line.eta_s),
            line.device,
            str(line.priority),
        )
    return table


def users(lines: Sequence[UserStatus]) -> Table:
    """Users with jobs, or who connected before."""
    table = make_table("USER", "RUNNING", "QUEUED", "PAUSED", "CONN", "SEEN", right=(1, 2, 3, 4, 5))
    for line in lines:
        seen = "now" if 0 <= line.seen_s < 5 else format_duration(line.seen_s)
        add_row(table, line.name, str(line.running), str(line.queued), str(line.paused), str(line.connections), seen)
    return table


def make_table(*heads: str, right: Sequence[int]) -> Table:
    """An empty table; cells that do not fit are cut, not wrapped."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="reverse", pad_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index in right else "left", no_wrap=True, overflow="ellipsis")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row; its cells come from another machine."""
    table.add_row(*(Text(printable(cell) or UNKNOWN) for cell in cells))


def printable(text: str) -> str:
    """The text without control characters, by which a server could control the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def format_duration(seconds: float) -> str:
    """Seconds in at most two units; "-" for a negative, unknown time."""
    if seconds < 0:
        return UNKNOWN
    total = round(seconds)
    for unit, smaller, long, short in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if total >= long:
            return f"{total // long}{unit}{total % long // short:02d}{smaller}"
    return f"{total}s"


def format_size(count: int) -> str:
    """A number of bytes in decimal units."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
