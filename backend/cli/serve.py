# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright serve`: the compute server that Blender talks to."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dreamwright.shared.numbers import number_text

from ..server.policy import policy_option, policy_settings
from .signals import install_handlers, restore_handlers

if TYPE_CHECKING:
    from ..server.app import Server
    from ..server.monitoring.metrics import Exporter
    from ..server.policy import Policy

log = logging.getLogger(__name__)

ADDRESS = "tcp://127.0.0.1:47630"
MAX_GRACE_S = 3600.0


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("serve", help="run the server that the Blender add-on talks to", description=__doc__)
    parser.add_argument(
        "--address", default=ADDRESS, help=f"where to listen (default {ADDRESS}; port 0 or * takes a free one)"
    )
    parser.add_argument(
        "--state", type=Path, help="folder of jobs, checkpoints and results (default: the user's data folder)"
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        help="cpu or cuda:N, one worker each; repeatable (default: every GPU, or the CPU)",
    )
    parser.add_argument(
        "--loras",
        type=Path,
        metavar="DIR",
        help="folder with LoRAs that users may name in their jobs (default: DREAMWRIGHT_LORAS, or loras beside the "
        "models)",
    )
    parser.add_argument(
        "--ray",
        default="",
        metavar="ADDRESS",
        help="run the jobs on the GPUs of a Ray cluster: auto, or HOST:PORT of its head (docs/operator/ray-cluster.md)",
    )
    parser.add_argument(
        "--encrypt",
        action="store_true",
        help="require keys on a loopback address too; on any other address they are always required",
    )
    parser.add_argument(
        "--reached-as",
        default="",
        metavar="HOST",
        help="this machine's name or address in the connection string (default: the address of its default route)",
    )
    queue = parser.add_argument_group("limits and retention, which every client can see")
    for limit in policy_settings():
        described = (
            f"{limit.help.rstrip('.')} (default {number_text(limit.default)}{' ' + limit.unit if limit.unit else ''})"
        )
        queue.add_argument(policy_option(limit.key), type=limit.type, metavar="N", help=described)
    parser.add_argument(
        "--grace",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="for running jobs to write a checkpoint when the server stops (default 30)",
    )
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="serve metrics for Prometheus there, for example 127.0.0.1:9464; without encryption or keys",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="a line of text or a JSON object for each event (default text)",
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="debug messages may hold prompts, the others never do",
    )
    parser.add_argument("--quiet", action="store_true", help="the same as --log-level warning")
    return parser


def all_devices(named: list[str]) -> tuple[str, ...]:
    """The named devices, or every GPU, or the CPU. Raises ConfigError."""
    import torch

    from .sample import choose_device

    if named:
        return tuple(dict.fromkeys(str(choose_device(name)) for name in named))
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) or ("cpu",)


def ray_runner(options: argparse.Namespace, state: Path) -> Callable[[Any], Any]:
    """A function that makes the runner of `--ray`. Raises ConfigError."""
    from ..errors import ConfigError
    from ..server.workers.ray_runner import RayRunner, check_cluster, own_namespace

    check_cluster(options.ray)
    if options.device not in ([], ["cpu"]):
        raise ConfigError(
            "with --ray the devices are the cluster's GPUs; leave --device out (or give cpu, to try a cluster without "
            "GPUs)"
        )
    compute = "cpu" if options.device else "cuda"
    return lambda context: RayRunner(context, options.ray, own_namespace(state), state / "logs", compute)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal, then let the running jobs write a checkpoint; a second signal ends at once."""
    from ..errors import ConfigError
    from ..models.lora_choice import use_lora_folder
    from ..server.monitoring.logging_setup import open_log
    from ..server.policy import make_policy, policy_settings
    from ..server.transport.authorized_keys import state_folder

    if not 0 <= options.grace <= MAX_GRACE_S:
        raise ConfigError(
            f"the grace is {number_text(options.grace)} s; allowed is 0 to {number_text(MAX_GRACE_S)}; change --grace"
        )
    policy = make_policy(**{limit.key: getattr(options, limit.key) for limit in policy_settings()})
    if options.loras is not None:
        use_lora_folder(options.loras)
    open_log(options.log_format, "warning" if options.quiet else options.log_level)
    signals: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    state = options.state or state_folder()
    before = install_handlers(handle)
    try:
        return _serve(options, state, policy, lambda: len(signals))
    finally:
        restore_handlers(before)


def _serve(options: argparse.Namespace, state: Path, policy: Policy, stopping: Callable[[], int]) -> int:
    """Open the server, print where it is, and serve. Raises ConfigError for a state folder that cannot be used."""
    from ..errors import ConfigError, DreamwrightError, is_out_of_memory
    from ..server.app import Server

    devices, runner = ((), ray_runner(options, state)) if options.ray else (all_devices(options.device), None)
    try:
        server = Server(options.address, state, devices, options.encrypt, policy, runner)
    except OSError as error:
        raise ConfigError(
            f"the state folder {str(state)!r} cannot be used: {error.strerror or error}; choose another with --state"
        ) from error
    try:
        exporter = open_metrics(options.metrics, server)
        # The first line is for programs that start a server and wait for it; the rest is for people.
        print(f"dreamwright serves on {server.address} (process {os.getpid()}); Ctrl-C stops it", flush=True)
        if server.server_key is not None:
            print_connection_string(state, server.address, server.server_key, options.reached_as)
    except BaseException:
        server.close()
        raise
    try:
        is_complete = server.run(stopping, options.grace)
    except Exception as error:
        if isinstance(error, DreamwrightError) or is_out_of_memory(error):
            raise
        # Logged, where prompts are redacted; the text of an exception may hold one.
        log.critical("the server ended by an unexpected error", exc_info=True)
        return 1
    finally:
        if exporter is not None:
            exporter.close()
    log.info("server stopped", extra={"complete": is_complete})
    return 1 if stopping() > 1 and not is_complete else 0


def open_metrics(address: str | None, server: Server) -> Exporter | None:
    """Start the Prometheus endpoint, unless `address` is None. Raises ConfigError."""
    if address is None:
        return None
    from ..server.monitoring.metrics import Exporter

    exporter = Exporter(address)
    server.publish_metrics = exporter.publish
    print(f"metrics for Prometheus are at {exporter.url}", flush=True)
    return exporter


def print_connection_string(state: Path, bound: str, server_key: bytes, named: str) -> None:
    """Print the connection string that users paste into Blender, and how to allow their keys."""
    from dreamwright.shared.credentials import ConnectionString

    from ..server.transport.authorized_keys import KeyFolder
    from .keys import reachable_address

    folder = KeyFolder(state)
    connection = ConnectionString(reachable_address(bound, named), server_key)
    folder.remember_served(connection.address)
    print("connections are encrypted; paste this into Blender, in the tab Dreamwright, as the server:")
    print(f"  {connection}")
    print(f"the server's fingerprint is {connection.fingerprint}; Blender shows the same")
    count = len(folder.users())
    allowed = "nobody is allowed yet" if not count else f"{count} {'user is' if count == 1 else 'users are'} allowed"
    print(f"{allowed}; allow a user's key with: {folder.command('allow NAME KEY')}", flush=True)
