# SPDX-License-Identifier: GPL-3.0-or-later
"""The Hugging Face hub: files of a repository at one commit, their content, and the hub's refusals as errors."""

from __future__ import annotations

from types import TracebackType
from urllib.parse import urlsplit

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
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._headers import build_hf_headers

from ..errors import ModelError
from .download_progress import ProgressFile, SilentTqdm
from .record_file import HubFile, is_inside
from .registry import ModelSource

CHUNK = 2**20  # bytes; what a kill loses, and how smooth the bar is (huggingface_hub takes 10 MiB)
HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "requests", "urllib3")


class UnsuitableSourceError(ModelError):
    """This source cannot give the model; another one may. `gated` when its license has to be accepted first."""

    def __init__(self, text: str, gated: bool = False) -> None:
        super().__init__(text)
        self.gated = gated


class _SourceErrors:
    """Context in which the hub's refusals become UnsuitableSourceError."""

    def __init__(self, source: ModelSource, revision: str) -> None:
        self.source, self.revision = source, revision

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        name = self.source.repo_id
        if isinstance(error, GatedRepoError):
            who = (
                "no token is stored on this machine"
                if get_token() is None
                else "the account of the stored token has not accepted it"
            )
            raise UnsuitableSourceError(
                f"{name} is gated and {who}; accept its license at {constants.ENDPOINT}/{name}, run `hf auth login`, "
                "then download again",
                gated=True,
            ) from error
        if isinstance(error, RevisionNotFoundError):
            raise UnsuitableSourceError(f"{name} has no revision {self.revision!r}") from error
        if isinstance(error, (RepositoryNotFoundError, DisabledRepoError)):
            raise UnsuitableSourceError(f"{name} is not on {constants.ENDPOINT} (gone, misspelt or private)") from error
        if isinstance(error, RemoteEntryNotFoundError):
            raise UnsuitableSourceError(f"{name} lists a file that it does not have") from error
        if isinstance(error, HFValidationError):
            raise ModelError(f'{name!r} is no name of a model on the hub; allowed is "owner/name"') from error
        if isinstance(error, HfHubHTTPError) and not isinstance(error, OfflineModeIsEnabled):
            raise UnsuitableSourceError(f"{name}: {status_text(error)}") from error


def list_files(source: ModelSource, revision: str) -> tuple[str, dict[str, HubFile]]:
    """The commit that a revision means, and its files by path. Raises UnsuitableSourceError, and network errors."""
    with _SourceErrors(source, revision):
        api = HfApi()
        commit = str(api.model_info(source.repo_id, revision=revision).sha)
        listing = {}
        for entry in api.list_repo_tree(source.repo_id, recursive=True, revision=commit):
            if isinstance(entry, RepoFile) and is_inside(entry.path):
                sha256 = str(entry.lfs.sha256) if entry.lfs is not None else ""
                listing[entry.path] = HubFile(entry.path, int(entry.size), sha256, "" if sha256 else str(entry.blob_id))
        return commit, listing


def receive_content(source: ModelSource, commit: str, file: HubFile, stream: ProgressFile, begin: int) -> None:
    """Append the content of a file from byte `begin` on to the stream.

    Raises UnsuitableSourceError, and network errors.
    """
    with _SourceErrors(source, commit):
        url = hf_hub_url(source.repo_id, file.path, revision=commit)
        location = get_hf_file_metadata(url).location
        headers = dict(build_hf_headers())
        headers["Accept-Encoding"] = "identity"  # a range of a compressed stream would be of no use
        if urlsplit(location).netloc != urlsplit(url).netloc:  # the token is for the hub alone
            headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
        constants.DOWNLOAD_CHUNK_SIZE = CHUNK  # read at each call; a no-op should a later version drop it
        http_get(
            location,
            stream,  # type: ignore[arg-type]  # ProgressFile has the methods of BinaryIO that http_get uses
            resume_size=begin,
            headers=headers,
            expected_size=file.size,
            tqdm_class=SilentTqdm,
        )


def is_network_failure(error: BaseException) -> bool:
    """Whether a connection failed; by name too, since huggingface_hub changed its HTTP library and may again."""
    root = type(error).__module__.split(".")[0]
    return isinstance(error, (ConnectionError, TimeoutError)) or root in HTTP_LIBRARIES


def status_text(error: HfHubHTTPError) -> str:
    """ "https://huggingface.co answered 503"."""
    status = getattr(getattr(error, "response", None), "status_code", "?")
    return f"{constants.ENDPOINT} answered {status}"
