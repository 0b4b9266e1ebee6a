# SPDX-License-Identifier: GPL-3.0-or-later
"""A model hub on loopback: the endpoints of the Hugging Face hub that a download uses, with fault injection."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "c" * 40
# Only the account of the first token has accepted the licenses.
LICENSED_TOKEN, UNLICENSED_TOKEN = "hf_friend", "hf_stranger"

# Python imports this before anything else in every process of a command; addresses other than loopback fail as well.
REFUSE_SOCKETS = """
import os, socket
def refuse(*args, **kwargs):
    with open(os.environ["SOCKET_LOG"], "a") as log:
        log.write(repr(args[-1]) + chr(10))
    raise OSError("this test refuses every connection")
socket.getaddrinfo = socket.create_connection = refuse
connect = socket.socket.connect
socket.socket.connect = lambda s, a: connect(s, a) if s.family == getattr(socket, "AF_UNIX", None) else refuse(s, a)
socket.socket.connect_ex = socket.socket.connect
"""


@dataclass
class Repository:
    """One repository: its files, by path, at one commit."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    sizes: dict[str, int] = field(default_factory=dict)  # wrong sizes to report
    damaged: set[str] = field(default_factory=set)  # files that arrive with a wrong byte
    broken: set[str] = field(default_factory=set)  # files whose transfer ends with a server error


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class FakeHub:
    """Serves `repositories`; `requests` holds (method, path, range header), `served` counts bytes of file contents."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.served = 0
        self.hold_after: int | None = None  # bytes of contents after which the connection stalls
        self.held = threading.Event()
        self.released = threading.Event()
        self.hold_s = 60.0  # after which a stalled connection ends, unless it is released before
        self.ranges = True
        self.store: FakeHub | None = None  # host of large files, as on the hub
        self.tokens: list[str] = []  # of every request
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reset(self) -> None:
        """Clear the recorded requests and all faults."""
        self.requests.clear()
        self.served, self.hold_after = 0, None
        self.held.clear()

    def fetched(self) -> list[str]:
        """Paths of the requested file contents, in order."""
        return [
            path.split("/resolve/")[1].split("/", 1)[1]
            for method, path, _ in self.requests
            if method == "GET" and "/resolve/" in path
        ]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        # A client that fails or is killed resets its connection. The report of it would go to the stderr of whatever
        # command the test runs in this process, and that output is what the test reads.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.tokens.append(self.headers.get("Authorization", ""))
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+)(?:/.*)?)?", path)
        content = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = api[1] if api else content[1] if content else ""
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._refuse(401 if name else 404, "RepoNotFound" if name else "", "Repository not found")
        revision = (api[3] if api else content[2] if content else None) or "main"
        if revision not in ("main", repository.commit):
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if api:
            return self._json(self._tree(repository) if api[2] == "tree" else self._info(name, repository))
        assert content
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository.gated and token != LICENSED_TOKEN:
            return self._refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        if content[3] not in repository.files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        if content[3] in repository.broken and self.command == "GET":
            return self._refuse(500, "", "Internal error")
        return self._content(repository, content[3])

    def _info(self, name: str, repository: Repository) -> object:
        return {
            "id": name,
            "sha": repository.commit,
            "private": False,
            "gated": "auto" if repository.gated else False,
            "tags": [],
            "siblings": [],
        }

    def _tree(self, repository: Repository) -> object:
        entries: list[dict[str, object]] = [{"type": "directory", "path": "unet", "oid": "0" * 40, "size": 0}]
        for path, content in repository.files.items():
            size = repository.sizes.get(path, len(content))
            entry: dict[str, object] = {"type": "file", "path": path, "size": size, "oid": git_sha1(content)}
            if _large(path):
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 134}
            entries.append(entry)
        return entries

    def _content(self, repository: Repository, path: str) -> None:
        content = repository.files[path]
        if self.hub.store is not None and _large(path):
            self.send_response(302)
            self.send_header("Location", self.hub.store.url + self.path)
            self.send_header("X-Repo-Commit", repository.commit)
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin, status = 0, 200
        requested_range = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if requested_range and self.hub.ranges:
            begin, status = int(requested_range[1]), 206
        body = content[begin:]
        if path in repository.damaged:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest() if _large(path) else git_sha1(content)}"')
        self.send_header("X-Repo-Commit", repository.commit)
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(body), 2**16):
            if self.hub.hold_after is not None and self.hub.served >= self.hub.hold_after:
                self.hub.held.set()
                self.hub.released.wait(self.hub.hold_s)
                self.close_connection = True
                return
            block = body[start : start + 2**16]
            try:
                self.wfile.write(block)
            except OSError:
                self.close_connection = True  # the client was killed
                return
            self.hub.served += len(block)

    def _json(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _large(path: str) -> bool:
    """What the hub keeps in large-file storage, with a SHA-256."""
    return path.endswith((".safetensors", ".bin", ".ckpt", ".gguf"))


def folder_files(folder: Path) -> dict[str, bytes]:
    """A folder's files by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def safetensors_bytes(numbers: int, seed: int = 0) -> bytes:
    """A safetensors file with one tensor of 8-bit numbers."""
    header = json.dumps({"ballast": {"dtype": "U8", "shape": [numbers], "data_offsets": [0, numbers]}}).encode()
    block = hashlib.sha256(bytes([seed])).digest() * 2**10
    return len(header).to_bytes(8, "little") + header + (block * (numbers // len(block) + 1))[:numbers]


def environment(hub_url: str, home: Path, **more: str) -> Mapping[str, str]:
    """A user's environment with a home of its own and `hub_url` as the hub."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "TRANSFORMERS_", "DREAMWRIGHT", "XDG_"))
    }
    folders = {"HF_HOME": "hf", "DREAMWRIGHT_MODELS": "models", "XDG_DATA_HOME": "data", "XDG_CACHE_HOME": "cache"}
    places = {variable: str(home / folder) for variable, folder in folders.items()}
    return {**kept, "HOME": str(home), "HF_ENDPOINT": hub_url, "OMP_NUM_THREADS": "1", **places, **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dreamwright.backend.cli.main", *arguments]


def run_command(env: Mapping[str, str], *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a child process."""
    return subprocess.run(command(*arguments), env=env, cwd=cwd, capture_output=True, text=True, timeout=120)


def refusing(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    """An environment in which all processes of a command refuse connections and log each attempt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(REFUSE_SOCKETS)
    path = os.pathsep.join(filter(None, (str(folder), env.get("PYTHONPATH", ""))))
    return {**env, "PYTHONPATH": path, "SOCKET_LOG": str(folder / "sockets.log")}
