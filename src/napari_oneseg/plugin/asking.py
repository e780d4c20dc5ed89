"""Questions to the user: a bar for those that can wait, a window for those that cannot."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_oneseg.plugin.panels.picture_list import PictureList

__all__ = ["Asking", "with_ending"]

LABEL_FILES = "NIfTI (*.nii.gz *.nii);;NRRD (*.nrrd);;MetaImage (*.mha)"
DICOM_FILES = ";;DICOM segmentation (*.dcm)"


class Asking(QWidget):
    """A bar that offers to take up earlier work, hidden while there is nothing to ask; and the dialogs."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.yes_button = QPushButton("Resume")
        self.yes_button.setToolTip("Take up the work where it was left.")
        self.no_button = QPushButton("Discard")
        self.no_button.setToolTip("Delete the earlier work and begin anew.")
        self.later_button = QPushButton("Not now")
        self.later_button.setToolTip("Keep the earlier work for the next time.")
        buttons = QHBoxLayout()
        for button in (self.yes_button, self.later_button, self.no_button):
            buttons.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 8, 6)
        column.addWidget(self.text)
        column.addLayout(buttons)
        self._yes: Callable[[], None] = lambda: None
        self._no: Callable[[], None] = lambda: None
        self.yes_button.clicked.connect(lambda: self._answer(self._yes))
        self.no_button.clicked.connect(self._confirm_no)
        self.later_button.clicked.connect(self.hide)
        self.hide()

    def offer(self, text: str, yes: Callable[[], None], no: Callable[[], None]) -> None:
        """Offer to take up earlier work, without being in the way."""
        self.text.setText(text)
        self._yes, self._no = yes, no
        self.show()

    def withdraw(self) -> None:
        """Offer it no more: another scan is open."""
        self.hide()

    def _answer(self, action: Callable[[], None]) -> None:
        self.hide()
        action()

    def _confirm_no(self) -> None:
        if self.is_sure("Delete the earlier work on this scan? It cannot be brought back."):
            self._answer(self._no)

    # Dialogs, one method each, so that tests can answer them ---------------------------------------------------------

    def is_sure(self, question: str) -> bool:
        """Return whether the user wants something that cannot be undone."""
        answer = QMessageBox.question(self.window(), "OneSeg", question)
        return bool(answer == QMessageBox.StandardButton.Yes)

    def for_export(self, proposed: Path, dicom: bool = False) -> Path | None:
        """Ask for the name of a label file; a file that exists is replaced only if the user says so.

        Parameters
        ----------
        proposed
            The name to begin with.
        dicom
            Whether the labels can leave as a DICOM segmentation.
        """
        kinds = LABEL_FILES + (DICOM_FILES if dicom else "")
        name, kind = QFileDialog.getSaveFileName(self.window(), "Export labels", str(proposed), kinds)
        if not name:
            return None
        path = with_ending(Path(name), kind)
        if str(path) != name and path.exists() and not self.is_sure(f"{path.name} exists already. Replace it?"):
            return None
        return path

    def for_table(self, proposed: Path) -> Path | None:
        """Ask for the name of a CSV file; one that exists is replaced only if the user says so."""
        name, kind = QFileDialog.getSaveFileName(self.window(), "Save summary", str(proposed), "Tables (*.csv)")
        if not name:
            return None
        path = with_ending(Path(name), kind)
        if str(path) != name and path.exists() and not self.is_sure(f"{path.name} exists already. Replace it?"):
            return None
        return path

    def which(self, question: str, texts: Sequence[str], shown: Callable[[PictureList], None]) -> int | None:
        """Return which of several scans the user wants; ``shown`` is called with the list, to put pictures into it."""
        dialog = PictureList(question, texts, self.window())
        shown(dialog)
        try:
            return dialog.chosen if dialog.exec() else None
        finally:
            dialog.deleteLater()

    def may_close(self) -> bool:
        """Ask whether to close over labels that were not exported."""
        answer = QMessageBox.question(
            self.window(),
            "OneSeg",
            "The labels were changed since the last export. Close anyway?\n\n"
            "The work is kept, and offered again when you open this scan.",
        )
        return bool(answer == QMessageBox.StandardButton.Yes)


def with_ending(path: Path, kind: str) -> Path:
    """Return a name that fits the kind of file that was chosen; dialogs leave the ending as it was.

    Parameters
    ----------
    path
        The name as it was given.
    kind
        The chosen entry of the dialog's list, such as ``NRRD (*.nrrd)``.
    """
    endings = re.findall(r"\*(\.[\w.]+)", kind)
    if not endings or path.name.lower().endswith(tuple(endings)):
        return path
    stem = re.sub(r"(\.nii\.gz|\.nii|\.nrrd|\.mha|\.dcm)$", "", path.name, flags=re.IGNORECASE)
    return path.with_name(stem + endings[0])
