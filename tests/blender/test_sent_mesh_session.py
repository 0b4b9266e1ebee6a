# SPDX-License-Identifier: GPL-3.0-or-later
"""A session that sends a mesh to be refined: in between ticks, over lost connections, the server's end and its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bpy")

from tests.blender.test_session import Table, module, table  # noqa: F401 (table is a fixture)

MESH = bytes(range(256)) * 4000  # a megabyte, which the stand-in takes for a mesh until it is made of it
SETTINGS = {"refine.strength": 0.5}


def refine(table: Table, data: bytes = MESH) -> str:
    return table.session.submit("a red chair", "", "starter", "refine", 1, SETTINGS, mesh=data)


def turn(table: Table) -> None:
    table.server.step(0.002)
    table.happened += table.session.tick()


def pieces(table: Table) -> list[Any]:
    return [asked for asked in table.server.requests if type(asked).__name__ == "UploadChunk" and asked.data]


def test_a_mesh_goes_ahead_of_its_request_piece_by_piece_and_once(table: Table, tmp_path: Path) -> None:
    table.connect()
    ticket, shares = refine(table), []
    assert (tmp_path / "outbox" / f"{ticket}.dwm").read_bytes() == MESH, "as long as nobody has answered"
    while ticket not in table.session.submitted:
        turn(table)
        assert len(shares) < 2000, table.session.notices
        shares.append(table.session.meshes.share(ticket))
    job = table.session.jobs[table.session.submitted[ticket]]
    assert job.mesh and bytes(table.server.uploads[job.mesh]) == MESH
    assert len({share for share in shares if 0 < share < 1}) > 2, "its progress is to be seen"
    assert sum(len(asked.data) for asked in pieces(table)) == len(MESH), "no byte twice"
    assert not table.session.outbox and not list((tmp_path / "outbox").iterdir()) and not table.session.notices


def test_lost_answers_and_an_outage_only_make_it_later(table: Table) -> None:
    table.connect()
    table.server.faults.lose_uploads = 3
    ticket = refine(table)
    table.settle(lambda: table.session.meshes.share(ticket) > 0.2)
    table.server.close()
    for _ in range(30):
        table.ahead += 1
        table.session.tick()
    assert table.session.connection_state == "lost" and ticket in table.session.outbox and not table.session.notices
    table.server.open()
    for _ in range(40):
        table.ahead += 0.5
        turn(table)
    table.settle(lambda: ticket in table.session.submitted)
    assert len(table.server.jobs) == 1 and not table.session.notices


def test_a_server_that_lost_the_mesh_before_its_request_is_sent_it_once_more(table: Table) -> None:
    table.connect()
    table.server.faults.forget_uploads = 1
    ticket = refine(table)
    table.settle(lambda: ticket in table.session.submitted)
    assert sum(len(asked.data) for asked in pieces(table)) == 2 * len(MESH) and len(table.server.jobs) == 1
    table.server.faults.forget_uploads = 9
    refine(table)
    table.settle(lambda: bool(table.session.notices))
    assert "refinement was not started" in table.session.notices[0].text and not table.session.outbox
    assert table.server.faults.forget_uploads == 6, "three times, then it is told"


def test_another_blender_sends_what_the_first_left_unsent(table: Table, installed: Path, tmp_path: Path) -> None:
    table.connect()
    ticket = refine(table)
    table.settle(lambda: table.session.meshes.share(ticket) > 0.2)
    table.session._client.close()  # as a killed Blender leaves it
    table.session = module("session").Session(tmp_path)
    table.connect()
    table.settle(lambda: ticket in table.session.submitted)
    assert len(table.server.jobs) == 1 and not list((tmp_path / "outbox").iterdir())


def test_a_request_whose_mesh_is_no_more_on_this_computer_is_given_up_with_a_sentence(
    table: Table, tmp_path: Path
) -> None:
    table.connect()
    ticket = refine(table)
    table.session._client.close()
    (tmp_path / "outbox" / f"{ticket}.dwm").write_bytes(b"something else")
    table.session = module("session").Session(tmp_path)
    table.connect()
    table.settle(lambda: bool(table.session.notices))
    assert (
        "no more on this computer" in table.session.notices[0].text
        and not table.session.outbox
        and not table.server.jobs
    )
    assert not list((tmp_path / "outbox").iterdir())


def test_a_withdrawn_refinement_sends_no_more_and_leaves_nothing(table: Table, tmp_path: Path) -> None:
    table.connect()
    ticket = refine(table)
    table.settle(lambda: 0 < table.session.meshes.share(ticket) < 1)
    table.session.withdraw(ticket)
    for _ in range(10):
        turn(table)
    sent = len(pieces(table))
    for _ in range(20):
        turn(table)
    assert len(pieces(table)) == sent and not table.server.jobs and not list((tmp_path / "outbox").iterdir())
    assert not table.session.meshes.uploads and not table.session.notices


def test_disconnecting_in_the_middle_keeps_the_request_for_the_next_time(table: Table) -> None:
    table.connect()
    ticket = refine(table)
    table.settle(lambda: table.session.meshes.share(ticket) > 0.2)
    table.session.disconnect()
    assert ticket in table.session.outbox and not table.session.meshes.uploads
    table.connect()
    table.settle(lambda: ticket in table.session.submitted)
    assert sum(len(asked.data) for asked in pieces(table)) < 1.7 * len(MESH), "it goes on where it was"


def test_without_a_connection_a_refinement_is_refused_and_not_kept(table: Table) -> None:
    refine(table)
    assert not table.session.outbox and "not connected" in table.session.notices[0].text
