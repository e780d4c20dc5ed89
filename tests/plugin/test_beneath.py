"""Layers that remember no scan: they lie in the patient where the scan beneath them lies, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari import Viewer
from napari.layers import Image, Labels
from nibabel.affines import apply_affine

from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.plugin.beneath import record_beneath
from napari_oneseg.plugin.scan_layer import describe_layer, scan_of_layer
from tests.plugin.layer_fixtures import (
    DIRECTIONS,
    SPACING,
    grey_values,
    napari_nifti_layer,
    position,
    same_grid,
    save_scan,
)

PLUGIN = "napari-oneseg"
MakeViewer = Callable[[], Viewer]
AT = (3, 2, 1)


def opened(viewer: Viewer, path: Path) -> Image:
    (layer,) = viewer.open(path, plugin=PLUGIN)
    return layer


def place_of(path: Path) -> np.ndarray:
    """Where the one labelled voxel of a label file lies in the patient, by nibabel, in LPS."""
    image = nib.load(path)
    (index,) = np.argwhere(np.asarray(image.dataobj))
    return apply_affine(image.affine, index) * (-1, -1, 1)


def place_in(scan: Image, path: Path, index: tuple[int, ...]) -> np.ndarray:
    """Where a voxel of a scan's layer lies in the patient, by SimpleITK and the grey value, which is there once."""
    values = nib.load(path).get_fdata().transpose(2, 1, 0)
    (found,) = np.argwhere(values == scan.data[index])
    return position(path, found)


def numbered(path: Path, direction: str) -> Path:
    """A scan whose grey values are all different."""
    shape = grey_values().shape
    return save_scan(
        path,
        DIRECTIONS[direction],
        np.random.default_rng(1).permutation(np.prod(shape)).reshape(shape).astype(np.int16),
    )


@pytest.mark.parametrize("direction", ["straight", "flipped", "sagittal", "oblique", "oblique sagittal"])
@pytest.mark.parametrize("made", ["button", "duplicate of it", "plain array", "cropped", "every second", "finer"])
def test_labels_are_saved_where_the_scan_beneath_them_is(
    make_napari_viewer: MakeViewer, tmp_path: Path, direction: str, made: str
) -> None:
    viewer, path = make_napari_viewer(), numbered(tmp_path / "scan.nii.gz", direction)
    scan = opened(viewer, path)
    scale, at = np.asarray(scan.scale), AT
    if made in ("button", "duplicate of it"):
        viewer.layers.selection.active = scan
        viewer._new_labels()
        labels = viewer.layers[-1]
        if made == "duplicate of it":
            from napari.layers._layer_actions import _duplicate_layer

            viewer.layers.selection.active = labels
            _duplicate_layer(viewer.layers)
            labels = viewer.layers[f"{labels.name} copy"]
    elif made == "plain array":
        labels = viewer.add_labels(np.zeros(scan.data.shape, int), scale=scale)
    elif made == "cropped":
        labels = viewer.add_labels(
            np.zeros(tuple(side - 1 for side in scan.data.shape), int), scale=scale, translate=scale
        )
        at = tuple(k - 1 for k in AT)
    elif made == "every second":
        shape = tuple(side // 2 + 1 for side in scan.data.shape)
        labels = viewer.add_labels(np.zeros(shape, int), scale=2 * scale, translate=scale * (1, 0, 1))
        at = (1, 1, 0)
    else:
        shape = tuple(3 * side for side in scan.data.shape)
        labels = viewer.add_labels(np.zeros(shape, int), scale=scale / 3, translate=-scale / 3)
        at = tuple(3 * k + 1 for k in AT)
    labels.data[at] = 1
    out = tmp_path / "out.nii.gz"
    labels.save(str(out), plugin=PLUGIN)
    np.testing.assert_allclose(place_of(out), place_in(scan, path, AT), atol=1e-3)
    if made in ("button", "duplicate of it", "plain array"):
        same_grid(out, path)


@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0), (4.0, 0.5, 0.7)])
def test_a_scan_that_was_scaled_has_its_first_voxel_where_it_was(
    make_napari_viewer: MakeViewer, tmp_path: Path, scale: tuple[float, ...]
) -> None:
    viewer, path = make_napari_viewer(), numbered(tmp_path / "scan.nii.gz", "oblique sagittal")
    layer = opened(viewer, path)
    first = place_in(layer, path, (0, 0, 0))
    layer.scale = scale
    scan = scan_of_layer(layer)
    assert scan.shown.spacing == pytest.approx(scale)
    assert scan.shown.origin == pytest.approx(first, abs=1e-3)
    assert "scaled" in scan.note
    assert in_file_order(scan.shown).array.shape == nib.load(path).shape[::-1], "in the order of the file"
    viewer.layers.selection.active = layer
    viewer._new_labels()
    viewer.layers[-1].data[0, 0, 0] = 1
    viewer.layers[-1].save(str(tmp_path / "out.nii.gz"), plugin=PLUGIN)
    np.testing.assert_allclose(place_of(tmp_path / "out.nii.gz"), first, atol=1e-3)
    np.testing.assert_allclose(sorted(nib.load(tmp_path / "out.nii.gz").header.get_zooms()), sorted(scale), rtol=1e-5)


@pytest.mark.parametrize("derived", ["filtered", "cropped", "coarser"])
def test_an_image_that_was_derived_from_a_scan_is_opened_where_the_scan_is(
    make_napari_viewer: MakeViewer, tmp_path: Path, derived: str
) -> None:
    viewer, path = make_napari_viewer(), numbered(tmp_path / "scan.nii.gz", "oblique")
    scan = opened(viewer, path)
    scale, data = np.asarray(scan.scale), np.asarray(scan.data, float)
    layer = {
        "filtered": lambda: viewer.add_image(data**0.5, scale=scale),
        "cropped": lambda: viewer.add_image(data[2:], scale=scale, translate=scale * (2, 0, 0)),
        "coarser": lambda: viewer.add_image(data[1::2], scale=scale * (2, 1, 1), translate=scale * (1, 0, 0)),
    }[derived]()
    at = {"filtered": AT, "cropped": (1, 2, 1), "coarser": (1, 2, 1)}[derived]
    shown = describe_layer(layer, record_beneath(layer, viewer.layers)).frame @ (*at, 1)
    np.testing.assert_allclose(shown[:3], place_in(scan, path, AT), atol=1e-3)


def test_labels_on_a_scan_of_napari_nifti(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    viewer, path = make_napari_viewer(), numbered(tmp_path / "scan.nii.gz", "oblique")
    scan = viewer.add_layer(napari_nifti_layer(path))
    viewer.layers.selection.active = scan
    viewer._new_labels()
    viewer.layers[-1].data[AT] = 1
    viewer.layers[-1].save(str(tmp_path / "out.nii.gz"), plugin=PLUGIN)
    np.testing.assert_allclose(place_of(tmp_path / "out.nii.gz"), place_in(scan, path, AT), atol=1e-3)


def test_labels_on_several_scans_or_on_none_are_refused(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    first = opened(viewer, numbered(tmp_path / "first.nii.gz", "oblique"))
    opened(viewer, numbered(tmp_path / "second.nii.gz", "straight"))
    small = viewer.add_labels(np.ones((2, 2, 2), int), scale=SPACING, name="small")
    with pytest.raises(OutputError, match="lies on 'first' and 'second', which lie differently"):
        small.save(str(tmp_path / "out.nii.gz"), plugin=PLUGIN)
    with pytest.raises(InputError, match="lies on"):
        record_beneath(small, viewer.layers)
    small.translate = (0, 900, 0)
    with pytest.raises(OutputError, match="'small' lies beside 'first' and 'second'"):
        small.save(str(tmp_path / "out.nii.gz"), plugin=PLUGIN)
    assert not (tmp_path / "out.nii.gz").exists()
    assert record_beneath(first, viewer.layers) is None, "it knows its place itself"


def test_of_two_scans_the_one_with_the_same_voxels_is_meant(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    path = numbered(tmp_path / "first.nii.gz", "oblique")
    first = opened(viewer, path)
    opened(viewer, save_scan(tmp_path / "second.nii.gz", DIRECTIONS["straight"], grey_values((9, 9, 9))))
    labels: Labels = viewer.add_labels(np.zeros(first.data.shape, int), scale=first.scale)
    labels.data[AT] = 1
    labels.save(str(tmp_path / "out.nii.gz"), plugin=PLUGIN)
    same_grid(tmp_path / "out.nii.gz", path)
