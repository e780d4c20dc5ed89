"""What mouse and keyboard may do in the panel without being meant for what they meet."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QAbstractSlider, QAbstractSpinBox, QApplication, QComboBox, QScrollBar, QWidget

__all__ = ["InputGuard"]

_PRESSING_KEYS = {Qt.Key.Key_Space, Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Select}
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
    """

    pressed = Signal(QWidget)
    """A mouse button was pressed on a widget, or a key that stands for one."""

    def __init__(self, root: QWidget) -> None:
        super().__init__(root)
        self.by_key = False
        self._held: QWidget | None = None
        self._watch(root)

    @property
    def held(self) -> QWidget | None:
        """The widget on which a mouse button was pressed that is still held down."""
        # A list or a window that opened meanwhile has got the release.
        away = QApplication.activePopupWidget() or QApplication.activeModalWidget()
        return None if away else self._held

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
            if event.key() in _PRESSING_KEYS:
                self.pressed.emit(watched)
        elif kind in {QEvent.Type.MouseButtonPress, QEvent.Type.MouseButtonDblClick}:
            # The widgets behind get it too, where nobody wants it.
            if self._held is None:
                self.pressed.emit(watched)
            self.by_key, self._held = False, self._held or watched
        elif kind in {QEvent.Type.MouseButtonRelease, QEvent.Type.Enter}:
            # While a button is held, the mouse enters nothing else: the release went elsewhere.
            self._held = None
        return False

    def _watch(self, widget: QWidget) -> None:
        for one in (widget, *widget.findChildren(QWidget)):
            one.installEventFilter(self)
            # The usual policy of some controls is to take the focus from the wheel, and then to follow it.
            if _is_stepped(one) and one.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                one.setFocusPolicy(Qt.FocusPolicy.StrongFocus)


def _is_stepped(widget: QObject) -> bool:
    return isinstance(widget, _STEPPED) and not isinstance(widget, QScrollBar)
