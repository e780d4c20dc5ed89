"""Working through a study in the window: no stroke is lost on the way, and what was left is found again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from napari import Viewer
from napari.layers import Image, Labels
from pytestqt.qtbot import QtBot

from napari_oneseg import session
from napari_oneseg.batch import labels_path
from napari_oneseg.errors import OutputError
from napari_oneseg.io import write_image
from napari_oneseg.plugin import study_desk
from napari_oneseg.plugin.study_desk import StudyDesk
from napari_oneseg.plugin.widget import OneSegWidget
from napari_oneseg.study import StudyScan, open_study
from tests.plugin.plugin_fixtures import STACK, WEIGHTS, small_scan
from tests.plugin.test_widget import Desk


class StudyDock(Desk):
    """A window that works on a study."""

    def settle(self) -> None:
        widget = self.widget
        engines = (widget.engine, widget.saver, widget.learner._lane, widget.studier.lane)
        for _ in range(3):  # one asks the other
            self.qtbot.waitUntil(lambda: not any(engine.busy for engine in engines), timeout=20_000)
            self.qtbot.wait(40)
        self.qtbot.wait(80)

    def open(self, study: Path) -> None:
        self.widget.studier.open(study)
        self.settle()

    def press(self, button: str) -> None:
        getattr(self.widget.view.study, f"{button}_button").click()
        self.settle()

    @property
    def here(self) -> str | None:
        return self.widget.studier.at_hand

    @property
    def said(self) -> str:
        return str(self.widget.view.messages.text.text())

    @property
    def images(self) -> list[str]:
        return [layer.name for layer in self.viewer.layers if isinstance(layer, Image)]

    @property
    def label_layers(self) -> list[str]:
        return [layer.name for layer in self.viewer.layers if isinstance(layer, Labels)]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    for seed, name in enumerate(("a", "b", "c")):
        volume = small_scan(seed)
        write_image(folder / f"{name}.nii.gz", volume.array, volume)
    return folder


def kept(study: Path, name: str) -> StudyScan:
    """What a study says of a scan, read anew."""
    return open_study(study)[name]


def new_dock(viewer: Viewer, qtbot: QtBot, folder: Path) -> StudyDock:
    dock = StudyDock(viewer, qtbot, folder)
    dock.widget.asking.is_sure = lambda _: True  # type: ignore[method-assign]
    return dock


@pytest.fixture
def dock(
    make_napari_viewer: Callable[[], Viewer], qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StudyDock]:
    monkeypatch.setattr(session, "compute_features", lambda *_: STACK)
    dock = new_dock(make_napari_viewer(), qtbot, tmp_path / "kept")
    yield dock
    dock.widget.shut_down()


@pytest.fixture
def again(dock: StudyDock) -> Callable[[], StudyDock]:
    """The same program later: the window was closed, another one is opened."""

    def start() -> StudyDock:
        dock.widget.shut_down()
        dock.viewer.window.remove_dock_widget(dock.widget)
        dock.viewer.layers.clear()
        dock.widget = OneSegWidget(dock.viewer, dock.folder)
        dock.widget.controller.weights = WEIGHTS
        dock.widget.asking.is_sure = lambda _: True  # type: ignore[method-assign]
        dock.viewer.window.add_dock_widget(dock.widget, name="OneSeg")
        return dock

    return start


# The way through it


def test_a_user_with_one_scan_sees_nothing_of_it(dock: StudyDock) -> None:
    dock.add_scan()
    assert dock.widget.view.study.isHidden()


def test_the_first_open_scan_is_opened_and_the_list_shown(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    assert dock.here == "a"
    assert dock.images == ["a"]
    assert not dock.widget.view.study.isHidden()
    assert [row.name for row in dock.widget.view.study.list._model.rows] == ["a", "b", "c"]
    assert kept(study, "a").status == "in progress"
    assert kept(study, "b").status == "open"


def test_done_writes_the_labels_and_goes_on(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.paint(4)
    dock.widget.propagate()
    dock.settle()
    shown = dock.layer.data.copy()
    scan = dock.widget.controller.scan
    assert scan is not None
    dock.press("done")
    assert dock.here == "b"
    done = kept(study, "a")
    assert done.status == "done"
    assert done.slices_painted == 1
    assert done.volumes_ml == {1: pytest.approx(shown.sum() * 3.0 * 1.0 * 0.5 / 1000)}
    assert done.mean_confidence is not None
    path = labels_path(study / "oneseg-results", "a")
    written = np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(written, scan.orientation.to_source(shown))
    assert path.with_name("a_labels.json").exists()


def test_going_on_takes_the_layers_of_the_scan_along_and_no_others(dock: StudyDock, study: Path) -> None:
    dock.viewer.add_labels(np.zeros((4, 5, 6), np.uint8), name="mine")
    dock.open(study)
    dock.paint(4)
    dock.press("next")
    assert dock.images == ["b"]
    assert dock.label_layers == ["mine", "b labels"]
    assert "Suggested slice" in dock.viewer.layers


def test_no_stroke_is_lost_on_the_way_to_another_scan_and_back(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.paint(4)
    dock.layer.data[6, 10:14, 10:14] = 2  # what a script writes is announced by nobody
    before = dock.layer.data.copy()
    dock.press("next")
    assert dock.here == "b"
    dock.paint(2)
    dock.press("previous")
    assert dock.here == "a"
    np.testing.assert_array_equal(dock.layer.data, before)
    assert dock.agrees
    dock.press("next")
    assert dock.shown == [2]
    assert kept(study, "a").slices_painted == 2


def test_a_stroke_made_while_the_work_is_written_is_kept(
    dock: StudyDock, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first writing is under way when the user paints once more."""
    keep, strokes = StudyDesk.keep, iter([7])
    dock.open(study)
    dock.paint(4)

    def slowly(desk: StudyDesk, name: str, left: study_desk.Left) -> study_desk.Worklist:
        if left.saved is not None:
            for index in strokes:
                dock.layer.data[index, 10:14, 10:14] = 1
        return keep(desk, name, left)

    monkeypatch.setattr(StudyDesk, "keep", slowly)
    dock.press("done")
    assert dock.here == "b"
    written = np.asarray(nibabel.load(labels_path(study / "oneseg-results", "a")).dataobj).transpose(2, 1, 0)
    assert written[7].any(), "the labels were written once more"
    dock.press("previous")
    assert dock.shown == [4, 7]


def test_slices_that_were_propagated_by_then_are_kept(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.paint(4)
    dock.widget.propagate()
    dock.settle()
    before = dock.layer.data.copy()
    dock.press("next")
    dock.press("previous")
    np.testing.assert_array_equal(dock.layer.data, before)
    state = dock.widget.controller.state
    assert state is not None
    assert not state.stale
    assert set(state.painted) == {4}


def test_where_the_work_cannot_be_written_the_user_stays(
    dock: StudyDock, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock.open(study)
    dock.paint(4)

    def full(*_: object) -> None:
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(StudyDesk, "keep", full)
        dock.press("next")
        assert dock.here == "a"
        assert dock.shown == [4]
        assert "disk is full" in dock.said
        dock.paint(5)
    dock.press("next")
    assert dock.here == "b"
    dock.press("previous")
    assert dock.shown == [4, 5]


def test_skipping_leaves_a_scan_out(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.press("skip")
    assert dock.here == "b"
    assert kept(study, "a").status == "skipped"
    dock.press("next")
    dock.press("next")
    assert dock.here == "b", "round the end of the list, past what was skipped"


def test_a_scan_that_was_only_looked_at_is_still_open(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.press("next")
    assert kept(study, "a").status == "open"
    dock.paint(4)
    dock.press("next")
    assert kept(study, "b").status == "in progress"


def test_the_end_of_the_list_is_told(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    for _ in range(3):
        dock.paint(4)
        dock.press("done")
    assert dock.here == "c"
    assert "All scans of the study are finished" in dock.said
    assert dock.shown == [4], "it stays where it is"
    assert not dock.widget.controller.unsaved
    dock.paint(5)
    dock.settle()
    assert kept(study, "c").status == "in progress", "its labels are no longer what was written"


def test_done_asks_where_nothing_is_labelled(dock: StudyDock, study: Path) -> None:
    asked: list[str] = []
    dock.widget.asking.is_sure = lambda question: bool(asked.append(question))  # type: ignore[method-assign,func-returns-value]
    dock.open(study)
    dock.press("done")
    assert len(asked) == 1
    assert "Nothing is labelled" in asked[0]
    assert dock.here == "a"
    assert kept(study, "a").status == "in progress"


def test_any_scan_of_the_list_can_be_opened(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.paint(4)
    dock.widget.view.study.list.scan_chosen.emit("c")
    dock.settle()
    assert (dock.here, dock.images) == ("c", ["c"])
    dock.widget.view.study.list.scan_chosen.emit("a")
    dock.settle()
    assert dock.shown == [4]


def test_label_names_go_along_to_the_next_scan(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.widget.controller.restyle(1, "Liver")
    dock.paint(4)
    dock.press("next")
    assert dock.widget.controller.style(1).name == "Liver"


# Scans that cannot be opened


def test_a_scan_that_cannot_be_opened_is_told_and_passed_by(dock: StudyDock, study: Path) -> None:
    (study / "b.nii.gz").write_bytes(b"no scan")
    dock.open(study)
    dock.paint(4)
    dock.press("done")
    assert dock.here == "b"
    failed = kept(study, "b")
    assert failed.status == "failed"
    assert "b.nii.gz" in failed.problem
    assert str(study) not in failed.problem
    assert failed.problem in dock.widget.view.study.problem.text()
    assert dock.images == []
    assert not dock.widget.view.study.done_button.isEnabled()
    dock.press("next")
    assert dock.here == "c"
    dock.press("previous")
    assert dock.here == "b", "it can be tried again"
    volume = small_scan(1)
    write_image(study / "b.nii.gz", volume.array, volume)
    dock.widget.view.study.list.scan_chosen.emit("b")
    dock.settle()
    assert kept(study, "b").status == "in progress"
    assert kept(study, "b").problem == ""


def test_a_scan_that_is_missing_at_the_beginning(dock: StudyDock, tmp_path: Path, study: Path) -> None:
    table = study / "trial.csv"
    table.write_text("scan,name\nnone.nii.gz,first\nb.nii.gz,second\n")
    dock.open(table)
    assert kept(table, "first").status == "failed"
    dock.press("next")
    assert dock.here == "second"
    assert dock.images == ["b"]


def test_what_is_no_study_is_told(dock: StudyDock, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    dock.open(empty)
    assert "holds no scans" in dock.said
    assert dock.widget.view.study.isHidden()
