"""The work is kept while it is done, and found by the next window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from napari_oneseg import session
from napari_oneseg.plugin.autosaving import Autosaver
from napari_oneseg.plugin.controller import Controller
from napari_oneseg.session_file import SavedSession
from tests.plugin.plugin_fixtures import STACK, opened_controller, painted

pytestmark = pytest.mark.usefixtures("qapp")


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setattr(session, "compute_features", lambda *_: STACK)
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
    controller.restyle(1, "Liver")
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
