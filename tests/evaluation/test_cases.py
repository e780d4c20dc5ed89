from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_oneseg.errors import InputError
from napari_oneseg.evaluation.cases import Case, find_cases, read_names
from napari_oneseg.volume import Volume


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_files_are_paired_by_name(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "b.nii.gz", "a.1.NRRD", ".hidden.nii", "notes.txt")
    (images / "series").mkdir()
    labels = touch(tmp_path / "labels", "a.1.nii.gz", "b.mha", "series.nii", "unused.nii")
    (labels / "old").mkdir()
    cases = find_cases(images, labels)
    assert [(case.name, case.image.name, case.labels.name) for case in cases] == [
        ("a.1", "a.1.NRRD", "a.1.nii.gz"),
        ("b", "b.nii.gz", "b.mha"),
        ("series", "series", "series.nii"),
    ]


def test_what_cannot_be_paired_is_named(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "a.nii", "b.nii", "c.nii")
    labels = touch(tmp_path / "labels", "a.nii")
    with pytest.raises(InputError, match="2 of 3 have none: b, c"):
        find_cases(images, labels)
    with pytest.raises(InputError, match="nowhere does not exist"):
        find_cases(images, tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no file that can be read"):
        find_cases(touch(tmp_path / "empty", "readme.txt"), labels)
    with pytest.raises(InputError, match="Two files are named a"):
        find_cases(images, touch(labels, "a.nrrd"))


def test_reference_must_fit_the_scan() -> None:
    volume = Volume(np.random.default_rng(0).normal(size=(3, 4, 5)), (1.0, 1.0, 2.0))
    with pytest.raises(InputError, match="slices first"):
        Case("one", volume, np.zeros((3, 4, 5), np.uint8))


def test_names_are_read_from_json(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text('{"1": "liver", "12": "aorta"}')
    assert read_names(path) == {1: "liver", 12: "aorta"}
    for wrong in ('["liver"]', '{"liver": 1}', '{"1": 1}', "{"):
        path.write_text(wrong)
        with pytest.raises(InputError, match="names"):
            read_names(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_names(tmp_path / "missing.json")
