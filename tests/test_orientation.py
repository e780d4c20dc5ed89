"""The order of a scan's axes, the patient's and the file's, with SimpleITK and nibabel as witnesses."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_oneseg.file_order import file_grid, file_slice, in_file_order, reorient
from napari_oneseg.io import read_labels, read_volume, write_image, write_labels
from napari_oneseg.orientation import Orientation, nearest_orientation
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
    orientation = nearest_orientation(volume.direction)
    turned = reorient(volume, orientation)
    np.testing.assert_allclose(positions(turned), positions(volume), atol=1e-9)
    assert np.shares_memory(turned.array, volume.array)
    assert turned.header == volume.header
    back = in_file_order(turned)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(positions(back), positions(volume), atol=1e-9)
    assert (back.axis, back.to_file) == (volume.axis, Orientation())
    # The slices stay the slices, whatever axis they run along now.
    assert turned.n_slices == volume.n_slices
    assert orientation.axes[turned.axis] == volume.axis


@settings(max_examples=150, deadline=None)
@given(scans())
def test_each_patient_axis_is_followed_by_one_axis_in_its_sense(volume: Volume) -> None:
    orientation = nearest_orientation(volume.direction)
    turned = reorient(volume, orientation)
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
    turned = reorient(volume, nearest_orientation(volume.direction))
    np.testing.assert_array_equal(turned.array, sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(turned.spacing, expected.GetSpacing()[::-1], rtol=1e-12)
    np.testing.assert_allclose(turned.origin, expected.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(
        turned.direction, np.reshape(expected.GetDirection(), (3, 3))[:, ::-1], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("way", ALL, ids=str)
def test_there_and_back(way: Orientation) -> None:
    array = numbered()
    there = way.apply(array)
    assert there.shape == tuple(SHAPE[axis] for axis in way.axes)
    np.testing.assert_array_equal(way.inverse.apply(there), array)
    assert way.then(way.inverse) == way.inverse.then(way) == Orientation()


@pytest.mark.parametrize("first", ALL, ids=str)
def test_one_way_and_then_another_is_one_way(first: Orientation) -> None:
    array = numbered()
    for second in ALL:
        np.testing.assert_array_equal(first.then(second).apply(array), second.apply(first.apply(array)))


@pytest.mark.parametrize("way", ALL, ids=str)
def test_any_given_way_keeps_the_places(way: Orientation) -> None:
    volume = Volume(numbered(), (7.5, 1.25, 0.8), (12.5, -40.25, 101.0), slice_axis=1)
    turned = reorient(volume, way)
    np.testing.assert_allclose(positions(turned), positions(volume), atol=1e-12)
    assert sorted(turned.spacing) == sorted(volume.spacing)
    assert way.axes[turned.axis] == 1
    np.testing.assert_array_equal(turned.to_file.apply(turned.array), volume.array)
    assert nearest_orientation(turned.direction) == turned.to_file


def test_a_scan_that_lies_right_is_left_alone() -> None:
    assert nearest_orientation(Volume(numbered()).direction) == Orientation()


# A scan as it is read and written: whatever the order of its file ----------------------------------------------------


def file_in_order(path: Path, way: Orientation) -> Volume:
    """Write a scan with its axes in a given order; return it in patient order."""
    scan = Volume(numbered(), (7.5, 1.25, 0.8), (12.5 / 3, -40.25 / 7, 101.0 / 9))
    stored = reorient(scan, way)
    sitk.WriteImage(_image(stored), str(path))
    return scan


def _image(volume: Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing[::-1])
    image.SetOrigin(volume.origin)
    image.SetDirection(np.asarray(volume.direction)[:, ::-1].ravel().tolist())
    return image


@pytest.mark.parametrize("way", ALL, ids=str)
def test_a_file_is_read_in_patient_order(tmp_path: Path, way: Orientation) -> None:
    scan = file_in_order(tmp_path / "scan.nii", way)
    volume = read_volume(tmp_path / "scan.nii")
    np.testing.assert_array_equal(volume.array, scan.array)
    np.testing.assert_allclose(volume.origin, scan.origin, atol=1e-4)
    np.testing.assert_allclose(volume.direction, scan.direction, atol=1e-6)
    assert (volume.axis, volume.to_file) == (0, way)
    for axis in range(3):
        assert read_volume(tmp_path / "scan.nii", axis).axis == axis


@pytest.mark.parametrize("way", ALL, ids=str)
def test_a_slice_is_found_in_the_file_s_own_array(tmp_path: Path, way: Orientation) -> None:
    file_in_order(tmp_path / "scan.nii", way)
    data = np.asarray(nibabel.load(tmp_path / "scan.nii").dataobj)
    for axis in range(3):
        volume = read_volume(tmp_path / "scan.nii", axis)
        for index, image in enumerate(volume.slices):
            file_axis, file_index = file_slice(volume, index)
            assert set(np.take(data, file_index, file_axis).ravel()) == set(image.ravel())


@pytest.mark.parametrize("way", ALL, ids=str)
def test_what_is_written_lies_in_the_order_of_the_file(tmp_path: Path, way: Orientation) -> None:
    path = tmp_path / "scan.nii"
    file_in_order(path, way)
    volume = read_volume(path)
    labels = (volume.array % 5).astype(np.uint8)
    write_labels(tmp_path / "labels.nii", labels, volume)
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii", volume), labels)
    scan, written = nibabel.load(path), nibabel.load(tmp_path / "labels.nii")
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(scan.dataobj) % 5)
    assert path.read_bytes()[76:108] == (tmp_path / "labels.nii").read_bytes()[76:108], "pixdim"
    assert path.read_bytes()[252:328] == (tmp_path / "labels.nii").read_bytes()[252:328], "qform and sform"
    write_image(tmp_path / "map.nii", volume.array / 7, volume)
    np.testing.assert_array_equal(
        np.asarray(nibabel.load(tmp_path / "map.nii").dataobj), np.asarray(scan.dataobj, np.float32) / np.float32(7)
    )


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("way", ALL, ids=str)
def test_the_grid_of_other_formats_is_the_file_s_to_the_last_bit(tmp_path: Path, way: Orientation, ending: str) -> None:
    path, out = tmp_path / f"scan{ending}", tmp_path / f"labels{ending}"
    file_in_order(path, way)
    volume = read_volume(path)
    write_labels(out, (volume.array % 5).astype(np.uint8), volume)
    scan, written = sitk.ReadImage(str(path)), sitk.ReadImage(str(out))
    assert written.GetSpacing() == scan.GetSpacing()
    assert written.GetOrigin() == scan.GetOrigin()
    assert written.GetDirection() == scan.GetDirection()
    assert file_grid(volume).origin == scan.GetOrigin()


def test_a_cropped_scan_has_a_grid_of_its_own(tmp_path: Path) -> None:
    """Its header still names the file's origin; what is written must not lie there."""
    file_in_order(tmp_path / "scan.mha", Orientation(flips=(True, True, False)))
    volume = read_volume(tmp_path / "scan.mha")
    cropped = replace(volume, array=volume.array[:, :2])
    write_labels(tmp_path / "labels.mha", np.ones(cropped.array.shape, np.uint8), cropped)
    # The file runs to the front: its first row is now the second of those that are left.
    expected = np.asarray(volume.origin) + np.asarray(volume.direction) @ (np.asarray(volume.spacing) * (3, 1, 0))
    np.testing.assert_allclose(sitk.ReadImage(str(tmp_path / "labels.mha")).GetOrigin(), expected, atol=1e-9)


def test_the_default_axis_is_chosen_in_patient_order(tmp_path: Path) -> None:
    """A sagittal scan with voxels of one size: its file's first axis runs to the left, and axial slices are painted."""
    scan = Volume(numbered((6, 7, 8)))
    sitk.WriteImage(_image(reorient(scan, Orientation((2, 0, 1)))), str(tmp_path / "scan.nii"))
    volume = read_volume(tmp_path / "scan.nii")
    assert (volume.axis, volume.n_slices) == (0, 6)
    assert file_slice(volume, 4) == (1, 4)


def test_an_array_is_taken_as_it_is_given(tmp_path: Path) -> None:
    upside_down = Volume(numbered(), (3.0, 1.0, 1.0), direction=np.eye(3)[:, ::-1] * (-1, 1, 1))
    assert upside_down.to_file == Orientation()
    assert file_slice(upside_down, 1) == (2, 1)
    write_labels(tmp_path / "labels.nii", numbered().astype(np.uint8), upside_down)
    written = np.asarray(nibabel.load(tmp_path / "labels.nii").dataobj)
    np.testing.assert_array_equal(written.T, numbered().astype(np.uint8))


def test_a_real_scan(data_dir: Path) -> None:
    path = data_dir / "chaos_mr_t2/dev/images/chaos_33.nii.gz"
    volume = read_volume(path)
    expected = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(volume.origin, expected.GetOrigin(), atol=1e-6)
