# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas and expiry of uploads, and jobs that refine an uploaded mesh."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.server.jobs.uploads import INPUT_MESH_FILE, UNDER_WAY_S
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import JobFinished
from dreamwright.shared import limits
from dreamwright.shared.mesh_file import encode_mesh
from dreamwright.shared.messages import (
    CancelJob,
    DeleteJob,
    GetCapabilities,
    ResumeJob,
    SubmitJob,
    UploadChunk,
    UploadProgress,
)
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


def test_user_quota_removes_least_recently_used_uploads(tmp_path: Path) -> None:
    one = len(BALL) / 1e6
    in_memory_server = InMemoryServer(tmp_path / "state", policy=Policy(upload_mb_per_user=2.5 * one))
    meshes = [encode_mesh(sent_ball(2, 0.8, number=number)) for number in range(3)]
    upload(in_memory_server, meshes[0], "bert")
    for number, data in enumerate(meshes):
        in_memory_server.step(10)
        upload(in_memory_server, data)
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
    upload(in_memory_server, owner="anna")
    in_memory_server.request(next(pieces(BALL, 3000)), "bert")  # what is announced counts, not only what has come
    refused = in_memory_server.refusal(next(pieces(BALL, 3000)), "carl")
    assert refused.code == "queue-full" and "try again" in refused.message
    in_memory_server.step(UNDER_WAY_S + 1)
    assert upload(in_memory_server, owner="carl") == len(BALL)
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
    upload(in_memory_server)
    job = submit_refinement(in_memory_server)
    in_memory_server.wall += 1e9  # a clock that jumps removes nothing
    in_memory_server.step(3600 * 23)
    assert uploaded_files(in_memory_server) == [f"{MESH}.dwm"]
    in_memory_server.step(3600 * 25)
    assert (
        uploaded_files(in_memory_server) == []
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
    assert cards["refine.positions"].kind == "switch" and cards["run.steps"].defaults["refine"] == 120


# --- the job


def test_repeated_ticket_works_without_the_upload(in_memory_server: InMemoryServer) -> None:
    upload(in_memory_server)
    job = submit_refinement(in_memory_server, ticket="same")
    shutil.rmtree(in_memory_server.folder / "uploads")
    in_memory_server.kill()
    in_memory_server.open()
    assert submit_refinement(in_memory_server, ticket="same") == job and in_memory_server.job(job).mesh == MESH


def test_crash_between_link_and_store_leaves_no_job(
    in_memory_server: InMemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(in_memory_server)

    def dies(*_: Any) -> None:
        raise SystemExit("killed")

    monkeypatch.setattr(in_memory_server.store, "add", dies)
    with pytest.raises(SystemExit):
        submit_refinement(in_memory_server, ticket="same")
    assert len(list((in_memory_server.folder / "jobs").iterdir())) == 1
    in_memory_server.kill()
    in_memory_server.open()
    assert not list((in_memory_server.folder / "jobs").iterdir()), "a folder without a job is removed at the start"
    assert (
        in_memory_server.store.job_folder(submit_refinement(in_memory_server, ticket="same")) / INPUT_MESH_FILE
    ).read_bytes() == BALL and len(in_memory_server.store.records) == 1


def test_failed_submit_leaves_no_folder(in_memory_server: InMemoryServer) -> None:
    upload(in_memory_server)
    in_memory_server.disk.full = True
    assert (
        in_memory_server.refusal(SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=MESH)).code
        == "no-space"
    )
    assert not list((in_memory_server.folder / "jobs").iterdir()) and not in_memory_server.store.records


def test_input_mesh_is_kept_while_the_job_can_resume(in_memory_server: InMemoryServer) -> None:
    upload(in_memory_server)
    ends = {}
    for how in ("succeeded", "failed", "resumable"):
        job = submit_refinement(in_memory_server)
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
    upload(in_memory_server)
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
