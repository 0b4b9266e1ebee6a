# SPDX-License-Identifier: GPL-3.0-or-later
"""When a run's live mesh is due: at intervals, while somebody watches, and in a small share of the run's time."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import RunError, is_out_of_memory
from ..geometry.live_mesh import LiveMesh
from ..scenes.interfaces import Scene

TIME_SHARE = 0.02  # of the run's time, beyond which the next live mesh waits


class LiveMeshes:
    """Makes a scene's live mesh every `interval` steps (0: never) while `is_watched`, asked after every step, is true.

    The first one is made at the first step that is watched.
    """

    def __init__(self, interval: int, is_watched: Callable[[], bool], clock: Callable[[], float]) -> None:
        self._interval, self._is_watched, self._clock = interval, is_watched, clock
        self._started, self._spent = clock(), 0.0
        self._made_at: int | None = None  # step of the newest

    def next(self, scene: Scene) -> LiveMesh | None:
        """The live mesh if it is due; None otherwise, and where there is no surface yet or no memory for one."""
        if not self._interval or not self._is_watched():
            return None
        now = self._clock()
        # A run that began anew has fewer steps than its newest mesh.
        if self._made_at is not None and 0 <= scene.step - self._made_at < self._interval:
            return None
        if self._spent > TIME_SHARE * (now - self._started):
            return None
        self._made_at = scene.step
        try:
            return scene.live_mesh()
        except RunError:
            return None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None  # the next step may still fit
        finally:
            self._spent += self._clock() - now
