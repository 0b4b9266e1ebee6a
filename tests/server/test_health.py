# SPDX-License-Identifier: GPL-3.0-or-later
"""/healthz and /readyz beside the metrics: 200 or 503 with one sentence for each reason, and no name of anybody."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from dreamwright.backend.server.app import Server
from dreamwright.backend.server.monitoring.health import MIN_FREE_BYTES, SILENT_S, liveness_fault, readiness_faults
from dreamwright.backend.server.monitoring.metrics import Exporter
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.scripted_worker_server import ScriptedRunner


def answer(exporter: Exporter, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(exporter.url.replace("/metrics", path), timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def test_every_fault_has_its_sentence(in_memory_server: InMemoryServer) -> None:
    ready = replace(in_memory_server.service.metrics(), disk_free_bytes=MIN_FREE_BYTES)
    assert readiness_faults(ready, 0.0) == () and not liveness_fault(SILENT_S)
    faults = {
        "starting": (None, 0.0),
        "stopping": (replace(ready, is_closing=True), 0.0),
        "99 MB free": (replace(ready, disk_free_bytes=MIN_FREE_BYTES - 1), 0.0),
        "no device": (replace(ready, busy={}, drained={}), 0.0),
        "every device is drained": (replace(ready, busy={"a": True}, drained={"a": True}), 0.0),
        "nothing for 61 seconds": (ready, SILENT_S + 1),
    }
    for words, (snapshot, silent_s) in faults.items():
        (fault,) = readiness_faults(snapshot, silent_s)
        assert words in fault
    assert readiness_faults(replace(ready, busy={"a": False, "b": True}, drained={"a": True}), 0.0) == ()


def test_the_endpoints_follow_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamwright.backend.server.app.LocalRunner", ScriptedRunner)
    server, now = Server("tcp://127.0.0.1:*", tmp_path, ("cpu",)), [100.0]
    exporter = Exporter("127.0.0.1:0", lambda: now[0])
    server.publish_metrics = exporter.publish
    try:
        assert answer(exporter, "/healthz") == (200, "ok\n")
        assert answer(exporter, "/readyz") == (503, "the server is starting\n")
        server.step(0.0)
        assert answer(exporter, "/readyz") == (200, "ok\n") and answer(exporter, "/readyz?probe=1")[0] == 200
        now[0] += SILENT_S + 1
        assert answer(exporter, "/healthz")[0] == answer(exporter, "/readyz")[0] == 503
        server._drain(lambda: 0, 0.0)
        server.step(0.0)
        assert answer(exporter, "/readyz") == (503, "the server is stopping\n")
        assert answer(exporter, "/healthz") == (200, "ok\n"), "a server that stops is not to be killed"
        assert answer(exporter, "/metrics")[0] == 200 and answer(exporter, "/../etc/passwd")[0] == 404
    finally:
        exporter.close()
        server.close()


@pytest.mark.parametrize("sent", [b"\x00" * 100, b"POST /healthz HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 100_000, b"GET"])
def test_bad_requests_leave_the_endpoint_up(sent: bytes) -> None:
    exporter = Exporter("127.0.0.1:0")
    try:
        port = int(exporter.url.rpartition(":")[2].removesuffix("/metrics"))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert answer(exporter, "/healthz") == (200, "ok\n")
    finally:
        exporter.close()
