"""The slice strip: the whole scan on one line, with what is known about each slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, QPoint, QPointF, QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFont, QHelpEvent, QKeyEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QToolTip, QVBoxLayout, QWidget

from napari_oneseg.plugin.panels.look import ACCENT, ATTENTION, DONE, OneLine
from napari_oneseg.plugin.view_model import StripData

__all__ = ["SliceStrip"]

HEIGHT = 118
PAGE = 10
_MOST_SMOOTH = 1000
# Below the curves two rows of marks: where a slice's labels come from, and what became of it.
_ORIGIN_ROW, _FATE_ROW, _BOTTOM, _TOP = -0.16, -0.4, -0.56, 1.22
_SUGGESTED = "#d6336c"


class _Plot(pyqtgraph.ViewBox):
    """Reports where it is clicked or dragged instead of zooming and panning."""

    touched = Signal(float)

    def __init__(self) -> None:
        super().__init__(enableMouse=False, enableMenu=False, defaultPadding=0.0)

    def mouseClickEvent(self, event: Any) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            event.accept()
            self.touched.emit(self.mapSceneToView(event.scenePos()).x())

    def mouseDragEvent(self, event: Any, axis: int | None = None) -> None:  # noqa: ARG002 (the axis below passes it)
        if event.button() == Qt.MouseButton.LeftButton:
            event.accept()
            self.touched.emit(self.mapSceneToView(event.scenePos()).x())

    def wheelEvent(self, event: Any, axis: int | None = None) -> None:  # noqa: ARG002 (the axis below passes it)
        event.ignore()


class SliceStrip(QWidget):
    """Shows the scan from first to last slice; a click goes to a slice.

    Before labels were propagated it shows how much painting each slice is worth, afterwards each label's area (every
    label relative to its own largest) and the confidence. With the focus, the left and right arrows, Page Up, Page
    Down, Home and End move to other slices.
    """

    slice_chosen = Signal(int)
    touched = Signal()
    """The mouse was used on it, whether or not that leads to another slice."""
    range_edited = Signal(int, int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._data = StripData(0)
        self._current = 0
        self.setFixedHeight(HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Slice strip")
        self._box = _Plot()
        self._box.touched.connect(self._on_touch)
        axis = pyqtgraph.AxisItem("bottom", maxTickLength=-3)
        self.plot = pyqtgraph.PlotWidget(viewBox=self._box, axisItems={"bottom": axis})
        self._axis = axis
        self._make_items()
        self._caption = OneLine()
        rows = QVBoxLayout(self)
        rows.setContentsMargins(2, 2, 2, 2)
        rows.setSpacing(0)
        rows.addWidget(self._caption)
        rows.addWidget(self.plot, 1)
        self._recolour()
        self.set_data(StripData(0))

    def _make_items(self) -> None:
        plot = self.plot
        plot.setBackground(None)
        plot.hideAxis("left")
        plot.hideButtons()
        plot.setMenuEnabled(False)
        plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        plot.viewport().installEventFilter(self)
        self._axis.setHeight(18)
        self._axis.setStyle(tickTextOffset=1)
        self._score = pyqtgraph.PlotCurveItem(fillLevel=0.0, antialias=True)
        self._areas: list[pyqtgraph.PlotCurveItem] = []
        self._confidence = pyqtgraph.PlotCurveItem(connect="finite", antialias=True)
        self._marks = {
            "painted": self._add_marks("s", 8, ACCENT),
            "corrected": self._add_marks("d", 10, ACCENT),
            "frozen": self._add_marks("o", 6, DONE),
            "stale": self._add_marks("t1", 8, ATTENTION),
        }
        self._best = pyqtgraph.InfiniteLine(angle=90, movable=False)
        self._suggested = self._add_marks("t", 9, _SUGGESTED)
        self._first_choice = self._add_marks("star", 15, _SUGGESTED)
        # Never hidden by the line of the slice on screen.
        self._first_choice.setZValue(25)
        self._line = pyqtgraph.InfiniteLine(angle=90, movable=False)
        self._range = pyqtgraph.LinearRegionItem(
            swapMode="block",
            pen=pyqtgraph.mkPen(ACCENT, width=2),
            # The width of this pen is also how near the mouse must come to take hold of an edge.
            hoverPen=pyqtgraph.mkPen(ACCENT, width=8),
        )
        for edge in self._range.lines:
            edge.setCursor(Qt.CursorShape.SizeHorCursor)
        # The edges move; the whole range does not, so that a click inside it still goes to a slice.
        self._range.movable = False
        self._range.sigRegionChangeFinished.connect(self._on_range_moved)
        for height, item in (
            (-20, self._range),
            (0, self._score),
            (5, self._confidence),
            (6, self._best),
            (20, self._line),
        ):
            item.setZValue(height)
            plot.addItem(item)

    def _add_marks(self, symbol: str, size: int, colour: str) -> Any:
        marks = pyqtgraph.ScatterPlotItem(symbol=symbol, size=size, brush=colour, pen=None, pxMode=True)
        marks.setZValue(10)
        self.plot.addItem(marks)
        return marks

    def set_data(self, data: StripData) -> None:
        """Show what is known about the slices."""
        self._data = data
        n = data.n_slices
        x = np.arange(n)
        before = not data.areas
        self._score.setVisible(before and data.score is not None)
        if before and data.score is not None:
            self._score.setData(x, data.score)
        self._show_areas(x)
        self._confidence.setVisible(data.confidence is not None)
        if data.confidence is not None:
            smooth = n <= _MOST_SMOOTH // 4
            self._confidence.setData(x, np.asarray(data.confidence, np.float64), antialias=smooth)
        rows = {"painted": _ORIGIN_ROW, "corrected": _ORIGIN_ROW, "frozen": _FATE_ROW, "stale": _FATE_ROW}
        for kind, row in rows.items():
            slices = sorted(getattr(data, kind))
            self._marks[kind].setData(slices, [row] * len(slices))
        self._show_suggested()
        self._show_range()
        self._box.setRange(xRange=(-0.5, max(n, 1) - 0.5), yRange=(_BOTTOM, _TOP), padding=0.0)
        self._line.setVisible(n > 0)
        # Without the axis itself the plot would be laid out anew.
        self._axis.setTicks(None if n else [])
        self._show_caption()

    def set_current(self, index: int) -> None:
        """Show which slice is on screen."""
        self._current = index
        self._line.setValue(index)
        self._show_caption()

    def text_of(self, index: int) -> str:
        """Say what is known about a slice, such as "Slice 17: painted, accepted, confidence 64 %"."""
        data = self._data
        words = [
            word
            for word, slices in (
                ("suggested", set(data.suggested) - data.painted),
                ("painted", data.painted),
                ("corrected", data.corrected),
                ("accepted", data.frozen),
                ("out of date", data.stale),
            )
            if index in slices
        ]
        if data.confidence is not None and np.isfinite(data.confidence[index]):
            words.append(f"confidence {100 * data.confidence[index]:.0f} %")
        elif not data.areas and data.score is not None:
            words.append(f"worth painting: {100 * data.score[index]:.0f} %")
        return f"Slice {index}: {', '.join(words)}" if words else f"Slice {index}"

    def sizeHint(self) -> QSize:
        """As wide as there is room."""
        return QSize(300, HEIGHT)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Go to another slice."""
        last = self._data.n_slices - 1
        target = {
            Qt.Key.Key_Left: self._current - 1,
            Qt.Key.Key_Right: self._current + 1,
            Qt.Key.Key_PageUp: self._current - PAGE,
            Qt.Key.Key_PageDown: self._current + PAGE,
            Qt.Key.Key_Home: 0,
            Qt.Key.Key_End: last,
        }.get(event.key())
        if target is None or last < 0:
            super().keyPressEvent(event)
        else:
            self._go_to(target)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Tell about the slice under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent) and self._data.n_slices:
            QToolTip.showText(event.globalPos(), self._tip(self._index_at(event.pos())), self.plot.viewport())
            return True
        return super().eventFilter(watched, event)

    def changeEvent(self, event: QEvent) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event.type() in {QEvent.Type.PaletteChange, QEvent.Type.StyleChange}:
            self._recolour()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Mark the focus, and say what will be here."""
        painter = QPainter(self)
        if self.hasFocus():
            painter.setPen(QPen(QColor(ACCENT), 1))
            painter.drawRect(self.rect().adjusted(0, 0, -1, -1))

    def _show_caption(self) -> None:
        known = 0 <= self._current < self._data.n_slices
        text = self.text_of(self._current) if known else "No scan is open"
        self._caption.set_full_text(text)
        self.setAccessibleDescription(text)

    def _tip(self, index: int) -> str:
        legend = ["Curves: area of each label; dotted: confidence"] if self._data.areas else []
        if not legend and self._data.score is not None:
            legend.append("Curve: how much painting a slice is worth")
        if self._data.painted or self._data.corrected:
            legend.append("■ painted   ◆ corrected")
        if self._data.frozen or self._data.stale:
            legend.append("● accepted   ▲ out of date")
        if self._data.suggested:
            legend.append("★ suggested")
        return "\n".join([self.text_of(index), *legend])

    def _show_areas(self, x: NDArray[np.intp]) -> None:
        areas = self._data.areas
        while len(self._areas) < len(areas):
            curve = pyqtgraph.PlotCurveItem()
            self._areas.append(curve)
            self.plot.addItem(curve)
        # Smooth wide lines take long to draw: 200 ms for 13 labels on 600 slices, 15 ms without.
        smooth = len(areas) * len(x) <= _MOST_SMOOTH
        for curve, (label, area) in zip(self._areas, areas.items(), strict=False):
            colour = QColor.fromRgbF(*self._data.colours.get(label, (0.5, 0.5, 0.5, 1.0))[:3])
            curve.setPen(pyqtgraph.mkPen(colour, width=2))
            curve.setData(x, _outline(area), connect="finite", antialias=smooth)
        for at, curve in enumerate(self._areas):
            curve.setVisible(at < len(areas))

    def _show_suggested(self) -> None:
        # What has been painted meanwhile needs no further advertising.
        open_ones = [index for index in self._data.suggested if index not in self._data.painted]
        best, others = open_ones[:1], open_ones[1:]
        self._first_choice.setData(best, [1.08] * len(best))
        self._suggested.setData(others, [1.08] * len(others))
        self._best.setVisible(bool(best))
        if best:
            self._best.setValue(best[0])

    def _show_range(self) -> None:
        chosen = self._data.range
        # What else changes meanwhile does not take an edge out of the user's hand.
        if chosen is not None and any(edge.moving for edge in self._range.lines):
            return
        self._range.setVisible(chosen is not None)
        if chosen is not None:
            with QSignalBlocker(self._range):
                self._range.setBounds((-0.5, self._data.n_slices - 0.5))
                self._range.setRegion((chosen[0] - 0.5, chosen[1] + 0.5))

    def _recolour(self) -> None:
        if not hasattr(self, "_caption"):
            return
        ink = self.palette().windowText().color()
        faint = QColor(ink)
        faint.setAlphaF(0.45)
        ground = QColor(ACCENT)
        ground.setAlphaF(0.14)
        fill = QColor(ACCENT)
        fill.setAlphaF(0.45)
        self._line.setPen(pyqtgraph.mkPen(ink, width=2))
        self._confidence.setPen(pyqtgraph.mkPen(ink, width=1.5, style=Qt.PenStyle.DotLine))
        self._score.setPen(pyqtgraph.mkPen(ACCENT, width=1.5))
        self._score.setBrush(fill)
        self._best.setPen(pyqtgraph.mkPen(_SUGGESTED, width=1.5, style=Qt.PenStyle.DashLine))
        self._range.setBrush(ground)
        self._axis.setPen(faint)
        self._axis.setTextPen(ink)
        font = QFont(self.font())
        font.setPointSizeF(max(self.font().pointSizeF() - 2, 7.0))
        self._axis.setTickFont(font)
        self._caption.setFont(font)
        # The view keeps a picture of its ground.
        self.plot.resetCachedContent()
        self.plot.viewport().update()

    def _index_at(self, position: QPoint) -> int:
        scene = self.plot.mapToScene(position)
        return self._clamped(round(self._box.mapSceneToView(QPointF(scene)).x()))

    def _clamped(self, index: int) -> int:
        return min(max(index, 0), max(self._data.n_slices - 1, 0))

    def _on_touch(self, x: float) -> None:
        if self._data.n_slices:
            self._go_to(round(x))
        self.touched.emit()

    def _go_to(self, index: int) -> None:
        index = self._clamped(index)
        if index != self._current:
            self.set_current(index)
            self.slice_chosen.emit(index)

    def _on_range_moved(self) -> None:
        low, high = self._range.getRegion()
        first = self._clamped(round(low + 0.5))
        last = max(self._clamped(round(high - 0.5)), first)
        with QSignalBlocker(self._range):
            self._range.setRegion((first - 0.5, last + 0.5))
        self.range_edited.emit(first, last)


def _outline(area: NDArray[np.float32]) -> NDArray[np.float32]:
    """Relative to the largest; NaN away from the label, where a line along the ground would say nothing."""
    if not area.any():
        return np.full_like(area, np.nan)
    near = np.convolve(area > 0, [1, 1, 1], "same") > 0
    return np.where(near, area / area.max(), np.float32(np.nan))
