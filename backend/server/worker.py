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

from dreamwright.backend.server.fence import Superseded, check_fence, held
from dreamwright.backend.server.orders import Ended, Noted, Pictured, Ready, Stepped, Stop, Work, pack_order, unpack_order
from dreamwright.shared.causes import Cause
from dreamwright.shared.limits import MESSAGE_CHARACTERS

if TYPE_CHECKING:
    from dreamwright.backend.events import Event, RunState
    from dreamwright.backend.job import Job
    from dreamwright.backend.production import Production

REPORT_S = 0.2  # shortest time between two reports of steps
ORPHAN_GRACE_S = 5.0  # for the step in hand, once the server is gone; then the process ends wherever it is
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
        self._attempt = 0  # of the job in hand; goes with every report
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
        """One job, from its newest checkpoint if there is one, to a mesh; every failure becomes a report.

        Whoever worked on it before must be gone first; a worker that finds its job given to a later attempt drops it.
        """
        from dreamwright.backend.errors import Stopped
        from dreamwright.backend.server.endings import classify, describe

        name, self._attempt = work.job.job, work.job.attempt
        try:
            with held(Path(work.folder), self._attempt, lambda: self._wait_for_the_one_before(name)) as mine:
                ended = self._produce(work) if mine else self._ended(name, *self._unstarted())
        except Superseded as error:
            ended = self._ended(name, "failed", str(error), cause=Cause.FAULT)  # the server ignores it, unless the fence itself is lost
        except _DiskRefuses as error:
            ended = self._ended(name, "paused", f"{error}; make room there, then resume: it goes on from its checkpoint", cause=Cause.NO_SPACE)
        except Stopped:  # before the first step, so there is nothing to make a mesh of
            ended = self._ended(name, *self._unstarted())
        except Exception as error:
            cause = classify(error)
            if cause in (Cause.FAULT, Cause.DEVICE_FAULT):
                traceback.print_exc()
            ended = self._ended(name, "failed", describe(error, cause), cause=cause)
        self.say(ended)
        if ended.cause == Cause.DEVICE_FAULT:
            self._leave()

    def _leave(self) -> None:
        """End this process, whose device takes nothing further of it, once its last word is on its way."""
        self._socket.close(2000)
        zmq.Context.instance().term()
        sys.stderr.flush()
        os._exit(4)  # the interpreter's own end would free memory of a device that does not answer

    def _wait_for_the_one_before(self, name: str) -> bool:
        """Asked while an earlier worker of this job is not gone yet; True when told to stop waiting."""
        self._note(name, "waiting for the end of the worker that had this job before")
        return self._should_stop()

    def _unstarted(self) -> tuple[str, str]:
        """How a job ends that was told to stop before its first step."""
        paused = self._stop is not None and self._stop.why == "pause"
        return ("paused", "") if paused else ("cancelled", "stopped before the first step; there is no mesh")

    def _produce(self, work: Work) -> Ended:
        from dreamwright.backend.checkpoints import has_checkpoint, read_checkpoint
        from dreamwright.backend.errors import CheckpointError, DreamwrightError
        from dreamwright.backend.events import Checkpoint
        from dreamwright.backend.production import Production
        from dreamwright.backend.server.endings import lowered
        from dreamwright.backend.server.requests import job_of

        job, name, folder = job_of(work.job), work.job.job, Path(work.folder)
        checkpoints = folder / "checkpoints"
        production, told = None, list(filter(None, [lowered(work.job.cause, work.job.settings)]))
        if has_checkpoint(checkpoints):
            try:
                restored = read_checkpoint(checkpoints, job)
                if restored.notice:
                    told.append(restored.notice)
                self._note(name, *told, "loading the model")
                production = Production(job, self.device, restored.state, self._should_stop)
            except CheckpointError as error:
                # No reason to lose the job: what it was asked for is known, only the work so far is lost.
                print(f"job {name}: {error}", file=sys.stderr, flush=True)
                told = ["its checkpoints could not be used (the worker's log says why), so it began anew"]
        if production is None:
            self._note(name, *told, "loading the model")
            production = Production(job, self.device, None, self._should_stop)
        print(f"job {name}, attempt {self._attempt}, from step {production.step}", *production.notices, sep="\n  ", flush=True)
        told += production.warnings
        self._note(name, *told)
        for event in production.events():
            if isinstance(event, Checkpoint):
                self._keep(folder, job, event.state)
            else:
                self._report(name, event)
        if self._stop is not None and self._stop.why == "pause" and production.step < job.config.run.steps:
            return self._ended(name, "paused", *told)
        cancelled = self._stop is not None and self._stop.why == "cancel"
        self._note(name, *told, "making the mesh", stage="meshing")
        try:
            self._write_mesh(production, folder)
        except DreamwrightError as error:
            if not cancelled:
                raise
            return self._ended(name, "cancelled", *told, f"no mesh yet: {error}")
        # The last checkpoint stays until the server has written down how it ended.
        return self._ended(name, "cancelled" if cancelled else "succeeded", *told, meshed=True)

    def _keep(self, folder: Path, job: "Job", state: "RunState") -> None:
        """Write a checkpoint, unless the job is another worker's by now. Raises Superseded and _DiskRefuses."""
        from dreamwright.backend.checkpoints import NEWEST, write_checkpoint
        from dreamwright.backend.errors import CheckpointError

        check_fence(folder, self._attempt)
        try:
            write_checkpoint(folder / "checkpoints", job, state)
        except CheckpointError as error:
            _discard(folder / "checkpoints" / f"{NEWEST}.part")
            raise _DiskRefuses(str(error).partition(";")[0]) from error

    def _note(self, name: str, *messages: str, stage: str = "") -> None:
        self.say(Noted(name, "", "; ".join(messages)[:MESSAGE_CHARACTERS], self._attempt, stage))

    def _ended(self, name: str, how: str, *messages: str, meshed: bool = False, cause: Cause = Cause.NONE) -> Ended:
        return Ended(name, how, "; ".join(filter(None, messages))[:MESSAGE_CHARACTERS], meshed, self._attempt, cause.value)

    def _write_mesh(self, production: "Production", folder: Path) -> None:
        from dreamwright.shared.mesh_file import MeshFile, encode_mesh

        mesh, report = production.mesh()
        facts = {**production.provenance(), "triangles": report.triangles, "watertight": report.watertight}
        data = encode_mesh(MeshFile(mesh.vertices, mesh.faces, mesh.normals, mesh.albedo, facts))
        temporary = folder / f"{MESH_FILE}.part"
        check_fence(folder, self._attempt)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # the server is about to write down that it is there
            os.replace(temporary, folder / MESH_FILE)
        except OSError as error:
            _discard(temporary)
            raise _DiskRefuses(f"cannot write the mesh to {folder}: {error.strerror or error}") from error

    def _report(self, name: str, event: "Event") -> None:
        from dreamwright.backend import events

        if isinstance(event, events.Progress):
            now = time.monotonic()
            if now - self._reported >= REPORT_S or event.step == event.steps:
                self._reported = now
                self.say(Stepped(name, event.step, event.steps, event.elapsed_s, event.eta_s, self._attempt))
        elif isinstance(event, events.Preview):
            height, width = event.image.shape[:2]
            self.say(Pictured(name, event.step, width, height, zlib.compress(event.image.tobytes(), 1), self._attempt))
        elif isinstance(event, events.Health):
            self.say(Noted(name, event.verdict, "", self._attempt))
        elif isinstance(event, events.Restarted):
            self._note(name, f"started again with seed {event.new_seed}: {event.reason}")


class _DiskRefuses(Exception):
    """A file of the job could not be written; the job waits until there is room."""


def _discard(path: Path) -> None:
    """Remove half a file, to leave what room there is to the others."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        print(f"{path} stays: {error}", file=sys.stderr, flush=True)


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
