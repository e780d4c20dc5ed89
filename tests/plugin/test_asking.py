from __future__ import annotations

from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QFileDialog

from napari_oneseg.plugin.asking import Asking, with_ending


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a.nii.gz", "NIfTI (*.nii.gz *.nii)", "a.nii.gz"),
        ("a.nii", "NIfTI (*.nii.gz *.nii)", "a.nii"),
        ("a", "NIfTI (*.nii.gz *.nii)", "a.nii.gz"),
        ("a_labels.nii.gz", "NRRD (*.nrrd)", "a_labels.nrrd"),
        ("a.v2.nii.gz", "DICOM segmentation (*.dcm)", "a.v2.dcm"),
        ("A.NII.GZ", "NIfTI (*.nii.gz *.nii)", "A.NII.GZ"),
        ("a.nrrd", "", "a.nrrd"),
    ],
)
def test_the_name_gets_the_ending_of_the_chosen_kind(name: str, kind: str, expected: str) -> None:
    assert with_ending(Path("x") / name, kind) == Path("x") / expected


def test_a_file_that_the_dialog_did_not_ask_about_is_asked_about(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Asking()
    qtbot.addWidget(asking)
    answers, asked = [False, True], []
    monkeypatch.setattr(asking, "is_sure", lambda question: asked.append(question) or answers[len(asked) - 1])
    offered = []

    def dialog(_parent: object, _title: str, proposed: str, kinds: str) -> tuple[str, str]:
        offered.append(kinds)
        return proposed, "NRRD (*.nrrd)"

    monkeypatch.setattr(QFileDialog, "getSaveFileName", dialog)
    proposed = tmp_path / "a_labels.nii.gz"
    assert asking.for_export(proposed) == tmp_path / "a_labels.nrrd"
    assert asked == []
    (tmp_path / "a_labels.nrrd").touch()
    assert asking.for_export(proposed, dicom=True) is None
    assert asking.for_export(proposed, dicom=True) == tmp_path / "a_labels.nrrd"
    assert [kinds.count("DICOM") for kinds in offered] == [0, 1, 1]


def test_earlier_work_is_offered_and_discarded_only_when_the_user_is_sure(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Asking()
    qtbot.addWidget(asking)
    done: list[str] = []
    sure = [False, True]
    monkeypatch.setattr(asking, "is_sure", lambda _: sure.pop(0))
    asking.offer("There is work.", lambda: done.append("yes"), lambda: done.append("no"))
    asking.no_button.click()
    assert not asking.isHidden()
    asking.no_button.click()
    assert asking.isHidden()
    asking.offer("There is work.", lambda: done.append("yes"), lambda: done.append("no"))
    asking.later_button.click()
    assert asking.isHidden()
    asking.offer("There is work.", lambda: done.append("yes"), lambda: done.append("no"))
    asking.yes_button.click()
    assert done == ["no", "yes"]
