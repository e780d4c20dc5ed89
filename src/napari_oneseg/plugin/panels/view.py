"""The whole panel: the slice strip on top, then the steps, and over their lower end what is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QFrame,
    QLineEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_oneseg.plugin.panels.adapt import AdaptPanel
from napari_oneseg.plugin.panels.export import ExportPanel
from napari_oneseg.plugin.panels.input_guard import InputGuard
from napari_oneseg.plugin.panels.look import STYLE
from napari_oneseg.plugin.panels.message import MessageBar
from napari_oneseg.plugin.panels.notices import Notices
from napari_oneseg.plugin.panels.paint import PaintPanel
from napari_oneseg.plugin.panels.propagate import PropagatePanel
from napari_oneseg.plugin.panels.review import ReviewPanel
from napari_oneseg.plugin.panels.scan import ScanPanel
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.panels.study import StudyPanel
from napari_oneseg.plugin.panels.suggest import SuggestPanel
from napari_oneseg.plugin.panels.target import TargetPanel
from napari_oneseg.plugin.strip import SliceStrip

__all__ = ["OneSegView"]

LEAST_WIDTH = 300
_ROOM_FOR_MESSAGES = 72


class OneSegView(QWidget):
    """The dock's content; it knows widgets only."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("OneSegView")
        self.setMinimumWidth(LEAST_WIDTH)
        self.setStyleSheet(STYLE)
        self.strip = SliceStrip()
        self.messages = MessageBar()
        self.study = StudyPanel()
        self.scan = ScanPanel()
        self.target = TargetPanel()
        self.suggest = SuggestPanel()
        self.paint = PaintPanel()
        self.propagate = PropagatePanel()
        self.review = ReviewPanel()
        self.export = ExportPanel()
        self.adapt = AdaptPanel()
        self.steps: tuple[Step, ...] = (
            self.scan, self.target, self.suggest, self.paint, self.propagate, self.review, self.export, self.adapt,
        )  # fmt: skip
        column = QWidget()
        rows = QVBoxLayout(column)
        # The last step can be scrolled clear of a message.
        rows.setContentsMargins(2, 2, 2, _ROOM_FOR_MESSAGES)
        rows.setSpacing(4)
        for step in self.steps:
            rows.addWidget(step)
            step.turned_ready.connect(self._lead_to_ready)
            step.kind_changed.connect(self._choose_leading)
        rows.addStretch(1)
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        # Steps unfold and fold; a bar that comes and goes would make them jump sideways.
        self.area.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        bar = self.area.verticalScrollBar()
        bar.setEnabled(False)
        bar.rangeChanged.connect(lambda low, high: bar.setEnabled(high > low))
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.area.setWidget(column)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(2, 2, 2, 2)
        outer.setSpacing(4)
        outer.addWidget(self.strip)
        outer.addWidget(self.study)
        outer.addWidget(self.area, 1)
        self.notices = Notices(self)
        self.notices.add(self.messages)
        self.guard = InputGuard(self)
        self.guard.pressed.connect(self._pressed)
        self._lead_to: Step | None = None
        # An unfolded step is laid out over several rounds of events.
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(50)
        self._later.timeout.connect(self._lead)
        self.scan.set_open(True)

    def sizeHint(self) -> QSize:
        """Comfortable beside the canvas."""
        return QSize(LEAST_WIDTH + 40, 700)

    def notify(self, text: str, level: Literal["info", "warning", "error"] = "info") -> None:
        """Show a message until it is dismissed, another one comes, or it is over; an empty text takes it away."""
        self.messages.show_message(text, level)

    @property
    def is_held(self) -> bool:
        """Whether a control is pressed just now that must not move before it is released."""
        held = self.guard.held
        return held is not None and held is not self.strip and not self.strip.isAncestorOf(held)

    def end_notice(self) -> None:
        """Take a message away that spoke of what is over; a warning stays until it is dismissed or replaced."""
        if self.messages.level == "info":
            self.notify("")

    def _pressed(self, widget: QWidget) -> None:
        if not self.notices.isAncestorOf(widget):
            self.end_notice()

    def set_shortcuts(self, shortcuts: Mapping[str, str]) -> None:
        """Show keys on the buttons they stand for: propagate, next, accept, suggest; missing ones are taken off."""
        for name, button in (
            ("propagate", self.propagate.propagate_button),
            ("next", self.review.next_button),
            ("accept", self.review.accept_button),
            ("suggest", self.suggest.suggest_button),
        ):
            button.set_shortcut(shortcuts.get(name, ""))

    def _lead_to_ready(self) -> None:
        step = self.sender()
        if isinstance(step, Step):
            self._lead_to = step
            self._later.start()

    def _choose_leading(self) -> None:
        """Let one main button stand out, by what is to be done first now, however it came to that.

        What is out of date is renewed before it is checked, and checked before it is exported. A suggestion waits for
        no button: painting leads to it.
        """
        after = sorted((self.review, self.propagate), key=lambda step: not step.needs_attention)
        ways = self.scan, self.paint, *after, self.suggest, self.export
        first = next((step for step in ways if step.is_ready), None)
        for step in self.steps:
            step.set_leading(step is first)

    def _lead(self) -> None:
        step, self._lead_to = self._lead_to, None
        if step is None or not step.opens_itself or self.is_held or self._is_being_edited():
            return
        # First its end, then its beginning: where the step is higher than the panel, the beginning is what counts.
        self.area.ensureVisible(0, step.geometry().bottom(), 0, 4)
        self.area.ensureVisible(0, step.geometry().top(), 0, 4)

    def _is_being_edited(self) -> bool:
        focus = self.window().focusWidget()
        typing = isinstance(focus, (QLineEdit, QAbstractSpinBox)) and self.area.isAncestorOf(focus)
        return typing or QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton
