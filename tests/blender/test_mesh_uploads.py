# SPDX-License-Identifier: GPL-3.0-or-later
"""A session that uploads a mesh to be refined: between ticks, over outages, and across sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bpy")

from tests.testing.addon_session import SessionBench, addon_module

MESH = bytes(range(256)) * 4000  # a megabyte, which the stand-in takes for a mesh until it is made of it
SETTINGS = {"refine.strength": 0.5}


def refine(bench: SessionBench, data: bytes = MESH) -> str:
    return bench.session.submit("a red chair", "", "starter", "refine", 1, SETTINGS, mesh=data)


def step_both(bench: SessionBench) -> None:
    bench.server.step(0.002)
    bench.events += bench.session.tick()


def chunks(bench: SessionBench) -> list[Any]:
    return [request for request in bench.server.requests if type(request).__name__ == "UploadChunk" and request.data]


def test_mesh_is_uploaded_once_before_its_request(bench: SessionBench, tmp_path: Path) -> None:
    bench.connect()
    ticket, shares = refine(bench), []
    assert (tmp_path / "outbox" / f"{ticket}.dwm").read_bytes() == MESH, "as long as nobody has answered"
    while ticket not in bench.session.submitted_jobs:
        step_both(bench)
        assert len(shares) < 2000, bench.session.notices
        shares.append(bench.session.submissions.uploads.share(ticket))
    job = bench.session.jobs[bench.session.submitted_jobs[ticket]]
    assert job.mesh and bytes(bench.server.uploads[job.mesh]) == MESH
    assert len({share for share in shares if 0 < share < 1}) > 2, "its progress is to be seen"
    assert sum(len(request.data) for request in chunks(bench)) == len(MESH), "no byte twice"
    assert not bench.session.pending and not list((tmp_path / "outbox").iterdir()) and not bench.session.notices


def test_upload_survives_lost_replies_and_an_outage(bench: SessionBench) -> None:
    bench.connect()
    bench.server.faults.lose_uploads = 3
    ticket = refine(bench)
    bench.settle(lambda: bench.session.submissions.uploads.share(ticket) > 0.2)
    bench.server.close()
    for _ in range(30):
        bench.ahead += 1
        bench.session.tick()
    assert bench.session.connection_state == "lost" and ticket in bench.session.pending and not bench.session.notices
    bench.server.open()
    for _ in range(40):
        bench.ahead += 0.5
        step_both(bench)
    bench.settle(lambda: ticket in bench.session.submitted_jobs)
    assert len(bench.server.jobs) == 1 and not bench.session.notices


def test_lost_mesh_is_uploaded_again(bench: SessionBench) -> None:
    bench.connect()
    bench.server.faults.forget_uploads = 1
    ticket = refine(bench)
    bench.settle(lambda: ticket in bench.session.submitted_jobs)
    assert sum(len(request.data) for request in chunks(bench)) == 2 * len(MESH) and len(bench.server.jobs) == 1
    bench.server.faults.forget_uploads = 9
    refine(bench)
    bench.settle(lambda: bool(bench.session.notices))
    assert "refinement was not started" in bench.session.notices[0].text and not bench.session.pending
    assert bench.server.faults.forget_uploads == 6, "three times, then the user is notified"


def test_next_session_sends_a_pending_mesh(bench: SessionBench, installed: Path, tmp_path: Path) -> None:
    bench.connect()
    ticket = refine(bench)
    bench.settle(lambda: bench.session.submissions.uploads.share(ticket) > 0.2)
    bench.session._client.close()  # as a killed Blender leaves it
    bench.session = addon_module("session").Session(tmp_path)
    bench.connect()
    bench.settle(lambda: ticket in bench.session.submitted_jobs)
    assert len(bench.server.jobs) == 1 and not list((tmp_path / "outbox").iterdir())


def test_missing_mesh_file_cancels_the_submission(bench: SessionBench, tmp_path: Path) -> None:
    bench.connect()
    ticket = refine(bench)
    bench.session._client.close()
    (tmp_path / "outbox" / f"{ticket}.dwm").write_bytes(b"something else")
    bench.session = addon_module("session").Session(tmp_path)
    bench.connect()
    bench.settle(lambda: bool(bench.session.notices))
    assert (
        "no longer stored on this computer" in bench.session.notices[0].text
        and not bench.session.pending
        and not bench.server.jobs
    )
    assert not list((tmp_path / "outbox").iterdir())


def test_cancelled_refinement_stops_and_leaves_nothing(bench: SessionBench, tmp_path: Path) -> None:
    bench.connect()
    ticket = refine(bench)
    bench.settle(lambda: 0 < bench.session.submissions.uploads.share(ticket) < 1)
    bench.session.cancel_pending(ticket)
    for _ in range(10):
        step_both(bench)
    sent = len(chunks(bench))
    for _ in range(20):
        step_both(bench)
    assert len(chunks(bench)) == sent and not bench.server.jobs and not list((tmp_path / "outbox").iterdir())
    assert not bench.session.submissions.uploads.uploads and not bench.session.notices


def test_disconnect_keeps_the_pending_mesh(bench: SessionBench) -> None:
    bench.connect()
    ticket = refine(bench)
    bench.settle(lambda: bench.session.submissions.uploads.share(ticket) > 0.2)
    bench.session.disconnect()
    assert ticket in bench.session.pending and not bench.session.submissions.uploads.uploads
    bench.connect()
    bench.settle(lambda: ticket in bench.session.submitted_jobs)
    assert sum(len(request.data) for request in chunks(bench)) < 1.7 * len(MESH), "it goes on where it was"


def test_refinement_needs_a_connection(bench: SessionBench) -> None:
    refine(bench)
    assert not bench.session.pending and "not connected" in bench.session.notices[0].text
