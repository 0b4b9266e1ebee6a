# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks of figures in a Markdown document: what stands between `<!-- figures: NAME -->` and `<!-- end -->`.

A program writes the lines between the markers; everything around them is left alone.
"""

from __future__ import annotations

import re

_BLOCK = re.compile(r"(?P<head><!-- figures: (?P<name>[a-z0-9-]+) -->\n)(?P<text>.*?)(?P<tail><!-- end -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- (?:figures: [^>]*|end) -->")


class BlockError(ValueError):
    """Markers of a document that do not pair."""


def blocks(document: str) -> dict[str, str]:
    """Text of each block by its name, without blank lines around it.

    Raises BlockError for a name that occurs twice, and for a marker without its partner.
    """
    found: dict[str, str] = {}
    for block in _BLOCK.finditer(document):
        name, text = block["name"], block["text"]
        if name in found or _MARKER.search(text):
            raise BlockError(f"the block {name!r} begins twice; end each block with <!-- end -->, and name it once")
        found[name] = text.strip("\n")
    if len(_MARKER.findall(document)) != 2 * len(found):
        raise BlockError("a marker has no partner; write <!-- figures: NAME --> and <!-- end --> on lines of their own")
    return found


def with_block(document: str, name: str, text: str) -> str:
    """The document with other text in the named block, a blank line around it so that Markdown sees its tables.

    Raises BlockError for a document without that block.
    """
    if name not in blocks(document):
        raise BlockError(
            f"there is no block {name!r}; write <!-- figures: {name} --> and <!-- end --> where it belongs"
        )

    def replaced(block: re.Match[str]) -> str:
        if block["name"] != name:
            return block[0]
        return f"{block['head']}\n{text.strip()}\n\n{block['tail']}"

    return _BLOCK.sub(replaced, document)
