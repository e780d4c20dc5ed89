"""What mouse and keyboard may do in the panel without being meant for what they meet."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractSlider, QAbstractSpinBox, QComboBox, QScrollBar, QWidget

__all__ = ["InputGuard"]

_STEPPED = (QAbstractSpinBox, QComboBox, QAbstractSlider)


class InputGuard(QObject):
    """Watches a widget and all that is in it, also what comes into it later.

    The wheel, which is meant to scroll the panel, never changes a value it happens to pass over, unless that control
    was clicked before.

    Parameters
    ----------
    root
        The widget.

    Attributes
    ----------
    by_key
        Whether what was done last in it was done with the keyboard.
    is_pressed
        Whether a mouse button is held down that was pressed in it.
    """

    def __init__(self, root: QWidget) -> None:
        super().__init__(root)
        self.by_key = self.is_pressed = False
        self._watch(root)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Pass the wheel on to what lies behind, unless the control has the focus."""
        kind = event.type()
        if kind == QEvent.Type.Wheel:
            if _is_stepped(watched) and not watched.hasFocus():
                event.ignore()
                return True
        elif kind == QEvent.Type.ChildPolished:
            if isinstance(event.child(), QWidget):
                self._watch(event.child())
        elif kind == QEvent.Type.KeyPress:
            self.by_key = True
        elif kind in {QEvent.Type.MouseButtonPress, QEvent.Type.MouseButtonDblClick}:
            self.by_key, self.is_pressed = False, True
        elif kind == QEvent.Type.MouseButtonRelease:
            self.is_pressed = False
        return False

    def _watch(self, widget: QWidget) -> None:
        for one in (widget, *widget.findChildren(QWidget)):
            one.installEventFilter(self)
            # The usual policy of some controls is to take the focus from the wheel, and then to follow it.
            if _is_stepped(one) and one.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                one.setFocusPolicy(Qt.FocusPolicy.StrongFocus)


def _is_stepped(widget: QObject) -> bool:
    return isinstance(widget, _STEPPED) and not isinstance(widget, QScrollBar)
