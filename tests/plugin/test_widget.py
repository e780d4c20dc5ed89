"""The widget in a viewer: what a user does, and what the viewer's own buttons do to it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari import Viewer
from napari.layers import Labels
from pytestqt.qtbot import QtBot

from napari_oneseg import overview, scan_features
from napari_oneseg.io import write_image
from napari_oneseg.plugin import scan_layer as scan_layer_module
from napari_oneseg.plugin.panels.picture_list import PictureList
from napari_oneseg.plugin.widget import OneSegWidget
from tests.dicom_files import UID, grey, put_pixels, save_series
from tests.plugin.plugin_fixtures import COUNT, SHAPE, STACK, WEIGHTS, painted, scan_layer, small_scan


class Desk:
    """A viewer with the widget, and the ways of a user."""

    def __init__(self, viewer: Viewer, qtbot: QtBot, folder: Path) -> None:
        self.viewer, self.qtbot, self.folder = viewer, qtbot, folder
        self.widget = OneSegWidget(viewer, folder)
        self.widget.controller.weights = WEIGHTS
        viewer.window.add_dock_widget(self.widget, name="OneSeg")

    def settle(self) -> None:
        widget = self.widget
        busy = (widget.engine, widget.saver, widget.learner._lane)
        self.qtbot.waitUntil(lambda: not any(engine.busy for engine in busy), timeout=20_000)
        self.qtbot.wait(80)  # what was computed is written a few times a second

    def add_scan(self, seed: int = 0, name: str = "scan") -> None:
        self.viewer.add_layer(scan_layer(seed, name))
        self.settle()

    @property
    def layer(self) -> Labels:
        layer = self.widget.painter.layer
        assert layer is not None
        return layer

    def paint(self, index: int, label: int = 1, centre: tuple[int, int] = (16, 20), size: int = 8) -> None:
        self.layer.brush_size = size
        self.layer.paint((index, *centre), label)
        self.qtbot.wait(100)

    @property
    def shown(self) -> list[int]:
        return [int(index) for index in np.flatnonzero(self.layer.data.any((1, 2)))]

    @property
    def agrees(self) -> bool:
        assert self.widget.controller.session is not None
        return bool(np.array_equal(self.layer.data, self.widget.controller.session.labels))


@pytest.fixture
def desk(
    make_napari_viewer: Callable[[], Viewer], qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    desk = Desk(make_napari_viewer(), qtbot, tmp_path / "kept")
    yield desk
    desk.widget.shut_down()


def test_the_first_scan_is_opened_and_its_best_slice_shown_and_framed(desk: Desk) -> None:
    assert desk.widget.view.scan.isEnabled()
    desk.add_scan()
    ranking = desk.widget.controller.target.ranking
    assert ranking is not None
    best = ranking.best[0].index
    assert desk.viewer.dims.current_step[0] == best
    frame = desk.viewer.layers["Suggested slice"]
    assert set(np.round(frame.data[0][:, 0])) == {best}
    assert "suggested" in desk.viewer.canvas.overlays.text.text
    assert desk.viewer.layers.selection.active is desk.layer
    assert desk.layer.mode == "paint"
    assert not desk.widget.controller.unsaved


def test_the_tour(desk: Desk, tmp_path: Path) -> None:
    desk.add_scan()
    desk.paint(4)
    desk.widget.view.propagate.propagate_button.click()
    desk.settle()
    assert len(desk.shown) > 5
    assert desk.agrees
    assert "Suggested slice" not in desk.viewer.layers, "the mark is in the way now"
    desk.widget.view.review.next_button.click()
    desk.settle()
    index = desk.widget.controller.current
    assert index != 4
    desk.paint(index, centre=(10, 26), size=4)
    assert "corrected" in desk.widget.view.review.slice_text.text()
    desk.widget.view.propagate.propagate_button.click()
    desk.settle()
    desk.widget.view.review.accept_button.click()
    desk.settle()
    assert desk.widget.controller.state is not None
    assert set(desk.widget.controller.state.frozen) == {index}
    path = tmp_path / "out.nii.gz"
    desk.widget.export(path)
    desk.settle()
    scan = desk.widget.controller.scan
    assert scan is not None
    written = np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(written, scan.shown.to_file.apply(desk.layer.data))
    assert not desk.widget.controller.unsaved


def test_keys_work_on_the_canvas(desk: Desk) -> None:
    desk.add_scan()
    desk.paint(4)
    _press(desk.layer, "Shift+P")
    desk.settle()
    assert len(desk.shown) > 5
    _press(desk.layer, "Ctrl+Z")
    desk.settle()
    assert desk.shown == [4]
    _press(desk.layer, "Ctrl+Z")
    desk.settle()
    assert desk.shown == []
    _press(desk.layer, "Ctrl+Shift+Z")
    _press(desk.layer, "Ctrl+Shift+Z")
    desk.settle()
    assert len(desk.shown) > 5
    assert desk.agrees


def _press(layer: Labels, key: str) -> None:
    from app_model.types import KeyBinding

    found = [action for bound, action in layer.keymap.items() if KeyBinding.validate(bound) == KeyBinding.from_str(key)]
    assert found, f"{key} is not bound: {list(layer.keymap)}"
    found[0](layer)


def test_the_engine_is_not_imported_by_opening_the_widget() -> None:
    import subprocess

    code = (
        "import sys\n"
        "import napari_oneseg.plugin.widget\n"
        "print([m for m in ('torch', 'sklearn', 'matplotlib', 'SimpleITK', 'pydicom') if m in sys.modules])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert told.stdout.strip() == "[]"


def test_a_removed_labels_layer_comes_back_with_all_that_was_made(desk: Desk) -> None:
    desk.add_scan()
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    before = desk.layer.data.copy()
    desk.viewer.layers.remove(desk.layer)
    desk.settle()
    assert desk.widget.painter.layer is None
    assert "is kept" in desk.widget.view.messages.text.text()
    desk.widget.view.paint.paint_button.click()
    desk.settle()
    np.testing.assert_array_equal(desk.layer.data, before)


def test_a_removed_scan_leaves_work_that_is_offered_again(desk: Desk, make_napari_viewer: Callable[[], Viewer]) -> None:
    desk.add_scan()
    desk.paint(4)
    desk.settle()
    desk.viewer.layers.remove("scan")
    desk.settle()
    assert desk.widget.controller.session is None
    desk.widget.shut_down()
    again = Desk(desk.viewer, desk.qtbot, desk.folder)
    again.add_scan(name="again")
    assert again.widget.asking.isVisibleTo(again.widget)
    assert "1 painted" in again.widget.asking.text.text()
    again.widget.asking.yes_button.click()
    again.settle()
    assert again.shown == [4]
    assert again.agrees
    again.widget.shut_down()


def test_switching_scans_and_back_keeps_both(desk: Desk) -> None:
    desk.add_scan(0, "one")
    desk.paint(4)
    desk.viewer.add_layer(scan_layer(1, "two"))
    desk.settle()
    one, two = (id(desk.viewer.layers[name]) for name in ("one", "two"))
    desk.widget.opener.open_key(two)
    desk.settle()
    assert desk.shown == []
    desk.paint(7, label=2)
    desk.widget.opener.open_key(one)
    desk.settle()
    assert desk.shown == [4]
    assert desk.layer.name == "one labels"
    desk.widget.opener.open_key(two)
    desk.settle()
    assert desk.shown == [7]
    assert desk.agrees
    names = [layer.name for layer in desk.viewer.layers if isinstance(layer, Labels)]
    assert sorted(names) == ["one labels", "two labels"]


def test_what_was_made_in_one_plane_is_there_in_another_on_the_one_labels_layer(desk: Desk) -> None:
    desk.add_scan()
    desk.paint(4)
    axial, layer = desk.layer.data.copy(), desk.layer
    desk.widget.opener.change_axis(1)
    desk.settle()
    assert desk.layer is layer
    np.testing.assert_array_equal(desk.layer.data, axial)
    assert tuple(desk.viewer.dims.order) == (1, 0, 2)
    desk.paint(7, label=2, centre=(16, 30))
    desk.layer.data[2:6, 3, 5:9] = 2
    desk.widget.painter.compare()
    both = desk.layer.data.copy()
    desk.widget.opener.change_axis(0)
    desk.settle()
    assert desk.layer is layer
    assert desk.viewer.layers.selection.active is layer
    np.testing.assert_array_equal(desk.layer.data, both)
    assert desk.agrees
    assert tuple(desk.viewer.dims.order) == (0, 1, 2)
    assert [one for one in desk.viewer.layers if isinstance(one, Labels)] == [layer]
    state = desk.widget.controller.state
    assert state is not None
    assert list(state.painted) == [4], "from here labels set out; those of the other plane are shown and exported"


def test_an_existing_layer_is_adopted_with_what_is_on_it(desk: Desk) -> None:
    data = np.zeros((COUNT, *SHAPE), np.int32)
    data[3] = painted(5)
    desk.viewer.add_labels(data, name="mine", scale=small_scan().spacing)
    desk.add_scan()
    assert desk.layer.name == "scan labels"
    mine = desk.viewer.layers["mine"]
    desk.widget.painter.choose(id(mine))
    desk.settle()
    assert desk.layer is mine
    assert desk.widget.controller.state is not None
    assert list(desk.widget.controller.state.painted) == [3]
    desk.widget.propagate()
    desk.settle()
    assert len(desk.shown) > 5
    assert set(np.unique(mine.data)) == {0, 5}


def test_viewer_actions_do_no_harm(desk: Desk) -> None:
    """Renaming, reordering, duplicating, 3D, rolled and transposed axes."""
    desk.add_scan()
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    before = desk.layer.data.copy()
    desk.layer.name = "renamed"
    desk.viewer.layers.move(0, 2)
    desk.viewer.layers.selection.active = desk.layer
    desk.viewer.add_layer(Labels(desk.layer.data.copy(), scale=desk.layer.scale, name="copy"))
    desk.viewer.dims.ndisplay = 3
    desk.settle()
    assert desk.widget.link.current() is None
    desk.widget.accept_slice()
    assert "2D" in desk.widget.view.messages.text.text()
    desk.viewer.dims.ndisplay = 2
    desk.viewer.dims.roll()
    desk.settle()
    assert desk.widget.link.current() is None
    desk.widget.next_slice_to_check()
    desk.settle()
    assert desk.widget.link.current() == desk.widget.controller.current
    np.testing.assert_array_equal(desk.layer.data, before)
    assert desk.agrees


def test_a_file_is_opened_without_asking_for_a_reader(desk: Desk, tmp_path: Path) -> None:
    volume = small_scan()
    write_image(tmp_path / "case.nii.gz", volume.array.astype(np.float32), volume)
    desk.widget.opener.open_path(tmp_path / "case.nii.gz")
    desk.settle()
    assert desk.widget.controller.scan is not None
    assert desk.widget.controller.scan.name == "case"
    np.testing.assert_allclose(desk.viewer.layers["case"].scale, volume.spacing, rtol=1e-5)
    desk.widget.opener.open_path(tmp_path / "none.nii.gz")
    desk.settle()
    assert "no file" in desk.widget.view.messages.text.text()
    assert desk.widget.controller.scan.name == "case", "the open scan stays"


def test_the_range_by_one_click_and_the_origin_of_a_label(desk: Desk) -> None:
    desk.add_scan()
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    desk.widget.inspector.set_explaining(True)
    desk.widget.link.clicked.emit(7, 16, 23)
    desk.settle()
    assert "slice 4" in desk.widget.inspector.text
    assert "Where it comes from" in desk.viewer.layers
    desk.widget.inspector.set_explaining(False)
    assert "Where it comes from" not in desk.viewer.layers
    desk.widget.inspector.set_locating(True)
    assert desk.layer.mode == "pan_zoom"
    desk.widget.link.clicked.emit(4, 16, 20)
    desk.settle()
    assert desk.widget.controller.target.range is not None
    assert not desk.widget.inspector.locating


def test_doubt_is_shown_and_follows_the_work(desk: Desk) -> None:
    desk.add_scan()
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    desk.widget.inspector.set_doubt_shown(True)
    desk.settle()
    doubt = desk.viewer.layers["Doubt"]
    assert doubt.data[desk.layer.data > 0].mean() < 1
    assert not doubt.data[4][desk.layer.data[4] > 0].any(), "there is no doubt where it was painted"
    before = doubt.data.copy()
    desk.paint(8, centre=(10, 20))
    desk.widget.propagate()
    desk.settle()
    assert not np.array_equal(desk.viewer.layers["Doubt"].data, before)
    desk.viewer.layers.remove("Doubt")
    desk.settle()
    desk.paint(2, centre=(10, 20))
    desk.settle()
    assert not desk.widget.inspector.doubt_shown, "the user has removed it"
    assert "Doubt" not in desk.viewer.layers


def test_closing_asks_only_over_work_that_was_not_exported(desk: Desk, tmp_path: Path) -> None:
    from qtpy.QtCore import QEvent

    asked: list[bool] = []
    desk.widget.asking.may_close = lambda: asked.append(True) or False  # type: ignore[method-assign]
    desk.add_scan()
    window = desk.widget.window()
    close = QEvent(QEvent.Type.Close)
    assert not desk.widget.eventFilter(window, close)
    desk.paint(4)
    assert desk.widget.eventFilter(window, close), "the window stays open"
    assert asked == [True]
    desk.widget.undo()
    assert not desk.widget.eventFilter(window, close), "nothing is left to lose"
    desk.widget.redo()
    desk.widget.export(tmp_path / "out.nii.gz")
    desk.settle()
    assert not desk.widget.eventFilter(window, close)
    assert asked == [True]


def test_closing_the_dock_for_good_ends_the_widget_and_a_new_one_offers_the_work(desk: Desk) -> None:
    desk.add_scan()
    desk.paint(4)
    before = desk.layer.data.copy()
    desk.viewer.window.remove_dock_widget(desk.widget)
    np.testing.assert_array_equal(desk.viewer.layers["scan labels"].data, before)
    ended = desk.widget
    desk.widget = OneSegWidget(desk.viewer, desk.folder)
    desk.widget.controller.weights = WEIGHTS
    desk.viewer.window.add_dock_widget(desk.widget, name="OneSeg")
    desk.settle()
    assert ended.painter.layer is None, "only one of them writes to layers"
    assert not desk.widget.asking.yes_button.isHidden()
    desk.widget.asking.yes_button.click()
    desk.settle()
    np.testing.assert_array_equal(desk.layer.data, before)


def test_of_several_series_in_a_folder_the_user_chooses_one(desk: Desk, tmp_path: Path) -> None:
    for number, name in enumerate(("first", "second"), 1):
        heights = [2.0 * number * k for k in range(COUNT)]
        named = {"SeriesInstanceUID": f"{UID}.{number}", "SeriesNumber": number, "SeriesDescription": name}
        save_series(tmp_path / "both", heights, lambda dataset: put_pixels(dataset, grey(0, shape=SHAPE)), **named)
    asked: list[list[str]] = []
    desk.widget.asking.which = lambda _question, texts, _shown: asked.append(texts) or 1  # type: ignore[method-assign,func-returns-value]
    desk.widget.opener.open_path(tmp_path / "both")
    desk.settle()
    desk.settle()
    assert len(asked) == 1
    assert ["first" in asked[0][0], "second" in asked[0][1]] == [True, True]
    assert desk.widget.controller.scan is not None
    assert desk.widget.controller.scan.shown.spacing[0] == 4.0
    assert desk.widget.controller.scan.path == tmp_path / "both"


def test_pictures_of_the_scans_come_while_the_user_chooses(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file with several volumes, too; the pictures are made by the engine's thread."""
    volumes = np.random.default_rng(0).integers(0, 900, (3, COUNT, *SHAPE)).astype(np.int16)
    nib.save(nib.Nifti1Image(volumes.T, np.diag([-0.5, -1, 3, 1])), tmp_path / "scan.nii")
    shown: list[int] = []
    threads: list[str] = []
    reading = overview.candidate_pictures

    def named(*args: object) -> object:
        threads.append(threading.current_thread().name)
        return reading(*args)  # type: ignore[arg-type]

    def choose(dialog: PictureList) -> int:
        desk.qtbot.waitUntil(lambda: len(shown) == 3, timeout=20_000)
        dialog.list.setCurrentRow(2)
        return 1

    put = PictureList.set_picture
    monkeypatch.setattr(overview, "candidate_pictures", named)
    monkeypatch.setattr(PictureList, "exec", choose)
    monkeypatch.setattr(PictureList, "set_picture", lambda *args: (shown.append(args[1]), put(*args)))  # type: ignore[func-returns-value]
    desk.widget.opener.open_path(tmp_path / "scan.nii")
    desk.qtbot.waitUntil(lambda: desk.widget.controller.scan is not None, timeout=20_000)
    desk.settle()
    scan = desk.widget.controller.scan
    assert scan is not None
    np.testing.assert_array_equal(scan.shown.array, volumes[2])
    assert (scan.name, scan.path) == ("scan volume 2", tmp_path / "scan.nii")
    assert (sorted(shown), threads) == ([0, 1, 2], ["oneseg"])


def test_who_chooses_nothing_opens_nothing(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = np.random.default_rng(0).integers(0, 900, (2, COUNT, *SHAPE)).astype(np.int16)
    nib.save(nib.Nifti1Image(volumes.T, np.eye(4)), tmp_path / "scan.nii")
    monkeypatch.setattr(PictureList, "exec", lambda _: 0)
    desk.widget.opener.open_path(tmp_path / "scan.nii")
    desk.settle()
    assert desk.widget.controller.scan is None
    assert len(desk.viewer.layers) == 0


def test_slices_of_a_coarser_level_are_those_on_screen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer is followed in voxels of the level that is used, which are larger than its own."""
    array = small_scan().array
    fine = np.repeat(np.repeat(np.repeat(array, 2, 0), 2, 1), 2, 2)
    monkeypatch.setattr(scan_layer_module, "MAX_BYTES", array.nbytes)
    desk.viewer.add_image([fine, array], multiscale=True, scale=(3, 1, 1))
    desk.settle()
    widget = desk.widget
    assert widget.controller.scan is not None
    assert widget.controller.scan.shown.array.shape == array.shape
    for index in (0, 4, COUNT - 1):
        widget.link.go_to(index)
        assert widget.link.current() == index
        assert round(desk.viewer.dims.point[0] / 3) in (2 * index, 2 * index + 1), "one of the two that it stands for"
        assert round(desk.layer.world_to_data(desk.viewer.dims.point)[0]) == index


def test_a_scan_after_an_axis_of_length_one(desk: Desk) -> None:
    array = small_scan().array
    desk.viewer.add_image(array[np.newaxis], scale=(1, 3, 1, 1), axis_labels=("t", "z", "y", "x"))
    desk.settle()
    for index in (0, 4, COUNT - 1):
        desk.widget.link.go_to(index)
        assert desk.widget.link.current() == index
        assert desk.viewer.dims.point[1] == pytest.approx(3 * index)
    desk.paint(4)
    assert desk.agrees
    assert desk.shown == [4]
