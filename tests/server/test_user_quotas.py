# SPDX-License-Identifier: GPL-3.0-or-later
"""What one user can use of a shared server: ended jobs, disk, uploads. One user never costs another a result."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.server.jobs.retention import DAY_S, RetainedJob, expired
from dreamwright.backend.server.policy import GIGABYTE, Policy
from dreamwright.backend.server.transport.authorized_keys import LOCAL
from dreamwright.backend.server.workers.dispatcher import CLEANUP_INTERVAL_S
from dreamwright.shared.messages import CancelJob, PinJob, UploadChunk
from tests.testing.in_memory_server import InMemoryServer

RETAINED = st.lists(
    st.builds(
        RetainedJob,
        st.uuids().map(str),
        st.floats(0, 30 * DAY_S),
        st.integers(0, GIGABYTE),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["ada", "bert", LOCAL]),
    ),
    max_size=20,
)
SMALL = Policy(keep_days=100, keep_gb=1000.0, keep_gb_per_user=1.5, ended_per_user=4)


@given(RETAINED)
def test_limits_of_a_user_hold_for_each_user_alone(retained: list[RetainedJob]) -> None:
    gone = set(expired(retained, SMALL))
    for owner in ("ada", "bert"):
        own = [job for job in retained if job.owner == owner]
        assert {job.job for job in own} & gone == set(expired(own, SMALL)), "whatever others have"
        left = [job for job in own if job.job not in gone and not job.pinned]
        pinned = sum(job.size for job in own if job.pinned)
        assert len(left) <= SMALL.ended_per_user
        assert sum(job.size for job in left) <= max(0.0, SMALL.keep_gb_per_user * GIGABYTE - pinned)
    assert not gone & {job.job for job in retained if job.owner == LOCAL or job.pinned}


def test_jobs_cancelled_in_a_loop_push_out_their_users_oldest_alone(tmp_path: Path) -> None:
    server = InMemoryServer(tmp_path / "state", devices=(), policy=Policy(ended_per_user=5))
    kept = server.submit("bert")
    server.request(CancelJob(kept), "bert")
    own = []
    for _ in range(12):
        own.append(server.submit())
        server.request(CancelJob(own[-1]))
        server.now += 1
    assert set(server.store.records) == {kept, *own[-6:]}, "the sixth goes with the next submission"
    everybody = InMemoryServer(tmp_path / "local", devices=(), policy=Policy(ended_per_user=5))
    for _ in range(8):
        everybody.request(CancelJob(everybody.submit(LOCAL)), LOCAL)
    assert len(everybody.store.records) == 8


def test_results_of_a_user_fill_no_more_than_that_users_share(tmp_path: Path) -> None:
    server = InMemoryServer(tmp_path / "state", policy=Policy(keep_gb_per_user=0.001))
    jobs = []
    for owner in ("bert", "ada", "ada", "ada"):
        jobs.append(server.submit(owner))
        server.step()
        server.finish(jobs[-1], b"m" * 400_000)
    server.step(CLEANUP_INTERVAL_S + 1)
    assert set(server.store.records) == {jobs[0], *jobs[2:]}


def test_pins_of_a_user_are_limited_in_bytes(tmp_path: Path) -> None:
    server = InMemoryServer(tmp_path / "state", policy=Policy(keep_gb_per_user=0.001))
    jobs = []
    for owner in ("ada", "ada", LOCAL):
        jobs.append(server.submit(owner))
        server.step()
        server.finish(jobs[-1], b"m" * 700_000)
    server.request(PinJob(jobs[0], True))
    server.request(PinJob(jobs[0], True))
    refused = server.refusal(PinJob(jobs[1], True))
    assert refused.code == "too-many"
    assert "use 0.7 MB and this one 0.7 MB; allowed are 1 MB a user; unpin or delete one first" in refused.message
    server.request(PinJob(jobs[0], False))
    server.request(PinJob(jobs[1], True))
    server.request(PinJob(jobs[2], True), LOCAL)


def test_parts_of_many_uploads_are_limited_in_number(tmp_path: Path) -> None:
    """Two bytes are announced and one is sent: the size alone would allow millions of such files."""
    server = InMemoryServer(tmp_path / "state", policy=Policy(uploads_per_user=8))
    for number in range(40):
        sha256 = hashlib.sha256(str(number).encode()).hexdigest()
        server.request(UploadChunk(sha256, 2, 0, b"x"))
        server.now += 1
    server.request(UploadChunk("0" * 64, 2, 0, b"x"), "bert")
    files = [path.name for path in (tmp_path / "state" / "uploads").rglob("*.part")]
    assert len(files) == 9 and f"{sha256}.2.part" in files
