# SPDX-License-Identifier: GPL-3.0-or-later
"""Standard output and standard error that cannot fail a command: encodings, closed pipes, full disks."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class SafeStream:
    """Wrap a text stream so that `write` and `flush` never raise.

    Characters that the encoding lacks become backslash escapes. After an OSError, for example a closed pipe, a full
    disk or a terminal that is gone, everything further is dropped and `failure` holds the error. All other attributes
    are those of the wrapped stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    @property
    def reader_is_gone(self) -> bool:
        """Whether the other end of the pipe was closed, as `| head` does."""
        return self.failure is not None and self.failure.errno == errno.EPIPE

    def write(self, text: str) -> int:
        """Write, or drop the text after a failure. Returns the number of characters."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, unless writing has failed before."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Keep the error, and discard what is still buffered: the interpreter flushes it when it exits."""
        self.failure = error
        with suppress(OSError, ValueError):  # the stream has no descriptor, or it is closed
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def safe_streams() -> Iterator[tuple[SafeStream, SafeStream]]:
    """Replace sys.stdout and sys.stderr by `SafeStream`s for the duration of the block, and flush them at its end."""
    before = sys.stdout, sys.stderr
    _open_missing_descriptors()
    # A process that was started with a closed descriptor has None in its place.
    streams = [SafeStream(open(os.devnull, "w", encoding="utf-8") if stream is None else stream) for stream in before]  # noqa: SIM115
    sys.stdout, sys.stderr = cast(TextIO, streams[0]), cast(TextIO, streams[1])
    try:
        yield streams[0], streams[1]
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_missing_descriptors() -> None:
    """Open descriptors 0 to 2 where they are closed, or the next file would get their number and their output."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return
        os.set_inheritable(descriptor, True)
