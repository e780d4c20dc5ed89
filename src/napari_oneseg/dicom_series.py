"""Which scans the DICOM files of a folder hold, and one of them read."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.dicom import SliceGrid, slice_grid
from napari_oneseg.dicom_frames import Frame, read_frames
from napari_oneseg.dicom_pixels import read_grey_values, value_type
from napari_oneseg.dicom_stacks import Stack, grouped, places_of, split
from napari_oneseg.errors import InputError

__all__ = ["LARGEST", "Series", "choose_series", "files_at", "list_series", "read_series", "series_of"]

LARGEST = 2 << 30
"""Bytes of grey values that are read at most; told from the headers, before memory is used."""

_MOST_FILES = 20_000


@dataclass(frozen=True, eq=False)
class Series:
    """A scan in a folder of DICOM files.

    Parameters
    ----------
    key
        What chooses it and nothing else in the folder: the series' UID, followed by ``#2`` and so on where the files
        make several scans of one series.
    uid, number, description, modality
        As in the files; the description is followed by what sets the scan apart from others of its series.
    shape
        Slices, rows and columns; missing slices that are filled in count.
    spacing
        Between slices, rows and columns in mm; None if they make no grid.
    problem
        Why it cannot be read, as a sentence; None if it can.
    """

    key: str
    uid: str
    number: int | None
    description: str
    modality: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    problem: str | None
    grid: SliceGrid | None = field(repr=False, default=None)
    frames: tuple[Frame, ...] = field(repr=False, default=())

    def __str__(self) -> str:
        """Return number, description and number of slices, as shown to the user."""
        number = "" if self.number is None else f"{self.number}: "
        kind = "images" if self.grid is None else "slices"
        images = f"{self.shape[0]} {kind}" if self.shape[0] > 1 else "1 image"
        return f"{number}'{self.description or 'without description'}', {images}"


def list_series(path: str | Path) -> list[Series]:
    """List the scans in the DICOM files of a folder and of the folders in it, or in one multi-frame file.

    Names and endings of files do not matter; files that are not DICOM images of a scan are passed over, and so are
    equal copies. Nothing that names the patient is kept.

    Parameters
    ----------
    path
        The folder, or the file.

    Returns
    -------
    The scans in the order of their numbers, with those that cannot be read and why not.

    Raises
    ------
    InputError
        If there is no such folder, or it holds more than 20,000 files, or damaged DICOM files.
    """
    return series_of(files_at(Path(path)))


def series_of(files: Iterable[Path]) -> list[Series]:
    """List the scans in DICOM files, as :func:`list_series` does."""
    frames = [frame for file in files for frame in read_frames(file)]
    frames.sort(key=lambda frame: frame.instance_number)
    found: list[Series] = []
    for group in grouped(_without_copies(frames), lambda frame: frame.header.series):
        for count, stack in enumerate(split(group), 1):
            found.append(_series(stack, f"#{count}" if count > 1 else ""))
    return sorted(found, key=lambda series: (series.number is None, series.number or 0))


def choose_series(folder: Path, found: Sequence[Series], wanted: str | None = None) -> Series:
    """Return the one scan that is wanted.

    Parameters
    ----------
    folder
        Where they were found, for messages.
    found
        The scans.
    wanted
        Key, UID, number or description; by default the only scan that can be read, or that lies in the folder itself.

    Raises
    ------
    InputError
        If none or several are meant, or the one cannot be read.
    """
    if not found and folder.is_file():
        raise InputError(
            f"{folder.name} holds no images of a scan; segmentations, doses and reports cannot be opened. Give the "
            "scan that it belongs to; a segmentation can be given with it, as its annotation."
        )
    if not found:
        raise InputError(
            f"{folder} holds no DICOM files with images of a scan; give the folder in which the files of one series "
            "lie."
        )
    listed = "; ".join(map(str, found))
    if wanted is None:
        chosen = [series for series in found if series.problem is None]
        if not chosen:
            raise InputError(_why_none(folder, found))
        inside = [series for series in chosen if all(frame.header.path.parent == folder for frame in series.frames)]
        chosen = inside if len(inside) == 1 else chosen
        if len(chosen) > 1:
            raise InputError(
                f"{folder} holds {len(chosen)} DICOM series ({listed}); choose one, or move the files of one series to "
                "a folder of their own and give that folder."
            )
    else:
        chosen = _meant(found, wanted.strip())
        if len(chosen) != 1:
            many = f"{len(chosen)} DICOM series" if chosen else "no DICOM series"
            keys = "; ".join(f"{series} ({series.key})" for series in chosen or found)
            raise InputError(f"'{wanted}' names {many} in {folder}; choose one of: {keys}.")
    (series,) = chosen
    if series.problem is not None:
        raise InputError(series.problem)
    return series


def _why_none(folder: Path, found: Sequence[Series]) -> str:
    """Say why no scan of a folder can be read."""
    problems: dict[str, Series] = {}
    for series in found:
        problems.setdefault(series.problem or "", series)
    if len(problems) == 1:
        return next(iter(problems))
    reasons = " ".join(f"({count}) {series}: {problem}" for count, (problem, series) in enumerate(problems.items(), 1))
    return f"None of the {len(found)} DICOM series in {folder} can be opened. {reasons}"


def read_series(series: Series) -> NDArray[np.generic]:
    """Read the grey values of a scan, shape (slices, rows, columns); see :func:`choose_series` for its errors.

    Raises
    ------
    InputError
        If pixels are damaged, or compressed in a way that cannot be read.
    """
    assert series.grid is not None  # a scan without one has a problem, and is not chosen
    return read_grey_values([series.frames[index] for index in series.grid.order], series.grid.places)


def _meant(found: Sequence[Series], wanted: str) -> list[Series]:
    """Return the scans that a word names, by the first way of naming that fits any."""
    ways: tuple[Callable[[Series], str], ...] = (
        lambda series: series.key,
        lambda series: series.uid,
        lambda series: str(series.number),
        lambda series: series.description.casefold(),
    )
    for way in ways:
        if chosen := [series for series in found if way(series) in (wanted, wanted.casefold())]:
            return chosen
    return []


def files_at(path: Path) -> list[Path]:
    """Return the file, or all files of a folder and of the folders in it, in the order of their names."""
    if path.is_file():
        return [path]
    try:
        inside = sorted(path.iterdir())
        folders = (file for file in inside if file.is_dir() and not file.name.startswith("."))
        below = (file for folder in folders for file in _readable(folder))
        files = list(islice((file for file in [*inside, *below] if file.is_file()), _MOST_FILES + 1))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check the folder.") from error
    if len(files) > _MOST_FILES:
        raise InputError(f"{path} holds more than {_MOST_FILES} files; give the folder of one study or series.")
    return files


def _readable(folder: Path) -> Iterable[Path]:
    try:
        return sorted(folder.iterdir())
    except PermissionError:
        return []


def _without_copies(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Leave out files that are equal to one before, as where a folder was copied into itself."""
    seen: dict[str, Path] = {}
    for frame in frames:
        header = frame.header
        first = seen.setdefault(header.instance, header.path) if header.instance else header.path
        if first == header.path or not filecmp.cmp(first, header.path, shallow=False):
            yield frame


def _series(stack: Stack, part: str) -> Series:
    frames = stack.frames
    header = frames[0].header
    grid, problem = None, _problem(frames)
    if problem is None:
        try:
            grid = _grid(frames)
        except InputError as error:
            problem = str(error)
    # A multi-frame file without positions is one frame here.
    images = max(len(frames), header.shape[0]) if frames[0].position is None else len(frames)
    slices = int(grid.places[-1]) + 1 if grid else images
    if problem is None:
        problem = _too_large(frames, slices)
    extra = ", ".join(f"{trait} {value}" for trait, value in stack.told.items())
    return Series(
        header.series + part,
        header.series,
        header.number,
        ", ".join(filter(None, (header.description, extra))),
        header.modality,
        (slices, *header.shape[1:]),
        grid.spacing if grid else None,
        problem,
        grid,
        tuple(frames),
    )


def _problem(frames: list[Frame]) -> str | None:
    """Say why frames are no scan, before they are asked for a grid."""
    first = frames[0]
    if first.header.is_mosaic:
        images = "its image holds" if len(frames) == 1 else f"each of its {len(frames)} images holds"
        return (
            f"This DICOM series is a mosaic, as Siemens scanners write it: {images} all slices of one volume side by "
            "side. Convert it to NIfTI with dcm2niix, and open that file."
        )
    return _problem_of_pixels(first) or _problem_of_places(frames)


def _problem_of_pixels(first: Frame) -> str | None:
    if not first.header.is_grey:
        return "This DICOM series holds colour images; one grey value per voxel was expected."
    allocated, stored, _ = first.header.bits
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated:
        return (
            f"This DICOM series stores its pixels in {allocated} bits, {stored} of them in use; whole numbers of 8, 16 "
            "or 32 bits were expected. Convert it to NIfTI first."
        )
    return None


def _problem_of_places(frames: list[Frame]) -> str | None:
    first = frames[0]
    if first.position is None or first.orientation is None:
        return "The slices of this DICOM series have no position, so their order is unknown; export it again."
    if first.pixel_spacing is None or min(first.pixel_spacing) <= 0:
        return "This DICOM series does not say how large its pixels are; export it again from where it was taken."
    if len(frames) == 1:
        return "This is a single DICOM file; a scan needs at least two slices: give the folder of the whole series."
    return None if any(places_of(frames).values()) else _one_place(frames)


def _one_place(frames: list[Frame]) -> str:
    """Say that images lie at one place, and whether they seem to have had places of their own."""
    position = ", ".join(f"{number:g}" for number in frames[0].position or ())
    heights = [frame.slice_location for frame in frames if frame.slice_location is not None]
    start = f"All {len(frames)} images of this DICOM series lie at the same position ({position} mm)"
    if len(set(heights)) > 1:
        return (
            f"{start}, although they are said to be slices from {min(heights):g} to {max(heights):g} mm (Slice "
            "Location): their positions were probably lost when the series was anonymised or converted. Export it "
            "again from where it was taken, with Image Position (Patient) kept."
        )
    return (
        f"{start}: a single slice at several times, or slices whose positions were lost when the series was anonymised "
        "or converted. A scan needs slices at different positions: give another series, or export this one again with "
        "Image Position (Patient) kept."
    )


def _too_large(frames: list[Frame], slices: int) -> str | None:
    """Say that frames hold more than is read."""
    _, rows, columns = frames[0].header.shape
    # A multi-frame file is decoded whole, even if a part of it is wanted.
    whole = max(int(np.prod(frame.header.shape, dtype=float)) * frame.header.bits[0] // 8 for frame in frames)
    size = max(whole, slices * rows * columns * value_type(frames).itemsize)
    if size <= LARGEST:
        return None
    return (
        f"This DICOM series holds {size / 2**30:.1f} GB of grey values; at most {LARGEST >> 30} GB can be read: export "
        "a part of it, or with fewer pixels."
    )


def _grid(frames: list[Frame]) -> SliceGrid:
    first = frames[0]
    assert first.orientation is not None
    assert first.pixel_spacing is not None
    rows, columns = first.pixel_spacing
    return slice_grid(np.array([frame.position for frame in frames]), np.array(first.orientation), (rows, columns))
