from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_oneseg.config import PropagationConfig
from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.phantom import phantom
from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.propagation import tracing
from napari_oneseg.propagation.propagate import propagate
from napari_oneseg.propagation.sweep import PaintedMaps
from napari_oneseg.propagation.tracing import Source, trace
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation
from tests.engine_fixtures import disc, moving_stack, swept

CONFIG = PropagationConfig(window=5)
SHAPE = (40, 40)
MOVING = moving_stack(9, SHAPE, shift=(1, -2))


def painted(*discs: tuple[int, tuple[float, float], float], shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    image = np.zeros(shape, np.uint8)
    for label, centre, radius in discs:
        image[disc(shape, centre, radius)] = label
    return image


def check(source: Source) -> None:
    """What holds for every source."""
    assert source.places.dtype == np.float32
    assert source.places.min() >= 0.0
    assert source.places.sum() == pytest.approx(source.share, abs=1e-4)
    assert np.unravel_index(source.places.argmax(), source.places.shape) == source.peak
    rows, columns = np.indices(source.places.shape)
    expected = [float((source.places * axis).sum() / source.places.sum()) for axis in (rows, columns)]
    assert source.centre == pytest.approx(expected, abs=1e-2)
    assert source.path[-1] == pytest.approx([source.index, *source.centre], abs=1e-3)
    steps = np.diff(source.path[:, 0])
    assert set(np.abs(steps)) <= {1.0}
    assert len(set(steps)) <= 1


# Known answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("anchor", "index"), [(1, 7), (7, 1), (4, 5), (5, 4)])
def test_it_follows_a_texture_that_moves(anchor: int, index: int) -> None:
    """Each slice shows the last one moved by (1, -2)."""
    k = index - anchor
    here = (20 + k, 20 - 2 * k)
    annotation = Annotation({anchor: painted((3, (20, 20), 6))})
    found = trace(MOVING, annotation, (index, *here), 3, CONFIG)
    assert (found.at, found.label) == ((index, *here), 3)
    (source,) = found.sources
    check(source)
    assert (source.index, source.share) == (anchor, 1.0)
    assert source.peak == (20, 20)
    assert source.centre == pytest.approx((20, 20), abs=0.2)
    assert source.places[20, 20] > 0.8
    assert source.copied > 0.8
    step = -1 if index > anchor else 1
    expected = [(z, 20 + (z - anchor), 20 - 2 * (z - anchor)) for z in range(index, anchor + step, step)]
    assert np.allclose(source.path, expected, atol=0.3)


def test_it_comes_from_both_sides_by_closeness() -> None:
    annotation = Annotation({1: painted((3, (20, 20), 6)), 7: painted((3, (26, 8), 6))})
    found = trace(MOVING, annotation, (3, 22, 16), 3, CONFIG)
    for source in found.sources:
        check(source)
    assert [source.index for source in found.sources] == [1, 7]
    assert [source.peak for source in found.sources] == [(20, 20), (26, 8)]
    assert [source.share for source in found.sources] == pytest.approx([2 / 3, 1 / 3], abs=0.02)
    for direction, anchor in (("up", 1), ("down", 7)):
        (only,) = trace(MOVING, annotation, (3, 22, 16), 3, CONFIG, direction=direction).sources  # type: ignore[arg-type]
        assert (only.index, only.share) == (anchor, 1.0)
    (only,) = trace(MOVING, annotation, (3, 22, 16), 3, CONFIG, slice_range=(0, 5)).sources
    assert only.index == 1


def test_a_complete_slice_without_the_label_is_no_source() -> None:
    annotation = Annotation({1: painted((3, (20, 20), 6)), 7: painted()}, frozenset({7}))
    (source,) = trace(MOVING, annotation, (6, 25, 10), 3, CONFIG).sources
    assert source.index == 1


def test_only_places_that_show_the_label_are_sources() -> None:
    """Half of what is copied comes from beside the label."""
    maps = torch.zeros(2, 4, 8, 8)  # everything matches everything
    stack = FeatureStack(maps, WorkingGrid((8, 8), (8, 8), 1), np.ones(2, np.float32))
    image = np.zeros((8, 8), np.uint8)
    image[:, 4:] = 2
    image[:, :4] = 1
    annotation = Annotation({0: image})
    (source,) = trace(stack, annotation, (1, 4, 4), 2, CONFIG).sources
    assert source.copied == pytest.approx(3 / 5, abs=1e-5)
    assert np.array_equal(source.places > 0, (image == 2) & (np.abs(np.indices((8, 8)) - 4).max(0) <= 2))
    (source,) = trace(stack, annotation, (1, 4, 4), None, CONFIG).sources
    assert source.copied == pytest.approx(1.0, abs=1e-5)
    assert (source.places > 0).sum() == 25
    assert trace(stack, Annotation({0: np.where(image == 2, image, 0)}), (1, 4, 1), 2, CONFIG).sources == ()


def test_the_way_leads_to_the_label() -> None:
    """Everything matches everything, and the label lies to the right: the copies that count go there."""
    stack = FeatureStack(torch.zeros(5, 4, 24, 24), WorkingGrid((24, 24), (24, 24), 1), np.ones(5, np.float32))
    image = np.zeros((24, 24), np.uint8)
    image[:, 15:] = 2
    (source,) = trace(stack, Annotation({0: image}), (4, 12, 11), 2, CONFIG).sources
    check(source)
    columns = source.path[:, 2]
    assert columns[0] == 11
    assert columns[-1] > 15
    assert np.all(np.abs(np.diff(columns) - (columns[-1] - 11) / 4) < 0.25), "evenly"
    assert np.allclose(source.path[:, 1], 12, atol=0.1)


def test_a_side_that_brings_less_has_less_share() -> None:
    stack = FeatureStack(torch.zeros(3, 4, 16, 16), WorkingGrid((16, 16), (16, 16), 1), np.ones(3, np.float32))
    much, little = np.full((16, 16), 2, np.uint8), np.zeros((16, 16), np.uint8)
    little[:, 8] = 2
    found = trace(stack, Annotation({0: little, 2: much}), (1, 8, 8), 2, CONFIG)
    assert [source.index for source in found.sources] == [2, 0]
    assert [source.copied for source in found.sources] == pytest.approx([1.0, 0.2])
    assert [source.share for source in found.sources] == pytest.approx([5 / 6, 1 / 6])


def test_a_painted_voxel_is_its_own_source() -> None:
    annotation = Annotation({4: painted((3, (20, 20), 6))})
    (source,) = trace(MOVING, annotation, (4, 21, 19), 3, CONFIG).sources
    check(source)
    assert (source.index, source.share, source.copied, source.peak) == (4, 1.0, 1.0, (21, 19))
    assert source.path.tolist() == [[4, 21, 19]]
    assert trace(MOVING, annotation, (4, 2, 2), 3, CONFIG).sources == ()


def test_what_does_not_exist() -> None:
    annotation = Annotation({4: painted((3, (20, 20), 6))})
    for at in ((9, 0, 0), (-1, 0, 0), (0, 40, 0), (0, 0, -1)):
        with pytest.raises(InputError, match="There is no voxel"):
            trace(MOVING, annotation, at, 3, CONFIG)
    with pytest.raises(AnnotationError, match="Label 5 was painted nowhere"):
        trace(MOVING, annotation, (0, 0, 0), 5, CONFIG)
    assert trace(MOVING, annotation, (7, 20, 20), 3, CONFIG, slice_range=(5, 8)).sources == ()


# The same as what propagation does -------------------------------------------------------------------------------


def vague(count: int, source: tuple[int, int], working: tuple[int, int], bias: float | None) -> FeatureStack:
    """Features whose attention is spread over the window, on a grid that differs from the scan's."""
    generator = torch.Generator().manual_seed(3)
    grid = WorkingGrid(source, working, 2)
    return FeatureStack(1.5 * torch.randn(count, 8, *grid.features, generator=generator), grid, np.ones(count), bias)


def slow_affinity(stack: FeatureStack, target: int, reference: int, window: int, bias: float | None) -> Tensor:
    """All weights as one matrix, (positions, positions), by the formula."""
    query, key = stack.maps[target], stack.maps[reference]
    channels, rows, columns = query.shape
    matrix = torch.zeros(rows, columns, rows, columns)
    reach = window // 2
    for i in range(rows):
        for j in range(columns):
            box = slice(max(0, i - reach), i + reach + 1), slice(max(0, j - reach), j + reach + 1)
            logits = (query[:, i, j, None, None] * key[(slice(None), *box)]).sum(0) / math.sqrt(channels)
            total = logits.exp().sum()
            if bias is not None:
                total = total + (query[:, i, j].square().sum() / math.sqrt(channels) + bias).exp()
            matrix[(i, j, *box)] = logits.exp() / total
    return matrix.view(rows * columns, rows * columns)


def resizing(size: int, to: int) -> Tensor:
    one = torch.eye(size)[None, None]
    return torch.nn.functional.interpolate(one, size=(to, size), mode="bilinear", antialias=True)[0, 0]


@pytest.mark.parametrize("bias", [None, -2.0])
@pytest.mark.parametrize(("source", "working"), [((10, 14), (20, 28)), ((33, 41), (20, 28)), ((9, 10), (36, 40))])
def test_it_agrees_with_the_product_of_whole_matrices(
    bias: float | None, source: tuple[int, int], working: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_LEFT_BEHIND", 0.0)
    stack = vague(5, source, working, bias)
    rows, columns = stack.grid.features
    image = painted((2, (source[0] / 2, source[1] / 2), source[0] / 3), shape=source)
    at = (4, source[0] // 2 + 1, source[1] // 2 - 1)
    (found,) = trace(stack, Annotation({0: image}), at, 2, CONFIG).sources
    check(found)

    whole = torch.eye(rows * columns)
    for target, reference in pairwise(range(4, -1, -1)):
        whole = whole @ slow_affinity(stack, target, reference, CONFIG.window, bias)
    up = torch.kron(resizing(rows, source[0]), resizing(columns, source[1]))
    down = torch.kron(resizing(source[0], rows), resizing(source[1], columns))
    all_places = (up @ whole @ down)[at[1] * source[1] + at[2]].view(source).numpy()
    expected = all_places * (image == 2)
    assert found.copied == pytest.approx(expected.sum(), rel=1e-4)
    assert np.allclose(found.places, expected / expected.sum(), atol=1e-5)
    if bias is not None:
        assert all_places.sum() < 0.9, "the null match takes its part"


def test_what_is_copied_is_what_the_sweep_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a null match, another label's painted slice on the way, and two anchors that bridge it."""
    monkeypatch.setattr(tracing, "_LEFT_BEHIND", 0.0)
    stack = vague(6, (20, 24), (20, 24), -2.0)
    middle, other = painted((1, (9, 12), 5), shape=(20, 24)), painted((2, (9, 10), 4), shape=(20, 24))
    cases = {
        "open": Annotation({0: middle, 2: other}),
        "bridged": Annotation({0: middle, 2: other, 5: middle}),
        "ended": Annotation({0: middle, 2: other, 5: other}, frozenset({5})),
    }
    copied = {}
    for name, annotation in cases.items():
        maps = {}
        for index, image in annotation.slices.items():
            one_hot = torch.from_numpy(np.stack([image == 1, image == 2])).float()
            occupancy = stack.grid.to_features(one_hot[None])[0]
            anchored = torch.ones(2, dtype=torch.bool) if index in annotation.complete else one_hot.amax((1, 2)) > 0
            maps[index] = PaintedMaps(occupancy, anchored)
        settings = replace(CONFIG, end_area=0.0, end_agreement=0.0)
        arrived = dict(swept(stack.maps, range(6), maps, settings, stack.null_bias))
        carried = arrived[4]
        assert carried is not None
        soft = stack.grid.to_source(carried.labels[:1][None])[0, 0]
        source = next(s for s in trace(stack, annotation, (4, 9, 12), 1, CONFIG).sources if s.index == 0)
        check(source)
        assert source.copied == pytest.approx(float(soft[9, 12]), rel=2e-2), name  # the sweep drops traces
        copied[name] = source.copied
    assert copied["bridged"] > 1.5 * copied["open"]
    assert copied["ended"] == pytest.approx(copied["open"])


def test_tails_that_are_left_behind_change_nothing_to_speak_of(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = vague(9, (66, 82), (80, 112), None)
    annotation = Annotation({0: painted((2, (32, 40), 18), shape=(66, 82))})
    at = (8, 30, 44)
    (quick,) = trace(stack, annotation, at, 2, CONFIG).sources
    monkeypatch.setattr(tracing, "_LEFT_BEHIND", 0.0)
    (exact,) = trace(stack, annotation, at, 2, CONFIG).sources
    assert 0.0 < np.abs(quick.places - exact.places).sum() < 0.02
    assert exact.copied - 0.02 < quick.copied < exact.copied
    assert np.allclose(quick.path, exact.path, atol=0.5)


def test_features_made_in_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():
        stack = replace(MOVING, maps=MOVING.maps.float())
    annotation = Annotation({1: painted((3, (20, 20), 6))})
    assert trace(stack, annotation, (3, 22, 16), 3, CONFIG).sources[0].peak == (20, 20)


def test_on_the_phantom_it_ends_in_the_same_organ() -> None:
    sample = phantom(seed=0)
    truth = sample.volume.to_slices(sample.labels)
    session = OneSegSession(device="cpu")
    session.set_volume(sample.volume)
    start = int((truth > 0).sum((1, 2)).argmax())
    annotation = Annotation({start: truth[start]}, frozenset({start}))
    random = np.random.default_rng(0)
    right, seen = 0, 0
    for result in propagate(session.features, annotation, (max(0, start - 6), start + 6)):
        correct = (result.labels > 0) & (result.labels == truth[result.index])
        places = np.argwhere(correct)
        if result.index == start or not len(places):
            continue
        for row, column in random.permutation(places)[:3]:
            found = trace(session.features, annotation, (result.index, int(row), int(column)))
            right += int(truth[(start, *found.sources[0].peak)] == truth[result.index, row, column])
            seen += 1
    assert seen > 20
    assert right >= 0.85 * seen
