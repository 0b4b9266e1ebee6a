# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys in files and as pasted text, and the commands `dreamwright keys`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from dreamwright.backend.cli.keys import own_host, reachable_address
from dreamwright.backend.cli.main import main
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.transport.authorized_keys import AuthorizedKeys, KeyFolder
from dreamwright.shared.credentials import (
    ConnectionString,
    KeyPair,
    fingerprint,
    format_key,
    generate_key_pair,
    is_connection_string,
    key_pair_from_map,
    key_pair_to_map,
    parse_connection_string,
    parse_key,
)
from dreamwright.shared.private_files import PrivateFileError, read_private, write_private

KEY = bytes(range(32))


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "state")
    folder.create()
    return folder


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# --- on paper


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=50)
def test_keys_survive_case_and_line_breaks(key: bytes) -> None:
    text = format_key(key)
    assert parse_key(text) == parse_key(f"  {text[:20].upper()}\n {text[20:]}\n") == key
    assert len(text) == 62 and all(sign.isalnum() or sign == "_" for sign in text), (
        "one word for a double click, nothing for a shell"
    )


@given(st.integers(6, 61), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
@settings(max_examples=50)
def test_typos_in_keys_are_detected(place: int, sign: str) -> None:
    text = format_key(KEY)
    if text[place] != sign:
        with pytest.raises(ValueError, match="wrong checksum"):
            parse_key(text[:place] + sign + text[place + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dwkey_",
        "dwkey_a",
        format_key(KEY)[:-1],
        format_key(KEY) + "a",
        "x" * 62,
        z85.encode(KEY).decode(),
        "dwkey_" + "é" * 56,
    ],
)
def test_invalid_keys_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a key; a key starts with dwkey_|a wrong checksum"):
        parse_key(text)


def test_fingerprint_is_80_bits_of_sha256() -> None:
    import base64

    expected = base64.b32encode(hashlib.sha256(b"dreamwright fingerprint" + KEY).digest())[:16].decode().lower()
    assert fingerprint(KEY).replace("-", "") == expected and len(fingerprint(KEY).split("-")) == 4
    assert fingerprint(KEY) != fingerprint(bytes(32))


@pytest.mark.parametrize(
    "address", ["tcp://192.168.1.20:47630", "tcp://gpu.example.org:1", "tcp://[fe80::1]:65535", "tcp://127.0.0.1:47630"]
)
def test_connection_strings_survive_pasting(address: str) -> None:
    text = str(ConnectionString(address, KEY))
    broken = f"\n  {text[:30]}\n    {text[30:]} "
    assert is_connection_string(broken) and parse_connection_string(broken) == ConnectionString(address, KEY)
    assert parse_connection_string(broken).fingerprint == fingerprint(KEY)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda text: text.replace("/v1/", "/v2/"),
            "has version 2, this Dreamwright reads version 1; update the older",
        ),
        (lambda text: text[:-1], "damaged"),
        (lambda text: text[:-1] + ("a" if text[-1] != "a" else "b"), "damaged"),
        (lambda text: text.replace(":47630", ""), "copy the whole line"),
        (lambda text: text.replace(":47630", ":99999"), "no valid host and port"),
        (lambda text: text.replace("dreamwright://", "http://"), "copy the whole line"),
        (lambda text: text.replace("host", "anna@host"), "copy the whole line"),
        (lambda text: text.replace("/v1/", "/"), "copy the whole line"),
        (lambda text: "tcp://host:47630", "copy the whole line"),
    ],
)
def test_invalid_connection_strings_are_explained(change: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_connection_string(change(str(ConnectionString("tcp://host:47630", KEY))))


def test_key_pairs_match_libzmq_and_hide_the_secret() -> None:
    pair = generate_key_pair()
    assert zmq.curve_public(z85.encode(pair.secret)) == z85.encode(pair.public)
    assert key_pair_from_map(dict(key_pair_to_map(pair))) == pair
    assert pair.secret.hex() not in repr(pair) and repr(pair.secret) not in repr(pair)
    with pytest.raises(ValueError, match="does not belong"):
        key_pair_from_map({**key_pair_to_map(pair), "secret": generate_key_pair().secret.hex()})
    with pytest.raises(ValueError, match="not a key pair"):
        key_pair_from_map({"public": format_key(KEY)})


# --- on disk


def test_private_files_are_written_atomically_with_mode_600(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "open" / "keys" / "x.json"
    path.parent.mkdir(parents=True, mode=0o777)
    old = os.umask(0)
    try:
        assert write_private(path, {"a": 1})
    finally:
        os.umask(old)
    assert mode(path) == 0o600 and mode(path.parent) == 0o700
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError):
            write_private(path, {"a": 2})
    assert read_private(path) == {"a": 1} and [found.name for found in path.parent.iterdir()] == ["x.json"]
    assert read_private(path.with_name("none")) is None


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644])
def test_readable_secret_files_are_refused(keys: KeyFolder, bits: int) -> None:
    path = keys.folder / "server.json"
    path.chmod(bits)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        keys.pair()
    with pytest.raises(PrivateFileError):
        read_private(path)


def test_concurrent_key_creation_yields_one_pair(tmp_path: Path) -> None:
    path, won = tmp_path / "keys" / "own.json", []
    makers = [
        threading.Thread(target=lambda number=number: won.append(write_private(path, {"by": number}, replace=False)))
        for number in range(8)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert sorted(won) == [False] * 7 + [True] and len(list(path.parent.iterdir())) == 1


def test_server_key_is_replaced_only_on_request(keys: KeyFolder) -> None:
    pair = keys.pair()
    assert mode(keys.folder) == 0o700 and all(mode(path) == 0o600 for path in keys.folder.glob("*.json"))
    with pytest.raises(ConfigError, match="holds a key pair already.*create --replace"):
        keys.create()
    assert keys.pair() == pair
    assert keys.create(replacing=True) == keys.pair() != pair


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"form": 2}', '{"form": 1}', '{"form": 1, "public": "x", "secret": "y"}', "\xff"]
)
def test_damaged_key_files_are_reported(keys: KeyFolder, damage: str) -> None:
    (keys.folder / "server.json").write_bytes(damage.encode("latin-1"))
    with pytest.raises(ConfigError, match="damaged|form"):
        keys.pair()


def test_allow_revoke_and_roles(keys: KeyFolder) -> None:
    first, second = (format_key(generate_key_pair().public) for _ in range(2))
    assert not keys.allow("anna", first).is_admin
    since = keys.users()["anna"].since
    assert keys.allow("anna", f" {second.upper()}\n").keys == (first, second)
    assert keys.allow("anna", first).keys == (first, second), "twice is once"
    assert keys.users()["anna"].since == since
    assert keys.allow("anna", first, True).is_admin and keys.allow("anna", first).is_admin, (
        "a role stays until it is changed"
    )
    assert not keys.allow("anna", first, False).is_admin
    with pytest.raises(ConfigError, match="belongs to anna already"):
        keys.allow("bert", first)
    assert keys.revoke("anna").name == "anna" and not keys.users()
    with pytest.raises(ConfigError, match="nobody named 'anna'"):
        keys.revoke("anna")
    assert keys.allow("bert", first).name == "bert"


@pytest.mark.parametrize("name", ["", "local", "-x", ".x", "a b", "a/b", "ä", "x" * 41, "a\n"])
def test_user_names_are_validated(keys: KeyFolder, name: str) -> None:
    with pytest.raises(ConfigError, match="the user's name is"):
        keys.allow(name, format_key(KEY))


def test_server_key_cannot_be_allowed_as_a_user(keys: KeyFolder) -> None:
    with pytest.raises(ConfigError, match="the server's own key"):
        keys.allow("anna", format_key(keys.pair().public))


def test_authorized_keys_follow_the_file(keys: KeyFolder) -> None:
    authorized, key = AuthorizedKeys(keys), format_key(KEY)
    assert authorized.user_of(key) is None and not authorized.is_admin("anna")
    keys.allow("anna", key, True)
    assert authorized.user_of(key).name == "anna" and authorized.is_admin("anna") and len(authorized) == 1
    keys.allow("anna", key, False)
    assert not authorized.is_admin("anna")
    content = json.loads(keys.users_path.read_text())
    for change in ({"admin": "yes"}, {"keys": [key, "x"]}, {"keys": key}, {"keys": [key.upper()]}):
        write_private(keys.users_path, {**content, "users": {"anna": {**content["users"]["anna"], **change}}})
        assert authorized.user_of(key) is None, change
    write_private(
        keys.users_path, {**content, "users": {"anna": content["users"]["anna"], "bert": content["users"]["anna"]}}
    )
    assert authorized.user_of(key) is None, "a key with two names belongs to no user"
    write_private(keys.users_path, content)
    assert authorized.user_of(key).name == "anna"
    keys.revoke("anna")
    assert authorized.user_of(key) is None


def test_concurrent_key_commands_keep_every_change(keys: KeyFolder) -> None:
    names = [f"user{number}" for number in range(12)]
    texts = {name: format_key(generate_key_pair().public) for name in names}
    threads = [threading.Thread(target=keys.allow, args=(name, texts[name])) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(keys.users()) == sorted(names)


# --- the commands


def test_key_commands_lead_to_an_authorized_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path)]
    key = format_key(KEY)
    assert main(["keys", "show", *state]) == 2
    assert f"dreamwright keys create --state {tmp_path}" in capsys.readouterr().err
    assert main(["keys", "create", *state]) == 0
    made = capsys.readouterr().out
    assert main(["keys", "show", "--address", "tcp://gpu.example.org:5000", *state]) == 0
    shown = capsys.readouterr().out
    invitation = parse_connection_string(shown.splitlines()[0])
    assert (
        invitation.address == "tcp://gpu.example.org:5000"
        and invitation.fingerprint in shown
        and invitation.fingerprint in made
    )
    assert main(["keys", "show", "--address", "gpu", *state]) == 2
    assert main(["keys", "list", *state]) == 0 and "nobody is allowed yet" in capsys.readouterr().out
    assert main(["keys", "allow", "anna", "nonsense", *state]) == 2
    assert "Copy My Key" in capsys.readouterr().err
    assert main(["keys", "allow", "anna", key, "--admin", *state]) == 0
    assert (
        f"anna may use this server as an admin, with the key of fingerprint {fingerprint(KEY)}"
        in capsys.readouterr().out
    )
    assert main(["keys", "list", *state]) == 0
    line = capsys.readouterr().out
    assert line.split()[:3] == ["anna", "admin", fingerprint(KEY)] and key not in line
    assert (
        main(["keys", "revoke", "anna", *state]) == 0
        and "may not use this server any more (1 key)" in capsys.readouterr().out
    )
    assert main(["keys", "revoke", "anna", *state]) == 2


def test_no_command_prints_the_secret_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path)]
    main(["keys", "create", *state])
    secret = json.loads((tmp_path / "keys" / "server.json").read_text())["secret"]
    for verb in (["show"], ["list"], ["create"], ["allow", "anna", format_key(KEY)], ["create", "--replace"]):
        main(["keys", *verb, *state])
    captured = capsys.readouterr()
    assert secret not in captured.out + captured.err


@pytest.mark.parametrize(
    ("bound", "named", "address"),
    [
        ("tcp://192.168.1.2:5", "", "tcp://192.168.1.2:5"),
        ("tcp://0.0.0.0:5", "gpu.example.org", "tcp://gpu.example.org:5"),
        ("tcp://0.0.0.0:5", "fe80::1", "tcp://[fe80::1]:5"),
        ("tcp://[::]:5", "", f"tcp://{own_host()}:5"),
        ("tcp://127.0.0.1:5", "", "tcp://127.0.0.1:5"),
    ],
)
def test_connection_string_has_a_reachable_address(bound: str, named: str, address: str) -> None:
    assert (
        reachable_address(bound, named) == address
        and parse_connection_string(str(ConnectionString(address, KEY))).address == address
    )


def test_keys_help_imports_neither_zmq_nor_torch() -> None:
    script = (
        "import sys; from dreamwright.backend.cli.main import build_parser; build_parser(); "
        "print('zmq' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "False"], done.stderr
    assert isinstance(KeyPair(KEY, KEY), KeyPair)
