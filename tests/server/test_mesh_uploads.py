# SPDX-License-Identifier: GPL-3.0-or-later
"""Mesh uploads: chunks, resumption, validation of the whole file, and ownership."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.server.jobs.uploads import INPUT_MESH_FILE, Uploads
from dreamwright.backend.server.policy import Policy
from dreamwright.shared import limits
from dreamwright.shared.arrays import encode_array
from dreamwright.shared.codec import pack
from dreamwright.shared.errors import RequestError
from dreamwright.shared.mesh_file import FORMAT, MeshFile, encode_mesh
from dreamwright.shared.messages import (
    SubmitJob,
    UploadChunk,
    UploadProgress,
)
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.fake_props import ball, texture_of
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.uploaded_meshes import (
    BALL,
    MESH,
    pieces,
    sent_ball,
    sha256,
    submit_refinement,
    upload,
    uploaded_files,
)

# --- pieces


def test_uploaded_mesh_can_be_submitted(in_memory_server: InMemoryServer) -> None:
    assert upload(in_memory_server) == len(BALL) and uploaded_files(in_memory_server) == [f"{MESH}.dwm"]
    job = submit_refinement(in_memory_server, settings={"refine.strength": 0.25, "run.steps": 7})
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
        offered = uploads.receive("ada", UploadChunk(sha256(data), len(data), offset, piece)).offset
        have = max(have, offset + len(piece)) if offset <= have else have
        assert offered == have
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
    assert uploaded_files(in_memory_server) == [f"{MESH}.dwm"]
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
    assert uploaded_files(in_memory_server) == []
    assert upload(in_memory_server) == len(BALL)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x" * 5000, "not a mesh that can be refined"),
        (encode_mesh(replace(sent_ball(), faces=np.zeros((0, 3), np.int32))), "0 triangles; allowed are"),
        (
            encode_mesh(replace(sent_ball(), vertices=np.ones_like(sent_ball().vertices))),
            "all of the mesh's vertices are at one place",
        ),
        (encode_mesh(replace(sent_ball(), vertices=np.full_like(sent_ball().vertices, np.nan))), "not finite"),
        (encode_mesh(replace(sent_ball(), faces=sent_ball().faces + 9)), "a face names vertex"),
        (encode_mesh(replace(ball(4), texture=texture_of(ball(4), 64))), "has a texture; allowed are vertex colors"),
    ],
    ids=["noise", "no faces", "no size", "NaN", "faces of nothing", "textured"],
)
def test_invalid_uploads_are_refused_and_removed(in_memory_server: InMemoryServer, data: bytes, words: str) -> None:
    *before, last = pieces(data, 4000)
    for piece in before:
        in_memory_server.request(piece)
    refused = in_memory_server.refusal(last)
    assert refused.code == "bad-input" and words in refused.message and "; " in refused.message
    assert uploaded_files(in_memory_server) == []
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
    started = time.process_time()
    assert in_memory_server.request(last) == UploadProgress(len(data))
    print(
        f"last chunk of the largest mesh, {len(data)} bytes, took {time.process_time() - started:.3f} s of the server"
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
    assert uploaded_files(in_memory_server) == [f"{MESH}.dwm"]


# --- whose it is, and how much may lie there


def test_uploads_of_other_users_are_unknown(
    in_memory_server: InMemoryServer,
) -> None:
    upload(in_memory_server)
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
            SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=MESH), "admin", True
        ).code
        == "not-ready"
    ), "nor an admin's"
    assert in_memory_server.request(UploadChunk(MESH, len(BALL), 0, b""), "bert") == UploadProgress(0), (
        "the answer does not reveal whether it exists"
    )
    assert not in_memory_server.store.records and not (in_memory_server.folder / "jobs").exists()


def test_each_user_of_an_encrypted_server_uploads_their_own(encrypted_server: EncryptedServer) -> None:
    anna, bert = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("bert")
    for piece in pieces(BALL):
        assert encrypted_server.request(anna, piece).offset > 0
    for client, ready in ((bert, False), (anna, True)):
        reply = encrypted_server.request(
            client, SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=MESH)
        )
        assert (
            (reply.code == "not-ready") is not ready
            if isinstance(reply, RequestError)
            else ready and reply.job.mesh == MESH
        )
