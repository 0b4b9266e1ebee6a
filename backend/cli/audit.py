# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright audit`: who did what on a server, for its administrator. It holds no prompts."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..server.monitoring.audit_log import AuditEntry

FORMATS = ("jsonl", "csv")


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("audit", help="who did what on this server", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="WHAT")
    export = verbs.add_parser("export", help="print the audit log, or write it to a file")
    export.add_argument(
        "--state", type=Path, help="the server's folder, as for dreamwright serve (default: the user's data folder)"
    )
    export.add_argument("--since", metavar="TIME", help="from this UTC time on, as 2026-12-01 or 2026-12-01T09:30")
    export.add_argument("--until", metavar="TIME", help="before this UTC time")
    export.add_argument("--user", metavar="NAME", help="actions of this user, and those on this user's jobs")
    export.add_argument("--format", choices=FORMATS, default="jsonl", help="lines of JSON or a table (default jsonl)")
    export.add_argument("--out", type=Path, metavar="FILE", help="a new file, readable by you alone (default: print)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Export the log. Raises ConfigError."""
    from ..errors import ConfigError
    from ..server.monitoring.audit_log import AUDIT_FILE, audit_time, read_entries
    from ..server.transport.authorized_keys import state_folder

    state = options.state or state_folder()
    since, until = (
        "" if given is None else audit_time(_time_of(given, option))
        for given, option in ((options.since, "--since"), (options.until, "--until"))
    )
    try:
        if not (state / AUDIT_FILE).exists() and not list(state.glob("audit.*.jsonl")):
            raise ConfigError(
                f"there is no audit log in {state}; a server writes one from its first action on; give its folder "
                "with --state"
            )
        entries = [
            entry
            for entry in read_entries(state)
            if since <= entry.time
            and (not until or entry.time < until)
            and options.user in (None, entry.user, entry.owner)
        ]
    except OSError as error:
        raise ConfigError(
            f"the audit log of {state} cannot be read: {error.strerror or error}; run as its owner, or give another "
            "--state"
        ) from error
    with _output(options.out) as file:
        _write(entries, file, options.format)
    if options.out is not None:
        print(f"{len(entries)} entries are in {options.out}")
    return 0


def _time_of(text: str, option: str) -> float:
    """Unix time of a UTC time as text. Raises ConfigError."""
    from ..errors import ConfigError

    try:
        given = datetime.fromisoformat(text)
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{option} is {text!r}; allowed is a UTC date or time, as 2026-12-01 or 2026-12-01T09:30"
        ) from error


@contextmanager
def _output(path: Path | None) -> Iterator[IO[str]]:
    """The file to write, created for this user alone, or stdout. Raises ConfigError."""
    from ..errors import ConfigError

    if path is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
    except FileExistsError as error:
        raise ConfigError(f"{path} exists; give --out the name of a new file") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}; give another --out") from error


def _write(entries: Iterable[AuditEntry], file: IO[str], style: str) -> None:
    from dataclasses import asdict, fields

    from ..server.monitoring.audit_log import AuditEntry, csv_cell

    if style == "jsonl":
        file.writelines(json.dumps(asdict(entry)) + "\n" for entry in entries)
        return
    names = [field.name for field in fields(AuditEntry)]
    table = csv.writer(file)
    table.writerow(names)
    table.writerows([csv_cell(getattr(entry, name)) for name in names] for entry in entries)
