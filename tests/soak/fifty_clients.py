# SPDX-License-Identifier: GPL-3.0-or-later
"""Fifty clients on one encrypted server for an hour, without a lost or duplicate job or growth of memory or files.

    OMP_NUM_THREADS=1 python -m tests.soak.fifty_clients --minutes 60 --folder runs/fifty_clients

Clients of ten users submit tiny jobs, watch, pause, resume, cancel, fetch, delete, disconnect and reconnect
(load_clients.py). At random times a process of ten clients is killed and restarted, or stopped for longer than the
server's timeout. At the end all jobs finish, and every ticket is checked. Ctrl-C prints the figures so far.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dreamwright.shared.credentials import format_key, key_pair_to_map
from dreamwright.shared.messages import DeleteJob, JobList, ListJobs, SubmitJob
from tests.soak.command_line import soak_parser
from tests.soak.journal_checks import check_growth, check_jobs, read_journals
from tests.soak.observed_server import ObservedServer, ask, folder_mb, online, process_stats
from tests.soak.random_client import ENDED_STATES, PROMPT
from tests.soak.worker_processes import read_attempts
from tests.testing.tiny_model import QUICK, SLOW_RATES, offer_tiny_model

PROCESSES, USERS = 5, 10
SAMPLE_S = 10.0
SETTINGS = dict(setting.split("=") for setting in QUICK) | {
    "run.checkpoint_interval": "4",
    "run.threads": "1",
    "mesh.threshold": "1.0",
    "run.max_restarts": "0",
    "run.preview_interval": "3",
    **SLOW_RATES,
}


class ClientProcesses:
    """The client processes, which are killed, stopped and restarted at random."""

    def __init__(
        self, folder: Path, server: ObservedServer, model: str, clients: int, pace_s: float, seed: int
    ) -> None:
        self._folder, self._rng = folder, random.Random(seed)
        users = [f"user{number}" for number in range(USERS)]
        pairs = {name: key_pair_to_map(pair) for name, pair in server.pairs.items()}
        names = [(f"client{number}", users[number % USERS]) for number in range(clients)]
        common = {
            "address": server.address,
            "server": format_key(server.server_key),
            "model": model,
            "pace_s": pace_s,
            "seed": seed,
        }
        self._setups = [
            common | {"settings": SETTINGS, "pairs": pairs, "clients": names[number::PROCESSES]}
            for number in range(PROCESSES)
        ]
        self._processes: list[subprocess.Popen[str] | None] = [None] * PROCESSES
        self._due: dict[int, tuple[float, str]] = {}  # by process: when it continues, and how
        self.killed = self.stopped = 0

    def start(self, number: int) -> None:
        with (self._folder / f"clients-{number}.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.soak.load_clients", str(self._folder), str(number)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        process.stdin.write(json.dumps(self._setups[number]) + "\n")
        process.stdin.close()
        process.stdout.readline()  # its SIGTERM handler is installed: it ends only after all its jobs
        process.stdout.close()
        self._processes[number] = process

    def start_all(self) -> None:
        for number in range(PROCESSES):
            self.start(number)

    def kill_or_stop(self) -> None:
        """Kill or stop one random process; `revive` restarts or continues it later."""
        free = [number for number in range(PROCESSES) if number not in self._due]
        if not free:
            return
        number = self._rng.choice(free)
        process = self._processes[number]
        if self._rng.random() < 0.6:
            process.kill()
            process.wait()
            self.killed += 1
            self._due[number] = time.monotonic() + self._rng.uniform(1.0, 40.0), "start"
        else:
            process.send_signal(signal.SIGSTOP)
            self.stopped += 1
            self._due[number] = time.monotonic() + self._rng.uniform(3.0, 45.0), "continue"

    def revive(self, at_once: bool = False) -> None:
        """Restart or continue the processes that are due."""
        for number, (due, how) in list(self._due.items()):
            if at_once or time.monotonic() >= due:
                del self._due[number]
                if how == "start":
                    self.start(number)
                else:
                    self._processes[number].send_signal(signal.SIGCONT)

    def ended(self) -> list[str]:
        """A fault for each process that ended by itself."""
        ended = []
        for number, process in enumerate(self._processes):
            if number not in self._due and process.poll() is not None:
                ended.append(
                    f"client process {number} ended with status {process.returncode}; see clients-{number}.log"
                )
                self.start(number)
        return ended

    def drain(self, limit_s: float) -> list[str]:
        """Send SIGTERM to all processes and wait until their jobs have ended."""
        self.revive(at_once=True)
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        late, end = [], time.monotonic() + limit_s
        for number, process in enumerate(self._processes):
            try:
                status = process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(f"client process {number} still has open jobs after {limit_s:.0f} s")
            else:
                late += [f"client process {number} ended with status {status}"] if status else []
        return late

    def end(self) -> None:
        for process in self._processes:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


class Soak:
    """The server, the client processes and the measurements."""

    def __init__(self, folder: Path, clients: int, pace_s: float, fault_interval_s: float, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._fault_interval_s, self._rng = folder, fault_interval_s, random.Random(seed + 1)
        self.server = ObservedServer(folder, [f"user{number}" for number in range(USERS)], ["admin"]).start()
        self.admin = online(self.server.client("admin"))
        self._model = offer_tiny_model(self.server.models)
        self.clients = ClientProcesses(folder, self.server, self._model, clients, pace_s, seed)
        self.samples: list[dict[str, float]] = []
        self.faults: list[str] = []
        self.idle: dict[str, Any] = {}
        self._started = time.monotonic()

    def tick(self, seconds: float) -> None:
        """Tick the admin client for some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.admin.tick()
            time.sleep(0.05)

    def sample(self) -> dict[str, float]:
        server = self.server.stats()
        workers = [process_stats(pid).rss_mb for pid in self.server.workers()]
        sample = {"at": round(time.monotonic() - self._started, 1), "state_mb": folder_mb(self.server.state)}
        sample |= {f"server {name}": value for name, value in vars(server).items()}
        sample["worker rss_mb"] = max(workers, default=None)
        return sample

    def warm_up(self) -> None:
        """Run a first job, so that the worker's pipe and connection count as open files at the start."""
        reply = ask(self.admin, SubmitJob("first", PROMPT, "", self._model, "draft", 0, SETTINGS))
        job = reply.job.job
        while ask(self.admin, ListJobs()).jobs[0].state not in ENDED_STATES:
            self.tick(0.3)
        ask(self.admin, DeleteJob(job))

    def run(self, seconds: float, stopping: list[int]) -> None:
        self.warm_up()
        self.idle["before"] = self.sample()
        self._started = time.monotonic()
        self.clients.start_all()
        next_fault = self._started + self._fault_interval_s
        next_sample, printed_at = self._started + SAMPLE_S, self._started
        with (self._folder / "process_stats.jsonl").open("a", buffering=1) as stats_log:
            while (now := time.monotonic()) - self._started < seconds and not stopping:
                self.tick(0.2)
                self.clients.revive()
                self.faults += self.clients.ended()
                if now >= next_fault:
                    next_fault = now + self._rng.expovariate(1.0 / self._fault_interval_s)
                    self.clients.kill_or_stop()
                if now >= next_sample:
                    next_sample += SAMPLE_S
                    self.samples.append(self.sample())
                    stats_log.write(json.dumps(self.samples[-1]) + "\n")
                if now - printed_at > min(60.0, seconds / 5):
                    printed_at = now
                    self._print_progress(seconds)
                if self.server.process.poll() is not None:
                    self.faults.append(f"the server ended with status {self.server.process.returncode}")
                    return

    def _print_progress(self, seconds: float) -> None:
        figures = check_jobs(read_journals(self._folder), None, {})
        last, spent = self.samples[-1] if self.samples else self.idle["before"], time.monotonic() - self._started
        print(
            f"{spent / 60:.1f} of {seconds / 60:.0f} min (ends "
            f"{time.strftime('%H:%M', time.localtime(time.time() + seconds - spent))}, then drain): "
            f"{figures['tickets']} tickets, ended {sum(figures['ended'].values())}, "
            f"meshes {figures['meshes fetched']}, "
            f"request {figures['request ms']['median']:.0f}/{figures['request ms']['p99']:.0f} ms, server "
            f"{last['server rss_mb']:.1f} MB "
            f"{last['server fds']} fds {last['server threads']} threads, faults "
            f"{len(figures['faults']) + len(self.faults)}",
            flush=True,
        )

    def finish(self, settle_s: float = 40.0) -> dict[str, str]:
        """Wait until all jobs have ended; returns the state by job that the server lists."""
        self.faults += self.clients.drain(1800.0)
        found: dict[str, str] = {}
        before = 0
        while True:
            page = ask(self.admin, ListJobs(before))
            if not isinstance(page, JobList) or not page.jobs:
                break
            found |= {job.job: job.state for job in page.jobs}
            before = page.jobs[-1].changed
        self.tick(settle_s)  # longer than the server's timeout for lost clients
        self.idle["after"] = self.sample()
        self.idle["fds back"] = self.idle["after"]["server fds"] - self.idle["before"]["server fds"]
        if self.idle["fds back"] > 2:
            self.faults.append(f"{self.idle['fds back']} files stay open after all clients have disconnected")
        return found

    def close(self) -> None:
        self.clients.end()
        self.admin.close()
        self.server.stop()

    def figures(self, listed: dict[str, str] | None) -> dict[str, Any]:
        figures = check_jobs(read_journals(self._folder), listed, read_attempts(self.server.state))
        stats, growth = check_growth(self.samples)
        figures["killed and restarted"], figures["stopped"] = self.clients.killed, self.clients.stopped
        figures |= {"process stats": stats, "idle": self.idle, "warnings of the server": self.server.warnings()}
        figures["faults"] += self.faults + growth + [f"the server's log: {line}" for line in self.server.faults()]
        figures["faults"] += [f"lost: {name}" for name in figures["lost"]] + [
            f"duplicate: {name}" for name in figures["duplicate"]
        ]
        return figures


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--pace", type=float, default=4.0, help="mean seconds between two requests of a client")
    parser.add_argument(
        "--fault-interval", type=float, default=90.0, help="mean seconds between two processes being killed or stopped"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stopping: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stopping.append(number))
    started = time.monotonic()
    soak = Soak(options.folder, options.clients, options.pace, options.fault_interval, options.seed)
    listed: dict[str, str] | None = None
    try:
        soak.run(60 * options.minutes, stopping)
        if not stopping and soak.server.process.poll() is None:
            print("waiting some minutes until the open jobs have ended or are cancelled", flush=True)
            listed = soak.finish()
    finally:
        soak.close()
    figures = soak.figures(listed) | {"wall s": round(time.monotonic() - started)}
    text = json.dumps(figures, indent=1)
    (options.folder / "figures.json").write_text(text)
    print(text)
    print(f"{len(figures['faults'])} faults" + (", interrupted: losses are not checked" if listed is None else ""))
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
