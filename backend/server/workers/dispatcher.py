# SPDX-License-Identifier: GPL-3.0-or-later
"""Assigns queued jobs to devices, handles the workers' reports, and decides what becomes of each attempt.

A full disk stops nothing: the job waits with a message, and the write is tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.failure_causes import FailureCause
from dreamwright.shared.job_states import ENDED, JobState

from ...training.checkpoints import has_checkpoint
from ..jobs.cleanup import Cleanup
from ..jobs.durations import duration_key
from ..jobs.eta import EtaEstimates
from ..jobs.job_record import JobRecord, log_context
from ..jobs.job_store import JobStore, StorageError
from ..monitoring.counters import Counters
from ..policy import Policy
from ..transport.event_publisher import EventPublisher
from .attempt_results import less_memory, mesh_fields
from .attempt_tracker import AttemptTracker
from .drained_devices import DrainedDevices
from .failure_policy import decide
from .fencing import raise_fence
from .runner import Runner, WorkerExited
from .watched_jobs import WatchedJobs
from .worker_protocol import (
    JobFinished,
    LiveMeshReport,
    PreviewReport,
    ProgressReport,
    Report,
    StatusReport,
    run_job_order,
)

log = logging.getLogger(__name__)

ASSIGNED_AT_ONCE, ASSIGN_S = 4, 0.05  # attempts that one step begins in any case, and time for more
RETRY_S = 2.0  # before a write that the disk refused is tried again
CLEANUP_INTERVAL_S = 60.0  # between two searches for expired jobs
STOPPED = "the server was stopped; the job continues from its checkpoint"
RUNNING_STATES = (JobState.RUNNING, JobState.CANCELLING)


class Dispatcher:
    """The state machine of all jobs. Call `recover` once at the start, then `step` often."""

    def __init__(
        self,
        store: JobStore,
        publisher: EventPublisher,
        counters: Counters,
        runner: Runner,
        cleanup: Cleanup,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._publisher, self._counters, self._runner = store, publisher, counters, runner
        self._cleanup, self._policy, self._clock = cleanup, policy, clock
        self._attempts = AttemptTracker(policy, clock)
        self._watched = WatchedJobs(store, publisher.live_meshes, runner)
        self.drained = DrainedDevices(store.folder)
        self.eta = EtaEstimates(store, lambda: [name for name in runner.devices if name not in self.drained], clock)
        self._pausing: set[str] = set()  # running jobs that a user paused; a shutdown must not queue them again
        self._stopping = False
        self._unwritten: list[JobFinished | WorkerExited] = []  # refused by the disk; their jobs still count as running
        self._retry_at = self._cleanup_at = clock()

    def step(self) -> None:
        """Handle reports, kill workers that hang, assign jobs, and publish what is due."""
        now = self._clock()
        if now >= self._retry_at:
            again, self._unwritten = self._unwritten, []
            for unwritten in again:
                self.handle_report(unwritten)
        for report in self._runner.reports():
            self.handle_report(report)
        finished = {report.job for report in self._unwritten}
        for job in self._attempts.overdue(self._store.records, self._runner.devices, finished):
            self._runner.kill(job)
        if now >= self._retry_at and not self._stopping:
            self._assign()
        self.eta.step()
        if now >= self._cleanup_at:
            self._cleanup_at = now + CLEANUP_INTERVAL_S
            self._cleanup.remove_expired()
            self._attempts.keep_only(self._store.records)
        self._watched.step()
        self._store.renumber_when_due()
        self._publisher.flush()

    def recover(self) -> None:
        """After a start: reattach the attempts that still run, queue the others again, remove orphaned folders."""
        running = {job: record for job, record in self._store.records.items() if record.state in RUNNING_STATES}
        reattached = self._runner.reattach({job: record.summary.attempt for job, record in running.items()})
        for job, record in list(self._store.records.items()):
            if job in reattached:
                self._attempts.reattach(record)
                if record.state is JobState.CANCELLING:
                    self._runner.stop(job, "cancel")  # it may not have received the first one
            elif record.state is JobState.RUNNING:
                self._transition(
                    job, JobState.QUEUED, message="the server was restarted; the job continues from its checkpoint"
                )
            elif record.state is JobState.CANCELLING:
                message = "the server was restarted while the job was being cancelled; there is no mesh"
                self._transition(job, JobState.CANCELLED, message=message)
            self._cleanup.remove_attempt_files(job)
        self._cleanup.remove_orphans()

    def use_policy(self, policy: Policy) -> None:
        """Follow these limits from now on."""
        self._policy = policy
        self._attempts.use_policy(policy)

    # --- commands of users; all raise StorageError

    def cancel(self, job: str) -> None:
        """Cancel a job; a running one makes a mesh of what there is. An ended job stays as it is."""
        state = self._store.records[job].state
        if state in (JobState.QUEUED, JobState.PAUSED):
            message = "cancelled while it waited; there is no mesh"
            self._transition(job, JobState.CANCELLED, message=message, cause="")
            self._cleanup.remove_attempt_files(job)
        elif state is JobState.RUNNING:
            self._transition(job, JobState.CANCELLING, message="stopping; what there is becomes a mesh")
            self._runner.stop(job, "cancel")

    def pause(self, job: str) -> None:
        """Pause a queued or running job."""
        record = self._store.records[job]
        if record.state is JobState.QUEUED:
            self._transition(job, JobState.PAUSED)
        elif record.state is JobState.RUNNING:
            record = self._store.update_in_memory(job, message="pausing after this step")
            self._pausing.add(job)
            self._runner.stop(job, "pause")
            self._publisher.publish_job(record)

    def resume(self, job: str) -> None:
        """Queue a paused job again, or a failed one that left a checkpoint."""
        self._transition(job, JobState.QUEUED, 0, message="", cause="", resumable=False)
        self._attempts.forget(job)

    def can_resume(self, record: JobRecord) -> bool:
        """Whether a failed job still has a checkpoint."""
        return record.summary.resumable and self._has_checkpoint(record.job)

    def stop_all(self) -> None:
        """The server is about to end: assign nothing more, and pause the jobs that would end with it."""
        self._stopping = True
        if self._runner.survives_server:
            return
        for job, record in self._store.records.items():
            if record.state is JobState.RUNNING:
                self._runner.stop(job, "pause")

    def running_jobs(self) -> list[str]:
        """Jobs that would lose work if the server ended now."""
        if self._stopping and self._runner.survives_server:
            return []
        return [job for job, record in self._store.records.items() if record.state in RUNNING_STATES]

    def step_rate(self, job: str) -> tuple[float, float]:
        """(steps per second, seconds since the last step report) of a running job; (0, -1) before the first report."""
        return self._attempts.step_rate(job)

    # --- assignment

    def _assign(self) -> None:
        end, begun = time.perf_counter() + ASSIGN_S, 0
        for device in self._runner.idle_devices() if self._store.queued else []:
            if device in self.drained:
                continue
            if begun >= ASSIGNED_AT_ONCE and time.perf_counter() > end:
                return  # the rest in the next step: each is written to the disk, for which requests wait
            begun += 1
            record = self._store.next_waiting()
            if record is None:
                return
            job, folder = record.job, self._store.job_folder(record.job)
            try:
                raise_fence(folder, record.summary.attempt + 1)
                record = self._transition(job, JobState.RUNNING, message="starting", device=device)
            except (OSError, StorageError) as error:
                self._wait_for_space(job, error)
                return
            self._attempts.begin(job)
            self._pausing.discard(job)
            self._watched.begin(job)
            log.info("attempt begins", extra=log_context(record))
            self._runner.assign(device, run_job_order(record.summary, folder))

    def _wait_for_space(self, job: str, error: OSError | StorageError) -> None:
        """The disk refused a write: say so on the job, and try again later."""
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"the server cannot write to {self._store.folder} ({error.strerror}); make room on its disk"
        log.warning("job waits", extra={"job": job, "why": reason})
        self._retry_at = self._clock() + RETRY_S
        message = f"waiting: {reason}; the job then continues by itself"
        self._store.update_in_memory(job, message=message[: limits.MESSAGE_CHARACTERS])

    # --- reports

    def handle_report(self, report: Report | WorkerExited) -> None:
        """Apply one report of a worker; reports of any attempt but the newest are ignored."""
        record = self._store.records.get(report.job)
        if isinstance(report, WorkerExited):
            self._counters.worker_deaths += 1
            context = {} if record is None else log_context(record)
            reason = report.reason or f"status {report.status}"
            log.warning("worker exited", extra={"status": report.status, "why": reason, **context})
            if record is not None and report.attempt not in (0, record.summary.attempt):
                return
        elif record is not None and report.attempt != record.summary.attempt:
            log.warning(
                "report of another attempt ignored",
                extra={"job": report.job, "attempt": report.attempt, "newest": record.summary.attempt},
            )
            return
        if record is None or record.state in ENDED:
            return  # it arrived after the end
        if isinstance(report, ProgressReport):
            self._on_progress(record, report)
        elif isinstance(report, StatusReport):
            self._on_status(record, report)
        elif isinstance(report, PreviewReport):
            self._publisher.previews.publish(report.frame)
            self._store.update_in_memory(report.job, preview_step=report.frame.step)
        elif isinstance(report, LiveMeshReport):
            self._publisher.live_meshes.publish(report.frame)
        else:
            try:
                if isinstance(report, JobFinished):
                    self._on_finished(record, report)
                else:
                    self._on_worker_exit(record, report)
            except StorageError as error:
                self._unwritten.append(report)
                self._wait_for_space(report.job, error)

    def _on_progress(self, record: JobRecord, report: ProgressReport) -> None:
        self._store.update_in_memory(
            report.job, step=report.step, steps=report.steps, elapsed_s=report.elapsed_s, eta_s=report.eta_s
        )
        steps, seconds = self._attempts.record_progress(report)
        if steps:
            self._counters.record_steps(record.summary.device, steps, seconds)

    def _on_status(self, record: JobRecord, report: StatusReport) -> None:
        self._attempts.record_status(report)
        health = report.health or record.summary.health
        message = record.summary.message if report.health else report.message
        self._store.update_in_memory(report.job, health=health, message=message)

    def _on_finished(self, record: JobRecord, report: JobFinished) -> None:
        job, how, cause = report.job, report.how, FailureCause(report.cause)
        fields: dict[str, Any] = {"message": report.message, "eta_s": -1.0, "cause": cause.value}
        if report.meshed:
            try:
                fields |= mesh_fields(self._store.job_folder(job), report)
            except OSError as error:
                how, cause = "failed", FailureCause.NO_SPACE
                fields |= {"message": f"its mesh cannot be read: {error.strerror}", "cause": cause.value}
        if record.state is JobState.CANCELLING:  # also when it finished or failed before it saw the cancellation
            self._transition(job, JobState.CANCELLED, **fields)
        elif how == "failed":
            self._on_failure(record, cause, str(fields["message"]))
        elif how == "paused" and self._stopping and job not in self._pausing:
            self._transition(job, JobState.QUEUED, **fields | {"message": STOPPED})
        elif how == "paused":
            self._transition(job, JobState.PAUSED, **fields)
        elif how == "cancelled":  # by a server that was restarted since
            self._transition(job, JobState.CANCELLING)
            self._transition(job, JobState.CANCELLED, **fields)
        else:
            self._transition(job, JobState(how), **fields)
        record = self._store.records[job]
        log.info("attempt ended", extra=log_context(record, state=record.summary.state, step=record.summary.step))
        self._record_duration(record)
        self._cleanup.remove_attempt_files(job)

    def _on_worker_exit(self, record: JobRecord, exited: WorkerExited) -> None:
        """Handle a worker that exited without reporting a result."""
        cancelled = record.state is JobState.CANCELLING
        cause, reason = self._attempts.exit_cause(exited, cancelled)
        if cancelled:
            message = f"{reason}; there is no mesh"
            self._transition(exited.job, JobState.CANCELLED, message=message, cause=cause.value)
        elif record.state is JobState.RUNNING:
            self._on_failure(record, cause, reason)
        self._attempts.end(exited.job)
        self._cleanup.remove_attempt_files(exited.job)

    def _on_failure(self, record: JobRecord, cause: FailureCause, reason: str) -> None:
        """An attempt failed: queue the job again, with less memory if that was the cause, or fail it."""
        job = record.summary
        reached, made_progress = self._attempts.progress(record)
        attempts = 1 if made_progress else record.attempts + 1
        reduced: dict[str, str] = {}
        if cause in (FailureCause.MEMORY, FailureCause.MACHINE_MEMORY):
            reduced = less_memory(record)
        logs = str(self._store.folder / "logs")
        decision = decide(cause, reason, attempts, self._policy.max_worker_failures, reduced, logs)
        fields: dict[str, Any] = {
            "message": decision.message[: limits.MESSAGE_CHARACTERS],
            "cause": cause.value,
            "eta_s": -1.0,
        }
        if decision.retry:
            settings = {**job.settings, **decision.settings}
            self._transition(job.job, JobState.QUEUED, decision.attempts, settings=settings, **fields)
        else:
            resumable = self._has_checkpoint(job.job)
            self._transition(job.job, JobState.FAILED, decision.attempts, resumable=resumable, **fields)
        self._attempts.remember(job.job, reached)  # after the commit, which is repeated when the disk refuses it
        log.info("attempt failed", extra=log_context(record, cause=cause.value, step=reached, again=decision.retry))

    def _record_duration(self, record: JobRecord) -> None:
        """Keep how long a whole run took, for the estimates of other jobs."""
        heartbeat = self._attempts.end(record.job)
        if heartbeat is None or heartbeat.first is None or record.state is not JobState.SUCCEEDED:
            return
        steps, stepping_s = heartbeat.last[0] - heartbeat.first[0], heartbeat.last[1] - heartbeat.first[1]
        rest_s = self._clock() - heartbeat.started - heartbeat.last[1]
        try:
            key = duration_key(record.summary)
            self._store.record_duration(key, record.summary.device, steps, stepping_s, rest_s)
        except StorageError as error:  # one sample less
            log.warning("duration not recorded", extra={"job": record.job, "why": str(error)})

    def _has_checkpoint(self, job: str) -> bool:
        return has_checkpoint(self._store.job_folder(job) / "checkpoints")

    def _transition(self, job: str, state: JobState, attempts: int | None = None, **fields: Any) -> JobRecord:
        record = self._store.transition(job, state, attempts, **fields)
        if state in ENDED:
            self._counters.ended[state.value] += 1
        return record
