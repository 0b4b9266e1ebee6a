# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of client journals for lost and duplicate jobs, and of process statistics for growth."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

MIN_CHECKED_S = 600.0  # shorter runs still contain start-up growth; their figures are printed without a check
# allowed rise of the median from the second to the last third: the allocator's noise
RSS_SLACK_MB, RSS_SLACK = 3.0, 0.03


def read_journals(folder: Path) -> list[dict[str, Any]]:
    """Events of all clients, ordered by time."""
    lines = [
        line
        for path in sorted(folder.glob("clients-*.jsonl"))
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    return sorted((json.loads(line) for line in lines), key=lambda event: event["at"])


def check_jobs(
    events: list[dict[str, Any]], listed: dict[str, str] | None, attempts: dict[str, list[tuple[int, int]]]
) -> dict[str, Any]:
    """Job figures, with lost and duplicate jobs. `listed`: final state by job; None when the run was interrupted."""
    tickets = {event["ticket"]: event for event in events if event["what"] == "planned"}
    faults = [event["message"] for event in events if event["what"] == "fault"]
    jobs: dict[str, set[str]] = {}
    for event in events:
        if event["what"] == "answered":
            jobs.setdefault(event["ticket"], set()).add(event["job"])
    owners = Counter(job for found in jobs.values() for job in found)
    duplicate = [ticket for ticket, found in jobs.items() if len(found) > 1] + [
        job for job, count in owners.items() if count > 1
    ]
    ended = {event["job"]: event for event in events if event["what"] == "ended"}
    left = {event["job"] for event in events if event["what"] in ("delete requested", "deleted")}
    lost = []
    if listed is not None:
        duplicate += [job for job in listed if job not in owners]  # no ticket was submitted for it
        lost = [ticket for ticket in tickets if ticket not in jobs]
        lost += [job for job in owners if job not in left and job not in listed]
        lost += [job for job, state in listed.items() if state not in ("succeeded", "failed", "cancelled")]
    for job, started in attempts.items():
        numbers = [attempt for attempt, _ in started]
        if numbers != sorted(set(numbers)):
            duplicate.append(f"{job} had attempts {numbers}")
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
    latencies = sorted(event["ms"] for event in events if event["what"] == "replied")
    quantiles = statistics.quantiles(latencies, n=1000, method="inclusive") if len(latencies) > 1 else [0.0] * 999
    return {
        "tickets": len(tickets),
        "jobs": len(owners),
        "ended": dict(Counter(event["state"] for event in ended.values())),
        "lost": lost,
        "duplicate": duplicate,
        "attempts": sum(len(started) for started in attempts.values()),
        "meshes fetched": len(fetched),
        "distinct (seed, steps) pairs, each with one mesh hash": len(meshes),
        "requests": dict(Counter(event["kind"] for event in events if event["what"] == "replied")),
        "previews": sum(event["what"] == "preview" for event in events),
        "disconnects": sum(event["what"] == "disconnected" for event in events),
        "reconnects": sum(event["what"] == "link" and event["link"] == "online" for event in events),
        "refused (expected race)": dict(
            Counter(f"{event['kind']} {event['code']}" for event in events if event["what"] == "refused")
        ),
        "unanswered": sum(event["what"] == "unanswered" for event in events),
        "request ms": {
            "count": len(latencies),
            "median": quantiles[499],
            "p99": quantiles[989],
            "p99.9": quantiles[998],
            "worst": latencies[-1] if latencies else 0.0,
        },
        "faults": faults,
    }


def slope_per_hour(samples: list[tuple[float, float]]) -> float:
    """Slope of the least-squares line through (seconds, value), per hour."""
    if len(samples) < 3:
        return 0.0
    line = statistics.linear_regression([at for at, _ in samples], [value for _, value in samples])
    return round(3600 * line.slope, 3)


def check_growth(samples: list[dict[str, float]]) -> tuple[dict[str, Any], list[str]]:
    """Median of each third of the run and slope of the last two thirds, with a fault where the last median exceeds the
    slack.
    """
    figures: dict[str, Any] = {}
    faults = []
    third = max(1, len(samples) // 3)
    for name in ("server rss_mb", "server fds", "server threads", "worker rss_mb", "state_mb"):
        values = [(sample["at"], sample[name]) for sample in samples if sample.get(name) is not None]
        if not values:
            continue
        parts = [values[:third], values[third : 2 * third], values[2 * third :]]
        medians = [round(statistics.median(value for _, value in part), 1) if part else None for part in parts]
        figures[name] = {
            "medians of thirds": medians,
            "least": min(v for _, v in values),
            "most": max(v for _, v in values),
        }
        figures[name]["slope per hour in the last two thirds"] = slope_per_hour(values[third:])
        if values[-1][0] < MIN_CHECKED_S:
            continue
        slack = max(RSS_SLACK_MB, RSS_SLACK * medians[1]) if "rss" in name else 2.0
        if name != "state_mb" and medians[2] > medians[1] + slack:
            faults.append(f"{name} grows: {medians[1]} in the second third, {medians[2]} in the last")
    return figures, faults
