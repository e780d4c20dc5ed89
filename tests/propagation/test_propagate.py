from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_oneseg.config import PreprocessingConfig, PropagationConfig
from napari_oneseg.errors import AnnotationError, Cancelled, InputError
from napari_oneseg.features.extractor import FeatureStack, compute_features
from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.propagation.propagate import LabelledSlice, propagate
from napari_oneseg.volume import Annotation, Volume
from tests.engine_fixtures import dice, disc, moving_stack, tiny_network

SHAPE = (40, 40)
CONFIG = PropagationConfig(window=5)


def image(*discs: tuple[int, tuple[float, float], float]) -> NDArray[np.uint8]:
    out = np.zeros(SHAPE, np.uint8)
    for label, centre, radius in discs:
        out[disc(SHAPE, centre, radius)] = label
    return out


def carried(
    stack: FeatureStack, slices: dict[int, NDArray[np.uint8]], **options: object
) -> NDArray[np.unsignedinteger]:
    complete = options.pop("complete", ())
    results = propagate(stack, Annotation(slices, frozenset(complete)), config=CONFIG, **options)  # type: ignore[arg-type]
    return np.stack([result.labels for result in results])


@pytest.mark.parametrize("shift", [(1, 0), (-1, 1), (0, 2), (0, 0)])
def test_a_moving_disc_is_followed_in_both_directions(shift: tuple[int, int]) -> None:
    labels = carried(moving_stack(9, SHAPE, shift), {4: image((3, (20, 20), 6))})
    for index in range(9):
        centre = 20 + shift[0] * (index - 4), 20 + shift[1] * (index - 4)
        assert dice(labels[index] == 3, disc(SHAPE, centre, 6)) > 0.97, index
    assert set(np.unique(labels)) == {0, 3}


def test_a_coarser_feature_grid_and_rectangular_slices() -> None:
    """Source 60 x 40, features 30 x 20: half the resolution on both axes."""
    stack = replace(moving_stack(5, (30, 20), (1, 0)), grid=WorkingGrid((60, 40), (60, 40), 2))
    painted = np.where(disc((60, 40), (26, 20), 10), 1, 0).astype(np.uint8)
    results = propagate(stack, Annotation({2: painted}), config=CONFIG)
    for result in results:
        assert dice(result.labels == 1, disc((60, 40), (26 + 2 * (result.index - 2), 20), 10)) > 0.93


def test_a_painted_slice_does_not_come_back_from_the_coarse_grid() -> None:
    """Three of each four pixels are painted: on the coarse grid that is a solid label, less than certain."""
    stack = replace(moving_stack(3, (30, 20), (0, 0)), grid=WorkingGrid((60, 40), (60, 40), 2))
    holes = np.add.outer(np.arange(60) % 2, np.arange(40) % 2) < 2
    painted = (holes & disc((60, 40), (30, 20), 12)).astype(np.uint8)
    results = propagate(stack, Annotation({1: painted}), config=CONFIG)
    assert (results[0].labels == 1).sum() > painted.sum()
    assert np.array_equal(results[1].labels, painted)
    assert (results[1].confidence[painted > 0] == 1).all()
    both = propagate(stack, Annotation({0: 2 * painted, 1: painted, 2: 2 * painted}), config=CONFIG)
    assert np.array_equal(both[1].labels == 1, painted == 1)
    assert (both[1].confidence[painted > 0] == 1).all()


def test_all_labels_at_once_equal_one_by_one() -> None:
    stack = moving_stack(8, SHAPE)
    slices = {2: image((1, (10, 10), 4), (7, (10, 28), 5)), 5: image((4, (30, 12), 4))}
    together = carried(stack, slices)
    for label in (1, 4, 7):
        own = {k: np.where(v == label, v, 0) for k, v in slices.items() if (v == label).any()}
        assert np.array_equal(carried(stack, own) == label, together == label)


def test_each_label_sets_out_from_its_own_slices() -> None:
    stack = moving_stack(12, SHAPE)
    labels = carried(stack, {3: image((1, (10, 10), 4)), 9: image((2, (24, 28), 5))})
    for index in range(12):
        assert dice(labels[index] == 1, disc(SHAPE, (10 + index - 3, 10), 4)) > 0.95
        assert dice(labels[index] == 2, disc(SHAPE, (24 + index - 9, 28), 5)) > 0.95


def test_painted_voxels_are_kept_exactly() -> None:
    rng = np.random.default_rng(0)
    scattered = np.where(rng.random(SHAPE) < 0.2, rng.integers(1, 4, SHAPE), 0).astype(np.uint8)
    slices = {1: scattered, 4: image((2, (20, 20), 6)), 6: np.roll(scattered, 3, 1)}
    labels = carried(moving_stack(8, SHAPE), slices)
    for index, painted in slices.items():
        assert np.array_equal(labels[index][painted > 0], painted[painted > 0])


def test_a_complete_slice_is_the_result_and_no_absent_label_passes() -> None:
    slices = {1: image((1, (10, 10), 4), (2, (20, 28), 5)), 4: image((2, (23, 28), 4))}
    results = propagate(moving_stack(8, SHAPE), Annotation(slices, frozenset({4})), config=CONFIG)
    assert np.array_equal(results[4].labels, slices[4])
    assert (results[4].confidence == 1).all()
    assert (results[3].labels == 2).any()
    for index in (5, 6, 7):
        assert not (results[index].labels == 1).any()
        assert (results[index].labels == 2).any()


def test_beside_its_own_painting_a_label_is_settled_but_others_arrive() -> None:
    slices = {1: image((1, (10, 10), 4), (2, (20, 28), 5)), 4: image((1, (13, 10), 2))}
    labels = carried(moving_stack(8, SHAPE), slices)
    assert np.array_equal(labels[4] == 1, slices[4] == 1)
    assert dice(labels[4] == 2, disc(SHAPE, (23, 28), 5)) > 0.95
    assert dice(labels[6] == 1, disc(SHAPE, (15, 10), 2)) > 0.9


def test_between_two_anchors_the_nearer_one_weighs_more() -> None:
    """Nothing moves, but the disc is painted at two sizes: where both disagree, closeness decides."""
    small, wide = image((1, (20, 20), 4)), image((1, (20, 20), 9))
    labels = carried(moving_stack(11, SHAPE, (0, 0)), {1: small, 9: wide})
    areas = (labels == 1).sum((1, 2))
    assert dice(labels[3] == 1, small == 1) > 0.97
    assert dice(labels[7] == 1, wide == 1) > 0.97
    assert (np.diff(areas) >= -2).all()
    assert dice(labels[0] == 1, small == 1) > 0.97
    assert dice(labels[10] == 1, wide == 1) > 0.97


def test_anchors_that_agree_give_the_shape_in_between() -> None:
    labels = carried(moving_stack(9, SHAPE), {1: image((1, (12, 20), 5)), 7: image((1, (18, 20), 5))})
    for index in range(9):
        assert dice(labels[index] == 1, disc(SHAPE, (11 + index, 20), 5)) > 0.97


def test_the_soft_result_is_continuous_between_anchors() -> None:
    """The confidence of the ring that the two anchors disagree on falls to the middle and rises again."""
    ring = disc(SHAPE, (20, 20), 8) & ~disc(SHAPE, (20, 20), 5)
    annotation = Annotation({0: image((1, (20, 20), 4)), 8: image((1, (20, 20), 9))})
    results = propagate(moving_stack(9, SHAPE, (0, 0)), annotation, config=CONFIG)
    confidence = np.array([result.confidence[ring].mean(dtype=float) for result in results])
    assert confidence.argmin() == 4
    assert np.allclose(confidence[1:8], np.abs(np.arange(1, 8) - 4) / 4, atol=0.1)


def test_only_the_range_is_labelled_and_paintings_outside_take_no_part() -> None:
    stack = moving_stack(10, SHAPE)
    slices = {4: image((1, (12, 12), 4)), 8: image((2, (20, 28), 4))}
    results = propagate(stack, Annotation(slices), slice_range=(2, 6), config=CONFIG)
    assert [result.index for result in results] == [2, 3, 4, 5, 6]
    for result in results:
        assert set(np.unique(result.labels)) == {0, 1}
    with pytest.raises(AnnotationError, match="between slices 0 and 3"):
        propagate(stack, Annotation(slices), slice_range=(0, 3), config=CONFIG)
    for wrong in [(-1, 3), (3, 2), (0, 10)]:
        with pytest.raises(InputError, match="Slice range"):
            propagate(stack, Annotation(slices), slice_range=wrong, config=CONFIG)


@pytest.mark.parametrize(("direction", "reached"), [("up", range(4, 9)), ("down", range(5)), ("both", range(9))])
def test_direction(direction: str, reached: range) -> None:
    labels = carried(moving_stack(9, SHAPE), {4: image((1, (20, 20), 4))}, direction=direction)
    assert [index for index in range(9) if labels[index].any()] == list(reached)


def test_reversing_the_slices_reverses_the_result() -> None:
    stack = moving_stack(9, SHAPE, (1, 1))
    slices = {2: image((1, (10, 10), 5), (2, (14, 18), 4)), 6: image((1, (15, 14), 6)), 7: image((3, (30, 30), 3))}
    annotation = Annotation(slices, frozenset({2}))
    there = propagate(stack, annotation, config=CONFIG)
    flipped = Annotation({8 - k: v for k, v in slices.items()}, frozenset({6}))
    back = propagate(replace(stack, maps=stack.maps.flip(0)), flipped, config=CONFIG)[::-1]
    for a, b in zip(there, back, strict=True):
        assert np.array_equal(a.labels, b.labels)
        assert np.allclose(a.confidence, b.confidence, atol=2e-3)
        assert a.score == pytest.approx(b.score, abs=2e-3, nan_ok=True)


def test_confidence_is_1_where_painted_and_low_where_features_are_ambiguous() -> None:
    stack = moving_stack(6, SHAPE, (0, 0))
    maps = stack.maps.clone()
    maps[:, :, :, 20:] = maps[:, :, :1, 20:21]  # right half: every position looks alike
    annotation = Annotation({0: image((1, (20, 10), 5), (2, (20, 30), 5))})
    results = propagate(replace(stack, maps=maps), annotation, config=CONFIG)
    painted = annotation.slices[0] > 0
    assert (results[0].confidence[painted] == 1).all()
    for result in results[1:]:
        clear, unclear = disc(SHAPE, (20, 10), 4), disc(SHAPE, (20, 30), 4)
        assert result.confidence.min() >= 0
        assert result.confidence.max() <= 1
        assert result.confidence[clear].mean() > result.confidence[unclear].mean() + 0.1
        assert 0 <= result.score <= 1


def test_the_score_is_nan_where_no_label_is() -> None:
    results = propagate(moving_stack(6, SHAPE), Annotation({3: image((1, (20, 20), 4))}), direction="up", config=CONFIG)
    assert [np.isnan(result.score) for result in results] == [True] * 3 + [False] * 3
    assert all((result.confidence == 1).all() for result in results[:3])


def test_progress_reaches_the_total_and_may_cancel() -> None:
    stack, annotation = moving_stack(6, SHAPE), Annotation({3: image((1, (20, 20), 4))})
    for direction, visits in [("both", 7), ("up", 3), ("down", 4)]:
        calls: list[tuple[int, int]] = []
        propagate(
            stack, annotation, direction=direction, config=CONFIG, progress=lambda *c, calls=calls: calls.append(c)
        )
        assert calls == [(k + 1, visits) for k in range(visits)]

    def cancel(done: int, total: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        propagate(stack, annotation, config=CONFIG, progress=cancel)


def test_wrong_annotations_are_refused() -> None:
    stack = moving_stack(6, SHAPE)
    with pytest.raises(AnnotationError, match="Nothing is painted"):
        propagate(stack, Annotation(), config=CONFIG)
    with pytest.raises(AnnotationError, match="rows and columns"):
        propagate(stack, Annotation({2: np.ones((39, 40), np.uint8)}), config=CONFIG)


def test_a_range_of_empty_complete_slices_is_empty() -> None:
    nothing = np.zeros(SHAPE, np.uint8)
    annotation = Annotation({0: image((1, (20, 20), 4)), 2: nothing, 4: nothing}, frozenset({2, 4}))
    results = propagate(moving_stack(6, SHAPE), annotation, slice_range=(2, 4), config=CONFIG)
    assert not any(result.labels.any() for result in results)


@pytest.mark.parametrize("label", [1, 255, 256, 70_000])
def test_label_values_are_kept(label: int) -> None:
    painted = np.where(disc(SHAPE, (20, 20), 4), label, 0).astype(np.uint32)
    results: list[LabelledSlice] = propagate(moving_stack(3, SHAPE), Annotation({1: painted}), config=CONFIG)
    assert {int(value) for result in results for value in np.unique(result.labels)} == {0, label}


def test_a_floor_for_the_whole_engine() -> None:
    """Tissue that moves two pixels a slice, features of an untrained network: better than to copy the painted slice.

    Only the features' scale is set by hand, to what training gives: sharp enough to choose within a window.
    """
    rng = np.random.default_rng(0)
    tissue = torch.from_numpy(rng.normal(size=(1, 1, 64, 64)))
    tissue = torch.nn.functional.avg_pool2d(tissue, 3, 1, 1)[0, 0].numpy()
    array = np.stack([np.roll(tissue, 2 * z, 0) for z in range(9)]) + rng.normal(0, 0.03, (9, 64, 64))
    stack = compute_features(Volume(array), tiny_network(), PreprocessingConfig(working_size=64, max_upsampling=1.0))
    maps = stack.maps.float()
    maps = 4 * (maps - maps.mean((0, 2, 3), keepdim=True)) / maps.std((0, 2, 3), keepdim=True)
    truth = [disc((64, 64), (32 + 2 * (z - 4), 32), 10) for z in range(9)]
    results = propagate(replace(stack, maps=maps), Annotation({4: truth[4].astype(np.uint8)}), config=CONFIG)
    scores = [dice(result.labels == 1, shape) for result, shape in zip(results, truth, strict=True)]
    copied = [dice(truth[4], shape) for shape in truth]
    assert copied[0] < 0.6
    assert min(scores) > 0.85
    assert np.mean(scores) > 0.93


def test_an_empty_slice_ends_a_label_without_fading_it_before() -> None:
    """It says that the label is not there, and nothing about where between it and the painted slice the label ends."""
    stack = moving_stack(9, shift=(0, 0))
    image = disc((40, 40), (20, 20), 6).astype(np.uint8)
    alone = propagate(stack, Annotation({1: image}))
    bounded = propagate(stack, Annotation({1: image, 7: np.zeros_like(image)}, frozenset({7})))
    for index in range(7):
        assert np.array_equal(bounded[index].labels, alone[index].labels), index
    assert not bounded[7].labels.any()
    above = propagate(stack, Annotation({1: np.zeros_like(image), 7: image}, frozenset({1})))
    assert all(np.array_equal(above[index].labels, image) for index in range(2, 8))
    assert not above[1].labels.any()
