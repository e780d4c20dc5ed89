"""What is said and asked, over the panel instead of in it: what comes and goes there moves no control."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QFrame, QVBoxLayout, QWidget

__all__ = ["Notices"]


class Notices(QFrame):
    """A column of widgets that lies over the lower end of another widget, as high as what is shown in it.

    Parameters
    ----------
    host
        The widget that it lies over.
    """

    def __init__(self, host: QWidget) -> None:
        super().__init__(host)
        # What lies below must not shine through.
        self.setAutoFillBackground(True)
        self._rows = QVBoxLayout(self)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.setSpacing(2)
        self._shown: list[QWidget] = []
        host.installEventFilter(self)
        self.hide()

    def add(self, widget: QWidget) -> None:
        """Show a widget below those that are there, whenever it is not hidden."""
        self._rows.addWidget(widget)
        self._shown.append(widget)
        widget.installEventFilter(self)
        self.place()

    def place(self) -> None:
        """Lie where the host ends."""
        host = self.parentWidget()
        self.setVisible(any(not widget.isHidden() for widget in self._shown))
        height = self._rows.heightForWidth(host.width()) if self._rows.hasHeightForWidth() else self.sizeHint().height()
        self.setGeometry(0, host.height() - height, host.width(), height)
        self.raise_()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the host's size, and what is shown."""
        kind = event.type()
        if kind in {QEvent.Type.ShowToParent, QEvent.Type.HideToParent} or (
            kind == QEvent.Type.Resize and watched is self.parentWidget()
        ):
            self.place()
        return super().eventFilter(watched, event)

    def event(self, event: QEvent) -> bool:
        """Be as high as texts need that were changed."""
        answer = super().event(event)
        if event.type() == QEvent.Type.LayoutRequest:
            self.place()
        return bool(answer)
