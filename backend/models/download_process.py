# SPDX-License-Identifier: GPL-3.0-or-later
"""A child process of the server that downloads and verifies one registered model, and reports in lines of JSON.

    python -m dreamwright.backend.models.download_process      (started by the server; stdin line 1: {"model": name})

SIGTERM, or the end of stdin, stops it; what was received is kept, and the next run continues.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..errors import ModelError, one_line

REPORT_S = 0.25  # between two reports of progress
ORPHAN_GRACE_S = 1.0  # to stop once the server is gone

Send = Callable[..., None]  # (**fields) -> None


class ReportingProgress:
    """A `Progress` that sends its counts, at most every REPORT_S seconds.

    `received` counts bytes of the network only, without those that were here: their rate is that of the download.
    """

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send, self._clock = send, clock
        self._done = self._total = self._received = 0
        self._file, self._is_receiving = "", False
        self._sent_at = float("-inf")

    def message(self, line: str) -> None:
        self._send(message=line)

    def begin(self, total: int, here: int) -> None:
        self._done, self._total, self._is_receiving = here, total, False
        self._report(True)

    def begin_file(self, path: str, here: int) -> None:
        self._file, self._is_receiving = path, True
        self._done += here
        self._report(True)

    def advance(self, count: int) -> None:
        self._done += count
        self._received += count if self._is_receiving else 0
        self._report(self._done >= self._total)

    def end(self) -> None:
        self._file, self._is_receiving = "", False
        self._report(True)

    def _report(self, is_due: bool) -> None:
        if is_due or self._clock() - self._sent_at >= REPORT_S:
            self._sent_at = self._clock()
            done, received = min(max(self._done, 0), self._total), max(self._received, 0)
            self._send(done=done, total=self._total, received=received, file=self._file)


def download_and_verify(name: str, send: Send) -> None:
    """Bring a registered model to this machine, whole and verified. Raises ModelError."""
    # Not at the top: a server imports this module for its name.
    from .download import download
    from .local import download_folder
    from .registry import BY_NAME
    from .verify import expected_files, verify_folder

    model = BY_NAME[name]
    progress = ReportingProgress(send)
    folder = download(model, download_folder(model), None, progress).folder
    send(state="checking")
    progress.begin(sum(file.size for file in expected_files(folder).values()), 0)
    result = verify_folder(folder, progress.advance)
    if not result.sound:
        raise ModelError(
            f"{folder} is downloaded and has a fault: {result.faults[0]}; download it again, which fetches just what "
            "is wrong"
        )


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _follow_server() -> None:
    """Stop when the server, which holds the other end of stdin, is gone."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(3)


def main() -> int:
    """Run the request on stdin; the last line is {"result": ...} or {"error": ...}, and none when it was stopped."""
    signal.signal(signal.SIGTERM, _stop)

    def send(**fields: Any) -> None:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()

    try:
        request = json.loads(sys.stdin.buffer.readline())
        threading.Thread(target=_follow_server, daemon=True).start()
        download_and_verify(str(request["model"]), send)
    except KeyboardInterrupt:
        return 130
    except ModelError as error:
        send(error=str(error))
        return 2
    except Exception as error:
        send(error=f"the download ended by an unexpected {type(error).__name__} ({one_line(error)})")
        return 1
    send(result="done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
