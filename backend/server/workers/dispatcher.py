# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's own work: hand jobs to devices, take in what is reported of them, and settle what becomes of each attempt.

A disk that refuses a write ends nothing: the job waits with a sentence, and what was to be written is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.failure_causes import FailureCause
from dreamwright.shared.job_states import ENDED, JobState

from ...errors import DreamwrightError
from ...scenes.initial_field import FIELD_FILE
from ...training.checkpoints import has_checkpoint
from ..jobs.cleanup import Cleanup
from ..jobs.durations import duration_key
from ..jobs.eta import publish_eta
from ..jobs.job_store import JobRecord, StorageError
from ..policy import Policy
from ..requests import has_vae, job_of
from ..transport.event_publisher import EventPublisher
from .failure_policy import classify_status, decide, reduce_memory_settings
from .fencing import raise_fence
from .heartbeat import STALL_S, Heartbeat, cancel_timeout_s, hang_timeout_s
from .job_executor import MESH_FILE, file_hash
from .oom import oom_kills
from .runner import WorkerExited, Runner
from .worker_protocol import JobFinished, PreviewReport, ProgressReport, Report, StatusReport, run_job_order

log = logging.getLogger(__name__)

UPDATE_ETA_S = 2.0  # between two reckonings of when the queued jobs will be ready
RETRY_S = 2.0  # before a write that the disk refused is tried again
PROGRESS_SHARE = 0.05  # of all steps, to count as getting on: so a run of any length ends after some twenty deaths
SWEEP_S = 60.0  # between two looks at what has been kept long enough
RECALLED = "the server was stopped; it continues from its checkpoint"
FOR_A_MESH = ("model.vae_recompute",)  # what may be lowered of a job that refines a mesh
AT_WORK = (JobState.RUNNING, JobState.CANCELLING)


def log_context(entry: JobRecord, **more: Any) -> dict[str, Any]:
    """What a line of the log says of a job, in every case the same."""
    job = entry.summary
    return {"job": job.job, "user": entry.owner, "attempt": job.attempt, "device": job.device, **more}


class Dispatcher:
    """Call `work` often, and `recover` once at the start."""

    def __init__(self, herald: EventPublisher, runner: Runner, policy: Policy, clock: Callable[[], float]) -> None:
        self._herald, self._ledger, self._runner = herald, herald.ledger, runner
        self._policy, self._clock = policy, clock
        self.sweeper = Cleanup(herald, policy)
        self._vigils: dict[str, Heartbeat] = {}  # by running job
        self._furthest: dict[str, int] = {}  # by job whose worker died, the last step that it told of
        self.pausing: set[str] = (
            set()
        )  # running jobs that a user asked to pause, which a recall must not put back into the queue
        self._recalling = False
        self._unwritten: list[
            JobFinished | WorkerExited
        ] = []  # ends that the disk refused; their jobs count as running until it takes them
        self._retry_at = self._update_eta_at = self._sweep_at = self._looked = clock()

    def work(self) -> None:
        """Take in the workers' reports, hand out jobs, tell subscribers; call it often."""
        now = self._clock()
        if now >= self._retry_at:
            again, self._unwritten = self._unwritten, []
            for report in again:
                self._take(report)
        for report in self._runner.reports():
            self._take(report)
        self._keep_vigil(now)
        if now >= self._retry_at and not self._recalling:
            self._hand_out()
        if now >= self._update_eta_at:
            self.update_eta()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self.sweeper.sweep()
            self._furthest = {job: step for job, step in self._furthest.items() if job in self._ledger.entries}
        self._herald.settle()

    def update_eta(self) -> None:
        """Publish when queued jobs will be ready."""
        self._update_eta_at = self._clock() + UPDATE_ETA_S
        publish_eta(self._ledger, self._herald, self._runner.devices)

    def _hand_out(self) -> None:
        waiting = self._ledger.waiting()
        for device in self._runner.idle_devices() if waiting else []:
            if not waiting:
                return
            entry = waiting.pop(0)
            name = entry.summary.job
            folder = self._ledger.job_folder(name)
            try:
                raise_fence(folder, entry.summary.attempt + 1)
                self._herald.move(name, JobState.RUNNING, message="starting", device=device)
            except (OSError, StorageError) as fault:
                self._wait_for_space(name, fault)
                return
            self._vigils[name] = Heartbeat(self._clock(), oom_kills())
            self.pausing.discard(name)
            log.info("attempt begins", extra=log_context(self._ledger.entries[name]))
            self._runner.assign(device, run_job_order(self._ledger.entries[name].summary, folder))

    def recall(self) -> None:
        """The server is about to end: hand out nothing more, and have what ends with it write a checkpoint and stop."""
        self._recalling = True
        if self._runner.survives_server:
            return
        for job, entry in self._ledger.entries.items():
            if entry.state is JobState.RUNNING:
                self._runner.stop(job, "pause")

    def at_work(self) -> list[str]:
        """Jobs that a worker has in hand, and that would lose something by the server's end."""
        if self._recalling and self._runner.survives_server:
            return []
        return [job for job, entry in self._ledger.entries.items() if entry.state in AT_WORK]

    def pace(self, job: str) -> tuple[float, float]:
        """(steps a second, seconds since the last report) of a running job; (0, -1) before the first."""
        vigil = self._vigils.get(job)
        return (
            (0.0, -1.0)
            if vigil is None or vigil.first is None
            else (vigil.rate, max(0.0, self._clock() - vigil.last_step_at))
        )

    def _keep_vigil(self, now: float) -> None:
        """End workers that say nothing for too long, or do not stop when their job was cancelled."""
        gap, self._looked = now - self._looked, now
        gone = {report.job for report in self._unwritten}
        within_earshot = set(self._runner.devices)
        for job, vigil in self._vigils.items():
            entry = self._ledger.entries[job]
            if job in gone:
                continue
            if gap > STALL_S or entry.summary.device not in within_earshot:
                vigil.shift(gap, now)
            if entry.state is JobState.CANCELLING:
                vigil.cancel(now)
            if vigil.kill_cause is FailureCause.NONE and (
                vigil.past_grace(now, self._policy) or vigil.is_hung(now, self._policy)
            ):
                vigil.kill_cause = FailureCause.HANG
                log.warning(
                    "worker is ended: no sign of life or of stopping", extra=log_context(entry, stage=vigil.stage)
                )
            if vigil.kill_cause is not FailureCause.NONE:
                self._runner.kill(job)

    def _wait_for_space(self, job: str, fault: OSError | StorageError) -> None:
        """The disk refuses: say so on the job, and try again later."""
        reason = (
            str(fault)
            if isinstance(fault, StorageError)
            else f"the server cannot write to {self._ledger.folder} ({fault.strerror}); make room on its disk"
        )
        log.warning("job waits", extra={"job": job, "why": reason})
        self._retry_at = self._clock() + RETRY_S
        self._herald.note(job, message=f"waiting: {reason}; it goes on by itself"[: limits.MESSAGE_CHARACTERS])

    def _take(self, report: Report | WorkerExited) -> None:
        entry = self._ledger.entries.get(report.job)
        if isinstance(report, WorkerExited):
            self._herald.tally.worker_deaths += 1
            reason = report.reason or f"status {report.status}"
            log.warning(
                "worker died",
                extra={"status": report.status, "why": reason, **(log_context(entry) if entry is not None else {})},
            )
            if entry is not None and report.attempt not in (0, entry.summary.attempt):
                return  # the job has gone on without it
        elif entry is not None and report.attempt != entry.summary.attempt:
            log.warning(
                "report of another attempt ignored",
                extra={"job": report.job, "attempt": report.attempt, "newest": entry.summary.attempt},
            )
            return
        if entry is None or entry.state in ENDED:
            return  # a word that arrived after the end
        if isinstance(report, (JobFinished, WorkerExited)):
            try:
                if isinstance(report, JobFinished):
                    self._end(entry, report)
                else:
                    self._bury(entry, report)
            except StorageError as fault:
                self._unwritten.append(report)
                self._wait_for_space(report.job, fault)
        else:
            self._hear(entry, report)

    def _hear(self, entry: JobRecord, report: ProgressReport | StatusReport | PreviewReport) -> None:
        """What an attempt says on its way."""
        vigil = self._vigils.get(report.job)
        if isinstance(report, ProgressReport):
            self._herald.note(
                report.job, step=report.step, steps=report.steps, elapsed_s=report.elapsed_s, eta_s=report.eta_s
            )
            if vigil is not None:
                steps, seconds = vigil.record_step(self._clock(), report.step, report.steps, report.elapsed_s)
                if steps:
                    self._herald.tally.stepped(entry.summary.device, steps, seconds)
        elif isinstance(report, StatusReport):
            if vigil is not None:
                vigil.beat(self._clock(), report.stage)
            health = report.health or entry.summary.health
            message = entry.summary.message if report.health else report.message
            self._herald.note(report.job, health=health, message=message)
        else:
            self._herald.audience.pictured(report.frame)

    def _record_duration(self, entry: JobRecord) -> None:
        """Keep how long a whole run took, for the times of others."""
        vigil = self._vigils.pop(entry.summary.job, None)
        if vigil is None or vigil.first is None or entry.state is not JobState.SUCCEEDED:
            return
        steps, stepping = vigil.last[0] - vigil.first[0], vigil.last[1] - vigil.first[1]
        rest = self._clock() - vigil.started - vigil.last[1]
        try:
            self._ledger.record_duration(duration_key(entry.summary), entry.summary.device, steps, stepping, rest)
        except StorageError as fault:
            log.warning("pace not kept", extra={"job": entry.summary.job, "why": str(fault)})  # an estimate the less

    def _end(self, entry: JobRecord, report: JobFinished) -> None:
        job, fields = report.job, {"message": report.message, "eta_s": -1.0, "cause": report.cause}
        if report.meshed:
            try:
                size, digest = file_hash(self._ledger.job_folder(job) / MESH_FILE)
            except OSError as error:
                reason = f"its mesh cannot be read: {error.strerror}"
                report = JobFinished(job, "failed", reason, False, report.attempt, FailureCause.NO_SPACE.value)
                fields |= {"message": reason, "cause": report.cause}
            else:
                fields |= {
                    "mesh_bytes": size,
                    "mesh_sha256": digest,
                    "has_field": (self._ledger.job_folder(job) / FIELD_FILE).is_file(),
                }
        if entry.state is JobState.CANCELLING:  # also one that finished or failed before it heard of it
            self._herald.move(job, JobState.CANCELLED, **fields)
        elif report.how == "failed":
            self._settle(entry, FailureCause(report.cause), report.message)
        elif report.how == "paused" and self._recalling and job not in self.pausing:
            self._herald.move(job, JobState.QUEUED, **fields | {"message": RECALLED})
        elif report.how == "paused":
            self._herald.move(job, JobState.PAUSED, **fields)
        elif report.how == "cancelled":  # told by a server that has restarted since
            self._herald.move(job, JobState.CANCELLING)
            self._herald.move(job, JobState.CANCELLED, **fields)
        else:
            self._herald.move(job, JobState(report.how), **fields)
        entry = self._ledger.entries[job]
        log.info("attempt ended", extra=log_context(entry, state=entry.summary.state, step=entry.summary.step))
        self._record_duration(entry)
        self.sweeper.clear(job)

    def _bury(self, entry: JobRecord, died: WorkerExited) -> None:
        """A worker ended without a word about its job."""
        vigil = self._vigils.get(died.job)
        kills = oom_kills()
        ran_out = vigil is not None and kills is not None and vigil.oom_kills is not None and kills > vigil.oom_kills
        cause, reason = (FailureCause.KILLED, died.reason) if died.reason else classify_status(died.status, ran_out)
        if vigil is not None and vigil.kill_cause is not FailureCause.NONE:
            cause = vigil.kill_cause
            patience = hang_timeout_s(vigil.stage, vigil.slowest_s, self._policy)
            reason = f"its worker said nothing for {patience:.0f} s while {vigil.stage} and was ended"
        if entry.state is JobState.CANCELLING:
            if vigil is not None and vigil.kill_cause is not FailureCause.NONE:
                reason = f"it did not stop within {cancel_timeout_s(vigil.stage, vigil.slowest_s, self._policy):.0f} s while {vigil.stage}, so its worker was ended"
            self._herald.move(died.job, JobState.CANCELLED, message=f"{reason}; there is no mesh", cause=cause.value)
        elif entry.state is JobState.RUNNING:
            self._settle(entry, cause, reason)
            self.sweeper.clear(died.job)
        self._vigils.pop(died.job, None)
        self.sweeper.clear(died.job)

    def _settle(self, entry: JobRecord, cause: FailureCause, reason: str) -> None:
        """An attempt failed: again from its checkpoint, with less memory, or the end."""
        job = entry.summary
        reached, got_on = self._got_on(entry)
        attempts = 1 if got_on else entry.attempts + 1
        lower = self._smaller(entry) if cause in (FailureCause.MEMORY, FailureCause.MACHINE_MEMORY) else {}
        verdict = decide(cause, reason, attempts, self._policy.deaths, lower, str(self._ledger.folder / "logs"))
        fields = {"message": verdict.message[: limits.MESSAGE_CHARACTERS], "cause": cause.value, "eta_s": -1.0}
        if verdict.retry:
            self._herald.move(
                job.job, JobState.QUEUED, verdict.attempts, settings={**job.settings, **verdict.settings}, **fields
            )
        else:
            resumable = has_checkpoint(self._ledger.job_folder(job.job) / "checkpoints")
            self._herald.move(job.job, JobState.FAILED, verdict.attempts, resumable=resumable, **fields)
        self._furthest[job.job] = reached  # only now: a move that the disk refused is made again
        log.info("attempt failed", extra=log_context(entry, cause=cause.value, step=reached, again=verdict.retry))

    def _smaller(self, entry: JobRecord) -> dict[str, str]:
        try:
            job = job_of(entry.summary)
            found = reduce_memory_settings(job.config, has_vae(job.model))
            return {name: value for name, value in found.items() if not entry.summary.mesh or name in FOR_A_MESH}
        except DreamwrightError as error:
            log.warning("no smaller settings found", extra=log_context(entry, why=type(error).__name__))
            return {}

    def _got_on(self, entry: JobRecord) -> tuple[int, bool]:
        """The furthest step of all attempts, and whether this one got notably further than those before it."""
        job = entry.summary
        vigil = self._vigils.get(job.job)
        reached, before = job.step if vigil is None else vigil.last[0], self._furthest.get(job.job, 0)
        return max(reached, before), reached - before >= max(1.0, PROGRESS_SHARE * job.steps)

    def can_go_on(self, entry: JobRecord) -> bool:
        """Whether a failed job still has a checkpoint."""
        return entry.summary.resumable and has_checkpoint(self._ledger.job_folder(entry.summary.job) / "checkpoints")

    def resume(self, job: str) -> None:
        """Put a paused job, or a failed one that left a checkpoint, back into the queue. Raises StorageError."""
        self._herald.move(job, JobState.QUEUED, 0, message="", cause="", resumable=False)
        self._furthest.pop(job, None)

    def recover(self) -> None:
        """After a start: what was running and is worked on no more goes back to the queue; what nobody knows goes."""
        under_way = {job: entry for job, entry in self._ledger.entries.items() if entry.state in AT_WORK}
        adopted = self._runner.reattach({job: entry.summary.attempt for job, entry in under_way.items()})
        for job, entry in list(self._ledger.entries.items()):
            if job in adopted:
                self._vigils[job] = Heartbeat(
                    self._clock(), oom_kills(), last=(entry.summary.step, entry.summary.elapsed_s)
                )
                if entry.state is JobState.CANCELLING:
                    self._runner.stop(job, "cancel")  # it may not have heard of it
            elif entry.state is JobState.RUNNING:
                self._herald.move(
                    job, JobState.QUEUED, message="the server was restarted; it continues from its checkpoint"
                )
            elif entry.state is JobState.CANCELLING:
                self._herald.move(
                    job, JobState.CANCELLED, message="the server was restarted while it stopped; there is no mesh"
                )
            self.sweeper.clear(job)
        self.sweeper.clear_strangers()
