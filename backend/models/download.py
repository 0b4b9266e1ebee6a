# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloading a model: the one place of the package that uses a network beyond its own server and clients.

huggingface_hub lists the files, signs in and streams; what is kept between two runs is ours, because since 2.x it
throws a half-received file away. Each file grows in `.dreamwright/parts`, named by its hash (so that a mirror can end
what another home began), and moves into place once its hash is right.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock
from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_token, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from ..errors import ModelError, one_line
from .clip_files import CONFIG, is_clip
from .download_progress import CountingProgress, NullProgress, Progress, ProgressFile, SilentTqdm
from .download_record import (
    PRIVATE,
    DownloadRecord,
    HubFile,
    is_inside,
    read_record,
    record_path,
    write_record,
)
from .model_files import INDEX, needed_files
from .registry import ModelSource, RegisteredModel
from .unsupported_files import unsupported_kind

SPARE_BYTES = 64 * 2**20  # left free on the disk, so that the machine goes on working
CHUNK = 2**20  # bytes; what a kill loses, and how smooth the bar is (huggingface_hub takes 10 MiB)


@dataclass(frozen=True)
class Downloaded:
    """What a download left: the whole model in `folder`, and the home and commit that served it."""

    folder: Path
    home: ModelSource
    revision: str
    received: int  # bytes that came over the network


class UnsuitableSourceError(ModelError):
    """This home cannot give the model; another one may. `gated` when its licence stands between."""

    def __init__(self, text: str, gated: bool = False) -> None:
        super().__init__(text)
        self.gated = gated


def download(model: RegisteredModel, folder: Path, revision: str | None, progress: Progress) -> Downloaded:
    """Bring a model's needed files into `folder`, from the first of its sources that can, going on with what is there.

    Raises ModelError, in one line with what to do: no network or offline mode, gated, missing, of an unsupported kind,
    no room on the disk, a folder with other things in it or in use by another download.
    """
    if constants.HF_HUB_OFFLINE:
        raise ModelError(
            f"cannot download {model.name!r}: HF_HUB_OFFLINE is set; unset it, or copy the model's folder here and give it by path"
        )
    _check_folder(model, folder)
    try:
        (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / PRIVATE / "lock", timeout=0):
            try:
                return _from_first_home(model, folder, revision, progress)
            finally:
                _StagingFolder(folder).tidy()
    except filelock.Timeout:
        raise ModelError(
            f"another download is writing to {folder}; wait for it, or give another folder with --to"
        ) from None
    except OSError as error:
        if isinstance(error, HfHubHTTPError):
            raise ModelError(f"{model.name!r}: {_hub_says(error)}; try again later, it goes on from here") from error
        if error.errno == errno.ENOSPC:
            raise ModelError(
                f"the disk of {folder} is full; free some space, then the same command goes on from here"
            ) from error
        if (
            is_network_failure(error) or error.errno is None
        ):  # huggingface_hub says a cut-off stream with a bare OSError
            raise _broken(model, error) from error
        raise ModelError(
            f"cannot write to {folder} ({error.strerror or error}); give another folder with --to"
        ) from error
    except Exception as error:
        if not is_network_failure(error):
            raise
        raise _broken(model, error) from error


def is_network_failure(error: BaseException) -> bool:
    """Whether a connection failed; by name too, since huggingface_hub changed its HTTP library and may again."""
    root = type(error).__module__.split(".")[0]
    return isinstance(error, (ConnectionError, TimeoutError)) or root in (
        "httpx",
        "httpx2",
        "httpcore",
        "requests",
        "urllib3",
    )


def _broken(model: RegisteredModel, error: Exception) -> ModelError:
    return ModelError(
        f"cannot reach {constants.ENDPOINT} for {model.name!r} ({one_line(error)}); check the network, then the same command goes on from here"
    )


def _hub_says(error: HfHubHTTPError) -> str:
    status = getattr(getattr(error, "response", None), "status_code", "?")
    return f"{constants.ENDPOINT} answered {status}"


def _check_folder(model: RegisteredModel, folder: Path) -> None:
    record = read_record(folder)
    if record is not None and record.repo_id not in {home.repo_id for home in model.sources}:
        raise ModelError(f"{folder} holds {record.repo_id}; give another folder with --to for {model.name!r}")
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder} is a file; give a folder with --to")
    if folder.is_dir() and not (folder / PRIVATE).exists() and any(folder.iterdir()):
        kept = " (a pipeline that lies there is used by --model FOLDER as it is)" if (folder / INDEX).exists() else ""
        raise ModelError(f"{folder} holds other files{kept}; give an empty or a new folder with --to")


def _from_first_home(model: RegisteredModel, folder: Path, revision: str | None, progress: Progress) -> Downloaded:
    record = read_record(folder)
    sources = list(model.sources)
    if record is not None and revision is None:
        # Going on, or mending, begins where the files came from, at the same commit.
        same = [replace(home, revision=record.revision) for home in sources if home.repo_id == record.repo_id]
        sources = [*same, *(home for home in sources if home.repo_id != record.repo_id)]
    failures: list[UnsuitableSourceError] = []
    for home in sources:
        try:
            result = _from_home(model, home, folder, revision or home.revision or "main", progress)
        except UnsuitableSourceError as failure:
            failures.append(failure)
            if len(sources) > len(failures):
                progress.say(f"{failure}; trying {sources[len(failures)].repo_id}")
            continue
        return result
    told = next((failure for failure in failures if failure.gated), failures[-1])
    rest = [str(failure) for failure in failures if failure is not told]
    raise ModelError(
        f"{told}{'; before that, ' if rest else ''}{'; '.join(rest)}{'' if told.gated else _advice(model, revision)}"
    )


def _advice(model: RegisteredModel, revision: str | None) -> str:
    if len(model.sources) == 1 and model.sources[0].revision is None:
        return "; check the name, or run `hf auth login` if it is private"
    advice = " --revision main may hold it," if revision is None else ""
    return f";{advice} `dreamwright models` lists others, and --model FOLDER takes a copy from anywhere"


def _from_home(model: RegisteredModel, home: ModelSource, folder: Path, asked: str, progress: Progress) -> Downloaded:
    commit, listing = _list(home, asked)
    kind = unsupported_kind(listing) or f"has no {INDEX}, so it is no diffusers pipeline"
    no_pipeline = UnsuitableSourceError(f"{home.repo_id} {kind}; needed is a diffusers pipeline or a CLIP model")
    index = listing.get(INDEX) or listing.get(CONFIG)
    if index is None:
        raise no_pipeline
    room = _StagingFolder(folder)
    try:
        content, received = room.peek(home, commit, index)
        if index.path != INDEX and not is_clip(content):
            raise no_pipeline
        names = needed_files(listing, content if isinstance(content, dict) else {}, home.repo_id)
    except ValueError as error:
        raise UnsuitableSourceError(f"{home.repo_id} has a {index.path} that cannot be read ({type(error).__name__})") from error
    except UnsuitableSourceError:
        raise
    except ModelError as error:
        raise UnsuitableSourceError(str(error)) from error
    files = [listing[name] for name in names]
    # Of those that are there only sound ones count; hashing them is what mends a damaged model.
    progress.begin(sum(file.size for file in files), 0)
    kept = []
    for file in files:
        if room.place(file).is_file():
            checked = CountingProgress(progress)
            if file.mismatch(room.place(file), checked):
                progress.advance(-checked.total)
            else:
                progress.advance(
                    file.size - checked.total
                )  # an empty file, or one without a known hash, counts as well
                kept.append(file)
    wanted = [file for file in files if file not in kept]
    _check_space(folder, sum(file.size - room.begun(file) for file in wanted), sum(file.size for file in files))
    old = read_record(folder)
    if old is not None:
        room.clear(set(old.files) - set(files))
    record = DownloadRecord(home.repo_id, commit, asked, False, tuple(files))
    write_record(folder, record)
    progress.say(f"{model.name} from {home.repo_id} at {commit[:12]}, {len(files)} files to {folder}")
    try:
        for file in sorted(wanted, key=lambda file: file.size):  # what can refuse comes before the gigabytes
            received += room.fetch(home, commit, file, progress)
    finally:
        progress.end()
    room.finish()
    write_record(folder, replace(record, complete=True))
    return Downloaded(folder, home, commit, received)


def _list(home: ModelSource, revision: str) -> tuple[str, dict[str, HubFile]]:
    """The commit and the files of a home. Raises UnsuitableSourceError, and what the network raises."""
    with _SourceErrors(home, revision):
        api = HfApi()
        commit = str(api.model_info(home.repo_id, revision=revision).sha)
        listing = {}
        for entry in api.list_repo_tree(home.repo_id, recursive=True, revision=commit):
            if hasattr(entry, "blob_id") and is_inside(entry.path):
                sha256 = str(entry.lfs.sha256) if entry.lfs is not None else ""
                listing[entry.path] = HubFile(entry.path, int(entry.size), sha256, "" if sha256 else str(entry.blob_id))
        return commit, listing


class _SourceErrors:
    """Turns the hub's refusals into UnsuitableSourceError."""

    def __init__(self, home: ModelSource, revision: str) -> None:
        self.home, self.revision = home, revision

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        name = self.home.repo_id
        if isinstance(error, GatedRepoError):
            who = (
                "no token is stored on this machine"
                if get_token() is None
                else "the account of the stored token has not accepted it"
            )
            text = f"{name} is gated and {who}; accept its licence at {constants.ENDPOINT}/{name}, run `hf auth login`, then download again"
            raise UnsuitableSourceError(text, gated=True) from error
        if isinstance(error, RevisionNotFoundError):
            raise UnsuitableSourceError(f"{name} has no revision {self.revision!r}") from error
        if isinstance(error, (RepositoryNotFoundError, DisabledRepoError)):
            raise UnsuitableSourceError(f"{name} is not on {constants.ENDPOINT} (gone, misspelt or private)") from error
        if isinstance(error, RemoteEntryNotFoundError):
            raise UnsuitableSourceError(f"{name} lists a file that it does not have") from error
        if isinstance(error, HFValidationError):
            raise ModelError(f'{name!r} is no name of a model on the hub; allowed is "owner/name"') from error
        if isinstance(error, HfHubHTTPError) and not isinstance(error, OfflineModeIsEnabled):
            raise UnsuitableSourceError(f"{name}: {_hub_says(error)}") from error


class _StagingFolder:
    """The files of one download in a model folder: those in place, and those that grow."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts = folder, folder / PRIVATE / "parts"

    def place(self, file: HubFile) -> Path:
        return self.folder / file.path

    def _part(self, file: HubFile) -> Path:
        return self.parts / (file.sha256 or file.git_sha1)

    def begun(self, file: HubFile) -> int:
        """Bytes of the file that an earlier run received."""
        try:
            size = self._part(file).stat().st_size
        except OSError:
            return 0
        return size if size <= file.size else 0

    def peek(self, home: ModelSource, commit: str, file: HubFile) -> tuple[Any, int]:
        """A small file's JSON and the bytes received for it, before it replaces anything. Raises ValueError and as `receive`."""
        there, received = self.place(file), 0
        if file.mismatch(there):
            there, received = self._part(file), self.receive(home, commit, file, NullProgress())
        return json.loads(there.read_text(encoding="utf-8")), received

    def fetch(self, home: ModelSource, commit: str, file: HubFile, progress: Progress) -> int:
        """Bring one file into place; returns the bytes received. Raises as `receive`."""
        received = self.receive(home, commit, file, progress)
        self.place(file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._part(file), self.place(file))
        return received

    def receive(self, home: ModelSource, commit: str, file: HubFile, progress: Progress) -> int:
        """Receive one file whole, going on with what is there. Raises UnsuitableSourceError, ModelError and the network's errors."""
        self.parts.mkdir(parents=True, exist_ok=True)
        part, begun = self._part(file), self.begun(file)
        with open(part, "r+b" if begun else "wb", buffering=0) as raw, _SourceErrors(home, commit):
            raw.seek(begun)
            progress.advance(begun)
            stream = ProgressFile(raw, progress)
            if begun < file.size or not file.size:
                _receive(home, commit, file, stream, begun)
            received = max(0, stream.tell() - begun)
        fault = file.mismatch(part)
        if fault:
            part.unlink()
            progress.advance(-file.size)
            raise ModelError(
                f"{file.path} from {home.repo_id} {fault}, so it was damaged on its way; the same command fetches it again"
            )
        return received

    def clear(self, files: set[HubFile]) -> None:
        """Remove files that an earlier revision had and this one has not, lest two variants lie side by side."""
        for file in files:
            self.place(file).unlink(missing_ok=True)

    def finish(self) -> None:
        shutil.rmtree(self.parts, ignore_errors=True)  # left-overs take room but do no harm

    def tidy(self) -> None:
        """Leave no trace where nothing was begun: a folder without a record is no half-finished download."""
        if not record_path(self.folder).is_file():
            shutil.rmtree(self.folder / PRIVATE, ignore_errors=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


def _receive(home: ModelSource, commit: str, file: HubFile, stream: ProgressFile, begun: int) -> None:
    url = hf_hub_url(home.repo_id, file.path, revision=commit)
    location = get_hf_file_metadata(url).location
    headers = dict(build_hf_headers())
    headers["Accept-Encoding"] = "identity"  # a range of a compressed stream would be of no use
    if urlsplit(location).netloc != urlsplit(url).netloc:
        headers = {
            key: value for key, value in headers.items() if key.lower() != "authorization"
        }  # the token is for the hub alone
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK  # read at each call; a no-op should a later version drop it
    http_get(location, stream, resume_size=begun, headers=headers, expected_size=file.size, tqdm_class=SilentTqdm)  # type: ignore[arg-type]


def _check_space(folder: Path, needed: int, total: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise ModelError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free and the download needs {(needed + SPARE_BYTES) / 1e9:.1f} GB "
            f"more (of {total / 1e9:.1f} GB); free some space, or give a folder on another disk with --to"
        )
