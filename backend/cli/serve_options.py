# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of `dreamwright serve`, declared once: for the command line, the configuration file and its example.

A limit of `server/policy.py` is an option without further work.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamwright.shared.numbers import number_text

from ..errors import ConfigError
from ..server.policy import policy_option, policy_settings

Kind = Literal["text", "path", "integer", "number", "switch", "choice", "texts"]
ADDRESS = "tcp://127.0.0.1:47630"
MAX_GRACE_S = 3600.0
LIMITS = "limits and retention, which every client can see"  # their title in --help
_PYTHON: dict[Kind, Any] = {"text": str, "path": Path, "integer": int, "number": float, "texts": str}
_WORDS: dict[Kind, str] = {
    "text": 'text in "quotes"',
    "path": 'a path in "quotes"',
    "integer": "a whole number",
    "number": "a number",
    "switch": "true or false",
    "texts": 'a list of texts, as ["one", "two"]',
}


@dataclass(frozen=True)
class ServeOption:
    """One option. Its name is that of the command line without the hyphens before it, and its key in the file.

    default: None where the server chooses. low, high: inclusive bounds of a number. zero: what 0 means where it is
    allowed beside them. reloads: a running server takes the value from its file on SIGHUP. example: its value in the
    example file, where the default is none.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    metavar: str | None = None
    low: float | None = None
    high: float | None = None
    zero: str = ""
    unit: str = ""
    choices: tuple[str, ...] = ()
    group: str = ""
    reloads: bool = False
    example: Any = None

    @property
    def key(self) -> str:
        """Its attribute of the parsed options."""
        return self.name.replace("-", "_")

    def described(self) -> str:
        """The help, with the default where there is one to state."""
        if self.default in (None, "", False, ()):
            return self.help
        shown = number_text(self.default) if isinstance(self.default, (int, float)) else self.default
        return f"{self.help.rstrip('.')} (default {shown}{' ' + self.unit if self.unit else ''})"

    def allowed(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return ", ".join(f'"{word}"' for word in self.choices)
        if self.low is None or self.high is None:
            return _WORDS[self.kind]
        return f"{_WORDS[self.kind]} from {self.bounds()}"

    def bounds(self) -> str:
        """The bounds of a number in words; "" for an option without them."""
        if self.low is None or self.high is None:
            return ""
        beside = f", or 0 for {self.zero}" if self.zero and self.low > 0 else ""
        return f"{number_text(self.low)} to {number_text(self.high)}{beside}"

    def is_allowed(self, value: Any) -> bool:
        """Whether a value, as TOML or the command line has it, has the option's type and is inside its bounds."""
        if self.kind == "texts":
            return isinstance(value, (list, tuple)) and all(isinstance(text, str) and text for text in value)
        if self.kind in ("integer", "number"):
            is_number = isinstance(value, int) or (self.kind == "number" and isinstance(value, float))
            return is_number and not isinstance(value, bool) and math.isfinite(value) and self._is_inside(value)
        if self.kind == "switch":
            return isinstance(value, bool)
        text = str(value) if isinstance(value, Path) else value
        return isinstance(text, str) and text.isprintable() and (not self.choices or text in self.choices)

    def _is_inside(self, value: float) -> bool:
        if self.low is None or self.high is None:
            return True
        return self.low <= value <= self.high or (bool(self.zero) and value == 0)


def _limits() -> tuple[ServeOption, ...]:
    """The options of the policy's limits."""
    return tuple(
        ServeOption(
            policy_option(limit.key).removeprefix("--"),
            "integer" if limit.type is int else "number",
            limit.help,
            limit.default,
            "N",
            limit.low,
            limit.high,
            limit.zero,
            limit.unit,
            group=LIMITS,
            reloads=True,
        )
        for limit in policy_settings()
    )


OPTIONS: tuple[ServeOption, ...] = (
    ServeOption("address", "text", "where to listen; port 0 or * takes a free one", ADDRESS),
    ServeOption(
        "state",
        "path",
        "folder of jobs, checkpoints and results (default: the user's data folder)",
        example="/var/lib/dreamwright/server",
    ),
    ServeOption(
        "device",
        "texts",
        "cpu or cuda:N, one worker each; repeatable (default: every GPU, or the CPU)",
        (),
        example=["cuda:0", "cuda:1"],
    ),
    ServeOption(
        "loras",
        "path",
        "folder with LoRAs that users may name in their jobs (default: DREAMWRIGHT_LORAS, or loras beside the models)",
        metavar="DIR",
        example="/var/lib/dreamwright/loras",
    ),
    ServeOption(
        "ray",
        "text",
        "run the jobs on the GPUs of a Ray cluster: auto, or HOST:PORT of its head (docs/operator/ray-cluster.md)",
        "",
        "ADDRESS",
        example="auto",
    ),
    ServeOption(
        "encrypt",
        "switch",
        "require keys on a loopback address too; on any other address they are always required",
        False,
    ),
    ServeOption(
        "reached-as",
        "text",
        "this machine's name or address in the connection string (default: the address of its default route)",
        "",
        "HOST",
        example="gpu-box.studio.example",
    ),
    ServeOption(
        "announce",
        "switch",
        "announce the address and the key's fingerprint on the local network (mDNS), for Find Servers in Blender",
        False,
    ),
    *_limits(),
    ServeOption(
        "grace",
        "number",
        "for running jobs to write a checkpoint when the server stops",
        30.0,
        "SECONDS",
        0.0,
        MAX_GRACE_S,
        unit="s",
    ),
    ServeOption(
        "metrics",
        "text",
        "serve metrics for Prometheus, /healthz and /readyz there, for example 127.0.0.1:9464; without encryption or "
        "keys",
        metavar="HOST:PORT",
        example="127.0.0.1:9464",
    ),
    ServeOption(
        "web",
        "text",
        "serve a web page of jobs and devices there, for example 127.0.0.1:47631; users sign in with dreamwright keys "
        "web",
        metavar="HOST:PORT",
        example="127.0.0.1:47631",
    ),
    ServeOption(
        "web-cert",
        "path",
        "certificate of the web page, a PEM file; required where other machines reach it",
        metavar="FILE",
        example="/etc/dreamwright/page.crt",
    ),
    ServeOption(
        "web-key",
        "path",
        "private key of that certificate, a PEM file without a password",
        metavar="FILE",
        example="/etc/dreamwright/page.key",
    ),
    ServeOption(
        "log-format",
        "choice",
        "a line of text or a JSON object for each event",
        "text",
        choices=("text", "json"),
        reloads=True,
    ),
    ServeOption(
        "log-level",
        "choice",
        "debug messages may hold prompts, the others never do",
        "info",
        choices=("debug", "info", "warning", "error"),
        reloads=True,
    ),
    ServeOption("quiet", "switch", "the same as --log-level warning", False, reloads=True),
)
BY_NAME = {option.name: option for option in OPTIONS}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Define the options of the command line; one that is not given is None, so that the file can say it."""
    groups: dict[str, Any] = {"": parser}
    for option in OPTIONS:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        group = groups[option.group]
        described = option.described().replace("%", "%%")
        if option.kind == "switch":
            group.add_argument(f"--{option.name}", action=argparse.BooleanOptionalAction, help=described)
        elif option.kind == "choice":
            group.add_argument(f"--{option.name}", choices=option.choices, help=described)
        else:
            action = "append" if option.kind == "texts" else "store"
            group.add_argument(
                f"--{option.name}", action=action, type=_PYTHON[option.kind], metavar=option.metavar, help=described
            )


def effective_options(given: argparse.Namespace, file: dict[str, Any]) -> argparse.Namespace:
    """The value of every option by its key: of the command line, else of the file, else its default.

    `file` has checked values by option name. Raises ConfigError for a number of the command line that is out of range.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        value = getattr(given, option.key, None)
        if value is not None and option.kind in ("integer", "number") and not option.is_allowed(value):
            unit = f" {option.unit}" if option.unit else ""
            raise ConfigError(
                f"{option.key} is {number_text(value)}{unit}; allowed is {option.bounds()}; "
                f"change it with --{option.name}"
            )
        values[option.key] = file.get(option.name, option.default) if value is None else value
    if given.log_level is not None and given.quiet is None:
        values["quiet"] = False  # a file's quiet does not outweigh the command line's level
    return argparse.Namespace(**values)
