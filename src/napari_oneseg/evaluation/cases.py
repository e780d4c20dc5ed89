"""Scans with reference labels: how files become cases."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_oneseg.errors import InputError
from napari_oneseg.image_formats import READABLE, known_ending
from napari_oneseg.io import read_labels, read_volume
from napari_oneseg.volume import LabelArray, Volume

__all__ = ["Case", "CaseFiles", "find_cases", "read_names"]


@dataclass(frozen=True, eq=False)
class Case:
    """A scan and its reference labels.

    Attributes
    ----------
    name
        Name of the case in reports.
    volume
        The scan.
    reference
        Reference labels in slice order, unsigned integers, shape (n, rows, columns).
    """

    name: str
    volume: Volume
    reference: LabelArray

    def __post_init__(self) -> None:
        expected = self.volume.slices.shape
        if self.reference.shape != expected:
            raise InputError(
                f"The reference of {self.name} has the shape {self.reference.shape}, but its scan has {expected} in "
                "slice order. Give labels drawn on this scan, slices first."
            )


@dataclass(frozen=True)
class CaseFiles:
    """Where a case lies; it is read only when its turn comes, because many scans do not fit into memory at once."""

    name: str
    image: Path
    labels: Path
    frame: int | None = None
    """Which volume of a 4D scan."""
    spacing: tuple[float, float, float] | None = None
    """Voxel size along (z, y, x) in mm, where the scan's file does not say it."""

    def load(self, slice_axis: int | None = None) -> Case:
        """Read the scan and its labels.

        Parameters
        ----------
        slice_axis
            Axis (z, y, x) along which the slices run; by default that of the largest spacing.
        """
        volume = read_volume(self.image, slice_axis, frame=self.frame, spacing=self.spacing)
        return Case(self.name, volume, np.moveaxis(read_labels(self.labels, volume), volume.axis, 0))


def find_cases(
    images: Path | str,
    labels: Path | str,
    frame: int | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> list[CaseFiles]:
    """Pair the scans of one folder with the label files of another by name, suffixes such as ``.nii.gz`` left out.

    A sub-folder of ``images`` is taken as a DICOM series of that name. Label files without a scan are ignored.

    Parameters
    ----------
    images, labels
        The folders.
    frame
        Which volume of scans that have four dimensions.
    spacing
        Voxel size along (z, y, x) in mm of scans whose files do not say it.

    Returns
    -------
    Sorted by name.

    Raises
    ------
    InputError
        If a folder does not exist or holds nothing to read, or a scan has no label file.
    """
    scans, references = _by_stem(Path(images), folders=True), _by_stem(Path(labels), folders=False)
    missing = sorted(set(scans) - set(references))
    if missing:
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise InputError(
            f"Each scan in {images} needs a label file of the same name in {labels}; {len(missing)} of {len(scans)} "
            f"have none: {shown}. Add the files or rename them."
        )
    return [CaseFiles(name, scans[name], references[name], frame, spacing) for name in sorted(scans)]


def read_names(path: Path | str) -> dict[int, str]:
    """Read organ names from a JSON file of the form ``{"1": "liver", "2": "right kidney"}``.

    Raises
    ------
    InputError
        If the file cannot be read or has another form.
    """
    expected = 'Organ names are expected as JSON of the form {"1": "liver"}'
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{expected}, but {path} cannot be read: {error}.") from error
    if not isinstance(content, dict) or not all(key.isdecimal() and isinstance(content[key], str) for key in content):
        raise InputError(f"{expected}; {path} holds something else.")
    return {int(key): name for key, name in content.items()}


def _by_stem(folder: Path, folders: bool) -> dict[str, Path]:
    """Return the readable files of a folder, and its sub-folders where wanted, by their names without suffix."""
    if not folder.is_dir():
        raise InputError(f"The folder {folder} does not exist. Give one folder of scans and one of label files.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        suffix = known_ending(path)
        if not (path.is_dir() and folders) and (suffix is None or path.is_dir()):
            continue
        stem = path.name[: -len(suffix)] if suffix and path.is_file() else path.name
        if stem in found:
            raise InputError(f"Two files are named {stem} in {folder}: {found[stem].name} and {path.name}. Keep one.")
        found[stem] = path
    if not found:
        raise InputError(f"{folder} holds no file that can be read; expected are {', '.join(READABLE)} files.")
    return found
