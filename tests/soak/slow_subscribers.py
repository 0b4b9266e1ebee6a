# SPDX-License-Identifier: GPL-3.0-or-later
"""Twenty subscribers that never read their previews, while a real job runs on an encrypted server.

    OMP_NUM_THREADS=1 python -m tests.soak.slow_subscribers --folder runs/slow_subscribers

The phases repeat in turn: no subscribers, twenty that never read, and with --false-acks twenty that acknowledge
previews without reading. Each phase measures the server's memory, the wall and CPU time of a training step, and the
latency of another client's requests. At the end one subscriber starts to read. After the previews in flight it gets the
latest one.
"""

from __future__ import annotations

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
from tests.soak.command_line import print_results, soak_parser
from tests.soak.observed_server import ObservedServer, ask, online, process_stats, tick_until
from tests.testing.tiny_model import QUICK, SLOW_RATES, offer_tiny_model

GROWTH_MB = 10.0  # allowed with twenty subscribers; two previews of 60 kB and 64 short messages for each take about 5
SETTINGS = dict(setting.split("=") for setting in QUICK) | {
    "run.steps": "1000000",
    "run.checkpoint_interval": "1000",
    "run.threads": "1",
    "run.max_restarts": "0",
    "run.preview_interval": "2",
    **SLOW_RATES,
}


class NonReadingSubscriber:
    """A connection that subscribes and sends heartbeats but reads nothing."""

    def __init__(
        self, context: zmq.Context, server: ObservedServer, user: str, job: str, sends_false_acks: bool
    ) -> None:
        pair = server.pairs[user]
        self._socket = context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096), (zmq.SNDHWM, 10)):
            self._socket.setsockopt(option, value)
        for option, value in (
            (zmq.CURVE_SERVERKEY, server.server_key),
            (zmq.CURVE_PUBLICKEY, pair.public),
            (zmq.CURVE_SECRETKEY, pair.secret),
        ):
            self._socket.setsockopt(option, value)
        self._socket.connect(server.address)
        self._job, self._sends_false_acks = job, sends_false_acks
        self._send(Hello("never", "reads"), Subscribe(job))

    def _send(self, *messages: Any) -> None:
        for message in messages:
            try:
                self._socket.send(pack(message, 0 if isinstance(message, PreviewAck) else 1), zmq.NOBLOCK)
            except zmq.Again:
                return  # the handshake is not finished; the next heartbeat tries again

    def heartbeat(self) -> None:
        """Send a heartbeat, or a false acknowledgement."""
        self._send(*([PreviewAck(100)] if self._sends_false_acks else [Hello("never", "reads")]))

    def read(self, seconds: float) -> list[PreviewFrame]:
        """Read and acknowledge previews for some seconds; returns them in order."""
        frames: list[PreviewFrame] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._socket.poll(50):
                _, message = unpack(self._socket.recv(), limits.REPLY_BYTES)
                if isinstance(message, PreviewFrame):
                    frames.append(message)
                    self._send(PreviewAck(1))
        return frames

    def close(self) -> None:
        self._socket.close(0)


class Phase:
    """Measurements from the creation of this object on."""

    def __init__(self, server: ObservedServer, worker: int) -> None:
        self._server, self._worker = server, worker
        self._cpu, self._server_cpu, self._started = process_stats(worker).cpu_s, server.stats().cpu_s, time.monotonic()
        self.first: tuple[int, float] | None = None
        self.last = (0, 0.0)
        self.rss: list[float] = []
        self.request_ms: list[float] = []

    def figures(self) -> dict[str, float]:
        spent = time.monotonic() - self._started
        steps = self.last[0] - self.first[0] if self.first else 0
        return {
            "steps": steps,
            "ms per step": round(1000 * (self.last[1] - self.first[1]) / max(1, steps), 2) if self.first else 0.0,
            "worker cpu ms per step": round(1000 * (process_stats(self._worker).cpu_s - self._cpu) / max(1, steps), 2),
            "server cpu share": round((self._server.stats().cpu_s - self._server_cpu) / spent, 4),
            "server rss_mb, max": max(self.rss),
            "request ms, median": round(statistics.median(self.request_ms), 2) if self.request_ms else 0.0,
        }


def soak(folder: Path, count: int, kinds: list[str], phase_s: float) -> tuple[dict[str, Any], list[str]]:
    """Run the phases in turn, each for `phase_s` seconds."""
    server = ObservedServer(folder, ["anna", "bert"]).start()
    context = zmq.Context(io_threads=1)
    subscribers: list[NonReadingSubscriber] = []
    faults: list[str] = []
    phases: dict[str, list[dict[str, float]]] = {}
    try:
        model = offer_tiny_model(server.models)
        client = online(server.client("anna"))
        client.subscribe()
        job = ask(client, SubmitJob("one", "a red mushroom", "", model, "draft", 0, SETTINGS)).job.job
        seen: list[JobChanged] = []
        busy: list[float] = []

        def run_for(phase: Phase | None, seconds: float) -> None:
            """Tick all clients for some seconds and measure into `phase`."""
            end, heartbeat = time.monotonic() + seconds, 0.0
            while (now := time.monotonic()) < end:
                for event in client.tick():
                    if isinstance(event, JobChanged) and event.job.step:
                        seen.append(event)
                        if phase is not None:
                            phase.last = event.job.step, event.job.elapsed_s
                            phase.first = phase.first or phase.last
                if now > heartbeat:
                    heartbeat = now + (0.1 if any(one._sends_false_acks for one in subscribers) else 1.0)
                    for one in subscribers:
                        one.heartbeat()
                    if phase is not None:
                        phase.rss.append(server.stats().rss_mb)
                        if not busy:
                            busy.append(now)
                            client.request(
                                ListJobs(0, 1),
                                lambda reply: phase.request_ms.append(1000 * (time.monotonic() - busy.pop())),
                            )
                time.sleep(0.002)

        while not seen:
            run_for(None, 0.5)
        run_for(None, phase_s / 2)  # the first steps are slower
        (worker,) = server.workers()
        for kind in kinds:
            if kind != "no subscribers":
                subscribers = [
                    NonReadingSubscriber(context, server, "anna", job, kind == "false acks") for _ in range(count)
                ]
            run_for(None, 1.0)
            phase = Phase(server, worker)
            run_for(phase, phase_s)
            phases.setdefault(kind, []).append({**phase.figures(), "files": server.stats().fds})
            print(kind, phases[kind][-1], flush=True)
            if kind == "not reading":
                if (frames := subscribers[0].read(3.0)) and seen:
                    run_for(None, 0.3)
                steps = [frame.step for frame in frames]
                phases[kind][-1]["previews after reading starts"] = len(steps)
                now = seen[-1].job.step
                # The previews in flight are old. The one after them must be the latest, not the next of the skipped
                # ones.
                jump = (
                    steps[limits.PREVIEWS_IN_FLIGHT] - steps[limits.PREVIEWS_IN_FLIGHT - 1]
                    if len(steps) > limits.PREVIEWS_IN_FLIGHT
                    else 0
                )
                phases[kind][-1] |= {
                    "steps skipped by the first new preview": jump,
                    "steps behind at the end": now - steps[-1] if steps else -1,
                }
                missed = phase.figures()["steps"]
                if steps != sorted(set(steps)) or jump < 0.5 * missed:
                    faults.append(
                        f"a subscriber that starts to read after {missed} steps gets previews of steps {steps[:6]}…"
                    )
            for one in subscribers:
                one.close()
            subscribers = []
            run_for(None, 1.0)
        ask(client, CancelJob(job))
        tick_until([client], lambda: client.state.value == "online")
        client.close()
        figures: dict[str, Any] = {"phases": phases}
        base = phases["no subscribers"]
        for kind in phases:
            if kind == "no subscribers":
                continue
            figures[kind] = {
                f"{name}, ratio to no subscribers": round(
                    statistics.median(one[name] for one in phases[kind]) / statistics.median(one[name] for one in base),
                    3,
                )
                for name in ("ms per step", "worker cpu ms per step")
            }
            growth = max(one["server rss_mb, max"] for one in phases[kind]) - max(
                one["server rss_mb, max"] for one in base
            )
            figures[kind]["server memory growth MB"] = round(growth, 2)
            if kind == "not reading" and growth > GROWTH_MB:
                faults.append(f"the server's memory grows by {growth:.1f} MB; the limit is {GROWTH_MB} MB")
        figures["lines of the server's log"] = len(server.log_path.read_text().splitlines())
        faults += server.faults()
    finally:
        for one in subscribers:
            one.close()
        context.destroy(linger=0)
        server.stop()
    return figures, faults


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--subscribers", type=int, default=20)
    parser.add_argument("--phases", type=int, default=5, help="number of phases of each kind")
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of one phase")
    parser.add_argument(
        "--false-acks", action="store_true", help="also run subscribers that acknowledge previews without reading them"
    )
    options = parser.parse_args()
    kinds = ["no subscribers", "not reading", *(["false acks"] if options.false_acks else [])] * options.phases
    figures, faults = soak(options.folder, options.subscribers, kinds, options.seconds)
    return print_results(figures, faults)


if __name__ == "__main__":
    sys.exit(main())
