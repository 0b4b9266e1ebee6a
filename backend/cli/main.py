# SPDX-License-Identifier: GPL-3.0-or-later
"""The `dreamwright` command: subcommands, and the one place where expected errors become one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from dreamwright.shared import __version__

from ..errors import DreamwrightError, is_out_of_memory, one_line

# Each module has add_arguments(subparsers) -> parser and run(options) -> exit code; torch is imported by `run` only
# where it can be, so that --help answers at once.
COMMANDS = ("generate", "refine", "serve", "top", "keys", "demo", "sample", "models", "doctor", "evaluate")
INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(prog="dreamwright", description="Text prompts become 3D props.")
    parser.add_argument("--version", action="version", version=f"dreamwright {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"dreamwright.backend.cli.{name}")
        module.add_arguments(subparsers).set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0: done, 1: the run failed, 2: bad input, 130: interrupted."""
    # diffusers and transformers talk on stderr about matters that a prompt-writer cannot act on.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    options = build_parser().parse_args(arguments)
    if not (options.command == "models" and options.action == "download"):
        os.environ["HF_HUB_OFFLINE"] = "1"  # no other command uses the hub, nor do the processes that it starts
    try:
        return int(options.run(options))
    except DreamwrightError as error:
        print(f"dreamwright: error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print(
            f"dreamwright: error: out of memory ({one_line(error)}); a checkpoint, if "
            "one was written, is kept; use --resume with run.views_at_once=1, or a smaller model",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("dreamwright: interrupted; nothing was overwritten", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
