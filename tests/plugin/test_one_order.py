"""A slice has one number everywhere: in the commands, in Python, in a study's batch and in the window."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import torch
from napari import Viewer
from napari.layers import Layer
from pydicom.dataset import Dataset
from pytestqt.qtbot import QtBot
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from napari_oneseg import scan_features
from napari_oneseg.batch import Settings, run_task, tasks_of
from napari_oneseg.checkpoint import load_weights, save_weights
from napari_oneseg.cli import app
from napari_oneseg.config import FeatureConfig, PreprocessingConfig
from napari_oneseg.features.cache import user_cache
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.file_order import in_file_order, reorient
from napari_oneseg.io import read_volume, write_image
from napari_oneseg.orientation import Orientation
from napari_oneseg.plugin.engine import Report
from napari_oneseg.plugin.reader import read_layers
from napari_oneseg.plugin.scan_layer import describe_layer
from napari_oneseg.plugin.work import open_scan
from napari_oneseg.session import OneSegSession
from napari_oneseg.session_file import save_session
from napari_oneseg.study import open_study
from napari_oneseg.volume import Volume
from tests.dicom_files import put_pixels, save_series
from tests.plugin.plugin_fixtures import STACK, WEIGHTS, small_scan
from tests.plugin.test_studying import StudyDock, new_dock

# From patient order, LPS in DICOM's words, to that of the file; names as nibabel has them, first axis first.
ORDERS = {
    "LPS": Orientation(),
    "RAS": Orientation(flips=(False, True, True)),
    "LAS": Orientation(flips=(False, True, False)),
    "PSR": Orientation((2, 0, 1), (True, False, False)),
}


def in_order(path: Path, volume: Volume, way: Orientation) -> Path:
    """Write a scan in patient order into a file with another order of axes."""
    stored = replace(reorient(volume, way), to_file=Orientation())
    write_image(path, np.asarray(stored.array, np.float32), stored)
    return path


def scan_of_kind(folder: Path, kind: str) -> Path:
    volume = small_scan(3)
    if kind == "DICOM":

        def rows_to_the_front(dataset: Dataset) -> None:
            """Along the normal, row times column, the series then runs to the feet."""
            dataset.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
            put_pixels(dataset, volume.array[dataset.InstanceNumber - 1])

        return save_series(folder / "scan", [3.0 * height for height in range(volume.n_slices)], rows_to_the_front)
    if kind == "oblique":
        turned = Rotation.from_euler("xyz", [12, -7, 20], degrees=True).as_matrix() @ volume.direction
        return in_order(folder / "scan.nii.gz", replace(volume, direction=turned), ORDERS["RAS"])
    return in_order(folder / "scan.nii.gz", volume, ORDERS[kind])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    config = FeatureConfig(widths=(8, 8, 8, 8), width_factor=1.0, channels=8, gabor_size=5, null_match=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(path, FeatureNetwork(config), PreprocessingConfig(working_size=64), {"data": "none"})
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ONESEG_CACHE", str(tmp_path / "cache"))
    user_cache.cache_clear()
    yield tmp_path / "cache" / "features"
    user_cache.cache_clear()


@pytest.mark.parametrize("kind", [*ORDERS, "oblique", "DICOM"])
def test_the_same_numbers_and_features_everywhere(
    tmp_path: Path, weights: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    computed: list[str] = []
    compute = scan_features.compute_features

    def counted(volume: Volume, *arguments: object) -> object:
        computed.append(volume.content_hash)
        return compute(volume, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scan_features, "compute_features", counted)
    study = tmp_path / "study"
    study.mkdir()
    path = scan_of_kind(study, kind)

    typed = ["suggest", str(path), "--weights", str(weights), "--device", "cpu", "--json"]
    told = json.loads(CliRunner().invoke(app, typed).stdout)
    best = [entry["index"] for entry in told["suggestions"]]
    assert computed == [told["scan"]["sha256"]]

    volume = read_volume(path)
    session = OneSegSession(weights, "cpu", cache=user_cache())
    session.set_volume(volume)
    assert [entry.index for entry in session.suggest_slices(top=5)] == best
    assert volume.content_hash == told["scan"]["sha256"]

    (task,) = tasks_of(open_study(study), "suggest", Settings(weights, "cpu", 1))[0]
    outcome = run_task(task)
    assert outcome.values["suggested"] == best
    for entry, made in zip(told["suggestions"], outcome.suggestions, strict=True):
        assert {key: entry[key] for key in ("index", "file_axis", "file_index")} == made

    (data,) = read_layers(path)
    report = Report(SimpleQueue())
    opened = open_scan(describe_layer(Layer.create(*data)), None, "cpu", load_weights(weights), None, report)
    assert opened.ranking is not None
    assert [entry.index for entry in opened.ranking.best[:5]] == best
    assert opened.scan.shown.content_hash == told["scan"]["sha256"]

    assert len(computed) == 1, "the other three have found the features of the first"
    assert len(list(own_cache.glob("*.safetensors"))) == 1

    # A script that indexes the array of the file finds the very slice.
    stored = in_file_order(volume).array.T
    for entry in told["suggestions"]:
        found = np.take(stored, entry["file_index"], entry["file_axis"])
        assert sorted(found.ravel()) == sorted(volume.slices[entry["index"]].ravel())


@pytest.fixture
def dock(
    make_napari_viewer: Callable[[], Viewer], qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StudyDock]:
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    dock = new_dock(make_napari_viewer(), qtbot, tmp_path / "kept")
    yield dock
    dock.widget.shut_down()


def painted_in_python(study: Path, kind: str) -> tuple[Volume, OneSegSession]:
    study.mkdir()
    volume = read_volume(scan_of_kind(study, kind))
    session = OneSegSession(WEIGHTS, "cpu")
    session.set_volume(volume)
    image = np.zeros(volume.slices.shape[1:], np.uint8)
    image[3:9, 10:20] = 2
    session.annotate(5, image)
    return volume, session


@pytest.mark.parametrize("kind", ["RAS", "PSR", "oblique"])
def test_what_python_has_saved_is_resumed_in_the_window_and_back(dock: StudyDock, tmp_path: Path, kind: str) -> None:
    study = tmp_path / "study"
    _, session = painted_in_python(study, kind)
    session.save(study / "scan.oneseg")
    dock.open(study)
    assert dock.shown == [5], dock.said
    expected = session.annotation.slices[5]
    np.testing.assert_array_equal(dock.layer.data[5], expected)
    assert dock.agrees
    dock.paint(7)
    dock.press("done")
    session.resume(study / "oneseg-results" / "scan.oneseg")
    assert sorted(session.annotation.slices) == [5, 7]
    np.testing.assert_array_equal(session.annotation.slices[5], expected)


def test_what_was_saved_before_in_another_plane_opens_in_it(dock: StudyDock, tmp_path: Path) -> None:
    """The first axis of the file, along which Python took the slices of such a scan, runs to the back."""
    study = tmp_path / "study"
    study.mkdir()
    volume = replace(small_scan(3), spacing=(1.0, 1.0, 1.0), slice_axis=None)
    path = in_order(study / "scan.nii.gz", volume, Orientation((1, 0, 2), (True, False, False)))
    scan = replace(read_volume(path), slice_axis=1)
    before = OneSegSession(WEIGHTS, "cpu")
    before.set_volume(in_file_order(scan))
    image = np.zeros(before.volume.slices.shape[1:], np.uint8)
    image[2:5, 10:20] = 2
    before.annotate(before.volume.n_slices - 1 - 12, image)
    save_session(study / "scan.oneseg", replace(before.snapshot(), slice_axis=None))
    dock.open(study)
    session = dock.widget.controller.session
    assert session is not None
    assert session.volume.axis == 1
    assert np.flatnonzero(dock.layer.data.any((0, 2))).tolist() == [12], dock.said
    np.testing.assert_array_equal(dock.layer.data[:, 12], image)


def test_what_python_saved_in_the_order_of_the_file_is_turned(dock: StudyDock, tmp_path: Path) -> None:
    study = tmp_path / "study"
    volume, session = painted_in_python(study, "RAS")
    expected = session.annotation.slices[5]
    before = OneSegSession(WEIGHTS, "cpu")
    before.set_volume(in_file_order(volume))
    before.annotate(5, expected[::-1, ::-1])
    save_session(study / "scan.oneseg", replace(before.snapshot(), slice_axis=None))
    dock.open(study)
    assert dock.shown == [5], dock.said
    np.testing.assert_array_equal(dock.layer.data[5], expected)
