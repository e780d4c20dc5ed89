from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_oneseg import scan_features
from napari_oneseg.config import PropagationConfig
from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.io import read_volume, write_labels
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation, Volume
from tests.engine_fixtures import moving_stack, tiny_weights

SHAPE = (9, 12, 14)
WEIGHTS = tiny_weights()


def fake_features(volume: Volume, *_: object) -> FeatureStack:
    """Features made by hand, of whichever plane is asked for."""
    rows, columns = volume.slices.shape[1:]
    return moving_stack(volume.n_slices, (rows, columns), (0, 0), scale=9.0, seed=volume.axis)


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scan_features, "compute_features", fake_features)
    return


def session_on(volume: Volume) -> OneSegSession:
    session = OneSegSession(WEIGHTS, "cpu", propagation=PropagationConfig(window=5))
    session.set_volume(volume)
    return session


def scan(axis: int = 0, shape: tuple[int, int, int] = SHAPE) -> Volume:
    return Volume(np.random.default_rng(0).normal(size=shape), (3.0, 1.0, 1.5), slice_axis=axis)


def block(plane: int, index: int, label: int = 1, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    """The slice of a block, over the axes other than the plane's, in their order."""
    whole = np.zeros(shape, np.uint8)
    whole[2:7, 3:9, 4:11] = label
    return np.ascontiguousarray(np.moveaxis(whole, plane, 0)[index])


MIDDLE = {0: 4, 1: 6, 2: 7}


@pytest.mark.parametrize("plane", [0, 1, 2])
@pytest.mark.parametrize("main", [0, 1, 2])
def test_one_plane_is_what_it_is_as_the_scans_own(main: int, plane: int) -> None:
    alone, other = session_on(scan(plane)), session_on(scan(main))
    alone.annotate(MIDDLE[plane], block(plane, MIDDLE[plane]))
    other.annotate(MIDDLE[plane], block(plane, MIDDLE[plane]), plane=plane)
    expected, found = alone.propagate(), other.propagate()
    for was, now in ((expected.labels, found.labels), (expected.confidence, found.confidence)):
        np.testing.assert_array_equal(other.volume.from_slices(now), alone.volume.from_slices(was))
    assert found.volumes_ml == expected.volumes_ml
    assert found.labels.any()


@pytest.mark.parametrize("main", [0, 1, 2])
def test_painted_slices_are_told_by_their_planes(main: int) -> None:
    session = session_on(scan(main))
    for plane, index in MIDDLE.items():
        session.annotate(index, block(plane, index), plane=plane)
    told = session.painted_planes
    assert set(told) == {0, 1, 2}
    for plane, index in MIDDLE.items():
        np.testing.assert_array_equal(told[plane].slices[index], block(plane, index))
    whole = session.volume.from_slices(session.labels)
    for plane, index in MIDDLE.items():
        assert (np.moveaxis(whole, plane, 0)[index] >= block(plane, index)).all()


@pytest.mark.parametrize("main", [0, 1, 2])
def test_what_a_slice_shows_as_absent_no_other_plane_brings_there(main: int) -> None:
    session = session_on(scan(main))
    small = block(1, 6).copy()
    small[:, 8:] = 0  # columns 8 to 10 of the block are not there, it says
    session.annotate(6, small, plane=1)
    session.annotate(7, block(2, 7), plane=2)
    session.annotate(4, block(0, 4), plane=0)
    whole = session.volume.from_slices(session.propagate().labels)
    painted = small.copy()
    painted[4] = np.maximum(painted[4], block(0, 4)[6])  # but what was painted in another plane is there
    painted[:, 7] = np.maximum(painted[:, 7], block(2, 7)[:, 6])
    np.testing.assert_array_equal(whole[:, 6], painted)


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("second", [0, 1, 2])
def test_what_is_painted_last_counts_where_slices_cross(first: int, second: int) -> None:
    if first == second:
        return
    session = session_on(scan())
    session.annotate(MIDDLE[first], block(first, MIDDLE[first], 1), plane=first)
    session.annotate(MIDDLE[second], block(second, MIDDLE[second], 2), plane=second)
    whole = session.volume.from_slices(session.propagate().labels)
    np.testing.assert_array_equal(np.moveaxis(whole, second, 0)[MIDDLE[second]], block(second, MIDDLE[second], 2))
    session.undo()
    session.annotate(MIDDLE[second], np.zeros_like(block(second, MIDDLE[second])), complete=True, plane=second)
    whole = session.volume.from_slices(session.propagate().labels)
    assert not np.moveaxis(whole, second, 0)[MIDDLE[second]].any()
    assert whole.any()


def test_a_stroke_that_erases_counts_on_a_crossing_slice() -> None:
    session = session_on(scan())
    session.annotate(6, block(1, 6), plane=1)
    seen = session.labels[4].copy()
    assert seen[6].any()
    seen[6, 4:8] = 0
    session.paint({4: seen})
    np.testing.assert_array_equal(session.labels[4], seen)
    assert not session.painted_planes[1].slices[6][4, 4:8].any()


def test_painting_in_another_plane_makes_everything_stale_and_undo_takes_it_back() -> None:
    session = session_on(scan())
    session.annotate(4, block(0, 4))
    before = session.propagate().labels
    session.annotate(6, block(1, 6), plane=1)
    assert session.stale == set(range(SHAPE[0]))
    assert session.state.outdated == {1}
    session.update()
    assert not session.stale
    fresh = session_on(scan())
    fresh.annotate(4, block(0, 4))
    fresh.annotate(6, block(1, 6), plane=1)
    np.testing.assert_array_equal(session.labels, fresh.propagate().labels)
    session.undo()
    session.undo()
    np.testing.assert_array_equal(session.labels, before)
    session.annotate(6, block(1, 6), plane=1)
    session.annotate(6, np.zeros((9, 14), np.uint8), plane=1)
    assert not session.state.across


def test_a_label_leaves_all_planes() -> None:
    session = session_on(scan())
    session.annotate(4, block(0, 4, 1))
    session.annotate(6, block(1, 6, 2), plane=1)
    session.propagate()
    session.remove(2)
    assert session.state.labels == (1,)
    assert not session.state.across
    assert not (session.labels == 2).any()


def test_chosen_labels_travel_in_all_planes_and_leave_the_others() -> None:
    session = session_on(scan())
    other = np.zeros(SHAPE[1:], np.uint8)
    other[0:2, 0:3] = 5
    session.annotate(4, other)
    session.annotate(6, block(1, 6, 2), plane=1)
    only = session.propagate(labels=[2]).labels
    assert (only == 2).sum() > (block(1, 6) > 0).sum()
    np.testing.assert_array_equal(only[4] == 5, other == 5)
    with pytest.raises(AnnotationError, match="painted nowhere"):
        session.propagate(labels=[3])


@pytest.mark.parametrize("main", [0, 1, 2])
def test_sessions_keep_the_painted_slices_of_all_planes(main: int, tmp_path: Path) -> None:
    session = session_on(scan(main))
    session.annotate(4, block(0, 4), plane=0)
    session.annotate(6, block(1, 6, 3), complete=True, plane=1)
    labels = session.propagate().labels
    session.save(tmp_path / "s.oneseg")
    again = session_on(scan(main))
    again.resume(tmp_path / "s.oneseg")
    np.testing.assert_array_equal(again.labels, labels)
    for plane, annotation in session.painted_planes.items():
        kept = again.painted_planes[plane]
        assert kept.complete == annotation.complete
        assert kept.slices.keys() == annotation.slices.keys()
        for index, image in annotation.slices.items():
            np.testing.assert_array_equal(kept.slices[index], image)


def test_planes_are_checked() -> None:
    session = session_on(scan())
    with pytest.raises(InputError, match="0, 1 or 2"):
        session.annotate(0, block(0, 4), plane=3)
    with pytest.raises(AnnotationError, match="slices 0 to 13"):
        session.annotate(14, block(2, 7), plane=2)
    with pytest.raises(AnnotationError, match="rows and columns"):
        session.annotate(2, block(2, 7), plane=1)
    session.annotate(6, block(1, 6), plane=1)
    with pytest.raises(AnnotationError, match="between slices 7 and 8"):
        session.propagate((7, 8))


def test_another_plane_is_computed_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        scan_features, "compute_features", lambda volume, *_: asked.append(volume.axis) or fake_features(volume)
    )
    session = session_on(scan())
    session.annotate(4, block(0, 4))
    session.propagate()
    assert asked == [0]
    session.prepare_plane(2)
    session.annotate(7, block(2, 7), plane=2)
    session.propagate()
    assert asked == [0, 2]


def random_scan(path: Path, rng: np.random.Generator) -> Volume:
    """A small scan in a file of any axis order, flips and obliquity."""
    image = sitk.GetImageFromArray(rng.normal(size=rng.integers(5, 9, 3)).astype(np.float32))
    turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    if rng.random() < 0.5:
        turn = Rotation.from_rotvec(rng.normal(size=3) * 0.2).as_matrix() @ turn
    if np.linalg.det(turn) < 0:
        turn[:, 0] *= -1.0
    image.SetDirection(turn.ravel().tolist())
    image.SetSpacing([float(x) for x in rng.uniform(0.5, 4.0, 3)])
    image.SetOrigin([float(x) for x in rng.uniform(-50.0, 50.0, 3)])
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    return replace(volume, slice_axis=int(rng.integers(3)))


@pytest.mark.parametrize("seed", range(200))
def test_every_painted_voxel_of_every_plane_is_exported_as_painted(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    volume = random_scan(tmp_path / "scan.nrrd", rng)
    session = session_on(volume)
    drawn = rng.integers(1, 4) * (rng.random(volume.array.shape) < 0.3).astype(np.uint8)
    drawn[rng.random(drawn.shape) < 0.2] *= 0
    for plane in rng.permutation(3)[: rng.integers(1, 4)].tolist():
        for index in rng.choice(volume.array.shape[plane], rng.integers(1, 3), replace=False).tolist():
            image = np.ascontiguousarray(np.moveaxis(drawn, plane, 0)[index])
            session.annotate(index, image, plane=plane)
    painted = np.zeros(drawn.shape, np.uint8)
    for plane, annotation in session.painted_planes.items():
        for index, image in annotation.slices.items():
            target = np.moveaxis(painted, plane, 0)[index]
            target[image > 0] = image[image > 0]
    if not painted.any():
        return
    whole = volume.from_slices(session.propagate().labels)
    write_labels(tmp_path / "out.nrrd", whole, volume)
    exported = sitk.ReadImage(str(tmp_path / "out.nrrd"))
    for place in np.argwhere(painted):
        point = np.asarray(volume.origin) + volume.direction @ (np.asarray(volume.spacing) * place)
        assert exported[exported.TransformPhysicalPointToIndex(point.tolist())] == painted[tuple(place)]
        assert drawn[tuple(place)] == painted[tuple(place)]


def test_complete_slices_that_show_nothing_settle_their_voxels() -> None:
    session = session_on(scan())
    session.annotate(4, block(0, 4))
    session.set_annotation(Annotation({6: np.zeros((9, 14), np.uint8)}, frozenset({6})), plane=1)
    labels = session.propagate().labels
    assert not labels[:, 6].any()
    assert labels[:4].any()


def test_planes_are_suggested_with_a_slice_each() -> None:
    volume = scan(1)
    session = session_on(volume)
    planes = session.suggest_planes(6, 4, 7)
    assert sorted(entry.extent.plane for entry in planes) == [0, 1, 2]
    for entry in planes:
        place = (4, 6, 7)[entry.extent.plane]
        assert entry.extent.first <= place <= entry.extent.last
        assert entry.extent.first <= entry.extent.index <= entry.extent.last
    with pytest.raises(InputError, match="no voxel"):
        session.suggest_planes(6, 40, 7)
