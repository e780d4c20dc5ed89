"""A user who does everything at the wrong moment: no error, no lost stroke, and the export is what the layer shows.

``ONESEG_MONKEY=20x200`` runs 20 seeds of 200 actions; by default there are few, so that the tests stay quick.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from napari import Viewer
from napari.layers import Image, Labels
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication

from napari_oneseg import scan_features
from napari_oneseg.plugin.widget import OneSegWidget
from tests.plugin.plugin_fixtures import COUNT, SHAPE, STACK, scan_layer
from tests.plugin.test_studying import StudyDock, new_dock, study  # noqa: F401 - a fixture
from tests.plugin.test_widget import Desk

SEEDS, ACTIONS = (int(part) for part in os.environ.get("ONESEG_MONKEY", "3x60").split("x"))


class Monkey:
    """Acts at random, and remembers what it has painted and nothing has taken back since."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self.desk, self.random = desk, np.random.default_rng(seed)
        self.widget, self.viewer = desk.widget, desk.viewer
        self.strokes: dict[tuple[int, int], dict[int, NDArray[np.int64]]] = {}
        self.exports = 0
        self.log: list[str] = []

    # What must hold ------------------------------------------------------------------------------------------------

    @property
    def key(self) -> tuple[int, int]:
        opener = self.widget.opener
        assert self.widget.controller.session is not None
        return id(opener._layer), self.widget.controller.session.volume.axis

    def remember(self, index: int, before: NDArray[np.generic]) -> None:
        """Note the pixels of a slice that a stroke has set to a label; the others are as they were."""
        layer = self.widget.painter.layer
        if layer is None:
            return
        now = np.moveaxis(layer.data, self.widget.link.axis, 0)[index].astype(np.int64)
        kept = self.strokes.setdefault(self.key, {}).get(index, np.full(now.shape, -1))
        self.strokes[self.key][index] = np.where((now != before) & (now > 0), now, np.where(now != before, -1, kept))

    def forget(self) -> None:
        self.strokes.clear()

    def check(self) -> None:
        self.desk.settle()
        layer, controller = self.widget.painter.layer, self.widget.controller
        if layer is None or controller.session is None:
            return
        self.widget.painter.compare()
        slices = np.moveaxis(layer.data, self.widget.link.axis, 0)
        state, labels = controller.session.state, controller.session.labels
        differing = {
            int(index): (
                *(index in held for held in (state.painted, state.complete, state.frozen, state.results)),
                np.unique(slices[index][slices[index] != labels[index]]),
                np.unique(labels[index][slices[index] != labels[index]]),
            )
            for index in np.flatnonzero((slices != labels).any((1, 2)))
        }
        binding = self.widget.painter._binding
        assert not differing, (differing, controller.doing, binding and binding._waiting.keys(), " ".join(self.log))
        for index, kept in self.strokes.get(self.key, {}).items():
            painted = kept >= 0
            assert np.array_equal(slices[index][painted], kept[painted]), (index, " ".join(self.log))

    # What it does --------------------------------------------------------------------------------------------------

    def act(self) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (8, self.paint), (2, self.fill), (2, self.erase), (2, self.write_directly), (1, self.napari_undo),
            (3, self.undo), (2, self.redo), (6, self.propagate), (1, self.cancel), (2, self.accept), (1, self.reopen),
            (2, self.next_slice), (1, self.export), (1, self.remove_labels), (1, self.remove_scan), (1, self.switch),
            (1, self.axis), (1, self.names_and_order), (1, self.view), (1, self.limits), (1, self.locate),
            (1, self.label), (1, self.remove_label), (1, self.other_layer), (1, self.doubt), (1, self.live),
            (1, self.explain), (1, self.direction), (1, self.wait), (1, self.open_stroke),
        ]  # fmt: skip
        weights = np.array([weight for weight, _ in actions], float)
        _, action = actions[int(self.random.choice(len(actions), p=weights / weights.sum()))]
        self.log.append(action.__name__)
        action()
        if self.random.random() < 0.5:
            QApplication.processEvents()

    def layer(self) -> Labels | None:
        return self.widget.painter.layer

    def place(self) -> tuple[int, ...]:
        shape = (COUNT, *SHAPE)
        place = [int(self.random.integers(size)) for size in shape]
        shown = self.widget.link.current()
        if shown is not None and self.random.random() < 0.7:
            place[self.widget.link.axis] = shown
        return tuple(place)

    def stroke(self, do: Callable[[Labels, tuple[int, ...]], None]) -> None:
        layer = self.layer()
        if layer is None or self.widget.controller.session is None:
            return
        place = self.place()
        slices = np.moveaxis(layer.data, self.widget.link.axis, 0)
        before = slices.copy()
        do(layer, place)
        for index in np.flatnonzero((slices != before).any((1, 2))):
            self.remember(int(index), before[index])

    def paint(self) -> None:
        def do(layer: Labels, place: tuple[int, ...]) -> None:
            layer.brush_size = int(self.random.integers(1, 12))
            layer.paint(place, int(self.random.integers(1, 4)))

        self.stroke(do)

    def fill(self) -> None:
        self.stroke(lambda layer, place: layer.fill(place, int(self.random.integers(1, 4))))

    def erase(self) -> None:
        self.stroke(lambda layer, place: layer.paint(place, 0))

    def write_directly(self) -> None:
        def do(layer: Labels, place: tuple[int, ...]) -> None:
            z, y, x = place
            layer.data[z, y : y + 3, x : x + 3] = 2
            self.widget.painter.compare()

        self.stroke(do)

    def napari_undo(self) -> None:
        layer = self.layer()
        if layer is not None:
            layer.undo()
            self.widget.painter.compare()
            self.forget()

    def undo(self) -> None:
        QApplication.processEvents()
        self.widget.undo()
        self.forget()

    def redo(self) -> None:
        QApplication.processEvents()
        self.widget.redo()
        self.forget()

    def propagate(self) -> None:
        self.widget.propagate()

    def cancel(self) -> None:
        self.widget.controller.cancel()

    def accept(self) -> None:
        self.widget.accept_slice()

    def reopen(self) -> None:
        self.widget.accept_slice(False)

    def next_slice(self) -> None:
        self.widget.next_slice_to_check()

    def export(self) -> None:
        self.check()
        controller, layer = self.widget.controller, self.layer()
        if controller.scan is None or layer is None:
            return
        path = self.desk.folder.parent / f"{self.exports}.nii.gz"
        self.widget.export(path)
        self.desk.settle()
        self.exports += 1
        if not path.exists():  # a stroke was found just now, and live mode works on it
            assert self.widget.view.messages.text.text().startswith("Wait"), " ".join(self.log)
            return
        written = np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)
        assert np.array_equal(written, controller.scan.shown.to_file.apply(layer.data)), " ".join(self.log)

    def remove_labels(self) -> None:
        layer = self.layer()
        if layer is not None:
            self.viewer.layers.remove(layer)
            self.check()
            self.widget.painter.start()

    def remove_scan(self) -> None:
        scans = self.widget.link.scans()
        if len(scans) > 1 and self.random.random() < 0.5:
            self.viewer.layers.remove(scans[int(self.random.integers(len(scans)))])
            self.desk.settle()
            self.forget()
        elif len(scans) < 3:
            self.desk.add_scan(int(self.random.integers(5)), f"scan {len(' '.join(self.log))}")

    def switch(self) -> None:
        scans: list[Image] = self.widget.link.scans()
        self.widget.opener.open_key(id(scans[int(self.random.integers(len(scans)))]))
        self.desk.settle()

    def axis(self) -> None:
        if self.widget.controller.session is not None and self.random.random() < 0.3:
            self.widget.opener.change_axis(int(self.random.integers(3)))
            self.desk.settle()
            # The features made by hand fit one axis only.
            self.widget.opener.change_axis(0)
            self.desk.settle()

    def names_and_order(self) -> None:
        layers = self.viewer.layers
        layers[int(self.random.integers(len(layers)))].name = f"layer {len(' '.join(self.log))}"
        layers.move(int(self.random.integers(len(layers))), int(self.random.integers(len(layers))))

    def view(self) -> None:
        dims = self.viewer.dims
        kind = int(self.random.integers(4))
        if kind == 0:
            dims.ndisplay = 5 - dims.ndisplay
        elif kind == 1:
            dims.roll()
        elif kind == 2:
            dims.transpose()
        else:
            self.widget.link.go_to(int(self.random.integers(COUNT)))

    def limits(self) -> None:
        if self.widget.controller.session is not None:
            first, last = sorted(int(k) for k in self.random.integers(0, COUNT, 2))
            self.widget.controller.target.set_range((first, last) if self.random.random() < 0.5 else None)

    def locate(self) -> None:
        if self.widget.controller.session is not None and self.widget.link.axis == 0:
            self.widget.inspector.set_locating(True)
            z, y, x = self.place()
            self.widget.link.clicked.emit(z, y, x)

    def explain(self) -> None:
        if self.widget.controller.session is not None and self.widget.link.axis == 0:
            self.widget.inspector.set_explaining(True)
            z, y, x = self.place()
            self.widget.link.clicked.emit(z, y, x)
            self.widget.inspector.set_explaining(False)

    def label(self) -> None:
        book = self.widget.controller.book
        book.add()
        book.restyle(book.selected, name=f"organ {len(' '.join(self.log))}")

    def remove_label(self) -> None:
        self.widget.controller.remove_label(int(self.random.integers(1, 4)))
        self.forget()

    def other_layer(self) -> None:
        self.check()
        choices, _ = self.widget.painter.choices()
        if self.widget.controller.session is not None:
            self.widget.painter.choose(choices[int(self.random.integers(len(choices)))].key)
            self.forget()

    def doubt(self) -> None:
        self.widget.inspector.set_doubt_shown(not self.widget.inspector.doubt_shown)

    def live(self) -> None:
        self.widget.controller.propagator.live = not self.widget.controller.propagator.live

    def direction(self) -> None:
        self.widget.controller.propagator.direction = ("both", "up", "down")[int(self.random.integers(3))]  # type: ignore[assignment]

    def wait(self) -> None:
        self.desk.qtbot.wait(int(self.random.integers(1, 60)))

    def open_stroke(self) -> None:
        """A right click in paint mode: a stroke that stays open while other things happen."""
        layer = self.layer()
        if layer is None:
            return
        overlay = layer._overlays["brush_stroke"]
        overlay.center = (0.0, 0.0, 0.0)
        overlay.active = True
        self.propagate()
        self.desk.qtbot.wait(40)
        overlay.active = False


class Wanderer:
    """Goes from scan to scan by every door, and paints on whatever labels layer is selected then."""

    def __init__(self, dock: StudyDock, seed: int) -> None:
        self.dock, self.random = dock, np.random.default_rng(seed)
        self.widget, self.viewer, self.scene = dock.widget, dock.viewer, dock.widget.link.scene
        self.strokes: dict[str, NDArray[np.int64]] = {}
        self.log: list[str] = []

    def act(self) -> None:
        actions = (
            self.open, self.choose, self.plane, self.next, self.previous, self.select, self.select, self.delete,
            self.stroke, self.stroke, self.stroke,
        )  # fmt: skip
        action = actions[int(self.random.integers(len(actions)))]
        self.log.append(action.__name__)
        action()
        self.dock.settle()
        self.check()

    def one_of(self, layers: list[Any]) -> Any:
        return layers[int(self.random.integers(len(layers)))] if layers else None

    def open(self) -> None:
        if len(self.widget.link.scans()) < 4:
            layer = scan_layer(int(self.random.integers(5)), f"other {len(self.log)}")
            self.viewer.add_layer(layer)

    def choose(self) -> None:
        scan = self.one_of(self.widget.link.scans())
        if scan is not None:
            self.widget.view.scan.scan_chosen.emit(id(scan))

    def plane(self) -> None:
        self.widget.opener.change_axis(int(self.random.integers(3)))

    def next(self) -> None:
        self.widget.studier.next()

    def previous(self) -> None:
        self.widget.studier.previous()

    def select(self) -> None:
        layer = self.one_of(list(self.viewer.layers))
        self.log.append(str(layer))
        if layer is not None:
            self.viewer.layers.selection.active = layer

    def delete(self) -> None:
        layer = self.one_of(list(self.viewer.layers))
        if layer is None or self.random.random() < 0.5:
            return
        self.log.append(layer.name)
        self.viewer.layers.selection.active = layer
        self.dock.settle()
        if layer not in self.viewer.layers:  # the mark of a scan that was left
            return
        if layer.name.startswith("other") and isinstance(layer, Image):
            self.strokes.pop(layer.name, None)  # kept for the case that it is opened again
        self.viewer.layers.remove_selected()

    def stroke(self) -> None:
        layer, scan = self.viewer.layers.selection.active, self.widget.controller.scan
        if scan is None:
            return
        if layer is not self.widget.painter.layer:
            if isinstance(layer, Labels):
                assert self.scene.warning, " ".join(self.log)
            self.widget.painter.start()
            layer = self.widget.painter.layer
        assert layer is not None
        layer.brush_size = int(self.random.integers(1, 8))
        place = tuple(int(self.random.integers(size)) for size in layer.data.shape)
        before = layer.data.copy()
        layer.paint(place, int(self.random.integers(1, 4)))
        QApplication.processEvents()
        known = self.strokes.setdefault(scan.name, np.zeros(layer.data.shape, np.int64))
        known[layer.data != before] = layer.data[layer.data != before]

    def check(self) -> None:
        log = " ".join(self.log)
        opener, controller, shown = self.widget.opener, self.widget.controller, opener_key(self.widget)
        if opener.layer is None:
            assert controller.session is None, log
            return
        assert shown == id(opener.layer), log
        assert controller.scan is not None, (log, self.widget.view.messages.text.text())
        assert controller.scan.name == opener.layer.name, log
        seen = [layer for layer in self.viewer.layers if layer.visible and isinstance(layer, Image | Labels)]
        assert opener.layer in seen, log
        assert all(self.scene.owner(layer) is opener.layer for layer in seen), (log, seen)
        active = self.viewer.layers.selection.active
        assert active is None or self.scene.owner(active) in (opener.layer, None), (log, active)
        spans = [round(float(side.stop - side.start), 3) for side in self.viewer.dims.range]
        sizes = zip(opener.layer.data.shape, opener.layer.scale, strict=True)
        assert spans == [round(float((size - 1) * scale), 3) for size, scale in sizes], log
        assert len(self.widget.link.label_layers()) == len({layer.name for layer in self.widget.link.label_layers()})
        self.check_strokes(log)

    def check_strokes(self, log: str) -> None:
        session, scan = self.widget.controller.session, self.widget.controller.scan
        assert session is not None
        assert scan is not None
        known = self.strokes.get(scan.name)
        if known is not None:
            labels = session.volume.from_slices(session.labels)
            np.testing.assert_array_equal(labels[known > 0], known[known > 0], err_msg=log)
            layer = self.widget.painter.layer
            assert layer is None or np.array_equal(layer.data, labels), log

    def export(self) -> None:
        for scan in self.widget.link.scans():
            self.widget.opener.open_key(id(scan))
            self.dock.settle()
            known = self.strokes.get(scan.name)
            if known is None:
                continue
            path = self.dock.folder.parent / f"{scan.name}.nii.gz"
            self.widget.export(path)
            self.dock.settle()
            written = np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)
            assert self.widget.controller.scan is not None
            shown = self.widget.controller.scan.shown.to_file.inverse.apply(written)
            np.testing.assert_array_equal(shown[known > 0], known[known > 0], err_msg=" ".join(self.log))


def opener_key(widget: OneSegWidget) -> Hashable:
    return widget.opener.choices()[1]


@pytest.fixture
def desk(
    make_napari_viewer: Callable[[], Viewer], qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    desk = Desk(make_napari_viewer(), qtbot, tmp_path / "kept")
    yield desk
    desk.widget.shut_down()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_a_user_does_loses_a_stroke(desk: Desk, seed: int) -> None:
    desk.add_scan(seed, "scan")
    monkey = Monkey(desk, seed)
    for number in range(ACTIONS):
        monkey.act()
        if number % 10 == 9:
            monkey.check()
    monkey.check()
    monkey.export()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_panel_canvas_and_selection_name_one_scan_and_no_stroke_is_lost(
    make_napari_viewer: Callable[[], Viewer],
    qtbot: QtBot,
    tmp_path: Path,
    study: Path,  # noqa: F811
    clear_features: None,
    seed: int,
) -> None:
    dock = new_dock(make_napari_viewer(), qtbot, tmp_path / "kept")
    dock.open(study)
    wanderer = Wanderer(dock, seed)
    for _ in range(ACTIONS // 3):
        wanderer.act()
    wanderer.export()
    dock.widget.shut_down()
