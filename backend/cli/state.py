# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright state`: backup and restore of a server's folder: jobs, results, checkpoints, uploads and keys.

A backup holds the server's secret key and the prompts of all users; keep it as private as the folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("state", help="backup and restore of a server's folder", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="WHAT")
    backup = verbs.add_parser("backup", help="write a backup, while the server runs or not")
    backup.add_argument("file", type=Path, metavar="FILE.tar", help="a new file; it gets mode 0600")
    restored = verbs.add_parser("restore", help="write a backup into a new folder")
    restored.add_argument("file", type=Path, metavar="FILE.tar", help="what backup wrote")
    for verb in (backup, restored):
        verb.add_argument(
            "--state", type=Path, help="the server's folder, as for dreamwright serve (default: the user's data folder)"
        )
    return parser


def run(options: argparse.Namespace) -> int:
    """Run one verb; 1 for a backup in which files of jobs are missing. Raises DreamwrightError."""
    from ..models.memory_estimate import size_text
    from ..server.state_backup import back_up, restore
    from ..server.transport.authorized_keys import state_folder

    state = options.state or state_folder()
    if options.verb == "restore":
        about = restore(options.file, state)
        print(f"{state} holds the backup of {about.get('created')}, {len(about['files'])} files; all were verified")
        print(f"next: dreamwright serve --state {state}; it has the keys of the server that was backed up")
        return 0
    report = back_up(state, options.file)
    print(f"{options.file}: {report.jobs} jobs, {report.files} files, {size_text(report.size)}")
    for job in report.damaged:
        print(f"job {job}: its mesh is missing in {state}, and in the backup", file=sys.stderr)
    return 1 if report.damaged else 0
