"""Means over scans, and how far they can be trusted.

A table of scores has the shape (scans, organs), NaN where a scan lacks an organ or a score is not defined. The mean of
a table is the mean of its organs' means, each organ having the same weight.

The bootstrap draws whole scans, because the organs of one scan fail together, and gives the percentile interval. With a
handful of scans such an interval is too narrow rather than too wide; below :data:`LEAST_SCANS` there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_SCANS", "Summary", "interval_of_ratio", "mean_of", "summarise_table"]

Table = NDArray[np.float64]

LEAST_SCANS = 3
"""With fewer scans no interval is given: two values span all that a bootstrap can draw from them."""

_RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """One score over all scans; NaN where no scan has a value.

    Attributes
    ----------
    mean, std
        Mean and standard deviation (of the sample, NaN below two values).
    low, high
        95 % bootstrap interval of the mean; NaN below :data:`LEAST_SCANS`.
    n
        Number of values, without NaN.
    """

    mean: float
    std: float
    low: float
    high: float
    n: int


def summarise_table(table: Table, seed: int = 0) -> Summary:
    """Summarise a table of scores, (scans, organs); the standard deviation and ``n`` are those of the single scores.

    Parameters
    ----------
    table
        Scores, or the differences of two methods' scores on the same scans: then the interval is that of a paired
        comparison.
    seed
        Of the bootstrap.
    """
    values = table[np.isfinite(table)]
    low, high = _interval(_means_of(table, _draws(table, seed)), table)
    std = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return Summary(mean_of(table), std, low, high, int(values.size))


def interval_of_ratio(numerator: Table, denominator: Table, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the ratio of two tables' means, both drawn with the same scans.

    Parameters
    ----------
    numerator, denominator
        Scores of two methods, both (scans, organs), row by row of the same scan.
    seed
        Of the bootstrap.
    """
    draws = _draws(numerator, seed)
    below = _means_of(denominator, draws)
    ratios = _means_of(numerator, draws) / np.where(below == 0, np.nan, below)
    return _interval(ratios, numerator + denominator)


def mean_of(table: Table) -> float:
    """Return the mean of the organs' means of a table of scores, (scans, organs); NaN where it holds no value."""
    return float(_mean(_mean(table, axis=0), axis=0))


def _draws(table: Table, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, max(1, len(table)), (_RESAMPLES, len(table)))


def _means_of(table: Table, draws: NDArray[np.int64]) -> Table:
    """Return the mean of each draw: (draws, scans, organs) -> (draws, organs) -> (draws,)."""
    return _mean(_mean(table[draws], axis=1), axis=1)


def _interval(values: Table, table: Table) -> tuple[float, float]:
    if np.isfinite(table).any(axis=1).sum() < LEAST_SCANS:
        return math.nan, math.nan
    # A draw may hold only scans without the organ.
    low, high = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
    return float(low), float(high)


def _mean(values: Table, axis: int) -> Table:
    """Return the mean without NaN, and NaN where nothing is left: numpy's own warns of that."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
