# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker process: takes one job at a time from the server and makes it. It dies alone, the server goes on.

python -m dreamwright.backend.server.workers.worker      (the server starts it; its first line on stdin says where to report)
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

import zmq

from dreamwright.shared.failure_causes import Cause

from ..monitoring.logging_setup import inherit_log
from .job_executor import JobExecutor
from .worker_protocol import Ready, Stop, RunJob, pack_order, unpack_order

ORPHAN_GRACE_S = 5.0  # for the step in hand, once the server is gone; then the process ends wherever it is


class Worker:
    """The process's one object: a socket to the server, and the job in hand."""

    def __init__(self, address: str, secret: str, device: str) -> None:
        self._secret, self.device = secret, device
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.connect(address)
        self._stop: Stop | None = None
        self._orphaned = threading.Event()
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def _watch_parent(self) -> None:
        """The server holds the other end of stdin: it ends when the server does, however that happens."""
        sys.stdin.read()
        self._orphaned.set()
        time.sleep(ORPHAN_GRACE_S)
        os._exit(3)  # a kernel or a mesh that takes longer must not outlive the server

    def say(self, message: object) -> None:
        """Report to the server."""
        self._socket.send(pack_order(self._secret, message))

    def serve(self) -> None:
        """Take jobs until the server is gone."""
        self.say(Ready(self.device))
        while not self._orphaned.is_set():
            if self._socket.poll(1000):
                order = unpack_order(self._secret, self._socket.recv())
                if isinstance(order, RunJob):
                    self._stop = None
                    self.run(order)
                    self.say(Ready(self.device))

    def _should_stop(self) -> bool:
        """Asked after every step: look for a word from the server; without a server there is no reason to go on."""
        while self._socket.poll(0):
            order = unpack_order(self._secret, self._socket.recv())
            if isinstance(order, Stop):
                self._stop = order
        if self._orphaned.is_set():
            sys.exit("the server is gone; the checkpoint keeps what was done")
        return self._stop is not None

    def run(self, work: RunJob) -> None:
        """Make one job; every failure becomes a report."""
        cause = JobExecutor(work, self.device, self.say, self._told_to_stop).run()
        if cause is Cause.DEVICE_FAULT:
            self._leave()

    def _leave(self) -> None:
        """End this process, whose device takes nothing further of it, once its last word is on its way."""
        self._socket.close(2000)
        zmq.Context.instance().term()
        sys.stderr.flush()
        os._exit(4)  # the interpreter's own end would free memory of a device that does not answer

    def _told_to_stop(self) -> str:
        return self._stop.why if self._should_stop() and self._stop is not None else ""


def main() -> None:
    inherit_log()
    told = json.loads(sys.stdin.readline())
    Worker(told["address"], told["secret"], told["device"]).serve()


if __name__ == "__main__":
    main()
