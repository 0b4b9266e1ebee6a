# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress of a download: the interface of its observer, and a file that reports the bytes written to it."""

from __future__ import annotations

import io
import os
from typing import Any, Protocol

from tqdm import tqdm


class Progress(Protocol):
    """Observer of a download."""

    def message(self, line: str) -> None:
        """Show a line."""

    def begin(self, total: int, here: int) -> None:
        """Start a count of `total` bytes, of which `here` are already there."""

    def begin_file(self, path: str, here: int) -> None:
        """The next file, of which `here` bytes are there from an earlier run: they count as `advance` does."""

    def advance(self, count: int) -> None:
        """Count bytes; a negative number takes some back."""

    def end(self) -> None:
        """End the count; allowed more than once."""


class ProgressFile(io.RawIOBase):
    """A growing file that reports its growth. Unlike a raw file it writes all bytes or raises an error."""

    def __init__(self, raw: Any, progress: Progress) -> None:
        super().__init__()
        self._raw, self._progress = raw, progress

    def write(self, data: Any) -> int:
        view = memoryview(data)
        while view:
            written = self._raw.write(view)
            self._progress.advance(written)
            view = view[written:]
        return len(data)

    def tell(self) -> int:
        return int(self._raw.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._raw.seek(offset, whence))

    def truncate(self, size: int | None = None) -> int:
        before = os.fstat(self._raw.fileno()).st_size
        after = int(self._raw.truncate(size))
        self._progress.advance(after - before)  # the server sent the whole file although a range was asked for
        return after


class SilentTqdm(tqdm):
    """Replaces huggingface_hub's own bar for each file, which would disturb ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("name", None)
        super().__init__(*args, **{**kwargs, "disable": True})


class NullProgress:
    """An observer that shows nothing."""

    def message(self, line: str) -> None:
        return None

    def begin(self, total: int, here: int) -> None:
        return None

    def begin_file(self, path: str, here: int) -> None:
        return None

    def advance(self, count: int) -> None:
        return None

    def end(self) -> None:
        return None


class CountingProgress:
    """Passes counts on to an observer and keeps their sum."""

    def __init__(self, progress: Progress) -> None:
        self.total, self._progress = 0, progress

    def __call__(self, count: int) -> None:
        self.total += count
        self._progress.advance(count)
