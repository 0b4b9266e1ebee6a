# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of the queue (users take turns, then priority, then arrival), and the quotas of users and server.

Start-time fair queueing (Goyal, Vin and Cheng 1996) in which every job counts as one turn: a job's turn is the later of
its user's next turn and the server's current turn. A user who was away gains no credit; a user who floods the queue
waits for their own turns only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dreamwright.shared.errors import RequestError


@dataclass(frozen=True)
class QueuedJob:
    """The part of a queued job that decides its position."""

    job: str
    owner: str
    priority: int  # larger goes first within a turn
    arrival: int  # smaller came first
    turn: int = 0  # 0: none yet; below: moved before all others; otherwise of a start that was interrupted


@dataclass(frozen=True)
class RoundRobin:
    """The turns served so far: the turn of the job that was started last, and the next turn of each user."""

    now: int = 1
    next_turns: Mapping[str, int] = field(default_factory=dict)  # users whose next turn is `now` have no entry

    def of(self, owner: str) -> int:
        """The turn of this user's next job."""
        return max(self.now, self.next_turns.get(owner, 0))


def sort_queue(queued: Iterable[QueuedJob], turns: RoundRobin) -> list[tuple[int, QueuedJob]]:
    """(turn, job) of all queued jobs, next first: by turn, then interrupted ones, then priority, then arrival.

    Guarantees: every job appears once; a user's jobs are ordered by priority, then arrival; at most two jobs of each
    other user start before a user's first job, whatever arrives meanwhile; a new job never changes the order of other
    users' jobs among each other.
    """
    lines: dict[str, list[QueuedJob]] = {}
    placed = []
    for job in queued:
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


def before_all(queued: Iterable[QueuedJob]) -> int:
    """The turn of a job that an admin moves before all of these; a turn below 0 costs its owner none of theirs."""
    return min(0, min((job.turn for job in queued), default=0)) - 1


def started(turns: RoundRobin, turn: int, owner: str, again: bool = False) -> RoundRobin:
    """The turns after a job of `owner` has started at `turn`; `again`: it is resumed and takes no new turn."""
    now = max(turns.now, turn)
    if again:
        return RoundRobin(now, turns.next_turns)
    next_turns = {user: next_turn for user, next_turn in turns.next_turns.items() if next_turn > now}
    return RoundRobin(now, {**next_turns, owner: turn + 1})


def check_quota(owner_open: int, owner_limit: int, all_open: int, all_limit: int) -> None:
    """Raises RequestError when one more job exceeds the user's limit ("too-many") or the server's ("queue-full")."""
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


def check_priority(requested: int, present: int, is_admin: bool) -> None:
    """Raises RequestError when a user sets a priority above 0 and above the job's present one; admins may."""
    highest = max(0, present)
    if requested > highest and not is_admin:
        raise RequestError(
            "not-allowed",
            f"the priority is {requested}; you may give up to {highest}; ask an admin of this server to raise it",
        )
