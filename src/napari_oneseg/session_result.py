"""What a session hands out: the labels as they are now, with how far they can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.propagation.expected_dice import expected_dice
from napari_oneseg.session_state import SessionState
from napari_oneseg.volume import Annotation, LabelArray, Volume, label_dtype

__all__ = ["Propagation", "all_labels", "expected_by_slice", "present_result"]


@dataclass(frozen=True, eq=False)
class Propagation:
    """A labelled volume.

    Attributes
    ----------
    labels
        Shape (n, rows, columns) in slice order, smallest fitting unsigned integers, 0 = background.
    confidence
        Same shape, float16, 0 to 1: margin of the decision times how certain the copy was; 1 where painted.
    slice_confidence
        Shape (n,), float32: mean confidence of each slice where a label is or might be; NaN where neither.
    volumes_ml
        Volume of each label in mL.
    """

    labels: LabelArray
    confidence: NDArray[np.float16]
    slice_confidence: NDArray[np.float32]
    volumes_ml: dict[int, float]


def all_labels(state: SessionState, shape: tuple[int, int, int]) -> LabelArray:
    """Return all labels as they are now, painted ones included, in the shape (n, rows, columns) of the slices."""
    images = [state.labels_on(index, shape[1:]) for index in range(shape[0])]
    dtype = label_dtype(max(int(image.max(initial=0)) for image in images))
    return np.stack(images).astype(dtype, copy=False)


def present_result(state: SessionState, volume: Volume) -> Propagation:
    """Return the labels as they are now, with confidence and volumes."""
    count, rows, columns = volume.slices.shape
    labels = all_labels(state, (count, rows, columns))
    confidence = np.ones(labels.shape, np.float16)
    scores = np.full(count, np.nan, np.float32)
    settled = state.annotation.complete
    for index, result in state.results.items():
        if index not in settled:
            confidence[index] = result.confidence
            scores[index] = result.score
    for index, image in state.painted.items():
        confidence[index][image > 0] = 1.0
    for axis, annotation in state.across.items():
        for at, image in annotation.slices.items():
            np.moveaxis(confidence, axis, 0)[at][(image > 0) | (at in annotation.complete)] = 1.0
    for index in settled | (state.painted.keys() - state.results.keys()):
        scores[index] = 1.0 if labels[index].any() else np.nan
    counts = zip(*np.unique(labels[labels > 0], return_counts=True), strict=True)
    volumes = {int(value): float(number * volume.voxel_ml) for value, number in counts}
    return Propagation(labels, confidence, scores, volumes)


def expected_by_slice(result: Propagation, annotation: Annotation, volume: Volume) -> dict[int, dict[int, float]]:
    """Return how good each label is expected to be on each slice, as a Dice coefficient.

    Parameters
    ----------
    result
        What a session has handed out.
    annotation
        The painted, corrected and accepted slices that it rests on.
    volume
        The scan.

    Returns
    -------
    By slice, ascending, then by label: 0 to 1, 1 where it was painted. Slices without a label are left out.
    """
    spacing = (volume.slice_spacing, *volume.in_plane_spacing)
    by_slice: dict[int, dict[int, float]] = {}
    for label in result.volumes_ml:
        expected = expected_dice(result.labels, result.confidence, annotation, spacing, label)
        for index, dice in expected.items():
            by_slice.setdefault(index, {})[label] = dice
    return dict(sorted(by_slice.items()))
