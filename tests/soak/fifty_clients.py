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
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dreamwright.shared.messages import Forget, JobList, ListJobs, Submit
from dreamwright.shared.pairing import key_text, pair_text
from tests.soak.busy_artists import ENDED_STATES, PROMPT
from tests.soak.served import Served, ask, folder_mb, online, vitals
from tests.soak.worker_traces import read_attempts
from tests.tiny_model import QUICK, offer_tiny_model

PROCESSES, USERS = 5, 10
SAMPLE_S = 10.0
JUDGED_S = 600.0  # below it memory and files are still those of the beginning, and are only shown
RSS_SLACK_MB, RSS_SLACK = 3.0, 0.03  # the last third's median above the second's: noise of the allocator, not growth
SETTINGS = dict(setting.split("=") for setting in QUICK) | {
    "run.checkpoint_interval": "4", "run.threads": "1", "mesh.threshold": "1.0", "run.max_restarts": "0", "run.preview_interval": "3",
}  # fmt: skip


class Crowd:
    """The processes of artists: started, killed, stopped for a while, started again."""

    def __init__(self, folder: Path, served: Served, model: str, clients: int, pace_s: float, seed: int) -> None:
        self._folder, self._dice = folder, random.Random(seed)
        users = [f"user{number}" for number in range(USERS)]
        pairs = {name: pair_text(pair) for name, pair in served.pairs.items()}
        names = [(f"artist{number}", users[number % USERS]) for number in range(clients)]
        common = {"address": served.address, "server": key_text(served.server_key), "model": model, "pace_s": pace_s, "seed": seed}
        self._told = [
            common | {"settings": SETTINGS, "pairs": pairs, "artists": names[number::PROCESSES]} for number in range(PROCESSES)
        ]  # fmt: skip
        self._processes: list[subprocess.Popen[str] | None] = [None] * PROCESSES
        self._due: dict[int, tuple[float, str]] = {}  # by process, when it goes on and how
        self.killed = self.stopped = 0

    def start(self, number: int) -> None:
        with (self._folder / f"artists-{number}.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.soak.busy_artists", str(self._folder), str(number)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
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
                told.append(f"artists' process {number} ended with status {process.returncode}; see artists-{number}.log")
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


def read_journals(folder: Path) -> list[dict[str, Any]]:
    """What all artists wrote, in order of time."""
    lines = [line for path in sorted(folder.glob("artists-*.jsonl")) for line in path.read_text().splitlines() if line.endswith("}")]
    return sorted((json.loads(line) for line in lines), key=lambda event: event["at"])


def judge_jobs(events: list[dict[str, Any]], listed: dict[str, str] | None, attempts: dict[str, list[tuple[int, int]]]) -> dict[str, Any]:
    """Figures of the jobs, and what is lost or doubled. `listed`: state by job at the end; None when it ended early."""
    tickets = {event["ticket"]: event for event in events if event["what"] == "intends"}
    faults = [event["words"] for event in events if event["what"] == "fault"]
    jobs: dict[str, set[str]] = {}
    for event in events:
        if event["what"] == "answered":
            jobs.setdefault(event["ticket"], set()).add(event["job"])
    owners = Counter(job for found in jobs.values() for job in found)
    doubled = [ticket for ticket, found in jobs.items() if len(found) > 1] + [job for job, count in owners.items() if count > 1]
    ended = {event["job"]: event for event in events if event["what"] == "ended"}
    left = {event["job"] for event in events if event["what"] in ("forgets", "forgotten")}
    lost = []
    if listed is not None:
        doubled += [job for job in listed if job not in owners]  # made for nobody's ticket
        lost = [ticket for ticket in tickets if ticket not in jobs]
        lost += [job for job in owners if job not in left and job not in listed]
        lost += [job for job, state in listed.items() if state not in ("succeeded", "failed", "cancelled")]
    for job, told in attempts.items():
        numbers = [attempt for attempt, _ in told]
        if numbers != sorted(set(numbers)):
            doubled.append(f"{job} had attempts {numbers}")
    meshes: dict[tuple[int, int], set[str]] = {}
    fetched = [event for event in events if event["what"] == "fetched"]
    for event in fetched:
        if event["state"] == "succeeded":
            meshes.setdefault((event["seed"], event["steps"]), set()).add(event["sha"])
    faults += [f"seed and steps {key} gave {len(found)} different meshes" for key, found in meshes.items() if len(found) > 1]
    faults += [f"job {event['job']} failed: {event['message']}" for event in ended.values() if event["state"] == "failed"]
    spent = sorted(event["ms"] for event in events if event["what"] == "asked")
    per_cent = statistics.quantiles(spent, n=1000, method="inclusive") if len(spent) > 1 else [0.0] * 999
    return {
        "tickets": len(tickets),
        "jobs": len(owners),
        "ended": dict(Counter(event["state"] for event in ended.values())),
        "lost": lost,
        "doubled": doubled,
        "attempts begun": sum(len(told) for told in attempts.values()),
        "meshes fetched": len(fetched),
        "kinds of succeeded mesh (seed, steps), each of one hash": len(meshes),
        "requests": dict(Counter(event["kind"] for event in events if event["what"] == "asked")),
        "previews": sum(event["what"] == "picture" for event in events),
        "left without a word": sum(event["what"] == "leaves" for event in events),
        "online again": sum(event["what"] == "link" and event["link"] == "online" for event in events),
        "refused (a race)": dict(Counter(f"{event['kind']} {event['code']}" for event in events if event["what"] == "refused")),
        "unanswered": sum(event["what"] == "unanswered" for event in events),
        "request ms": {"count": len(spent), "median": per_cent[499], "p99": per_cent[989], "p99.9": per_cent[998], "worst": spent[-1] if spent else 0.0},
        "faults": faults,
    }


def slope_an_hour(samples: list[tuple[float, float]]) -> float:
    """Of the least squares line, per hour."""
    if len(samples) < 3:
        return 0.0
    line = statistics.linear_regression([at for at, _ in samples], [value for _, value in samples])
    return round(3600 * line.slope, 3)


def judge_vitals(samples: list[dict[str, float]]) -> tuple[dict[str, Any], list[str]]:
    """Medians of each third and the last two thirds' slope. Growth is a last third above the second by more than the slack."""
    told: dict[str, Any] = {}
    faults = []
    third = max(1, len(samples) // 3)
    for name in ("server rss_mb", "server fds", "server threads", "worker rss_mb", "state_mb"):
        values = [(sample["at"], sample[name]) for sample in samples if sample.get(name) is not None]
        if not values:
            continue
        parts = [values[:third], values[third : 2 * third], values[2 * third :]]
        medians = [round(statistics.median(value for _, value in part), 1) if part else None for part in parts]
        told[name] = {"medians of thirds": medians, "least": min(v for _, v in values), "most": max(v for _, v in values)}
        told[name]["slope an hour in the last two thirds"] = slope_an_hour(values[third:])
        if values[-1][0] < JUDGED_S:
            continue
        slack = max(RSS_SLACK_MB, RSS_SLACK * medians[1]) if "rss" in name else 2.0
        if name != "state_mb" and medians[2] > medians[1] + slack:
            faults.append(f"{name} grows: {medians[1]} in the second third, {medians[2]} in the last")
    return told, faults


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
        asked = ask(self.keeper, Submit("first", PROMPT, "", self._model, "draft", 0, SETTINGS))
        job = asked.job.job
        while ask(self.keeper, ListJobs()).jobs[0].state not in ENDED_STATES:
            self.tick(0.3)
        ask(self.keeper, Forget(job))

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
    parser.add_argument("--strike", type=float, default=90.0, help="seconds between two processes that vanish, on average")
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
