# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright serve`: the compute server that Blender talks to."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

ADDRESS = "tcp://127.0.0.1:47630"


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("serve", help="run the server that the Blender add-on talks to", description=__doc__)
    parser.add_argument("--address", default=ADDRESS, help=f"where to listen (default {ADDRESS}; port 0 or * takes a free one)")
    parser.add_argument("--state", type=Path, help="folder of jobs, checkpoints and results (default: the user's data folder)")
    parser.add_argument("--device", action="append", default=[], help="cpu or cuda:N, one worker each; repeatable (default: every GPU, or the CPU)")
    parser.add_argument("--quiet", action="store_true", help="log warnings only")
    return parser


def state_folder() -> Path:
    """Where jobs are kept unless --state says otherwise."""
    import platformdirs

    return Path(platformdirs.user_data_dir("dreamwright", False)) / "server"


def all_devices(named: list[str]) -> tuple[str, ...]:
    """The named devices, or every GPU, or the CPU. Raises ConfigError."""
    import torch

    from dreamwright.backend.cli.sample import choose_device

    if named:
        return tuple(dict.fromkeys(str(choose_device(name)) for name in named))
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) or ("cpu",)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from dreamwright.backend.server.front_door import FrontDoor

    logging.basicConfig(
        level=logging.WARNING if options.quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    stop: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        stop.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    door = FrontDoor(options.address, options.state or state_folder(), all_devices(options.device))
    # The first line is for programs that start a server and wait for it; the rest is for people.
    print(f"dreamwright serves on {door.address} (process {os.getpid()}); Ctrl-C stops it", flush=True)
    door.run(lambda: bool(stop))
    return 0
