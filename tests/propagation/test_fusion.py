from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.propagation import fusion
from napari_oneseg.propagation.fusion import PaintedPlane, Say, fused, without_crossings
from napari_oneseg.volume import Annotation

SHAPE = 7, 9
VALUES = [1, 3, 4]


def random_say(rng: np.random.Generator) -> Say:
    labels = rng.choice([0, *VALUES], SHAPE, p=[0.4, 0.2, 0.2, 0.2]).astype(np.uint8)
    distances = {}
    for value in VALUES:
        along = rng.integers(0, 6, SHAPE[0])[:, None] if rng.random() < 0.5 else rng.integers(0, 6, SHAPE[1])[None]
        distances[value] = along * 7.0 if rng.random() < 0.8 else np.asarray(np.inf)
    agreements = {value: np.asarray(rng.random()) for value in VALUES}
    return Say(labels, rng.random(SHAPE).astype(np.float16), distances, agreements)


def voxel_by_voxel(says: list[Say]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The rule of the module, in loops: every number on its own."""
    labels, confidence = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE)
    for place in np.ndindex(*SHAPE):
        best = 0.0
        confidence[place] = min(float(say.confidence[place]) for say in says)
        if not any(say.labels[place] for say in says):
            continue
        for value in VALUES:
            total = speaking = surely = 0.0
            for say in says:
                apart = float(np.broadcast_to(say.distances[value], SHAPE)[place])
                sure = float(say.confidence[place])
                agreement = float(say.agreements[value])
                weight = math.exp(-apart / 25.0) * (0.1 + 0.9 * sure) * (0.05 + 0.95 * agreement**2)
                weight = 1e6 if apart == 0 else weight
                there = say.labels[place] == value
                total += weight
                speaking += weight * there
                surely += weight * sure * (1 if there else -1)
            share = speaking / max(total, 1e-30)
            if share > best:
                best = share
                labels[place] = value if share > 0.5 else 0
                confidence[place] = min(1.0, max(0.0, (surely if share > 0.5 else -surely) / total))
    return labels, confidence


@pytest.mark.parametrize("seed", range(20))
def test_fusion_is_its_rule_voxel_by_voxel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    says = [random_say(rng) for _ in range(2 + seed % 2)]
    labels, confidence = fused(says, VALUES)
    expected, sure = voxel_by_voxel(says)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(confidence.astype(float), sure, atol=2e-3)


def test_the_nearer_plane_decides() -> None:
    one = np.ones((1, 3), np.uint8)
    sure = np.full((1, 3), 0.5, np.float16)
    near = {1: np.array([[5.0, 20.0, 0.0]])}
    far = {1: np.array([[20.0, 5.0, 3.0]])}
    whole = {1: np.asarray(1.0)}
    labels, _ = fused([Say(one, sure, near, whole), Say(one * 0, sure, far, whole)], [1])
    assert labels.tolist() == [[1, 0, 1]]


def test_a_plane_has_no_say_on_labels_that_were_not_painted_in_it() -> None:
    image = np.zeros((4, 5), np.uint8)
    image[1, 2] = 2
    plane = PaintedPlane(1, Annotation({3: image}), 6, 2.0)
    assert plane.distances(2).tolist() == [6.0, 4.0, 2.0, 0.0, 2.0, 4.0]
    assert np.isinf(plane.distances(1)).all()
    settled = PaintedPlane(1, Annotation({3: image}, frozenset({3})), 6, 2.0)
    assert settled.distances(1)[3] == 0.0
    assert np.isinf(np.delete(settled.distances(1), 3)).all()


@pytest.mark.parametrize(("direction", "silent"), [("up", [0, 1]), ("down", [3, 4, 5]), ("both", [])])
def test_a_plane_has_no_say_where_its_labels_have_not_travelled(direction: str, silent: list[int]) -> None:
    plane = PaintedPlane(0, Annotation({2: np.ones((4, 5), np.uint8)}), 6, 1.0, direction)  # type: ignore[arg-type]
    assert np.flatnonzero(np.isinf(plane.distances(1))).tolist() == silent


def test_one_plane_alone_is_left_as_it_is() -> None:
    say = random_say(np.random.default_rng(5))
    labels, confidence = fused([say], VALUES)
    np.testing.assert_array_equal(labels, say.labels)
    assert confidence is say.confidence
    assert fusion.fused([say], VALUES)[0].dtype == np.uint8


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_agreement_is_the_dice_where_a_slice_and_its_neighbours_cross_what_was_painted(axis: int) -> None:
    rng = np.random.default_rng(axis)
    shape, first = (6, 7, 8), 2
    labels = rng.choice([0, 1, 2], (4, *shape[1:])).astype(np.uint8)  # slices 2 to 5 of the main plane
    planes = [
        PaintedPlane(0, Annotation({1: rng.choice([0, 1], shape[1:]), 3: rng.choice([0, 1, 2], shape[1:])}), 6, 1.0),
        PaintedPlane(1, Annotation({5: rng.choice([0, 1], (shape[0], shape[2]))}), 7, 1.0),
        PaintedPlane(2, Annotation({0: rng.choice([0, 2], (shape[0], shape[1]))}), 8, 1.0),
    ]
    for value in (1, 2, 3):
        expected = []
        for index in range(shape[axis]):
            both = sizes = 0
            for place in np.ndindex(*labels.shape):
                voxel = (place[0] + first, *place[1:])
                if abs(voxel[axis] - index) > 1:
                    continue
                for other in planes:
                    image = other.annotation.slices.get(voxel[other.axis])
                    shown = value in other.annotation.labels and image is not None and (image == value).any()
                    if other.axis == axis or not shown:
                        continue
                    painted = image[tuple(v for k, v in enumerate(voxel) if k != other.axis)] == value
                    both += int(painted and labels[place] == value)
                    sizes += int(painted) + int(labels[place] == value)
            expected.append(2 * both / sizes if sizes else 1.0)
        found = fusion._agreement(planes[axis], labels, planes, value, first)
        np.testing.assert_allclose(found, expected)


def test_a_plane_that_contradicts_what_was_painted_in_another_has_little_to_say() -> None:
    one = np.ones((1, 2), np.uint8)
    sure = np.full((1, 2), 0.9, np.float16)
    near, far = {1: np.asarray(5.0)}, {1: np.asarray(20.0)}
    bad, good = {1: np.array([[0.1, 1.0]])}, {1: np.asarray(1.0)}
    labels, _ = fused([Say(one, sure, near, bad), Say(one * 0, sure, far, good)], [1])
    assert labels.tolist() == [[0, 1]]


def test_a_line_that_another_plane_has_left_is_no_painting_of_the_slice() -> None:
    shape = (6, 7, 8)
    axial, coronal = np.zeros(shape[1:], np.uint8), np.zeros((shape[0], shape[2]), np.uint8)
    axial[0:2, 0:3] = 5
    coronal[1:5, 2:6] = 2
    axial[4, 2:6] = 2  # where the coronal slice 4 crosses it
    coronal[3, 0:2] = 5
    axial[4, 0:2] = 5
    planes = [PaintedPlane(0, Annotation({3: axial}), 6, 1.0), PaintedPlane(1, Annotation({4: coronal}), 7, 1.0)]
    main, across = without_crossings(planes)
    assert main.annotation.labels == (5,)
    assert across.annotation.labels == (2,)
    assert (main.annotation.slices[3][4, 0:2] == 5).all(), "a label of the slice's own keeps its part of the line"
    dot = np.zeros(shape[1:], np.uint8)
    dot[4, 2] = 7
    crossing = np.zeros((shape[0], shape[2]), np.uint8)
    crossing[3, 2] = 7
    single = [PaintedPlane(0, Annotation({3: dot}), 6, 1.0), PaintedPlane(1, Annotation({4: crossing}), 7, 1.0)]
    assert without_crossings(single) == single, "nothing that was painted is lost"
