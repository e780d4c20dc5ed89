"""The work is kept while it is done, and found by the next window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from napari import Viewer
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent

from napari_oneseg import autosave, scan_features
from napari_oneseg.autosave import AutosaveStore
from napari_oneseg.errors import OutputError
from napari_oneseg.plugin.autosaving import Autosaver
from napari_oneseg.plugin.controller import Controller
from napari_oneseg.session_file import SavedSession
from tests.plugin.plugin_fixtures import STACK, opened_controller, painted
from tests.plugin.test_widget import Desk

pytestmark = pytest.mark.usefixtures("qapp")


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    return opened_controller()


@pytest.fixture
def saver(controller: Controller, tmp_path: Path) -> Iterator[Autosaver]:
    saver = Autosaver(controller, 0.05, tmp_path)
    yield saver
    saver.enabled = False
    saver.close()


def kept(folder: Path, scan: str, qtbot: QtBot, other: Controller) -> SavedSession | None:
    """What the next window would find, once this one is gone."""
    saver, loaded = Autosaver(other, 5, folder), []
    saver.find(scan, lambda found: saver.load(found, loaded.append, pytest.fail))
    qtbot.waitUntil(lambda: not saver.busy, timeout=10_000)
    saver.close()
    return loaded[0] if loaded else None


def scan_of(controller: Controller) -> str:
    assert controller.session is not None
    return controller.session.volume.content_hash


def test_a_stroke_is_on_disk_at_once_and_results_a_little_later(
    controller: Controller, saver: Autosaver, tmp_path: Path, qtbot: QtBot
) -> None:
    controller.stroke({4: painted()})
    qtbot.waitUntil(lambda: any(tmp_path.glob("*.oneseg")), timeout=10_000)
    controller.book.restyle(1, "Liver")
    controller.propagate()
    qtbot.waitUntil(lambda: any(tmp_path.glob("*.results")) and not saver.busy, timeout=10_000)
    qtbot.wait(200)
    assert controller.session is not None
    expected = controller.session.labels
    saver.close()
    found = kept(tmp_path, scan_of(controller), qtbot, controller)
    assert found is not None
    assert found.extras["labels"]["1"]["name"] == "Liver"
    other = opened_controller()
    other.resume(found, found.extras)
    assert other.session is not None
    np.testing.assert_array_equal(other.session.labels, expected)


def test_closing_keeps_what_no_timer_has_kept_yet(controller: Controller, tmp_path: Path, qtbot: QtBot) -> None:
    saver = Autosaver(controller, 600, tmp_path)
    controller.stroke({4: painted()})
    controller.stroke({5: painted()})
    saver.close()
    found = kept(tmp_path, scan_of(controller), qtbot, controller)
    assert found is not None
    assert sorted(found.state.painted) == [4, 5]


def test_many_strokes_in_a_row_are_all_there(
    controller: Controller, saver: Autosaver, tmp_path: Path, qtbot: QtBot
) -> None:
    for index in range(10):
        controller.stroke({index: painted()})
    qtbot.waitUntil(lambda: not saver.busy, timeout=10_000)
    qtbot.wait(300)
    files = list(tmp_path.glob("*.oneseg"))
    assert len(files) == 1, "one file for each scan and window"


def test_where_it_is_switched_off_nothing_is_written(controller: Controller, tmp_path: Path, qtbot: QtBot) -> None:
    saver = Autosaver(controller, 0.05, tmp_path)
    saver.enabled = False
    controller.stroke({4: painted()})
    qtbot.wait(200)
    saver.close()
    assert not any(tmp_path.glob("*.oneseg"))


def test_a_folder_that_cannot_be_written_is_told_and_stops_nothing(
    controller: Controller, tmp_path: Path, qtbot: QtBot
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    saver = Autosaver(controller, 600, blocked)
    with qtbot.waitSignal(saver.failed, timeout=10_000) as told:
        controller.stroke({4: painted()})
    assert "could not be kept" in told.args[0]
    saver.enabled = False
    saver.close()


def test_taking_up_work_keeps_it_under_the_new_window(controller: Controller, tmp_path: Path, qtbot: QtBot) -> None:
    first = Autosaver(controller, 600, tmp_path)
    controller.stroke({4: painted()})
    first.close()
    controller.worked.disconnect()
    other = opened_controller()
    second, found = Autosaver(other, 600, tmp_path), []
    second.find(scan_of(controller), found.append)
    qtbot.waitUntil(lambda: bool(found), timeout=10_000)
    second.taken_up(found[0])
    qtbot.waitUntil(lambda: not second.busy, timeout=10_000)
    assert found[0].path.exists(), "nothing was taken up yet: it stays"
    second.load(found[0], lambda saved: other.resume(saved, saved.extras), pytest.fail)
    qtbot.waitUntil(lambda: not second.busy, timeout=10_000)
    second.taken_up(found[0])
    qtbot.waitUntil(lambda: not second.busy, timeout=10_000)
    assert not found[0].path.exists()
    assert len(list(tmp_path.glob("*.oneseg"))) == 1
    second.close()


# What goes wrong -------------------------------------------------------------------------------------------------


class FullDisk:
    """A disk without room, until there is some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.tried = True, 0
        self.real = autosave.save_session
        monkeypatch.setattr(autosave, "save_session", self)

    def __call__(self, path: Path, saved: SavedSession) -> None:
        self.tried += 1
        if self.full:
            raise OutputError("the disk is full")
        self.real(path, saved)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


def test_a_full_disk_is_told_once_and_tried_again(
    controller: Controller, saver: Autosaver, disk: FullDisk, tmp_path: Path, qtbot: QtBot
) -> None:
    told: list[str] = []
    saver.failed.connect(told.append)
    controller.stroke({4: painted()})
    qtbot.waitUntil(lambda: disk.tried > 3, timeout=10_000)
    assert told == ["The work could not be kept for the case of a crash: the disk is full"]
    disk.full = False
    qtbot.waitUntil(lambda: any(tmp_path.glob("*.oneseg")), timeout=10_000)
    qtbot.waitUntil(lambda: not saver.busy, timeout=10_000)
    tried = disk.tried
    qtbot.wait(200)
    assert disk.tried == tried, "it rests once all is kept"
    disk.full = True
    with qtbot.waitSignal(saver.failed, timeout=10_000):
        controller.stroke({5: painted()})
    disk.full = False


def test_closing_over_a_full_disk_says_so(controller: Controller, disk: FullDisk, tmp_path: Path, qtbot: QtBot) -> None:
    saver, told = Autosaver(controller, 600, tmp_path), []
    assert saver.keep() == "", "there is nothing to keep"
    saver.failed.connect(told.append)
    controller.stroke({4: painted()})
    qtbot.waitUntil(lambda: bool(told), timeout=10_000)
    assert saver.keep() == "the disk is full"
    disk.full = False
    controller.stroke({5: painted()})
    assert saver.keep() == ""
    (found,) = AutosaveStore(tmp_path).find_all(scan_of(controller))
    assert found.painted == 2
    disk.full = True
    saver.close()
    assert len(told) == 2


def test_of_two_windows_the_second_is_told(
    controller: Controller, saver: Autosaver, tmp_path: Path, qtbot: QtBot
) -> None:
    told: list[tuple[str, str]] = []
    saver.told.connect(lambda sentence: told.append(("first", sentence)))
    controller.stroke({4: painted()})
    qtbot.waitUntil(lambda: any(tmp_path.glob("*.oneseg")) and not saver.busy, timeout=10_000)
    other = opened_controller()
    second = Autosaver(other, 0.05, tmp_path)
    second.told.connect(lambda sentence: told.append(("second", sentence)))
    second.find(scan_of(controller), pytest.fail)
    qtbot.waitUntil(lambda: not second.busy, timeout=10_000)
    assert [who for who, _ in told] == ["second"]
    assert "Another window works on this scan" in told[0][1]
    other.stroke({5: painted()})
    controller.stroke({6: painted()})
    qtbot.waitUntil(lambda: not (second.busy or saver.busy), timeout=10_000)
    second.close()
    saver.close()
    found = AutosaveStore(tmp_path).find_all(scan_of(controller))
    assert sorted(sorted(AutosaveStore(tmp_path).load(one).state.painted) for one in found) == [[4, 6], [5]]
    assert len(told) == 1, "once is enough"


def test_a_window_that_was_open_before_is_noticed_when_both_paint(
    controller: Controller, saver: Autosaver, tmp_path: Path, qtbot: QtBot
) -> None:
    other = opened_controller()
    second, told = Autosaver(other, 600, tmp_path), []
    second.told.connect(told.append)
    second.find(scan_of(controller), pytest.fail)
    qtbot.waitUntil(lambda: not second.busy, timeout=10_000)
    controller.stroke({4: painted()})
    qtbot.waitUntil(lambda: any(tmp_path.glob("*.oneseg")) and not saver.busy, timeout=10_000)
    assert not told
    other.stroke({5: painted()})
    qtbot.waitUntil(lambda: bool(told), timeout=10_000)
    second.close()


def test_the_window_stays_open_if_its_work_cannot_be_kept(
    make_napari_viewer: Callable[[], Viewer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, qtbot: QtBot
) -> None:
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    desk = Desk(make_napari_viewer(), qtbot, tmp_path)
    desk.add_scan()
    desk.paint(4)
    desk.settle()
    disk, questions, widget = FullDisk(monkeypatch), [], desk.widget
    desk.paint(5)
    widget.asking.may_close = lambda: True  # type: ignore[method-assign]
    widget.asking.is_sure = lambda question: questions.append(question) or False  # type: ignore[func-returns-value, method-assign]
    close = QEvent(QEvent.Type.Close)
    assert widget.eventFilter(widget.window(), close), "the user does not want to lose it"
    assert "cannot be kept. the disk is full" in questions[0]
    disk.full = False
    assert not widget.eventFilter(widget.window(), close)
    assert len(questions) == 1
    widget.shut_down()
    (found,) = AutosaveStore(tmp_path).find_all(widget.controller.session.volume.content_hash)
    assert found.painted == 2
