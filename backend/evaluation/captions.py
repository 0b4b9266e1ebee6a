# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts from a file, the captions that they are retrieved among, and their file names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..starter import domain

SLUG_LENGTH = 100  # bytes; file systems allow 255, and suffixes follow
STARTER_CAPTIONS = tuple(domain.caption(prop.name, color, None) for prop in domain.PROPS for color in domain.COLORS)


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read one prompt a line; blank lines and lines that begin with # are left out.

    Raises PromptError: no such file, not UTF-8, fewer than two prompts, or two alike.
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
    """The prompts. Raises PromptError for fewer than two, and for two that share a file name, as do two alike."""
    if len(prompts) < 2:
        raise PromptError(
            f"{where} holds {len(prompts)} prompts; needed are two or more, as each is retrieved among all"
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
    """Captions that the prompts are retrieved among: the starter's if they all belong to it, else the prompts.

    Raises PromptError like `check_prompts`, but allows a single caption of the starter.
    """
    if len(prompts) == 1 and prompts[0] in STARTER_CAPTIONS:
        return STARTER_CAPTIONS
    checked = check_prompts(prompts, where)
    return STARTER_CAPTIONS if set(checked) <= set(STARTER_CAPTIONS) else checked


def slug(prompt: str) -> str:
    """A prompt as a file name: "A red mushroom." -> "a-red-mushroom".

    Letters and digits of every script are kept. One that is too long, or has none, ends in a hash.
    """
    name = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    if name and len(name.encode()) <= SLUG_LENGTH:
        return name
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    return f"{name.encode()[:SLUG_LENGTH].decode(errors='ignore').strip('-')}-{digest}".lstrip("-")


def same_color(captions: Sequence[str], prompts: Sequence[str]) -> NDArray[np.bool_] | None:
    """Whether caption j names the color of prompt i, (n, m): textureless renders cannot tell colors apart.

    None unless all prompts and captions are of the starter's domain.
    """
    try:
        named = [domain.parse(caption)[0] for caption in captions]
        wanted = [domain.parse(prompt)[0] for prompt in prompts]
    except ValueError:
        return None
    return np.array([[color == own for color in named] for own in wanted])
