# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh that is sent to be refined: in pieces, gone on with, checked when whole, each user's own, and the job's once
it is submitted.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.server.jobs.uploads import INPUT_MESH_FILE, UNDER_WAY_S, Uploads
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import JobFinished
from dreamwright.shared import limits
from dreamwright.shared.arrays import encode_array
from dreamwright.shared.codec import pack
from dreamwright.shared.errors import RequestError
from dreamwright.shared.mesh_file import FORMAT, MeshFile, encode_mesh
from dreamwright.shared.messages import (
    CancelJob,
    DeleteJob,
    GetCapabilities,
    ResumeJob,
    SubmitJob,
    UploadChunk,
    UploadProgress,
)
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.fake_props import ball, texture_of
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.uploaded_meshes import BALL, pieces, sent_ball, sha256

MESH = sha256(BALL)


def send(in_memory_server: InMemoryServer, data: bytes = BALL, owner: str = "ada", size: int = 3000) -> int:
    """All pieces; how much the server has then."""
    have = 0
    for piece in pieces(data, size):
        have = in_memory_server.request(piece, owner).offset
    return have


def refine(in_memory_server: InMemoryServer, owner: str = "ada", **changes: Any) -> str:
    return in_memory_server.submit(owner, **({"preset": "refine", "mesh": MESH} | changes))


def files(in_memory_server: InMemoryServer) -> list[str]:
    return sorted(path.name for path in (in_memory_server.folder / "uploads").rglob("*.*"))


# --- pieces


def test_uploaded_mesh_can_be_submitted(in_memory_server: InMemoryServer) -> None:
    assert send(in_memory_server) == len(BALL) and files(in_memory_server) == [f"{MESH}.dwm"]
    job = refine(in_memory_server, settings={"refine.strength": 0.25, "run.steps": 7})
    summary = in_memory_server.job(job)
    assert (summary.mesh, summary.steps, summary.preset) == (MESH, 7, "refine")
    assert (in_memory_server.store.job_folder(job) / INPUT_MESH_FILE).read_bytes() == BALL


@settings(max_examples=40)
@given(order=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4000)), max_size=40))
def test_pieces_in_any_order_leave_a_prefix_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, int]]
) -> None:
    """Against the promise itself: what the server says that it has is how many bytes of the file it has."""
    data = BALL[:9000] + bytes(3000)  # no mesh: the last piece is left out
    uploads = Uploads(tmp_path_factory.mktemp("state"), Policy(), lambda: 0.0)
    have = 0
    for place, size in order:
        offset = min(place * 900, len(data) - 1)
        piece = data[offset : min(offset + size, len(data) - 1)]
        told = uploads.receive("ada", UploadChunk(sha256(data), len(data), offset, piece)).offset
        have = max(have, offset + len(piece)) if offset <= have else have
        assert told == have
    [kept] = list(uploads._folder.rglob("*.part")) or [None]
    assert (kept.read_bytes() if kept else b"") == data[:have]


def test_upload_resumes_after_a_restart(
    in_memory_server: InMemoryServer,
) -> None:
    sent = list(pieces(BALL, 1000))
    for piece in sent[:4]:
        in_memory_server.request(piece)
    in_memory_server.kill()
    in_memory_server.open()
    assert in_memory_server.request(UploadChunk(MESH, len(BALL), 0, b"")) == UploadProgress(4000)
    assert in_memory_server.request(sent[7]) == UploadProgress(4000), "what comes later than there is, is not kept"
    for piece in sent[4:]:
        in_memory_server.request(piece)
    assert files(in_memory_server) == [f"{MESH}.dwm"]
    assert (
        in_memory_server.request(UploadChunk(MESH, len(BALL), 0, b""))
        == UploadProgress(len(BALL))
        == in_memory_server.request(sent[2])
    ), "sent again it is there at once"


def test_wrong_hash_discards_the_upload(in_memory_server: InMemoryServer) -> None:
    wrong = [
        replace(piece, data=b"x" + piece.data[1:]) if piece.offset == 6000 else piece for piece in pieces(BALL, 3000)
    ]
    for piece in wrong[:-1]:
        in_memory_server.request(piece)
    refused = in_memory_server.refusal(wrong[-1])
    assert (
        refused.code == "not-ready"
        and "arrived damaged" in refused.message
        and "again from its beginning" in refused.message
    )
    assert files(in_memory_server) == []
    assert send(in_memory_server) == len(BALL)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x" * 5000, "no mesh that can be refined"),
        (encode_mesh(replace(sent_ball(), faces=np.zeros((0, 3), np.int32))), "0 triangles; allowed are"),
        (
            encode_mesh(replace(sent_ball(), vertices=np.ones_like(sent_ball().vertices))),
            "all of the mesh's vertices are at one place",
        ),
        (encode_mesh(replace(sent_ball(), vertices=np.full_like(sent_ball().vertices, np.nan))), "not finite"),
        (encode_mesh(replace(sent_ball(), faces=sent_ball().faces + 9)), "a face names vertex"),
        (encode_mesh(replace(ball(4), texture=texture_of(ball(4), 64))), "has a picture; allowed are colors"),
    ],
    ids=["noise", "no faces", "no size", "NaN", "faces of nothing", "pictured"],
)
def test_invalid_uploads_are_refused_and_removed(in_memory_server: InMemoryServer, data: bytes, words: str) -> None:
    *before, last = pieces(data, 4000)
    for piece in before:
        in_memory_server.request(piece)
    refused = in_memory_server.refusal(last)
    assert refused.code == "bad-input" and words in refused.message and "; " in refused.message
    assert files(in_memory_server) == []
    assert (
        in_memory_server.refusal(
            SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=sha256(data))
        ).code
        == "not-ready"
    )


def test_mesh_with_too_many_vertices_is_refused(
    in_memory_server: InMemoryServer,
) -> None:
    """Its file is small enough: it has hardly any faces."""
    count = limits.MESH_VERTICES + 1
    many = np.random.default_rng(0).uniform(size=(count, 3)).astype(np.float32)
    data = encode_mesh(MeshFile(many, np.array([[0, 1, 2]], np.int32), many, many))
    assert len(data) < limits.UPLOAD_BYTES
    *before, last = pieces(data)
    for piece in before:
        in_memory_server.request(piece)
    assert f"{count} vertices" in in_memory_server.refusal(last).message


def test_largest_mesh_is_checked_quickly(in_memory_server: InMemoryServer) -> None:
    """Faces and vertices at their limits, and all that facts may hold."""
    vertices = np.random.default_rng(0).uniform(size=(limits.MESH_VERTICES, 3)).astype(np.float32)
    faces = np.random.default_rng(1).integers(0, limits.MESH_VERTICES, (limits.MESH_FACES, 3)).astype(np.int32)
    data = encode_mesh(MeshFile(vertices, faces, vertices, vertices, {f"source_{n}": "é" * 1000 for n in range(100)}))
    assert len(data) <= limits.UPLOAD_BYTES
    *before, last = pieces(data)
    for piece in before:
        in_memory_server.request(piece)
    begun = time.process_time()
    assert in_memory_server.request(last) == UploadProgress(len(data))
    print(
        f"the last piece of the largest mesh, {len(data)} bytes, took {time.process_time() - begun:.3f} s of the server"
    )


def test_large_packed_array_is_refused_unread(in_memory_server: InMemoryServer) -> None:
    """100 MB of zeros pack into 100 kB."""
    zeros = encode_array(np.zeros((8_000_000, 3), np.float32), compress=True)
    small = encode_array(np.zeros((1, 3), np.float32))
    content = {
        "format": FORMAT,
        "vertices": zeros,
        "faces": {**small, "dtype": "<i4"},
        "normals": small,
        "albedo": small,
        "facts": {},
    }
    *before, last = pieces(msgpack.packb(content))
    for piece in before:
        in_memory_server.request(piece)
    assert "array of 96000000 bytes" in in_memory_server.refusal(last).message


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "../../" + "a" * 58},
        {"sha256": MESH.upper()},
        {"sha256": ""},
        {"offset": len(BALL) - 1, "data": b"12"},
    ],
    ids=["path", "upper", "none", "beyond"],
)
def test_invalid_hashes_and_offsets_are_refused(in_memory_server: InMemoryServer, changes: dict[str, Any]) -> None:
    refused = in_memory_server.refusal(replace(UploadChunk(MESH, len(BALL), 0, b"x"), **changes))
    assert (
        refused.code == "bad-input"
        and "allowed are" in refused.message
        and not (in_memory_server.folder / "uploads").exists()
    )


def test_largest_piece_fits_into_a_request() -> None:
    assert (
        len(pack(UploadChunk(MESH, limits.UPLOAD_BYTES, limits.UPLOAD_BYTES, bytes(limits.UPLOAD_PIECE_BYTES)), 2**53))
        <= limits.REQUEST_BYTES
    )


def test_upload_resumes_after_a_full_disk(in_memory_server: InMemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *rest = pieces(BALL, 3000)
    in_memory_server.request(first)
    opened = Path.open

    def full(path: Path, *how: Any, **more: Any) -> Any:
        if path.suffix == ".part":
            raise OSError(28, "No space left on device")
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", full)
    refused = in_memory_server.refusal(second)
    assert refused.code == "no-space" and "No space left" in refused.message and "make room" in refused.message
    monkeypatch.undo()
    assert in_memory_server.request(UploadChunk(MESH, len(BALL), 0, b"")) == UploadProgress(3000)
    for piece in (second, *rest):
        in_memory_server.request(piece)
    assert files(in_memory_server) == [f"{MESH}.dwm"]


# --- whose it is, and how much may lie there


def test_uploads_of_other_users_are_unknown(
    in_memory_server: InMemoryServer,
) -> None:
    send(in_memory_server)
    theirs = in_memory_server.refusal(
        SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=MESH), "bert"
    )
    nobodys = in_memory_server.refusal(
        SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh="0" * 64), "bert"
    )
    assert theirs.code == nobodys.code == "not-ready" and theirs.message.replace(MESH, "X") == nobodys.message.replace(
        "0" * 64, "X"
    )
    assert (
        in_memory_server.refusal(
            SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=MESH), "chief", True
        ).code
        == "not-ready"
    ), "nor an admin's"
    assert in_memory_server.request(UploadChunk(MESH, len(BALL), 0, b""), "bert") == UploadProgress(0), (
        "not even whether it is there is told"
    )
    assert not in_memory_server.store.records and not (in_memory_server.folder / "jobs").exists()


def test_each_user_of_an_encrypted_server_uploads_their_own(encrypted_server: EncryptedServer) -> None:
    anna, bert = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("bert")
    for piece in pieces(BALL):
        assert encrypted_server.request(anna, piece).offset > 0
    for guest, ready in ((bert, False), (anna, True)):
        reply = encrypted_server.request(
            guest, SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=MESH)
        )
        assert (
            (reply.code == "not-ready") is not ready
            if isinstance(reply, RequestError)
            else ready and reply.job.mesh == MESH
        )


def test_user_quota_removes_least_recently_used_uploads(tmp_path: Path) -> None:
    one = len(BALL) / 1e6
    in_memory_server = InMemoryServer(tmp_path / "state", policy=Policy(upload_mb_per_user=2.5 * one))
    meshes = [encode_mesh(sent_ball(2, 0.8, number=number)) for number in range(3)]
    send(in_memory_server, meshes[0], "bert")
    for number, data in enumerate(meshes):
        in_memory_server.step(10)
        send(in_memory_server, data)
        if number == 1:
            in_memory_server.step(1)
            in_memory_server.request(
                UploadChunk(sha256(meshes[0]), len(meshes[0]), 0, b"")
            )  # used again, so the second is now the oldest
    have = [
        in_memory_server.request(UploadChunk(sha256(data), len(data), 0, b"")).offset == len(data) for data in meshes
    ]
    assert have == [True, False, True]
    assert in_memory_server.request(UploadChunk(sha256(meshes[0]), len(meshes[0]), 0, b""), "bert").offset == len(
        meshes[0]
    )


def test_total_quota_removes_only_idle_uploads(tmp_path: Path) -> None:
    one = len(BALL) / 1e6
    in_memory_server = InMemoryServer(
        tmp_path / "state", policy=Policy(upload_mb_per_user=1.5 * one, upload_mb_total=2.5 * one)
    )
    send(in_memory_server, owner="anna")
    in_memory_server.request(next(pieces(BALL, 3000)), "bert")  # what is announced counts, not only what has come
    refused = in_memory_server.refusal(next(pieces(BALL, 3000)), "carl")
    assert refused.code == "queue-full" and "try again" in refused.message
    in_memory_server.step(UNDER_WAY_S + 1)
    assert send(in_memory_server, owner="carl") == len(BALL)
    assert in_memory_server.request(UploadChunk(MESH, len(BALL), 0, b""), "anna") == UploadProgress(0)


def test_mesh_above_the_user_quota_is_refused(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path / "state", policy=Policy(upload_mb_per_user=0.5 * len(BALL) / 1e6))
    refused = in_memory_server.refusal(next(pieces(BALL)))
    assert (
        refused.code == "too-many"
        and "--upload-mb-per-user" in refused.message
        and not (in_memory_server.folder / "uploads").exists()
    )


def test_unused_uploads_expire_after_a_day(
    in_memory_server: InMemoryServer,
) -> None:
    send(in_memory_server)
    job = refine(in_memory_server)
    in_memory_server.wall += 1e9  # a clock that jumps removes nothing
    in_memory_server.step(3600 * 23)
    assert files(in_memory_server) == [f"{MESH}.dwm"]
    in_memory_server.step(3600 * 25)
    assert (
        files(in_memory_server) == []
        and (in_memory_server.store.job_folder(job) / INPUT_MESH_FILE).read_bytes() == BALL
    )
    assert (
        in_memory_server.refusal(
            SubmitJob("other", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=MESH)
        ).code
        == "not-ready"
    )


def test_capabilities_state_refinement_limits(in_memory_server: InMemoryServer) -> None:
    offered = in_memory_server.request(GetCapabilities())
    assert offered.bounds["upload_bytes"] == limits.UPLOAD_BYTES and offered.bounds["mesh_vertices"] == 200_000
    assert offered.bounds["upload_mb_per_user"] == 128 and offered.bounds["upload_hours"] == 24
    cards = {card.name: card for card in offered.settings}
    strength = cards["refine.strength"]
    assert (strength.kind, strength.low, strength.high, strength.defaults) == ("number", 0, 1, {"refine": 0.5})
    assert cards["refine.positions"].kind == "switch" and cards["run.steps"].defaults["refine"] == 300


# --- the job


def test_repeated_ticket_works_without_the_upload(in_memory_server: InMemoryServer) -> None:
    send(in_memory_server)
    job = refine(in_memory_server, ticket="same")
    shutil.rmtree(in_memory_server.folder / "uploads")
    in_memory_server.kill()
    in_memory_server.open()
    assert refine(in_memory_server, ticket="same") == job and in_memory_server.job(job).mesh == MESH


def test_crash_between_link_and_store_leaves_no_job(
    in_memory_server: InMemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(in_memory_server)

    def dies(*asked: Any) -> None:
        raise SystemExit("killed")

    monkeypatch.setattr(in_memory_server.store, "add", dies)
    with pytest.raises(SystemExit):
        refine(in_memory_server, ticket="same")
    assert len(list((in_memory_server.folder / "jobs").iterdir())) == 1
    in_memory_server.kill()
    in_memory_server.open()
    assert not list((in_memory_server.folder / "jobs").iterdir()), "nobody's folder is swept at the start"
    assert (
        in_memory_server.store.job_folder(refine(in_memory_server, ticket="same")) / INPUT_MESH_FILE
    ).read_bytes() == BALL and len(in_memory_server.store.records) == 1


def test_failed_submit_leaves_no_folder(in_memory_server: InMemoryServer) -> None:
    send(in_memory_server)
    in_memory_server.disk.full = True
    assert (
        in_memory_server.refusal(SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=MESH)).code
        == "no-space"
    )
    assert not list((in_memory_server.folder / "jobs").iterdir()) and not in_memory_server.store.records


def test_input_mesh_is_kept_while_the_job_can_resume(in_memory_server: InMemoryServer) -> None:
    send(in_memory_server)
    ends = {}
    for how in ("succeeded", "failed", "resumable"):
        job = refine(in_memory_server)
        in_memory_server.step()
        subject = in_memory_server.store.job_folder(job) / INPUT_MESH_FILE
        if how == "resumable":
            (subject.parent / "checkpoints").mkdir()
            (subject.parent / "checkpoints" / "checkpoint.safetensors").write_bytes(b"x")
        if how == "succeeded":
            (subject.parent / MESH_FILE).write_bytes(b"mesh")
        assert subject.is_file()
        in_memory_server.report(
            JobFinished, job, "succeeded" if how == "succeeded" else "failed", "", how == "succeeded"
        )
        ends[how] = subject.is_file()
    assert ends == {"succeeded": False, "failed": False, "resumable": True}
    cleanup = in_memory_server.service.cleanup
    assert cleanup.retained_bytes(in_memory_server.store.records[job]) == 1 + len(BALL), "it counts for what is kept"
    in_memory_server.request(ResumeJob(job))
    in_memory_server.request(CancelJob(job))
    assert not subject.is_file()
    in_memory_server.request(DeleteJob(job))
    assert not subject.parent.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "draft"}, "preset 'draft' makes props without a mesh; allowed for a mesh is 'refine'"),
        ({"settings": {"mesh.texture": 64}}, "mesh.texture means nothing to the refinement of a mesh; allowed are"),
        ({"settings": {"mesh.height_m": 0.5}}, "mesh.height_m means nothing"),
        ({"settings": {"refine.strength": 1.5}}, "refine.strength is 1.5; allowed is 0 to 1"),
        ({"prompt": "a red gryphon"}, "gryphon"),
        ({"mesh": ""}, "unknown preset 'refine'; allowed are"),
    ],
)
def test_unused_settings_of_a_refinement_are_refused(
    in_memory_server: InMemoryServer, changes: dict[str, Any], words: str
) -> None:
    send(in_memory_server)
    fields = {
        "ticket": "t",
        "prompt": "a red mushroom",
        "negative": "",
        "model": "starter",
        "preset": "refine",
        "seed": 0,
        "settings": {},
        "mesh": MESH,
    }
    refused = in_memory_server.refusal(SubmitJob(**{**fields, **changes}))
    assert refused.code == "bad-input" and words in refused.message, refused.message
    assert not (in_memory_server.folder / "jobs").exists()
