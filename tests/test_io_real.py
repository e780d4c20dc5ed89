"""Label files on the exact grid of real scans, as nibabel sees it; ONESEG_ALL_FILES=1 checks every file of all sets."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from napari_oneseg.dicom import FRAME_OF_REFERENCE, SERIES
from napari_oneseg.file_order import in_file_order
from napari_oneseg.io import read_labels, read_volume, write_labels

SETS = ("btcv_ct", "chaos_mr_t2", "ircadb_ct", "la_lge", "msd_hippocampus")
# Of these files SimpleITK alone would write other matrices: they come first.
ROUNDED = {"chaos_33.nii.gz", "chaos_21.nii.gz"}
HEADER_ENTRIES = [
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
]


def scans(folder: Path) -> list[Path]:
    """Return the scans of a set: all, or the first two and those that are known to be hard."""
    files = sorted(folder.glob("*/images/*.nii.gz"), key=lambda path: (path.name not in ROUNDED, path.name))
    assert files, f"no scans in {folder}"
    return files if os.environ.get("ONESEG_ALL_FILES") else files[:2]


@pytest.mark.parametrize("name", SETS)
def test_labels_have_the_scans_very_grid(data_dir: Path, tmp_path: Path, name: str) -> None:
    for scan in scans(data_dir / name):
        volume = read_volume(scan)
        labels = np.zeros(volume.array.shape, np.uint8)
        labels[1, 2, 3] = labels[-1, -1, -1] = 4
        stored = in_file_order(volume)
        written = tmp_path / "labels.nii.gz"
        write_labels(written, labels, volume)

        first, second = nib.load(scan), nib.load(written)
        for entry in HEADER_ENTRIES:
            np.testing.assert_array_equal(first.header[entry], second.header[entry], err_msg=f"{scan.name}: {entry}")
        np.testing.assert_array_equal(first.affine, second.affine)
        np.testing.assert_array_equal(first.get_qform(), second.get_qform())
        np.testing.assert_array_equal(np.asarray(second.dataobj).T, volume.to_file.apply(labels))
        assert second.get_data_dtype() == np.uint8

        one, two = sitk.ReadImage(str(scan)), sitk.ReadImage(str(written))
        assert one.GetSize() == two.GetSize()
        assert one.GetSpacing() == two.GetSpacing() == stored.spacing[::-1]
        assert one.GetOrigin() == two.GetOrigin() == stored.origin
        assert one.GetDirection() == two.GetDirection() == tuple(stored.direction[:, ::-1].ravel())


@pytest.mark.parametrize("name", SETS)
def test_expert_labels_are_on_their_scans_grid(data_dir: Path, name: str) -> None:
    for scan in scans(data_dir / name):
        volume = read_volume(scan)
        expert = scan.parents[1] / "labels" / scan.name
        labels = read_labels(expert, volume)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(volume.to_file.apply(labels).T, np.asarray(nib.load(expert).dataobj))


def test_a_dicom_series(data_dir: Path, tmp_path: Path) -> None:
    volume = read_volume(data_dir / "vs_seg_dicom")
    assert volume.array.shape == (24, 512, 512)
    assert volume.axis == 0
    np.testing.assert_allclose(volume.spacing, (1.5, 0.41015625, 0.41015625), rtol=1e-12)
    np.testing.assert_allclose(volume.origin, (-106.32680907019, -123.07443807356, -20.000669002533), rtol=1e-12)
    np.testing.assert_allclose(volume.direction, np.eye(3)[:, ::-1], atol=1e-9)
    assert list(volume.header) == [SERIES, FRAME_OF_REFERENCE], "no slice is missing"
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[1, 2, 3] = 1
    # NIfTI stores numbers in single precision: 4e-6 mm of this origin are lost.
    for ending, rounding in ((".mha", 0.0), (".nrrd", 1e-15), (".nii.gz", 1e-5)):
        written = tmp_path / f"labels{ending}"
        write_labels(written, labels, volume)
        image = sitk.ReadImage(str(written))
        assert image.GetSize() == volume.array.shape[::-1]
        np.testing.assert_allclose(image.GetSpacing(), volume.spacing[::-1], rtol=rounding, atol=0)
        np.testing.assert_allclose(image.GetOrigin(), volume.origin, rtol=0, atol=rounding)
        np.testing.assert_allclose(image.GetDirection(), volume.direction[:, ::-1].ravel(), rtol=0, atol=rounding)
        np.testing.assert_array_equal(read_labels(written, volume), labels)
