# SPDX-License-Identifier: GPL-3.0-or-later
"""100,000 broken messages from an artist who is let in, while another one works: through the wire, and at the door
itself.

python -m tests.soak.fuzz_server --messages 100000 --seed 1 --folder runs/fuzz
python -m tests.soak.fuzz_server --messages 100000 --seed 2 --direct --folder runs/fuzz
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import zmq

from dreamwright.backend.server import app
from dreamwright.backend.server.app import Server
from dreamwright.backend.server.transport.router_socket import Request
from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.messages import (
    DeleteJob,
    Done,
    JobChanged,
    JobDeleted,
    JobList,
    JobReply,
    ListJobs,
    PreviewAck,
    PreviewFrame,
    Refusal,
    SubmitJob,
)
from tests.soak.control_client import ControlClient
from tests.soak.fast_server_process import FastServerProcess
from tests.testing.fast_worker_server import FastRunner
from tests.testing.message_mutations import MessageMutations, drawn
from tests.testing.scripted_worker_server import asked

EVENTS = (JobChanged, JobDeleted, PreviewFrame)
AT_ONCE = 16  # messages on the way; more answers than the door keeps for a slow reader would be lost
FRAMES = (0.004, 0.0005)  # shares of messages in several frames, and of frames above the limit


def meant(data: bytes) -> Any:
    """The request that bytes are; None for none."""
    try:
        return unpack(data, limits.REQUEST_BYTES)[1]
    except ProtocolError:
        return None


class Counters:
    """What was sent, what came back, and what of it is wrong."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []
        self.jobs: set[str] = set()  # that the server ever told this artist of as a submit's
        self.forgotten: set[str] = set()

    def take(self, data: bytes, answer: Any) -> None:
        """An answer to a message."""
        kind = f"Refusal {answer.code}" if isinstance(answer, Refusal) else type(answer).__name__
        self.answers[kind] += 1
        request = meant(data)
        if isinstance(answer, Refusal) and answer.code == "internal":
            self.faults.append(f"internal: {data[:300].hex()}")
        elif request is None and not isinstance(answer, Refusal):
            self.faults.append(f"{kind} to what is no message: {data[:300].hex()}")
        elif isinstance(request, SubmitJob) and isinstance(answer, JobReply):
            self.jobs.add(answer.job.job)
        elif isinstance(request, DeleteJob) and isinstance(answer, Done):
            self.forgotten.add(request.job)

    def report(self) -> dict[str, Any]:
        return {
            "sent": dict(self.sent.most_common()),
            "answers": dict(self.answers.most_common()),
            "faults": self.faults[:20],
        }


def messages(count: int, number: int, structures: int) -> Iterator[tuple[str, bytes, MessageMutations]]:
    """(how it was made, bytes, their source), `structures` of them hypothesis' spread among the rest."""
    source, dice = MessageMutations(random.Random(number)), random.Random(-number)
    found = drawn(structures, number) if structures else []
    for _ in range(count):
        if found and dice.random() < 1.2 * structures / count:
            yield "structure", found.pop()[: limits.REQUEST_BYTES], source
        else:
            yield *source.draw(), source


class Attacker:
    """An admitted key, several of its messages always on the way."""

    def __init__(self, server: FastServerProcess, name: str) -> None:
        self.server, self.lock = server, server.authorized_client(name)
        self.own = server.socket(self.lock)
        self.tally = Counters()
        self.waiting: list[bytes] = []

    def request(self, message: Any) -> Any:
        """The answer to a right message, when nothing else is on the way."""
        self.own.send(pack(message, 1))
        return self._receive()

    def _receive(self) -> Any:
        while True:
            if not self.own.poll(60_000):
                raise TimeoutError(f"no answer in a minute; on the way: {[data[:200].hex() for data in self.waiting]}")
            answer = unpack(self.own.recv(), limits.REPLY_BYTES)[1]
            if not isinstance(answer, EVENTS):
                return answer
            if isinstance(answer, PreviewFrame):
                self.tally.answers["PreviewFrame (event)"] += 1

    def send(self, data: bytes, frames: list[bytes] | None = None) -> None:
        """A message, and then the answers of some before it."""
        self.own.send_multipart(frames or [data])
        if frames or not isinstance(meant(data), PreviewAck):
            self.waiting.append(b"" if frames else data)
        else:
            self.tally.answers["none, as is right for Seen"] += 1
        while len(self.waiting) >= AT_ONCE:
            self.settle_one()

    def settle_one(self) -> None:
        data = self.waiting[0]
        self.tally.take(data, self._receive())
        self.waiting.pop(0)

    def settle(self) -> None:
        while self.waiting:
            self.settle_one()

    def oversized(self, data: bytes) -> None:
        """A frame above the limit, on a connection of its own, which the server ends without a word."""
        other = self.server.socket(self.lock)
        other.send(
            (data or b"x") * (1 + limits.REQUEST_BYTES // max(1, len(data))) + b"x" * limits.ENCRYPTION_OVERHEAD_BYTES
        )
        if other.poll(20):
            self.tally.faults.append("a frame above the limit was answered")
        self.tally.answers["none, connection ended"] += 1
        other.close(0)


def fuzz_over_socket(folder: Path, count: int, number: int, structures: int) -> dict[str, Any]:
    """A real server: the attacker's messages, an artist beside him, the process, its memory and its store."""
    server, beside = FastServerProcess(folder), None
    try:
        artist, attacker = Attacker(server, "anna"), Attacker(server, "mallory")
        for ticket in range(5):
            artist.request(asked(f"t{ticket}", prompt="a blue chair"))
        while any(job.state != "succeeded" for job in artist.request(ListJobs()).jobs):
            time.sleep(0.05)
        before = artist.request(ListJobs()).jobs
        beside = ControlClient(server.address, artist.lock)
        while not beside.since()["answers"]:
            time.sleep(0.5)
        time.sleep(5.0)
        alone, rss, begun, dice = beside.since(), [server.rss_mb()], time.monotonic(), random.Random(number + 1)
        hers = [job.job for job in before]
        for index, (way, data, source) in enumerate(messages(count, number, structures)):
            if index % 1000 == 0:
                mine = list(attacker.tally.jobs - attacker.tally.forgotten)
                source.names = ["f" * 16, *dice.sample(mine, min(5, len(mine))), *hers]
                rss.append(server.rss_mb())
            lot = dice.random()
            if lot < FRAMES[0]:
                attacker.tally.sent["several frames"] += 1
                attacker.send(data, [data] * dice.choice([2, 3, 40]))
            elif lot < sum(FRAMES):
                attacker.tally.sent["above the limit"] += 1
                attacker.oversized(data)
            else:
                attacker.tally.sent[way] += 1
                attacker.send(data)
        attacker.settle()
        took, during = time.monotonic() - begun, beside.since()
        return {
            **judge(server, artist, attacker, before),
            "messages": count,
            "seconds": round(took, 1),
            "artist alone": alone,
            "artist meanwhile": during,
            "rss_mb": {
                "before": round(rss[0], 1),
                "after a tenth": round(rss[1 + len(rss) // 10], 1),
                "after": round(server.rss_mb(), 1),
                "most": round(server.peak_mb(), 1),
            },
        }
    finally:
        if beside is not None:
            beside.end()
        server.end()


def judge(server: FastServerProcess, artist: Attacker, attacker: Attacker, before: tuple[Any, ...]) -> dict[str, Any]:
    """Whether everything is still as it must be."""
    tally, faults = attacker.tally, list(attacker.tally.faults)
    if not server.is_alive:
        faults.append("the server ended")
    if artist.request(ListJobs()).jobs != before:
        faults.append("the artist's jobs are others than before")
    listed: set[str] = set()
    last = 0
    while True:
        page = attacker.request(ListJobs(before=last))
        listed |= {job.job for job in page.jobs}
        if not isinstance(page, JobList) or not page.jobs:
            break
        last = page.jobs[-1].changed
    if listed != tally.jobs - tally.forgotten:
        faults.append(f"the attacker has {len(listed)} jobs; he was told of {len(tally.jobs - tally.forgotten)}")
    noted = server.log_path.read_text(errors="replace")
    if "Traceback" in noted:
        faults.append(f"the log has {noted.count('Traceback')} tracebacks; see {server.log_path}")
    return {
        **tally.report(),
        "faults": faults[:20],
        "jobs made": len(tally.jobs),
        "jobs forgotten": len(tally.forgotten),
        "log_mb": round(len(noted) / 1e6, 2),
    }


def fuzz_in_process(
    folder: Path, count: int, number: int, structures: int, each: Callable[[Server], None] = lambda door: None
) -> dict[str, Any]:
    """The same without a wire, for speed: one call a message."""
    real, app.LocalRunner = app.LocalRunner, FastRunner
    try:
        door = Server("tcp://127.0.0.1:*", folder / "state", ("cpu",))
    finally:
        app.LocalRunner = real
    tally, said, begun = Counters(), [], time.monotonic()
    route = b"\0abcd"
    door.router.send = lambda to, data: said.append(data) is None
    try:
        for index, (way, data, source) in enumerate(messages(count, number, structures)):
            if index % 200 == 0:
                source.names = ["f" * 16, *list(door.store.records)[-5:]]
            tally.sent[way] += 1
            said.clear()
            door._answer(Request(route, zmq.Frame(data), 1))
            answers = [
                answer
                for _, answer in (unpack(told, limits.REPLY_BYTES) for told in said)
                if not isinstance(answer, EVENTS)
            ]
            if len(answers) != (not isinstance(meant(data), PreviewAck)):
                tally.faults.append(f"{len(answers)} answers: {data[:300].hex()}")
            for answer in answers:
                tally.take(data, answer)
            if index % 50 == 0:
                door.service.step()
                each(door)
        made = set(door.store.records)
        if made != tally.jobs - tally.forgotten:
            tally.faults.append(f"{len(made)} jobs; {len(tally.jobs - tally.forgotten)} were told of")
    finally:
        door.close()
    return {
        **tally.report(),
        "messages": count,
        "seconds": round(time.monotonic() - begun, 1),
        "jobs made": len(tally.jobs),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument(
        "--structures", type=int, default=2000, help="of them made by hypothesis from the messages' fields"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--direct", action="store_true", help="at the door itself, without a wire")
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    options = parser.parse_args()
    act = fuzz_in_process if options.direct else fuzz_over_socket
    report: Mapping[str, Any] = act(options.folder, options.messages, options.seed, options.structures)
    print(json.dumps(report, indent=1))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
