"""Starts napari as its own command does, and writes down what it shows: watched_napari.py FOLDER ARGUMENTS_OF_NAPARI...

It only tells: whatever happens in the program is done with mouse and keyboard. Several times a second FOLDER gets

- ``state.json``: what the widget says, and where its controls and the voxels of the slice lie on the screen;
- ``labels-<checksum>.npy``: the painted layer's array, each time it has changed;
- ``gaps.jsonl``: how long the window could not answer, and where the program was meanwhile.

All times are seconds of ``time.monotonic``, which every process on a computer shares.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

TICK_MS, TELL_MS, GAP_MS, SAMPLE_SECONDS = 5, 100, 30.0, 0.008


class GapWatch:
    """Notes when the event loop was kept waiting, and what the main thread did at that time."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "gaps.jsonl").open("a", encoding="utf-8", buffering=1)
        self._main = threading.get_ident()
        self._schedule = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._last, self._before = time.monotonic(), self._cpu()
        self._seen: Counter[str] = Counter()
        threading.Thread(target=self._sample, daemon=True).start()

    def tick(self) -> None:
        now, cpu = time.monotonic(), self._cpu()
        milliseconds = 1000 * (now - self._last) - TICK_MS
        if milliseconds > GAP_MS:
            ran, waited = (1000 * (new - old) for new, old in zip(cpu, self._before, strict=True))
            where = self._seen.most_common(4)
            record = {"at": self._last, "until": now, "ms": milliseconds, "ran_ms": ran, "waited_ms": waited}
            self._file.write(json.dumps(record | {"where": where}) + "\n")
        self._seen = Counter()
        self._last, self._before = now, cpu

    def _cpu(self) -> tuple[float, float]:
        """Return how long this thread ran, and how long it waited for a processor, in seconds."""
        try:
            ran, waited, _ = self._schedule.read_text().split()
        except OSError:
            return 0.0, 0.0
        return int(ran) / 1e9, int(waited) / 1e9

    def _sample(self) -> None:
        while True:
            time.sleep(SAMPLE_SECONDS)
            if time.monotonic() - self._last > (GAP_MS + TICK_MS) / 2000:
                self._seen[_where(_places(self._main))] += 1


def _places(thread: int) -> list[tuple[CodeType, int]]:
    """Return where a thread is, innermost first; none while the program ends.

    Frames are let go at once: they keep alive what their functions hold, a QPainter for instance.
    """
    places = []
    frame = sys._current_frames().get(thread)
    while frame is not None:
        places.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return places


def _where(places: list[tuple[CodeType, int]]) -> str:
    """Return a few of the innermost places in words, then those in the plugin."""
    words = []
    for code, line in places:
        parts = Path(code.co_filename).parts
        if len(words) < 4 or "napari_oneseg" in parts:
            words.append(f"{'/'.join(parts[-2:])}:{line} {code.co_name}")
    return " < ".join(words[:9])


class Teller:
    """Writes the state; what needs no Qt is done in a thread, so that watching disturbs little."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._widget: Any = None
        self._written = ""
        self._doing: list[tuple[float, str]] = []
        self._latest: tuple[dict[str, Any], Any] | None = None
        self._news = threading.Event()
        threading.Thread(target=self._write, daemon=True).start()

    def tell(self) -> None:
        from qtpy.QtWidgets import QApplication

        modal = QApplication.activeModalWidget()
        active = QApplication.activeWindow()
        state: dict[str, Any] = {
            "t": time.monotonic(),
            "modal": type(modal).__name__ if modal is not None else "",
            "active": type(active).__name__ if active is not None else "",
            "focus": type(QApplication.focusWidget()).__name__,
            "opened": None,
        }
        labels = None
        if self._widget is None:
            self._widget = _find_widget()
        if self._widget is not None:
            state |= _of_widget(self._widget)
            labels = self._widget.painter.layer
            if state["doing"] != (self._doing[-1][1] if self._doing else ""):
                self._doing.append((state["t"], state["doing"]))
            state["did"] = self._doing
        self._latest = state, None if labels is None else labels.data
        self._news.set()

    def _write(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            assert self._latest is not None
            state, array = self._latest
            state["labels"] = self._labels(array) if array is not None else None
            part = self._folder / "state.part"
            part.write_text(json.dumps(state))
            part.replace(self._folder / "state.json")

    def _labels(self, array: Any) -> str:
        array = np.array(array)
        name = f"labels-{zlib.crc32(array):08x}.npy"
        if name != self._written:
            part = self._folder / "labels.part"
            with part.open("wb") as file:
                np.save(file, array)
            part.replace(self._folder / name)
            self._written = name
        return name


def _find_widget() -> Any:
    from qtpy.QtWidgets import QApplication

    module = sys.modules.get("napari_oneseg.plugin.widget")
    widget_class = getattr(module, "OneSegWidget", None)
    if widget_class is None:
        return None
    found = [one for one in QApplication.allWidgets() if isinstance(one, widget_class)]
    return next((one for one in found if hasattr(one, "showing")), None)


def _of_widget(widget: Any) -> dict[str, Any]:
    controller, link, layer = widget.controller, widget.link, widget.painter.layer
    session, state = controller.session, controller.state
    best = controller.target.best
    told: dict[str, Any] = {
        "doing": controller.doing,
        "busy": widget.engine.busy,
        "saving": widget.saver._lane.busy,
        "current": link.current(),
        "marked": link.marked,
        "suggested": [one.index for one in best],
        "selected_label": controller.book.selected,
        "range": controller.target.range,
        "unsaved": controller.unsaved,
        "to_check": controller.to_check(),
        "offer": widget.asking.text.text() if widget.asking.isVisible() else "",
        "message": widget.view.messages.text.text() if widget.view.messages.isVisible() else "",
        "mode": str(layer.mode) if layer is not None else "",
        "brush": layer.brush_size if layer is not None else 0,
        "controls": _controls(widget),
        "canvas": _canvas(widget),
    }
    if session is not None and state is not None:
        told |= {
            "opened": controller.scan.name,
            "axis": session.volume.axis,
            "shape": session.volume.slices.shape,
            "feature_seconds": controller.opened_scan.seconds,
            "undo": session.undoable,
            "redo": session.redoable,
            "painted": sorted(state.painted),
            "corrected": sorted(state.complete),
            "accepted": sorted(state.frozen),
            "stale": sorted(state.stale),
            "propagated": sorted(state.results),
            "computed": len(controller.propagator.arrived),
        }
    return told


def _controls(widget: Any) -> dict[str, dict[str, Any]]:
    """Return where each control can be seen: left, top, width, height on the screen, all 0 where it cannot."""
    from qtpy.QtWidgets import QWidget

    view = widget.view
    owners = {"asking": widget.asking, "view": view, "messages": view.messages}
    owners |= {name: step for name, step in vars(view).items() if step in view.steps}
    controls = {}
    for owner_name, owner in owners.items():
        for name, control in vars(owner).items():
            if isinstance(control, QWidget) and not name.startswith("_"):
                seen = control.visibleRegion().boundingRect() if control.isVisible() else None
                corner = control.mapToGlobal(seen.topLeft()) if seen is not None and not seen.isEmpty() else None
                box = [0, 0, 0, 0] if corner is None else [corner.x(), corner.y(), seen.width(), seen.height()]
                controls[f"{owner_name}.{name}"] = {
                    "box": box,
                    "whole": corner is not None and seen.height() >= control.height(),
                    "enabled": control.isEnabled(),
                    "shown": control.isVisible(),
                    "text": control.text() if hasattr(control, "text") and callable(control.text) else "",
                }
        if hasattr(owner, "is_open"):
            controls[f"{owner_name}.header"]["open"] = owner.is_open
    return controls


def _canvas(widget: Any) -> dict[str, Any] | None:
    """Return where the canvas lies, and the way from (row, column) of the slice on screen to the screen."""
    from qtpy.QtCore import QPoint

    link = widget.link
    index = link.current()
    canvas = widget.viewer.window._qt_viewer.canvas
    corner = canvas.native.mapToGlobal(QPoint(0, 0))
    told: dict[str, Any] = {"box": [corner.x(), corner.y(), canvas.native.width(), canvas.native.height()]}
    if index is None or link.layer is None:
        return told
    transform = canvas.view.transform * canvas.view.scene.transform
    rows, columns = (axis for axis in range(3) if axis != link.axis)
    dim_y, dim_x = widget.viewer.dims.displayed[-2:]
    places = []
    for row, column in ((0, 0), (1, 0), (0, 1)):
        voxel = [0.0, 0.0, 0.0]
        voxel[link.axis], voxel[rows], voxel[columns] = index, row, column
        world = link.layer.data_to_world(voxel)
        point = transform.map([world[dim_x], world[dim_y]])
        places.append([float(point[0] / point[3]) + corner.x(), float(point[1] / point[3]) + corner.y()])
    origin, down, right = places
    told["origin"] = origin
    told["per_row"] = [down[0] - origin[0], down[1] - origin[1]]
    told["per_column"] = [right[0] - origin[0], right[1] - origin[1]]
    return told


def main() -> None:
    folder = Path(sys.argv[1])
    sys.argv = ["napari", *sys.argv[2:]]
    from napari.__main__ import main as napari_main
    from napari.qt import get_qapp
    from qtpy.QtCore import Qt, QTimer

    application = get_qapp()
    gaps, teller = GapWatch(folder), Teller(folder)
    timers = []
    for milliseconds, action in ((TICK_MS, gaps.tick), (TELL_MS, teller.tell)):
        timer = QTimer(application)
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(action)
        timer.start(milliseconds)
        timers.append(timer)
    application.aboutToQuit.connect(lambda: [timer.stop() for timer in timers])
    (folder / "pid").write_text(str(os.getpid()))
    napari_main()


if __name__ == "__main__":
    main()
