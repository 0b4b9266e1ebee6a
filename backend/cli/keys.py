# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright keys`: the key pair of a server that other machines reach, and who may use it.

A running server follows changes at once.
"""

from __future__ import annotations

import argparse
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..server.transport.authorized_keys import KeyFolder

PORT = 47630


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser("keys", help="who may use this server from other machines", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="WHAT")
    create = verbs.add_parser("create", help="make the server's key pair, once")
    create.add_argument(
        "--replace",
        action="store_true",
        help="replace the old pair; every Blender then needs the new connection string",
    )
    show = verbs.add_parser("show", help="print the connection string for users, and the server's fingerprint")
    allow = verbs.add_parser("allow", help="allow a user's key")
    allow.add_argument("name", metavar="NAME", help="the user's name; all keys of a name share its jobs")
    allow.add_argument("key", metavar="KEY", help="what Copy My Key in Blender's tab Dreamwright copies")
    allow.add_argument(
        "--admin",
        action=argparse.BooleanOptionalAction,
        help="sees and controls everybody's jobs (default: as before; at first not)",
    )
    revoke = verbs.add_parser("revoke", help="refuse a user's keys, at once; the jobs stay")
    revoke.add_argument("name", metavar="NAME")
    listed = verbs.add_parser("list", help="print names, roles and fingerprints")
    web = verbs.add_parser("web", help="print a link with which a user signs in to the web page, once")
    web.add_argument("name", metavar="NAME", help="the user's name; local on a server without keys")
    verbs.add_parser(
        "mine", help="print your own key, for dreamwright top on a server that requires keys; created at the first use"
    )
    show.add_argument(
        "--address", help="where users reach the server, as tcp://HOST:PORT (default: where it was served last)"
    )
    for verb in (create, show, allow, revoke, web, listed):
        verb.add_argument(
            "--state", type=Path, help="the server's folder, as for dreamwright serve (default: the user's data folder)"
        )
    return parser


def own_host() -> str:
    """The address by which other machines most likely reach this one; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): connecting a datagram socket sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def reachable_address(bound: str, named: str = "") -> str:
    """tcp://HOST:PORT for users: of the address that a server is bound to, or of the host that `named` gives."""
    host, _, port = bound.removeprefix("tcp://").rpartition(":")
    if named:
        host = f"[{named}]" if ":" in named and not named.startswith("[") else named
    elif host in ("0.0.0.0", "[::]", "*"):
        host = own_host()
    return f"tcp://{host}:{port}"


def run(options: argparse.Namespace) -> int:
    """Run one verb. Raises ConfigError."""
    from dreamwright.shared.credentials import fingerprint, format_key, parse_key

    from ..errors import ConfigError
    from ..server.transport.authorized_keys import KeyFolder, shown_users, state_folder

    if options.verb == "mine":
        from .client_key import client_key_pair

        print(format_key(client_key_pair().public))
        return 0
    folder = KeyFolder(options.state or state_folder())
    if options.verb == "create":
        try:
            pair = folder.create(options.replace)
            _record(folder, "create server keys", "", fingerprint(pair.public))
        except OSError as error:
            raise ConfigError(
                f"keys cannot be kept in {folder.folder}: {error.strerror or error}; choose another --state"
            ) from error
        print(f"keys made in {folder.folder}; the server's fingerprint is {fingerprint(pair.public)}")
        print("next: dreamwright serve --address tcp://0.0.0.0:47630")
    elif options.verb == "web":
        _print_web_link(folder, options.name)
        _record(folder, "web link", options.name)
    elif options.verb == "show":
        _show(folder, options.address)
    elif options.verb == "allow":
        user = folder.allow(options.name, options.key, options.admin)
        _record(folder, "allow admin" if user.is_admin else "allow", user.name, fingerprint(parse_key(options.key)))
        role = " as an admin" if user.is_admin else ""
        print(
            f"{user.name} may use this server{role}, with the key of fingerprint {fingerprint(parse_key(options.key))}"
        )
    elif options.verb == "revoke":
        user = folder.revoke(options.name)
        _record(folder, "revoke", user.name)
        keys = f"{len(user.keys)} {'key' if len(user.keys) == 1 else 'keys'}"
        print(f"{user.name} may not use this server any more ({keys}); the jobs stay, and an admin sees them")
    else:
        lines = shown_users(folder.users())
        print("\n".join(lines) or f"nobody is allowed yet; allow a user's key with: {folder.command('allow NAME KEY')}")
    return 0


def _print_web_link(folder: KeyFolder, name: str) -> None:
    """Print a one-time link for the web page. Raises ConfigError."""
    from ..errors import ConfigError
    from ..server.web.login_links import LOCAL_USER, LoginLinks

    users = folder.users()
    user = LOCAL_USER if name == LOCAL_USER.name else users.get(name)
    if user is None:
        raise ConfigError(
            f"nobody named {name!r} may use this server; allowed are {', '.join(sorted(users)) or 'no users yet'}, or "
            f"{LOCAL_USER.name} on a server without keys"
        )
    url = folder.web_url()
    if not url:
        raise ConfigError(
            "the server has not served its page yet; start it with: dreamwright serve --web 127.0.0.1:47631"
        )
    print(f"{url}/sign-in#{LoginLinks(folder.state).create(user)}")
    print(f"this signs {user.name} in, once, within ten minutes; send it over a private channel")


def _record(folder: KeyFolder, action: str, name: str, mark: str = "") -> None:
    """Append what was done to the audit log; a disk that refuses that is said, and undoes nothing."""
    import getpass
    import sys

    from ..server.monitoring.audit_log import append_entry

    try:
        who = f"command of {getpass.getuser()}"
    except (OSError, KeyError):  # no name for this user's number
        who = "command"
    if not append_entry(folder.state, who, action, name, mark):
        print(f"the audit log in {folder.state} cannot be written; this was not recorded there", file=sys.stderr)


def _show(folder: KeyFolder, given: str | None) -> None:
    """Print the connection string and the fingerprint. Raises ConfigError."""
    from dreamwright.shared.credentials import ConnectionString, parse_connection_string

    from ..errors import ConfigError

    address = given or folder.served() or f"tcp://{own_host()}:{PORT}"
    connection = ConnectionString(address, folder.pair().public)
    try:
        parse_connection_string(str(connection))
    except ValueError as error:
        raise ConfigError(
            f"the address is {address!r}; allowed is tcp://HOST:PORT, for example tcp://192.168.1.20:{PORT}"
        ) from error
    print(connection)
    print(f"the server's fingerprint is {connection.fingerprint}")
