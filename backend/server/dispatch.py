# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's own work: hand jobs to devices, take in what the workers report, reckon times, let go of old results.

A disk that refuses a write ends nothing: the job waits with a sentence, and what was to be written is tried again.
"""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from typing import Any, Callable

from dreamwright.backend.server.attempt import MESH_FILE, file_hash
from dreamwright.backend.server.fence import raise_fence
from dreamwright.backend.server.herald import Herald
from dreamwright.backend.server.ledger import Entry, LedgerFault
from dreamwright.backend.server.orders import Ended, Noted, Pictured, Report, Stepped
from dreamwright.backend.server.pace import Span, ready_times, recipe
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.retention import Kept, expired
from dreamwright.backend.server.runner import Died, Runner
from dreamwright.shared import limits
from dreamwright.shared.messages import PreviewFrame
from dreamwright.shared.states import ENDED, JobState

log = logging.getLogger(__name__)

RECKON_S = 2.0  # between two reckonings of when the queued jobs will be ready
RETRY_S = 2.0  # before a write that the disk refused is tried again
PROGRESS_SHARE = 0.05  # of all steps, to count as getting on: so a run of any length ends after some twenty deaths
SWEEP_S = 60.0  # between two looks at what has been kept long enough
FRESH_SHARE = 0.3  # of the newest report in the pace that is shown
RECALLED = "the server was stopped; it goes on from its checkpoint"


def marks(entry: Entry, **more: Any) -> dict[str, Any]:
    """What a line of the log says of a job, in every case the same."""
    job = entry.summary
    return {"job": job.job, "user": entry.owner, "attempt": job.attempt, "device": job.device, **more}


@dataclass
class Watch:
    """What is measured of one attempt, by the monotonic clock."""

    begun: float
    first: tuple[int, float] | None = None  # (step, seconds) of the first report
    last: tuple[int, float] = (0, 0.0)
    rate: float = 0.0  # steps a second of late; 0: not known yet
    heard: float = -1.0  # when it last told of a step


class Dispatch:
    """Call `work` often, and `recover` once at the start."""

    def __init__(self, herald: Herald, runner: Runner, policy: Policy, clock: Callable[[], float]) -> None:
        self._herald, self._ledger, self._runner = herald, herald.ledger, runner
        self._policy, self._clock = policy, clock
        self._watches: dict[str, Watch] = {}  # by running job
        self._furthest: dict[str, int] = {}  # by job whose worker died, the last step that it told of
        self.pausing: set[str] = set()  # running jobs that a user asked to pause, which a recall must not put back into the queue
        self._recalling = False
        self._unwritten: list[Ended | Died] = []  # ends that the disk refused; their jobs count as running until it takes them
        self._retry_at = self._reckon_at = self._sweep_at = clock()

    def work(self) -> None:
        """Take in the workers' reports, hand out jobs, tell subscribers; call it often."""
        now = self._clock()
        if now >= self._retry_at:
            again, self._unwritten = self._unwritten, []
            for report in again:
                self._take(report)
        for report in self._runner.reports():
            self._take(report)
        if now >= self._retry_at and not self._recalling:
            self._hand_out()
        if now >= self._reckon_at:
            self.reckon()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._sweep()
        self._herald.settle()

    def _hand_out(self) -> None:
        waiting = self._ledger.waiting()
        for device in self._runner.idle() if waiting else []:
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
            self._watches[name] = Watch(self._clock())
            self.pausing.discard(name)
            log.info("attempt begins", extra=marks(self._ledger.entries[name]))
            self._runner.give(device, self._ledger.entries[name].summary, folder)

    def recall(self) -> None:
        """The server is about to end: hand out nothing more, and have what ends with it write a checkpoint and stop."""
        self._recalling = True
        if self._runner.survives:
            return
        for job, entry in self._ledger.entries.items():
            if entry.state is JobState.RUNNING:
                self._runner.stop(job, "pause")

    def at_work(self) -> list[str]:
        """Jobs that a worker has in hand, and that would lose something by the server's end."""
        if self._recalling and self._runner.survives:
            return []
        return [job for job, entry in self._ledger.entries.items() if entry.state in (JobState.RUNNING, JobState.CANCELLING)]

    def pace(self, job: str) -> tuple[float, float]:
        """(steps a second, seconds since the last report) of a running job; (0, -1) before the first."""
        watch = self._watches.get(job)
        return (0.0, -1.0) if watch is None or watch.heard < 0 else (watch.rate, max(0.0, self._clock() - watch.heard))

    def _wait_for_space(self, job: str, fault: OSError | LedgerFault) -> None:
        """The disk refuses: say so on the job, and try again later."""
        reason = str(fault) if isinstance(fault, LedgerFault) else f"the server cannot write to {self._ledger.folder} ({fault.strerror}); make room on its disk"
        log.warning("job waits", extra={"job": job, "why": reason})
        self._retry_at = self._clock() + RETRY_S
        self._herald.note(job, message=f"waiting: {reason}; it goes on by itself"[: limits.MESSAGE_CHARACTERS])

    def _take(self, report: Report | Died) -> None:
        entry = self._ledger.entries.get(report.job)
        if isinstance(report, Died):
            self._herald.tally.worker_deaths += 1
            reason = report.reason or f"status {report.status}"
            log.warning("worker died", extra={"why": reason, **(marks(entry) if entry is not None else {})})
            if entry is not None and report.attempt not in (0, entry.summary.attempt):
                return  # the job has gone on without it
        elif entry is not None and report.attempt != entry.summary.attempt:
            log.warning("report of another attempt ignored", extra={"job": report.job, "attempt": report.attempt, "newest": entry.summary.attempt})
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
            self._measure(report, entry.summary.device)
        elif isinstance(report, Noted):
            health = report.health or entry.summary.health
            message = entry.summary.message if report.health else report.message
            self._herald.note(report.job, health=health, message=message)
        elif isinstance(report, Pictured):
            self._herald.audience.pictured(PreviewFrame(report.job, report.step, report.width, report.height, report.data))

    def _measure(self, report: Stepped, device: str) -> None:
        watch = self._watches.get(report.job)
        if watch is None:
            return
        seen = (report.step, report.elapsed_s)
        if watch.first is None or seen < watch.last:  # it began anew from another seed
            watch.first = seen
        else:
            steps, seconds = seen[0] - watch.last[0], seen[1] - watch.last[1]
            if steps > 0 and seconds > 0:
                self._herald.tally.stepped(device, steps, seconds)
                watch.rate += (FRESH_SHARE if watch.rate else 1.0) * (steps / seconds - watch.rate)
        watch.last, watch.heard = seen, self._clock()

    def _learn(self, entry: Entry) -> None:
        """Keep how long a whole run took, for the times of others."""
        watch = self._watches.pop(entry.summary.job, None)
        if watch is None or watch.first is None or entry.state is not JobState.SUCCEEDED:
            return
        steps, stepping = watch.last[0] - watch.first[0], watch.last[1] - watch.first[1]
        rest = self._clock() - watch.begun - watch.last[1]
        try:
            self._ledger.learn(recipe(entry.summary), entry.summary.device, steps, stepping, rest)
        except LedgerFault as fault:
            log.warning("pace not kept", extra={"job": entry.summary.job, "why": str(fault)})  # an estimate the less

    def _end(self, entry: Entry, report: Ended) -> None:
        job, fields = report.job, {"message": report.message, "eta_s": -1.0}
        if report.meshed:
            try:
                size, digest = file_hash(self._ledger.job_folder(job) / MESH_FILE)
            except OSError as error:
                report = Ended(job, "failed", f"its mesh cannot be read: {error.strerror}", False, report.attempt)
                fields["message"] = report.message
            else:
                fields |= {"mesh_bytes": size, "mesh_sha256": digest}
        if entry.state is JobState.CANCELLING:  # also one that finished or failed before it heard of it
            self._herald.move(job, JobState.CANCELLED, **fields)
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
        log.info("attempt ended", extra=marks(entry, state=entry.summary.state, step=entry.summary.step))
        self._learn(entry)
        if entry.state in ENDED:
            self._remove_checkpoints(job)

    def _remove_checkpoints(self, job: str) -> None:
        """Nothing goes on from them any more; only now, since a kill before the end was written down needs them."""
        shutil.rmtree(self._ledger.job_folder(job) / "checkpoints", ignore_errors=True)

    def _bury(self, entry: Entry, died: Died) -> None:
        """A worker is dead: its job goes back to the queue, or fails when that happened too often."""
        if entry.state is JobState.CANCELLING:
            self._herald.move(died.job, JobState.CANCELLED, message="its worker died while stopping; there is no mesh")
            self._remove_checkpoints(died.job)
        elif entry.state is JobState.RUNNING:
            attempts = 1 if self._got_on(entry) else entry.attempts + 1
            reason = died.reason or f"its worker process died (status {died.status})"
            if attempts >= self._policy.deaths:
                message = f"{reason}, {attempts} times; see the worker's log in {self._ledger.folder / 'logs'}"
                self._herald.move(died.job, JobState.FAILED, attempts, message=message)
                self._remove_checkpoints(died.job)
            else:
                self._herald.move(died.job, JobState.QUEUED, attempts, message=f"{reason}; it goes on from its checkpoint")
        self._watches.pop(died.job, None)

    def _got_on(self, entry: Entry) -> bool:
        """Whether the dead worker got notably further than those that died of this job before it."""
        job = entry.summary
        watch = self._watches.get(job.job)
        reached, before = job.step if watch is None else watch.last[0], self._furthest.get(job.job, 0)
        self._furthest[job.job] = max(reached, before)
        return reached - before >= max(1.0, PROGRESS_SHARE * job.steps)

    def reckon(self) -> None:
        """When will the queued jobs be ready? Told when it changed by more than a little."""
        self._reckon_at = self._clock() + RECKON_S
        paces, entries = self._ledger.paces, self._ledger.entries.values()
        busy = {device: Span(0.0, 0.0) for device in self._runner.devices}
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
            queue.append((job.job, {device: paces.whole(known, device, job.steps - job.step) for device in busy}))
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
                Kept(e.summary.job, now - e.ended_age, e.summary.mesh_bytes, e.summary.fetched or not e.summary.mesh_bytes, e.summary.pinned)
                for e in self._ledger.entries.values()
                if e.state in ENDED
            ]
            for job in expired(kept, self._policy):
                log.info("job kept long enough", extra={"job": job})
                self.drop(self._ledger.entries[job])
        except LedgerFault as fault:
            log.warning("results not swept", extra={"why": str(fault)})

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
        """After a start: what was running and is worked on no more goes back to the queue; what nobody knows goes."""
        under_way = {job: e for job, e in self._ledger.entries.items() if e.state in (JobState.RUNNING, JobState.CANCELLING)}
        adopted = self._runner.adopt({job: entry.summary.attempt for job, entry in under_way.items()})
        for job, entry in list(self._ledger.entries.items()):
            if job in adopted:
                if entry.state is JobState.CANCELLING:
                    self._runner.stop(job, "cancel")  # it may not have heard of it
            elif entry.state is JobState.RUNNING:
                self._herald.move(job, JobState.QUEUED, message="the server was restarted; it goes on from its checkpoint")
            elif entry.state is JobState.CANCELLING:
                self._herald.move(job, JobState.CANCELLED, message="the server was restarted while it stopped; there is no mesh")
            if self._ledger.entries[job].state in ENDED:
                self._remove_checkpoints(job)
        folder = self._ledger.folder / "jobs"
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in self._ledger.entries and re.fullmatch("[0-9a-f]{16}", path.name):
                shutil.rmtree(path, ignore_errors=True)  # of a job that was forgotten just before the end
