# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of the queue is fair for any users, priorities and arrivals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.server.jobs.queue_lines import QueueLines
from dreamwright.backend.server.jobs.scheduling import (
    QueuedJob,
    RoundRobin,
    check_priority,
    check_quota,
    sort_queue,
    started,
)
from dreamwright.shared.errors import RequestError

USERS = ("ada", "bob", "cem", "dee")
LINE = st.lists(st.tuples(st.sampled_from(USERS), st.integers(-10, 10)), max_size=30).map(
    lambda jobs: [QueuedJob(f"j{number}", owner, priority, number) for number, (owner, priority) in enumerate(jobs)]
)
HISTORY = st.lists(st.sampled_from(USERS), max_size=30)


def after(history: list[str]) -> RoundRobin:
    """The turns once these users were served, each asking whenever it was their turn."""
    turns = RoundRobin()
    for owner in history:
        turns = started(turns, turns.of(owner), owner)
    return turns


def names(waiting: list[QueuedJob], turns: RoundRobin) -> list[str]:
    return [job.job for _, job in sort_queue(waiting, turns)]


def test_many_jobs_of_one_user_do_not_delay_another() -> None:
    jobs_of_ada = [QueuedJob(f"a{i}", "ada", 0, i) for i in range(50)]
    late = QueuedJob("b", "bob", 0, 50)
    assert names([*jobs_of_ada, late], RoundRobin())[:3] == ["a0", "b", "a1"]
    turns = after(["ada"])  # one of hers was started before he came
    assert names([*jobs_of_ada[1:], late], turns)[0] == "b"


def test_order_is_turn_then_priority_then_arrival() -> None:
    waiting = [
        QueuedJob("a1", "ada", 0, 1),
        QueuedJob("a2", "ada", 3, 2),
        QueuedJob("b1", "bob", 0, 3),
        QueuedJob("b2", "bob", 0, 4),
        QueuedJob("c1", "cem", 9, 5),
    ]
    assert names(waiting, RoundRobin()) == ["c1", "a2", "b1", "a1", "b2"]


def test_job_without_its_worker_keeps_its_turn() -> None:
    waiting = [QueuedJob("a1", "ada", 9, 1), QueuedJob("b1", "bob", -5, 2, turn=3)]
    assert names(waiting, RoundRobin(3, {"bob": 4})) == ["b1", "a1"]
    assert started(RoundRobin(3, {"bob": 4}), 3, "bob", again=True) == RoundRobin(3, {"bob": 4})


def test_idle_users_gain_no_credit() -> None:
    turns = after(["ada"] * 20)
    waiting = [QueuedJob(f"a{i}", "ada", 0, i) for i in range(3)] + [
        QueuedJob(f"b{i}", "bob", 0, 10 + i) for i in range(3)
    ]
    assert names(waiting, turns) == ["b0", "a0", "b1", "a1", "b2", "a2"]


@given(LINE, HISTORY)
def test_each_waiting_job_is_queued_once(waiting: list[QueuedJob], history: list[str]) -> None:
    """Work-conserving: a free device finds a job whenever one waits, whoever's it is."""
    assert sorted(names(waiting, after(history))) == sorted(job.job for job in waiting)


@given(LINE, HISTORY, st.randoms(use_true_random=False))
def test_order_ignores_the_input_order(waiting: list[QueuedJob], history: list[str], rng: object) -> None:
    shuffled = list(waiting)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert names(shuffled, after(history)) == names(waiting, after(history))


@given(LINE, HISTORY)
def test_jobs_of_one_user_are_ordered_by_priority_then_arrival(waiting: list[QueuedJob], history: list[str]) -> None:
    ordered = [job for _, job in sort_queue(waiting, after(history))]
    for owner in USERS:
        own = [job for job in ordered if job.owner == owner]
        assert own == sorted(own, key=lambda job: (-job.priority, job.arrival))


@given(LINE, HISTORY, st.sampled_from(USERS), st.integers(-10, 10))
def test_new_jobs_keep_the_relative_order_of_others(
    waiting: list[QueuedJob], history: list[str], owner: str, priority: int
) -> None:
    turns = after(history)
    more = [*waiting, QueuedJob("new", owner, priority, 99)]
    others = {job.job for job in waiting if job.owner != owner}
    assert [name for name in names(more, turns) if name in others] == [
        name for name in names(waiting, turns) if name in others
    ]


@given(LINE, HISTORY)
def test_assigning_the_first_keeps_the_order_of_the_rest(waiting: list[QueuedJob], history: list[str]) -> None:
    """So the places that artists see only count down while nobody submits, raises or pauses."""
    turns = after(history)
    ordered = sort_queue(waiting, turns)
    if ordered:
        turn, first = ordered[0]
        rest = names([job for job in waiting if job is not first], started(turns, turn, first.owner))
        assert rest == [job.job for _, job in ordered[1:]]


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(USERS[1:]), st.integers(-10, 10)), max_size=4), min_size=20, max_size=20
    ),
    HISTORY,
    LINE,
)
def test_no_user_starves(jobs_of_ada: list[list[tuple[str, int]]], history: list[str], line: list[QueuedJob]) -> None:
    """Ada's lowest job starts after at most two of each other user's, though they keep sending ones of higher
    priority.
    """
    turns = after(history)
    waiting = [job for job in line if job.owner != "ada"] + [QueuedJob("hers", "ada", -10, 1000)]
    served: dict[str, int] = {}
    for round_number, sent in enumerate(jobs_of_ada):
        turn, first = sort_queue(waiting, turns)[0]
        turns = started(turns, turn, first.owner)
        waiting.remove(first)
        if first.job == "hers":
            assert all(count <= 2 for count in served.values())
            return
        served[first.owner] = served.get(first.owner, 0) + 1
        waiting += [
            QueuedJob(f"n{round_number}-{i}", owner, priority, 2000 + round_number * 10 + i)
            for i, (owner, priority) in enumerate(sent)
        ]
    raise AssertionError(f"hers still waits after {served}")


@given(st.lists(st.sampled_from(USERS), min_size=1, max_size=60))
def test_turns_are_stored_only_for_users_ahead(history: list[str]) -> None:
    turns = after(history)
    assert len(turns.next_turns) <= len(USERS)
    assert all(turns.now < following <= turns.now + 1 for following in turns.next_turns.values())


def test_quota_errors_name_the_limit_and_the_remedy() -> None:
    check_quota(1, 2, 3, 4)
    with pytest.raises(RequestError, match="2 of your jobs.*allowed are 2.*cancel one") as refused:
        check_quota(2, 2, 3, 4)
    assert refused.value.code == "too-many"
    with pytest.raises(RequestError, match="4 jobs of all users.*allows 4.*send it again") as refused:
        check_quota(1, 2, 4, 4)
    assert refused.value.code == "queue-full"


@pytest.mark.parametrize(
    ("priority", "present", "is_admin", "fine"),
    [
        (-3, 0, False, True),
        (0, -3, False, True),
        (1, 0, False, False),
        (5, 5, False, True),
        (6, 5, False, False),
        (10, 0, True, True),
    ],
)
def test_only_admins_may_raise_priority(priority: int, present: int, is_admin: bool, fine: bool) -> None:
    if fine:
        check_priority(priority, present, is_admin)
        return
    with pytest.raises(RequestError, match="you may give up to .*ask an admin") as refused:
        check_priority(priority, present, is_admin)
    assert refused.value.code == "not-allowed"


def test_interrupted_jobs_go_first_in_their_turn() -> None:
    waiting = [QueuedJob("a", "ada", 10, 1), replace(QueuedJob("b", "bob", -10, 2), turn=1)]
    assert names(waiting, RoundRobin(1)) == ["b", "a"]


# --- the same order, kept sorted


@given(st.data())
def test_kept_queue_agrees_with_the_sort(data: st.DataObject) -> None:
    """Through any changes: the first job and the turn of each are those of `sort_queue`."""
    lines, jobs = QueueLines(), {}
    turns = RoundRobin()
    for arrival in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["put", "put", "put", "priority", "remove", "start", "turn"]))
        name = data.draw(st.sampled_from(sorted(jobs))) if jobs else ""
        if what == "put" or not name:
            owner = data.draw(st.sampled_from("abc"))
            jobs[f"j{arrival}"] = QueuedJob(f"j{arrival}", owner, data.draw(st.integers(-2, 2)), arrival)
            lines.put(jobs[f"j{arrival}"])
        elif what == "priority":
            jobs[name] = replace(jobs[name], priority=data.draw(st.integers(-2, 2)))
            lines.put(jobs[name])
        elif what == "turn":
            jobs[name] = replace(jobs[name], turn=data.draw(st.sampled_from([-2, -1, 0, 1, 2, 5])))
            lines.put(jobs[name])
        elif what == "remove":
            del jobs[name]
            lines.remove(name)
            lines.remove(name)
        else:
            first = lines.first(turns)
            turns = started(turns, lines.turn_of(first, turns), jobs[first].owner, bool(jobs[first].turn))
            del jobs[first]
            lines.remove(first)
        order = sort_queue(jobs.values(), turns)
        assert lines.first(turns) == (order[0][1].job if order else "")
        assert {queued.job: turn for turn, queued in order} == {job: lines.turn_of(job, turns) for job in jobs}
        assert len(lines) == len(jobs) and {job.job for job in lines} == set(jobs)
