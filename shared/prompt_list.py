# SPDX-License-Identifier: GPL-3.0-or-later
"""A list of props to make, from a text: one prompt a line, or a table (CSV) whose first row names its columns.

Everything is checked before anything is made: a list is read whole, or refused with the numbers of its wrong rows.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .asset_catalogs import catalog_path
from .limits import NAME_CHARACTERS, PROMPT_CHARACTERS, SEED_LARGEST

COLUMNS = ("prompt", "name", "seed", "preset", "tags", "catalog")
DELIMITERS = ",;\t"  # spreadsheets write the semicolon where the comma is the decimal mark
COMMENT = "#"
MOST_ROWS = 10_000
MOST_BYTES = 16 * 1024 * 1024
MOST_TAGS, TAG_BYTES = 32, 63  # a tag is a name of Blender's, which holds 63 bytes of UTF-8
OBJECT_NAME_BYTES = 58  # of 63: Blender appends .001 to a name that is taken
ERRORS_SHOWN = 5
# Of Unicode's control characters only these may stand in a text file.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class PromptListError(ValueError):
    """A list that cannot be used. `errors` has one clause for each thing that is wrong with it."""

    def __init__(self, errors: list[str]) -> None:
        self.errors = tuple(errors)
        more = len(errors) - ERRORS_SHOWN
        super().__init__("; ".join(errors[:ERRORS_SHOWN]) + (f"; and {more} more" if more > 0 else ""))


@dataclass(frozen=True)
class PromptRow:
    """One prop. `row` counts from 1 as a spreadsheet does; "" for `name` and `preset` means that none was given."""

    row: int
    prompt: str
    seed: int = 0
    name: str = ""
    preset: str = ""
    tags: tuple[str, ...] = ()
    catalog: str = ""  # path with "/" between its parts; "" for none


@dataclass(frozen=True)
class PromptList:
    """The rows, each prop once, and sentences about rows that were left out."""

    rows: tuple[PromptRow, ...]
    notices: tuple[str, ...] = ()


def decode_list(data: bytes, encoding: str = "") -> str:
    """The text of a file: UTF-8, UTF-16 with a byte order mark, or `encoding` where one is given.

    Other encodings are not guessed: a wrong guess would make the wrong prop. Raises PromptListError.
    """
    if len(data) > MOST_BYTES:
        raise PromptListError([f"it has {len(data)} bytes; allowed are {MOST_BYTES}; split it"])
    if not encoding:
        is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "utf-16" if is_wide else "utf-8-sig"
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise PromptListError([f"the encoding {encoding!r} is not known; give one such as cp1252 or utf-8"]) from error
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        row = data[:start].count(b"\n") + 1
        named = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16"}.get(encoding, encoding)
        raise PromptListError(
            [f"row {row} is not {named} text; save the file as UTF-8, or name its encoding, such as cp1252"]
        ) from error


def parse_list(text: str, default_seed: int = 0, table: bool | None = None) -> PromptList:
    """The list in a text. A table is one whose first row has a column `prompt`; other texts hold one prompt a line.

    Blank rows and rows that begin with # are left out, and so are rows that ask for the same prop as an earlier one:
    the same prompt, seed and preset. `table` True refuses a text that is no table. Raises PromptListError.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = CONTROL.search(text)
    if found:
        row = text.count("\n", 0, found.start()) + 1
        raise PromptListError([f"row {row} holds the control character U+{ord(found[0]):04X}; remove it"])
    delimiter = _delimiter(text)
    if delimiter:
        rows, errors = _read_table(text, delimiter, default_seed)
    elif table:
        raise PromptListError(
            ["its first row names no column `prompt`; begin a table with a row such as prompt,name,seed,tags,catalog"]
        )
    else:
        rows, errors = [], []
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip() and not line.lstrip().startswith(COMMENT):
                _add(rows, errors, number, {"prompt": line}, default_seed)
    kept, notices = _once(rows, errors)
    if not rows and not errors:
        errors.append("it holds no prompt; write one a line")
    if len(kept) > MOST_ROWS:
        errors.append(f"it has {len(kept)} rows; allowed are {MOST_ROWS}; split it")
    if errors:
        raise PromptListError(errors)
    return PromptList(tuple(kept), tuple(notices))


def _first_line(text: str) -> str:
    """The first line that is neither blank nor a comment."""
    return next((s for s in text.split("\n") if s.strip() and not s.lstrip().startswith(COMMENT)), "")


def _delimiter(text: str) -> str:
    """The character between the columns of a table; "" for a text that is no table."""
    header = _first_line(text)
    for delimiter in sorted(DELIMITERS, key=header.count, reverse=True):
        if "prompt" in (cell.strip().strip('"').strip().lower() for cell in header.split(delimiter)):
            return delimiter
    return ""


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of the records that are neither blank nor a comment. Raises csv.Error."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for number, cells in enumerate(reader, start=1):
        if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith(COMMENT):
            yield number, cells


def _read_table(text: str, delimiter: str, default_seed: int) -> tuple[list[PromptRow], list[str]]:
    """The rows of a table, and what is wrong with it."""
    rows: list[PromptRow] = []
    errors: list[str] = []
    columns: list[str] = []
    number = 0
    try:
        for number, cells in _records(text, delimiter):
            if not columns:
                columns = [cell.strip().lower() for cell in cells]
                errors += _column_errors(columns)
                if errors:
                    break
            elif any(cell.strip() for cell in cells[len(columns) :]):
                errors.append(
                    f"row {number} has {len(cells)} cells and the header {len(columns)}; put quotation marks around a "
                    "cell that holds the separator"
                )
            else:
                _add(rows, errors, number, dict(zip(columns, cells, strict=False)), default_seed)
    except csv.Error as error:
        errors.append(f"row {number + 1} cannot be read ({error}); check its quotation marks")
    return rows, errors


def _column_errors(columns: list[str]) -> list[str]:
    allowed = ", ".join(COLUMNS)
    errors = [f"the column {name!r} is not known; allowed are {allowed}" for name in columns if name not in COLUMNS]
    errors += [f"the column {name!r} is there twice; leave one out" for name in COLUMNS if columns.count(name) > 1]
    return errors


def _add(rows: list[PromptRow], errors: list[str], number: int, cells: dict[str, str], default_seed: int) -> None:
    """Append the row of these cells, or what is wrong with it."""
    words = {name: " ".join(cell.split()) for name, cell in cells.items()}
    tags = tuple(dict.fromkeys(tag for tag in map(str.strip, words.get("tags", "").split(";")) if tag))
    found = _row_errors(words, tags)
    if found:
        errors += [f"row {number} {error}" for error in found]
        return
    seed = int(words.get("seed") or default_seed)
    catalog = catalog_path(words.get("catalog", ""))
    rows.append(PromptRow(number, words["prompt"], seed, words.get("name", ""), words.get("preset", ""), tags, catalog))


def _row_errors(words: dict[str, str], tags: tuple[str, ...]) -> list[str]:
    errors = []
    prompt, seed, name = words.get("prompt", ""), words.get("seed", ""), words.get("name", "")
    if not prompt:
        errors.append("has no prompt; write one, or remove the row")
    elif len(prompt) > PROMPT_CHARACTERS:
        errors.append(f"has a prompt of {len(prompt)} characters; allowed are {PROMPT_CHARACTERS}; shorten it")
    if seed and not (re.fullmatch("[0-9]{1,10}", seed) and int(seed) <= SEED_LARGEST):
        errors.append(f"has the seed {seed[:40]!r}; allowed are whole numbers from 0 to {SEED_LARGEST}")
    if len(name.encode()) > OBJECT_NAME_BYTES:
        errors.append(f"has a name of {len(name.encode())} bytes; allowed are {OBJECT_NAME_BYTES}; shorten it")
    if len(words.get("preset", "")) > NAME_CHARACTERS:
        errors.append(f"has a preset of {len(words['preset'])} characters; allowed are {NAME_CHARACTERS}")
    if len(tags) > MOST_TAGS:
        errors.append(f"has {len(tags)} tags; allowed are {MOST_TAGS}")
    errors += [
        f"has the tag {tag[:40]!r} of {len(tag.encode())} bytes; allowed are {TAG_BYTES}; separate tags with ;"
        for tag in tags
        if len(tag.encode()) > TAG_BYTES
    ]
    try:
        catalog_path(words.get("catalog", ""))
    except ValueError as error:
        errors.append(str(error))
    return errors


def _once(rows: list[PromptRow], errors: list[str]) -> tuple[list[PromptRow], list[str]]:
    """The rows without those that ask for an earlier row's prop, and a notice about these. Adds to `errors`."""
    kept: dict[tuple[str, int, str], PromptRow] = {}
    names: dict[str, int] = {}
    repeated = []
    for row in rows:
        first = kept.setdefault((row.prompt, row.seed, row.preset), row)
        if first is not row:
            repeated.append(f"row {row.row} is row {first.row}")
        elif row.name and names.setdefault(row.name, row.row) != row.row:
            errors.append(f"row {row.row} has the name {row.name!r} of row {names[row.name]}; give each its own")
    if not repeated:
        return list(kept.values()), []
    shown = ", ".join(repeated[:ERRORS_SHOWN]) + (", ..." if len(repeated) > ERRORS_SHOWN else "")
    notice = f"left out, as the same prompt, seed and preset make the same prop: {shown}"
    return list(kept.values()), [notice]
