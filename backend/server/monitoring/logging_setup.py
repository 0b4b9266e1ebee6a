# SPDX-License-Identifier: GPL-3.0-or-later
"""The log of the server and its workers: one event and its fields per line, text or JSON, no prompts or secrets.

A call names the event and passes the rest as fields: `log.info("job submitted", extra={"job": name, "user": owner})`.
The text of an exception may quote what a user typed. Above DEBUG a line therefore has only the type and the stack of an
exception, except for exceptions about files, sockets and the database.
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
# Environment variables from which workers take the settings of their server.
FORMAT_VARIABLE, LEVEL_VARIABLE = "DREAMWRIGHT_LOG_FORMAT", "DREAMWRIGHT_LOG_LEVEL"
HARMLESS = (OSError, sqlite3.Error)  # their texts come from the system, as ZeroMQ's do
MIN_REDACTED = 4  # characters; redacting shorter texts would garble every line and hide nothing
REDACTED = "[hidden]"
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_redacted: tuple[str, ...] = ()


def redact(*texts: str) -> None:
    """Replace these texts by REDACTED in every later line above DEBUG; earlier calls have no effect any more."""
    global _redacted
    forms = {form for text in texts for form in (text, text.strip(), repr(text)[1:-1]) if len(form) >= MIN_REDACTED}
    _redacted = tuple(sorted(forms, key=len, reverse=True))


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that the call passed. Names with a leading underscore belong to libraries (Ray adds one)."""
    return {
        name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS and not name.startswith("_")
    }


def exception_text(error: BaseException, level: int) -> str:
    """An exception's type, and its text if that cannot quote a user, or at DEBUG."""
    kind = type(error).__name__
    if level <= logging.DEBUG or isinstance(error, HARMLESS) or type(error).__module__.startswith("zmq."):
        return f"{kind}: {error}"
    return kind


def stack_of(error: BaseException, trace: TracebackType | None, level: int) -> list[str]:
    """The frames of an exception, innermost last, then its text; exceptions that caused it come first."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = stack_of(cause, cause.__traceback__, level) if cause is not None else []
    lines += [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
    return [*lines, exception_text(error, level)]


class LogFormatter(logging.Formatter):
    """A record as one line: `time level logger event field=value …`, or as a JSON object. Times are UTC, ISO 8601.

    `style`: one of FORMATS. `level`: the level that was asked for; at DEBUG nothing is redacted.
    """

    def __init__(self, style: str, level: int) -> None:
        super().__init__()
        self._as_json, self._level = style == "json", level

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end; in text style a stack follows on indented lines."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = self._clean(record.getMessage())
        fields = {name: self._clean(value) for name, value in fields_of(record).items()}
        stack = []
        if record.exc_info and record.exc_info[1] is not None:
            stack = [self._clean(line) for line in stack_of(record.exc_info[1], record.exc_info[2], self._level)]
            fields["exception"] = stack[-1]
        if self._as_json:
            content = {"time": at, "level": record.levelname.lower(), "logger": record.name, "event": event, **fields}
            return json.dumps(content | ({"stack": stack} if stack else {}), ensure_ascii=False, default=str)
        values = [f"{name}={_field_text(value)}" for name, value in fields.items()]
        line = " ".join([at, record.levelname, record.name, " ".join(event.split()), *values])
        return "\n  ".join([line, *stack])

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str) and self._level > logging.DEBUG:
            for text in _redacted:
                value = value.replace(text, REDACTED)
        return value


def _field_text(value: Any) -> str:
    """A field's value on one line, quoted if it is not a single word."""
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def open_log(style: str, level: str, stream: TextIO | None = None) -> None:
    """Log to `stream` (None: standard error) from now on, in this process and in its worker processes."""
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LogFormatter(style, number))
    logging.basicConfig(level=number, handlers=[handler], force=True)
    logging.captureWarnings(True)
    os.environ[FORMAT_VARIABLE], os.environ[LEVEL_VARIABLE] = style, level


def inherit_log() -> None:
    """Log as the parent process does; as text from INFO on if it does not say."""
    style, level = os.environ.get(FORMAT_VARIABLE, "text"), os.environ.get(LEVEL_VARIABLE, "info")
    open_log(style if style in FORMATS else "text", level if level in LEVELS else "info")
