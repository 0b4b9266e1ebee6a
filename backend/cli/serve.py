# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright serve`: the compute server that Blender talks to."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from .serve_options import ADDRESS as ADDRESS  # dreamwright top asks there
from .serve_options import add_options
from .signals import NAMES, install_handlers, restore_handlers

if TYPE_CHECKING:
    from ..server.app import Server
    from ..server.monitoring.metrics import Exporter
    from ..server.policy import Policy
    from ..server.transport.announcement import Announcement
    from ..server.web.address import WebAddress

log = logging.getLogger(__name__)


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("serve", help="run the server that the Blender add-on talks to", description=__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file with any of these options by the same names; SIGHUP reads it again",
    )
    parser.add_argument("--check-config", action="store_true", help="check the options and the file, and start nothing")
    parser.add_argument("--example-config", action="store_true", help="print an example of the file, and start nothing")
    add_options(parser)
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
    if list(options.device) not in ([], ["cpu"]):
        raise ConfigError(
            "with --ray the devices are the cluster's GPUs; leave --device out (or give cpu, to try a cluster without "
            "GPUs)"
        )
    compute = "cpu" if options.device else "cuda"
    return lambda context: RayRunner(context, options.ray, own_namespace(state), state / "logs", compute)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal, then let the running jobs write a checkpoint; a second signal ends at once."""
    from ..models.lora_choice import use_lora_folder
    from ..server.transport.authorized_keys import state_folder
    from .serve_file import ServeConfiguration, example_text

    if options.example_config:
        print(example_text(), end="")
        return 0
    configuration = ServeConfiguration(options)
    current = configuration.options
    policy = policy_of(current)
    if options.check_config:
        check_addresses(current)
        print(f"the options are valid{f', with those of {options.config}' if options.config else ''}")
        return 0
    if current.loras is not None:
        use_lora_folder(current.loras)
    open_log_of(current)
    signals: list[int] = []
    hangups: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    def handle_hangup(number: int, frame: FrameType | None) -> None:
        hangups.append(number)

    def reload(server: Server) -> None:
        if hangups:
            hangups.clear()
            configuration.reload(lambda fresh: apply_options(server, fresh))

    state = current.state or state_folder()
    # Without a file there is nothing to read again, and SIGHUP says that the terminal closes.
    before = install_handlers(handle) if options.config is None else install_handlers(handle, NAMES[:2])
    if options.config is not None:
        before |= install_handlers(handle_hangup, NAMES[2:])
    try:
        return _serve(current, state, policy, lambda: len(signals), reload)
    finally:
        restore_handlers(before)


def policy_of(options: argparse.Namespace) -> Policy:
    """The limits that the options say. Raises ConfigError."""
    from ..server.policy import make_policy, policy_settings

    return make_policy(**{limit.key: getattr(options, limit.key) for limit in policy_settings()})


def open_log_of(options: argparse.Namespace) -> None:
    """Log as the options say."""
    from ..server.monitoring.logging_setup import open_log

    open_log(options.log_format, "warning" if options.quiet else options.log_level)


def apply_options(server: Server, options: argparse.Namespace) -> None:
    """Give a running server the options that it takes without a restart. Raises ConfigError, with nothing changed."""
    policy = policy_of(options)
    server.use_policy(policy)
    open_log_of(options)


def check_addresses(options: argparse.Namespace) -> None:
    """Raises ConfigError for an address that no server could listen on."""
    from ..server.transport.router_socket import is_loopback_address

    is_loopback_address(options.address)
    if options.metrics is not None:
        from ..server.monitoring.metrics import read_address

        read_address(options.metrics)
    check_announcement_of(options)
    web_address(options)


def _serve(
    options: argparse.Namespace,
    state: Path,
    policy: Policy,
    stopping: Callable[[], int],
    reload: Callable[[Server], None],
) -> int:
    """Open the server, print where it is, and serve; `reload` is called between its steps.

    Raises ConfigError for a state folder that cannot be used.
    """
    from ..errors import ConfigError, DreamwrightError, is_out_of_memory
    from ..server.app import Server

    devices, runner = ((), ray_runner(options, state)) if options.ray else (all_devices(options.device), None)
    page = web_address(options)  # refused before anything is opened
    check_announcement_of(options)
    os.umask(0o077)  # prompts, meshes and logs are no other user's of this machine, in any folder
    try:
        server = Server(options.address, state, devices, options.encrypt, policy, runner)
    except OSError as error:
        raise ConfigError(
            f"the state folder {str(state)!r} cannot be used: {error.strerror or error}; choose another with --state"
        ) from error
    exporter, announcement = None, None
    try:
        exporter = open_metrics(options.metrics, server)
        # The first line is for programs that start a server and wait for it; the rest is for people.
        print(f"dreamwright serves on {server.address} (process {os.getpid()}); Ctrl-C stops it", flush=True)
        if server.server_key is not None:
            print_connection_string(state, server.address, server.server_key, options.reached_as)
        if page is not None:
            print_web_page(state, server.serve_web(page), server.server_key is not None)
        announcement = announce(options, server)
    except BaseException:
        server.close()
        raise
    try:
        is_complete = server.run(stopping, options.grace, reload)
    except Exception as error:
        if isinstance(error, DreamwrightError) or is_out_of_memory(error):
            raise
        # Logged, where prompts are redacted; the text of an exception may hold one.
        log.critical("the server ended by an unexpected error", exc_info=True)
        return 1
    finally:
        for opened in (announcement, exporter):
            if opened is not None:
                opened.close()
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


def check_announcement_of(options: argparse.Namespace) -> None:
    """Raises ConfigError where the options ask for an announcement that cannot be made."""
    if options.announce:
        from ..server.transport.announcement import check_announcement

        check_announcement(options.address)


def announce(options: argparse.Namespace, server: Server) -> Announcement | None:
    """Announce the server on the local network, where the options ask for it. Raises ConfigError."""
    if not options.announce or server.server_key is None:
        return None
    from ..server.transport.announcement import Announcement

    announcement = Announcement(server.address, server.server_key)
    print(f"announced on the local network at {', '.join(announcement.addresses)}", flush=True)
    return announcement


def web_address(options: argparse.Namespace) -> WebAddress | None:
    """The checked address of the web page; None without one. Raises ConfigError."""
    from ..errors import ConfigError
    from ..server.transport.router_socket import is_loopback_address
    from ..server.web.address import check_web_address
    from ..server.web.front import check_web_packages
    from .keys import own_host

    if options.web is None:
        if options.web_cert is not None or options.web_key is not None:
            raise ConfigError("--web-cert and --web-key belong to --web; give its address too")
        return None
    check_web_packages()
    has_keys = options.encrypt or not is_loopback_address(options.address)
    names = (options.reached_as, own_host(), socket.gethostname())
    return check_web_address(options.web, options.web_cert, options.web_key, has_keys, names)


def print_web_page(state: Path, url: str, has_keys: bool) -> None:
    """Print where the web page is and how to sign in, and remember it for `dreamwright keys web`."""
    from ..server.transport.authorized_keys import KeyFolder

    folder = KeyFolder(state)
    folder.remember_web(url)
    name = "NAME" if has_keys else "local"
    print(f"the web page is at {url}; make a link to sign in with: {folder.command(f'web {name}')}", flush=True)


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
