from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from napari_oneseg.evaluation.metrics import OrganScore
from napari_oneseg.evaluation.protocols import CaseResult
from napari_oneseg.evaluation.report import markdown_comparison, markdown_table, rich_table, summarise, to_dict

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


def test_interval_is_that_of_a_bootstrap_over_cases() -> None:
    values = np.random.default_rng(3).normal(0.8, 0.05, 40)
    many = [result(str(k), (1, float(value), 1.0), (2, float(value), 1.0)) for k, value in enumerate(values)]
    organ, _, every = summarise(many)
    error = values.std() / math.sqrt(len(values))
    assert organ.metrics["dice"].low == pytest.approx(values.mean() - 1.96 * error, abs=0.004)
    assert organ.metrics["dice"].high == pytest.approx(values.mean() + 1.96 * error, abs=0.004)
    # Both organs of a case are equal here: twice the scores, but no more cases, so the interval does not shrink.
    assert every.metrics["dice"].low == pytest.approx(organ.metrics["dice"].low)
    assert summarise(many)[0] == organ
    assert summarise(many, seed=1)[0] != organ


def test_one_case_has_no_interval() -> None:
    summary = summarise(RESULTS[:1])[0].metrics["dice"]
    assert (summary.mean, summary.n) == (0.9, 1)
    assert math.isnan(summary.low)
    assert math.isnan(summary.std)


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
