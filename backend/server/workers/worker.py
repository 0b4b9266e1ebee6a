# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker process: takes one job at a time from the server and runs it. A crash ends this process only.

python -m dreamwright.backend.server.workers.worker      (started by the server; stdin line 1: where to report)
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

import zmq

from dreamwright.shared.failure_causes import FailureCause

from ..monitoring.logging_setup import inherit_log
from .job_executor import JobExecutor
from .worker_protocol import Ready, RunJob, Stop, Watch, pack_order, unpack_order

ORPHAN_GRACE_S = 5.0  # for the current step once the server is gone; then the process ends


class Worker:
    """A socket to the server, and the job that it runs."""

    def __init__(self, address: str, secret: str, device: str) -> None:
        self._secret, self.device = secret, device
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.connect(address)
        self._stop: Stop | None = None
        self._is_watched = False
        self._orphaned = threading.Event()
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def _watch_parent(self) -> None:
        """Ends the process when the server does, however that happens: the server holds the other end of stdin."""
        sys.stdin.read()
        self._orphaned.set()
        time.sleep(ORPHAN_GRACE_S)
        os._exit(3)  # a kernel or a mesh that takes longer must not outlive the server

    def send(self, message: object) -> None:
        """Send a report to the server."""
        self._socket.send(pack_order(self._secret, message))

    def serve(self) -> None:
        """Take jobs until the server is gone."""
        self.send(Ready(self.device))
        while not self._orphaned.is_set():
            if self._socket.poll(1000):
                order = unpack_order(self._secret, self._socket.recv())
                if isinstance(order, RunJob):
                    self._stop, self._is_watched = None, False
                    self.run(order)
                    self.send(Ready(self.device))

    def run(self, order: RunJob) -> None:
        """Run one job; every failure becomes a report."""
        cause = JobExecutor(order, self.device, self.send, self._requested_stop, lambda: self._is_watched).run()
        if cause is FailureCause.DEVICE_FAULT:
            self._leave()

    def _requested_stop(self) -> str:
        """How to stop ("pause" or "cancel"), or "" to continue. Called after every step."""
        while self._socket.poll(0):
            order = unpack_order(self._secret, self._socket.recv())
            if isinstance(order, Stop):
                self._stop = order
            elif isinstance(order, Watch):
                self._is_watched = order.is_watched
        if self._orphaned.is_set():
            sys.exit("the server is gone; the checkpoint keeps what was done")
        return self._stop.mode if self._stop is not None else ""

    def _leave(self) -> None:
        """End this process after its last report: a device that has failed takes no further work from it."""
        self._socket.close(2000)
        zmq.Context.instance().term()
        sys.stderr.flush()
        os._exit(4)  # a regular exit would free memory of a device that does not answer


def main() -> None:
    """Serve the server that started this process."""
    inherit_log()
    request = json.loads(sys.stdin.readline())
    Worker(request["address"], request["secret"], request["device"]).serve()


if __name__ == "__main__":
    main()
