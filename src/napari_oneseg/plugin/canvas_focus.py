"""Every command of the panel ends on the canvas: with the focus, the labels selected, and the brush in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QLineEdit, QPlainTextEdit, QSlider, QWidget

from napari_oneseg.plugin.panels.header import StepHeader
from napari_oneseg.plugin.panels.label_table import LabelTable
from napari_oneseg.plugin.panels.look import ChoiceBox
from napari_oneseg.plugin.panels.slice_list import SliceList
from napari_oneseg.plugin.panels.study_list import StudyList
from napari_oneseg.plugin.strip import SliceStrip

if TYPE_CHECKING:
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.inspecting import Inspector
    from napari_oneseg.plugin.painting import Painter
    from napari_oneseg.plugin.panels.view import OneSegView
    from napari_oneseg.plugin.viewer_link import ViewerLink

__all__ = ["CanvasFocus"]

_COMMANDS: tuple[tuple[type[QWidget], tuple[str, ...]], ...] = (
    (QAbstractButton, ("clicked",)),
    (ChoiceBox, ("chosen",)),
    (SliceList, ("slice_chosen",)),
    (StudyList, ("scan_chosen",)),
    (LabelTable, ("label_selected", "label_renamed", "label_recoloured")),
    (SliceStrip, ("touched", "range_edited")),
    (QSlider, ("sliderReleased",)),
)
"""What of which widget is a command."""
_TYPED_IN = (QLineEdit, QAbstractSpinBox, QPlainTextEdit)


class CanvasFocus(QObject):
    """Hands the canvas the keyboard and a tool after each command, and rests the tool while clicks are questions.

    A command that was given with the keyboard leaves the focus where it is: whoever works without a mouse goes on from
    there. Enter ends what was typed, and goes to the canvas.

    Parameters
    ----------
    view
        The panel, with all its controls.
    """

    def __init__(
        self,
        view: OneSegView,
        controller: Controller,
        painter: Painter,
        link: ViewerLink,
        inspector: Inspector,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._view, self._painter, self._link, self._inspector = view, painter, link, inspector
        self._painting = (view.strip, view.target, view.suggest, view.paint, view.propagate, view.review)
        self._resting: tuple[Labels, str] | None = None
        # Not within a click that was a question: it would paint after all. Nor while the editor of a name is closed: it
        # gives the focus to what it belongs to.
        self._resuming, self._leaving = QTimer(self), QTimer(self)
        for timer, action in ((self._resuming, self._resume), (self._leaving, self.hand_over)):
            timer.setSingleShot(True)
            timer.setInterval(0)
            timer.timeout.connect(action)
        for kind, signals in _COMMANDS:
            for control in view.findChildren(kind):
                for signal in signals:
                    getattr(control, signal).connect(self._commanded)
        inspector.changed.connect(self._rest_or_resume)
        painter.changed.connect(self._tool_taken)
        controller.opened.connect(self._opened)

    def hand_over(self, painting: bool = True) -> None:
        """Give the canvas the focus and select the labels; take up the brush where painting comes next."""
        self._link.focus()
        self._take_up(painting)

    def end_typing(self) -> None:
        """Hand over where something was typed."""
        if isinstance(QApplication.focusWidget(), _TYPED_IN):
            self.hand_over()

    def _commanded(self, *_: Any) -> None:
        control = self.sender()
        painting = any(step is control or step.isAncestorOf(control) for step in self._painting)
        painting = painting and not isinstance(control, StepHeader)
        if isinstance(QApplication.focusWidget(), _TYPED_IN):
            self._leaving.start()
        elif self._view.guard.by_key:
            self._take_up(painting)
        else:
            self.hand_over(painting)

    def _take_up(self, painting: bool = True) -> None:
        layer = self._painter.layer
        if layer is None or layer not in self._link.viewer.layers:
            return
        self._link.select(layer)
        if self._resting is not None:
            self._resume()
        elif painting and not self._inspector.listening and not self._painter.tool and self._link.current() is not None:
            layer.mode = "paint"

    def _opened(self) -> None:
        self._resting = None
        focus = QApplication.focusWidget()
        is_here = focus is not None and self._view.isAncestorOf(focus)
        if is_here and not self._view.guard.by_key and not isinstance(focus, _TYPED_IN):
            self._link.focus()
        self._take_up()

    def _rest_or_resume(self) -> None:
        """Put the tool away while a click is a question, or it would paint too; afterwards it is taken up again."""
        active = self._link.viewer.layers.selection.active
        layer = self._painter.layer or (active if isinstance(active, Labels) else None)
        if self._inspector.listening:
            if layer is not None and str(layer.mode) != "pan_zoom":
                self._resting = layer, str(layer.mode)
                layer.mode = "pan_zoom"
            if layer is not None:
                self._link.select(layer)
        elif self._resting is not None:
            self._resuming.start()

    def _resume(self) -> None:
        if self._resting is not None and not self._inspector.listening:
            (layer, tool), self._resting = self._resting, None
            layer.mode = tool

    def _tool_taken(self) -> None:
        """Take clicks for strokes again once the user takes up a tool."""
        if self._inspector.listening and self._painter.tool:
            self._resting = None
            self._inspector.stop()
