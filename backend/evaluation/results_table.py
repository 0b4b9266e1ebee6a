# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures by row and column with prompts as the independent units: means, standard errors, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Column:
    """One figure of a table. `scale` 100 shows a share in per cent."""

    name: str
    scale: float = 1.0
    digits: int = 2


def percentage(name: str) -> Column:
    """A column of shares, shown in per cent."""
    return Column(name, 100.0, 1)


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts, its standard error (None for a single prompt), and how many prompts."""

    mean: float
    standard_error: float | None
    prompts: int

    def shown(self, column: Column, signed: bool = False) -> str:
        """ "62.5 ± 12.5" in the column's unit."""
        mean = f"{column.scale * self.mean:{'+' if signed else ''}.{column.digits}f}"
        if self.standard_error is None:
            return mean
        return f"{mean} ± {column.scale * self.standard_error:.{column.digits}f}"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values, with s / sqrt(n), s^2 the unbiased variance. Raises ValueError for none."""
    if not len(values):
        raise ValueError("no values; a mean needs at least one")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(float(np.mean(values)), error, len(values))


class ResultsTable:
    """Collects values by row, column and prompt. Seeds and views of one prompt are averaged before prompts are."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._values: dict[tuple[str, str], dict[str, list[float]]] = {}
        self._rows: dict[str, None] = {}

    def add(self, row: str, column: str, prompt: str, values: Sequence[float]) -> None:
        """More values of one prompt. Raises ValueError for a column that the table does not have."""
        if column not in {known.name for known in self.columns}:
            raise ValueError(f"no column {column!r}; the columns are {', '.join(known.name for known in self.columns)}")
        self._rows.setdefault(row)
        self._values.setdefault((row, column), {}).setdefault(prompt, []).extend(float(value) for value in values)

    @property
    def rows(self) -> tuple[str, ...]:
        """Rows in the order of their first value."""
        return tuple(self._rows)

    def by_prompt(self, row: str, column: str) -> dict[str, float]:
        """The mean of each prompt that has values."""
        return {
            prompt: float(np.mean(values)) for prompt, values in self._values.get((row, column), {}).items() if values
        }

    def figure(self, row: str, column: str) -> Estimate | None:
        """The mean over prompts; None where there is nothing."""
        means = list(self.by_prompt(row, column).values())
        return estimate(means) if means else None

    def change(self, row: str, before: str, column: str) -> Estimate | None:
        """The mean of `row` - `before` over the prompts that both have: paired, so that hard prompts do not add to its error."""
        new, old = self.by_prompt(row, column), self.by_prompt(before, column)
        both = [new[prompt] - old[prompt] for prompt in new if prompt in old]
        return estimate(both) if both else None

    def markdown(self, head: str) -> str:
        """The table of figures."""
        return self._table(
            head, [(row, [self.figure(row, column.name) for column in self.columns]) for row in self.rows], False
        )

    def changes_markdown(self, head: str, pairs: Sequence[tuple[str, str, str]]) -> str:
        """The table of differences: (label, row, row before) each."""
        lines = [
            (label, [self.change(row, before, column.name) for column in self.columns]) for label, row, before in pairs
        ]
        return self._table(head, lines, True)

    def as_json(self) -> list[dict[str, Any]]:
        """Each row's figures, and what they are means of."""
        found: list[dict[str, Any]] = []
        for row in self.rows:
            figures: dict[str, Mapping[str, Any] | None] = {}
            for column in self.columns:
                figure = self.figure(row, column.name)
                figures[column.name] = (
                    None if figure is None else {**asdict(figure), "by_prompt": self.by_prompt(row, column.name)}
                )
            found.append({"row": row, "figures": figures})
        return found

    def _table(self, head: str, lines: Sequence[tuple[str, Sequence[Estimate | None]]], signed: bool) -> str:
        texts = [
            f"| {head} | " + " | ".join(column.name for column in self.columns) + " |",
            "| --- |" + " ---: |" * len(self.columns),
        ]
        for label, figures in lines:
            shown = [
                "—" if figure is None else figure.shown(column, signed) for column, figure in zip(self.columns, figures)
            ]
            texts.append(f"| {label} | " + " | ".join(shown) + " |")
        return "\n".join(texts) + "\n"
