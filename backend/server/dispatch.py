# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's own work: hand jobs to devices, take in what the workers report, reckon times, let go of old results.

A disk that refuses a write ends nothing: the job waits with a sentence, and what was to be written is tried again.
"""

from __future__ import annotations

import logging
import re
import shutil
from typing import Callable

from dreamwright.backend.checkpoints import has_checkpoint
from dreamwright.backend.errors import DreamwrightError
from dreamwright.backend.server.endings import classify_status, decide, smaller
from dreamwright.backend.server.fence import raise_fence
from dreamwright.backend.server.foreman import Died, Foreman
from dreamwright.backend.server.herald import Herald
from dreamwright.backend.server.ledger import Entry, LedgerFault
from dreamwright.backend.server.oom_evidence import oom_kills
from dreamwright.backend.server.orders import Ended, Noted, Pictured, Report, Stepped
from dreamwright.backend.server.pace import Span, ready_times, recipe
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.requests import has_vae, job_of
from dreamwright.backend.server.retention import Kept, expired, folder_size
from dreamwright.backend.server.vigil import STALL_S, Vigil, grace_s, patience_s
from dreamwright.backend.server.worker import MESH_FILE, file_hash
from dreamwright.shared import limits
from dreamwright.shared.causes import Cause
from dreamwright.shared.messages import PreviewFrame
from dreamwright.shared.states import ENDED, JobState

log = logging.getLogger(__name__)

RECKON_S = 2.0  # between two reckonings of when the queued jobs will be ready
RETRY_S = 2.0  # before a write that the disk refused is tried again
PROGRESS_SHARE = 0.05  # of all steps, to count as getting on: so a run of any length ends after some twenty deaths
SWEEP_S = 60.0  # between two looks at what has been kept long enough


class Dispatch:
    """Call `work` often, and `recover` once at the start."""

    def __init__(
        self, herald: Herald, foreman: Foreman, devices: tuple[str, ...], policy: Policy, clock: Callable[[], float]
    ) -> None:
        self._herald, self._ledger, self._foreman = herald, herald.ledger, foreman
        self._devices, self._policy, self._clock = devices, policy, clock
        self._vigils: dict[str, Vigil] = {}  # by running job
        self._furthest: dict[str, int] = {}  # by job whose worker died, the last step that it told of
        self._unwritten: list[Ended | Died] = []  # ends that the disk refused; their jobs count as running until it takes them
        self._retry_at = self._reckon_at = self._sweep_at = self._looked = clock()

    def work(self) -> None:
        """Take in the workers' reports, hand out jobs, tell subscribers; call it often."""
        now = self._clock()
        if now >= self._retry_at:
            again, self._unwritten = self._unwritten, []
            for report in again:
                self._take(report)
        for report in self._foreman.reports():
            self._take(report)
        self._keep_vigil(now)
        if now >= self._retry_at:
            self._hand_out()
        if now >= self._reckon_at:
            self.reckon()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._sweep()
        self._herald.settle()

    def _hand_out(self) -> None:
        waiting = self._ledger.waiting()
        for device in self._foreman.idle() if waiting else []:
            if not waiting:
                return
            entry = waiting.pop(0)
            name = entry.summary.job
            folder = self._ledger.job_folder(name)
            try:
                raise_fence(folder, entry.summary.attempt + 1)
                self._herald.move(name, JobState.RUNNING, message="starting", device=device)
            except (OSError, LedgerFault) as fault:
                self._wait_for_space(name, fault)
                return
            self._vigils[name] = Vigil(self._clock(), oom_kills())
            self._foreman.give(device, self._ledger.entries[name].summary, folder)

    def _keep_vigil(self, now: float) -> None:
        """End workers that say nothing for too long, or do not stop when their job was cancelled."""
        gap, self._looked = now - self._looked, now
        gone = {report.job for report in self._unwritten}
        for job, vigil in self._vigils.items():
            if job in gone:
                continue
            if gap > STALL_S:
                vigil.shift(gap)
            if self._ledger.entries[job].state is JobState.CANCELLING:
                vigil.cancel(now)
            if vigil.verdict is Cause.NONE and (vigil.overstays(now, self._policy) or vigil.hung(now, self._policy)):
                vigil.verdict = Cause.HANG
                log.warning("job %s: its worker is ended, no sign of life or of stopping while %s", job, vigil.stage)
            if vigil.verdict is not Cause.NONE:
                self._foreman.kill(job)

    def _wait_for_space(self, job: str, fault: OSError | LedgerFault) -> None:
        """The disk refuses: say so on the job, and try again later."""
        reason = str(fault) if isinstance(fault, LedgerFault) else f"the server cannot write to {self._ledger.folder} ({fault.strerror}); make room on its disk"
        log.warning("job %s waits: %s", job, reason)
        self._retry_at = self._clock() + RETRY_S
        self._herald.note(job, message=f"waiting: {reason}; it goes on by itself"[: limits.MESSAGE_CHARACTERS])

    def _take(self, report: Report | Died) -> None:
        entry = self._ledger.entries.get(report.job)
        if isinstance(report, Died):
            log.warning("a worker ended with status %d", report.status)
        elif entry is not None and report.attempt != entry.summary.attempt:
            log.warning("ignored: a report of attempt %d of job %s, which is at %d", report.attempt, report.job, entry.summary.attempt)
            return
        if entry is None or entry.state in ENDED:
            return  # a word that arrived after the end
        if isinstance(report, (Ended, Died)):
            try:
                if isinstance(report, Ended):
                    self._end(entry, report)
                else:
                    self._bury(entry, report)
            except LedgerFault as fault:
                self._unwritten.append(report)
                self._wait_for_space(report.job, fault)
        elif isinstance(report, Stepped):
            self._herald.note(report.job, step=report.step, steps=report.steps, elapsed_s=report.elapsed_s, eta_s=report.eta_s)
            if (vigil := self._vigils.get(report.job)) is not None:
                vigil.stepped_to(self._clock(), report.step, report.steps, report.elapsed_s)
        elif isinstance(report, Noted):
            if (vigil := self._vigils.get(report.job)) is not None:
                vigil.spoke(self._clock(), report.stage)
            health = report.health or entry.summary.health
            message = entry.summary.message if report.health else report.message
            self._herald.note(report.job, health=health, message=message)
        elif isinstance(report, Pictured):
            self._herald.audience.pictured(PreviewFrame(report.job, report.step, report.width, report.height, report.data))

    def _learn(self, entry: Entry) -> None:
        """Keep how long a whole run took, for the times of others."""
        vigil = self._vigils.pop(entry.summary.job, None)
        if vigil is None or vigil.first is None or entry.state is not JobState.SUCCEEDED:
            return
        steps, stepping = vigil.last[0] - vigil.first[0], vigil.last[1] - vigil.first[1]
        rest = self._clock() - vigil.begun - vigil.last[1]
        try:
            self._ledger.learn(recipe(entry.summary), entry.summary.device, steps, stepping, rest)
        except LedgerFault as fault:
            log.warning("%s", fault)  # an estimate the less

    def _end(self, entry: Entry, report: Ended) -> None:
        job, fields = report.job, {"message": report.message, "eta_s": -1.0, "cause": report.cause}
        if report.meshed:
            try:
                size, digest = file_hash(self._ledger.job_folder(job) / MESH_FILE)
            except OSError as error:
                reason = f"its mesh cannot be read: {error.strerror}"
                report = Ended(job, "failed", reason, False, report.attempt, Cause.NO_SPACE.value)
                fields |= {"message": reason, "cause": report.cause}
            else:
                fields |= {"mesh_bytes": size, "mesh_sha256": digest}
        if entry.state is JobState.CANCELLING:  # also one that finished or failed before it heard of it
            self._herald.move(job, JobState.CANCELLED, **fields)
        elif report.how == "failed":
            self._settle(entry, Cause(report.cause), report.message)
        elif report.how == "paused":
            self._herald.move(job, JobState.PAUSED, **fields)
        elif report.how == "cancelled":  # told by a server that has restarted since
            self._herald.move(job, JobState.CANCELLING)
            self._herald.move(job, JobState.CANCELLED, **fields)
        else:
            self._herald.move(job, JobState(report.how), **fields)
        entry = self._ledger.entries[job]
        log.info("job %s %s", job, entry.summary.state)
        self._learn(entry)
        self.clear(job)

    def clear(self, job: str) -> None:
        """Remove the checkpoints of a job that nothing goes on from any more, now that its end is written down."""
        if self._ledger.entries[job].state in (JobState.SUCCEEDED, JobState.CANCELLED):
            shutil.rmtree(self._ledger.job_folder(job) / "checkpoints", ignore_errors=True)

    def _bury(self, entry: Entry, died: Died) -> None:
        """A worker ended without a word about its job."""
        vigil = self._vigils.get(died.job)
        kills = oom_kills()
        ran_out = vigil is not None and kills is not None and vigil.oom_kills is not None and kills > vigil.oom_kills
        cause, reason = classify_status(died.status, ran_out)
        if vigil is not None and vigil.verdict is not Cause.NONE:
            cause = vigil.verdict
            patience = patience_s(vigil.stage, vigil.slowest_s, self._policy)
            reason = f"its worker said nothing for {patience:.0f} s while {vigil.stage} and was ended"
        if entry.state is JobState.CANCELLING:
            if vigil is not None and vigil.verdict is not Cause.NONE:
                reason = f"it did not stop within {grace_s(vigil.stage, vigil.slowest_s, self._policy):.0f} s while {vigil.stage}, so its worker was ended"
            self._herald.move(died.job, JobState.CANCELLED, message=f"{reason}; there is no mesh", cause=cause.value)
            self.clear(died.job)
        elif entry.state is JobState.RUNNING:
            self._settle(entry, cause, reason)
        self._vigils.pop(died.job, None)

    def _settle(self, entry: Entry, cause: Cause, reason: str) -> None:
        """An attempt failed: again from its checkpoint, with less memory, or the end."""
        job = entry.summary
        reached, got_on = self._got_on(entry)
        attempts = 1 if got_on else entry.attempts + 1
        lower = self._smaller(entry) if cause in (Cause.MEMORY, Cause.MACHINE_MEMORY) else {}
        verdict = decide(cause, reason, attempts, self._policy.deaths, lower, str(self._ledger.folder / "logs"))
        fields = {"message": verdict.message[: limits.MESSAGE_CHARACTERS], "cause": cause.value, "eta_s": -1.0}
        if verdict.retry:
            self._herald.move(job.job, JobState.QUEUED, verdict.attempts, settings={**job.settings, **verdict.settings}, **fields)
        else:
            resumable = has_checkpoint(self._ledger.job_folder(job.job) / "checkpoints")
            self._herald.move(job.job, JobState.FAILED, verdict.attempts, resumable=resumable, **fields)
        self._furthest[job.job] = reached  # only now: a move that the disk refused is made again
        log.info("job %s, attempt %d: %s after step %d, so %s", job.job, job.attempt, cause.value or "failed", reached, "again" if verdict.retry else "failed")

    def _smaller(self, entry: Entry) -> dict[str, str]:
        try:
            job = job_of(entry.summary)
            return smaller(job.config, has_vae(job.model))
        except DreamwrightError as error:
            log.warning("job %s: %s", entry.summary.job, error)
            return {}

    def _got_on(self, entry: Entry) -> tuple[int, bool]:
        """The furthest step of all attempts, and whether this one got notably further than those before it."""
        job = entry.summary
        vigil = self._vigils.get(job.job)
        reached, before = 0 if vigil is None else vigil.last[0], self._furthest.get(job.job, 0)
        return max(reached, before), reached - before >= max(1.0, PROGRESS_SHARE * job.steps)

    def can_go_on(self, entry: Entry) -> bool:
        """Whether a failed job still has a checkpoint."""
        return entry.summary.resumable and has_checkpoint(self._ledger.job_folder(entry.summary.job) / "checkpoints")

    def resume(self, job: str) -> None:
        """Put a paused job, or a failed one that left a checkpoint, back into the queue. Raises LedgerFault."""
        self._herald.move(job, JobState.QUEUED, 0, message="", cause="", resumable=False)
        self._furthest.pop(job, None)

    def reckon(self) -> None:
        """When will the queued jobs be ready? Told when it changed by more than a little."""
        self._reckon_at = self._clock() + RECKON_S
        paces, entries = self._ledger.paces, self._ledger.entries.values()
        busy = {device: Span(0.0, 0.0) for device in self._devices}
        for entry in entries:
            job = entry.summary
            if entry.state in (JobState.RUNNING, JobState.CANCELLING) and job.device in busy:
                known = recipe(job)
                if entry.state is JobState.CANCELLING:
                    busy[job.device] = paces.rest(known, job.device)
                elif job.eta_s >= 0:
                    busy[job.device] = Span(job.eta_s, job.eta_s) + paces.rest(known, job.device)
                else:
                    busy[job.device] = paces.whole(known, job.device, job.steps - job.step)
        queue = []
        for entry in self._ledger.waiting():
            job = entry.summary
            known = recipe(job)
            queue.append((job.job, {device: paces.whole(known, device, job.steps - job.step) for device in self._devices}))
        spans = ready_times(busy, queue)
        for entry in list(entries):
            job, span = entry.summary, spans.get(entry.summary.job)
            low, high = (span.low_s, span.high_s) if span is not None and span.known else (-1.0, -1.0)
            slack = max(2.0, 0.05 * high)
            moved = max(abs(high - job.ready_high_s), abs(low - job.ready_low_s))
            if (high < 0) != (job.ready_high_s < 0) or moved > slack:
                self._herald.note(job.job, ready_low_s=low, ready_high_s=high)

    def _sweep(self) -> None:
        """Let go of what has been kept long enough, and write down the server's age."""
        try:
            self._ledger.save_facts()
            now = self._ledger.age.now_s()
            kept = [
                Kept(e.summary.job, now - e.ended_age, self._size(e), e.summary.fetched or not e.summary.mesh_bytes, e.summary.pinned)
                for e in self._ledger.entries.values()
                if e.state in ENDED
            ]
            for job in expired(kept, self._policy):
                log.info("job %s was kept long enough", job)
                self.drop(self._ledger.entries[job])
        except LedgerFault as fault:
            log.warning("%s", fault)

    def _size(self, entry: Entry) -> int:
        """Bytes of an ended job's files that count: its mesh, and the checkpoints of one that can be resumed."""
        if not entry.summary.resumable:
            return entry.summary.mesh_bytes
        return entry.summary.mesh_bytes + folder_size(self._ledger.job_folder(entry.summary.job) / "checkpoints")

    def drop(self, entry: Entry) -> None:
        """Remove an ended job and its files. Raises LedgerFault."""
        job = entry.summary.job
        try:
            self._ledger.forget(job)
        except LedgerFault:
            # On a full disk its files must go first to make room for the note that it is gone.
            shutil.rmtree(self._ledger.job_folder(job), ignore_errors=True)
            self._ledger.forget(job)
        shutil.rmtree(self._ledger.job_folder(job), ignore_errors=True)
        self._furthest.pop(job, None)
        self._herald.forgotten(entry.owner, job)

    def recover(self) -> None:
        """After a start: whatever was running when the server ended goes back to the queue; what nobody knows goes."""
        for job, entry in list(self._ledger.entries.items()):
            if entry.state is JobState.RUNNING:
                self._herald.move(job, JobState.QUEUED, message="the server was restarted; it goes on from its checkpoint")
            elif entry.state is JobState.CANCELLING:
                self._herald.move(job, JobState.CANCELLED, message="the server was restarted while it stopped; there is no mesh")
            self.clear(job)
        folder = self._ledger.folder / "jobs"
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in self._ledger.entries and re.fullmatch("[0-9a-f]{16}", path.name):
                shutil.rmtree(path, ignore_errors=True)  # of a job that was forgotten just before the end
