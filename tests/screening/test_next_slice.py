from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.config import ScreeningConfig
from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.screening.next_slice import expected_errors, rank_next
from napari_oneseg.volume import Annotation
from tests.engine_fixtures import disc

SHAPE = (24, 24)


def carried(count: int = 12, doubtful: tuple[int, ...] = ()) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """A cylinder, certain but for its rim, and very doubtful on some slices."""
    body, core = disc(SHAPE, (12, 12), 6), disc(SHAPE, (12, 12), 4)
    labels = np.repeat(body[None].astype(np.uint8), count, 0)
    confidence = np.ones(labels.shape, np.float16)
    confidence[:, body & ~core] = 0.7
    for index in doubtful:
        confidence[index][body] = 0.2
    return labels, confidence


def painted(*indices: int) -> Annotation:
    return Annotation({index: disc(SHAPE, (12, 12), 6).astype(np.uint8) for index in indices})


def test_the_doubtful_part_comes_first() -> None:
    labels, confidence = carried(doubtful=(8, 9, 10))
    ranked = rank_next(labels, confidence, painted(3))
    assert ranked[0].index in (8, 9, 10)
    assert ranked[0].gain > 2 * next(entry.gain for entry in ranked if entry.index == 1)
    assert all(a.gain >= b.gain for a, b in pairwise(ranked))
    assert 3 not in {entry.index for entry in ranked}
    assert ranked[0].label == 1


def test_gains_fall_as_more_is_painted_and_say_when_to_stop() -> None:
    labels, confidence = carried(doubtful=(8, 9, 10))
    few = rank_next(labels, confidence, painted(3), voxel_ml=0.5)[0]
    more = rank_next(labels, confidence, painted(3, 9), voxel_ml=0.5)[0]
    assert 0 < more.gain < few.gain
    assert few.worth_it
    size = int((labels == 1).sum())
    assert few.corrected_ml == pytest.approx(0.5 * few.gain * 2 * size)
    assert not rank_next(labels, confidence, painted(3), config=ScreeningConfig(least_gain=0.9))[0].worth_it
    assert rank_next(labels, confidence, painted(*range(12))) == []


def test_where_nothing_is_doubtful_the_farthest_slice_comes_first() -> None:
    labels, confidence = carried()
    ranked = rank_next(labels, np.ones_like(confidence), painted(2))
    assert ranked[0].index == 11
    assert ranked[0].gain == 0
    assert not ranked[0].worth_it


def test_a_range_and_a_label() -> None:
    labels, confidence = carried(doubtful=(8, 9, 10))
    assert {entry.index for entry in rank_next(labels, confidence, painted(3), slice_range=(0, 4))} == {0, 1, 2, 4}
    with pytest.raises(InputError, match="range"):
        rank_next(labels, confidence, painted(3), slice_range=(4, 40))
    with pytest.raises(AnnotationError, match="nowhere"):
        rank_next(labels, confidence, painted(3), label=7)
    with pytest.raises(AnnotationError, match="paint"):
        rank_next(labels, confidence, Annotation({}))


def test_doubt_counts_for_the_label_that_lies_nearest() -> None:
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0][disc(SHAPE, (6, 6), 3)] = 1
    labels[0][disc(SHAPE, (17, 17), 3)] = 2
    confidence = np.ones(labels.shape, np.float16)
    confidence[0][disc(SHAPE, (17, 17), 5)] = 0.5
    errors = expected_errors(labels, confidence, (1, 2))
    assert errors[1][0] == 0
    assert errors[2][0] > 10
