from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from napari_oneseg.evaluation.metrics import OrganScore
from napari_oneseg.evaluation.protocols import CaseResult
from napari_oneseg.evaluation.report import (
    difference,
    markdown_comparison,
    markdown_table,
    rich_table,
    summarise,
    to_dict,
)

NAMES = {1: "liver"}


def result(case: str, *scores: tuple[int, float, float]) -> CaseResult:
    """Return a result with (label, Dice, ASSD) scores."""
    rows = tuple(OrganScore(label, dice, dice, 100 * (1 - dice), assd) for label, dice, assd in scores)
    return CaseResult(case, rows, {label: (3,) for label, _, _ in scores}, 1.5)


RESULTS = [
    result("a", (1, 0.9, 1.0), (2, 0.5, 4.0)),
    result("b", (1, 0.7, 3.0), (2, 0.0, math.nan)),
    result("c", (1, 0.8, 2.0)),
]


def test_means_per_organ_and_overall() -> None:
    liver, other, every = summarise(RESULTS, NAMES)
    assert (liver.name, other.name, every.name) == ("liver", "label 2", "all")
    assert liver.metrics["dice"].mean == pytest.approx(0.8)
    assert liver.metrics["dice"].std == pytest.approx(0.1)
    assert (liver.metrics["dice"].n, other.metrics["dice"].n, every.metrics["dice"].n) == (3, 2, 5)
    assert every.metrics["dice"].mean == pytest.approx((0.8 + 0.25) / 2)
    assert (other.metrics["assd"].mean, other.metrics["assd"].n) == (4.0, 1)
    assert every.metrics["assd"].mean == pytest.approx((2.0 + 4.0) / 2)


def test_intervals_are_there_for_organs_of_enough_scans() -> None:
    liver, other, every = summarise(RESULTS)
    assert 0.69 < liver.metrics["dice"].low < 0.8 < liver.metrics["dice"].high < 0.91
    assert math.isnan(other.metrics["dice"].low)  # two scans have it
    assert math.isfinite(every.metrics["dice"].low)
    assert math.isfinite(liver.metrics["assd"].low)
    assert math.isnan(summarise(RESULTS[:2])[-1].metrics["dice"].low)


def test_one_case_has_no_interval() -> None:
    summary = summarise(RESULTS[:1])[0].metrics["dice"]
    assert (summary.mean, summary.n) == (0.9, 1)
    assert math.isnan(summary.low)
    assert math.isnan(summary.std)


def test_difference_is_taken_on_the_scans_and_organs_of_both() -> None:
    better = [
        result("c", (1, 0.85, 2.0)),
        result("a", (1, 0.95, 0.5), (2, 0.7, math.nan), (3, 0.9, 1.0)),
        result("d", (1, 0.1, 9.0)),
    ]
    gain = difference(better, RESULTS)
    assert (gain.mean, gain.n) == (pytest.approx((0.05 + 0.2) / 2), 3)
    assert difference(RESULTS, better).mean == pytest.approx(-gain.mean)
    assert difference(better, RESULTS, "assd").n == 2  # one surface distance is missing
    assert difference(better, []).n == 0


def test_difference_of_two_metrics_of_one_method() -> None:
    scores = (OrganScore(1, 0.80, 0.85, 0, 0), OrganScore(2, 0.90, 0.91, 0, 0))
    run_on = [CaseResult("a", scores, {}, 0.0)]
    gap = difference(run_on, run_on, "extent_dice", "dice")
    assert gap.mean == pytest.approx(0.03)


def test_no_result_gives_an_empty_row() -> None:
    (every,) = summarise([])
    assert every.metrics["dice"].n == 0
    assert "| all | 0 | - | - | - | - |" in markdown_table([every])


def test_markdown_table() -> None:
    lines = markdown_table(summarise(RESULTS, NAMES)).splitlines()
    assert lines[0] == "| organ | n | Dice | extent Dice | RAVD % | ASSD mm |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| liver | 3 | 0.800 ± 0.100 (0.700 to 0.900) |")
    assert lines[3].endswith(", n = 1 |")  # the missed organ has no surface distance


def test_markdown_comparison() -> None:
    table = markdown_comparison({"ours": summarise(RESULTS, NAMES), "none": summarise([])})
    assert table.splitlines()[0] == "| method | liver | label 2 | all |"
    assert table.splitlines()[2:] == ["| ours | 0.800 | 0.250 | 0.525 |", "| none | - | - | - |"]


def test_terminal_table_shows_the_same_numbers() -> None:
    stream = io.StringIO()
    Console(file=stream, width=200).print(rich_table(summarise(RESULTS, NAMES), "Results"))
    text = stream.getvalue()
    for word in ("Results", "liver", "0.800 ± 0.100", "0.525"):
        assert word in text


def test_dictionary_goes_through_json() -> None:
    content = to_dict(RESULTS, NAMES)
    again = json.loads(json.dumps(content, allow_nan=False))
    assert again == content
    assert again["cases"][1]["scores"][1] == {"label": 2, "dice": 0.0, "extent_dice": 0.0, "ravd": 100.0, "assd": None}
    assert again["cases"][0]["painted"] == {"1": [3], "2": [3]}
    assert again["summary"][0]["metrics"]["dice"]["mean"] == pytest.approx(0.8)
