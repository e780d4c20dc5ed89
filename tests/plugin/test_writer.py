"""File > Save Selected Layer, through the installed manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from napari import Viewer
from napari.layers import Labels

from napari_oneseg.errors import OutputError
from napari_oneseg.image_formats import WRITABLE
from napari_oneseg.io import read_volume
from napari_oneseg.plugin.scan_layer import labels_layer_kwargs, scan_of_layer
from tests.plugin.layer_fixtures import DIRECTIONS, SHAPE, SPACING, same_grid, save_scan

PLUGIN = "napari-oneseg"
MakeViewer = Callable[[], Viewer]


def painted(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    array = np.zeros(shape, np.int32)
    array[1, 2, 3] = 300
    return array


def test_a_layer_tied_to_a_scan_is_saved_on_the_scan_s_grid(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    path = save_scan(tmp_path / "scan.nii.gz", DIRECTIONS["oblique sagittal"])
    viewer = make_napari_viewer()
    (layer,) = viewer.open(path, plugin=PLUGIN)
    scan = scan_of_layer(layer)
    viewer.add_labels(painted(layer.data.shape), name="organs", **labels_layer_kwargs(scan))
    for ending in WRITABLE:
        out = tmp_path / f"out{ending}"
        assert viewer.layers["organs"].save(str(out), plugin=PLUGIN) == [str(out)]
        written = read_volume(out)
        assert written.array.dtype == np.uint16
        np.testing.assert_array_equal(written.array, painted(layer.data.shape))
        np.testing.assert_allclose(written.origin, scan.shown.origin, atol=1e-4)
        np.testing.assert_allclose(written.direction, scan.shown.direction, atol=1e-6)
    same_grid(tmp_path / "out.nii.gz", path)
    same_grid(tmp_path / "out.nii", path)


def test_a_label_file_comes_back_as_it_was(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    path = save_scan(tmp_path / "seg.nii.gz", DIRECTIONS["oblique"], painted().astype(np.uint16))
    viewer = make_napari_viewer()
    (layer,) = viewer.open(path, plugin=PLUGIN)
    assert isinstance(layer, Labels)
    layer.save(str(tmp_path / "again.nii.gz"), plugin=PLUGIN)
    same_grid(tmp_path / "again.nii.gz", path)
    np.testing.assert_array_equal(read_volume(tmp_path / "again.nii.gz").array, painted())


@pytest.mark.parametrize("empty", [False, True])
def test_any_other_layer_is_saved_on_its_own_grid(make_napari_viewer: MakeViewer, tmp_path: Path, empty: bool) -> None:
    viewer = make_napari_viewer()
    data = painted() * (not empty)
    viewer.add_labels(data, name="organs", scale=SPACING, translate=(3, 2, 1))
    out = tmp_path / "out.nii.gz"
    viewer.layers.save(str(out), plugin=PLUGIN)
    written = sitk.ReadImage(str(out))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), data)
    np.testing.assert_allclose(written.GetSpacing(), SPACING[::-1], rtol=1e-6)
    np.testing.assert_allclose(written.GetOrigin(), (1, 2, 3))


def test_a_cropped_layer_does_not_take_the_scan_s_grid(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    path = save_scan(tmp_path / "scan.nii.gz", DIRECTIONS["oblique"])
    viewer = make_napari_viewer()
    (layer,) = viewer.open(path, plugin=PLUGIN)
    viewer.add_labels(painted(), name="organs", **labels_layer_kwargs(scan_of_layer(layer)))
    viewer.layers["organs"].data = painted()[1:]
    viewer.layers["organs"].save(str(tmp_path / "out.nii.gz"), plugin=PLUGIN)
    assert read_volume(tmp_path / "out.nii.gz").array.shape == (5, 5, 4)


@pytest.mark.parametrize("leading", [(1,), (1, 1)])
def test_axes_of_length_one_are_left_aside(
    make_napari_viewer: MakeViewer, tmp_path: Path, leading: tuple[int, ...]
) -> None:
    """One time point, one channel: as docs/formats.md says."""
    layer = make_napari_viewer().add_labels(
        painted().reshape(*leading, *SHAPE), name="organs", scale=(*leading, *SPACING), translate=(*leading, 3, 2, 1)
    )
    layer.save(str(tmp_path / "out.nii.gz"), plugin=PLUGIN)
    written = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), painted())
    np.testing.assert_allclose((*written.GetSpacing(), *written.GetOrigin()), (*SPACING[::-1], 1, 2, 3), rtol=1e-6)


def test_a_2d_layer_is_explained(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    layer = make_napari_viewer().add_labels(painted()[1], name="organs")
    with pytest.raises(OutputError, match="'organs' is a single 2D image"):
        layer.save(str(tmp_path / "out.nii.gz"), plugin=PLUGIN)
    assert list(tmp_path.iterdir()) == []
