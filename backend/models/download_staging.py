# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a download in progress: files in place, and partial files that grow in `.dreamwright/parts`.

A partial file is named by its hash, so that a mirror can complete what another source began; it moves into place once
its hash is right. huggingface_hub (2.x) keeps nothing of a file that was received in part.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .download_progress import NullProgress, Progress, ProgressFile
from .download_record import record_path
from .hub import receive_content
from .json_files import parse_json
from .record_file import PRIVATE, HubFile, partial_bytes, partial_path
from .registry import ModelSource


class StagingFolder:
    """The files of one download in a model folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts = folder, folder / PRIVATE / "parts"

    def final_path(self, file: HubFile) -> Path:
        """Where the whole file goes."""
        return self.folder / file.path

    def received_bytes(self, file: HubFile) -> int:
        """Bytes of the file that an earlier run received."""
        return partial_bytes(self.folder, file)

    def read_json(self, source: ModelSource, commit: str, file: HubFile) -> tuple[Any, int]:
        """A small file's JSON, before it replaces anything, and the bytes received for it.

        Raises ValueError for other content, and the errors of `receive`.
        """
        path, received = self.final_path(file), 0
        if file.mismatch(path):
            received = self.receive(source, commit, file, NullProgress())
            path = partial_path(self.folder, file)
        return parse_json(path), received

    def fetch(self, source: ModelSource, commit: str, file: HubFile, progress: Progress) -> int:
        """Bring one file into place; returns the bytes received. Raises the errors of `receive`."""
        received = self.receive(source, commit, file, progress)
        self.final_path(file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial_path(self.folder, file), self.final_path(file))
        return received

    def receive(self, source: ModelSource, commit: str, file: HubFile, progress: Progress) -> int:
        """Receive one file whole, continuing a partial one; returns the bytes received.

        Raises UnsuitableSourceError, ModelError for content of another hash, and network errors.
        """
        self.parts.mkdir(parents=True, exist_ok=True)
        partial, begin = partial_path(self.folder, file), self.received_bytes(file)
        with open(partial, "r+b" if begin else "wb", buffering=0) as raw:
            raw.seek(begin)
            progress.begin_file(file.path, begin)
            stream = ProgressFile(raw, progress)
            if begin < file.size or not file.size:
                receive_content(source, commit, file, stream, begin)
            received = max(0, stream.tell() - begin)
        if fault := file.mismatch(partial):
            partial.unlink()
            progress.advance(-file.size)
            raise ModelError(
                f"{file.path} from {source.repo_id} {fault}, so it was damaged on its way; "
                "the same command fetches it again"
            )
        return received

    def remove(self, files: set[HubFile]) -> None:
        """Remove files of an earlier revision that the new one lacks, so that no two variants lie side by side."""
        for file in files:
            self.final_path(file).unlink(missing_ok=True)

    def finish(self) -> None:
        """Remove partial files. Those that cannot be removed take room and do no harm."""
        shutil.rmtree(self.parts, ignore_errors=True)

    def remove_if_unused(self) -> None:
        """Leave no trace of a download that received nothing: a folder without a record is no partial download."""
        if not record_path(self.folder).is_file():
            shutil.rmtree(self.folder / PRIVATE, ignore_errors=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
