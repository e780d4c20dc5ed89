from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_oneseg.propagation.correction import closed_range, reopened_range
from napari_oneseg.volume import Annotation


def annotation(anchors: dict[int, list[int]], complete: tuple[int, ...] = ()) -> Annotation:
    """Labels by slice, on images of four pixels."""
    images = {}
    for index, labels in anchors.items():
        images[index] = np.array([[*labels, *[0] * (4 - len(labels))]], np.uint8)
    return Annotation(images, frozenset(complete))


def test_reopened_up_to_the_next_anchors() -> None:
    painted = annotation({2: [1], 8: [1], 12: [1], 20: [1]})
    assert reopened_range(painted, 8, 30) == (2, 12)
    assert reopened_range(painted, 10, 30) == (8, 12)


def test_reopened_to_the_end_where_no_anchor_follows() -> None:
    painted = annotation({2: [1], 8: [1]})
    assert reopened_range(painted, 8, 30) == (2, 29)
    assert reopened_range(painted, 2, 30) == (0, 8)
    assert reopened_range(annotation({8: [1]}), 8, 30) == (0, 29)


def test_the_farthest_label_decides_and_a_complete_slice_stops_all() -> None:
    painted = {2: [1], 4: [2], 8: [1, 2], 11: [2], 20: [1]}
    assert reopened_range(annotation(painted), 8, 30) == (2, 20)
    assert reopened_range(annotation(painted, complete=(11,)), 8, 30) == (2, 11)


def test_without_labels_only_the_slice_itself() -> None:
    assert reopened_range(annotation({5: []}, complete=(5,)), 5, 30) == (5, 5)


def test_a_range_is_widened_to_the_anchors_that_its_slices_depend_on() -> None:
    painted = annotation({9: [1, 2], 12: [1], 30: [2], 40: [1]})
    # Label 1 on slices 13 to 30 lies between its anchors 12 and 40.
    assert closed_range(painted, 9, 30) == (9, 40)
    assert closed_range(painted, 9, 12) == (9, 40)
    assert closed_range(annotation({5: [1]}), 8, 9) == (5, 9)
    assert closed_range(annotation({5: [1]}), 2, 9) == (2, 9)


@given(
    anchors=st.dictionaries(st.integers(0, 19), st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1),
    ends=st.tuples(st.integers(0, 19), st.integers(0, 19)),
)
def test_a_closed_range_cuts_no_label_off(anchors: dict[int, list[int]], ends: tuple[int, int]) -> None:
    painted = annotation(anchors)
    first, last = closed_range(painted, min(ends), max(ends))
    assert first <= min(ends)
    assert max(ends) <= last
    for label in painted.labels:
        table = painted.anchors(label)
        assert first in table or table[0] > first
        assert last in table or table[-1] < last
