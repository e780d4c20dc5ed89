"""What all steps have in common: number, title, state, progress, and a body that folds."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QProgressBar, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_oneseg.plugin.panels.header import StepHeader
from napari_oneseg.plugin.panels.look import ActionButton, paragraph
from napari_oneseg.plugin.view_model import StepState

__all__ = ["Step"]


class Step(QFrame):
    """One numbered step, to be filled by its subclasses.

    It unfolds itself when it becomes the next thing to do. The user may fold and unfold it at any time; that holds
    until the kind of its state changes.

    Parameters
    ----------
    number, title
        What stands in its header.
    """

    cancelled = Signal()
    """The Cancel button was pressed."""
    kind_changed = Signal()
    """It is no longer of the same kind, such as off, ready or done."""
    turned_ready = Signal()
    """It has become the next thing to do."""

    opens_itself = True

    def __init__(self, number: int, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = StepState()
        self._leads = True
        self.main_action: ActionButton | None = None
        self.header = StepHeader(number, title)
        self.header.toggled.connect(self._show_folding)
        self.state_text = paragraph()
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setMaximumHeight(10)
        self.progress.setAccessibleName(f"{title}: progress")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop; what has been computed so far is kept.")
        self.cancel_button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.cancel_button.clicked.connect(self.cancelled)
        busy = QHBoxLayout()
        busy.setContentsMargins(0, 0, 0, 0)
        busy.addWidget(self.progress, 1)
        busy.addWidget(self.cancel_button)
        self._busy = QWidget()
        self._busy.setLayout(busy)
        self.body = QWidget()
        self.rows = QVBoxLayout(self.body)
        self.rows.setContentsMargins(0, 2, 0, 4)
        self.rows.setSpacing(6)
        inner = QVBoxLayout()
        inner.setContentsMargins(8, 0, 6, 0)
        inner.setSpacing(4)
        for widget in (self.state_text, self._busy, self.body):
            inner.addWidget(widget)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(2)
        outer.addWidget(self.header)
        outer.addLayout(inner)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self._show_state()

    @property
    def is_open(self) -> bool:
        """Whether the body is unfolded."""
        return bool(self.header.isChecked())

    def set_open(self, is_open: bool) -> None:
        """Fold or unfold the body."""
        self.header.setChecked(is_open)

    def set_state(self, state: StepState) -> None:
        """Show how far the step is."""
        before, self._state = self._state, state
        if state.kind != before.kind:
            self._fold_by(state.kind)
        self._show_state()
        if state.kind != before.kind:
            self.kind_changed.emit()
            if state.kind == "ready":
                self.turned_ready.emit()

    @property
    def is_ready(self) -> bool:
        """Whether it asks to be done."""
        return self._state.kind in {"ready", "attention"}

    @property
    def needs_attention(self) -> bool:
        """Whether something about it is not as it should be."""
        return self._state.kind == "attention"

    def set_leading(self, leads: bool) -> None:
        """Let its main button stand out while the step is ready, or not, where another step comes first."""
        self._leads = leads
        self._show_state()

    def _fold_by(self, kind: str) -> None:
        if kind in {"ready", "attention"} and self.opens_itself:
            self.set_open(True)
        elif kind == "off" or (kind == "done" and self._folds_when_done() and not self._has_focus_inside()):
            self.set_open(False)

    def _folds_when_done(self) -> bool:
        return True

    def _has_focus_inside(self) -> bool:
        focus = self.window().focusWidget()
        return focus is not None and self.body.isAncestorOf(focus)

    def _show_state(self) -> None:
        state = self._state
        self.header.set_state(state.kind, state.text)
        self.state_text.setText(state.text)
        self.body.setEnabled(state.kind != "off")
        self._busy.setVisible(state.kind == "busy")
        self.cancel_button.setVisible(state.can_cancel)
        if state.kind == "busy":
            self.progress.setRange(0, 0 if state.progress is None else 1000)
            self.progress.setValue(round(1000 * (state.progress or 0.0)))
        if self.main_action is not None:
            self.main_action.set_prominent(self._leads and self.is_ready)
        self._show_folding()

    def _show_folding(self) -> None:
        self.body.setVisible(self.is_open)
        # A folded step is one line, but what is going on is never hidden.
        long_text = self.is_open or self._state.kind in {"busy", "attention"}
        self.state_text.setVisible(long_text and bool(self._state.text))
        self.header.set_text_shown(not long_text)
