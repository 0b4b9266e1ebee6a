# SPDX-License-Identifier: GPL-3.0-or-later
"""An hour of fifty clients at a real encrypted server: no job lost or doubled, no fault, and memory and files stay as they were.

    OMP_NUM_THREADS=1 python -m tests.soak.fifty_clients --minutes 60 --folder runs/fifty_clients

Artists of ten users submit tiny jobs, watch, pause, resume, cancel, fetch, forget, leave and come back (busy_artists.py). Now
and then a process of ten of them is killed and started anew, or stands still for longer than the server waits. At the end
all jobs run to their end, and every ticket is accounted for. Ctrl-C prints the figures so far.
"""

from __future__ import annotations

import argparse
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
from tests.soak.crowd_judged import judge_jobs, judge_vitals, read_journals
from tests.soak.load_clients import ENDED_STATES, PROMPT
from tests.soak.served import Served, ask, folder_mb, online, vitals
from tests.soak.worker_traces import read_attempts
from tests.testing.tiny_model import QUICK, offer_tiny_model

PROCESSES, USERS = 5, 10
SAMPLE_S = 10.0
SETTINGS = dict(setting.split("=") for setting in QUICK) | {
    "run.checkpoint_interval": "4", "run.threads": "1", "mesh.threshold": "1.0", "run.max_restarts": "0", "run.preview_interval": "3",
}  # fmt: skip


class Crowd:
    """The processes of artists: started, killed, stopped for a while, started again."""

    def __init__(self, folder: Path, served: Served, model: str, clients: int, pace_s: float, seed: int) -> None:
        self._folder, self._dice = folder, random.Random(seed)
        users = [f"user{number}" for number in range(USERS)]
        pairs = {name: key_pair_to_map(pair) for name, pair in served.pairs.items()}
        names = [(f"artist{number}", users[number % USERS]) for number in range(clients)]
        common = {
            "address": served.address,
            "server": format_key(served.server_key),
            "model": model,
            "pace_s": pace_s,
            "seed": seed,
        }
        self._told = [
            common | {"settings": SETTINGS, "pairs": pairs, "artists": names[number::PROCESSES]} for number in range(PROCESSES)
        ]  # fmt: skip
        self._processes: list[subprocess.Popen[str] | None] = [None] * PROCESSES
        self._due: dict[int, tuple[float, str]] = {}  # by process, when it goes on and how
        self.killed = self.stopped = 0

    def start(self, number: int) -> None:
        with (self._folder / f"artists-{number}.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.soak.load_clients", str(self._folder), str(number)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        process.stdin.write(json.dumps(self._told[number]) + "\n")
        process.stdin.close()
        process.stdout.readline()  # from now on it ends only when all its jobs have
        process.stdout.close()
        self._processes[number] = process

    def start_all(self) -> None:
        for number in range(PROCESSES):
            self.start(number)

    def strike(self) -> None:
        """A whole process vanishes: for good, to come back later, or in a standstill."""
        free = [number for number in range(PROCESSES) if number not in self._due]
        if not free:
            return
        number = self._dice.choice(free)
        process = self._processes[number]
        if self._dice.random() < 0.6:
            process.kill()
            process.wait()
            self.killed += 1
            self._due[number] = time.monotonic() + self._dice.uniform(1.0, 40.0), "start"
        else:
            process.send_signal(signal.SIGSTOP)
            self.stopped += 1
            self._due[number] = time.monotonic() + self._dice.uniform(3.0, 45.0), "continue"

    def revive(self, at_once: bool = False) -> None:
        """Those whose time has come go on."""
        for number, (due, how) in list(self._due.items()):
            if at_once or time.monotonic() >= due:
                del self._due[number]
                if how == "start":
                    self.start(number)
                else:
                    self._processes[number].send_signal(signal.SIGCONT)

    def dead(self) -> list[str]:
        """Processes that ended by themselves, which none may."""
        told = []
        for number, process in enumerate(self._processes):
            if number not in self._due and process.poll() is not None:
                told.append(
                    f"artists' process {number} ended with status {process.returncode}; see artists-{number}.log"
                )
                self.start(number)
        return told

    def drain(self, limit_s: float) -> list[str]:
        """Let all come to their end."""
        self.revive(at_once=True)
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        late, end = [], time.monotonic() + limit_s
        for number, process in enumerate(self._processes):
            try:
                status = process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(f"artists' process {number} had not got all its jobs' ends in {limit_s:.0f} s")
            else:
                late += [f"artists' process {number} ended with status {status}"] if status else []
        return late

    def end(self) -> None:
        for process in self._processes:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


class Soak:
    """The server, the crowd, and what is measured of them."""

    def __init__(self, folder: Path, clients: int, pace_s: float, strike_s: float, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._strike_s, self._dice = folder, strike_s, random.Random(seed + 1)
        self.served = Served(folder, [f"user{number}" for number in range(USERS)], ["keeper"]).start()
        self.keeper = online(self.served.client("keeper"))
        self._model = offer_tiny_model(self.served.models)
        self.crowd = Crowd(folder, self.served, self._model, clients, pace_s, seed)
        self.samples: list[dict[str, float]] = []
        self.faults: list[str] = []
        self.idle: dict[str, Any] = {}
        self._begun = time.monotonic()

    def tick(self, seconds: float) -> None:
        """Keep the keeper's connection alive for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.keeper.tick()
            time.sleep(0.05)

    def sample(self) -> dict[str, float]:
        server = self.served.vitals()
        workers = [vitals(pid).rss_mb for pid in self.served.workers()]
        told = {"at": round(time.monotonic() - self._begun, 1), "state_mb": folder_mb(self.served.state)}
        told |= {f"server {name}": value for name, value in vars(server).items()}
        told["worker rss_mb"] = max(workers, default=None)
        return told

    def warm_up(self) -> None:
        """A first job, so that a worker runs and its pipe and connection are among the files of the beginning."""
        asked = ask(self.keeper, SubmitJob("first", PROMPT, "", self._model, "draft", 0, SETTINGS))
        job = asked.job.job
        while ask(self.keeper, ListJobs()).jobs[0].state not in ENDED_STATES:
            self.tick(0.3)
        ask(self.keeper, DeleteJob(job))

    def run(self, seconds: float, stopping: list[int]) -> None:
        self.warm_up()
        self.idle["before"] = self.sample()
        self._begun = time.monotonic()
        self.crowd.start_all()
        strike = self._begun + self._strike_s
        next_sample, told_at = self._begun + SAMPLE_S, self._begun
        with (self._folder / "vitals.jsonl").open("a", buffering=1) as vitals_log:
            while (now := time.monotonic()) - self._begun < seconds and not stopping:
                self.tick(0.2)
                self.crowd.revive()
                self.faults += self.crowd.dead()
                if now >= strike:
                    strike = now + self._dice.expovariate(1.0 / self._strike_s)
                    self.crowd.strike()
                if now >= next_sample:
                    next_sample += SAMPLE_S
                    self.samples.append(self.sample())
                    vitals_log.write(json.dumps(self.samples[-1]) + "\n")
                if now - told_at > min(60.0, seconds / 5):
                    told_at = now
                    self._tell(seconds)
                if self.served.process.poll() is not None:
                    self.faults.append(f"the server ended with status {self.served.process.returncode}")
                    return

    def _tell(self, seconds: float) -> None:
        told = judge_jobs(read_journals(self._folder), None, {})
        last, spent = self.samples[-1] if self.samples else self.idle["before"], time.monotonic() - self._begun
        print(
            f"{spent / 60:.1f} of {seconds / 60:.0f} min (ends {time.strftime('%H:%M', time.localtime(time.time() + seconds - spent))}, then the drain): "
            f"{told['tickets']} tickets, ended {sum(told['ended'].values())}, meshes {told['meshes fetched']}, "
            f"request {told['request ms']['median']:.0f}/{told['request ms']['p99']:.0f} ms, server {last['server rss_mb']:.1f} MB "
            f"{last['server fds']} fds {last['server threads']} threads, faults {len(told['faults']) + len(self.faults)}", flush=True)  # fmt: skip

    def finish(self, calm_s: float = 40.0) -> dict[str, str]:
        """Let all jobs end; what the server then lists."""
        self.faults += self.crowd.drain(1800.0)
        found: dict[str, str] = {}
        before = 0
        while True:
            page = ask(self.keeper, ListJobs(before))
            if not isinstance(page, JobList) or not page.jobs:
                break
            found |= {job.job: job.state for job in page.jobs}
            before = page.jobs[-1].changed
        self.tick(calm_s)  # longer than the server needs to let go of whoever is gone
        self.idle["after"] = self.sample()
        self.idle["fds back"] = self.idle["after"]["server fds"] - self.idle["before"]["server fds"]
        if self.idle["fds back"] > 2:
            self.faults.append(f"{self.idle['fds back']} files stay open after all clients have gone")
        return found

    def close(self) -> None:
        self.crowd.end()
        self.keeper.close()
        self.served.stop()

    def figures(self, listed: dict[str, str] | None) -> dict[str, Any]:
        told = judge_jobs(read_journals(self._folder), listed, read_attempts(self.served.state))
        lived, growth = judge_vitals(self.samples)
        told["killed and started anew"], told["stood still"] = self.crowd.killed, self.crowd.stopped
        told |= {"vitals": lived, "idle": self.idle, "warnings of the server": self.served.warnings()}
        told["faults"] += self.faults + growth + [f"the server's log: {line}" for line in self.served.faults()]
        told["faults"] += [f"lost: {name}" for name in told["lost"]] + [f"doubled: {name}" for name in told["doubled"]]
        return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--pace", type=float, default=4.0, help="seconds between two doings of an artist, on average")
    parser.add_argument(
        "--strike", type=float, default=90.0, help="seconds between two processes that vanish, on average"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stopping: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stopping.append(number))
    begun = time.monotonic()
    soak = Soak(options.folder, options.clients, options.pace, options.strike, options.seed)
    listed: dict[str, str] | None = None
    try:
        soak.run(60 * options.minutes, stopping)
        if not stopping and soak.served.process.poll() is None:
            print("the jobs that are left run to their end, or are cancelled: some minutes", flush=True)
            listed = soak.finish()
    finally:
        soak.close()
    told = soak.figures(listed) | {"wall s": round(time.monotonic() - begun)}
    text = json.dumps(told, indent=1)
    (options.folder / "figures.json").write_text(text)
    print(text)
    print(f"{len(told['faults'])} faults" + (", ended early: not judged for losses" if listed is None else ""))
    return 1 if told["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
