# SPDX-License-Identifier: GPL-3.0-or-later
"""The training loop of every scene: yields events, writes no files, opens no sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from ..config.schema import RunConfig
from ..errors import NonFiniteError, OutOfMemoryError, RunError, is_out_of_memory, one_line
from ..runtime.distributed import ProcessGroup, SingleProcess
from ..scenes.interfaces import FAILED, VERDICTS, DivergedError, RunState, Scene, SceneHealth
from .events import Checkpoint, Event, Finished, Health, LiveMeshMade, Preparing, Preview, Restarted, StepCompleted
from .live_meshes import LiveMeshes
from .pace import Pace

SEED_STRIDE = 7919  # a restart's seed is the old one plus this prime, so that seeds 0, 1, 2 share no restarts


class Trainer:
    """Iterating yields `Event`s until the steps are done or `should_stop`, asked after every step, is true.

    One process of a group that should stop stops all. `make_scene` makes the scene of a seed before its first step. The
    main process alone makes previews, live meshes and checkpoints; live meshes only while `is_watched`, asked after
    every step, is true. Raises CheckpointError for a state that does not fit, and
    whatever `make_scene` raises.
    """

    def __init__(
        self,
        make_scene: Callable[[int], Scene],
        config: RunConfig,
        resume: RunState | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        group: ProcessGroup | None = None,
        is_watched: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.group = config, group or SingleProcess()
        self._is_watched = is_watched
        self._make_scene, self._should_stop, self._clock = make_scene, should_stop, clock
        self.restarts = 0 if resume is None else resume.restarts
        self.scene = make_scene(config.seed if resume is None else resume.seed)
        if resume is not None:
            self.scene.load(resume)

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.scene.step

    @property
    def seed(self) -> int:
        """The seed in use, which restarts change."""
        return self.scene.seed

    def state(self) -> RunState:
        """The state from which an equal trainer continues."""
        return replace(self.scene.state(), restarts=self.restarts)

    def __iter__(self) -> Iterator[Event]:
        """Raises OutOfMemoryError after a last checkpoint of the newest complete step, where there is one.

        RunError or NonFiniteError when the scene fails and no restart is left; its last checkpoint is from before that.
        """
        shortage = ""
        try:
            yield from self._events()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            shortage = one_line(error)
        if not shortage:
            return
        # Only here, where the failed step's tensors are gone with its traceback, is there memory for a checkpoint.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        saved = self.scene.is_consistent
        if saved and self.group.is_main:
            yield Checkpoint(self.state())
        kept = f"step {self.step} is in a checkpoint" if saved else "the last checkpoint is kept"
        raise OutOfMemoryError(f"out of memory after step {self.step} ({shortage}); {kept}")

    def _events(self) -> Iterator[Event]:
        config, ends = self.config, self.scene.stage_ends
        steps = ends[-1]
        checks = {max(1, round(share * steps)) for share in self.scene.check_shares}
        start = self._clock()
        pace = Pace(ends, self.step, start)
        live_meshes = LiveMeshes(config.live_mesh_interval, self._is_watched, self._clock)
        self.group.check_same(f"{self.scene.prompts.texts} {self.scene.config} {self.step} {self.seed} {self.restarts}")
        self.group.broadcast(self.scene.shared_tensors())
        while not self.scene.is_done:
            preparing = self.scene.preparation
            if preparing:
                yield Preparing(self.step, preparing)
            try:
                scalars = self.scene.train_step()
            except DivergedError as error:  # reported at once, not at the next check, and never in a checkpoint
                failure: Health | None = Health(self.step, "diverged", {}, str(error))
            else:
                step, now = self.step, self._clock()
                pace.record(step, now)
                if preparing:
                    yield Preparing(step, "")
                yield StepCompleted(step, steps, now - start, pace.remaining_s(step), scalars)
                failure = None
                if step in checks:
                    health = self._check()
                    if health.verdict in FAILED:
                        failure = health
                    else:
                        yield health
            if failure is not None:
                yield failure
                yield self._restart(failure)
                start = self._clock()
                pace = Pace(ends, self.step, start)
                continue
            if self.group.is_main and (step % config.preview_interval == 0 or step in ends):
                yield Preview(step, self.scene.preview())
            live_mesh = live_meshes.next(self.scene) if self.group.is_main else None
            if live_mesh is not None:
                yield LiveMeshMade(step, live_mesh)
            stopping = self.group.all_reduce_max(self._should_stop()) > 0 and step < steps
            if stopping or step % config.checkpoint_interval == 0 or step in ends:
                # Should arithmetic differ between machines, the processes stay together.
                self.group.broadcast(self.scene.shared_tensors())
                if self.group.is_main:
                    yield Checkpoint(self.state())
            if stopping:
                yield Finished(step, False, self.seed)
                return
        yield Finished(self.step, True, self.seed)

    def _check(self) -> Health:
        """The scene's health, with the worst verdict of any process."""
        health: SceneHealth = self.scene.check()
        verdict = VERDICTS[self.group.all_reduce_max(VERDICTS.index(health.verdict))]
        return Health(self.step, verdict, health.figures, health.message)

    def _restart(self, health: Health) -> Restarted:
        """Begin anew from another seed. Raises RunError, or NonFiniteError, when no restart is left."""
        old = self.seed
        if not self.scene.can_restart or self.restarts >= self.config.max_restarts:
            kind = NonFiniteError if health.verdict == "diverged" else RunError
            tried = f" after {self.restarts} restarts" if self.scene.can_restart else ""
            raise kind(
                f"the run is {health.verdict} at step {health.step} ({health.message}){tried}; "
                f"{self.scene.advice(health.verdict)}"
            )
        self.restarts += 1
        new = (old + SEED_STRIDE) % 2**31
        self.scene = self._make_scene(new)
        return Restarted(health.step, old, new, health.message)
