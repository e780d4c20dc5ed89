from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from napari_oneseg.evaluation.intervals import interval_of_ratio, mean_of, summarise_table

NAN = math.nan


def test_each_organ_has_the_same_weight() -> None:
    table = np.array([[0.9, 0.5], [0.7, NAN], [0.8, 0.1]])
    assert mean_of(table) == pytest.approx((0.8 + 0.3) / 2)
    summary = summarise_table(table)
    assert (summary.mean, summary.n) == (pytest.approx(0.55), 5)
    assert summary.std == pytest.approx(np.std([0.9, 0.7, 0.8, 0.5, 0.1], ddof=1))


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).normal(0.8, 0.05, 25)
    expected = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    summary = summarise_table(values[:, None])
    assert (summary.low, summary.high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert summarise_table(values[:, None]) == summary
    assert summarise_table(values[:, None], seed=1) != summary


def test_scans_are_drawn_and_not_organs() -> None:
    values = np.random.default_rng(3).normal(0.8, 0.05, (12, 1))
    one, four = summarise_table(values), summarise_table(np.repeat(values, 4, axis=1))
    # Four equal organs are four times the scores, but no more scans.
    assert (four.low, four.high) == pytest.approx((one.low, one.high))


@pytest.mark.parametrize("scans", [0, 1, 2])
def test_a_few_scans_have_no_interval(scans: int) -> None:
    table = np.full((4, 2), NAN)
    table[:scans] = 0.1 * np.arange(2 * scans).reshape(scans, 2)
    summary = summarise_table(table)
    assert (math.isnan(summary.low), math.isnan(summary.high)) == (True, True)
    assert summary.n == 2 * scans
    assert math.isnan(summary.mean) == (scans == 0)


def test_a_paired_difference_is_surer_than_the_scores() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0.7, 0.15, (10, 1))
    better = hard + rng.normal(0.03, 0.01, (10, 1))
    gain = summarise_table(better - hard)
    assert 0 < gain.low < gain.mean < gain.high
    apart = summarise_table(better)
    assert apart.high - apart.low > 5 * (gain.high - gain.low)


def test_the_ratio_of_means_has_an_interval_round_it() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.integers(4, 13, (9, 4)).astype(float)
    theirs[2, 1] = NAN
    low, high = interval_of_ratio(theirs / 2, theirs)
    assert (low, high) == pytest.approx((0.5, 0.5))
    low, high = interval_of_ratio(rng.integers(2, 7, (9, 4)).astype(float), theirs)
    assert 0.3 < low < high < 0.8
    assert all(math.isnan(bound) for bound in interval_of_ratio(theirs[:2], theirs[:2]))


def test_a_draw_without_any_value_is_left_out() -> None:
    table = np.full((4, 1), NAN)
    table[:3, 0] = 0.5, 0.6, 0.7  # a draw may hold the last scan only
    summary = summarise_table(table)
    assert 0.5 <= summary.low < summary.high <= 0.7
