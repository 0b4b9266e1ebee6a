# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of an asset library: its files, its lock, and the record of its props in library.json."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dreamwright.shared import __version__

from ..errors import ConfigError, ExportError
from ..evaluation.captions import slug
from ..io.output_files import check_folder_writable, write_output
from ..io.provenance import object_name
from ..runtime.file_lock import file_lock
from .planning import PlannedProp

SCHEMA_VERSION = 1
RECORD, FAILURES, BLEND = "library.json", "failures.csv", "library.blend"
PROPS, THUMBNAILS, JOBS, LOCK = "props", "thumbnails", "jobs", "lock"


@dataclass(frozen=True)
class PropEntry:
    """A finished prop. `stem` names its files, `name` its object; `mesh_sha256` is of the job's mesh."""

    ticket: str
    stem: str
    name: str
    prompt: str
    seed: int
    preset: str
    model: str
    settings: Mapping[str, str]
    tags: tuple[str, ...]
    catalog: str
    job: str
    mesh_sha256: str
    provenance: Mapping[str, Any]

    @property
    def glb(self) -> str:
        """Path of its mesh file in the library."""
        return f"{PROPS}/{self.stem}.glb"

    @property
    def thumbnail(self) -> str:
        """Path of its image in the library."""
        return f"{THUMBNAILS}/{self.stem}.png"


@dataclass(frozen=True)
class Library:
    """What library.json holds: the finished props by ticket, and what the .blend file was written from ("": never)."""

    props: Mapping[str, PropEntry] = field(default_factory=dict)
    blend_of: str = ""

    def with_props(self, entries: Iterable[PropEntry]) -> Library:
        """The library with props added, or replaced in their places."""
        return replace(self, props={**self.props, **{entry.ticket: entry for entry in entries}})


@dataclass(frozen=True)
class Failure:
    """A row without a prop, and why."""

    row: int
    prompt: str
    seed: int
    preset: str
    reason: str


class LibraryFolder:
    """Paths and files of one library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def jobs(self) -> Path:
        """The folder of the jobs' states."""
        return self.path / JOBS

    @property
    def blend(self) -> Path:
        """The .blend file whose objects are the assets."""
        return self.path / BLEND

    def check(self) -> None:
        """Raise ExportError for a library that cannot be written; creates nothing."""
        for folder in (self.path, self.path / PROPS, self.path / THUMBNAILS, self.jobs):
            try:
                check_folder_writable(folder)
            except ExportError as error:
                raise ExportError(f"--library: {error}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the library, made if need be, while the body runs. Raises ConfigError while another batch does."""
        try:
            for folder in (self.path, self.path / PROPS, self.path / THUMBNAILS, self.jobs):
                folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self.jobs / LOCK, give_up=lambda: True, retry_s=0) as is_held:
                if not is_held:
                    raise ConfigError(
                        f"another batch works in the library {str(self.path)!r}; wait for it or stop it, or choose "
                        "another folder with --library"
                    )
                yield
        except OSError as error:
            raise ExportError(
                f"cannot write to the library {str(self.path)!r}: {error.strerror or error}; choose another folder "
                "with --library"
            ) from error

    def read(self) -> Library:
        """The record; an empty one for a new library. Raises ConfigError for a file that is no such record."""
        path = self.path / RECORD
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content["schema_version"]
            if version != SCHEMA_VERSION:
                raise ConfigError(
                    f"{path} has schema version {version!r} and this Dreamwright writes {SCHEMA_VERSION}; use the "
                    "version that wrote it, or choose another folder with --library"
                )
            names = {one.name for one in fields(PropEntry)}
            props = [
                PropEntry(**{**{name: prop[name] for name in names}, "tags": tuple(prop["tags"])})
                for prop in content["props"]
            ]
            return Library({prop.ticket: prop for prop in props}, str(content["blend_of"]))
        except FileNotFoundError:
            return Library()
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"{path} is no record of a library ({type(error).__name__}); choose another folder with --library, or "
                "remove the file: the props that were made are kept in jobs/ and are not made again"
            ) from error

    def write(self, library: Library) -> None:
        """Replace the record. Raises ExportError."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "dreamwright": __version__,
            "blend_of": library.blend_of,
            "props": [
                {**asdict(prop), "glb": prop.glb, "thumbnail": prop.thumbnail} for prop in library.props.values()
            ],
        }  # fmt: skip
        write_output(self.path / RECORD, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def write_failures(self, failures: Sequence[Failure]) -> None:
        """Replace failures.csv, or remove it when there are none. Raises ExportError."""
        path = self.path / FAILURES
        if not failures:
            path.unlink(missing_ok=True)
            return
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        writer.writerow([one.name for one in fields(Failure)])
        writer.writerows([_harmless(value) for value in asdict(failure).values()] for failure in failures)
        # With a byte order mark, without which spreadsheets take the file for one of their own encoding.
        write_output(path, stream.getvalue().encode("utf-8-sig"))

    def has_files(self, entry: PropEntry) -> bool:
        """Whether the mesh file and the thumbnail of a prop are there."""
        return (self.path / entry.glb).is_file() and (self.path / entry.thumbnail).is_file()


def new_stem(library: Library, prop: PlannedProp) -> str:
    """A name for the files of a new prop, such as a-red-mushroom.0, which no other prop of the library has."""
    taken = {entry.stem for entry in library.props.values() if entry.ticket != prop.ticket}
    first = f"{slug(prop.row.name or prop.row.prompt)}.{prop.row.seed}"
    return next(stem for stem in _numbered(first) if stem not in taken)


def new_name(prop: PlannedProp) -> str:
    """The name of a prop's object: that of its row, or its prompt."""
    return prop.row.name or object_name({"prompt": prop.row.prompt})


def _numbered(first: str) -> Iterator[str]:
    yield first
    number = 1
    while True:
        number += 1
        yield f"{first}-{number}"


def _harmless(value: Any) -> Any:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
