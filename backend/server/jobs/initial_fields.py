# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that start from the field of an earlier job: what must match, and how they get that field."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dreamwright.shared.errors import RequestError
from dreamwright.shared.job_states import ENDED
from dreamwright.shared.messages import JobSummary, SubmitJob

from ...config.parsing import apply_settings
from ...config.presets import RECIPES, REFINE_PRESET
from ...config.recipes.recipe import Recipe
from ...config.schema import Config, FieldConfig
from ...errors import ConfigError
from ...scenes.initial_field import FIELD_FILE
from ..requests import job_of
from ..workers.failure_policy import format_settings
from ..workers.job_executor import INITIAL_FIELD_FILE
from .durable_files import link_or_copy
from .job_record import JobRecord, new_job_name
from .job_store import JobStore, StorageError

log = logging.getLogger(__name__)

NO_FIELD = (
    "job {} has no field to start from (it left no mesh, or was made by an older server); "
    "generate it again, or send the prompt without it"
)


def check_start(request: SubmitJob, config: Config, find: Callable[[str], JobRecord]) -> None:
    """Raises RequestError, ConfigError for a job that cannot start from what it names; `find` gives the parent job."""
    if not request.parent_job:
        return
    if request.mesh:
        raise RequestError(
            "bad-input", "a job starts from another job's field or from a mesh; leave out one of parent_job and mesh"
        )
    parent = find(request.parent_job)
    check_has_field(parent)
    check_field_matches(parent.summary, config)


def check_has_field(parent: JobRecord) -> None:
    """Raises RequestError for a job without a field that another job could start from."""
    if parent.summary.has_field:
        return
    if parent.state not in ENDED:
        raise RequestError(
            "not-now",
            f"job {parent.job} is {parent.state.value}; wait for its end, or cancel it, then refine its prompt",
        )
    raise RequestError("not-now", NO_FIELD.format(parent.job))


def check_field_matches(parent: JobSummary, config: Config) -> None:
    """Raises ConfigError, with the allowed presets, when the field of `config` differs from that of its parent job."""
    parent_job = job_of(parent)
    kept, own = parent_job.config.field, config.field
    names = [field.name for field in dataclasses.fields(kept) if getattr(kept, field.name) != getattr(own, field.name)]
    if not names:
        return
    settings = {name: value for name, value in parent.settings.items() if name.startswith("field.")}
    assignments = [f"{name}={value}" for name, value in settings.items()]
    known = (*RECIPES[parent_job.family or "starter"].values(), *RECIPES["clip"].values())
    fitting = [p.name for p in known if p.name != REFINE_PRESET and _field(p, assignments) == kept]
    differences = ", ".join(f"field.{name} is {getattr(own, name)}, there {getattr(kept, name)}" for name in names[:3])
    field_settings = f"with {format_settings(settings)} and no other" if settings else "without any"
    raise ConfigError(
        f"the field of job {parent.job} does not match what was sent ({differences}); allowed are the presets "
        f"{', '.join(fitting)}, {field_settings} field setting"
    )


def _field(recipe: Recipe, assignments: Sequence[str]) -> FieldConfig:
    return apply_settings(recipe.config, assignments).field


@contextmanager
def new_job_folder(store: JobStore, parent_job: str) -> Iterator[str]:
    """The name of a new job, which the body commits; its folder holds the field of `parent_job` by then.

    Without a parent ("") there is no folder yet, and the body may create it. A server that ends before the commit
    leaves an orphaned folder, which its next start removes. Raises RequestError when the parent's field is gone,
    StorageError when the disk refuses a write.
    """
    job = new_job_name()
    folder = store.job_folder(job)
    try:
        if parent_job:
            copy_initial_field(store.job_folder(parent_job), folder)
        yield job
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        if parent_job and isinstance(error, FileNotFoundError):
            log.warning("field of a job is gone", extra={"job": parent_job})
            raise RequestError("not-now", NO_FIELD.format(parent_job)) from error
        if isinstance(error, OSError):
            raise StorageError(
                f"the server cannot write to {store.folder} ({error.strerror or error}); make room on its disk"
            ) from error
        raise


def copy_initial_field(parent: Path, folder: Path) -> None:
    """Put the field in the folder of a parent job into a new job's folder, which is created. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    link_or_copy(parent / FIELD_FILE, folder / INITIAL_FIELD_FILE)
