# SPDX-License-Identifier: GPL-3.0-or-later
"""Results by row and column, with prompts as independent samples: means, standard errors and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Column:
    """One column of a table. `scale` 100 shows a fraction as a percentage."""

    name: str
    scale: float = 1.0
    digits: int = 2


def percentage(name: str) -> Column:
    """A column of fractions, shown as percentages."""
    return Column(name, 100.0, 1)


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts, its standard error (None for a single prompt), and the number of prompts."""

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
    """Mean of n independent values and its standard error s / sqrt(n), s^2 the unbiased variance. Raises ValueError."""
    if not len(values):
        raise ValueError("no values; a mean needs at least one")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(float(np.mean(values)), error, len(values))


class ResultsTable:
    """Collects values by row, column and prompt. The values of a prompt are averaged before prompts are."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._values: dict[tuple[str, str], dict[str, list[float]]] = {}
        self._rows: dict[str, None] = {}

    def add(self, row: str, column: str, prompt: str, values: Sequence[float]) -> None:
        """Add values of one prompt. Raises ValueError for an unknown column."""
        if column not in {known.name for known in self.columns}:
            raise ValueError(f"no column {column!r}; the columns are {', '.join(known.name for known in self.columns)}")
        self._rows.setdefault(row)
        self._values.setdefault((row, column), {}).setdefault(prompt, []).extend(float(value) for value in values)

    @property
    def rows(self) -> tuple[str, ...]:
        """Rows in the order of their first value."""
        return tuple(self._rows)

    def by_prompt(self, row: str, column: str) -> dict[str, float]:
        """Mean of each prompt that has values."""
        return {
            prompt: float(np.mean(values)) for prompt, values in self._values.get((row, column), {}).items() if values
        }

    def mean_of(self, row: str, column: str) -> Estimate | None:
        """Mean over prompts; None without values."""
        means = list(self.by_prompt(row, column).values())
        return estimate(means) if means else None

    def change(self, row: str, before: str, column: str) -> Estimate | None:
        """Mean of `row` - `before` over the prompts that both have: a paired difference."""
        new, old = self.by_prompt(row, column), self.by_prompt(before, column)
        both = [new[prompt] - old[prompt] for prompt in new if prompt in old]
        return estimate(both) if both else None

    def markdown(self, head: str) -> str:
        """The table of means."""
        return self._table(
            head, [(row, [self.mean_of(row, column.name) for column in self.columns]) for row in self.rows], False
        )

    def changes_markdown(self, head: str, pairs: Sequence[tuple[str, str, str]]) -> str:
        """The table of differences; `pairs` are (label, row, row before)."""
        lines = [
            (label, [self.change(row, before, column.name) for column in self.columns]) for label, row, before in pairs
        ]
        return self._table(head, lines, True)

    def to_json(self) -> list[dict[str, Any]]:
        """Means of each row, and the values by prompt."""
        found: list[dict[str, Any]] = []
        for row in self.rows:
            estimates: dict[str, Mapping[str, Any] | None] = {}
            for column in self.columns:
                value = self.mean_of(row, column.name)
                estimates[column.name] = (
                    None if value is None else {**asdict(value), "by_prompt": self.by_prompt(row, column.name)}
                )
            found.append({"row": row, "values": estimates})
        return found

    def _table(self, head: str, lines: Sequence[tuple[str, Sequence[Estimate | None]]], signed: bool) -> str:
        texts = [
            f"| {head} | " + " | ".join(column.name for column in self.columns) + " |",
            "| --- |" + " ---: |" * len(self.columns),
        ]
        for label, estimates in lines:
            shown = [
                "—" if value is None else value.shown(column, signed)
                for column, value in zip(self.columns, estimates, strict=True)
            ]
            texts.append(f"| {label} | " + " | ".join(shown) + " |")
        return "\n".join(texts) + "\n"
