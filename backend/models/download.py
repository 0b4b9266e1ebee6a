# SPDX-License-Identifier: GPL-3.0-or-later
"""Download a model: the one place of the package that uses a network beyond its own server and clients.

huggingface_hub lists the files, signs in and streams. What is received is kept between two runs, so that an interrupted
download continues, also from another source (`download_staging`).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from ..errors import ModelError, one_line
from .clip_files import CONFIG, is_clip
from .disk_use import SPARE_BYTES, free_bytes
from .download_progress import CountingProgress, Progress
from .download_record import DownloadRecord, read_record, write_record
from .download_staging import StagingFolder
from .hub import UnsuitableSourceError, is_network_failure, list_files, status_text
from .model_files import INDEX, needed_files
from .record_file import PRIVATE, HubFile
from .registry import ModelSource, RegisteredModel
from .unsupported_files import unsupported_kind


@dataclass(frozen=True)
class DownloadResult:
    """A finished download: the whole model in `folder`, and the source and commit that served it."""

    folder: Path
    source: ModelSource
    revision: str
    received: int  # bytes that came over the network


def download(model: RegisteredModel, folder: Path, revision: str | None, progress: Progress) -> DownloadResult:
    """Bring a model's needed files into `folder`, from the first source that has them, continuing what is there.

    Raises ModelError, in one line with what to do: no network or offline mode, gated, missing, of an unsupported kind,
    no room on the disk, a folder with other things in it or in use by another download.
    """
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"cannot download {model.name!r}: HF_HUB_OFFLINE is set; unset it, or copy the model's folder here "
            "and give it by path"
        )
    _check_folder(model, folder)
    try:
        (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / PRIVATE / "lock", timeout=0):
            try:
                return _from_first_source(model, folder, revision, progress)
            finally:
                StagingFolder(folder).remove_if_unused()
    except filelock.Timeout:
        raise ModelError(
            f"another download is writing to {folder}; wait for it, or give another folder with --to"
        ) from None
    except OSError as error:
        if isinstance(error, HfHubHTTPError):
            raise ModelError(f"{model.name!r}: {status_text(error)}; try again later, it goes on from here") from error
        if error.errno == errno.ENOSPC:
            raise ModelError(
                f"the disk of {folder} is full; free some space, then the same command goes on from here"
            ) from error
        # huggingface_hub raises a bare OSError for a stream that was cut off.
        if is_network_failure(error) or error.errno is None:
            raise _unreachable(model, error) from error
        raise ModelError(
            f"cannot write to {folder} ({error.strerror or error}); give another folder with --to"
        ) from error
    except Exception as error:
        if not is_network_failure(error):
            raise
        raise _unreachable(model, error) from error


def _unreachable(model: RegisteredModel, error: Exception) -> ModelError:
    return ModelError(
        f"cannot reach {constants.ENDPOINT} for {model.name!r} ({one_line(error)}); check the network, "
        "then the same command goes on from here"
    )


def _check_folder(model: RegisteredModel, folder: Path) -> None:
    record = read_record(folder)
    if record is not None and record.repo_id not in {source.repo_id for source in model.sources}:
        raise ModelError(f"{folder} holds {record.repo_id}; give another folder with --to for {model.name!r}")
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder} is a file; give a folder with --to")
    if folder.is_dir() and not (folder / PRIVATE).exists() and any(folder.iterdir()):
        kept = " (a pipeline that lies there is used by --model FOLDER as it is)" if (folder / INDEX).exists() else ""
        raise ModelError(f"{folder} holds other files{kept}; give an empty or a new folder with --to")


def _from_first_source(
    model: RegisteredModel, folder: Path, revision: str | None, progress: Progress
) -> DownloadResult:
    record = read_record(folder)
    sources = list(model.sources)
    if record is not None and revision is None:
        # Continuing, or mending, begins where the files came from, at the same commit.
        same = [replace(source, revision=record.revision) for source in sources if source.repo_id == record.repo_id]
        sources = [*same, *(source for source in sources if source.repo_id != record.repo_id)]
    failures: list[UnsuitableSourceError] = []
    for source in sources:
        try:
            return _from_source(model, source, folder, revision or source.revision or "main", progress)
        except UnsuitableSourceError as failure:
            failures.append(failure)
            if len(sources) > len(failures):
                progress.message(f"{failure}; trying {sources[len(failures)].repo_id}")
    first = next((failure for failure in failures if failure.gated), failures[-1])
    rest = [str(failure) for failure in failures if failure is not first]
    raise ModelError(
        f"{first}{'; before that, ' if rest else ''}{'; '.join(rest)}{'' if first.gated else _advice(model, revision)}"
    )


def _advice(model: RegisteredModel, revision: str | None) -> str:
    if len(model.sources) == 1 and model.sources[0].revision is None:
        return "; check the name, or run `hf auth login` if it is private"
    advice = " --revision main may hold it," if revision is None else ""
    return f";{advice} `dreamwright models` lists others, and --model FOLDER takes a copy from anywhere"


def _from_source(
    model: RegisteredModel, source: ModelSource, folder: Path, revision: str, progress: Progress
) -> DownloadResult:
    commit, listing = list_files(source, revision)
    staging = StagingFolder(folder)
    files, received = _needed(source, commit, listing, staging)
    progress.begin(sum(file.size for file in files), 0)
    wanted = [file for file in files if not _is_intact(staging, file, progress)]
    _check_space(
        folder,
        sum(file.size - staging.received_bytes(file) for file in wanted),
        sum(file.size for file in files),
    )
    old = read_record(folder)
    if old is not None:
        staging.remove(set(old.files) - set(files))
    record = DownloadRecord(source.repo_id, commit, revision, False, tuple(files))
    write_record(folder, record)
    progress.message(f"{model.name} from {source.repo_id} at {commit[:12]}, {len(files)} files to {folder}")
    try:
        for file in sorted(wanted, key=lambda file: file.size):  # what can be refused comes before the gigabytes
            received += staging.fetch(source, commit, file, progress)
    finally:
        progress.end()
    staging.finish()
    write_record(folder, replace(record, complete=True))
    return DownloadResult(folder, source, commit, received)


def _needed(
    source: ModelSource, commit: str, listing: dict[str, HubFile], staging: StagingFolder
) -> tuple[list[HubFile], int]:
    """The files that the model is loaded from, and the bytes received to tell. Raises UnsuitableSourceError."""
    kind = unsupported_kind(listing) or f"has no {INDEX}, so it is no diffusers pipeline"
    no_pipeline = UnsuitableSourceError(f"{source.repo_id} {kind}; needed is a diffusers pipeline or a CLIP model")
    index = listing.get(INDEX) or listing.get(CONFIG)
    if index is None:
        raise no_pipeline
    try:
        content, received = staging.read_json(source, commit, index)
        if index.path != INDEX and not is_clip(content):
            raise no_pipeline
        names = needed_files(listing, content if isinstance(content, dict) else {}, source.repo_id)
    except ValueError as error:
        raise UnsuitableSourceError(
            f"{source.repo_id} has a {index.path} that cannot be read ({type(error).__name__})"
        ) from error
    except UnsuitableSourceError:
        raise
    except ModelError as error:
        raise UnsuitableSourceError(str(error)) from error
    return [listing[name] for name in names], received


def _is_intact(staging: StagingFolder, file: HubFile, progress: Progress) -> bool:
    """Whether a file is there with the right hash; hashing all of them is what mends a damaged model."""
    path = staging.final_path(file)
    if not path.is_file():
        return False
    checked = CountingProgress(progress)
    if file.mismatch(path, checked):
        progress.advance(-checked.total)
        return False
    progress.advance(file.size - checked.total)  # an empty file, or one without a known hash, counts as well
    return True


def _check_space(folder: Path, needed: int, total: int) -> None:
    free = free_bytes(folder)
    if needed + SPARE_BYTES > free:
        raise ModelError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free and the download needs "
            f"{(needed + SPARE_BYTES) / 1e9:.1f} GB more (of {total / 1e9:.1f} GB); free some space, "
            "or give a folder on another disk with --to"
        )
