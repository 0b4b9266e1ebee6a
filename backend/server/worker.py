# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker process: takes one job at a time from the server and makes it. It dies alone, the server goes on.

    python -m dreamwright.backend.server.worker      (the server starts it; its first line on stdin says where to report)
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
import traceback
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from dreamwright.backend.server.orders import Ended, Noted, Pictured, Ready, Stepped, Stop, Work, pack_order, unpack_order
from dreamwright.shared.limits import MESSAGE_CHARACTERS

if TYPE_CHECKING:
    from dreamwright.backend.events import Event
    from dreamwright.backend.production import Production

REPORT_S = 0.2  # shortest time between two reports of steps
MESH_FILE = "mesh.dwm"


class Worker:
    """The process's one object: a socket to the server, and the job in hand."""

    def __init__(self, address: str, secret: str, device: str) -> None:
        self._secret, self.device = secret, device
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.connect(address)
        self._stop: Stop | None = None
        self._reported = 0.0
        self._orphaned = threading.Event()
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def _watch_parent(self) -> None:
        """The server holds the other end of stdin: it ends when the server does, however that happens."""
        sys.stdin.read()
        self._orphaned.set()

    def say(self, message: object) -> None:
        """Report to the server."""
        self._socket.send(pack_order(self._secret, message))

    def serve(self) -> None:
        """Take jobs until the server is gone."""
        self.say(Ready(self.device))
        while not self._orphaned.is_set():
            if self._socket.poll(1000):
                order = unpack_order(self._secret, self._socket.recv())
                if isinstance(order, Work):
                    self._stop = None
                    self.carry_out(order)
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

    def carry_out(self, work: Work) -> None:
        """One job, from its newest checkpoint if there is one, to a mesh; every failure becomes a report."""
        from dreamwright.backend.errors import DreamwrightError

        try:
            ended = self._produce(work)
        except DreamwrightError as error:
            ended = Ended(work.job.job, "failed", str(error)[:MESSAGE_CHARACTERS], False)
        except MemoryError as error:
            ended = Ended(work.job.job, "failed", f"out of memory: {error}; use fewer views or samples", False)
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":  # torch's own, for a device
                message = f"the device is out of memory: {error}; use fewer views, samples or a smaller model"
            else:
                traceback.print_exc()
                message = f"{type(error).__name__}: {error} (a fault of Dreamwright; the server's log has more)"
            ended = Ended(work.job.job, "failed", message[:MESSAGE_CHARACTERS], False)
        self.say(ended)

    def _produce(self, work: Work) -> Ended:
        from dreamwright.backend.checkpoints import has_checkpoint, read_checkpoint, remove_checkpoints, write_checkpoint
        from dreamwright.backend.errors import DreamwrightError
        from dreamwright.backend.events import Checkpoint
        from dreamwright.backend.production import Production
        from dreamwright.backend.server.requests import job_of

        job, name, folder = job_of(work.job), work.job.job, Path(work.folder)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints = folder / "checkpoints"
        state, notice = None, ""
        if has_checkpoint(checkpoints):
            restored = read_checkpoint(checkpoints, job)
            state, notice = restored.state, restored.notice
        self.say(Noted(name, "", notice or "loading the model"))
        production = Production(job, self.device, state, self._should_stop)
        self.say(Noted(name, "", "; ".join(production.warnings)[:MESSAGE_CHARACTERS]))
        for event in production.events():
            if isinstance(event, Checkpoint):
                write_checkpoint(checkpoints, job, event.state)
            else:
                self._report(name, event)
        if self._stop is not None and self._stop.why == "pause" and production.step < job.config.run.steps:
            return Ended(name, "paused", "", False)
        cancelled = self._stop is not None and self._stop.why == "cancel"
        self.say(Noted(name, "", "making the mesh"))
        try:
            self._write_mesh(production, folder)
        except DreamwrightError as error:
            if not cancelled:
                raise
            return Ended(name, "cancelled", f"no mesh yet: {error}"[:MESSAGE_CHARACTERS], False)
        if not cancelled:
            remove_checkpoints(checkpoints)
        return Ended(name, "cancelled" if cancelled else "succeeded", "", True)

    def _write_mesh(self, production: "Production", folder: Path) -> None:
        from dreamwright.shared.mesh_file import MeshFile, encode_mesh

        mesh, report = production.mesh()
        facts = {**production.provenance(), "triangles": report.triangles, "watertight": report.watertight}
        data = encode_mesh(MeshFile(mesh.vertices, mesh.faces, mesh.normals, mesh.albedo, facts))
        temporary = folder / f"{MESH_FILE}.part"
        temporary.write_bytes(data)
        os.replace(temporary, folder / MESH_FILE)

    def _report(self, name: str, event: "Event") -> None:
        from dreamwright.backend import events

        if isinstance(event, events.Progress):
            now = time.monotonic()
            if now - self._reported >= REPORT_S or event.step == event.steps:
                self._reported = now
                self.say(Stepped(name, event.step, event.steps, event.elapsed_s, event.eta_s))
        elif isinstance(event, events.Preview):
            height, width = event.image.shape[:2]
            self.say(Pictured(name, event.step, width, height, zlib.compress(event.image.tobytes(), 1)))
        elif isinstance(event, events.Health):
            self.say(Noted(name, event.verdict, ""))
        elif isinstance(event, events.Restarted):
            self.say(Noted(name, "", f"started again with seed {event.new_seed}: {event.reason}"[:MESSAGE_CHARACTERS]))


def file_hash(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        return file.tell(), digest.hexdigest()


def main() -> None:
    told = json.loads(sys.stdin.readline())
    Worker(told["address"], told["secret"], told["device"]).serve()


if __name__ == "__main__":
    main()
