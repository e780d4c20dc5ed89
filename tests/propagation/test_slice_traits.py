"""What a propagated label shows of how good it is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.propagation.slice_traits import TRAITS, slice_traits
from napari_oneseg.volume import Annotation

SHAPE = (9, 24, 24)
SPACING = (3.0, 1.0, 1.0)


def column(side: int = 8) -> NDArray[np.uint8]:
    """Return label 2 as a square column through all slices."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 4 : 4 + side, 4 : 4 + side] = 2
    return labels


def traits_of(
    labels: NDArray[np.uint8], painted: tuple[int, ...] = (4,), confidence: NDArray[np.float16] | None = None
) -> dict[int, dict[str, float]]:
    annotation = Annotation({k: labels[k] for k in painted})
    sure = np.ones(SHAPE, np.float16) if confidence is None else confidence
    found = slice_traits(labels, sure, annotation, SPACING, 2)
    return {k: dict(zip(TRAITS, row.tolist(), strict=True)) for k, row in found.items()}


def test_a_steady_label_is_certain_and_overlaps() -> None:
    found = traits_of(column())
    assert sorted(found) == [0, 1, 2, 3, 5, 6, 7, 8], "the painted slice is settled"
    for k, row in found.items():
        assert row["certainty"] == row["doubt beside"] == row["overlap"] == row["least overlap"] == 1.0
        assert row["growth"] == row["loss"] == 0.0
        assert row["steps"] == pytest.approx(np.log1p(abs(k - 4)))
        assert row["reach"] == pytest.approx(np.log1p(abs(k - 4) * 3.0 / np.sqrt(64 / np.pi)))


def test_the_least_on_the_way_is_kept_on_the_far_side_only() -> None:
    confidence = np.ones(SHAPE, np.float16)
    confidence[6, 4:12, 4:12] = 0.5
    found = traits_of(column(), confidence=confidence)
    assert found[5]["least certainty"] == 1.0
    assert found[6]["certainty"] == found[6]["least certainty"] == found[8]["least certainty"] == 0.5
    assert found[8]["certainty"] == 1.0
    assert found[2]["least certainty"] == 1.0


def test_growth_loss_and_overlap() -> None:
    labels = column()
    labels[5, 4:12, 4:16] = 2  # half as much again
    labels[3] = 0
    labels[3, 4:8, 4:12] = 2  # one half
    labels[7:] = 0
    labels[7:, 14:22, 14:22] = 2  # jumped away
    found = traits_of(labels)
    assert found[5]["growth"] == pytest.approx(np.log(1.5))
    assert found[5]["loss"] == 0.0
    assert found[3]["loss"] == pytest.approx(np.log(2))
    assert found[3]["overlap"] == 1.0, "the smaller one lies within the larger one"
    assert found[7]["overlap"] == 0.0
    assert found[8]["overlap"] == 1.0
    assert found[8]["least overlap"] == 0.0


def test_a_label_that_comes_again_has_overlapped_nowhere() -> None:
    labels = column()
    labels[6] = 0
    found = traits_of(labels)
    assert 6 not in found
    assert found[7]["least overlap"] == 0.0


def test_doubt_beside_counts_what_no_label_has() -> None:
    confidence = np.ones(SHAPE, np.float16)
    labels = column()
    labels[5, 4:8, 4:12] = 0
    confidence[5, 4:8, 4:12] = 0.0  # half of the box might be the label, or not
    taken = labels.copy()
    taken[5, 4:8, 4:12] = 1
    assert traits_of(labels, confidence=confidence)[5]["doubt beside"] == pytest.approx(0.5)
    assert traits_of(taken, confidence=confidence)[5]["doubt beside"] == 1.0


def test_the_nearer_painted_slice_tells() -> None:
    found = traits_of(column(), painted=(1, 7))
    assert found[2]["steps"] == found[6]["steps"] == found[0]["steps"] == pytest.approx(np.log(2))
    assert 1 not in found
    assert 7 not in found


def test_nothing_to_say() -> None:
    assert traits_of(np.zeros(SHAPE, np.uint8)) == {}
