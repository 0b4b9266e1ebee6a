# SPDX-License-Identifier: GPL-3.0-or-later
"""The `dreamwright` command: subcommands, exit codes, and errors as one line on standard error.

Exit codes: 0 done, 1 the run failed, 2 the input cannot be used, 130 interrupted (Ctrl-C, SIGTERM, SIGHUP).
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dreamwright.shared import __version__

from ..errors import DreamwrightError, is_out_of_memory, one_line
from ..models.hub_access import forbid_hub
from .signals import INTERRUPTED, interrupt_on_signals
from .streams import SafeStream, safe_streams

# Each module has add_arguments(subparsers) -> parser and run(options) -> exit code; torch is imported by `run` only
# where it can be, so that --help answers at once.
COMMANDS = (
    "generate",
    "batch",
    "refine",
    "finish",
    "serve",
    "top",
    "keys",
    "audit",
    "state",
    "demo",
    "sample",
    "models",
    "doctor",
    "evaluate",
)
PRINTING_COMMANDS = ("top", "keys", "audit", "state", "models", "doctor")  # their result is what they print
DEBUG = "DREAMWRIGHT_DEBUG"  # environment variable: show tracebacks


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors take one line instead of a usage text."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with 2."""
        print_error(f"{message}; see {self.prog} --help")
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = ArgumentParser(prog="dreamwright", description="Text prompts become 3D props.")
    parser.add_argument("--version", action="version", version=f"dreamwright {__version__}")
    parser.add_argument("--debug", action="store_true", help=f"show tracebacks of unexpected errors; as {DEBUG}=1")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"dreamwright.backend.cli.{name}")
        module.add_arguments(subparsers).set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse raises SystemExit for --help and bad arguments."""
    # The libraries log on stderr about matters that the user of a command cannot act on.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with safe_streams() as (stdout, _):
        options = build_parser().parse_args(arguments)
        if not (options.command == "models" and options.action == "download"):
            forbid_hub()
        code = _run(options)
        return _check_output(options.command, code, stdout)


def print_error(message: str) -> None:
    """Print one line on stderr; line breaks and control characters, as file names may hold, are escaped."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    print(f"dreamwright: error: {line}", file=sys.stderr)


def _run(options: argparse.Namespace) -> int:
    """Run the command; every exception becomes one line and an exit code."""
    try:
        with interrupt_on_signals():
            _check_text(options)
            return int(options.run(options))
    except DreamwrightError as error:
        print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print("dreamwright: interrupted; nothing was overwritten", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # only a name that was given can be too long
            return _report_unexpected(options, error)
        print_error(
            f"{os.fsdecode(error.filename or '')!r}: the name is too long for the file system; give a shorter one"
        )
        return 2
    except Exception as error:
        return _report_unexpected(options, error)


def _report_unexpected(options: argparse.Namespace, error: Exception) -> int:
    """Print an unexpected error in one line, with its traceback in a file; in debug mode raise it."""
    if options.debug or os.environ.get(DEBUG, "") not in ("", "0"):
        raise error
    if is_out_of_memory(error):
        print_error(
            f"out of memory ({one_line(error)}); a checkpoint, if one was written, is kept; use --resume with "
            "run.views_at_once=1, or a smaller model"
        )
    else:
        print_error(f"unexpected {_summary(error)}; {_write_report()}; --debug shows it in the terminal")
    return 1


def _check_text(options: argparse.Namespace) -> None:
    """Raise ConfigError for a prompt or setting that is not valid text in the terminal's encoding."""
    from ..errors import ConfigError

    for name in ("prompt", "negative", "set", "prompts"):
        value = getattr(options, name, None)
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
                raise ConfigError(
                    f"{text.encode('utf-8', 'backslashreplace').decode()!r} is not valid UTF-8; type it in a terminal "
                    "with a UTF-8 locale"
                )


def _summary(error: Exception) -> str:
    """Kind and first line of an unexpected error."""
    if isinstance(error, OSError) and error.strerror:
        name = f": {os.fsdecode(error.filename)!r}" if isinstance(error.filename, (str, bytes)) else ""
        return f"error of the system ({error.strerror}{name})"
    return f"{type(error).__name__} ({one_line(error)})"


def _write_report() -> str:
    """Write the current traceback to a file that only its owner can read; returns where, in words."""
    import platformdirs

    text = f"dreamwright {__version__}\n{traceback.format_exc()}"
    for folder in (platformdirs.user_log_path("dreamwright", appauthor=False), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix="error-", suffix=".log", dir=folder, text=True)
            with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
        except OSError:
            continue
        return f"the traceback is in {name}"
    return "its traceback could not be written"


def _check_output(command: str, code: int, stdout: SafeStream) -> int:
    """Fail a command whose result is what it prints when that could not be written; a closed pipe is no failure."""
    stdout.flush()
    if stdout.failure is None or stdout.reader_is_gone or command not in PRINTING_COMMANDS:
        return code
    print_error(f"cannot write to the standard output: {stdout.failure.strerror or stdout.failure}")
    return code or 1


if __name__ == "__main__":
    sys.exit(main())
