"""Working through a study in the window: no stroke is lost on the way, and what was left is found again."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from napari import Viewer
from napari.layers import Image, Labels
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent

from napari_oneseg import scan_features
from napari_oneseg.batch import Settings, labels_path, run_task, tasks_of
from napari_oneseg.batch_workers import run_batch
from napari_oneseg.checkpoint import load_weights, save_weights
from napari_oneseg.errors import OutputError
from napari_oneseg.io import read_labels, read_volume, write_image, write_labels
from napari_oneseg.plugin import study_desk
from napari_oneseg.plugin.study_desk import StudyDesk
from napari_oneseg.plugin.widget import OneSegWidget
from napari_oneseg.plugin.work_clock import PAUSE_SECONDS
from napari_oneseg.session_state import SessionState
from napari_oneseg.study import StudyScan, open_study
from napari_oneseg.study_claims import Claims
from tests.plugin.plugin_fixtures import STACK, WEIGHTS, small_scan
from tests.plugin.test_widget import Desk


class StudyDock(Desk):
    """A window that works on a study."""

    def settle(self) -> None:
        widget = self.widget
        engines = (widget.engine, widget.saver, widget.learner._lane, widget.studier.keeper.lane)

        def at_rest() -> bool:
            on_the_way = widget.studier.busy or widget.studier._arrival is not None
            return not on_the_way and not any(engine.busy for engine in engines)

        for _ in range(3):  # one asks the other
            self.qtbot.waitUntil(at_rest, timeout=20_000)
            self.qtbot.wait(40)
        self.qtbot.wait(80)

    def open(self, study: Path) -> None:
        self.widget.studier.open(study)
        self.settle()

    def crash(self) -> None:
        """End as a killed program does: what the study has of the scan stays older than what the autosave has."""
        studier = self.widget.studier
        studier.keeper.desk.claims.give_back()
        studier.close = studier.keeper.lane.close  # type: ignore[method-assign]  # so that nothing more is written

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
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
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
    np.testing.assert_array_equal(written, scan.shown.to_file.apply(shown))
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


def test_a_stroke_that_is_begun_while_the_work_is_written_is_not_cut_off(
    dock: StudyDock, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, drawing = StudyDesk.keep, [False]
    monkeypatch.setattr(type(dock.widget.painter), "is_drawing", property(lambda _: drawing[0]))
    dock.open(study)
    dock.paint(4)

    def slowly(desk: StudyDesk, name: str, left: study_desk.Left) -> study_desk.Worklist:
        drawing[0] = True
        return keep(desk, name, left)

    with monkeypatch.context() as patch:
        patch.setattr(StudyDesk, "keep", slowly)
        dock.press("next")
    assert dock.here == "a"
    assert dock.label_layers == ["a labels"]
    assert "Finish the stroke" in dock.said
    drawing[0] = False
    dock.press("next")
    assert dock.here == "b"


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
    dock.widget.controller.book.restyle(1, "Liver")
    dock.paint(4)
    dock.press("next")
    assert dock.widget.controller.book.style(1).name == "Liver"


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


def test_a_scan_whose_file_is_taken_away_holds_nobody_up(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.paint(4)
    (study / "a.nii.gz").rename(study / "a.hidden")
    desk = dock.widget.studier.keeper.desk
    assert desk is not None
    desk.study.refresh()
    dock.widget.studier.keeper.flush()
    dock.press("next")
    assert dock.here == "b"
    (study / "a.hidden").rename(study / "a.nii.gz")
    dock.press("close")
    dock.open(study)
    dock.widget.view.study.list.scan_chosen.emit("a")
    dock.settle()
    assert dock.shown == [4]


def test_what_is_no_study_is_told(dock: StudyDock, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    dock.open(empty)
    assert "holds no scans" in dock.said
    assert dock.widget.view.study.isHidden()


# Time, notes and tables


def test_time_counts_while_somebody_works(dock: StudyDock, study: Path) -> None:
    now = [0.0]
    dock.open(study)
    clock = dock.widget.studier.keeper.clock
    clock.__init__(lambda: now[0])  # type: ignore[misc]
    actions: list[Callable[[], object]] = [
        lambda: dock.paint(4),
        lambda: dock.widget.link.go_to(2),
        dock.widget.view.suggest.suggest_button.click,
        lambda: _mouse(dock, dock.viewer.mouse_drag_callbacks),
        lambda: _mouse(dock, dock.viewer.mouse_wheel_callbacks),
        lambda: dock.widget.view.study.notes_edited.emit("unclear"),
    ]
    dock.widget.studier.keeper.touch()
    for action in actions:
        before = clock.seconds
        now[0] += 10
        action()
        assert clock.seconds == before + 10, action
    now[0] += PAUSE_SECONDS + 1
    dock.settle()
    dock.widget.studier.keeper.flush()
    dock.settle()
    assert kept(study, "a").seconds == 60
    dock.paint(5)
    now[0] += 7
    dock.press("next")
    assert kept(study, "a").seconds == 67


def _mouse(dock: StudyDock, callbacks: list[Callable[[Viewer, object], None]]) -> None:
    """What napari does when a button is pressed, or the wheel turned, on the canvas."""
    own = [callback for callback in callbacks if callback == dock.widget.studier.keeper._touched]
    assert len(own) == 1
    own[0](dock.viewer, object())


def test_time_on_another_scan_does_not_count(dock: StudyDock, study: Path) -> None:
    now = [0.0]
    dock.open(study)
    dock.widget.studier.keeper.clock.__init__(lambda: now[0])  # type: ignore[misc]
    dock.add_scan(1, "mine")
    dock.widget.opener.open_key(id(dock.viewer.layers["mine"]))
    dock.settle()
    assert not dock.widget.studier.is_open
    for _ in range(3):
        now[0] += 10
        dock.paint(4)
    dock.widget.studier.keeper.flush()
    dock.settle()
    assert kept(study, "a").seconds == 0
    assert kept(study, "a").slices_painted == 0


def test_slices_are_counted_while_they_are_painted(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    for index in (4, 6):
        dock.paint(index)
    dock.widget.studier.keeper.flush()
    dock.settle()
    assert kept(study, "a").slices_painted == 2
    dock.widget.propagate()
    dock.settle()
    dock.paint(8, centre=(10, 20))
    dock.press("next")
    assert (kept(study, "a").slices_painted, kept(study, "a").corrections) == (3, 1)


def test_notes_stay_with_their_scan(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    panel = dock.widget.view.study
    panel.notes.setPlainText("unclear border")
    dock.press("next")
    assert panel.notes.toPlainText() == ""
    assert kept(study, "a").notes == "unclear border"
    assert kept(study, "b").notes == ""
    dock.press("previous")
    assert panel.notes.toPlainText() == "unclear border"


def test_the_tables(dock: StudyDock, study: Path, tmp_path: Path) -> None:
    now = [0.0]
    dock.open(study)
    dock.widget.studier.keeper.clock.__init__(lambda: now[0])  # type: ignore[misc]
    dock.paint(4)
    now[0] += 90
    dock.paint(6, label=2, size=4)
    volume = {value: float((dock.layer.data == value).sum()) * 1.5 / 1000 for value in (1, 2)}
    asked: list[Path] = []
    path = tmp_path / "mine.csv"
    dock.widget.asking.for_table = lambda proposed: asked.append(proposed) or path  # type: ignore[method-assign,func-returns-value]
    dock.press("summary")
    assert asked == [study / "oneseg-results" / "summary.csv"]
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["scan"] for row in rows] == ["a", "b", "c"]
    assert rows[0]["status"] == "in progress"
    assert rows[0]["slices_painted"] == "2"
    assert float(rows[0]["minutes"]) == 1.5
    for value in (1, 2):
        assert float(rows[0][f"volume_ml_{value}"]) == pytest.approx(volume[value], abs=0.0006)
    with (tmp_path / "mine_effort.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["scan"] for row in rows] == ["a", "median of 1", "total of 1"]
    assert float(rows[0]["minutes"]) == 1.5
    assert "mine.csv and mine_effort.csv" in dock.said


# Going on later


def test_a_study_goes_on_where_it_was_left(dock: StudyDock, study: Path, again: Callable[[], StudyDock]) -> None:
    dock.open(study)
    dock.paint(4)
    dock.press("next")
    dock.paint(7)
    dock.widget.propagate()
    dock.settle()
    dock.widget.controller.book.restyle(1, "Liver")
    dock.widget.link.go_to(6)
    dock.layer.data[1, 10:14, 10:14] = 3  # announced by nobody, and not written yet
    before = dock.layer.data.copy()
    dock = again()
    dock.open(study)
    assert dock.here == "b", "not the first one that is not finished"
    np.testing.assert_array_equal(dock.layer.data, before)
    assert dock.widget.link.current() == 6
    assert dock.widget.controller.book.style(1).name == "Liver"
    assert dock.widget.asking.isHidden(), "nothing need be asked"
    dock.press("previous")
    assert dock.shown == [4]


def test_after_a_crash_the_last_strokes_are_there_and_nobody_is_asked(
    dock: StudyDock, study: Path, again: Callable[[], StudyDock]
) -> None:
    dock.open(study)
    dock.paint(4)
    dock.press("next")
    dock.press("previous")
    dock.paint(6)
    dock.settle()
    dock.crash()
    dock = again()
    dock.open(study)
    dock.settle()
    assert dock.here == "a"
    assert dock.shown == [4, 6]
    assert dock.widget.asking.isHidden()


def test_older_work_of_another_run_is_not_taken_up(
    dock: StudyDock, study: Path, tmp_path: Path, again: Callable[[], StudyDock]
) -> None:
    dock.open(study)
    dock.paint(4)
    dock.settle()
    shutil.copytree(dock.folder, tmp_path / "old")
    dock.paint(6)
    dock = again()
    for path in (tmp_path / "old").glob("*.oneseg"):
        shutil.copy2(path, dock.folder)
    dock.open(study)
    dock.settle()
    assert dock.shown == [4, 6]
    assert dock.widget.asking.isHidden()


def test_the_window_closes_without_a_question_and_without_loss(
    dock: StudyDock, study: Path, again: Callable[[], StudyDock]
) -> None:
    dock.widget.asking.may_close = lambda: pytest.fail("it is kept in the study")  # type: ignore[method-assign]
    dock.open(study)
    dock.paint(4)
    assert not dock.widget.eventFilter(dock.widget.window(), QEvent(QEvent.Type.Close))
    dock = again()
    assert not any(dock.folder.glob("*.oneseg")), "the study has it; nothing is offered a second time"
    dock.open(study)
    assert dock.shown == [4]


def test_a_study_that_is_closed_leaves_nothing_behind_and_opens_as_it_was(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.paint(4)
    dock.press("close")
    assert dock.widget.view.study.isHidden()
    assert len(dock.viewer.layers) == 0
    other = Claims(study / "oneseg-results")
    assert other.take("a"), "others may have it"
    other.give_back()
    dock.open(study)
    assert dock.here == "a"
    assert dock.shown == [4]
    assert dock.images == ["a"]


def test_what_was_made_in_two_planes_is_there_in_both_also_later(
    dock: StudyDock, study: Path, again: Callable[[], StudyDock]
) -> None:
    dock.open(study)
    dock.paint(4)
    dock.widget.opener.change_axis(1)
    dock.settle()
    dock.layer.data[2:6, 3, 10:14] = 1
    dock.widget.painter.compare()
    dock.settle()
    both = dock.layer.data.copy()
    dock = again()
    dock.open(study)
    np.testing.assert_array_equal(dock.layer.data, both)
    dock.widget.opener.change_axis(0)
    dock.settle()
    np.testing.assert_array_equal(dock.layer.data, both)
    assert dock.widget.controller.state is not None
    assert list(dock.widget.controller.state.painted) == [4], "painted here, so labels set out from it again"
    dock.press("next")
    dock.press("previous")
    np.testing.assert_array_equal(dock.layer.data, both)


def test_work_on_a_scan_that_was_removed_by_hand_is_kept(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.paint(4)
    dock.viewer.layers.remove("a")
    dock.settle()
    assert not dock.widget.studier.is_open
    dock.widget.view.study.list.scan_chosen.emit("a")
    dock.settle()
    assert dock.shown == [4]


def test_work_on_another_scan_of_that_name_is_set_aside(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    dock.paint(4)
    dock.press("next")
    volume = small_scan(7)
    write_image(study / "a.nii.gz", volume.array, volume)
    dock.press("previous")
    assert dock.shown == []
    assert "another scan" in dock.said
    dock.paint(2)
    dock.press("next")
    results = study / "oneseg-results"
    assert (results / "a.oneseg.earlier-1").exists()
    dock.press("previous")
    assert dock.shown == [2]


def test_work_that_is_damaged_is_set_aside(dock: StudyDock, study: Path) -> None:
    results = study / "oneseg-results"
    results.mkdir()
    (results / "a.oneseg").write_bytes(b"no session")
    dock.open(study)
    assert dock.here == "a"
    assert "set aside" in dock.said
    assert (results / "a.oneseg.earlier-1").read_bytes() == b"no session"


def test_painted_slices_that_came_with_the_scan_are_there(dock: StudyDock, study: Path) -> None:
    volume = small_scan(0)
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[3, 10:20, 12:24] = 2
    write_labels(study / "a_annotation.nii.gz", labels, volume)
    dock.open(study)
    assert dock.shown == [3]
    assert dock.widget.controller.state is not None
    assert list(dock.widget.controller.state.painted) == [3]
    assert dock.agrees
    scan = dock.widget.controller.scan
    assert scan is not None
    np.testing.assert_array_equal(scan.shown.to_file.apply(dock.layer.data), labels)


# After ``oneseg batch propagate``


@pytest.fixture
def propagate_all(dock: StudyDock, study: Path, tmp_path: Path) -> Callable[[], dict[str, str]]:
    """The command, with the weights of the window: what became of each scan."""
    path = tmp_path / "tiny.safetensors"
    save_weights(path, WEIGHTS.network, WEIGHTS.preprocessing, {})
    dock.widget.controller.weights = load_weights(path)

    def run() -> dict[str, str]:
        tasks, _ = tasks_of(open_study(study), "propagate", Settings(path, "cpu"))
        return {outcome.name: outcome.status for outcome in run_batch(open_study(study), tasks, partial(map, run_task))}

    return run


@pytest.fixture
def label_file(study: Path) -> Path:
    """A slice of ``a`` painted elsewhere, on a scan that the window shows turned."""
    volume = replace(small_scan(0), direction=np.eye(3)[:, ::-1] * (-1, 1, -1))
    write_image(study / "a.nii.gz", volume.array, volume)
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[3, 10:20, 12:24] = 2
    path = study / "a_annotation.nii.gz"
    write_labels(path, labels, volume)
    return path


def test_propagated_labels_of_a_label_file_are_there_to_be_corrected(
    dock: StudyDock, study: Path, label_file: Path, propagate_all: Callable[[], dict[str, str]]
) -> None:
    assert propagate_all() == {"a": "made"}
    dock.open(study)
    controller = dock.widget.controller
    scan, state, session = controller.scan, controller.state, controller.session
    assert scan is not None
    assert state is not None
    assert session is not None
    written = read_labels(labels_path(study / "oneseg-results", "a"), scan.shown)
    np.testing.assert_array_equal(dock.layer.data, written)
    assert len(dock.shown) > 5
    assert dock.agrees
    assert list(state.painted) == [6], "the third of ten slices, counted from the other end"
    assert not state.stale
    assert dock.widget.link.current() == 6
    assert np.isfinite(session.result().slice_confidence[dock.shown]).all()
    assert not controller.doing, "nothing was computed but the features"
    dock.press("next")
    assert kept(study, "a").status == "open", "it was only looked at"
    assert not (study / "oneseg-results" / "a.oneseg").exists()
    dock.press("previous")
    dock.paint(7, label=2, centre=(4, 4))
    dock.press("next")
    assert kept(study, "a").corrections == 1
    dock.press("previous")
    assert 7 in state_of(dock).complete
    assert propagate_all() == {"a": "made"}, "from what was corrected"
    dock.press("next")
    dock.press("previous")
    assert 7 in state_of(dock).complete
    assert not state_of(dock).stale


def state_of(dock: StudyDock) -> SessionState:
    state = dock.widget.controller.state
    assert state is not None
    return state


def test_a_scan_painted_in_the_window_is_shown_with_what_was_propagated_since(
    dock: StudyDock, study: Path, propagate_all: Callable[[], dict[str, str]]
) -> None:
    dock.open(study)
    dock.widget.controller.book.restyle(1, "Liver")
    dock.paint(4)
    dock.press("next")
    dock.paint(5)
    dock.press("next")
    assert propagate_all() == {"a": "made", "b": "made"}
    before = (study / "oneseg-results" / "a.oneseg").read_bytes()
    dock.widget.view.study.list.scan_chosen.emit("a")
    dock.settle()
    assert len(dock.shown) > 5
    assert not state_of(dock).stale
    assert dock.widget.controller.book.style(1).name == "Liver"
    dock.press("next")
    assert (study / "oneseg-results" / "a.oneseg").read_bytes() == before, "it was only looked at"
    dock.press("previous")
    dock.layer.data[:] = 0
    dock.layer.data[4, 10:14, 10:14] = 1
    dock.press("next")
    dock.press("previous")
    assert dock.shown == [4], "what was made in the window comes first"


def test_what_was_painted_since_is_not_hidden_by_what_was_propagated(
    dock: StudyDock, study: Path, label_file: Path, propagate_all: Callable[[], dict[str, str]]
) -> None:
    propagate_all()
    labels = read_labels(label_file, read_volume(study / "a.nii.gz"))
    labels[4] = labels[6]
    write_labels(label_file, labels, read_volume(study / "a.nii.gz"))
    dock.open(study)
    assert dock.shown == [4, 6]
    dock.press("next")
    assert propagate_all() == {"a": "made"}
    dock.press("previous")
    assert len(dock.shown) > 5
    assert sorted(state_of(dock).painted) == [4, 6]


def test_of_a_scan_that_was_replaced_only_the_label_file_is_taken(
    dock: StudyDock, study: Path, label_file: Path, propagate_all: Callable[[], dict[str, str]]
) -> None:
    propagate_all()
    volume = replace(small_scan(5), direction=np.eye(3)[:, ::-1] * (-1, 1, -1))
    write_image(study / "a.nii.gz", volume.array, volume)
    dock.open(study)
    assert dock.shown == [6]


def test_propagated_labels_that_are_called_done_are_the_user_s(
    dock: StudyDock, study: Path, label_file: Path, propagate_all: Callable[[], dict[str, str]]
) -> None:
    propagate_all()
    dock.open(study)
    before = dock.layer.data.copy()
    dock.press("done")
    assert kept(study, "a").status == "done"
    write_labels(label_file, np.ones_like(before), read_volume(study / "a.nii.gz"))
    assert propagate_all() == {"a": "kept"}
    dock.press("previous")
    np.testing.assert_array_equal(dock.layer.data, before)


def test_names_of_labels_go_along_to_scans_that_come_with_labels(
    dock: StudyDock, study: Path, propagate_all: Callable[[], dict[str, str]]
) -> None:
    volume = small_scan(1)
    for name in ("b", "c"):
        labels = np.zeros(volume.array.shape, np.uint8)
        labels[3, 10:20, 12:24] = 2
        write_labels(study / f"{name}_annotation.nii.gz", labels, volume)
    tasks = propagate_all()
    (study / "oneseg-results" / "propagated" / "c.oneseg").unlink()
    assert tasks == {"b": "made", "c": "made"}
    dock.open(study)
    dock.widget.controller.book.restyle(2, "Liver")
    dock.paint(4)
    for name, many in (("b", True), ("c", False)):
        dock.press("next")
        assert dock.here == name
        assert (len(dock.shown) > 1) == many
        assert dock.widget.controller.book.style(2).name == "Liver"


def test_strokes_that_a_crash_has_left_are_newer_than_what_was_propagated(
    dock: StudyDock, study: Path, propagate_all: Callable[[], dict[str, str]], again: Callable[[], StudyDock]
) -> None:
    """The command was run after the crash, and knew nothing of the last stroke."""
    weights = dock.widget.controller.weights
    dock.open(study)
    dock.paint(4)
    dock.press("next")
    dock.press("previous")
    dock.paint(6)
    dock.settle()
    dock.crash()
    dock = again()
    dock.widget.controller.weights = weights
    assert propagate_all() == {"a": "made"}
    dock.open(study)
    dock.settle()
    assert sorted(state_of(dock).painted) == [4, 6]
    assert dock.widget.asking.isHidden()


# Two windows


def test_two_windows_never_have_the_same_scan(dock: StudyDock, study: Path) -> None:
    other = Claims(study / "oneseg-results")
    other.take("a")
    dock.open(study)
    assert dock.here == "b"
    dock.widget.studier.keeper.clock.__init__(lambda: 0.0)  # type: ignore[misc]
    dock.widget.studier.keeper.clock.seconds = 60.0
    dock.widget.view.study.list.scan_chosen.emit("a")
    dock.settle()
    assert dock.here == "b"
    assert "Another window works on a" in dock.said
    dock.widget.studier.keeper.flush()
    dock.settle()
    assert kept(study, "b").seconds == pytest.approx(60, abs=5), "counted once"
    dock.press("next")
    dock.press("next")
    assert dock.here == "b", "past the one that is taken"
    other.give_back()
    dock.press("next")
    dock.press("next")
    assert dock.here == "a"
    assert not other.take("a")


def test_a_window_sees_what_another_one_has_done(dock: StudyDock, study: Path) -> None:
    dock.open(study)
    other = StudyDesk(study)
    assert other.arrive(other.left_off()) is not None
    other.keep("b", study_desk.Left({"status": "done", "slices_painted": 4}, seconds=120))
    dock.widget.studier.keeper.flush()
    dock.settle()
    row = dock.widget.view.study.list._model.rows[1]
    assert (row.slices, row.minutes) == ("4", "2.0")
    dock.paint(4)
    dock.press("done")
    assert dock.here == "c"
    assert kept(study, "b").slices_painted == 4, "what the other one wrote is still there"
    other.claims.give_back()


@pytest.mark.parametrize("way", ["closed study", "closed window", "next and back"])
def test_a_scan_is_found_on_the_slice_it_was_left_at(
    dock: StudyDock, study: Path, again: Callable[[], StudyDock], way: str
) -> None:
    dock.open(study)
    dock.paint(4)
    dock.press("next")
    dock.press("previous")
    dock.widget.link.go_to(7)
    dock.settle()
    if way == "next and back":
        dock.press("next")
        dock.widget.link.go_to(2)
        dock.settle()
        dock.press("previous")
    else:
        if way == "closed study":
            dock.press("close")
        dock = again()
        dock.open(study)
    assert dock.here == "a"
    assert dock.shown == [4]
    assert dock.widget.link.current() == 7
    assert dock.widget.controller.current == 7
