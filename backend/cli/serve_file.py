# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file of `dreamwright serve`: TOML, one key for each option, read again on SIGHUP."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import re
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .serve_options import BY_NAME, OPTIONS, ServeOption, effective_options

log = logging.getLogger(__name__)

MAX_BYTES = 1_000_000
SHOWN = 60  # characters of a wrong value in a message
HEADER = """\
# The configuration of `dreamwright serve --config FILE`; written by `dreamwright serve --example-config`.
# A key has the name of its option. The command line goes before this file, and this file before the defaults.
# Paths are relative to this file's folder. SIGHUP reads the file again: options marked (reloads) then take effect at
# once, the others at the next start.
"""


def read_config_file(path: Path) -> dict[str, Any]:
    """The checked values of a file by option name; paths are absolute. Raises ConfigError with file, line and key."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigError(
            f"the configuration file {str(path)!r} cannot be read: {error.strerror or error}; "
            "give another with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration file {str(path)!r} is not UTF-8; save it as UTF-8") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"the configuration file {str(path)!r} has more than {MAX_BYTES} bytes; give another with --config"
        )
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = str(error) or "it is nested too deeply"
        raise ConfigError(f"the configuration file {str(path)!r} is not valid TOML: {reason}; correct it") from error
    return {name: _checked(path, text, name, value) for name, value in content.items()}


def example_text() -> str:
    """An example file: every option, commented out, with its help and its default."""
    parts = [HEADER]
    for option in OPTIONS:
        notes = option.described() + (" (reloads)" if option.reloads else "")
        lines = [f"# {line}" for line in textwrap.wrap(notes, 116)]
        value = option.example if option.default in (None, "", ()) else option.default
        parts.append("\n".join([*lines, f"# {option.name} = {json.dumps(value)}"]) + "\n")
    return "\n".join(parts)


class ServeConfiguration:
    """The options in force of one `dreamwright serve`: of its command line, and of its file if it has one.

    Raises ConfigError.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self._given, self._file = given, given.config
        self.options = self._read()

    def _read(self) -> argparse.Namespace:
        return effective_options(self._given, {} if self._file is None else read_config_file(self._file))

    def reload(self, apply: Callable[[argparse.Namespace], None]) -> None:
        """Read the file again, and `apply` the options that a running server can take; the log names the others.

        With a file that cannot be used the earlier options stay in force, and the log says why.
        """
        try:
            fresh = self._read()
            changed = [o for o in OPTIONS if getattr(fresh, o.key) != getattr(self.options, o.key)]
            taken = [option for option in changed if option.reloads]
            current = argparse.Namespace(**{**vars(self.options), **{o.key: getattr(fresh, o.key) for o in taken}})
            apply(current)
        except ConfigError as error:
            log.error("configuration not read again; the earlier one stays", extra={"why": str(error)})
            return
        self.options = current
        log.info("configuration read again", extra={"options": _names(taken) or "none changed"})
        waiting = [option for option in changed if not option.reloads]
        if waiting:
            log.warning("changed options take effect at the next start", extra={"options": _names(waiting)})


def _names(options: list[ServeOption]) -> str:
    return " ".join(option.name for option in options)


def _checked(path: Path, text: str, name: str, value: Any) -> Any:
    """One value of the file, as the command line would have it. Raises ConfigError."""
    place = str(path)
    found = re.search(rf"""^[ \t]*\[*[ \t]*["']?{re.escape(name)}["']?[ \t]*[=.\]]""", text, re.MULTILINE)
    if found:
        place += f", line {text.count(chr(10), 0, found.start()) + 1}"
    option = BY_NAME.get(name)
    if option is None:
        similar = difflib.get_close_matches(name.replace("_", "-"), BY_NAME, 1)
        advice = f"did you mean {similar[0]}?" if similar else "see dreamwright serve --example-config"
        raise ConfigError(f"{place}: there is no option {_shown(name)}; {advice}")
    if not option.is_allowed(value):
        raise ConfigError(f"{place}: {name} is {_shown(value)}; allowed is {option.allowed()}")
    if option.kind == "path":
        return path.absolute().parent / Path(value).expanduser()
    if option.kind == "number":
        return float(value)
    return list(value) if option.kind == "texts" else value


def _shown(value: Any) -> str:
    """A wrong value on one line."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
