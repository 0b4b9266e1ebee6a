# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts to retrieve, from a file, and the distractors of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..starter import domain

STARTER_CAPTIONS = tuple(domain.caption(prop.name, color, None) for prop in domain.PROPS for color in domain.COLORS)


def read_prompts(path: Path) -> tuple[str, ...]:
    """One prompt a line; blank lines and lines that begin with # are left out.

    Raises PromptError: no such file, not UTF-8, fewer than two prompts, or one twice (its pictures could fit either).
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            f"cannot read the prompts in {path} ({error}); give a text file with one prompt a line"
        ) from error
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return check_prompts(prompts, str(path))


def check_prompts(prompts: Sequence[str], where: str) -> tuple[str, ...]:
    """The prompts themselves. Raises PromptError for fewer than two, two alike, or two that would share file names."""
    if len(prompts) < 2:
        raise PromptError(
            f"{where} holds {len(prompts)} prompts; needed are two or more, or there is nothing to retrieve from"
        )
    seen: dict[str, str] = {}
    for prompt in prompts:
        if slug(prompt) in seen:
            raise PromptError(
                f"{where} holds {prompt!r} and {seen[slug(prompt)]!r}; allowed is each prompt once; leave one out"
            )
        seen[slug(prompt)] = prompt
    return tuple(prompts)


def captions_for(prompts: Sequence[str], where: str) -> tuple[str, ...]:
    """What prompts are retrieved among: all of the starter's captions where they are of them, else each other.

    Raises PromptError as `check_prompts`: two alike, or a single one that is no caption of the starter's.
    """
    if len(prompts) == 1 and prompts[0] in STARTER_CAPTIONS:
        return STARTER_CAPTIONS
    checked = check_prompts(prompts, where)
    return STARTER_CAPTIONS if set(checked) <= set(STARTER_CAPTIONS) else checked


def slug(prompt: str) -> str:
    """A prompt as a file name: "A red mushroom." -> "a-red-mushroom"."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")


def same_color(captions: Sequence[str], prompts: Sequence[str]) -> NDArray[np.bool_] | None:
    """Which captions (columns) name the color that a prompt (row) of the starter's names, (n, m).

    A textureless picture of the starter's domain can tell props apart and nothing else. None for prompts of another
    domain, where captions differ in more than a color.
    """
    try:
        named = [domain.parse(caption)[0] for caption in captions]
        wanted = [domain.parse(prompt)[0] for prompt in prompts]
    except ValueError:
        return None
    return np.array([[color == own for color in named] for own in wanted])
