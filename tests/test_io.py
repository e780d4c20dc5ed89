"""Reading and writing, with SimpleITK and nibabel as independent witnesses; scans are a few hundred voxels."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_oneseg import image_files, io
from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.image_formats import READABLE, WRITABLE
from napari_oneseg.io import read_labels, read_volume, write_image, write_labels
from napari_oneseg.volume import Volume

SHAPE = (6, 5, 4)
SPACING = (7.5, 1.25, 0.8)
ORIGIN = (12.5, -40.25, 101.0)
OBLIQUE = Rotation.from_euler("xyz", [20, -15, 35], degrees=True).as_matrix()
LPS = np.diag([-1.0, -1.0, 1.0])  # nibabel's frame, x to the right and y to the front, to SimpleITK's


@pytest.fixture
def volume() -> Volume:
    return Volume(grey_values(), SPACING, ORIGIN, OBLIQUE[:, ::-1])


def grey_values(dtype: str = "int16") -> NDArray[np.generic]:
    return np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)


def painted(dtype: str = "uint8", shape: tuple[int, ...] = SHAPE) -> NDArray[np.generic]:
    labels = np.zeros(shape, dtype)
    labels[1, 2, 3] = 3
    return labels


def save(path: Path, array: NDArray[np.generic], direction: NDArray[np.float64] = OBLIQUE, **changes: object) -> Path:
    """Write an array (z, y, x) with SimpleITK alone; direction in SimpleITK's order of axes (x, y, z)."""
    image = sitk.GetImageFromArray(array, isVector=bool(changes.get("vector")))
    if image.GetDimension() == 3:
        image.SetSpacing(changes.get("spacing", SPACING[::-1]))
        image.SetOrigin(changes.get("origin", ORIGIN))
        image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def nifti(path: Path, array: NDArray[np.generic]) -> Path:
    """Write an array (x, y, z) with nibabel."""
    nib.save(nib.Nifti1Image(array, np.diag([0.8, 1.25, 7.5, 1.0])), path)
    return path


def position(volume: Volume, index: Sequence[int]) -> NDArray[np.float64]:
    """Where a voxel (z, y, x) lies in the patient's frame, by the definition in Volume."""
    return np.asarray(volume.origin) + volume.direction @ (np.asarray(volume.spacing) * index)


# Reading a scan


@pytest.mark.parametrize("ending", [*READABLE, ".NII.GZ", ".Nrrd"])
def test_a_scan_is_read_with_its_grid(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scan ä{ending}"
    volume = read_volume(save(path.with_name(path.name.lower()), grey_values()).rename(path))
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, grey_values())
    np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-7)
    np.testing.assert_allclose(volume.origin, ORIGIN, rtol=1e-7)
    np.testing.assert_allclose(volume.direction, OBLIQUE[:, ::-1], atol=1e-6)
    assert volume.slice_axis == 0


def test_the_frame_is_that_of_nibabel(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", grey_values())
    volume = read_volume(str(path), slice_axis=2)
    affine = nib.load(path).affine
    for index in [(0, 0, 0), (5, 0, 0), (1, 4, 2)]:
        expected = LPS @ (affine @ [*index[::-1], 1])[:3]
        np.testing.assert_allclose(position(volume, index), expected, atol=1e-4)
    assert volume.slice_axis == 2


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
def test_types_are_kept(tmp_path: Path, dtype: str) -> None:
    assert read_volume(save(tmp_path / "scan.nii.gz", grey_values(dtype))).array.dtype == dtype


def test_float64_becomes_float32(tmp_path: Path) -> None:
    array = grey_values("float64") / 3
    volume = read_volume(save(tmp_path / "scan.nrrd", array))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, array.astype(np.float32))


# What is no scan


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_volume(path)


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "scan.nii.gz", "no file .*scan.nii.gz; check the path")


def test_an_unknown_ending(tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").write_bytes(b"DICM")
    refused(tmp_path / "scan.dcm", r"scan.dcm cannot be read: .*\.nii\.gz.* was expected.*give the folder")


@pytest.mark.parametrize("ending", READABLE)
def test_an_empty_file(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"scan{ending}").touch()
    refused(tmp_path / f"scan{ending}", "is empty")


@pytest.mark.parametrize("ending", READABLE)
def test_a_text_file(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"scan{ending}").write_text("these are no voxels\n" * 100)
    refused(tmp_path / f"scan{ending}", "(not a NIfTI file|content is not what its ending|damaged).*(give|copy)")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "scan.nii", grey_values())
    monkeypatch.setattr(image_files.os, "access", lambda *args: False)
    refused(path, "no permission")


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_a_truncated_file(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"scan{ending}", grey_values())
    path.write_bytes(path.read_bytes()[:-20])
    refused(path, "incomplete.*copy or export it again")


@pytest.mark.parametrize(("ending", "other"), [(".mhd", ".raw"), (".nhdr", ".raw")])
def test_a_header_without_its_data(tmp_path: Path, ending: str, other: str) -> None:
    path = save(tmp_path / f"scan{ending}", grey_values())
    (tmp_path / f"scan{other}").unlink()
    refused(path, "the data file that belongs to it is missing")


def test_a_2d_image(tmp_path: Path) -> None:
    refused(save(tmp_path / "scan.nii", grey_values()[0]), "single 2D image; a 3D scan was expected")


def test_a_time_series(tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan.nii", np.stack([grey_values().T] * 7, axis=-1))
    refused(path, "4 dimensions .7 volumes.*a 3D scan was expected: choose one of its volumes with --frame, 0 to 6")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_a_volume_of_a_time_series(tmp_path: Path, ending: str) -> None:
    """Written by SimpleITK, one label file per volume read back by it: the same voxels at the same places."""
    arrays = [np.roll(grey_values(), shift) for shift in range(3)]
    volumes = [sitk.ReadImage(str(save(tmp_path / f"{index}.mha", array))) for index, array in enumerate(arrays)]
    path = tmp_path / f"series{ending}"
    sitk.WriteImage(sitk.JoinSeries(volumes, 0.0, 2.5), str(path))
    assert io.count_frames(path) == 3
    for frame, array in enumerate(arrays):
        scan = read_volume(path, frame=frame)
        np.testing.assert_array_equal(scan.array, array)
        write_labels(tmp_path / "labels.nii.gz", (array > 50).astype(np.uint8), scan)
        written = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written), array > 50)
        for point in ((0, 0, 0), (3, 2, 5)):
            np.testing.assert_allclose(
                written.TransformIndexToPhysicalPoint(point),
                volumes[frame].TransformIndexToPhysicalPoint(point),
                atol=1e-4,
            )


@pytest.mark.parametrize("frame", [-1, 3])
def test_a_volume_that_is_not_there(tmp_path: Path, frame: int) -> None:
    path = nifti(tmp_path / "scan.nii", np.stack([grey_values().T] * 3, axis=-1))
    with pytest.raises(InputError, match=f"no volume {frame} in scan.nii, which holds volumes 0 to 2"):
        read_volume(path, frame=frame)
    with pytest.raises(InputError, match=r"no volume 1 in one.nrrd, which holds one volume, number 0"):
        read_volume(save(tmp_path / "one.nrrd", grey_values()), frame=1)


def test_labels_in_several_volumes(tmp_path: Path, volume: Volume) -> None:
    path = nifti(tmp_path / "labels.nii", np.stack([painted().T] * 2, axis=-1))
    with pytest.raises(InputError, match=r"4 dimensions .2 volumes.*save one of its volumes as a file of its own"):
        read_labels(path, volume)


def test_five_dimensions(tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan.nii", np.zeros((4, 5, 6, 2, 3), np.int16))
    refused(path, "5 dimensions; a 3D scan was expected|3 values per voxel")


def test_one_slice(tmp_path: Path) -> None:
    refused(save(tmp_path / "scan.nii", grey_values()[:1]), "at least two slices")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_colour_image(tmp_path: Path, ending: str) -> None:
    colours = np.zeros((*SHAPE, 3), np.uint8)
    refused(save(tmp_path / f"scan{ending}", colours, vector=True), "3 values per voxel .a colour or vector image")


def test_complex_numbers(tmp_path: Path) -> None:
    refused(nifti(tmp_path / "scan.nii", grey_values().T.astype(np.complex64)), "complex numbers.*save the magnitude")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path: Path, ending: str, dtype: str, value: float) -> None:
    array = grey_values(dtype)
    array[3, 2, 1] = value
    refused(save(tmp_path / f"scan{ending}", array), "1 values that are NaN or infinite")


def test_values_too_large_for_float32(tmp_path: Path) -> None:
    array = grey_values("float64")
    array[0, 0, 0] = 1e300
    refused(save(tmp_path / "scan.nii", array), "1 values that are NaN or infinite")


def test_a_constant_scan(tmp_path: Path) -> None:
    refused(save(tmp_path / "scan.nii", np.full(SHAPE, 7, np.int16)), "same value .7")


def test_a_sheared_metaimage(tmp_path: Path) -> None:
    refused(save(tmp_path / "scan.mha", grey_values(), np.eye(3) + 0.3 * np.eye(3, k=1)), "sheared .*resample")


# Reading labels


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize(("largest", "dtype"), [(0, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16")])
def test_labels_come_in_the_smallest_type(
    tmp_path: Path, volume: Volume, ending: str, largest: int, dtype: str
) -> None:
    labels = np.zeros(SHAPE, np.int64)
    labels[1, 2, 3] = largest
    write_labels(tmp_path / f"labels{ending}", labels, volume)
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"labels{ending}"))).dtype == dtype
    read = read_labels(tmp_path / f"labels{ending}", volume)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_whole_numbers_of_any_type_are_labels(tmp_path: Path, volume: Volume, dtype: str) -> None:
    read = read_labels(save(tmp_path / "labels.nii.gz", painted(dtype)), volume)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, painted())


def not_labels(path: Path, volume: Volume, match: str) -> None:
    with pytest.raises(AnnotationError, match=match):
        read_labels(path, volume)


ENDINGS = pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])


@ENDINGS
@pytest.mark.parametrize("value", [0.5, 0.002, np.inf, -np.inf])
def test_a_float_annotation(tmp_path: Path, volume: Volume, ending: str, value: float) -> None:
    labels = painted("float32")
    labels[0, 0, 0] = value
    path = save(tmp_path / f"labels{ending}", labels)
    if ending.startswith(".nii") and np.isinf(value):
        with pytest.raises(InputError, match="holds 1 values that are NaN or infinite"):
            read_labels(path, volume)
        return
    not_labels(path, volume, f"float annotation.*{value:g}; labels must be whole numbers")


@ENDINGS
@pytest.mark.parametrize("value", [7014.9995, 0.9999999, 3.001, 65534.9992])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_just_beside_whole_numbers(
    tmp_path: Path, volume: Volume, ending: str, value: float, dtype: str
) -> None:
    labels = painted(dtype)
    labels[0, 0, 0] = value
    beside = labels[0, 0, 0] != np.rint(labels[0, 0, 0])
    path = save(tmp_path / f"labels{ending}", labels)
    told = pytest.warns(UserWarning, match=r"values beside whole numbers, such as .*rounded")
    with told if beside else nullcontext():
        read = read_labels(path, volume)
    assert read[0, 0, 0] == round(value)
    np.testing.assert_array_equal(read, np.rint(labels))


@ENDINGS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_where_nothing_was_drawn(tmp_path: Path, volume: Volume, ending: str, dtype: str) -> None:
    labels = painted(dtype)
    labels[labels == 0] = np.nan
    path = save(tmp_path / f"labels{ending}", labels)
    count = np.isnan(labels).sum()
    with pytest.warns(UserWarning, match=rf"{count} voxels that are NaN; they count as background"):
        np.testing.assert_array_equal(read_labels(path, volume), painted())


@pytest.mark.parametrize("head", [b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0", b"\x08\0\x05\0" + b"\0" * 200])
def test_a_dicom_file_as_labels(tmp_path: Path, volume: Volume, head: bytes) -> None:
    (tmp_path / "seg.dcm").write_bytes(head + b"\0" * 400)
    not_labels(
        tmp_path / "seg.dcm", volume, "is a DICOM file of modality unknown; a DICOM segmentation .SEG. was expected"
    )


def test_negative_labels(tmp_path: Path, volume: Volume) -> None:
    not_labels(save(tmp_path / "labels.nii", -painted("int16")), volume, "from -3 to 0; .*not a scan")


def test_labels_that_are_too_large(tmp_path: Path, volume: Volume) -> None:
    path = save(tmp_path / "labels.nii", painted("int32") * 30000)
    not_labels(path, volume, "from 0 to 90000; .*between 0 .background. and 65535.*Renumber")


def test_labels_of_another_shape(tmp_path: Path, volume: Volume) -> None:
    path = save(tmp_path / "labels.nii", painted()[:, :4])
    not_labels(path, volume, r"not on the scan's grid: shape \(6, 4, 4\) instead of \(6, 5, 4\) \(z, y, x\)\. Open")


def test_labels_of_another_spacing(tmp_path: Path, volume: Volume) -> None:
    path = save(tmp_path / "labels.nii", painted(), spacing=(0.8, 1.25, 7.51))
    not_labels(path, volume, r"grid: spacing \(7.51, 1.25, 0.8\) instead of \(7.5, 1.25, 0.8\) mm \(z, y, x\)\. Open")


def test_labels_of_another_origin(tmp_path: Path, volume: Volume) -> None:
    path = save(tmp_path / "labels.nii", painted(), origin=(12.5, -40.25, 101.02))
    not_labels(path, volume, r"grid: origin \(12.5, -40.25, 101.02\) instead of \(12.5, -40.25, 101\) mm\. Open")


def test_labels_of_another_direction(tmp_path: Path, volume: Volume) -> None:
    not_labels(save(tmp_path / "labels.nii", painted(), np.eye(3)), volume, r"grid: axes \(0, 0, 1, .*\) instead of")


def test_rounded_grids_are_the_same_grid(tmp_path: Path, volume: Volume) -> None:
    path = save(tmp_path / "labels.nii", painted(), OBLIQUE.round(5), origin=(12.5004, -40.25, 101.0))
    np.testing.assert_array_equal(read_labels(path, volume), painted())


# Writing


@pytest.mark.parametrize("ending", WRITABLE)
def test_a_map_is_written_as_float32(tmp_path: Path, volume: Volume, ending: str) -> None:
    values = np.random.default_rng(0).random(SHAPE)
    write_image(tmp_path / f"confidence{ending}", values, volume)
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"confidence{ending}")))
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, values.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_map_must_be_finite(tmp_path: Path, volume: Volume, value: float) -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        write_image(tmp_path / "confidence.nii.gz", np.full(SHAPE, value), volume)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", WRITABLE)
def test_labels_are_compressed(tmp_path: Path, ending: str) -> None:
    array = np.zeros((32, 32, 32), np.uint8)
    array[3, 4, 5] = 1
    write_labels(tmp_path / f"labels{ending}", array, Volume(array))
    size = (tmp_path / f"labels{ending}").stat().st_size
    assert size > 32**3 if ending == ".nii" else size < 32**3 / 10


def test_equal_labels_make_equal_files(tmp_path: Path, volume: Volume) -> None:
    write_labels(tmp_path / "a.nii.gz", painted(), volume)
    write_labels(tmp_path / "b.nii.gz", painted("int64"), volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX systems")
def test_a_file_has_the_mode_of_any_new_file(tmp_path: Path, volume: Volume) -> None:
    before = os.umask(0o027)
    try:
        write_labels(tmp_path / "labels.nii.gz", painted(), volume)
    finally:
        os.umask(before)
    assert (tmp_path / "labels.nii.gz").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("labels", [painted("float32"), -painted("int16"), painted("int64") * 2**32])
def test_what_is_no_label_is_not_written(tmp_path: Path, volume: Volume, labels: NDArray[np.generic]) -> None:
    with pytest.raises(InputError, match=r"Labels must (be integers|lie between)"):
        write_labels(tmp_path / "labels.nii.gz", labels, volume)
    assert not list(tmp_path.iterdir())


# Any grid


@st.composite
def grids(draw: st.DrawFn) -> Volume:
    """Scans of any size, spacing, position, axis order, flips and rotation, also ones close to a half turn."""
    shape = tuple(draw(st.lists(st.integers(2, 7), min_size=3, max_size=3)))
    spacing = tuple(draw(st.lists(st.floats(0.05, 12), min_size=3, max_size=3)))
    origin = tuple(draw(st.lists(st.floats(-900, 900), min_size=3, max_size=3)))
    order = draw(st.permutations(range(3)))
    flips = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3))
    angles = draw(st.lists(st.floats(-180, 180), min_size=3, max_size=3))
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ (np.eye(3)[:, order] * flips)
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return Volume(array, spacing, origin, direction, draw(st.sampled_from([None, 0, 1, 2])))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(volume=grids(), data=st.data(), ending=st.sampled_from(WRITABLE))
def test_a_voxel_stays_where_it_is(volume: Volume, data: st.DataObject, ending: str) -> None:
    index = tuple(data.draw(st.integers(0, size - 1)) for size in volume.array.shape)
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[index] = 1
    tolerance = 1e-6 * (1 + np.abs(position(volume, volume.array.shape)).max() + 10 * max(volume.spacing))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"labels{ending}"
        write_labels(path, labels, volume)
        image = sitk.ReadImage(str(path))
        found = [int(i) for i in np.argwhere(sitk.GetArrayFromImage(image))[0]]
        np.testing.assert_allclose(
            image.TransformIndexToPhysicalPoint(found[::-1]), position(volume, index), atol=tolerance
        )
        if ending.startswith(".nii"):
            written = nib.load(path)
            voxel = np.argwhere(np.asarray(written.dataobj))[0]
            # Close to a half turn, a quaternion in single precision loses half of its digits.
            turned = tolerance + 5e-4 * np.linalg.norm(np.multiply(volume.spacing, volume.array.shape))
            for affine, allowed in ((written.affine, tolerance), (written.get_qform(), turned)):
                np.testing.assert_allclose(LPS @ (affine @ [*voxel, 1])[:3], position(volume, index), atol=allowed)
        np.testing.assert_array_equal(read_labels(path, volume), labels)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(volume=grids(), axis=st.sampled_from([0, 1, 2]))
def test_slices_and_back_through_a_file(volume: Volume, axis: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save(
            Path(folder) / "scan.nii.gz",
            volume.array,
            volume.direction[:, ::-1],
            spacing=volume.spacing[::-1],
            origin=volume.origin,
        )
        scan = read_volume(Path(folder) / "scan.nii.gz", slice_axis=axis)
        labels = (scan.array % 5).astype(np.uint8)
        assert scan.slices.shape[0] == scan.n_slices == scan.array.shape[axis]
        np.testing.assert_array_equal(scan.slices[1], np.take(scan.array, 1, axis))
        np.testing.assert_array_equal(in_file_order(scan).array, volume.array)
        write_labels(Path(folder) / "labels.nii.gz", scan.from_slices(scan.to_slices(labels)), scan)
        np.testing.assert_array_equal(read_labels(Path(folder) / "labels.nii.gz", scan), labels)
