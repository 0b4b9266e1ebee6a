# SPDX-License-Identifier: GPL-3.0-or-later
"""The running attempts as the server sees them: heartbeats, rates, progress between attempts, and causes of exits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

from dreamwright.shared.failure_causes import FailureCause
from dreamwright.shared.job_states import JobState

from ..jobs.job_record import JobRecord, log_context
from ..policy import Policy
from .failure_policy import classify_status
from .heartbeat import STALL_S, Heartbeat, cancel_timeout_s, hang_timeout_s
from .oom import oom_kills
from .runner import WorkerExited
from .worker_protocol import ProgressReport, StatusReport

log = logging.getLogger(__name__)

PROGRESS_SHARE = 0.05  # of all steps, to count as progress: a run of any length fails after about twenty crashes


class AttemptTracker:
    """A heartbeat for each running job, and the furthest step of each job whose worker failed."""

    def __init__(self, policy: Policy, clock: Callable[[], float]) -> None:
        self._policy, self._clock = policy, clock
        self._heartbeats: dict[str, Heartbeat] = {}
        self._furthest: dict[str, int] = {}
        self._checked_at = clock()

    def use_policy(self, policy: Policy) -> None:
        """Follow these limits from now on."""
        self._policy = policy

    def begin(self, job: str) -> None:
        """A new attempt of a job was assigned."""
        self._heartbeats[job] = Heartbeat(self._clock(), oom_kills())

    def reattach(self, record: JobRecord) -> None:
        """An attempt that ran before the server's start continues."""
        last = record.summary.step, record.summary.elapsed_s
        self._heartbeats[record.job] = Heartbeat(self._clock(), oom_kills(), last=last)

    def end(self, job: str) -> Heartbeat | None:
        """An attempt ended. Returns what was known of it."""
        return self._heartbeats.pop(job, None)

    def forget(self, job: str) -> None:
        """Start counting progress from 0 again: a user has resumed the job."""
        self._furthest.pop(job, None)

    def keep_only(self, jobs: Collection[str]) -> None:
        """Forget the progress of all other jobs."""
        self._furthest = {job: step for job, step in self._furthest.items() if job in jobs}

    def record_progress(self, report: ProgressReport) -> tuple[int, float]:
        """Steps since the attempt's last report, and the seconds that they took; (0, 0) if unknown."""
        heartbeat = self._heartbeats.get(report.job)
        if heartbeat is None:
            return 0, 0.0
        return heartbeat.record_step(self._clock(), report.step, report.steps, report.elapsed_s)

    def record_status(self, report: StatusReport) -> None:
        """A heartbeat without a step."""
        heartbeat = self._heartbeats.get(report.job)
        if heartbeat is not None:
            heartbeat.beat(self._clock(), report.stage)

    def step_rate(self, job: str) -> tuple[float, float]:
        """(steps per second, seconds since the last step report) of a running job; (0, -1) before the first report."""
        heartbeat = self._heartbeats.get(job)
        if heartbeat is None or heartbeat.first is None:
            return 0.0, -1.0
        return heartbeat.rate, max(0.0, self._clock() - heartbeat.last_step_at)

    def overdue(
        self, records: Mapping[str, JobRecord], devices: Collection[str], finished: Collection[str]
    ) -> list[str]:
        """Jobs whose worker must be killed, because it hangs or does not stop.

        `finished`: jobs whose end is known but not committed yet. Time in which the server did not check, or a device
        was out of reach, does not count.
        """
        now = self._clock()
        gap_s, self._checked_at = now - self._checked_at, now
        overdue = []
        for job, heartbeat in self._heartbeats.items():
            record = records[job]
            if job in finished:
                continue
            if gap_s > STALL_S or record.summary.device not in devices:
                heartbeat.shift(gap_s, now)
            if record.state is JobState.CANCELLING:
                heartbeat.cancel(now)
            if heartbeat.past_grace(now, self._policy) or heartbeat.is_hung(now, self._policy):
                if heartbeat.kill_cause is FailureCause.NONE:
                    log.warning("worker hangs or does not stop", extra=log_context(record, stage=heartbeat.stage))
                heartbeat.kill_cause = FailureCause.HANG
            if heartbeat.kill_cause is not FailureCause.NONE:
                overdue.append(job)
        return overdue

    def exit_cause(self, exited: WorkerExited, cancelled: bool) -> tuple[FailureCause, str]:
        """(cause, description) of a worker's exit without a result."""
        heartbeat = self._heartbeats.get(exited.job)
        if heartbeat is not None and heartbeat.kill_cause is not FailureCause.NONE:
            stage, slowest_s = heartbeat.stage, heartbeat.slowest_s
            if cancelled:
                limit_s = cancel_timeout_s(stage, slowest_s, self._policy)
                reason = f"it did not stop within {limit_s:.0f} s while {stage}, so its worker was killed"
            else:
                limit_s = hang_timeout_s(stage, slowest_s, self._policy)
                reason = f"its worker sent no heartbeat for {limit_s:.0f} s while {stage} and was killed"
            return heartbeat.kill_cause, reason
        if exited.reason:
            return FailureCause.KILLED, exited.reason
        before, now = None if heartbeat is None else heartbeat.oom_kills, oom_kills()
        return classify_status(exited.status, before is not None and now is not None and now > before)

    def progress(self, record: JobRecord) -> tuple[int, bool]:
        """The furthest step of all attempts, and whether the current one got notably further than those before it."""
        heartbeat = self._heartbeats.get(record.job)
        reached = record.summary.step if heartbeat is None else heartbeat.last[0]
        before = self._furthest.get(record.job, 0)
        return max(reached, before), reached - before >= max(1.0, PROGRESS_SHARE * record.summary.steps)

    def remember(self, job: str, step: int) -> None:
        """Keep the furthest step of a failed attempt."""
        self._furthest[job] = step
