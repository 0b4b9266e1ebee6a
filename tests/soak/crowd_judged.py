# SPDX-License-Identifier: GPL-3.0-or-later
"""What fifty clients wrote down, judged: jobs lost or doubled, faults, and whether a server's memory and files grew."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

JUDGED_S = 600.0  # below it memory and files are still those of the beginning, and are only shown
RSS_SLACK_MB, RSS_SLACK = 3.0, 0.03  # the last third's median above the second's: noise of the allocator, not growth


def read_journals(folder: Path) -> list[dict[str, Any]]:
    """What all artists wrote, in order of time."""
    lines = [
        line
        for path in sorted(folder.glob("artists-*.jsonl"))
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    return sorted((json.loads(line) for line in lines), key=lambda event: event["at"])


def judge_jobs(
    events: list[dict[str, Any]], listed: dict[str, str] | None, attempts: dict[str, list[tuple[int, int]]]
) -> dict[str, Any]:
    """Figures of the jobs, and what is lost or doubled. `listed`: state by job at the end; None when it ended early."""
    tickets = {event["ticket"]: event for event in events if event["what"] == "intends"}
    faults = [event["words"] for event in events if event["what"] == "fault"]
    jobs: dict[str, set[str]] = {}
    for event in events:
        if event["what"] == "answered":
            jobs.setdefault(event["ticket"], set()).add(event["job"])
    owners = Counter(job for found in jobs.values() for job in found)
    doubled = [ticket for ticket, found in jobs.items() if len(found) > 1] + [
        job for job, count in owners.items() if count > 1
    ]
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
    faults += [
        f"seed and steps {key} gave {len(found)} different meshes" for key, found in meshes.items() if len(found) > 1
    ]
    faults += [
        f"job {event['job']} failed: {event['message']}" for event in ended.values() if event["state"] == "failed"
    ]
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
        "refused (a race)": dict(
            Counter(f"{event['kind']} {event['code']}" for event in events if event["what"] == "refused")
        ),
        "unanswered": sum(event["what"] == "unanswered" for event in events),
        "request ms": {
            "count": len(spent),
            "median": per_cent[499],
            "p99": per_cent[989],
            "p99.9": per_cent[998],
            "worst": spent[-1] if spent else 0.0,
        },
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
        told[name] = {
            "medians of thirds": medians,
            "least": min(v for _, v in values),
            "most": max(v for _, v in values),
        }
        told[name]["slope an hour in the last two thirds"] = slope_an_hour(values[third:])
        if values[-1][0] < JUDGED_S:
            continue
        slack = max(RSS_SLACK_MB, RSS_SLACK * medians[1]) if "rss" in name else 2.0
        if name != "state_mb" and medians[2] > medians[1] + slack:
            faults.append(f"{name} grows: {medians[1]} in the second third, {medians[2]} in the last")
    return told, faults
