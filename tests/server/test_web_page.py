# SPDX-License-Identifier: GPL-3.0-or-later
"""The web page of a real server over HTTP: who gets in, what they see, and what a flood or a crash does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from PIL import Image

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.backend.server.web.application import FILES
from dreamwright.backend.server.web.bounded_protocol import OF_ONE_ADDRESS
from dreamwright.backend.server.web.feeds import STREAMS_PER_SESSION
from dreamwright.backend.server.web.security_headers import HEADERS
from tests.testing.serve_command import serve_command
from tests.testing.web_server import HttpUser, WebServer, web_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with web_server(tmp_path_factory.mktemp("web")) as web:
        yield web


def wait_for(events: Iterator[tuple[str, Any]], condition: Any) -> Any:
    """The data of the first event that satisfies a condition."""
    return next(data for kind, data in events if condition(kind, data))


def is_progress(job: str) -> Any:
    return lambda kind, data: kind == "job" and data["job"] == job and data["step"] > 0


def test_every_answer_has_the_security_headers(web: WebServer) -> None:
    user = HttpUser(web.url)
    answers = [user.ask("GET", path) for path in FILES]
    assert {status for status, _, _ in answers} == {200}
    refused = [
        user.ask("GET", "/none"), user.ask("GET", "/../etc/passwd"), user.ask("PUT", "/"),
        user.ask("GET", "/api/events"), user.ask("POST", "/api/act", {"action": "cancel", "job": "x"}),
        user.ask("GET", "/", Host="evil.example"), user.ask("POST", "/api/sign-in", {}, Origin="http://evil.example"),
        user.ask("GET", "/api/act"),
    ]  # fmt: skip
    assert [status for status, _, _ in refused] == [404, 404, 405, 401, 401, 421, 403, 405]
    for _, headers, _ in (*answers, *refused):
        for name, value in HEADERS:
            assert headers[name.decode()] == value.decode()
        assert "server" not in headers and "set-cookie" not in headers
    for _, _, body in refused:
        assert json.loads(body)["message"]  # one sentence


def test_nothing_is_shown_without_a_session(web: WebServer) -> None:
    job = web.submit("ada", "without-session")
    user, ada = HttpUser(web.url), web.signed_in("ada")
    for cookie, key in (("", ""), (ada.cookie, ""), ("", ada.key), (ada.cookie, ada.key[::-1])):
        user.cookie, user.key = cookie, key
        for path in ("/api/events", "/api/models", f"/api/preview/{job}?step=1"):
            assert user.ask("GET", path)[0] == 401
        assert user.act(action="cancel", job=job) == 401
    for path in FILES:
        assert job.encode() not in user.ask("GET", path)[2]


def test_a_link_signs_in_once_and_only_by_the_button(web: WebServer) -> None:
    link = web.link("ada")
    user = HttpUser(web.url)
    assert user.ask("GET", f"/sign-in?link={link}")[0] == 200  # whoever previews links does not use them up
    status, headers, body = user.ask("POST", "/api/sign-in", {"link": link})
    assert status == 200 and link.encode() not in body
    attributes = headers["set-cookie"].lower()
    assert "httponly" in attributes and "samesite=strict" in attributes and "path=/" in attributes
    assert "domain" not in attributes and "max-age" not in attributes
    assert HttpUser(web.url).sign_in(link) == 401
    assert link not in web.server.output.read_text() and link not in (web.state / "logs" / "web.log").read_text()


def test_sign_ins_are_limited_by_address(web: WebServer) -> None:
    user = HttpUser(web.url)
    statuses = [user.sign_in("x" * 43) for _ in range(15)]
    assert statuses[:10] == [401] * 10 and 429 in statuses[10:]
    web.signed_in("ada")  # from another address


def test_another_users_job_is_a_job_that_does_not_exist(web: WebServer) -> None:
    job = web.submit("ada", "not-bobs")
    bob = web.signed_in("bob")
    with bob.events() as events:
        kind, snapshot = next(events)
        assert kind == "snapshot" and job not in [found["job"] for found in snapshot["jobs"]]
        assert not snapshot["account"]["is_admin"] and [user["name"] for user in snapshot["status"]["users"]] == ["bob"]
    for name in (job, "0" * 16, "..", "%2e%2e"):
        assert bob.ask("GET", f"/api/preview/{name}?step=1")[0] == 404
    for body in ({"action": "cancel"}, {"action": "pause"}, {"action": "delete"}, {"action": "pin", "pinned": True}):
        assert bob.act(**body, job=job) == 404
    eve = web.signed_in("eve")
    with eve.events() as events:
        (found,) = [one for one in next(events)[1]["jobs"] if one["job"] == job]
        assert found["owner"] == "ada" and found["state"] in ("queued", "running")


def test_a_user_follows_a_job_and_cancels_it(web: WebServer) -> None:
    ada, eve = web.signed_in("ada"), web.signed_in("eve")
    with eve.events() as everything:
        for one in next(everything)[1]["jobs"]:  # of the tests before
            eve.act(action="cancel", job=one["job"])
    with ada.events() as events:
        next(events)
        job = web.submit("ada", "follow")
        progress = wait_for(events, is_progress(job))
        assert progress["prompt"] == "a red mushroom" and progress["state"] == "running"
        shown = wait_for(events, lambda kind, data: kind == "job" and data["job"] == job and data["preview_step"])
        status, headers, body = ada.ask("GET", f"/api/preview/{job}?step={shown['preview_step']}")
        assert status == 200 and headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(body)).size == (64, 64)
        assert ada.act(action="cancel", job=job) == 200
        wait_for(events, lambda kind, data: kind == "job" and data["job"] == job and data["state"] == "cancelled")
    assert ada.act(action="cancel", job=job) == 200  # again changes nothing
    assert ada.act(action="delete", job=job) == 200


def test_other_sites_cannot_act_for_a_user(web: WebServer) -> None:
    job = web.submit("ada", "forged")
    ada = web.signed_in("ada")
    body = {"action": "cancel", "job": job}
    for forged in (
        {"Origin": "https://evil.example"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ):  # fmt: skip
        assert ada.ask("POST", "/api/act", body, **forged)[0] == 403
    assert ada.ask("POST", "/api/act", body, Content_Type="text/plain")[0] == 415
    assert ada.ask("POST", "/api/act", body, Host="rebound.example")[0] == 421
    key, ada.key = ada.key, ""
    assert ada.ask("POST", "/api/act", body)[0] == 401  # a browser adds the cookie by itself, and never the key
    ada.key = key
    assert ada.ask("POST", "/api/act", body)[0] == 200


def test_bad_input_is_refused_in_one_sentence(web: WebServer) -> None:
    ada = web.signed_in("ada")
    for body in (
        {},
        [],
        "x",
        {"action": "submit"},
        {"action": "cancel", "job": "x" * 41},
        {"action": "pin", "job": "x"},
    ):
        status, _, answer = ada.ask("POST", "/api/act", body)
        assert status == 400 and "\n" not in json.loads(answer)["message"]
    assert ada.ask("POST", "/api/act", {"action": "x" * 5000})[0] == 413
    deep = "[" * 2000 + "]" * 2000
    connection = ada.connect()
    connection.request("POST", "/api/act", deep, ada.headers())
    assert connection.getresponse().status == 400
    connection.close()


def test_a_revoked_key_ends_the_stream_and_the_session(web: WebServer) -> None:
    web.allow("cleo")
    cleo = web.signed_in("cleo")
    with cleo.events() as events:
        next(events)
        KeyFolder(web.state).revoke("cleo")
        assert wait_for(events, lambda kind, data: kind == "ended")["text"]
        assert list(events) == []  # the server closed it
    assert cleo.ask("GET", "/api/events")[0] == 401
    web.allow("cleo")
    assert cleo.ask("GET", "/api/events")[0] == 401  # allowed again, she needs a new link
    web.signed_in("cleo")


def test_signing_out_ends_the_session(web: WebServer) -> None:
    ada = web.signed_in("ada")
    status, headers, _ = ada.ask("POST", "/api/sign-out", {})
    assert status == 200 and "max-age=0" in headers["set-cookie"].lower()
    assert ada.ask("GET", "/api/events")[0] == 401


def test_the_streams_of_a_session_are_bounded(web: WebServer) -> None:
    ada = web.signed_in("ada")
    with contextlib.ExitStack() as stack:
        for _ in range(STREAMS_PER_SESSION):
            next(stack.enter_context(ada.events()))
        status, _, body = ada.ask("GET", "/api/events")
        assert status == 503 and "close some" in json.loads(body)["message"]
        next(stack.enter_context(web.signed_in("ada").events()))  # another session
    web.server.wait_until(lambda: ada.ask("GET", "/api/preview/0?step=1")[0] == 404)

    def opens_again() -> bool:
        connection = ada.connect()
        connection.request("GET", "/api/events", headers=ada.headers())
        status = connection.getresponse().status
        connection.close()
        return status == 200

    web.server.wait_until(opens_again)


def test_many_connections_get_a_sentence_and_blender_is_served(web: WebServer) -> None:
    host, port = web.url.split("//")[1].split(":")
    with contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection((host, int(port)), source_address=("127.0.2.1", 0)))
            for _ in range(OF_ONE_ADDRESS + 50)
        ]
        idle[-1].settimeout(60)
        assert b"503" in idle[-1].recv(1000) or b"too many connections" in idle[-1].recv(1000)
        web.submit("bob", "while-flooded")
        bob = web.signed_in("bob")  # from another address
        assert bob.ask("GET", "/api/models")[0] == 200


def web_process(web: WebServer) -> int:
    return int(re.findall(r"web process started worker=(\d+)", web.server.output.read_text())[-1])


def test_a_killed_web_process_is_started_again_and_nobody_signs_in_anew(web: WebServer) -> None:
    ada = web.signed_in("ada")
    before = web_process(web)
    os.kill(before, signal.SIGKILL)
    web.submit("ada", "while-dead")  # Blender does not notice
    web.server.wait_until(lambda: web_process(web) != before)
    with ada.events() as events:
        assert next(events)[0] == "snapshot"


def test_a_local_server_has_one_user_who_needs_a_link_too(tmp_path: Path) -> None:
    with web_server(tmp_path, encrypt=False) as web:
        assert HttpUser(web.url).ask("GET", "/api/events")[0] == 401
        made = subprocess.run(
            [sys.executable, "-m", "dreamwright.backend.cli.main", "keys", "web", "local", "--state", str(web.state)],
            capture_output=True, text=True,
        )  # fmt: skip
        url, _, link = made.stdout.split()[0].partition("#")
        assert url == f"{web.url}/sign-in"
        local = HttpUser(web.url)
        assert local.sign_in(link) == 200
        job = web.submit("local", "t1")
        with local.events() as events:
            snapshot = next(events)[1]
            assert [one["job"] for one in snapshot["jobs"]] == [job] and snapshot["account"]["is_open"]
            process = web_process(web)
            web.server.process.kill()
            assert [kind for kind, _ in events if kind == "ended"] == []  # the page tries again, and says so
        end = time.monotonic() + 60
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < end:  # the web process ends with its server
                os.kill(process, 0)
                time.sleep(0.05)
        with pytest.raises(OSError):
            local.ask("GET", "/")


def test_a_page_behind_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    options = ("--web-cert", str(certificate[0]), "--web-key", str(certificate[1]))
    with web_server(tmp_path / "server", *options) as web:
        context = ssl.create_default_context(cafile=str(certificate[0]))
        user = HttpUser(web.url, context=context)
        assert web.url.startswith("https://")
        assert user.sign_in(web.link("ada")) == 200
        assert user.cookie.startswith("__Host-dreamwright=")
        with user.events() as events:
            assert next(events)[0] == "snapshot"
        with pytest.raises(OSError):
            HttpUser(web.url.replace("https", "http")).ask("GET", "/")


@pytest.mark.parametrize(
    "options, says",
    [
        (("--web", "0.0.0.0:0"), "unencrypted"),
        (("--web", "127.0.0.1"), "allowed is HOST:PORT"),
        (("--web", "127.0.0.1:0", "--web-cert", "none.pem"), "give both"),
        (("--web-cert", "a.pem", "--web-key", "b.pem"), "belong to --web"),
    ],
)
def test_a_page_that_cannot_be_served_is_refused_in_one_sentence(
    tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    ended = subprocess.run(serve_command(tmp_path / "state", *options), capture_output=True, text=True)
    assert ended.returncode == 2 and says in ended.stderr and ended.stderr.count("\n") == 1
    assert not (tmp_path / "state" / "jobs.sqlite3").exists()  # nothing was begun


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = subprocess.run(serve_command(tmp_path / "state", "--web", address), capture_output=True, text=True)
    assert ended.returncode == 2
    assert f"cannot serve the web page on {address}" in ended.stderr.splitlines()[-1]
