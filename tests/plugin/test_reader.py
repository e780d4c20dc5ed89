"""napari opens files through the installed manifest, as File > Open does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from napari import Viewer
from napari.layers import Image, Labels
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from napari_oneseg.dicom_seg import write_dicom_seg
from napari_oneseg.errors import InputError
from napari_oneseg.image_formats import READABLE
from napari_oneseg.io import list_series, read_labels, read_volume, write_labels
from napari_oneseg.plugin import reader
from napari_oneseg.plugin.asking import Asking
from napari_oneseg.plugin.commands import widget_of
from napari_oneseg.plugin.reader import get_reader, read_layers
from napari_oneseg.plugin.scan_layer import labels_layer_kwargs, scan_of_layer
from tests.dicom_files import UID, enhanced, grey, save, save_series
from tests.plugin.layer_fixtures import DIRECTIONS, SHAPE, SPACING, grey_values, position, same_grid, save_scan, stored

PLUGIN = "napari-oneseg"
HEIGHTS = [0.0, 2.0, 4.0]
MakeViewer = Callable[[], Viewer]


def opened(viewer: Viewer, path: Path) -> Image | Labels:
    (layer,) = viewer.open(path, plugin=PLUGIN)
    return layer


def label_file(path: Path, values: NDArray[np.generic]) -> Path:
    array = np.zeros(SHAPE, values.dtype)
    array.flat[: values.size] = values
    return save_scan(path, DIRECTIONS["sagittal"], array)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_painted_at_a_point_found_at_that_point(make_napari_viewer: MakeViewer, tmp_path: Path, name: str) -> None:
    """From a file through the viewer to a file: same place, same grid, whatever the order of the axes."""
    path = save_scan(tmp_path / "scan.nii.gz", DIRECTIONS[name])
    viewer = make_napari_viewer()
    layer = opened(viewer, path)
    scan = scan_of_layer(layer)
    labels = viewer.add_labels(np.zeros(layer.data.shape, np.uint8), **labels_layer_kwargs(scan))

    voxel = (4, 1, 3)  # of the file
    there = position(path, voxel)
    index = np.linalg.solve(scan.shown.direction * scan.shown.spacing, there - scan.shown.origin)
    world = viewer.layers[0].data_to_world(np.round(index))
    labels.data_setitem(tuple(np.array([k]) for k in np.round(labels.world_to_data(world)).astype(int)), 3)

    out = tmp_path / "labels.nii.gz"
    write_labels(out, labels.data, scan.shown)
    same_grid(out, path)
    assert np.argwhere(sitk.GetArrayFromImage(sitk.ReadImage(str(out))) == 3).tolist() == [list(voxel)]
    np.testing.assert_array_equal(position(out, voxel), there)


def test_every_kind_of_file(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    for ending in READABLE:
        layer = opened(viewer, save_scan(tmp_path / f"my scan{ending}", DIRECTIONS["straight"]))
        assert isinstance(layer, Image)
        assert layer.name.startswith("my scan")
        assert "." not in layer.name
        np.testing.assert_array_equal(layer.data, grey_values())
        np.testing.assert_allclose(layer.scale, SPACING, rtol=1e-6)
        assert scan_of_layer(layer).path == tmp_path / f"my scan{ending}"


def test_a_real_scan(make_napari_viewer: MakeViewer, data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "chaos_mr_t2/dev/images/chaos_33.nii.gz"
    layer = opened(make_napari_viewer(), path)
    expected = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    np.testing.assert_array_equal(layer.data, sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(layer.scale, expected.GetSpacing()[::-1])
    scan = scan_of_layer(layer)
    labels = np.zeros(layer.data.shape, np.uint8)
    labels[20, 100, 50] = 1
    out = tmp_path / "labels.nii.gz"
    write_labels(out, labels, scan.shown)
    same_grid(out, path)
    (found,) = np.argwhere(stored(out) == 1)
    np.testing.assert_allclose(position(out, found), expected.TransformIndexToPhysicalPoint((50, 100, 20)), atol=1e-3)


def test_a_dicom_series(make_napari_viewer: MakeViewer, data_dir: Path, tmp_path: Path) -> None:
    layer = opened(make_napari_viewer(), data_dir / "vs_seg_dicom")
    assert layer.data.shape == (24, 512, 512)
    assert layer.name == "vs_seg_dicom"
    scan = scan_of_layer(layer)
    assert scan.path == data_dir / "vs_seg_dicom"
    labels = np.zeros(layer.data.shape, np.uint8)
    labels[3, 100, 50] = 1
    out = tmp_path / "labels.nii.gz"
    write_labels(out, labels, scan.shown)
    found = read_labels(out, scan.shown)
    assert np.argwhere(found == 1).tolist() == [[3, 100, 50]]
    np.testing.assert_allclose(read_volume(out).origin, scan.shown.origin, atol=1e-3)


# What is for this plugin


def test_folders_are_looked_into_briefly(data_dir: Path, tmp_path: Path) -> None:
    assert get_reader(str(data_dir / "vs_seg_dicom")) is not None
    assert get_reader(str(data_dir)) is not None, "one of its folders holds a series"
    assert get_reader(str(data_dir / "msd_hippocampus")) is None
    assert get_reader(str(tmp_path)) is None
    for index in range(40):
        (tmp_path / f"{index:02}.txt").write_text("no DICOM")
    assert get_reader(str(tmp_path)) is None


def test_a_study_is_claimed_by_what_lies_one_level_below(tmp_path: Path) -> None:
    study = tmp_path / "study"
    (study / "notes").mkdir(parents=True)
    (study / "notes" / "0").write_text("no DICOM")
    assert get_reader(str(study)) is None
    save_series(study / "T1", HEIGHTS)
    assert get_reader(str(study)) is not None
    assert get_reader(str(study / "notes")) is None
    assert get_reader(str(tmp_path)) is None, "two levels below is not looked at"


def test_a_dicom_file_is_claimed_by_what_is_in_it(tmp_path: Path) -> None:
    assert get_reader(str(save(enhanced(HEIGHTS), tmp_path / "scan.dcm"))) is not None
    (tmp_path / "other.dcm").write_bytes(bytes(500))
    assert get_reader(str(tmp_path / "other.dcm")) is None


def test_a_multi_frame_file(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    layer = opened(make_napari_viewer(), save(enhanced([4.0, 0.0, 2.0]), tmp_path / "scan.dcm"))
    assert (layer.name, layer.data.shape) == ("scan.dcm", (3, 5, 4))
    np.testing.assert_array_equal(layer.data, [grey(1), grey(2), grey(0)])
    np.testing.assert_allclose(layer.scale, (2, 0.75, 0.5))


def test_a_study_with_one_scan_and_a_scout(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    save_series(tmp_path / "T1", HEIGHTS)
    save_series(tmp_path / "scout", [0.0], SeriesInstanceUID=f"{UID}.2", SeriesNumber=1, SeriesDescription="scout")
    viewer = make_napari_viewer()
    with pytest.warns(UserWarning, match="'T1 axial', 3 slices is opened. Left out: 1: 'scout', 1 image"):
        layer = opened(viewer, tmp_path)
    np.testing.assert_array_equal(layer.data, [grey(index) for index in range(3)])


def test_the_segmentation_that_was_exported_is_no_second_series(
    make_napari_viewer: MakeViewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the folder of the series itself, as an archive would have it."""
    folder = save_series(tmp_path / "series", HEIGHTS, FrameOfReferenceUID=f"{UID}.8", StudyDate="20200101")
    scan = read_volume(folder)
    labels = np.zeros(scan.array.shape, np.uint8)
    labels[1, 2, 3] = 1
    write_dicom_seg(folder / "labels.dcm", labels, scan, folder, {})
    assert len(list_series(folder)) == 1
    np.testing.assert_array_equal(opened(make_napari_viewer(), folder).data, scan.array)
    said: list[str] = []
    monkeypatch.setattr(reader, "show_error", said.append)
    assert reader._read(str(folder / "labels.dcm")) == [(None,)]
    assert said == [
        (
            "labels.dcm holds no images of a scan; segmentations, doses and reports cannot be opened. Give the scan "
            "that it belongs to; a segmentation can be given with it, as its annotation."
        )
    ]


@pytest.mark.parametrize("kind", ["study", "time series"])
def test_of_several_scans_the_widget_asks_which(
    make_napari_viewer: MakeViewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot, kind: str
) -> None:
    """napari FOLDER, or a file of several volumes: the dock comes up by itself, and asks."""
    if kind == "study":
        path = save_series(tmp_path / "study" / "a", HEIGHTS).parent
        save_series(path / "b", HEIGHTS, SeriesInstanceUID=f"{UID}.2", SeriesDescription="T2")
    else:
        path = tmp_path / "scan.nii"
        nib.save(nib.Nifti1Image(np.stack([grey_values().T] * 3, axis=-1), np.eye(4)), path)
    asked: list[list[str]] = []
    monkeypatch.setattr(Asking, "which", lambda _self, _question, texts, _shown: asked.append(texts))
    monkeypatch.setattr(reader, "show_error", pytest.fail)
    viewer = make_napari_viewer()
    assert viewer.open(path, plugin=PLUGIN) == []
    qtbot.waitUntil(lambda: bool(asked), timeout=20_000)
    assert len(asked[0]) == {"study": 2, "time series": 3}[kind]
    widget_of(viewer).shut_down()


def test_without_a_window_several_scans_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_series(tmp_path, HEIGHTS)
    save_series(tmp_path, HEIGHTS, SeriesInstanceUID=f"{UID}.2", SeriesDescription="T2")
    said: list[str] = []
    monkeypatch.setattr(reader, "show_error", said.append)
    monkeypatch.setattr(reader, "current_viewer", lambda: None)
    assert reader._read(str(tmp_path)) == [(None,)]
    assert "holds 2 DICOM series" in said[0]


def test_other_paths_are_left_to_others(tmp_path: Path) -> None:
    assert get_reader("scan.tif") is None
    assert get_reader(["a.nii", "b.nii"]) is None
    assert get_reader(["a.nii"]) is not None
    assert get_reader("A.NII.GZ") is not None
    assert get_reader(str(tmp_path / "missing")) is None


def test_a_damaged_file_is_explained(
    make_napari_viewer: MakeViewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"no scan")
    viewer = make_napari_viewer()
    said: list[str] = []
    monkeypatch.setattr(reader, "show_error", said.append)
    assert viewer.open(path, plugin=PLUGIN) == []
    assert said == ["scan.nii.gz is not a NIfTI file, though its name says so; give the original file."]
    with pytest.raises(InputError, match="not a NIfTI file"):
        read_layers(path)


# Labels


@pytest.mark.parametrize(
    ("name", "values", "are_labels"),
    [
        pytest.param("chaos.nii.gz", np.array([1, 2, 4], np.int16), True, id="few values"),
        pytest.param("chaos.nii.gz", np.arange(60, dtype=np.uint8), False, id="many values"),
        pytest.param("chaos_labels.nii.gz", np.arange(60, dtype=np.uint8), True, id="many values, named"),
        pytest.param("Seg-3.nii.gz", np.arange(60, dtype=np.float32), True, id="whole floats, named"),
        pytest.param("segment.nii.gz", np.arange(60, dtype=np.uint8), False, id="another word"),
        pytest.param("mask.nii.gz", np.array([0.5, 1.0], np.float32), False, id="a probability map"),
        pytest.param("mask.nii.gz", np.array([-1, 1], np.int16), False, id="negative"),
    ],
)
def test_what_is_opened_as_labels(tmp_path: Path, name: str, values: NDArray[np.generic], are_labels: bool) -> None:
    ((_, _, kind),) = read_layers(str(label_file(tmp_path / name, values)))
    assert kind == ("labels" if are_labels else "image")


def test_a_scan_in_a_file_named_so_stays_a_scan(tmp_path: Path) -> None:
    ((_, _, kind),) = read_layers(str(save_scan(tmp_path / "to_label.nii.gz", np.eye(3), grey_values((9, 9, 9)))))
    assert kind == "image"


def test_labels_lie_on_their_scan(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    values = np.arange(9, dtype=np.uint8)
    viewer = make_napari_viewer()
    scan = opened(viewer, save_scan(tmp_path / "scan.nii.gz", DIRECTIONS["sagittal"]))
    labels = opened(viewer, label_file(tmp_path / "seg.nii.gz", values))
    assert isinstance(labels, Labels)
    assert labels.data.shape == scan.data.shape
    np.testing.assert_allclose(labels.scale, scan.scale)
    assert labels.units == scan.units
    assert labels.data.dtype == np.uint8
    labels.data_setitem((np.array([0]), np.array([0]), np.array([0])), 7)
    source = scan_of_layer(scan)
    np.testing.assert_array_equal(source.shown.to_file.apply(labels.data).ravel()[1:9], values[1:])
