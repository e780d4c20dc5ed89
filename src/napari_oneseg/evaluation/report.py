"""Tables of scores: for the terminal, for a markdown page, and for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.evaluation.protocols import CaseResult

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "METRICS",
    "OrganSummary",
    "Summary",
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

_RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """One metric of one organ over all cases; NaN where no case has a value.

    Attributes
    ----------
    mean, std
        Mean and standard deviation (of the sample, NaN below two values).
    low, high
        95 % bootstrap interval of the mean; NaN below two cases.
    n
        Number of values, without NaN.
    """

    mean: float
    std: float
    low: float
    high: float
    n: int


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

    The bootstrap draws whole cases, because the organs of one scan fail together.

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
    draws = np.random.default_rng(seed).integers(0, max(1, len(results)), (_RESAMPLES, len(results)))
    tables = {metric: _table(results, labels, metric) for metric in METRICS}

    def summary(label: int | None, columns: slice) -> OrganSummary:
        name = "all" if label is None else names.get(label, f"label {label}")
        return OrganSummary(label, name, {key: _summary(table[:, columns], draws) for key, table in tables.items()})

    rows = [summary(label, slice(k, k + 1)) for k, label in enumerate(labels)]
    return (*rows, summary(None, slice(None)))


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
    return _markdown(headings, [_cells(row) for row in summaries])


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
    return _markdown(["method", *organs], lines)


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
            table[row, labels.index(score.label)] = getattr(score, metric)
    return table


def _summary(table: NDArray[np.float64], draws: NDArray[np.int64]) -> Summary:
    """Summarise one metric, shape (cases, organs)."""
    values = table[np.isfinite(table)]
    low = high = math.nan
    if len(table) > 1 and values.size:
        means = _mean(_mean(table[draws], axis=1), axis=1)  # (draws, cases, organs) -> (draws, organs) -> (draws,)
        low, high = (float(bound) for bound in np.percentile(means[np.isfinite(means)], [2.5, 97.5]))
    mean = float(_mean(_mean(table, axis=0), axis=0))
    std = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return Summary(mean, std, low, high, int(values.size))


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the mean without NaN, and NaN where nothing is left: numpy's own warns of that."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _cells(row: OrganSummary) -> list[str]:
    cells = [row.name, str(row.metrics["dice"].n)]
    for metric, (_, decimals) in METRICS.items():
        summary = row.metrics[metric]
        cell = _number(summary.mean, decimals)
        if math.isfinite(summary.std):
            cell += f" ± {_number(summary.std, decimals)}"
        if math.isfinite(summary.low):
            cell += f" ({_number(summary.low, decimals)} to {_number(summary.high, decimals)})"
        if 0 < summary.n < row.metrics["dice"].n:
            cell += f", n = {summary.n}"
        cells.append(cell)
    return cells


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "-"


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
