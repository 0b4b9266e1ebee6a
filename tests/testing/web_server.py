# SPDX-License-Identifier: GPL-3.0-or-later
"""A `dreamwright serve --web` process whose jobs make steps, its users, and a plain HTTP client as one of them."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.backend.server.web.login_links import LOCAL_USER, LoginLinks
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.credentials import KeyPair, format_key, generate_key_pair
from tests.testing.scripted_worker_server import submit_message
from tests.testing.server_process import ServerProcess, server_process

MODULE = "tests.testing.stepping_worker_server"
_sources = itertools.count(2)  # each client has a loopback address, and so a rate limit, of its own


@dataclass
class HttpUser:
    """A client of the page with its own address; signed in once it has a cookie and a key."""

    url: str
    source: str = field(default_factory=lambda: f"127.0.1.{next(_sources)}")
    cookie: str = ""
    key: str = ""
    context: ssl.SSLContext | None = None

    def connect(self) -> http.client.HTTPConnection:
        host, port = self.url.split("//")[1].split(":")
        source = (self.source, 0)
        if self.context is not None:
            return http.client.HTTPSConnection(host, int(port), timeout=60, source_address=source, context=self.context)
        return http.client.HTTPConnection(host, int(port), timeout=60, source_address=source)

    def headers(self, **changes: str) -> dict[str, str]:
        own = {"Origin": self.url, "Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
        if self.key:
            own["X-Dreamwright-Key"] = self.key
        if self.cookie:
            own["Cookie"] = self.cookie
        return own | {name.replace("_", "-"): value for name, value in changes.items()}

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = self.connect()
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, self.headers(**headers))
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def sign_in(self, link: str) -> int:
        status, headers, body = self.ask("POST", "/api/sign-in", {"link": link})
        if status == 200:
            self.cookie, self.key = headers["set-cookie"].partition(";")[0], json.loads(body)["key"]
        return status

    def act(self, **body: Any) -> int:
        return self.ask("POST", "/api/act", body)[0]

    @contextlib.contextmanager
    def events(self) -> Iterator[Iterator[tuple[str, Any]]]:
        """The stream of events; it ends when the server ends it."""
        connection = self.connect()
        connection.request("GET", "/api/events", headers=self.headers())
        response = connection.getresponse()
        assert response.status == 200, response.read()

        def read() -> Iterator[tuple[str, Any]]:
            kind = ""
            while line := response.readline().decode():
                name, _, value = line.rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)

        try:
            yield read()
        finally:
            response.close()
            connection.close()


@dataclass
class WebServer:
    """The process, the page's address, and the keys of its users."""

    server: ServerProcess
    state: Path
    url: str
    pairs: dict[str, KeyPair] = field(default_factory=dict)

    def allow(self, name: str, is_admin: bool = False) -> None:
        self.pairs[name] = generate_key_pair()
        KeyFolder(self.state).allow(name, format_key(self.pairs[name].public), is_admin)

    def link(self, name: str) -> str:
        user = LOCAL_USER if name == "local" else KeyFolder(self.state).users()[name]
        return LoginLinks(self.state).create(user)

    def signed_in(self, name: str) -> HttpUser:
        user = HttpUser(self.url)
        assert user.sign_in(self.link(name)) == 200
        return user

    def submit(self, name: str, ticket: str, **changes: Any) -> str:
        lock = None
        if name != "local":
            lock = CurveCredentials(KeyFolder(self.state).pair().public, self.pairs[name])
        with self.server.connected_client(lock) as client:
            return self.server.request(client, submit_message(ticket, **changes)).job.job


@contextlib.contextmanager
def web_server(folder: Path, *options: str, encrypt: bool = True) -> Iterator[WebServer]:
    """A server with the users ada, bob and the admin eve; without `encrypt`, one without keys."""
    state = folder / "state"
    if encrypt:
        KeyFolder(state).create()
        options = ("--encrypt", *options)
    with server_process(folder, "--web", "127.0.0.1:0", *options, module=MODULE) as server:
        found = server.wait_until(lambda: re.search(r"the web page is at (\S+);", server.output.read_text()))
        web = WebServer(server, state, found[1])
        for name in ("ada", "bob", "eve") if encrypt else ():
            web.allow(name, name == "eve")
        yield web
