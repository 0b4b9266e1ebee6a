# SPDX-License-Identifier: GPL-3.0-or-later
"""Twenty subscribers that never read their previews, on a real job of a real encrypted server.

    OMP_NUM_THREADS=1 python -m tests.soak.slow_subscribers --folder runs/never_reading

Phases in turn: nobody, twenty who never read, and (with --liars) twenty who never read but say that they have seen. In each
the server's memory, the job's seconds a step by the clock and by the worker's processor, and how long an artist's
request takes. At the end one of the twenty begins to read: after the few pictures that were on their way it gets the latest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import zmq

from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.messages import (
    CancelJob,
    Hello,
    JobChanged,
    ListJobs,
    PreviewAck,
    PreviewFrame,
    SubmitJob,
    Subscribe,
)
from tests.soak.served import Served, ask, online, turn_until, vitals
from tests.testing.tiny_model import QUICK, offer_tiny_model

GROWTH_MB = (
    10.0  # of the server with twenty who never read: two previews of some 60 kB and 64 short messages each are 5
)
SETTINGS = dict(setting.split("=") for setting in QUICK) | {
    "run.steps": "1000000", "run.checkpoint_interval": "1000", "run.threads": "1", "run.max_restarts": "0", "run.preview_interval": "2",
}  # fmt: skip


class NeverReads:
    """A connection that subscribes and gives signs of life, and takes nothing in."""

    def __init__(self, context: zmq.Context, served: Served, user: str, job: str, is_liar: bool) -> None:
        pair = served.pairs[user]
        self._socket = context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096), (zmq.SNDHWM, 10)):
            self._socket.setsockopt(option, value)
        for option, value in (
            (zmq.CURVE_SERVERKEY, served.server_key),
            (zmq.CURVE_PUBLICKEY, pair.public),
            (zmq.CURVE_SECRETKEY, pair.secret),
        ):
            self._socket.setsockopt(option, value)
        self._socket.connect(served.address)
        self._job, self._is_liar = job, is_liar
        self._say(Hello("never", "reads"), Subscribe(job))

    def _say(self, *messages: Any) -> None:
        for message in messages:
            try:
                self._socket.send(pack(message, 0 if isinstance(message, PreviewAck) else 1), zmq.NOBLOCK)
            except zmq.Again:
                return  # the server has not let it in yet; there will be a next time

    def pulse(self) -> None:
        """A sign of life, and a liar's lie."""
        self._say(*([PreviewAck(100)] if self._is_liar else [Hello("never", "reads")]))

    def read(self, seconds: float) -> list[PreviewFrame]:
        """Begin to read, and say what was seen; the pictures in order."""
        frames: list[PreviewFrame] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._socket.poll(50):
                _, message = unpack(self._socket.recv(), limits.REPLY_BYTES)
                if isinstance(message, PreviewFrame):
                    frames.append(message)
                    self._say(PreviewAck(1))
        return frames

    def close(self) -> None:
        self._socket.close(0)


class Phase:
    """What is measured from now on."""

    def __init__(self, served: Served, worker: int) -> None:
        self._served, self._worker = served, worker
        self._cpu, self._server_cpu, self._begun = vitals(worker).cpu_s, served.vitals().cpu_s, time.monotonic()
        self.first: tuple[int, float] | None = None
        self.last = (0, 0.0)
        self.rss: list[float] = []
        self.request_ms: list[float] = []

    def told(self) -> dict[str, float]:
        spent = time.monotonic() - self._begun
        steps = self.last[0] - self.first[0] if self.first else 0
        return {
            "steps": steps,
            "ms a step": round(1000 * (self.last[1] - self.first[1]) / max(1, steps), 2) if self.first else 0.0,
            "worker cpu ms a step": round(1000 * (vitals(self._worker).cpu_s - self._cpu) / max(1, steps), 2),
            "server cpu share": round((self._served.vitals().cpu_s - self._server_cpu) / spent, 4),
            "server rss_mb, most": max(self.rss),
            "request ms, median": round(statistics.median(self.request_ms), 2) if self.request_ms else 0.0,
        }


def soak(folder: Path, count: int, kinds: list[str], phase_s: float) -> tuple[dict[str, Any], list[str]]:
    """`kinds` of phases in turn, each of so many seconds."""
    served = Served(folder, ["anna", "bert"]).start()
    context = zmq.Context(io_threads=1)
    listeners: list[NeverReads] = []
    faults: list[str] = []
    phases: dict[str, list[dict[str, float]]] = {}
    try:
        model = offer_tiny_model(served.models)
        artist = online(served.client("anna"))
        artist.subscribe()
        job = ask(artist, SubmitJob("one", "a red mushroom", "", model, "draft", 0, SETTINGS)).job.job
        seen: list[JobChanged] = []
        busy: list[float] = []

        def take(phase: Phase | None, seconds: float) -> None:
            """Live for a while."""
            end, pulse = time.monotonic() + seconds, 0.0
            while (now := time.monotonic()) < end:
                for event in artist.tick():
                    if isinstance(event, JobChanged) and event.job.step:
                        seen.append(event)
                        if phase is not None:
                            phase.last = event.job.step, event.job.elapsed_s
                            phase.first = phase.first or phase.last
                if now > pulse:
                    pulse = now + (0.1 if any(one._is_liar for one in listeners) else 1.0)
                    for one in listeners:
                        one.pulse()
                    if phase is not None:
                        phase.rss.append(served.vitals().rss_mb)
                        if not busy:
                            busy.append(now)
                            artist.request(
                                ListJobs(0, 1),
                                lambda reply: phase.request_ms.append(1000 * (time.monotonic() - busy.pop())),
                            )
                time.sleep(0.002)

        while not seen:
            take(None, 0.5)
        take(None, phase_s / 2)  # the first steps are slower
        (worker,) = served.workers()
        for kind in kinds:
            if kind != "nobody":
                listeners = [NeverReads(context, served, "anna", job, kind == "liars") for _ in range(count)]
            take(None, 1.0)
            phase = Phase(served, worker)
            take(phase, phase_s)
            phases.setdefault(kind, []).append({**phase.told(), "files": served.vitals().fds})
            print(kind, phases[kind][-1], flush=True)
            if kind == "never read":
                if (frames := listeners[0].read(3.0)) and seen:
                    take(None, 0.3)
                steps = [frame.step for frame in frames]
                phases[kind][-1]["pictures on reading"] = len(steps)
                now = seen[-1].job.step
                # Those on their way are old; the next one must be of about now, not the next in a row of missed ones.
                jump = (
                    steps[limits.PREVIEWS_IN_FLIGHT] - steps[limits.PREVIEWS_IN_FLIGHT - 1]
                    if len(steps) > limits.PREVIEWS_IN_FLIGHT
                    else 0
                )
                phases[kind][-1] |= {
                    "steps skipped by the third picture": jump,
                    "steps behind at the end": now - steps[-1] if steps else -1,
                }
                missed = phase.told()["steps"]
                if steps != sorted(set(steps)) or jump < 0.5 * missed:
                    faults.append(f"one begins to read after {missed} steps and gets pictures of steps {steps[:6]}…")
            for one in listeners:
                one.close()
            listeners = []
            take(None, 1.0)
        ask(artist, CancelJob(job))
        turn_until([artist], lambda: artist.state.value == "online")
        artist.close()
        told: dict[str, Any] = {"phases": phases}
        base = phases["nobody"]
        for kind in phases:
            if kind == "nobody":
                continue
            told[kind] = {
                f"{name}, ratio to nobody": round(
                    statistics.median(one[name] for one in phases[kind]) / statistics.median(one[name] for one in base),
                    3,
                )
                for name in ("ms a step", "worker cpu ms a step")
            }
            growth = max(one["server rss_mb, most"] for one in phases[kind]) - max(
                one["server rss_mb, most"] for one in base
            )
            told[kind]["server grows by MB"] = round(growth, 2)
            if kind == "never read" and growth > GROWTH_MB:
                faults.append(f"the server grows by {growth:.1f} MB; allowed are {GROWTH_MB}")
        told["lines of the server's log"] = len(served.log_path.read_text().splitlines())
        faults += served.faults()
    finally:
        for one in listeners:
            one.close()
        context.destroy(linger=0)
        served.stop()
    return told, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--subscribers", type=int, default=20)
    parser.add_argument("--phases", type=int, default=5, help="of each kind")
    parser.add_argument("--seconds", type=float, default=15.0, help="of one phase")
    parser.add_argument("--liars", action="store_true", help="also those who never read and say that they have seen")
    options = parser.parse_args()
    kinds = ["nobody", "never read", *(["liars"] if options.liars else [])] * options.phases
    told, faults = soak(options.folder, options.subscribers, kinds, options.seconds)
    print(json.dumps(told, indent=1))
    print(f"{len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
