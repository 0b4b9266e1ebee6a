# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is signed in to the web page: links that work once, sessions that end, and clocks that jump."""

from __future__ import annotations

import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dreamwright.backend.cli.main import main
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.transport.authorized_keys import KeyFolder, User
from dreamwright.backend.server.web.login_links import LINK_S, LOCAL_USER, MOST_LINKS, Login, LoginLinks
from dreamwright.backend.server.web.sessions import IDLE_S, LONGEST_S, PER_USER, Sessions

ADA = User("ada", False, ("dwkey_a",), 5.0)


class Clocks:
    def __init__(self) -> None:
        self.wall, self.monotonic = 1.8e9, 1000.0

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def links_of(folder: Path, clocks: Clocks) -> LoginLinks:
    return LoginLinks(folder, lambda: clocks.wall, lambda: clocks.monotonic)


def test_a_link_signs_its_user_in_once(tmp_path: Path) -> None:
    links = links_of(tmp_path, Clocks())
    secret = links.create(ADA)
    assert links.use(secret) == Login("ada", ADA.status)
    assert links.use(secret) is None


def test_of_many_uses_at_once_one_succeeds(tmp_path: Path) -> None:
    clocks = Clocks()
    secret = links_of(tmp_path, clocks).create(ADA)
    found: list[Login | None] = []
    threads = [threading.Thread(target=lambda: found.append(links_of(tmp_path, clocks).use(secret))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([login for login in found if login is not None]) == 1


def test_the_folder_of_links_signs_nobody_in(tmp_path: Path) -> None:
    links = links_of(tmp_path, Clocks())
    secret = links.create(ADA)
    (path,) = links.folder.iterdir()
    assert secret not in path.read_text() and secret not in path.name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(links.folder.stat().st_mode) == 0o700
    assert links.use(path.stem) is None
    assert links.use(secret) is not None


@pytest.mark.parametrize(
    "wall, monotonic", [(LINK_S + 1, LINK_S + 1), (0, LINK_S + 1), (-1, 1), (LINK_S + 1, 1), (1, -1)]
)
def test_a_link_expires_and_no_jump_of_a_clock_revives_it(tmp_path: Path, wall: float, monotonic: float) -> None:
    clocks = Clocks()
    links = links_of(tmp_path, clocks)
    secret = links.create(ADA)
    clocks.wall += wall
    clocks.monotonic += monotonic
    assert links.use(secret) is None
    clocks.wall, clocks.monotonic = 1.8e9, 1000.0
    assert links.use(secret) is None  # its file is gone


def test_a_link_that_others_can_read_is_refused(tmp_path: Path) -> None:
    links = links_of(tmp_path, Clocks())
    secret = links.create(ADA)
    next(links.folder.iterdir()).chmod(0o644)
    assert links.use(secret) is None


@pytest.mark.parametrize("secret", ["", "../server", "a" * 43 + "\n", "a" * 44, "é" * 43, "\0" * 43])
def test_other_texts_are_no_links(tmp_path: Path, secret: str) -> None:
    assert links_of(tmp_path, Clocks()).use(secret) is None


def test_expired_links_are_removed_and_their_number_is_bounded(tmp_path: Path) -> None:
    clocks = Clocks()
    links = links_of(tmp_path, clocks)
    links.create(ADA)
    for index in range(MOST_LINKS):
        (links.folder / f"{index}.json").write_bytes(next(links.folder.glob("*.json")).read_bytes())
        (links.folder / f"{index}.json").chmod(0o600)
    with pytest.raises(ConfigError, match="wait ten minutes"):
        links.create(ADA)
    clocks.go(LINK_S + 1)
    links.create(ADA)
    assert len(list(links.folder.iterdir())) == 1


class Users:
    def __init__(self, *users: User) -> None:
        self.by_name = {user.name: user for user in users}

    def __call__(self, name: str) -> User | None:
        return self.by_name.get(name)


def sessions_of(users: Users, clocks: Clocks) -> Sessions:
    return Sessions(users, lambda: clocks.monotonic)


def test_a_session_needs_both_secrets() -> None:
    sessions = sessions_of(Users(ADA), Clocks())
    made, other = sessions.begin(Login("ada", ADA.status)), sessions.begin(Login("ada", ADA.status))
    assert made and other
    assert sessions.user_of(made.cookie, made.key) == ADA
    for cookie, key in ((made.cookie, ""), ("", made.key), (made.cookie, other.key), (made.key, made.cookie), ("", "")):
        assert sessions.user_of(cookie, key) is None
    assert sessions.user_of(made.cookie, made.key) == ADA  # a wrong key ends nobody's session


@pytest.mark.parametrize("change", [None, replace(ADA, is_admin=True), replace(ADA, since=9.0)])
def test_a_session_ends_with_its_users_key_or_role(change: User | None) -> None:
    users = Users(ADA)
    sessions = sessions_of(users, Clocks())
    made = sessions.begin(Login("ada", ADA.status))
    assert made
    users.by_name = {} if change is None else {"ada": change}
    assert sessions.user_of(made.cookie, made.key) is None
    assert sessions.begin(Login("ada", ADA.status)) is None
    users.by_name = {"ada": ADA}
    assert sessions.user_of(made.cookie, made.key) is None  # it does not come back


def test_an_idle_session_ends_and_a_used_one_ends_after_half_a_day() -> None:
    clocks = Clocks()
    sessions = sessions_of(Users(ADA), clocks)
    idle, used = sessions.begin(Login("ada", ADA.status)), sessions.begin(Login("ada", ADA.status))
    assert idle and used
    for _ in range(int(LONGEST_S / IDLE_S)):
        clocks.go(IDLE_S - 1)
        clocks.wall -= 2 * IDLE_S  # the wall clock does not matter
        assert sessions.user_of(used.cookie, used.key) == ADA
    clocks.go(LONGEST_S / IDLE_S + 1)
    assert sessions.user_of(used.cookie, used.key) is None
    assert sessions.user_of(idle.cookie, idle.key) is None


def test_one_user_cannot_fill_the_table_of_sessions() -> None:
    clocks = Clocks()
    sessions = sessions_of(Users(ADA, LOCAL_USER), clocks)
    made = []
    for _ in range(PER_USER + 3):
        clocks.go(1)
        made.append(sessions.begin(Login("ada", ADA.status)))
    assert len(sessions) == PER_USER
    kept = [one for one in made if one and sessions.user_of(one.cookie, one.key)]
    assert kept == made[3:]  # the oldest made room
    assert sessions.begin(Login("local", LOCAL_USER.status))


def test_signing_out_needs_both_secrets() -> None:
    sessions = sessions_of(Users(ADA), Clocks())
    made = sessions.begin(Login("ada", ADA.status))
    assert made
    sessions.end(made.cookie, "")
    assert len(sessions) == 1
    sessions.end(made.cookie, made.key)
    assert sessions.user_of(made.cookie, made.key) is None


def test_no_link_is_made_for_a_stranger_or_before_a_page_was_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, says in (("nobody", "nobody named 'nobody'"), ("../x", "nobody named"), ("local", "serve --web")):
        assert main(["keys", "web", name, "--state", str(tmp_path)]) == 2
        printed = capsys.readouterr()
        assert says in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert not (tmp_path / "keys" / "web-links").exists()


def test_the_command_prints_a_link_that_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    KeyFolder(tmp_path).remember_web("http://127.0.0.1:47631")
    assert main(["keys", "web", "local", "--state", str(tmp_path)]) == 0
    url, _, secret = capsys.readouterr().out.split()[0].partition("#")
    assert url == "http://127.0.0.1:47631/sign-in"
    assert LoginLinks(tmp_path).use(secret) == Login("local", LOCAL_USER.status)
