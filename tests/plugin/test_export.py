from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from napari.layers import Image

from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.io import read_labels, read_volume
from napari_oneseg.plugin import export
from napari_oneseg.plugin.export import export_labels, is_dicom, propose_export_path, record_path
from napari_oneseg.plugin.scan_layer import OpenScan, describe_layer, open_snapshot, scan_layer_data, stamp_of
from napari_oneseg.provenance import scan_record
from tests.dicom_files import enhanced, grey, put_pixels, save, save_series
from tests.plugin.layer_fixtures import DIRECTIONS, same_grid, save_scan

RECORD = {
    "painted": [2],
    "confidence": [0.5, float("nan"), np.float32(0.25)],
    "label_names": {"1": "Liver", "4": "Spleen"},
    "label_colours": {"1": [1.0, 0.5, 0.0, 1.0]},
    "labels": {1: {"volume_ml": 99.0}},
}


@pytest.fixture(params=["oblique sagittal", "upside down"])
def scan(tmp_path: Path, request: pytest.FixtureRequest) -> OpenScan:
    path = save_scan(tmp_path / "scan.nii.gz", DIRECTIONS[request.param])
    return OpenScan(read_volume(path), name="scan", path=path, stamp=stamp_of(path))


def labels_on(scan: OpenScan) -> np.ndarray:
    labels = np.zeros(scan.shown.array.shape, np.uint8)
    view = scan.shown.to_slices(labels)
    view[1, 0, 0] = view[3, 1, 1] = 1
    view[2, 2, 2] = 7
    return labels


def test_labels_and_record(scan: OpenScan, tmp_path: Path) -> None:
    out = tmp_path / "result.nii.gz"
    export_labels(out, labels_on(scan), scan, RECORD)
    same_grid(out, tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(read_labels(out, scan.shown), labels_on(scan))

    record = json.loads((tmp_path / "result.json").read_text())
    assert record["painted"] == [2]
    assert record["confidence"] == [0.5, None, 0.25]
    assert record["labels"] == {
        "1": {"name": "Liver", "colour": "#ff8000", "voxels": 2, "volume_ml": pytest.approx(0.015), "slices": [1, 3]},
        "4": {"name": "Spleen", "colour": None, "voxels": 0, "volume_ml": 0, "slices": None},
        "7": {"name": "", "colour": None, "voxels": 1, "volume_ml": pytest.approx(0.0075), "slices": [2, 2]},
    }
    assert record["export"]["file"] == "result.nii.gz"
    assert record["export"]["shape"] == [6, 5, 4]
    assert record["export"]["scan_sha256"] == scan.shown.content_hash
    assert str(tmp_path) not in json.dumps(record), "the record names no folder"


def test_the_record_says_where_its_slices_are_in_the_file(scan: OpenScan, tmp_path: Path) -> None:
    out = tmp_path / "result.nii.gz"
    export_labels(out, labels_on(scan), scan, RECORD | {"scan": scan_record(scan.shown)})
    record = json.loads((tmp_path / "result.json").read_text())
    data = np.asarray(nibabel.load(out).dataobj)
    first, last = (record["scan"]["file_index"][index] for index in record["labels"]["1"]["slices"])
    assert sorted(np.unique(np.nonzero(data == 1)[record["scan"]["file_axis"]])) == sorted([first, last])


def test_an_older_pair_stays_whole_if_the_labels_cannot_be_written(
    scan: OpenScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "result.nii.gz"
    export_labels(out, labels_on(scan), scan, RECORD)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(export, "write_labels", full)
    with pytest.raises(OutputError, match="full"):
        export_labels(out, labels_on(scan) * 0, scan, {})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_record_that_cannot_be_written_leaves_no_labels(scan: OpenScan, tmp_path: Path) -> None:
    out = tmp_path / "result.nii.gz"
    with pytest.raises(TypeError):
        export_labels(out, labels_on(scan), scan, {"engine": object()})
    (tmp_path / "result.json").mkdir()
    with pytest.raises(OutputError, match="json beside it is a folder"):
        export_labels(out, labels_on(scan), scan, RECORD)
    assert not out.exists()
    with pytest.raises(InputError, match="shape"):
        export_labels(tmp_path / "other.nii.gz", np.zeros((2, 2, 2), np.uint8), scan, RECORD)
    with pytest.raises(OutputError, match="must end in"):
        export_labels(tmp_path / "other.tif", labels_on(scan), scan, RECORD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "scan.nii.gz"]


def test_the_proposed_name(scan: OpenScan, tmp_path: Path) -> None:
    assert propose_export_path(scan) == tmp_path / "scan_labels.nii.gz"
    series = OpenScan(scan.shown, "scan", tmp_path / "series.1")
    assert propose_export_path(series) == tmp_path / "series.1_labels.nii.gz"
    no_file = OpenScan(scan.shown, "My scan: 1/2 [1]")
    assert propose_export_path(no_file) == Path.home() / "My_scan_1_2_1_labels.nii.gz"
    nameless = OpenScan(scan.shown, "../..")
    assert propose_export_path(nameless) == Path.home() / "scan_labels.nii.gz"


@pytest.mark.parametrize("name", ["a.b.nii.gz", "a.b.NII", "a.b.nrrd", "a.b.mha"])
def test_the_record_has_the_label_file_s_name(name: str) -> None:
    assert record_path(Path("x") / name) == Path("x") / "a.b.json"


def test_a_dicom_series_gets_a_dicom_segmentation(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "vs_seg_dicom"
    data, kwargs, _ = scan_layer_data(read_volume(folder), "series")
    scan = open_snapshot(replace(describe_layer(Image(data, **kwargs)), path=folder))
    assert is_dicom(scan)
    labels = np.zeros(scan.shown.array.shape, np.uint8)
    labels[4:8, 100:140, 120:180] = 3
    record = {"label_names": {"3": "Liver"}, "label_colours": {"3": [1.0, 0.5, 0.0, 1.0]}}
    export_labels(tmp_path / "out.dcm", labels, scan, record)
    written = pydicom.dcmread(tmp_path / "out.dcm")
    assert written.SegmentSequence[0].SegmentLabel == "Liver"
    assert written.NumberOfFrames == 4
    assert json.loads((tmp_path / "out.json").read_text())["labels"]["3"]["name"] == "Liver"
    beside = replace(scan, path=None)
    with pytest.raises(OutputError, match="DICOM series"):
        export_labels(tmp_path / "none.dcm", labels, beside, record)
    assert not (tmp_path / "none.json").exists()


def test_an_nrrd_names_its_labels_as_slicer_reads_them(scan: OpenScan, tmp_path: Path) -> None:
    export_labels(tmp_path / "out.seg.nrrd", labels_on(scan), scan, RECORD)
    image = SimpleITK.ReadImage(str(tmp_path / "out.seg.nrrd"))
    assert image.GetMetaData("Segment0_Name") == "Liver"
    assert image.GetMetaData("Segment0_LabelValue") == "1"
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), scan.shown.to_file.apply(labels_on(scan)))


# A scan that is not as it was ------------------------------------------------------------------------------------


HEIGHTS, FRAME = [0.0, 2.0, 4.0, 6.0], "1.2.3.4"


def opened_from(path: Path) -> OpenScan:
    """Open a file or folder as the widget does."""
    data, kwargs, _ = scan_layer_data(read_volume(path), "scan")
    return open_snapshot(replace(describe_layer(Image(data, **kwargs)), path=path))


def other_values() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1000, (6, 5, 4)).astype(np.int16)


@pytest.mark.parametrize("what", ["deleted", "replaced", "replaced by another grid", "damaged"])
def test_labels_lie_on_the_scan_as_it_was_opened(scan: OpenScan, tmp_path: Path, what: str) -> None:
    assert scan.path is not None
    kept = tmp_path / "kept.nii.gz"
    kept.write_bytes(scan.path.read_bytes())
    scan.path.unlink()
    if what == "damaged":
        scan.path.write_bytes(kept.read_bytes()[:50])
    elif what != "deleted":
        direction = np.asarray(scan.shown.direction)[:, ::-1] if what == "replaced" else DIRECTIONS["coronal"]
        save_scan(scan.path, direction, other_values())
    out = tmp_path / "result.nii.gz"
    with pytest.warns(UserWarning, match=r"scan\.nii\.gz was changed, replaced or removed after it was opened"):
        export_labels(out, labels_on(scan), scan, RECORD)
    same_grid(out, kept)
    np.testing.assert_array_equal(read_labels(out, scan.shown), labels_on(scan))


def test_a_scan_that_was_only_copied_again_is_the_same(scan: OpenScan, tmp_path: Path) -> None:
    assert scan.path is not None
    content = scan.path.read_bytes()
    scan.path.unlink()
    scan.path.write_bytes(content)
    os.utime(scan.path, (1, 1))
    assert stamp_of(scan.path) != scan.stamp
    export_labels(tmp_path / "result.nii.gz", labels_on(scan), scan, RECORD)


@pytest.fixture
def series(tmp_path: Path) -> OpenScan:
    return opened_from(save_series(tmp_path / "series", HEIGHTS, FrameOfReferenceUID=FRAME))


def one_label(scan: OpenScan) -> np.ndarray:
    labels = np.zeros(scan.shown.array.shape, np.uint8)
    labels[1, 2, 2] = 1
    return labels


@pytest.mark.parametrize("whole", [True, False])
def test_a_multi_frame_file_gets_a_dicom_segmentation(tmp_path: Path, whole: bool) -> None:
    dataset = enhanced(HEIGHTS)
    dataset.FrameOfReferenceUID = FRAME
    path = save(dataset, tmp_path / "scan" / "scan.dcm")
    opened = opened_from(path if whole else path.parent)
    export_labels(tmp_path / "out.dcm", one_label(opened), opened, RECORD)
    (entry,) = pydicom.dcmread(tmp_path / "out.dcm").PerFrameFunctionalGroupsSequence
    (image,) = entry.DerivationImageSequence[0].SourceImageSequence
    assert (image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber) == (dataset.SOPInstanceUID, 2)


def another_patient(dataset: pydicom.Dataset) -> None:
    dataset.PatientID, dataset.SOPInstanceUID = "other", dataset.SOPInstanceUID + ".9"
    put_pixels(dataset, grey(dataset.InstanceNumber + 50))


@pytest.mark.parametrize("what", ["deleted", "another patient", "fewer"])
def test_a_dicom_segmentation_refers_to_no_other_images(series: OpenScan, tmp_path: Path, what: str) -> None:
    """Nothing but the grey values tells two scans of the same protocol apart."""
    assert series.path is not None
    export_labels(tmp_path / "before.dcm", one_label(series), series, RECORD)
    files = sorted(series.path.iterdir())
    if what == "fewer":
        files[-1].unlink()
    else:
        shutil.rmtree(series.path)
    if what == "another patient":
        save_series(series.path, HEIGHTS, another_patient, FrameOfReferenceUID=FRAME)
    with pytest.raises(OutputError, match=r"result\.dcm was not written: .* are gone or were changed\. Put them back"):
        export_labels(tmp_path / "result.dcm", one_label(series), series, RECORD)
    with pytest.warns(UserWarning, match="series was changed"):
        export_labels(tmp_path / "result.nii.gz", one_label(series), series, RECORD)
    assert sorted(path.name for path in tmp_path.glob("result*")) == ["result.json", "result.nii.gz"]


def test_other_files_in_the_folder_of_a_series_change_nothing(series: OpenScan, tmp_path: Path) -> None:
    assert series.path is not None
    (series.path / "notes.txt").write_text("seen")
    save_series(series.path, HEIGHTS, another_patient, SeriesInstanceUID="1.2.3.8", SeriesNumber=8)
    save_series(series.path, [0.0, 2.0], SeriesInstanceUID="1.2.3.9", SeriesNumber=9)
    export_labels(tmp_path / "result.nii.gz", one_label(series), series, RECORD)


# What an export must not replace ---------------------------------------------------------------------------------


def test_the_scan_itself(scan: OpenScan) -> None:
    assert scan.path is not None
    before = scan.path.read_bytes()
    with pytest.raises(OutputError, match=r"scan\.nii\.gz was not written: this is the scan itself"):
        export_labels(scan.path, labels_on(scan), scan, RECORD)
    assert scan.path.read_bytes() == before


@pytest.mark.parametrize("content", ['{"EchoTime": 0.03}', "[]", "no JSON", '{"export": 3}'])
def test_a_file_beside_that_another_program_has_written(scan: OpenScan, tmp_path: Path, content: str) -> None:
    beside = tmp_path / "result.json"
    beside.write_text(content)
    with pytest.raises(OutputError, match=r"record would replace result\.json, which is another program's"):
        export_labels(tmp_path / "result.nii.gz", labels_on(scan), scan, RECORD)
    assert beside.read_text() == content
    assert not (tmp_path / "result.nii.gz").exists()


def test_a_folder_that_has_gone(scan: OpenScan, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"result\.nii\.gz was not written: there is no folder .*stick"):
        export_labels(tmp_path / "stick" / "result.nii.gz", labels_on(scan), scan, RECORD)
