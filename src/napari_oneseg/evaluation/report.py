"""Tables of scores: for the terminal, for a markdown page, and for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.evaluation.intervals import Summary, summarise_table
from napari_oneseg.evaluation.protocols import CaseResult

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "METRICS",
    "OrganSummary",
    "cell",
    "difference",
    "markdown",
    "markdown_comparison",
    "markdown_table",
    "rich_table",
    "summarise",
    "to_dict",
]

METRICS: dict[str, tuple[str, int]] = {
    "dice": ("Dice", 3),
    "extent_dice": ("extent Dice", 3),
    "ravd": ("RAVD %", 1),
    "assd": ("ASSD mm", 2),
}
"""Heading and decimals of each metric, in the order of the tables."""


@dataclass(frozen=True)
class OrganSummary:
    """All metrics of one organ, or of all organs together (``label`` None).

    The overall mean is the mean of the organs' means, each organ having the same weight; its standard deviation and
    number are those of the single scores.
    """

    label: int | None
    name: str
    metrics: dict[str, Summary]


def summarise(
    results: Sequence[CaseResult], names: Mapping[int, str] | None = None, seed: int = 0
) -> tuple[OrganSummary, ...]:
    """Summarise scores per organ, and over all organs in the last entry.

    Parameters
    ----------
    results
        Scores of one method.
    names
        Organ names by label; the others are called by their label.
    seed
        Of the bootstrap.
    """
    names = names or {}
    labels = sorted({score.label for result in results for score in result.scores})
    tables = {metric: _table(results, labels, metric) for metric in METRICS}

    def summary(label: int | None, columns: slice) -> OrganSummary:
        name = "all" if label is None else names.get(label, f"label {label}")
        return OrganSummary(
            label, name, {key: summarise_table(table[:, columns], seed) for key, table in tables.items()}
        )

    rows = [summary(label, slice(k, k + 1)) for k, label in enumerate(labels)]
    return (*rows, summary(None, slice(None)))


def difference(
    results: Sequence[CaseResult],
    others: Sequence[CaseResult],
    metric: str = "dice",
    other_metric: str | None = None,
    seed: int = 0,
) -> Summary:
    """Summarise by how much a metric of one method lies above that of another, on the scans and organs of both.

    Parameters
    ----------
    results, others
        Scores of the two methods; they may be the same where two metrics are compared.
    metric
        One of :data:`METRICS`.
    other_metric
        The metric of ``others``, by default the same.
    seed
        Of the bootstrap.
    """
    by_case = {result.case: result for result in others}
    common = [result for result in results if result.case in by_case]
    labels = sorted({score.label for result in common for score in result.scores})
    ours = _table(common, labels, metric)
    theirs = _table([by_case[result.case] for result in common], labels, other_metric or metric)
    return summarise_table(ours - theirs, seed)


def markdown_table(summaries: Sequence[OrganSummary], heading: str = "organ") -> str:
    """Return a markdown table, one row per organ: mean, standard deviation, and the 95 % interval of the mean.

    Parameters
    ----------
    summaries
        The rows.
    heading
        Of the first column, which holds their names.
    """
    headings = [heading, "n", *(title for title, _ in METRICS.values())]
    return markdown(headings, map(_cells, summaries))


def markdown_comparison(methods: Mapping[str, Sequence[OrganSummary]], metric: str = "dice") -> str:
    """Return a markdown table of one metric's means: one row per method, one column per organ.

    Parameters
    ----------
    methods
        Summaries by the name of the method.
    metric
        One of :data:`METRICS`.
    """
    decimals = METRICS[metric][1]
    organs = list(dict.fromkeys(row.name for rows in methods.values() for row in rows if row.label is not None))
    organs.append("all")
    lines = []
    for name, rows in methods.items():
        means = {row.name: row.metrics[metric].mean for row in rows}
        lines.append([name, *(_number(means.get(organ, math.nan), decimals) for organ in organs)])
    return markdown(["method", *organs], lines)


def rich_table(summaries: Sequence[OrganSummary], title: str = "") -> Table:
    """Return the rows of :func:`markdown_table` as a table for the terminal."""
    from rich.table import Table

    table = Table(title=title or None)
    table.add_column("organ")
    for heading in ("n", *(title for title, _ in METRICS.values())):
        table.add_column(heading, justify="right")
    for row in summaries:
        if row.label is None:
            table.add_section()
        table.add_row(*_cells(row))
    return table


def to_dict(results: Sequence[CaseResult], names: Mapping[int, str] | None = None, seed: int = 0) -> dict[str, Any]:
    """Return all scores and their summary as plain values for JSON, NaN as None."""
    content = {
        "cases": [asdict(result) for result in results],
        "summary": [asdict(row) for row in summarise(results, names, seed)],
    }
    plain: dict[str, Any] = _plain(content)
    return plain


def _table(results: Sequence[CaseResult], labels: Sequence[int], metric: str) -> NDArray[np.float64]:
    """Return one metric, shape (cases, labels), NaN where a case lacks a label."""
    table = np.full((len(results), len(labels)), np.nan)
    for row, result in enumerate(results):
        for score in result.scores:
            if score.label in labels:
                table[row, labels.index(score.label)] = getattr(score, metric)
    return table


def cell(summary: Summary, decimals: int) -> str:
    """Return a table's cell: mean, standard deviation, and the 95 % interval of the mean, as far as there are any."""
    text = _number(summary.mean, decimals)
    if math.isfinite(summary.std):
        text += f" ± {_number(summary.std, decimals)}"
    if math.isfinite(summary.low):
        text += f" ({_number(summary.low, decimals)} to {_number(summary.high, decimals)})"
    return text


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table, the first column to the left, the others to the right."""
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(row: OrganSummary) -> list[str]:
    cells = [row.name, str(row.metrics["dice"].n)]
    for metric, (_, decimals) in METRICS.items():
        summary = row.metrics[metric]
        fewer = f", n = {summary.n}" if 0 < summary.n < row.metrics["dice"].n else ""
        cells.append(cell(summary, decimals) + fewer)
    return cells


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "-"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
