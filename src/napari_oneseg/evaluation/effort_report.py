"""Tables of the painting effort: the score after so many slices, and how many it takes to reach a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.evaluation.effort import COUNTS, MOST_SLICES, THRESHOLDS, EffortCurve
from napari_oneseg.evaluation.intervals import Summary, interval_of_ratio, mean_of, summarise_table
from napari_oneseg.evaluation.protocols import CaseResult
from napari_oneseg.evaluation.report import cell, difference, summarise

__all__ = ["Reach", "effort_comparison", "effort_table", "reach", "results_after"]


@dataclass(frozen=True)
class Reach:
    """How many slices it takes to reach a Dice coefficient.

    Attributes
    ----------
    threshold
        The Dice coefficient.
    never
        Number of curves that do not reach it.
    median
        Median number of slices, a curve that never reaches it counting as infinite; so infinite where half do not.
    mean
        Mean number of slices, a curve that never reaches it counting as the most slices that are ever painted: less
        than the truth, and the same for all methods.
    """

    threshold: float
    never: int
    median: float
    mean: Summary


def results_after(curves: Sequence[EffortCurve], count: int) -> list[CaseResult]:
    """Return the scores after ``count`` slices, as those of any other protocol."""
    results = []
    for case in dict.fromkeys(curve.case for curve in curves):
        own = [curve for curve in curves if curve.case == case]
        painted = {curve.label: curve.painted[min(count, len(curve.painted)) - 1] for curve in own}
        seconds = sum(curve.seconds for curve in own)
        results.append(CaseResult(case, tuple(curve.after(count) for curve in own), painted, seconds))
    return results


def reach(curves: Sequence[EffortCurve], threshold: float, most: int = MOST_SLICES, seed: int = 0) -> Reach:
    """Count the slices that it takes to reach a Dice coefficient.

    Parameters
    ----------
    curves
        Of one annotator.
    threshold
        The Dice coefficient.
    most
        What a curve that never reaches it counts as in the mean.
    seed
        Of the bootstrap.
    """
    counts = [curve.slices_to(threshold) for curve in curves]
    median = float(np.median([math.inf if count is None else count for count in counts])) if counts else math.nan
    table = _table(curves, *_places(curves), lambda curve: curve.slices_to(threshold) or most)
    return Reach(threshold, counts.count(None), median, summarise_table(table, seed))


def effort_table(
    annotators: Mapping[str, Sequence[EffortCurve]], most: int = MOST_SLICES
) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: the Dice coefficient after so many slices, and the slices to reach so much.

    Parameters
    ----------
    annotators
        Curves by the name of the annotator; each gets a column.
    most
        Most slices that were painted.
    """
    rows = [["labels", *(str(len(curves)) for curves in annotators.values())]]
    for count in _counts(most):
        summaries = [summarise(results_after(curves, count))[-1] for curves in annotators.values()]
        rows.append([f"Dice after {count}", *(cell(summary.metrics["dice"], 3) for summary in summaries)])
    for threshold in THRESHOLDS:
        reached = [reach(curves, threshold, most) for curves in annotators.values()]
        rows += [
            [f"slices to {threshold:.2f}, median", *(_median(entry.median, most) for entry in reached)],
            [f"slices to {threshold:.2f}, mean (never = {most})", *(cell(entry.mean, 1) for entry in reached)],
            [f"never to {threshold:.2f}", *(str(entry.never) for entry in reached)],
        ]
    return ["", *annotators], rows


def effort_comparison(
    annotators: Mapping[str, Sequence[EffortCurve]], ours: str, most: int = MOST_SLICES, seed: int = 0
) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: what an annotator gains over each other one, on the labels that both painted.

    Parameters
    ----------
    annotators
        Curves by the name of the annotator; each other one gets a column.
    ours
        The annotator to compare with the others.
    most
        Most slices that were painted.
    seed
        Of the bootstrap.
    """
    pairs = {name: _paired(annotators[ours], curves) for name, curves in annotators.items() if name != ours}
    rows = [["labels", *(str(len(mine)) for mine, _ in pairs.values())]]
    for count in _counts(most):
        gains = [
            difference(results_after(mine, count), results_after(theirs, count), seed=seed)
            for mine, theirs in pairs.values()
        ]
        rows.append([f"Dice after {count}", *(cell(gain, 3) for gain in gains)])
    for threshold in THRESHOLDS:
        changes = [_change(mine, theirs, threshold, most, seed) for mine, theirs in pairs.values()]
        rows.append([f"mean slices to {threshold:.2f}", *changes])
    return [f"{ours} against", *pairs], rows


def _counts(most: int) -> list[int]:
    return [count for count in COUNTS if count <= most]


def _median(value: float, most: int) -> str:
    return f"> {most}" if math.isinf(value) else "-" if math.isnan(value) else f"{value:g}"


def _paired(
    curves: Sequence[EffortCurve], others: Sequence[EffortCurve]
) -> tuple[list[EffortCurve], list[EffortCurve]]:
    known = {(curve.case, curve.label): curve for curve in others}
    mine = [curve for curve in curves if (curve.case, curve.label) in known]
    return mine, [known[curve.case, curve.label] for curve in mine]


def _change(
    curves: Sequence[EffortCurve], others: Sequence[EffortCurve], threshold: float, most: int, seed: int
) -> str:
    """Say by what share the mean number of slices differs from the others', with its interval."""
    if not curves:
        return "-"
    places = _places(curves)
    mine, theirs = (
        _table(side, *places, lambda curve: curve.slices_to(threshold) or most) for side in (curves, others)
    )
    low, high = interval_of_ratio(mine, theirs, seed)
    text = f"{100 * (mean_of(mine) / mean_of(theirs) - 1):+.0f} %"
    return text if math.isnan(low) else f"{text} ({100 * (low - 1):+.0f} to {100 * (high - 1):+.0f})"


def _places(curves: Sequence[EffortCurve]) -> tuple[list[str], list[int]]:
    """Return the cases and the labels of some curves."""
    return list(dict.fromkeys(curve.case for curve in curves)), sorted({curve.label for curve in curves})


def _table(
    curves: Sequence[EffortCurve], cases: list[str], labels: list[int], value: Callable[[EffortCurve], float]
) -> NDArray[np.float64]:
    """Return one value per curve, shape (cases, labels), NaN where there is no curve."""
    table = np.full((len(cases), len(labels)), np.nan)
    for curve in curves:
        table[cases.index(curve.case), labels.index(curve.label)] = value(curve)
    return table
