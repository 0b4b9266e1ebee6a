# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that watches a job and prints when previews arrive: python -m tests.soak.preview_watcher ADDRESS.

The keys are read from stdin as one line of JSON. Prints {"watching": time} once previews have arrived for half a
second,
which excludes two old ones left in socket buffers, and again after each gap of more than a second.
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
    setup = json.loads(sys.stdin.readline())
    client = Client(
        sys.argv[1], credentials=CurveCredentials(parse_key(setup["server"]), key_pair_from_map(setup["pair"]))
    )
    client.connect()
    client.subscribe()
    watched, preview_at, since, is_reported = "", 0.0, 0.0, False
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
                if now - preview_at > 1.0:
                    since, is_reported = now, False
                if now - since > FLOWING_S and not is_reported:
                    is_reported = True
                    print(json.dumps({"watching": now}), flush=True)
                preview_at = now
        time.sleep(0.005)


if __name__ == "__main__":
    main()
