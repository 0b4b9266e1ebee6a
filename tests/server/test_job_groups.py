# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups of jobs: kept with the jobs, cancelled and discarded at once, also across restarts; and kept previews."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import pytest

from dreamwright.backend.server.jobs.groups import RETRY_S
from dreamwright.backend.server.jobs.preview_file import PREVIEW_FILE, read_preview, write_preview
from dreamwright.backend.server.workers.worker_protocol import JobFinished, PreviewReport
from dreamwright.shared.limits import VARIATIONS_LARGEST
from dreamwright.shared.messages import (
    CancelGroup,
    DeleteJob,
    DiscardGroup,
    GetPreview,
    JobDeleted,
    ListJobs,
    PinJob,
    PreviewFrame,
    SubmitJob,
    Subscribe,
)
from tests.testing.in_memory_server import InMemoryServer

GROUP = "0123456789abcdef0123456789abcdef"


def submit_group(server: InMemoryServer, count: int = 3, group: str = GROUP, owner: str = "ada") -> list[str]:
    return [server.submit(owner, seed=place, group=group, group_index=place) for place in range(count)]


def states(server: InMemoryServer, jobs: list[str]) -> list[str]:
    return [server.job(job).state if job in server.store.records else "deleted" for job in jobs]


def frame(job: str, step: int = 7) -> PreviewFrame:
    return PreviewFrame(job, step, 2, 1, zlib.compress(bytes((1, 2, 3, 4, 5, 6))))


def show(server: InMemoryServer, job: str, step: int = 7) -> None:
    """The worker of a job reports a preview."""
    server.runner.queued.append(PreviewReport(frame(job, step), server.job(job).attempt))
    server.step()


# --- the label


def test_group_and_place_are_kept_by_the_server(in_memory_server: InMemoryServer) -> None:
    jobs = submit_group(in_memory_server)
    alone = in_memory_server.submit()
    in_memory_server.kill()
    in_memory_server.open()
    listed = {job.job: (job.group, job.group_index) for job in in_memory_server.request(ListJobs()).jobs}
    assert listed == {job: (GROUP, place) for place, job in enumerate(jobs)} | {alone: ("", 0)}


def test_rows_of_a_server_without_groups_are_read(in_memory_server: InMemoryServer) -> None:
    """The fields are additional: an older server's state folder stays usable."""
    job = in_memory_server.submit()
    in_memory_server.kill()
    with sqlite3.connect(in_memory_server.folder / "jobs.sqlite3") as database:
        names = ("group", "group_index", "discarded", "preview_step")
        removed = ", ".join(f"'$.{name}'" for name in names)
        database.execute(f"UPDATE jobs SET summary = json_remove(summary, {removed})")
    in_memory_server.open()
    found = in_memory_server.job(job)
    assert (found.group, found.group_index, found.discarded, found.preview_step) == ("", 0, False, 0)


def test_a_place_is_taken_once_and_needs_a_group(in_memory_server: InMemoryServer) -> None:
    first, *_ = submit_group(in_memory_server, 1)
    request = SubmitJob("other", "a red mushroom", "", "starter", "draft", 0, {}, group=GROUP)
    refused = in_memory_server.refusal(request)
    assert refused.code == "bad-input" and f"place 0 of group {GROUP} is that of job {first}" in refused.message
    assert in_memory_server.request(request, "bob").job.group == GROUP, "another user's group of that name is another"
    refused = in_memory_server.refusal(SubmitJob("t", "a red mushroom", "", "starter", "draft", 0, {}, group_index=2))
    assert refused.code == "bad-input" and "without a group" in refused.message
    repeated = SubmitJob("t1", "a red mushroom", "", "starter", "draft", 0, {}, group=GROUP)
    assert in_memory_server.request(repeated).job.job == first, "the same ticket is the same job"


def test_the_largest_group_fits_into_a_users_quota(in_memory_server: InMemoryServer) -> None:
    assert len(set(submit_group(in_memory_server, VARIATIONS_LARGEST))) == VARIATIONS_LARGEST
    assert in_memory_server.policy.jobs_per_user >= 2 * VARIATIONS_LARGEST


# --- cancel


def test_cancel_stops_every_job_that_has_not_ended(in_memory_server: InMemoryServer) -> None:
    jobs = submit_group(in_memory_server)
    other = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.finish(jobs[0])
    in_memory_server.step()
    reply = in_memory_server.request(CancelGroup(GROUP))
    assert [job.job for job in reply.jobs] == jobs, "by their place"
    assert states(in_memory_server, [*jobs, other]) == ["succeeded", "cancelling", "cancelled", "queued"]
    assert in_memory_server.runner.stopped == [(jobs[1], "cancel")]


@pytest.mark.parametrize("make", [CancelGroup, DiscardGroup])
def test_a_group_of_another_user_is_unknown(make: type, in_memory_server: InMemoryServer) -> None:
    jobs = submit_group(in_memory_server)
    for group in (GROUP, "nothing", ""):
        in_memory_server.submit()  # without a group, which "" must not mean
        refused = in_memory_server.refusal(make(group), "bob" if group == GROUP else "ada")
        assert refused.code == "no-such-job" and f"no group {group!r}" in refused.message
    assert states(in_memory_server, jobs) == ["queued"] * 3
    in_memory_server.request(make(GROUP), "root", admin=True)
    assert set(states(in_memory_server, jobs)) <= {"cancelled", "deleted"}


# --- discard


def test_discard_keeps_the_picked_one_and_deletes_the_others(in_memory_server: InMemoryServer) -> None:
    jobs = submit_group(in_memory_server, 4)
    in_memory_server.request(Subscribe())
    in_memory_server.step()
    in_memory_server.finish(jobs[0])
    in_memory_server.step()  # the second one runs
    reply = in_memory_server.request(DiscardGroup(GROUP, jobs[0]))
    assert [job.job for job in reply.jobs] == [jobs[0]]
    assert states(in_memory_server, jobs) == ["succeeded", "cancelling", "deleted", "deleted"]
    assert in_memory_server.job(jobs[1]).discarded, "shown as going until its worker has stopped"
    in_memory_server.report(JobFinished, jobs[1], "cancelled", "", True)
    in_memory_server.step()
    assert states(in_memory_server, jobs) == ["succeeded", "deleted", "deleted", "deleted"]
    assert {path.name for path in (in_memory_server.folder / "jobs").iterdir()} == {jobs[0]}
    gone = {event.job for event in in_memory_server.events[b"ada"] if isinstance(event, JobDeleted)}
    assert gone == set(jobs[1:])
    assert in_memory_server.request(DiscardGroup(GROUP, jobs[0])).jobs == reply.jobs, "twice is once"


def test_discard_of_all_and_of_pinned_ones(in_memory_server: InMemoryServer) -> None:
    jobs = submit_group(in_memory_server)
    in_memory_server.request(PinJob(jobs[1], True))
    assert [job.job for job in in_memory_server.request(DiscardGroup(GROUP)).jobs] == [jobs[1]]
    assert states(in_memory_server, jobs) == ["deleted", "queued", "deleted"]


def test_discard_needs_a_kept_job_of_the_group(in_memory_server: InMemoryServer) -> None:
    jobs, other = submit_group(in_memory_server), in_memory_server.submit()
    refused = in_memory_server.refusal(DiscardGroup(GROUP, other))
    assert refused.code == "no-such-job" and other in refused.message
    assert states(in_memory_server, jobs) == ["queued"] * 3


def test_a_killed_server_goes_on_discarding(in_memory_server: InMemoryServer) -> None:
    jobs = submit_group(in_memory_server, 2)
    in_memory_server.step()
    in_memory_server.request(DiscardGroup(GROUP, jobs[1]))
    assert states(in_memory_server, jobs) == ["cancelling", "queued"]
    in_memory_server.kill()
    in_memory_server.open()
    in_memory_server.step()
    assert states(in_memory_server, jobs) == ["deleted", "running"]


def test_a_full_disk_is_reported_and_the_rest_is_deleted_later(in_memory_server: InMemoryServer) -> None:
    jobs = submit_group(in_memory_server, 2)
    in_memory_server.step()
    in_memory_server.request(DiscardGroup(GROUP, jobs[1]))
    in_memory_server.report(JobFinished, jobs[0], "cancelled", "", True)
    third = in_memory_server.submit(group="other")
    in_memory_server.disk.full = True
    assert in_memory_server.refusal(DiscardGroup("other")).code == "no-space"
    assert states(in_memory_server, [third]) == ["queued"]
    in_memory_server.disk.full = False
    in_memory_server.step(RETRY_S)
    assert states(in_memory_server, jobs)[0] == "deleted"


# --- previews


def test_newest_preview_is_told_and_returned(in_memory_server: InMemoryServer) -> None:
    job = in_memory_server.submit()
    assert in_memory_server.refusal(GetPreview(job)).code == "not-ready"
    in_memory_server.step()
    for step in (3, 7):
        show(in_memory_server, job, step)
    assert in_memory_server.job(job).preview_step == 7
    assert in_memory_server.request(GetPreview(job)).frame == frame(job, 7)
    assert in_memory_server.refusal(GetPreview(job), "bob").code == "no-such-job"


def test_preview_in_the_folder_outlives_the_server(in_memory_server: InMemoryServer) -> None:
    job = in_memory_server.submit()
    in_memory_server.step()
    show(in_memory_server, job)
    write_preview(in_memory_server.store.job_folder(job), frame(job))  # as its worker does at the end
    in_memory_server.finish(job)
    in_memory_server.kill()
    in_memory_server.open()
    assert in_memory_server.job(job).preview_step == 7 and in_memory_server.request(GetPreview(job)).frame == frame(job)
    record = in_memory_server.store.records[job]
    own = (in_memory_server.store.job_folder(job) / PREVIEW_FILE).stat().st_size
    assert in_memory_server.service.cleanup.retained_bytes(record) == record.summary.mesh_bytes + own
    in_memory_server.request(DeleteJob(job))
    assert in_memory_server.refusal(GetPreview(job)).code == "no-such-job"


def test_damaged_preview_file_is_none(tmp_path: Path) -> None:
    assert read_preview(tmp_path) is None
    for data in (b"", b"\xc1", b"\x80"):
        (tmp_path / PREVIEW_FILE).write_bytes(data)
        assert read_preview(tmp_path) is None
    write_preview(tmp_path, frame("j"))
    assert read_preview(tmp_path) == frame("j")
