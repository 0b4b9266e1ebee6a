# SPDX-License-Identifier: GPL-3.0-or-later
"""When runs yield live meshes: only while they are watched, at their interval, and without changing the result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dreamwright.backend.errors import OutOfMemoryError, RunError
from dreamwright.backend.geometry.live_mesh import LiveMesh
from dreamwright.backend.training.events import Event, LiveMeshMade
from dreamwright.backend.training.live_meshes import TIME_SHARE, LiveMeshes
from dreamwright.backend.training.trainer import Trainer
from tests.testing.egg_runs import ball, egg_images, refine_config
from tests.testing.egg_runs import run_of as refine_of
from tests.testing.oracles import KnownImages
from tests.testing.sphere_runs import ball_images
from tests.testing.staged_runs import FIELD_STEPS, LAST, assert_equal, staged_config, staged_run

MESH = LiveMesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32), np.zeros((3, 3), np.uint8))


def staged(is_watched: Callable[[], bool], interval: int = 2) -> tuple[Trainer, list[Event]]:
    config = staged_config(f"run.live_mesh_interval={interval}")
    oracle = KnownImages(lambda cameras: ball_images(cameras, 16), 16)
    # A clock that stands still: no mesh takes time, so none waits.
    run = staged_run(config, oracle, is_watched=is_watched, clock=lambda: 0.0)
    return run, list(run)


def steps_of(events: list[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, LiveMeshMade)]


def test_watching_changes_nothing_and_shows_both_stages() -> None:
    watched, events = staged(lambda: True)
    alone, others = staged(lambda: False)
    assert steps_of(others) == []
    assert steps_of(events) == [1, 3, 5, 7, 9], "from the first step on, at every second one"
    assert_equal(watched.state(), alone.state())
    first, second = (run.scene.to_mesh()[0] for run in (watched, alone))
    assert np.array_equal(first.vertices, second.vertices) and np.array_equal(first.albedo, second.albedo)
    shown = [event.mesh for event in events if isinstance(event, LiveMeshMade)]
    for mesh in shown:  # the default height, on its base
        assert mesh.vertices[:, 2].min() == pytest.approx(0.0, abs=1e-6)
        assert mesh.vertices[:, 2].max() == pytest.approx(1.0, abs=1e-6)
    # The last ones are the mesh that the second stage moves, with the vertices of the finished one.
    assert FIELD_STEPS < 7 and shown[-1].vertices.shape == first.vertices.shape
    assert [event for event in events if not isinstance(event, LiveMeshMade)][-1] == others[-1]


def test_an_interval_of_zero_makes_none_and_watching_may_begin_late() -> None:
    assert steps_of(staged(lambda: True, interval=0)[1]) == []
    asked: list[int] = []

    def from_the_sixth() -> bool:
        asked.append(1)
        return len(asked) >= 6

    assert steps_of(staged(from_the_sixth, interval=3)[1]) == [6, 9] and LAST == 10


def test_a_refined_mesh_is_shown_in_its_own_place_and_size() -> None:
    oracle, config = KnownImages(egg_images, 32), refine_config("run.live_mesh_interval=4")
    run = refine_of(config, oracle, ball(shift=7.0, size=3.0), is_watched=lambda: True, clock=lambda: 0.0)
    events = list(run)
    assert steps_of(events) == [1, 5]
    mesh = run.scene.to_mesh()[0]
    (shown,) = [event.mesh for event in events if isinstance(event, LiveMeshMade) and event.step == 5]
    assert shown.faces.shape == mesh.faces.shape and np.allclose(shown.vertices.mean(axis=0), 7.0, atol=0.2)


class Scene:
    """A scene whose live mesh takes `cost` seconds, or fails."""

    def __init__(self, cost: float = 0.0, error: Exception | None = None) -> None:
        self.step, self.now, self.cost, self.error, self.made = 0, 0.0, cost, error, 0

    def live_mesh(self) -> LiveMesh:
        self.made += 1
        self.now += self.cost
        if self.error is not None:
            raise self.error
        return MESH


def take_steps(scene: Scene, steps: int, interval: int = 1) -> int:
    """Steps of one second each; how many of them had a live mesh."""
    meshes = LiveMeshes(interval, lambda: True, lambda: scene.now)
    found = 0
    for _ in range(steps):
        scene.step += 1
        scene.now += 1.0
        found += meshes.next(scene) is not None  # type: ignore[arg-type]
    return found


def test_live_meshes_take_a_small_share_of_the_time_however_slow_they_are() -> None:
    scene = Scene(cost=0.5)
    found = take_steps(scene, 1000)
    # One more than the share allows, as the first one's cost is not known before.
    assert found == scene.made and found * scene.cost <= TIME_SHARE * scene.now + scene.cost
    assert found >= 0.9 * TIME_SHARE * scene.now / scene.cost, "the share is used"


@pytest.mark.parametrize("error", [RunError("no surface"), OutOfMemoryError("out of memory")])
def test_a_run_goes_on_where_there_is_no_surface_or_no_memory_for_one(error: Exception) -> None:
    scene = Scene(error=error)
    assert take_steps(scene, 9, interval=3) == 0 and scene.made == 3


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        take_steps(Scene(error=ZeroDivisionError()), 1)
