from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.config import ScreeningConfig
from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.screening.next_slice import expected_errors, rank_next
from napari_oneseg.volume import Annotation

COUNT, SHAPE = 20, (12, 12)
SQUARE = np.zeros(SHAPE, np.uint8)
SQUARE[3:9, 3:9] = 1


def state(
    doubt: NDArray[np.float64] | float = 0.5, painted: tuple[int, ...] = (9,), shown: tuple[int, int] = (3, 16)
) -> tuple[NDArray[np.uint8], NDArray[np.float16], Annotation]:
    """A square on some slices, all its voxels equally doubtful on each slice that is not painted."""
    labels = np.zeros((COUNT, *SHAPE), np.uint8)
    labels[shown[0] : shown[1] + 1] = SQUARE
    doubts = np.broadcast_to(doubt, COUNT).copy()
    doubts[list(painted)] = 0.0
    confidence = np.where(labels > 0, 1.0 - doubts[:, None, None], 1.0).astype(np.float16)
    return labels, confidence, Annotation({index: labels[index] for index in painted}, frozenset(painted))


def slow_gains(errors: NDArray[np.float64], size: int, painted: tuple[int, ...]) -> NDArray[np.float64]:
    """Each slice keeps as much of its errors as is left of its way to the nearest painted slice."""
    gains = np.zeros(COUNT)
    for chosen in range(COUNT):
        for index in range(COUNT):
            now = min(abs(index - known) for known in painted)
            then = min(now, abs(index - chosen))
            if now:
                gains[chosen] += errors[index] * (1 - then / now) / (2 * size)
    return gains


@pytest.mark.parametrize("painted", [(9,), (3, 16), (5, 9, 10)])
def test_the_first_suggestion_takes_most_errors_away(painted: tuple[int, ...]) -> None:
    labels, confidence, annotation = state(np.random.default_rng(0).random(COUNT), painted)
    errors = expected_errors(labels, confidence, [1])[1]
    expected = slow_gains(errors, int(labels.sum()), painted)
    best = rank_next(labels, confidence, annotation, voxel_ml=0.002)[0]
    assert best.index == expected.argmax()
    assert best.gain == pytest.approx(expected.max())
    assert best.corrected_ml == pytest.approx(expected.max() * 2 * labels.sum() * 0.002)
    assert best.label == 1


def test_errors_are_a_share_of_the_doubt() -> None:
    labels, confidence, _ = state(np.linspace(0, 1, COUNT), shown=(0, COUNT - 1))
    errors = expected_errors(labels, confidence, [1])[1]
    doubts = np.where(labels > 0, 1 - confidence.astype(float), 0).sum((1, 2))
    assert np.allclose(errors / doubts.max(), errors[-1] / doubts[-1] * doubts / doubts.max())
    assert 0.2 < errors[-1] / doubts[-1] < 1.0


def test_doubtful_background_counts_and_sure_background_does_not() -> None:
    labels, confidence, _ = state(0.0)
    assert not expected_errors(labels, confidence, [1])[1].any()
    confidence[12, 0, 0] = 0.5
    assert np.flatnonzero(expected_errors(labels, confidence, [1])[1]).tolist() == [12]
    confidence[:, 0, 1] = 0.9
    assert np.flatnonzero(expected_errors(labels, confidence, [1])[1]).tolist() == [12]


def test_doubtful_background_counts_for_the_nearest_label() -> None:
    labels, confidence, _ = state(0.0)
    labels[12, 3:9, 11] = 2
    confidence[12, 3:9, 10] = 0.5
    errors = expected_errors(labels, confidence, [1, 2])
    assert errors[2][12] > 0
    assert not errors[1].any()
    # On a slice that shows no label, nobody knows whose it is.
    confidence[18, 0, 0] = 0.5
    errors = expected_errors(labels, confidence, [1, 2])
    assert errors[1][18] == errors[2][18] > 0


def test_each_suggestion_takes_those_before_it_as_painted() -> None:
    labels, confidence, annotation = state()
    ranked = rank_next(labels, confidence, annotation)
    first, second = ranked[:2]
    assert first.index > 9 > second.index  # neighbours of the first one gain next to nothing more
    gains = [entry.gain for entry in ranked]
    assert gains == sorted(gains, reverse=True)
    again = Annotation({**annotation.slices, first.index: SQUARE}, annotation.complete | {first.index})
    following = rank_next(labels, confidence, again)[0]
    assert following.index == second.index
    assert following.gain == pytest.approx(second.gain)


def test_known_slices_and_those_out_of_range_are_left_out() -> None:
    labels, confidence, annotation = state(painted=(4, 9))
    assert sorted(entry.index for entry in rank_next(labels, confidence, annotation)) == [
        index for index in range(COUNT) if index not in (4, 9)
    ]
    assert sorted(e.index for e in rank_next(labels, confidence, annotation, slice_range=(8, 11))) == [8, 10, 11]
    assert rank_next(labels, confidence, annotation, slice_range=(9, 9)) == []
    with pytest.raises(InputError, match="does not fit"):
        rank_next(labels, confidence, annotation, slice_range=(8, COUNT))


def test_a_slice_painted_for_one_label_is_open_for_another() -> None:
    labels, confidence, _ = state(painted=())
    labels[:, 0, 0] = 2
    confidence[:, 0, 0] = 0.5
    one, two = np.where(labels[9] == 1, labels[9], 0), np.where(labels[4] == 2, labels[4], 0)
    annotation = Annotation({9: one, 4: two})
    for label, own in ((1, 9), (2, 4)):
        indices = [entry.index for entry in rank_next(labels, confidence, annotation, label=label)]
        assert own not in indices
        assert len(indices) == COUNT - 1
    everything = rank_next(labels, confidence, annotation)
    assert len(everything) == COUNT
    apart = {
        label: {e.index: e.gain for e in rank_next(labels, confidence, annotation, label=label)} for label in (1, 2)
    }
    best = everything[0]
    assert best.gain <= max(max(gains.values()) for gains in apart.values())
    assert best.label in (1, 2)
    with pytest.raises(AnnotationError, match=r"Label 3 was painted nowhere; painted are \[1, 2\]"):
        rank_next(labels, confidence, annotation, label=3)


def test_it_says_when_little_is_left_to_gain() -> None:
    labels, confidence, annotation = state()
    gain = rank_next(labels, confidence, annotation)[0].gain
    assert 0 < gain < 1
    for least, worth_it in ((0.9 * gain, True), (1.1 * gain, False)):
        assert (
            rank_next(labels, confidence, annotation, config=ScreeningConfig(least_gain=least))[0].worth_it is worth_it
        )


def test_without_doubt_the_farthest_slice_comes_first() -> None:
    labels, confidence, annotation = state(0.0, painted=(4,))
    best = rank_next(labels, confidence, annotation)[0]
    assert (best.index, best.gain, best.worth_it) == (COUNT - 1, 0.0, False)


def test_nothing_painted() -> None:
    labels, confidence, _ = state()
    with pytest.raises(AnnotationError, match="paint a slice first"):
        rank_next(labels, confidence, Annotation())
