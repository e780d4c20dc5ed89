"""NIfTI headers and damaged files, written with nibabel."""

from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.processing import resample_to_output
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_oneseg import image_files
from napari_oneseg.errors import InputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.io import count_frames, read_volume, write_image, write_labels
from napari_oneseg.volume import Volume


def grey_values(shape: tuple[int, int, int] = (6, 5, 4)) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)


def painted(shape: tuple[int, int, int] = (6, 5, 4)) -> NDArray[np.uint8]:
    labels = np.zeros(shape, np.uint8)
    labels[1, 2, 3] = 3
    return labels


def save(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] | None = None) -> Path:
    nib.save(nib.Nifti1Image(array.T, np.eye(4) if affine is None else affine), path)
    return path


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_volume(path)


def test_scaled_values_are_scaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(grey_values().T, np.eye(4))
    image.header.set_slope_inter(-0.5, 10)
    with (tmp_path / "scan.nii").open("wb") as file:  # by hand: nibabel would fit the stored values to the slope
        file.write(image.header.binaryblock[:344] + b"n+1\0" + bytes(4))
        file.write(grey_values().tobytes())
    data = bytearray((tmp_path / "scan.nii").read_bytes())
    struct.pack_into("<f", data, 108, 352)
    (tmp_path / "scan.nii").write_bytes(data)
    np.testing.assert_allclose(stored(read_volume(tmp_path / "scan.nii")), 10 - 0.5 * grey_values())


def test_big_endian_files_keep_their_header(tmp_path: Path) -> None:
    image = nib.Nifti1Image(grey_values().T, np.diag([1.1, 2.2, 3.3, 1]), nib.Nifti1Header(endianness=">"))
    image.header["sform_code"] = 3
    nib.save(image, tmp_path / "scan.nii.gz")
    scan = read_volume(tmp_path / "scan.nii.gz")
    write_labels(tmp_path / "labels.nii.gz", scan.to_file.inverse.apply(painted()), scan)
    written = nib.load(tmp_path / "labels.nii.gz")
    assert written.header["sform_code"] == 3
    np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "scan.nii.gz").affine)


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
def test_a_truncated_compressed_file(tmp_path: Path, kept: float) -> None:
    path = save(tmp_path / "scan.nii.gz", grey_values((20, 20, 20)))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    refused(path, "scan.nii.gz is damaged or incomplete; copy or export it again")


def test_a_damaged_compressed_file(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", grey_values((20, 20, 20)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    refused(path, "scan.nii.gz is damaged or incomplete")


def oblique() -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -15, 35], degrees=True).as_matrix() * [-0.8, 1.25, 7.5]
    affine[:3, 3] = [12.5, -40.25, 101.0]
    return affine


def stored(volume: Volume) -> NDArray[np.generic]:
    """Grey values in the order of the file, (z, y, x)."""
    return in_file_order(volume).array


def affine_of(volume: Volume) -> NDArray[np.float64]:
    """Voxel (x, y, z) of the file to position in nibabel's frame."""
    volume = in_file_order(volume)
    axes = (volume.direction * volume.spacing)[:, ::-1]
    return np.diag([-1, -1, 1, 1]) @ np.vstack([np.column_stack([axes, volume.origin]), [0, 0, 0, 1]])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_nifti_2(tmp_path: Path, ending: str, order: str, dtype: str) -> None:
    image = nib.Nifti2Image(grey_values().T.astype(dtype), oblique(), nib.Nifti2Header(endianness=order))
    image.set_data_dtype(dtype)
    image.set_qform(oblique(), 1)
    image.set_sform(oblique(), 2)
    nib.save(image, tmp_path / f"scan{ending}")
    volume = read_volume(tmp_path / f"scan{ending}")
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(stored(volume), grey_values())
    np.testing.assert_allclose(affine_of(volume), oblique(), atol=1e-5)
    write_labels(tmp_path / "labels.nii.gz", volume.to_file.inverse.apply(painted()), volume)
    written = nib.load(tmp_path / "labels.nii.gz")
    assert isinstance(written, nib.Nifti1Image)
    assert (written.header["qform_code"], written.header["sform_code"]) == (1, 2)
    np.testing.assert_allclose(written.affine, oblique(), atol=1e-5)
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, painted())


def test_nifti_2_with_scaled_values(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(grey_values().T, np.eye(4)), tmp_path / "scan.nii")
    data = bytearray((tmp_path / "scan.nii").read_bytes())
    struct.pack_into("<2d", data, 176, -0.5, 10)
    (tmp_path / "scan.nii").write_bytes(data)
    np.testing.assert_allclose(stored(read_volume(tmp_path / "scan.nii")), 10 - 0.5 * grey_values())


def test_nifti_2_with_a_long_side(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(np.arange(80000, dtype=np.uint8).reshape(40000, 2, 1), np.eye(4)), tmp_path / "scan.nii")
    refused(tmp_path / "scan.nii", "sides of 40000 voxels; at most 32767 can be read")


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_truncated_nifti_2(tmp_path: Path, name: str) -> None:
    nib.save(nib.Nifti2Image(grey_values().T, np.eye(4)), tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    refused(tmp_path / name, "incomplete")


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAI", "PIR", "SRA", "ILP", "ASL"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_axes_in_any_order(tmp_path: Path, axes: str, kind: type[nib.Nifti1Image]) -> None:
    image = kind(grey_values().T, oblique())
    to = nib.orientations.axcodes2ornt(axes)
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), to))
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(stored(volume).T, np.asarray(image.dataobj))
    np.testing.assert_allclose(affine_of(volume), image.affine, atol=1e-4)


def test_half_a_turn_that_single_precision_cannot_tell(tmp_path: Path) -> None:
    """What is left of the quaternion's first number is rounding: it would shift voxels by a tenth of a millimetre."""
    affine = np.array([[-4.618, 0, 0, 60], [0, 0, -1.003, 220], [0, -0.487, 0, 270], [0, 0, 0, 1]])
    for angle in np.linspace(0, 2e-4, 40):
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        image = nib.Nifti1Image(np.arange(39 * 29 * 4, dtype=np.int16).reshape(39, 29, 4), None)
        image.set_qform(turn @ affine, 1)
        nib.save(image, tmp_path / "scan.nii")
        read_volume(tmp_path / "scan.nii")


@pytest.mark.parametrize(("qform", "sform", "used"), [(1, 0, "q"), (0, 2, "s"), (0, 1, "s"), (3, 0, "q")])
def test_one_of_the_two_places_is_enough(tmp_path: Path, qform: int, sform: int, used: str) -> None:
    image = nib.Nifti1Image(grey_values().T, np.eye(4))
    image.set_sform(oblique() if used == "s" else np.eye(4), sform)
    image.set_qform(oblique() if used == "q" else np.diag([0.8, 1.25, 7.5, 1]), qform)
    nib.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(affine_of(read_volume(tmp_path / "scan.nii")), oblique(), atol=1e-4)


@pytest.mark.parametrize(
    ("codes", "used"), [((1, 2), "qform"), ((2, 4), "qform"), ((1, 1), "sform"), ((3, 1), "sform")]
)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("flip", [False, True])
def test_two_places_that_contradict_each_other(
    tmp_path: Path, codes: tuple[int, int], used: str, kind: type[nib.Nifti1Image], flip: bool
) -> None:
    other = oblique() @ np.diag([-1, 1, 1, 1]) if flip else oblique() + np.array([[0] * 3 + [0.1]] + [[0] * 4] * 3)
    places = {used: oblique(), "sform" if used == "qform" else "qform": other}
    image = kind(grey_values().T, np.eye(4))
    image.set_qform(places["qform"], codes[0])
    image.set_sform(places["sform"], codes[1])
    nib.save(image, tmp_path / "scan.nii")
    by = "4.8" if flip else "0.1"
    with pytest.warns(UserWarning, match=rf"contradict each other by up to {by} mm: .form is used") as caught:
        volume = read_volume(tmp_path / "scan.nii")
    assert caught[0].filename == __file__
    said = "qform" if "qform is used" in str(caught[0].message) else "sform"
    # Of two that are mirrored, SimpleITK prefers the sform.
    assert said == ("sform" if flip else used)
    np.testing.assert_allclose(affine_of(volume), places[said], atol=1e-4)


def test_voxel_sizes_that_are_not_those_of_the_matrix(tmp_path: Path) -> None:
    image = nib.Nifti1Image(grey_values().T, np.eye(4))
    image.set_sform(oblique(), 1)
    image.set_qform(np.eye(4), 0)
    nib.save(image, tmp_path / "scan.nii")
    refused(tmp_path / "scan.nii", r"contradicts itself: its voxel sizes .pixdim. or axes are not those of its sform")


def test_places_that_agree_but_for_rounding(tmp_path: Path) -> None:
    image = nib.Nifti1Image(grey_values().T, oblique())
    image.set_qform(oblique(), 1)
    image.set_sform(oblique().round(3), 1)
    nib.save(image, tmp_path / "scan.nii")
    read_volume(tmp_path / "scan.nii")


def test_a_sheared_place_beside_a_straight_one(tmp_path: Path) -> None:
    sheared = oblique()
    sheared[0, 1] += 0.5
    image = nib.Nifti1Image(grey_values().T, oblique())
    image.set_qform(oblique(), 1)
    image.set_sform(sheared, 1)
    nib.save(image, tmp_path / "scan.nii")
    with pytest.warns(UserWarning, match="contradict each other by up to .* mm: qform is used, sform is not"):
        np.testing.assert_allclose(affine_of(read_volume(tmp_path / "scan.nii")), oblique(), atol=1e-4)


def test_a_fourth_axis_of_one_volume(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(grey_values().T[..., np.newaxis], oblique()), tmp_path / "scan.nii")
    np.testing.assert_array_equal(stored(read_volume(tmp_path / "scan.nii")), grey_values())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "header"), [(nib.Nifti1Image, nib.Nifti1Header), (nib.Nifti2Image, nib.Nifti2Header)])
def test_a_volume_of_four_dimensions(
    tmp_path: Path, ending: str, order: str, kind: type[nib.Nifti1Image], header: type[nib.Nifti1Header]
) -> None:
    volumes = np.stack([grey_values(), grey_values() + 7, 2 * grey_values()])
    image = kind(volumes.T, oblique(), header(endianness=order))
    image.set_qform(oblique(), 1)
    image.set_sform(oblique(), 2)
    image.header.set_zooms((*image.header.get_zooms()[:3], 2.5))
    image.header.set_xyzt_units("mm", "sec")
    path = tmp_path / f"scan{ending}"
    nib.save(image, path)
    for frame, array in enumerate(volumes):
        scan = read_volume(path, frame=frame)
        np.testing.assert_array_equal(stored(scan), array)
        np.testing.assert_allclose(affine_of(scan), oblique(), atol=1e-5)
        write_labels(tmp_path / "labels.nii.gz", scan.to_file.inverse.apply(painted()), scan)
        written = nib.load(tmp_path / "labels.nii.gz")
        assert written.header["dim"].tolist() == [3, 4, 5, 6, 1, 1, 1, 1]
        np.testing.assert_array_equal(np.asarray(written.dataobj).T, painted())
        np.testing.assert_allclose(written.affine, nib.load(path).affine, atol=1e-5)
        assert (written.header["qform_code"], written.header["sform_code"]) == (1, 2)


def test_the_volumes_beside_the_chosen_one_may_hold_anything(tmp_path: Path) -> None:
    volumes = np.stack([grey_values(), grey_values()]).astype(np.float32)
    volumes[1, 2, 3, 1] = np.nan
    path = save(tmp_path / "scan.nii", volumes)
    np.testing.assert_array_equal(stored(read_volume(path, frame=0)), grey_values())
    with pytest.raises(InputError, match="holds 1 values that are NaN or infinite"):
        read_volume(path, frame=1)


def test_of_many_volumes_only_one_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "scan.nii.gz", np.stack([grey_values()] * 9))
    monkeypatch.setattr(image_files, "LARGEST", grey_values().nbytes)
    np.testing.assert_array_equal(stored(read_volume(path, frame=8)), grey_values())
    monkeypatch.setattr(image_files, "LARGEST", grey_values().nbytes - 1)
    with pytest.raises(InputError, match="at most"):
        read_volume(path, frame=8)


def test_four_dimensions_of_which_the_last_is_cut_off(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", np.stack([grey_values()] * 3))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"incomplete .719 of 720 bytes"):
        read_volume(path, frame=0)


def test_colours(tmp_path: Path) -> None:
    colours = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), tmp_path / "scan.nii")
    refused(tmp_path / "scan.nii", "3 values per voxel .a colour or vector image")


def test_claims_of_a_huge_size_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(grey_values().T, np.eye(4)), tmp_path / "scan.nii.gz")
    data = bytearray(gzip.decompress((tmp_path / "scan.nii.gz").read_bytes()))
    struct.pack_into("<4h", data, 40, 3, 2000, 2000, 2000)
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(data))
    refused(tmp_path / "scan.nii.gz", "holds 14.9 GB of voxels; at most 2 GB can be read: crop")


@pytest.mark.parametrize("offset", [np.nan, np.inf, -1.0, 1e30])
def test_an_offset_that_is_none(tmp_path: Path, offset: float) -> None:
    path = save(tmp_path / "scan.nii", grey_values())
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 108, offset)
    path.write_bytes(content)
    refused(path, "damaged or incomplete")
    with contextlib.suppress(InputError):
        count_frames(path)


def test_a_sheared_nifti(tmp_path: Path) -> None:
    image = nib.Nifti1Image(grey_values().T, np.array([[0.8, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    nib.save(image, tmp_path / "scan.nii")
    refused(tmp_path / "scan.nii", "sheared .*axes are not perpendicular.*nibabel.processing.resample_to_output")


def test_what_is_said_to_straighten_a_sheared_nifti_does(tmp_path: Path) -> None:
    """The way that the message names, with the library that it names."""
    shape = (14, 16, 18)
    sheared = np.array([[0.8, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    z, y, x = np.indices(shape)
    image = nib.Nifti1Image((10 * z + 3 * y + 5 * x).astype(np.float32).T, sheared)
    nib.save(resample_to_output(image, (1, 1, 1), order=1), tmp_path / "straight.nii")
    scan = read_volume(tmp_path / "straight.nii")
    np.testing.assert_allclose(scan.spacing, (1, 1, 1))
    # Grey values that rise evenly with the position still do, wherever there was something to interpolate.
    inside = affine_of(scan) @ [7, 8, 7, 1]  # voxel (x, y, z) of the file
    there = np.linalg.solve(sheared, inside)[:3]
    assert stored(scan)[7, 8, 7] == pytest.approx(there @ [5, 3, 10], abs=0.05)


HEADER_ENTRIES = [
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
]


@pytest.mark.parametrize("codes", [(0, 2), (1, 0), (1, 1), (2, 4), (0, 0), (3, 1)])
@pytest.mark.parametrize("units", [0, 2, 10, 3])
def test_a_label_file_repeats_the_header(tmp_path: Path, codes: tuple[int, int], units: int) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -15, 35], degrees=True).as_matrix() * [-0.8, 1.25, 7.5]
    affine[:3, 3] = [12.5, -40.25, 101.0]
    image = nib.Nifti1Image(grey_values().T, affine)
    image.set_sform(affine, codes[1])
    image.set_qform(affine, codes[0])
    image.header["xyzt_units"] = units
    image.header["pixdim"][4:] = [2.5, 1, 1, 0]
    image.header["descrip"] = b"Secret^Name"
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    for name in ("labels.nii.gz", "labels.nii", "confidence.nii.gz"):
        if name.startswith("labels"):
            write_labels(tmp_path / name, painted(), volume)
        else:
            write_image(tmp_path / name, painted().astype(np.float32), volume)
        source, written = nib.load(tmp_path / "scan.nii.gz"), nib.load(tmp_path / name)
        for entry in HEADER_ENTRIES:
            np.testing.assert_array_equal(source.header[entry], written.header[entry], err_msg=entry)
        np.testing.assert_array_equal(source.affine, written.affine)
        np.testing.assert_array_equal(source.get_qform(), written.get_qform())
        assert b"Secret" not in written.header.binaryblock
        np.testing.assert_array_equal(np.asarray(written.dataobj).T, painted())
        first, second = sitk.ReadImage(str(tmp_path / "scan.nii.gz")), sitk.ReadImage(str(tmp_path / name))
        assert first.GetSpacing() == second.GetSpacing()
        assert first.GetOrigin() == second.GetOrigin()
        assert first.GetDirection() == second.GetDirection()


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", grey_values())
    path.write_bytes(path.read_bytes()[:-20])
    refused(path, "incomplete .220 of 240 bytes.; copy or export it again")


def test_bytes_after_the_voxels_are_no_voxels(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", grey_values().astype(np.float32))
    with path.open("ab") as file:
        file.write(np.full(7, np.nan, np.float32).tobytes() + b"!")
    np.testing.assert_array_equal(stored(read_volume(path)), grey_values())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_values_that_are_not_finite_are_counted(tmp_path: Path, ending: str, order: str) -> None:
    array = np.zeros((20, 200, 200), np.float32)  # more than one block
    array[0, 0, :3] = np.nan, np.inf, 1
    array[-1, -1, -1] = -np.inf
    nib.save(nib.Nifti1Image(array.T, np.eye(4), nib.Nifti1Header(endianness=order)), tmp_path / f"scan{ending}")
    refused(tmp_path / f"scan{ending}", "scan.* holds 3 values that are NaN or infinite. Replace them")
