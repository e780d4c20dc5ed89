from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QHelpEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QToolTip

from napari_oneseg.plugin.strip import HEIGHT, SliceStrip
from napari_oneseg.plugin.view_model import StripData

SCORE = np.linspace(0, 1, 40, dtype=np.float32)


def large(n_slices: int = 600, n_labels: int = 13) -> StripData:
    random = np.random.default_rng(0)
    return StripData(
        n_slices,
        score=random.random(n_slices, dtype=np.float32),
        areas={label: 900 * random.random(n_slices, dtype=np.float32) for label in range(1, n_labels + 1)},
        confidence=random.random(n_slices, dtype=np.float32),
        painted=frozenset({300, 410}),
        frozen=frozenset(range(100, 250)),
        corrected=frozenset({120}),
        stale=frozenset(range(50, 90)),
        suggested=(310, 20, 500),
        range=(20, 580),
        colours={label: (0.07 * label, 0.5, 0.5, 1.0) for label in range(1, n_labels + 1)},
    )


@pytest.fixture
def strip(qtbot: QtBot) -> SliceStrip:
    strip = SliceStrip()
    qtbot.addWidget(strip)
    strip.resize(300, HEIGHT)
    with qtbot.waitExposed(strip):
        strip.show()
    strip.activateWindow()
    strip.set_data(StripData(40, score=SCORE, suggested=(30, 12)))
    qtbot.wait(20)
    return strip


def place(strip: SliceStrip, index: float, height: float = 0.5) -> QPoint:
    return strip.plot.mapFromScene(strip.plot.getViewBox().mapViewToScene(QPointF(index, height)))


def drag(
    strip: SliceStrip, qtbot: QtBot, start: float, *way: float, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Press at one place, move on, and let something happen after each move."""
    view = strip.plot.viewport()
    QTest.mouseMove(view, place(strip, start), 15)
    QTest.mousePress(view, Qt.MouseButton.LeftButton, pos=place(strip, start))
    for index in way:
        QTest.mouseMove(view, place(strip, index), 15)
        qtbot.wait(20)
        meanwhile()
    QTest.mouseRelease(view, Qt.MouseButton.LeftButton, pos=place(strip, way[-1]))


def test_a_click_goes_to_the_slice(strip: SliceStrip, qtbot: QtBot) -> None:
    strip.set_current(5)
    for index in (0, 17, 39):
        with qtbot.waitSignal(strip.slice_chosen) as chosen:
            qtbot.mouseClick(strip.plot.viewport(), Qt.MouseButton.LeftButton, pos=place(strip, index))
        assert chosen.args == [index]
        strip.set_current(5)


def test_dragging_passes_through_the_slices(strip: SliceStrip, qtbot: QtBot) -> None:
    chosen: list[int] = []
    strip.slice_chosen.connect(chosen.append)
    drag(strip, qtbot, 10, 14, 18, 22)
    assert chosen[-1] == 22
    assert len(chosen) > 1


def test_the_keyboard_moves_the_current_slice(strip: SliceStrip, qtbot: QtBot) -> None:
    chosen: list[int] = []
    strip.slice_chosen.connect(chosen.append)
    strip.set_current(38)
    for key in ("Right", "Right", "Left", "PageUp", "Home", "Left", "End", "PageDown"):
        qtbot.keyClick(strip, getattr(Qt.Key, f"Key_{key}"))
    assert chosen == [39, 38, 28, 0, 39], "at either end nothing more is announced"


def test_setting_announces_nothing(strip: SliceStrip, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(strip.slice_chosen, wait=30), qtbot.assertNotEmitted(strip.range_edited, wait=30):
        strip.set_data(large())
        strip.set_current(17)
        strip.set_data(StripData(0))
        strip.set_data(StripData(40, range=(3, 5)))


def test_the_ranges_edge_is_dragged(strip: SliceStrip, qtbot: QtBot) -> None:
    strip.set_data(StripData(40, score=SCORE, range=(10, 30)))
    strip.grab()  # pyqtgraph knows where things are once it has drawn them
    edited: list[tuple[int, int]] = []
    strip.range_edited.connect(lambda first, last: edited.append((first, last)))

    def something_else_changes() -> None:
        before = strip._range.getRegion()
        strip.set_data(StripData(40, score=SCORE, range=(10, 30)))
        assert strip._range.getRegion() == before, "the edge stays in the hand"

    drag(strip, qtbot, 30.5, 32, 34, 35.7, meanwhile=something_else_changes)
    assert edited == [(10, 35)]
    assert strip._range.getRegion() == (9.5, 35.5), "it snaps to whole slices"


def test_clicks_and_drags_inside_the_range_still_go_to_slices(strip: SliceStrip, qtbot: QtBot) -> None:
    strip.set_data(StripData(40, score=SCORE, range=(10, 30)))
    strip.grab()
    view = strip.plot.viewport()
    chosen: list[int] = []
    strip.slice_chosen.connect(chosen.append)
    with qtbot.assertNotEmitted(strip.range_edited):
        qtbot.mouseClick(view, Qt.MouseButton.LeftButton, pos=place(strip, 20))
        drag(strip, qtbot, 18, 22, 24)
    assert chosen[0] == 20
    assert chosen[-1] == 24


def test_a_slice_is_described_in_words(strip: SliceStrip) -> None:
    assert strip.text_of(30) == "Slice 30: suggested, worth painting: 77 %"
    confidence = np.full(40, 0.64, np.float32)
    confidence[3] = np.nan
    areas = {1: np.ones(40, np.float32)}
    strip.set_data(
        StripData(
            40, score=SCORE, areas=areas, confidence=confidence, painted=frozenset({17}), frozen=frozenset({17}),
            corrected=frozenset({4}), stale=frozenset({4}),
        )
    )  # fmt: skip
    assert strip.text_of(17) == "Slice 17: painted, accepted, confidence 64 %"
    assert strip.text_of(4) == "Slice 4: corrected, out of date, confidence 64 %"
    assert strip.text_of(3) == "Slice 3"


def test_the_slice_under_the_mouse_is_described(strip: SliceStrip) -> None:
    position = place(strip, 30)
    event = QHelpEvent(QEvent.Type.ToolTip, position, strip.plot.viewport().mapToGlobal(position))
    QApplication.sendEvent(strip.plot.viewport(), event)
    assert QToolTip.text().startswith("Slice 30: suggested")
    assert "★ suggested" in QToolTip.text()
    QToolTip.hideText()


def test_a_suggestion_that_was_painted_is_no_longer_advertised(strip: SliceStrip) -> None:
    strip.set_data(StripData(40, score=SCORE, suggested=(30, 12), painted=frozenset({30})))
    assert strip._first_choice.getData()[0].tolist() == [12]
    assert "suggested" not in strip.text_of(30)


def test_every_mark_has_a_shape_of_its_own(strip: SliceStrip) -> None:
    symbols = [marks.opts["symbol"] for marks in strip._marks.values()]
    assert len(set(symbols)) == len(symbols)


def test_curves_of_labels_come_and_go(strip: SliceStrip) -> None:
    strip.set_data(large(n_slices=40, n_labels=1))
    strip.set_data(StripData(40, areas={5: np.arange(40, dtype=np.float32), 6: np.eye(40, dtype=np.float32)[7]}))
    shown = [curve for curve in strip._areas if curve.isVisible()]
    assert len(shown) == 2
    np.testing.assert_allclose(shown[0].getData()[1], np.arange(40) / 39, rtol=1e-6)
    assert np.flatnonzero(np.isfinite(shown[1].getData()[1])).tolist() == [6, 7, 8], "drawn where the label is"
    assert not strip._score.isVisible()
    strip.set_data(StripData(40, score=SCORE))
    assert not any(curve.isVisible() for curve in strip._areas)
    assert strip._score.isVisible()


def test_it_is_quick_with_many_slices_and_labels(strip: SliceStrip) -> None:
    data = large()
    strip.set_data(data)

    def best(action: object, *arguments: object) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            action(*arguments)  # type: ignore[operator]
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(strip.set_data, data) < 0.010
    assert best(strip.set_current, 17) < 0.002
    assert best(strip.grab) < 0.050, "drawing is the greater part"
