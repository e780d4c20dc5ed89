"""Step 1: which scan, how it is looked at, and what computes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QMenu, QPushButton, QWidget

from napari_oneseg.plugin.panels.look import ActionButton, ChoiceBox, OneLine
from napari_oneseg.plugin.panels.step import Step
from napari_oneseg.plugin.view_model import Choice

__all__ = ["ScanPanel"]

SCAN_FILES = "Scans (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.dcm);;All files (*)"


class ScanPanel(Step):
    """Open a scan, or choose one that is open."""

    file_chosen = Signal(str)
    folder_chosen = Signal(str)
    study_chosen = Signal(str)
    """A folder of scans, or a CSV file that lists them."""
    scan_chosen = Signal(object)
    axis_chosen = Signal(object)
    window_chosen = Signal(object)
    device_chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(1, "Scan", parent)
        self.file_button = ActionButton(
            "Open file…", "Open a scan: NIfTI, NRRD, MetaImage or a multi-frame DICOM file."
        )
        self.folder_button = ActionButton("Open DICOM folder…", "Open the DICOM series in a folder.")
        self.file_button.clicked.connect(self._choose_file)
        self.folder_button.clicked.connect(self._choose_folder)
        self.main_action = self.file_button
        self.study_button = QPushButton("Open study…")
        self.study_button.setToolTip("Work through many scans, one after the other; where you stop, you go on later.")
        menu = QMenu(self.study_button)
        menu.addAction("Folder of scans…", lambda: self._choose_study(self.ask_for_study_folder()))
        menu.addAction("Table of scans (CSV)…", lambda: self._choose_study(self.ask_for_study_table()))
        self.study_button.setMenu(menu)
        buttons = QHBoxLayout()
        buttons.addWidget(self.file_button, 2)
        buttons.addWidget(self.folder_button, 3)
        self.scans = ChoiceBox("Scan", "The scan to work on, of those that are open.", "No scan is open")
        self.axes = ChoiceBox("Slices", "The direction in which the scan is cut into slices.")
        self.windows = ChoiceBox("Window", "Brightness and contrast.", "Set by hand")
        self.devices = ChoiceBox("Compute on", "What computes; it changes the time, not the result.")
        self.meaning = OneLine()
        self.choices = QWidget()
        form = QFormLayout(self.choices)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for title, box, signal in (
            ("Scan", self.scans, self.scan_chosen),
            ("Slices", self.axes, self.axis_chosen),
            ("Window", self.windows, self.window_chosen),
            ("Compute on", self.devices, self.device_chosen),
        ):
            form.addRow(title, box)
            box.chosen.connect(signal)
        form.addRow("", self.meaning)
        self._form = form
        self.rows.addLayout(buttons)
        self.rows.addWidget(self.study_button)
        self.rows.addWidget(self.choices)
        self.set_scans((), None)
        self.set_devices((), None, "")

    def set_scans(self, choices: Sequence[Choice], current: Hashable | None) -> None:
        """Show the open scans."""
        self.scans.set_choices(choices, current)
        # Without a scan there is nothing to choose but the file.
        self.choices.setVisible(bool(choices))

    def set_axes(self, choices: Sequence[Choice], current: Hashable | None) -> None:
        """Show the directions in which the scan may be cut."""
        self.axes.set_choices(choices, current)

    def set_windows(self, choices: Sequence[Choice], current: Hashable | None) -> None:
        """Show the presets of brightness and contrast; None where the user has set his own."""
        self.windows.set_choices(choices, current)

    def set_devices(self, choices: Sequence[Choice], current: Hashable | None, meaning: str) -> None:
        """Show what can compute, and what the current choice means, such as "CPU, about 2 s"."""
        self.devices.set_choices(choices, current)
        self.meaning.set_full_text(meaning)
        self._form.setRowVisible(self.meaning, bool(meaning))

    def ask_for_file(self) -> str:
        """Let the user choose a file; empty where he did not."""
        return str(QFileDialog.getOpenFileName(self, "Open a scan", "", SCAN_FILES)[0])

    def ask_for_folder(self) -> str:
        """Let the user choose a folder; empty where he did not."""
        return str(QFileDialog.getExistingDirectory(self, "Open a DICOM folder"))

    def ask_for_study_folder(self) -> str:
        """Let the user choose a folder of scans; empty where he did not."""
        return str(QFileDialog.getExistingDirectory(self, "Open a study: a folder of scans"))

    def ask_for_study_table(self) -> str:
        """Let the user choose a table of scans; empty where he did not."""
        return str(QFileDialog.getOpenFileName(self, "Open a study: a table of scans", "", "Tables (*.csv)")[0])

    def _choose_study(self, path: str) -> None:
        if path:
            self.study_chosen.emit(path)

    def _choose_file(self) -> None:
        if path := self.ask_for_file():
            self.file_chosen.emit(path)

    def _choose_folder(self) -> None:
        if path := self.ask_for_folder():
            self.folder_chosen.emit(path)
