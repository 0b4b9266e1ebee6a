# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads of meshes: many chunks, outages, damage and files that change."""

from __future__ import annotations

import hashlib
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import (
    Chunk,
    FetchChunk,
    JobSummary,
)
from dreamwright.shared.transfer import Download
from tests.testing.client_pair import Pair


def fetched(pair: Pair, rings: int = 120) -> tuple[JobSummary, list[Any], Download]:
    pair.connect()
    pair.server.rings = rings
    job = pair.submit()
    pair.server.finish(job.job, "succeeded")
    results: list[Any] = []
    summary = pair.server.jobs[job.job]
    return summary, results, Download(pair.client, job.job, "mesh", summary.mesh_bytes, results.append)


def test_download_of_many_chunks(pair: Pair) -> None:
    job, results, download = fetched(pair)
    assert job.mesh_bytes > 3 * limits.CHUNK_BYTES
    download.start()
    pair.settle(lambda: bool(results))
    assert hashlib.sha256(results[0]).hexdigest() == job.mesh_sha256
    assert download.share == 1


def test_download_resumes_after_an_outage(pair: Pair) -> None:
    job, results, download = fetched(pair)
    pair.server.faults.lose_chunks = 2
    download.start()
    pair.settle(lambda: download.share > 0.2)
    had = download.share
    pair.server.close()
    pair.server_runs = False
    for _ in range(40):
        pair.clock.ahead += 1
        pair.client.tick()
    assert not results and download.share >= had
    pair.server.open()
    pair.server_runs = True
    before = len(pair.server.requests)
    pair.settle(lambda: pair.client.state is ConnectionState.ONLINE, 10)
    download.resume()
    pair.settle(lambda: bool(results), 10)
    assert hashlib.sha256(results[0]).hexdigest() == job.mesh_sha256
    repeated = {request.offset for request in pair.server.requests[before:] if isinstance(request, FetchChunk)}
    assert 0 < len(repeated) < job.mesh_bytes / limits.CHUNK_BYTES


def test_damaged_download_is_refused(pair: Pair) -> None:
    _, results, download = fetched(pair)
    pair.server.faults.damage_chunks = 1
    download.start()
    pair.settle(lambda: bool(results))
    assert isinstance(results[0], RequestError) and "damaged" in str(results[0])


def test_file_changed_during_download_is_refused(pair: Pair) -> None:
    job, results, download = fetched(pair)
    pair.server.faults.lose_chunks = 1
    download.start()
    pair.settle(lambda: download.share > 0.3)
    download._on_reply(0, Chunk(0, b"x" * limits.CHUNK_BYTES, job.mesh_bytes, "f" * 64))
    assert isinstance(results[0], RequestError) and "changed" in str(results[0])
