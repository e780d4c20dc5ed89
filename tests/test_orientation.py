"""Turning a scan to the patient's axes, with SimpleITK's own as witness."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_oneseg.io import read_volume
from napari_oneseg.orientation import Orientation, reorient, shown
from napari_oneseg.volume import Volume

SHAPE = (4, 3, 5)
ALL = [Orientation(axes, flips) for axes in permutations((0, 1, 2)) for flips in product((False, True), repeat=3)]


def numbered(shape: tuple[int, ...] = SHAPE) -> NDArray[np.int16]:
    """Every voxel has its own value, so that equal arrays have the same voxels in the same places."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def positions(volume: Volume) -> NDArray[np.float64]:
    """Where each voxel lies, by the definition in Volume; the row is the voxel's value."""
    index = np.indices(volume.array.shape).reshape(3, -1).T
    found = np.asarray(volume.origin) + (index * volume.spacing) @ np.asarray(volume.direction).T
    return found[np.argsort(volume.array.ravel())]


@st.composite
def scans(draw: st.DrawFn) -> Volume:
    """Any position: rotated by any angle, exact multiples of 45 degrees included, mirrored or not."""
    numbers = st.floats(-200, 200)
    angle = st.one_of(st.floats(-180, 180), st.integers(-4, 4).map(lambda eighths: 45.0 * eighths))
    turned = Rotation.from_euler("xyz", [draw(angle) for _ in range(3)], degrees=True).as_matrix()
    if draw(st.booleans()):
        turned[:, 0] *= -1
    shape = tuple(draw(st.integers(2, 5)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.3, 8.0)) for _ in range(3))
    origin = tuple(draw(numbers) for _ in range(3))
    return Volume(numbered(shape), spacing, origin, turned, draw(st.sampled_from([0, 1, 2])), {"qform_code": "1"})


@settings(max_examples=150, deadline=None)
@given(scans())
def test_every_voxel_keeps_its_place(volume: Volume) -> None:
    turned, orientation = shown(volume)
    np.testing.assert_allclose(positions(turned), positions(volume), atol=1e-9)
    assert np.shares_memory(turned.array, volume.array)
    assert turned.header == {}
    np.testing.assert_array_equal(orientation.to_source(turned.array), volume.array)
    # The slices stay the slices, whatever axis they run along now.
    assert turned.n_slices == volume.n_slices
    assert orientation.axes[turned.axis] == volume.axis


@settings(max_examples=150, deadline=None)
@given(scans())
def test_each_patient_axis_is_followed_by_one_axis_in_its_sense(volume: Volume) -> None:
    turned, orientation = shown(volume)
    assert sorted(orientation.axes) == [0, 1, 2]
    along = np.asarray(turned.direction)[(2, 1, 0), (0, 1, 2)]
    assert (along >= 0).all()
    # A rotation has no entry smaller than this on the diagonal once its largest entries were moved there.
    assert along.max() >= 1 / np.sqrt(3) - 1e-9


@settings(max_examples=100, deadline=None)
@given(scans())
def test_it_agrees_with_simpleitk(volume: Volume) -> None:
    direction = np.asarray(volume.direction)
    sizes = np.sort(np.abs(direction).ravel())
    assume(np.diff(sizes).min() > 1e-6 or np.allclose(np.abs(direction).max(axis=0), 1))  # no two pairings alike
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing[::-1])
    image.SetOrigin(volume.origin)
    image.SetDirection(direction[:, ::-1].ravel().tolist())
    expected = sitk.DICOMOrient(image, "LPS")
    turned, _ = shown(volume)
    np.testing.assert_array_equal(turned.array, sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(turned.spacing, expected.GetSpacing()[::-1], rtol=1e-12)
    np.testing.assert_allclose(turned.origin, expected.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(
        turned.direction, np.reshape(expected.GetDirection(), (3, 3))[:, ::-1], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("orientation", ALL, ids=str)
def test_there_and_back(orientation: Orientation) -> None:
    array = numbered()
    there = orientation.to_shown(array)
    assert there.shape == tuple(SHAPE[axis] for axis in orientation.axes)
    np.testing.assert_array_equal(orientation.to_source(there), array)
    other = numbered(there.shape)
    np.testing.assert_array_equal(orientation.to_shown(orientation.to_source(other)), other)


@pytest.mark.parametrize("orientation", ALL, ids=str)
def test_any_given_orientation_keeps_the_places(orientation: Orientation) -> None:
    volume = Volume(numbered(), (7.5, 1.25, 0.8), (12.5, -40.25, 101.0), slice_axis=1)
    turned = reorient(volume, orientation)
    np.testing.assert_allclose(positions(turned), positions(volume), atol=1e-12)
    assert sorted(turned.spacing) == sorted(volume.spacing)
    assert shown(turned)[0].axis == 1


def test_a_scan_that_lies_right_is_left_alone() -> None:
    volume = Volume(numbered(), (7.5, 1.25, 0.8), (12.5, -40.25, 101.0))
    turned, orientation = shown(volume)
    assert orientation == Orientation()
    assert turned.origin == volume.origin
    np.testing.assert_array_equal(turned.direction, volume.direction)


def test_a_real_scan(data_dir: Path) -> None:
    path = data_dir / "chaos_mr_t2/dev/images/chaos_33.nii.gz"
    volume = read_volume(path)
    turned, _ = shown(volume)
    expected = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    np.testing.assert_array_equal(turned.array, sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(turned.origin, expected.GetOrigin(), atol=1e-6)
