from __future__ import annotations

import math

import pytest

from napari_oneseg.evaluation.effort import EffortCurve
from napari_oneseg.evaluation.effort_report import effort_comparison, effort_table, reach, results_after
from napari_oneseg.evaluation.metrics import OrganScore
from napari_oneseg.evaluation.report import markdown


def curve(case: str, label: int, *dice: float) -> EffortCurve:
    scores = tuple(OrganScore(label, value, value, 100 * (1 - value), 1.0) for value in dice)
    return EffortCurve(case, label, tuple(tuple(range(k)) for k in range(1, len(dice) + 1)), scores, 1.0)


QUICK = [
    curve("a", 1, 0.80, 0.92, 0.96, 0.97),
    curve("a", 2, 0.70, 0.85, 0.91, 0.93),
    curve("b", 1, 0.90, 0.96),
    curve("b", 2, 0.50, 0.60, 0.70, 0.80),
    curve("c", 1, 0.85, 0.95),
]
SLOW = [
    curve("a", 1, 0.10, 0.50, 0.80, 0.90, 0.92, 0.96),
    curve("a", 2, 0.10, 0.50, 0.60, 0.90),
    curve("b", 1, 0.20, 0.60, 0.90, 0.96),
    curve("b", 2, 0.10, 0.20, 0.30),
    curve("c", 1, 0.20, 0.60, 0.90, 0.96),
    curve("d", 1, 0.90, 0.99),
]


def test_scores_after_some_slices_are_results_like_any_other() -> None:
    results = results_after(QUICK, 3)
    assert [result.case for result in results] == ["a", "b", "c"]
    assert [(score.label, score.dice) for score in results[1].scores] == [(1, 0.96), (2, 0.70)]
    assert results[1].painted == {1: (0, 1), 2: (0, 1, 2)}
    assert results[0].seconds == 2.0


def test_slices_to_a_score() -> None:
    to_90 = reach(QUICK, 0.90)
    assert (to_90.never, to_90.median) == (1, 2.0)  # 2, 3, 1, never, 2
    # Never counts as 12; each organ has the same weight.
    assert to_90.mean.mean == pytest.approx(((2 + 1 + 2) / 3 + (3 + 12) / 2) / 2)
    assert to_90.mean.low < to_90.mean.mean < to_90.mean.high
    to_95 = reach(QUICK, 0.95, most=5)
    assert (to_95.never, to_95.median) == (2, 3.0)
    assert to_95.mean.mean == pytest.approx(((3 + 2 + 2) / 3 + 5) / 2)
    assert math.isinf(reach(QUICK[1:4], 0.95).median)
    assert math.isnan(reach([], 0.95).median)


def test_table_of_annotators() -> None:
    headings, rows = effort_table({"quick": QUICK, "slow": SLOW, "none": []})
    assert headings == ["", "quick", "slow", "none"]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["labels"] == ["5", "6", "0"]
    assert cells["Dice after 1"][0].startswith("0.725 ± ")
    assert cells["Dice after 8"][0].startswith("0.912 ± ")  # the last score stands
    assert cells["slices to 0.90, median"] == ["2", "3.5", "-"]
    assert cells["slices to 0.95, median"] == ["3", "5", "-"]
    assert cells["never to 0.90"] == ["1", "1", "0"]
    assert cells["never to 0.95"] == ["2", "2", "0"]
    assert cells["slices to 0.95, mean (never = 12)"][0].startswith("7.2 ± ")
    assert len({line.count("|") for line in markdown(headings, rows).splitlines()}) == 1
    assert [row[0] for row in effort_table({"quick": QUICK}, most=3)[1] if "after" in row[0]] == [
        "Dice after 1",
        "Dice after 2",
        "Dice after 3",
    ]


def test_comparison_is_made_on_what_both_painted() -> None:
    headings, rows = effort_comparison({"slow": SLOW, "quick": QUICK, "none": []}, "quick")
    assert headings == ["quick against", "slow", "none"]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["labels"] == ["5", "0"]  # only one of them painted d
    assert cells["Dice after 1"][0].startswith(f"{((0.7 + 0.7 + 0.65) / 3 + (0.6 + 0.4) / 2) / 2:.3f}")
    quick = ((3 + 2 + 2) / 3 + 12) / 2
    slow = ((6 + 4 + 4) / 3 + 12) / 2
    assert cells["mean slices to 0.95"][0].startswith(f"{100 * (quick / slow - 1):+.0f} % (")
    assert cells["mean slices to 0.95"][1] == "-"
    # Two scans show no interval.
    two = effort_comparison({"slow": SLOW[:4], "quick": QUICK[:4]}, "quick")[1]
    assert "(" not in two[-1][1]
