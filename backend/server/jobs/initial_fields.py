# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that begin from the field of another one: what must fit, and how the field comes to them before anybody hears of them."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamwright.shared.errors import RequestError
from dreamwright.shared.job_states import ENDED
from dreamwright.shared.messages import JobSummary

from ...config.parsing import apply_settings
from ...config.presets import PRESETS
from ...errors import ConfigError
from ...scenes.initial_field import FIELD_FILE
from ...training.job import Job
from ..requests import job_of
from ..workers.failure_policy import format_settings
from ..workers.job_executor import ORIGIN_FILE
from .job_store import JobRecord, JobStore, StorageError, new_name

log = logging.getLogger(__name__)

GONE = "job {} has no field to begin from (it left no mesh, or is of an older server); dream it again, or send the prompt without it"


def check_kept(entry: JobRecord) -> None:
    """Raises Refused for a job without a field that another one could begin from."""
    if entry.summary.has_field:
        return
    if entry.state not in ENDED:
        raise RequestError(
            "not-now",
            f"job {entry.summary.job} is {entry.state.value}; wait for its end, or cancel it, then refine its prompt",
        )
    raise RequestError("not-now", GONE.format(entry.summary.job))


def check_fit(origin: JobSummary, job: Job) -> None:
    """Raises ConfigError, saying what to choose, for a job whose field would be another than that of its origin."""
    kept, own = job_of(origin).config.field, job.config.field
    names = [field.name for field in dataclasses.fields(kept) if getattr(kept, field.name) != getattr(own, field.name)]
    if not names:
        return
    settings = {name: value for name, value in origin.settings.items() if name.startswith("field.")}
    asked = [f"{name}={value}" for name, value in settings.items()]
    fitting = [preset.name for preset in PRESETS.values() if apply_settings(preset.config, asked).field == kept]
    told = ", ".join(f"field.{name} is {getattr(own, name)}, there {getattr(kept, name)}" for name in names[:3])
    raise ConfigError(
        f"the field of job {origin.job} does not fit what is asked for ({told}); allowed are the presets {', '.join(fitting)}, "
        f"{f'with {format_settings(settings)} and no other' if settings else 'without any'} field setting"
    )


@contextmanager
def named(ledger: JobStore, origin: str) -> Iterator[str]:
    """A new job's name, to be committed in the body. Its folder holds the field of `origin` by then ("": there is no folder yet;
    the body may make one).

    A server that dies before the commit leaves a folder of nobody, which its next start clears away; after it the job
    needs nothing of its origin any more. Raises Refused when the field is gone, StorageError for the disk.
    """
    job = new_name()
    folder = ledger.job_folder(job)
    try:
        if origin:
            copy_initial_field(ledger.job_folder(origin), folder)
        yield job
    except Exception as error:  # a server that is killed cleans up at its next start
        shutil.rmtree(folder, ignore_errors=True)
        if origin and isinstance(error, FileNotFoundError):
            log.warning("field of a job is gone", extra={"job": origin})
            raise RequestError("not-now", GONE.format(origin)) from error
        if isinstance(error, OSError):
            raise StorageError(
                f"the server cannot write to {ledger.folder} ({error.strerror or error}); make room on its disk"
            ) from error
        raise


def copy_initial_field(source: Path, target: Path) -> None:
    """Have the field of one job's folder in another's, on disk when this returns. Raises OSError.

    It is a second name of the same file, which nobody ever writes into, or a copy where the disk knows no such names.
    """
    target.mkdir(parents=True, exist_ok=True)
    field, own = source / FIELD_FILE, target / ORIGIN_FILE
    try:
        os.link(field, own)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(field, own)
        with own.open("rb+") as file:
            os.fsync(file.fileno())
    if hasattr(os, "O_DIRECTORY"):
        for folder in (target, target.parent):
            number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
