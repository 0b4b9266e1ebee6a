# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of props: encodings, tables and plain lines, duplicates, limits, and errors with row numbers; catalog files."""

from __future__ import annotations

import csv
import io
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.shared import asset_catalogs
from dreamwright.shared.asset_catalogs import catalog_id, catalog_ids, catalog_path, merged_catalogs, with_parents
from dreamwright.shared.prompt_list import (
    MOST_BYTES,
    MOST_ROWS,
    PromptListError,
    PromptRow,
    decode_list,
    parse_list,
)

WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=12)
CELLS = st.lists(WORDS, min_size=1, max_size=5).map(" ".join)


def errors_of(text: str) -> tuple[str, ...]:
    with pytest.raises(PromptListError) as refused:
        parse_list(text)
    return refused.value.errors


def test_plain_lines_are_prompts_in_order() -> None:
    text = "# a set\n\n a red  mushroom \r\nan oak chair\n   # not this\n"
    assert parse_list(text, default_seed=3).rows == (
        PromptRow(3, "a red mushroom", 3),
        PromptRow(4, "an oak chair", 3),
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_table_with_all_columns(separator: str) -> None:
    """Columns in any order and case; tags with a semicolon are quoted where it separates the columns."""
    lines = [
        ["Catalog", "PROMPT", "seed", "name", "tags", "preset"],
        [" Kitchen / Cups ", "a blue mug", "7", "Mug", '"cup; blue;cup"', "draft"],
        ["", "a red chair", "", "", "", ""],
    ]
    assert parse_list("\n".join(separator.join(line) for line in lines)).rows == (
        PromptRow(2, "a blue mug", 7, "Mug", "draft", ("cup", "blue"), "Kitchen/Cups"),
        PromptRow(3, "a red chair"),
    )


@given(st.lists(st.tuples(CELLS, st.integers(0, 2**31 - 1)), min_size=1, max_size=30, unique=True))
def test_written_tables_are_read_back(rows: list[tuple[str, int]]) -> None:
    """What the csv module quotes, whatever its characters are, comes back; rows are numbered as in a spreadsheet."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["seed", "prompt"])
    writer.writerows([seed, prompt] for prompt, seed in rows)
    expected = [PromptRow(number, prompt, seed) for number, (prompt, seed) in enumerate(rows, start=2)]
    assert list(parse_list(stream.getvalue()).rows) == expected


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=1, max_size=20))
def test_no_prop_is_made_twice(rows: list[tuple[str, int]]) -> None:
    text = "prompt,seed\n" + "".join(f"{prompt},{seed}\n" for prompt, seed in rows)
    found = parse_list(text)
    assert [(row.prompt, row.seed) for row in found.rows] == list(dict.fromkeys(rows))
    assert bool(found.notices) == (len(set(rows)) < len(rows))


def test_row_without_a_seed_is_the_row_with_the_default_seed() -> None:
    found = parse_list("prompt,seed\na mug,5\na mug,\na mug,4\n", default_seed=5)
    assert [row.row for row in found.rows] == [2, 4]
    assert found.notices == ("left out, as the same prompt, seed and preset make the same prop: row 3 is row 2",)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16"]
)  # the codec utf-16 writes a byte order mark, as Windows does
def test_encodings_that_name_themselves(encoding: str) -> None:
    assert decode_list("prompt\nein grüner Stuhl\n茶碗".encode(encoding)) == "prompt\nein grüner Stuhl\n茶碗"


def test_other_encodings_are_refused_unless_named() -> None:
    data = "a mug\nein grüner Stuhl\n".encode("cp1252")
    with pytest.raises(PromptListError, match="row 2 is not UTF-8 text; save the file as UTF-8, or name its encoding"):
        decode_list(data)
    assert decode_list(data, "cp1252").splitlines()[1] == "ein grüner Stuhl"
    with pytest.raises(PromptListError, match="encoding 'martian' is not known"):
        decode_list(data, "martian")
    with pytest.raises(PromptListError, match="row 1 is not UTF-16"):
        decode_list(b"\xff\xfea")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(data: bytes) -> None:
    try:
        rows = parse_list(decode_list(data)).rows
    except PromptListError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert rows and all(row.prompt.strip() == row.prompt != "" for row in rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("it holds no prompt; write one a line",)),
        ("prompt,seed\n", ("it holds no prompt; write one a line",)),
        ("a\0b", ("row 1 holds the control character U+0000; remove it",)),
        (
            "prompt,hue\nx,y",
            ("the column 'hue' is not known; allowed are prompt, name, seed, preset, tags, catalog",),
        ),
        ("prompt,seed,seed\nx,1,2", ("the column 'seed' is there twice; leave one out",)),
        ('prompt\nx\n"y', ("row 3 cannot be read (unexpected end of data); check its quotation marks",)),
        (
            "prompt,seed\n,1\nx,-1\ny,1.5\nz,2147483648\n",
            (
                "row 2 has no prompt; write one, or remove the row",
                "row 3 has the seed '-1'; allowed are whole numbers from 0 to 2147483647",
                "row 4 has the seed '1.5'; allowed are whole numbers from 0 to 2147483647",
                "row 5 has the seed '2147483648'; allowed are whole numbers from 0 to 2147483647",
            ),
        ),
        ("prompt,name\nx,Mug\ny,Mug", ("row 3 has the name 'Mug' of row 2; give each its own",)),
        (
            "prompt,seed\na mug, red,1",
            (
                "row 2 has 3 cells and the header 2; put quotation marks around a cell that holds the separator",
            ),
        ),
        (
            "prompt,catalog\nx,C:\\props",
            ("row 2 has the catalog 'C:\\\\props'; allowed are parts with / between them, without : and \\",),
        ),
    ],
)  # fmt: skip
def test_errors_name_the_row(text: str, expected: tuple[str, ...]) -> None:
    assert errors_of(text) == expected


def test_limits_and_the_message_of_many_errors() -> None:
    assert errors_of("x" * 1001) == ("row 1 has a prompt of 1001 characters; allowed are 1000; shorten it",)
    assert errors_of(f"prompt,name\nx,{'é' * 30}") == ("row 2 has a name of 60 bytes; allowed are 58; shorten it",)
    assert errors_of(f"prompt,tags\nx,{';'.join(map(str, range(33)))}") == ("row 2 has 33 tags; allowed are 32",)
    assert errors_of("\n".join(map(str, range(MOST_ROWS + 1))))[0].startswith("it has 10001 rows; allowed are 10000")
    with pytest.raises(PromptListError) as refused:
        parse_list("prompt,seed\n" + "x,?\n" * 1000)
    assert len(refused.value.errors) == 1000 and str(refused.value).endswith("; and 995 more")
    with pytest.raises(PromptListError, match=f"allowed are {MOST_BYTES}"):
        decode_list(b"x" * (MOST_BYTES + 1))
    with pytest.raises(PromptListError, match="names no column `prompt`"):
        parse_list("a mug,7\n", table=True)


def test_a_thousand_rows() -> None:
    assert len(parse_list("prompt,seed\n" + "".join(f"a mug,{n}\n" for n in range(1000))).rows) == 1000


def test_catalog_paths() -> None:
    assert catalog_path(" Props //  Street  furniture/") == "Props/Street furniture"
    assert with_parents(["a/b/c", "a/d"]) == ["a", "a/b", "a/b/c", "a/d"]
    for wrong in ("a:b", "a\\b", "x" * 64, "/".join(["y" * 60] * 5)):
        with pytest.raises(ValueError, match="has (the|a) catalog"):
            catalog_path(wrong)


def test_catalog_ids_follow_from_the_path() -> None:
    """Written down once, so that a later version gives old libraries the same ids."""
    assert uuid.UUID(catalog_id("Kitchen/Cups")).version == 5
    assert catalog_id("Kitchen/Cups") == str(uuid.uuid5(asset_catalogs.NAMESPACE, "Kitchen/Cups"))
    assert catalog_id("Kitchen/Cups") == "21e6eb5d-8b79-59d3-9e40-f68649ab9650"


def test_merging_keeps_what_the_user_changed() -> None:
    text = merged_catalogs("", ["Kitchen/Cups"])
    assert list(catalog_ids(text)) == ["Kitchen", "Kitchen/Cups"] and "\nVERSION 1\n" in text
    assert merged_catalogs(text, ["Kitchen/Cups"]) == text
    renamed = text.replace(":Kitchen/Cups:Kitchen-Cups", ":Kitchen/Mugs:Kitchen-Mugs")
    again = merged_catalogs(renamed, ["Kitchen/Cups", "Garden"])
    assert again.startswith(renamed) and list(catalog_ids(again)) == ["Kitchen", "Kitchen/Mugs", "Garden"]
    own = f"VERSION 1\n{uuid.uuid4()}:Garden:Garden\n"
    assert merged_catalogs(own, ["Garden"]) == own, "a catalog of that path that the user made is used"
