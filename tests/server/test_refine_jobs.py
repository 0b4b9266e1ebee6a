# SPDX-License-Identifier: GPL-3.0-or-later
"""Attempts of a job that refines an uploaded mesh: paused and resumed, cancelled, damaged; and the client's upload."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamwright.backend.server.jobs.uploads import INPUT_MESH_FILE
from dreamwright.backend.server.workers.fencing import raise_fence
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import PreviewReport
from dreamwright.shared import limits
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.errors import RequestError
from dreamwright.shared.mesh_file import MeshFile, decode_mesh, encode_mesh
from dreamwright.shared.messages import SubmitJob, UploadProgress
from dreamwright.shared.transfer import MAX_STALLS, MeshUpload
from tests.testing.job_orders import attempt_order
from tests.testing.recording_worker import RecordingWorker
from tests.testing.scripted_worker_server import ScriptedServer
from tests.testing.uploaded_meshes import sent_ball, sha256

BALL = encode_mesh(sent_ball(source_object="Ball", source_matrix="[1]", other="not for the way back"))
pytestmark = pytest.mark.usefixtures("report_every_step")

SETTINGS = {
    "run.steps": 4,
    "run.checkpoint_interval": 2,
    "run.preview_interval": 2,
    "render.resolution": 16,
    "run.threads": 1,
    "refine.strength": 0.6,
}


def attempt(
    model: Path, folder: Path, number: int = 1, worker: RecordingWorker | None = None, **changes: Any
) -> RecordingWorker:
    worker = worker or RecordingWorker()
    fields = {"preset": "refine", "seed": 3, "settings": SETTINGS, "mesh": sha256(BALL)} | changes
    order = attempt_order(model, folder, number, **fields)
    raise_fence(folder, number)
    if not (folder / INPUT_MESH_FILE).exists():
        (folder / INPUT_MESH_FILE).write_bytes(BALL)
    worker.run(order)
    return worker


@pytest.fixture(scope="module")
def reference(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, RecordingWorker]:
    folder = tmp_path_factory.mktemp("reference")
    worker = attempt(model, folder)
    assert worker.ended.how == "succeeded", worker.ended
    return (folder / MESH_FILE).read_bytes(), worker


def test_refined_mesh_keeps_vertex_order(
    reference: tuple[bytes, RecordingWorker],
) -> None:
    data, worker = reference
    sent, made = sent_ball(), decode_mesh(data)
    assert np.array_equal(made.faces, sent.faces) and made.vertices.shape == sent.vertices.shape
    moved = np.linalg.norm(made.vertices - sent.vertices, axis=1)
    # The ball's radius is 0.8.
    assert 0 < moved.max() < 0.6 * 0.5 * 0.8, "strength x half the radius"
    assert not np.array_equal(made.albedo, sent.albedo)
    assert made.facts["refined_sha256"] == sha256(BALL) and made.facts["strength"] == 0.6
    assert made.facts["source_object"] == "Ball" and made.facts["source_matrix"] == "[1]" and "other" not in made.facts
    assert made.facts["triangles"] == len(sent.faces) and made.facts["watertight"] is True
    assert worker.steps()[-1] == 4 and [
        report.frame.step for report in worker.sent if isinstance(report, PreviewReport)
    ] == [2, 4]


def test_paused_refinement_resumes_and_a_cancelled_one_has_a_mesh(
    model: Path, reference: tuple[bytes, RecordingWorker], tmp_path: Path
) -> None:
    worker = RecordingWorker()
    worker.stop_at = 3
    assert attempt(model, tmp_path, 1, worker).ended.how == "paused" and not (tmp_path / MESH_FILE).exists()
    worker = attempt(model, tmp_path, 2)
    assert worker.ended.how == "succeeded" and worker.steps() == [4]
    assert (tmp_path / MESH_FILE).read_bytes() == reference[0]

    class Cancelled(RecordingWorker):
        def _requested_stop(self) -> str:
            return "cancel" if self.steps() else ""

    (tmp_path / "other").mkdir()
    ended = attempt(model, tmp_path / "other", 1, Cancelled()).ended
    assert ended.how == "cancelled" and ended.meshed
    assert decode_mesh((tmp_path / "other" / MESH_FILE).read_bytes()).facts["steps"] == 1


def test_strength_zero_returns_the_mesh(model: Path, tmp_path: Path) -> None:
    assert attempt(model, tmp_path, settings={**SETTINGS, "refine.strength": 0}).ended.how == "succeeded"
    made = decode_mesh((tmp_path / MESH_FILE).read_bytes())
    assert np.array_equal(made.vertices, sent_ball().vertices) and np.array_equal(made.albedo, sent_ball().albedo)


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_lost_input_mesh_fails_the_job(model: Path, tmp_path: Path, harm: str) -> None:
    if harm == "damaged":
        (tmp_path / INPUT_MESH_FILE).write_bytes(BALL[:-1] + b"x")
    else:
        (tmp_path / INPUT_MESH_FILE).mkdir()
    ended = attempt(model, tmp_path).ended
    assert (ended.how, ended.cause) == ("failed", "bad-input") and "send the mesh again" in ended.message, ended


# --- the client that sends it


def sending(scripted_server: ScriptedServer, data: bytes) -> tuple[MeshUpload, list[Any]]:
    ends: list[Any] = []
    return MeshUpload(scripted_server.client, data, ends.append).start(), ends


def large() -> bytes:
    """A good mesh of some twelve pieces."""
    ball = sent_ball(5)
    return encode_mesh(MeshFile(ball.vertices, ball.faces, ball.normals, ball.albedo))


def test_repeated_upload_sends_nothing(scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    data = large()
    upload, ends = sending(scripted_server, data)
    scripted_server.wait_until(lambda: bool(ends))
    assert ends == [sha256(data)] and upload.share == 1
    requests = scripted_server.server.counters.requests["UploadChunk"]
    assert requests == 1 + -(-len(data) // limits.UPLOAD_PIECE_BYTES), "each piece once"
    _, again = sending(scripted_server, data)
    scripted_server.wait_until(lambda: bool(again))
    assert scripted_server.server.counters.requests["UploadChunk"] == requests + 1
    assert scripted_server.request(
        SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=sha256(data))
    ).job.mesh == sha256(data)


def test_upload_resumes_after_restart_and_disconnect(
    scripted_server: ScriptedServer,
) -> None:
    data = large()
    upload, ends = sending(scripted_server, data)
    scripted_server.wait_until(lambda: upload.share > 0.4)
    address = scripted_server.server.address
    scripted_server.server.close()
    scripted_server.server = type(scripted_server.server)(address, scripted_server.folder, ("cpu",))
    have = scripted_server.server.service.uploads._received(
        next(iter(scripted_server.server.service.uploads._uploads)), len(data)
    )
    assert 0.4 * len(data) < have < len(data)
    epoch = scripted_server.client.epoch
    scripted_server.wait_until(
        lambda: scripted_server.client.epoch != epoch and scripted_server.client.state is ConnectionState.ONLINE, 30
    )
    upload.resume()  # as a session does when it is back online
    scripted_server.wait_until(lambda: bool(ends), 30)
    assert ends == [sha256(data)]
    pieces = -(-(len(data) - have) // limits.UPLOAD_PIECE_BYTES)
    assert (
        pieces
        <= scripted_server.server.counters.requests["UploadChunk"]
        <= pieces + 2 * limits.UPLOAD_PIECES_IN_FLIGHT + 2
    )


def test_damaged_upload_starts_again(scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    data, receive, harmed = large(), scripted_server.server.service.uploads.receive, []

    def harm(owner: str, piece: Any) -> Any:
        if piece.offset and not harmed:
            harmed.append(piece.offset)
            piece = replace(piece, data=piece.data[:-1] + bytes([piece.data[-1] ^ 1]))
        return receive(owner, piece)

    monkeypatch.setattr(scripted_server.server.service.uploads, "receive", harm)
    _upload, ends = sending(scripted_server, data)
    scripted_server.wait_until(lambda: bool(ends))
    assert harmed and ends == [sha256(data)]


def test_upload_gives_up_without_progress(scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripted_server.server.service.uploads, "receive", lambda owner, piece: UploadProgress(0))
    _, ends = sending(scripted_server, large())
    scripted_server.wait_until(lambda: bool(ends))
    assert isinstance(ends[0], RequestError) and "does not advance" in ends[0].message
    assert scripted_server.server.counters.requests["UploadChunk"] < 3 * limits.UPLOAD_PIECES_IN_FLIGHT * (
        MAX_STALLS + 2
    )
    monkeypatch.undo()
    _, ends = sending(scripted_server, b"no mesh")
    scripted_server.wait_until(lambda: bool(ends))
    assert ends[0].code == "bad-input" and "not a mesh that can be refined" in ends[0].message
    _, ends = sending(scripted_server, bytes(limits.UPLOAD_BYTES + 1))
    assert "12.6 MB; at most 12.6 are allowed; decimate" in ends[0].message


def test_cancelled_upload_stops(scripted_server: ScriptedServer) -> None:
    upload, ends = sending(scripted_server, large())
    scripted_server.wait_until(lambda: upload.share > 0)
    upload.cancel()
    for _ in range(20):
        scripted_server.step()
    sent = scripted_server.server.counters.requests["UploadChunk"]
    for _ in range(20):
        scripted_server.step()
    assert scripted_server.server.counters.requests["UploadChunk"] == sent and ends == [] and upload.share < 1
