# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose job is next: users take turns, then priority, then arrival; and how many jobs a user and the server may hold.

Start-time fair queueing (Goyal, Vin and Cheng 1996) with every job counted as one turn: a job's turn is the later of the
turn that its user would take next and the turn that the server is at. Who was away gains no credit, who floods only waits
for the turns that are their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dreamwright.shared.errors import RequestError


@dataclass(frozen=True)
class QueuedJob:
    """A queued job as the order sees it."""

    job: str
    owner: str
    priority: int  # larger goes first within a turn
    arrival: int  # smaller came first
    turn: int = 0  # 0: none yet; otherwise the turn it took before its worker or the server died, which it keeps


@dataclass(frozen=True)
class RoundRobin:
    """What was served so far: the turn of the job started last, and by user the turn that they would take next."""

    now: int = 1
    following: Mapping[str, int] = field(default_factory=dict)

    def of(self, owner: str) -> int:
        """The turn of this user's next job."""
        return max(self.now, self.following.get(owner, 0))


def sort_queue(waiting: Iterable[QueuedJob], turns: RoundRobin) -> list[tuple[int, QueuedJob]]:
    """(turn, job) of all that wait, next first: by turn, then interrupted ones, then priority, then arrival.

    Promises (tests/server/test_fairness.py): every job is in it once; a user's jobs stand by priority, then arrival; before a
    user's first job start at most two of each other user's, whatever arrives meanwhile; a new job never changes how the
    jobs of other users stand to each other.
    """
    lines: dict[str, list[QueuedJob]] = {}
    placed = []
    for job in waiting:
        if job.turn:
            placed.append((job.turn, job))
        else:
            lines.setdefault(job.owner, []).append(job)
    for owner, line in lines.items():
        line.sort(key=lambda job: (-job.priority, job.arrival))
        first = turns.of(owner)
        placed.extend((first + index, job) for index, job in enumerate(line))
    placed.sort(key=lambda pair: (pair[0], not pair[1].turn, -pair[1].priority, pair[1].arrival))
    return placed


def started(turns: RoundRobin, turn: int, owner: str, again: bool = False) -> RoundRobin:
    """The turns after a job that stood at `turn` has begun; `again`: it goes on and takes no new turn."""
    if again:
        return RoundRobin(max(turns.now, turn), turns.following)
    # Users who would take the present turn anyway need no entry, so the map holds only who is ahead.
    now = max(turns.now, turn)
    following = {user: next_turn for user, next_turn in turns.following.items() if next_turn > now}
    return RoundRobin(now, {**following, owner: turn + 1})


def check_quota(owner_open: int, owner_limit: int, all_open: int, all_limit: int) -> None:
    """Room for one more job? Raises Refused: "too-many" for the user's own limit, "queue-full" for the server's."""
    if owner_open >= owner_limit:
        raise RequestError(
            "too-many",
            f"{owner_open} of your jobs are queued, running or paused; allowed are {owner_limit} a user; "
            "wait until one has ended, or cancel one",
        )
    if all_open >= all_limit:
        raise RequestError(
            "queue-full",
            f"{all_open} jobs of all users are queued, running or paused; this server allows {all_limit}; "
            "send it again when one has ended",
        )


def check_priority(asked: int, present: int, is_admin: bool) -> None:
    """May this user give a job that priority? Raises Refused: above 0 and above what it has only an admin may."""
    highest = max(0, present)
    if asked > highest and not is_admin:
        raise RequestError(
            "not-allowed",
            f"the priority is {asked}; you may give up to {highest}; ask an admin of this server to raise it",
        )
