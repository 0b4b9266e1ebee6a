# SPDX-License-Identifier: GPL-3.0-or-later
"""An artist who watches a job and says when pictures come: python -m tests.soak.watching_artist ADDRESS, keys on stdin.

A line "watching" with the time when pictures have come for half a second (two old ones may have lain in the buffers), and again
when they do after more than a second without.
"""

from __future__ import annotations

import json
import sys
import time

from dreamwright.shared.client import Client
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import key_pair_from_map, parse_key
from dreamwright.shared.messages import JobChanged, JobList, PreviewFrame, SubmitJob

FLOWING_S = 0.5


def main() -> None:
    """Watch until killed."""
    told = json.loads(sys.stdin.readline())
    client = Client(
        sys.argv[1], credentials=CurveCredentials(parse_key(told["server"]), key_pair_from_map(told["pair"]))
    )
    client.connect()
    client.subscribe()
    watched, pictured, since, is_told = "", 0.0, 0.0, False
    while True:
        for event in client.tick():
            if isinstance(event, JobList) and not event.jobs and client.state is ConnectionState.ONLINE:
                client.request(
                    SubmitJob("watched", "a red mushroom", "", "starter", "draft", 0, {"run.steps": 1_000_000}),
                    lambda reply: None,
                )
            jobs = event.jobs if isinstance(event, JobList) else (event.job,) if isinstance(event, JobChanged) else ()
            if jobs and not watched:
                watched = jobs[0].job
                client.subscribe(watched)
            if isinstance(event, PreviewFrame):
                now = time.monotonic()
                if now - pictured > 1.0:
                    since, is_told = now, False
                if now - since > FLOWING_S and not is_told:
                    is_told = True
                    print(json.dumps({"watching": now}), flush=True)
                pictured = now
        time.sleep(0.005)


if __name__ == "__main__":
    main()
