"""A session fits its scan whatever the order of the scan's file, and one of before there was one order is turned."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from napari_oneseg import scan_features
from napari_oneseg.checkpoint import Weights
from napari_oneseg.config import FeatureConfig, PreprocessingConfig
from napari_oneseg.errors import SessionError
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.file_order import in_file_order, reorient
from napari_oneseg.io import read_volume, write_image
from napari_oneseg.orientation import Orientation
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.session import OneSegSession
from napari_oneseg.session_file import SavedSession, load_session, save_session
from napari_oneseg.session_order import in_scan_order
from napari_oneseg.session_state import SessionState
from napari_oneseg.volume import LabelArray, Volume

ALL = [Orientation(axes, flips) for axes in permutations((0, 1, 2)) for flips in product((False, True), repeat=3)]
WEIGHTS = Weights(FeatureNetwork(FeatureConfig(width_factor=0.125, channels=8)), PreprocessingConfig(), "w", "w", {})


@pytest.fixture(autouse=True)
def no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is painted, saved and taken up again needs none."""
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: None)


def stored(path: Path, way: Orientation) -> Path:
    """Write a scan whose file has its axes in a given order."""
    grey = np.random.default_rng(0).integers(0, 1000, (6, 5, 4)).astype(np.int16)
    volume = reorient(Volume(grey, (3.0, 1.0, 0.75), (12.5, -40.25, 101.0)), way)
    volume = replace(volume, to_file=Orientation())
    write_image(path, volume.array.astype(np.float32), volume)
    return path


def drawn(volume: Volume, index: int) -> LabelArray:
    """Labels that tell every voxel of a slice from the others of the scan."""
    return (volume.slices[index] % 251).astype(np.uint8)


def session_on(volume: Volume) -> OneSegSession:
    session = OneSegSession(WEIGHTS, "cpu")
    session.set_volume(volume)
    return session


def made_on(volume: Volume) -> SavedSession:
    """A session with something of everything, whose images are made from the grey values below them."""
    last = volume.n_slices - 1
    result = LabelledSlice(1, drawn(volume, 1), (volume.slices[1] / 1000).astype(np.float16), 0.5)
    state = SessionState(
        painted={0: drawn(volume, 0), last: drawn(volume, last)},
        complete=frozenset({last}),
        frozen={2: drawn(volume, 2)},
        results={1: result},
        stale=frozenset({1}),
        outdated=frozenset({7}),
        direction="up",
    )
    extras = {"slice": 1, "range": [0, 2], "labels": {"1": "liver"}}
    return replace(session_on(volume).snapshot(), state=state, extras=extras)


@pytest.mark.parametrize("way", ALL, ids=str)
def test_what_one_reading_saves_another_one_takes_up(tmp_path: Path, way: Orientation) -> None:
    path = stored(tmp_path / "scan.nii", way)
    for axis in range(3):
        session = session_on(read_volume(path, axis))
        session.annotate(1, drawn(session.volume, 1))
        session.save(tmp_path / "a.oneseg")
        saved = load_session(tmp_path / "a.oneseg")
        assert saved.slice_axis == axis
        other = session_on(read_volume(path, saved.slice_axis))
        other.resume(tmp_path / "a.oneseg")
        np.testing.assert_array_equal(other.annotation.slices[1], drawn(other.volume, 1))


@pytest.mark.parametrize("way", ALL, ids=str)
def test_a_session_of_before_is_turned(tmp_path: Path, way: Orientation) -> None:
    path = stored(tmp_path / "scan.nii", way)
    volume = read_volume(path)
    for axis in range(3):
        scan = in_file_order(replace(volume, slice_axis=axis))
        save_session(tmp_path / "a.oneseg", replace(made_on(scan), slice_axis=None))
        turned = in_scan_order(load_session(tmp_path / "a.oneseg"), volume)
        assert turned.slice_axis == axis
        there = replace(volume, slice_axis=axis)
        assert turned.scan == there.content_hash
        state = turned.state
        flipped = not np.array_equal(np.sort(scan.slices[0], None), np.sort(there.slices[0], None))
        last = there.n_slices - 1
        first, second, third, end = (last, last - 1, last - 2, 0) if flipped else (0, 1, 2, last)
        assert (set(state.painted), set(state.frozen), set(state.results)) == ({first, end}, {third}, {second})
        assert (state.complete, state.stale, state.outdated) == ({end}, {second}, {7})
        assert state.direction == ("down" if flipped else "up")
        images = {**state.painted, **state.frozen, second: state.results[second].labels}
        for index, image in images.items():
            np.testing.assert_array_equal(image, drawn(there, index))
        np.testing.assert_allclose(state.results[second].confidence, there.slices[second] / 1000, atol=1e-3)
        assert turned.extras == {"slice": second, "range": sorted([first, third]), "labels": {"1": "liver"}}
        session_on(there).restore(turned)


def test_it_is_turned_where_it_is_resumed(tmp_path: Path) -> None:
    path = stored(tmp_path / "scan.nii", Orientation(flips=(True, True, False)))
    save_session(tmp_path / "a.oneseg", replace(made_on(in_file_order(read_volume(path))), slice_axis=None))
    session = session_on(read_volume(path))
    session.resume(tmp_path / "a.oneseg")
    np.testing.assert_array_equal(session.annotation.slices[5], drawn(session.volume, 5))


def test_a_session_of_the_window_of_before_is_left_as_it_is(tmp_path: Path) -> None:
    volume = read_volume(stored(tmp_path / "scan.nii", Orientation(flips=(True, True, False))))
    saved = replace(made_on(replace(volume, slice_axis=1)), slice_axis=None)
    turned = in_scan_order(saved, volume)
    assert (turned.slice_axis, turned.scan, turned.state) == (1, saved.scan, saved.state)


def test_another_scan_s_session_is_refused(tmp_path: Path) -> None:
    volume = read_volume(stored(tmp_path / "scan.nii", Orientation(flips=(True, True, False))))
    other = replace(made_on(replace(volume, array=volume.array + 1)), slice_axis=None)
    assert in_scan_order(other, volume) is other
    with pytest.raises(SessionError, match="belongs to another scan, or to another slice axis of this one"):
        session_on(volume).restore(other)


def test_another_plane_is_named(tmp_path: Path) -> None:
    volume = read_volume(stored(tmp_path / "scan.nii", Orientation()))
    with pytest.raises(SessionError, match=r"another slice axis of this one \(it was made along axis 2\)"):
        session_on(volume).restore(made_on(replace(volume, slice_axis=2)))
