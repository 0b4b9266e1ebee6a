# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that reach a person: one line saying what was given, what is allowed and what to do."""

from __future__ import annotations


class DreamwrightError(Exception):
    """Base of every expected failure; the command line prints it without a traceback and exits with `exit_code`."""

    exit_code: int = 2  # 2: the input cannot be used; 1: the run itself failed


class ConfigError(DreamwrightError, ValueError):
    """A setting that cannot be used."""


class PromptError(DreamwrightError, ValueError):
    """A prompt that cannot be used with the chosen model."""


class ModelError(DreamwrightError):
    """A model that is unknown, missing, incomplete or of an unsupported kind."""


class CheckpointError(DreamwrightError):
    """A checkpoint that is corrupt, foreign or made by another configuration."""


class ExportError(DreamwrightError):
    """A mesh or picture that cannot be written where or how it was asked for."""


class RunError(DreamwrightError):
    """A run that failed while running: empty, diverged, or fed NaN by its guidance."""

    exit_code = 1
