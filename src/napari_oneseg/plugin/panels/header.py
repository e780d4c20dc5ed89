"""The line that names a step and shows its state at a glance."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRect, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFont, QKeyEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QAbstractButton, QSizePolicy, QWidget

from napari_oneseg.plugin.panels.look import ACCENT, ATTENTION, DONE

__all__ = ["StepHeader"]

WORDS = {
    "off": "not possible yet",
    "ready": "to do",
    "optional": "optional",
    "busy": "working",
    "done": "done",
    "attention": "needs attention",
}
_BADGE = 20


class StepHeader(QAbstractButton):
    """Number, title, state and fold mark; pressing it folds or unfolds the step.

    The badge tells the state by shape as well as by colour: a ring with the number (faint: not possible yet; clear:
    optional), a filled disc with the number (to do), an arc around the number (working), a check mark (done), a
    triangle (needs attention). What is no step of the way has no number, and a ring with a list in it.
    """

    def __init__(self, number: int | None, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._number, self._kind, self._note, self._text_shown = number, "off", "", True
        self.setText(title)
        self.setCheckable(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_state(self, kind: str, text: str) -> None:
        """Show the kind of the state and its text."""
        self._kind, self._note = kind, text
        number = "" if self._number is None else f"Step {self._number}, "
        title = self.text() if self._number is None else f"{self.text()}: {WORDS[kind]}"
        self.setAccessibleName(f"{number}{title}")
        self.setAccessibleDescription(text)
        self.setToolTip(title + (f"\n{text}" if text else ""))
        self.update()

    def set_text_shown(self, shown: bool) -> None:
        """Show the state's text behind the title, cut to what fits, or leave it to the step's body."""
        self._text_shown = shown
        self.update()

    def sizeHint(self) -> QSize:
        """One line."""
        return QSize(160, max(_BADGE + 8, self.fontMetrics().height() + 10))

    def minimumSizeHint(self) -> QSize:
        """One line, of any width."""
        return QSize(80, self.sizeHint().height())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Fold with Enter as well as with the space bar."""
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter}:
            self.click()
        else:
            super().keyPressEvent(event)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw badge, title, text and fold mark."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().windowText().color()
        if self.underMouse() or self.hasFocus():
            painter.setPen(QPen(QColor(ACCENT), 1) if self.hasFocus() else Qt.PenStyle.NoPen)
            painter.setBrush(_faint(ink, 0.08))
            painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 3, 3)
        middle = self.height() / 2
        badge = QRectF(5, middle - _BADGE / 2, _BADGE, _BADGE)
        self._draw_badge(painter, badge, ink)
        self._draw_fold_mark(painter, QPointF(self.width() - 14, middle), ink)
        font = QFont(self.font())
        font.setBold(True)
        painter.setFont(font)
        painter.setPen(_faint(ink, 0.6) if self._kind == "off" else ink)
        left = int(badge.right()) + 8
        row = QRect(left, 0, self.width() - 26 - left, self.height())
        aligned = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
        painter.drawText(row, aligned, self.text())
        row.setLeft(left + painter.fontMetrics().horizontalAdvance(self.text()) + 12)
        if self._text_shown and self._kind != "off":
            painter.setFont(self.font())
            note = painter.fontMetrics().elidedText(self._note, Qt.TextElideMode.ElideRight, row.width())
            painter.drawText(row, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, note)

    def _draw_badge(self, painter: QPainter, box: QRectF, ink: QColor) -> None:
        font = QFont(self.font())
        font.setBold(True)
        painter.setFont(font)
        ring = box.adjusted(1.5, 1.5, -1.5, -1.5)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if self._kind == "attention":
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(ATTENTION))
            painter.drawPolygon(QPolygonF([QPointF(box.center().x(), box.top()), box.bottomRight(), box.bottomLeft()]))
            painter.setPen(QColor("black"))
            painter.drawText(box.adjusted(0, 4, 0, 2), Qt.AlignmentFlag.AlignCenter, "!")
            return
        if self._kind == "done":
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(DONE))
            painter.drawEllipse(box)
            painter.setPen(QPen(QColor("white"), 2.2, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
            x, y = box.left(), box.top()
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawPolyline(
                QPolygonF([QPointF(x + 5, y + 10.5), QPointF(x + 8.5, y + 14), QPointF(x + 15, y + 6.5)])
            )
            return
        if self._kind == "ready":
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(ACCENT))
            painter.drawEllipse(box)
            painter.setPen(QColor("white"))
        elif self._kind == "busy":
            painter.setPen(QPen(_faint(ink, 0.25), 2.5))
            painter.drawEllipse(ring)
            painter.setPen(QPen(QColor(ACCENT), 2.5))
            painter.drawArc(ring, 90 * 16, -240 * 16)
            painter.setPen(ink)
        else:
            off = self._kind == "off"
            painter.setPen(QPen(_faint(ink, 0.45 if off else 0.9), 1.2))
            painter.drawEllipse(ring)
            painter.setPen(_faint(ink, 0.6) if off else ink)
        mark = "\N{IDENTICAL TO}" if self._number is None else str(self._number)
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, mark)

    def _draw_fold_mark(self, painter: QPainter, at: QPointF, ink: QColor) -> None:
        painter.setPen(QPen(_faint(ink, 0.7), 1.6, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        corners = [(-4, -2), (0, 2), (4, -2)] if self.isChecked() else [(-2, -4), (2, 0), (-2, 4)]
        painter.drawPolyline(QPolygonF([at + QPointF(x, y) for x, y in corners]))


def _faint(colour: QColor, opacity: float) -> QColor:
    faint = QColor(colour)
    faint.setAlphaF(opacity)
    return faint
