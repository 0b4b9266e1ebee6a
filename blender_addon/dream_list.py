# SPDX-License-Identifier: GPL-3.0-or-later
"""A list of props, each an ordinary job on the server: what is sent, what is there, what failed. Does not import bpy.

A row's ticket follows from its request, and the server answers a ticket that it knows with the job that it has: a list
that is started again, in another Blender session too, continues and makes nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .session import Session
from .shared.job_states import ENDED, JobState
from .shared.messages import JobSummary, SubmitJob
from .shared.prompt_list import PromptRow
from .wording import say

MOST_OPEN = 20  # jobs of a list that the server has at a time; others of its users wait for fewer
MOST_DOWNLOADS, MOST_TRIES = 2, 3
WAIT_S = 5.0  # before a row is sent again that the server had no room for
NO_ROOM = ("too-many", "queue-full", "not-now")  # codes of refusals that pass
WAITING, SENT, LOADING, DONE, FAILED = "waiting", "sent", "loading", "done", "failed"  # states of a row


@dataclass
class ListedProp:
    """A row, its request without a ticket, and what has become of it."""

    row: PromptRow
    request: SubmitJob
    state: str = WAITING
    reason: str = ""  # why it failed
    attempt: int = 1  # a new one makes another job of the same request
    ticket: str = ""  # of the attempt that was sent
    job: str = ""
    was_open: bool = False  # whether the job had not ended when the server named it
    tries: int = 0  # downloads of its mesh
    has_arrived: bool = False  # its mesh waits for its import


def ticket_of(request: SubmitJob, attempt: int) -> str:
    """The same text for the same request: the first 48 digits of a SHA-256, with the attempt."""
    decisive = [request.prompt, request.negative, request.model, request.preset, request.seed]
    digest = hashlib.sha256(json.dumps([*decisive, sorted(request.settings.items())]).encode()).hexdigest()
    return f"list-{digest[:48]}-{attempt}"


def listed_props(
    rows: Sequence[PromptRow], negative: str, model: str, preset: str, settings: dict[str, Any]
) -> list[ListedProp]:
    """The rows with their requests; a row's own preset goes before `preset`."""
    return [
        ListedProp(row, SubmitJob("", row.prompt, negative, model, row.preset or preset, row.seed, dict(settings)))
        for row in rows
    ]


class DreamList:
    """The list under way. Call `step` in every tick of the session.

    `is_here`: whether the prop of a job is in the file already. `retry`: whether a job that has failed or was cancelled
    before is made again. `place`: where its props go, as `Session.here` names it.
    """

    def __init__(
        self,
        name: str,
        props: Sequence[ListedProp],
        is_here: Callable[[str], bool],
        retry: bool = False,
        clock: Callable[[], float] = time.monotonic,
        place: Any = None,
    ) -> None:
        self.name, self.props, self.place = name, tuple(props), place
        self._is_here, self._retry, self._clock = is_here, retry, clock
        self._send_after = 0.0
        self._stopping = False

    @property
    def is_done(self) -> bool:
        """Whether every row has its prop or has failed."""
        return all(prop.state in (DONE, FAILED) for prop in self.props)

    @property
    def failures(self) -> list[ListedProp]:
        """The rows without a prop."""
        return [prop for prop in self.props if prop.state == FAILED]

    @property
    def done(self) -> int:
        """How many props are in the file."""
        return sum(prop.state == DONE for prop in self.props)

    def summary(self) -> str:
        """How far it is, in words."""
        failed = len(self.failures)
        return say("{done} of {count} props", done=self.done, count=len(self.props)) + (
            say(", {failed} failed", failed=failed) if failed else ""
        )

    def share(self, session: Session) -> float:
        """The part of all steps that is done, in [0, 1]."""
        total = 0.0
        for prop in self.props:
            job = session.jobs.get(prop.job)
            if prop.state in (DONE, FAILED):
                total += 1.0
            elif job is not None and job.steps:
                total += min(1.0, job.step / job.steps)
        return total / len(self.props)

    def find(self, job: str) -> ListedProp | None:
        """The row of a job."""
        return next((prop for prop in self.props if job and prop.job == job), None)

    def owns(self, session: Session, job: str) -> bool:
        """Whether a job belongs to the list; also one that the server has just named."""
        return any(job in (prop.job, session.submitted_jobs.get(prop.ticket, "")) for prop in self.props if prop.ticket)

    def step(self, session: Session) -> None:
        """Take the server's answers, start downloads, and send what there is room for."""
        for prop in self.props:
            if prop.state == SENT and not prop.job:
                self._take_answer(session, prop)
            if prop.state == SENT and prop.job and self._stopping:
                self._pause(session, prop)
            elif prop.state == SENT and prop.job:
                self._follow(session, prop)
            elif prop.state == LOADING and not prop.has_arrived and prop.job not in session.downloads:
                self._load_again(prop)
        if session.is_online and not self._stopping and self._clock() >= self._send_after:
            self._send_next(session)

    def fail(self, prop: ListedProp, reason: str) -> None:
        """A row will have no prop."""
        prop.state, prop.reason = FAILED, " ".join(reason.split())

    def stop(self) -> None:
        """Send nothing more, and pause the jobs that have not ended; the list can be started again."""
        self._stopping = True

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped, and no answer or mesh is awaited any more."""
        return self._stopping and not any(prop.state in (SENT, LOADING) for prop in self.props)

    def _pause(self, session: Session, prop: ListedProp) -> None:
        """Pause the job of a row of a stopped list, now that the server has named it."""
        job = session.jobs.get(prop.job)
        if job is not None and job.state in (JobState.QUEUED.value, JobState.RUNNING.value):
            session.pause(job.job)
        prop.state = WAITING

    def _send_next(self, session: Session) -> None:
        open_rows = sum(prop.state == SENT for prop in self.props)
        for prop in [prop for prop in self.props if prop.state == WAITING][: max(0, MOST_OPEN - open_rows)]:
            prop.ticket, prop.job, prop.state = ticket_of(prop.request, prop.attempt), "", SENT
            session.submitted_jobs.pop(prop.ticket, None)  # of an earlier start: the job may be gone since
            session.submissions.add(
                session.address if session.is_open else "", replace(prop.request, ticket=prop.ticket)
            )

    def _take_answer(self, session: Session, prop: ListedProp) -> None:
        """The job that the server named for a row, or its refusal."""
        refusal = session.submissions.refused.pop(prop.ticket, None)
        prop.job = session.submitted_jobs.get(prop.ticket, "")
        if prop.job:
            job = session.jobs.get(prop.job)
            prop.was_open = job is not None and JobState(job.state) not in ENDED
            if job is not None and job.state == JobState.PAUSED.value and not self._stopping:
                session.resume(prop.job)  # as an earlier stop left it
        elif refusal is not None and refusal.code in NO_ROOM:
            prop.state, self._send_after = WAITING, self._clock() + WAIT_S
        elif refusal is not None:
            self.fail(prop, str(refusal))
        elif prop.ticket not in session.pending:
            self.fail(prop, say("its submission was cancelled"))

    def _follow(self, session: Session, prop: ListedProp) -> None:
        """Act on the state of a row's job."""
        job = session.jobs.get(prop.job)
        if job is None:
            if session.is_online:
                self.fail(prop, say("its job was deleted on the server"))
        elif job.state == JobState.SUCCEEDED.value:
            self._deliver(session, prop, job)
        elif JobState(job.state) in ENDED:
            if self._retry and not prop.was_open:
                prop.attempt, prop.state = prop.attempt + 1, WAITING
            else:
                self.fail(prop, job.message or say("its job has {state}", state=say(job.state)))

    def _deliver(self, session: Session, prop: ListedProp, job: JobSummary) -> None:
        if self._is_here(job.job):
            prop.state = DONE
        elif session.is_online and sum(one.state == LOADING for one in self.props) < MOST_DOWNLOADS:
            prop.state, prop.tries = LOADING, prop.tries + 1
            session.download_mesh(job.job, is_automatic=True, place=self.place)

    def _load_again(self, prop: ListedProp) -> None:
        """A download has ended without a mesh: the connection was closed, or the file is damaged."""
        if prop.tries < MOST_TRIES:
            prop.state = SENT
        else:
            self.fail(prop, say("its mesh could not be downloaded; import it from the list of jobs"))
