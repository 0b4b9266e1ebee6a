# SPDX-License-Identifier: GPL-3.0-or-later
"""The log of the server and its workers: an event and its fields a line, as text or JSON, and never a prompt or a secret.

A call names the event and passes the rest as fields: `log.info("job submitted", extra={"job": name, "user": owner})`.
What an exception says may hold what a user typed, so that above DEBUG only its type and its stack are told, except for
those that speak of files, sockets and the database.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
FORMAT_VARIABLE, LEVEL_VARIABLE = (
    "DREAMWRIGHT_LOG_FORMAT",
    "DREAMWRIGHT_LOG_LEVEL",
)  # by which workers take after their server
HARMLESS = (OSError, sqlite3.Error)  # their texts come from the system, as ZeroMQ's do
SHORTEST_HIDDEN = 4  # characters; blotting out less would garble every line and hide nothing
HIDDEN = "[hidden]"
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_hidden: tuple[str, ...] = ()


def redact(*texts: str) -> None:
    """Blot these texts, and none of before, out of every line from now on, unless it is DEBUG's: what the job in hand asks for."""
    global _hidden
    forms = {form for text in texts for form in (text, text.strip(), repr(text)[1:-1]) if len(form) >= SHORTEST_HIDDEN}
    _hidden = tuple(sorted(forms, key=len, reverse=True))


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the call passed as fields; names with an underscore before them are other libraries' (importing Ray adds one)."""
    return {name: value for name, value in vars(record).items() if name not in _OWN and not name.startswith("_")}


def told_of(error: BaseException, level: int) -> str:
    """An exception's type, and its text where that cannot hold what a user typed, or for who asks for DEBUG."""
    kind = type(error).__name__
    if level <= logging.DEBUG or isinstance(error, HARMLESS) or type(error).__module__.startswith("zmq."):
        return f"{kind}: {error}"
    return kind


def stack_of(error: BaseException, trace: TracebackType | None, level: int) -> list[str]:
    """Where an exception came from, innermost last, each followed by what it was; the ones that caused it first."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = stack_of(cause, cause.__traceback__, level) if cause is not None else []
    lines += [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
    return [*lines, told_of(error, level)]


class LogFormatter(logging.Formatter):
    """A record as one line: `time level logger event field=value …`, or the same as a JSON object. Times are UTC, ISO 8601.

    `shown` is the level that was asked for: at DEBUG what exceptions say is told too, and nothing is blotted out.
    """

    def __init__(self, style: str, shown: int) -> None:
        super().__init__()
        self._as_json, self._shown = style == "json", shown

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end; a stack in the text form follows on lines of its own, indented."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = self._blot(record.getMessage())
        fields = {name: self._blot(value) for name, value in fields_of(record).items()}
        stack = []
        if record.exc_info and record.exc_info[1] is not None:
            stack = [self._blot(line) for line in stack_of(record.exc_info[1], record.exc_info[2], self._shown)]
            fields["exception"] = stack[-1]
        if self._as_json:
            told = {"time": at, "level": record.levelname.lower(), "logger": record.name, "event": event, **fields}
            return json.dumps(told | ({"stack": stack} if stack else {}), ensure_ascii=False, default=str)
        words = [
            at,
            record.levelname,
            record.name,
            " ".join(event.split()),
            *(f"{name}={_shown(value)}" for name, value in fields.items()),
        ]
        return "\n  ".join([" ".join(words), *stack])

    def _blot(self, told: Any) -> Any:
        if isinstance(told, str) and self._shown > logging.DEBUG:
            for text in _hidden:
                told = told.replace(text, HIDDEN)
        return told


def _shown(value: Any) -> str:
    """A field's value on one line; in quotes where it would not be one word."""
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def open_log(style: str, level: str, stream: TextIO | None = None) -> None:
    """Log to `stream` (standard error) from now on, in this process and in those that it starts."""
    shown = logging.getLevelName(level.upper())
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LogFormatter(style, shown))
    logging.basicConfig(level=shown, handlers=[handler], force=True)
    logging.captureWarnings(True)
    os.environ[FORMAT_VARIABLE], os.environ[LEVEL_VARIABLE] = style, level


def inherit_log() -> None:
    """Log as the process that started this one does; as text from INFO on where it says nothing."""
    style, level = os.environ.get(FORMAT_VARIABLE, "text"), os.environ.get(LEVEL_VARIABLE, "info")
    open_log(style if style in FORMATS else "text", level if level in LEVELS else "info")
