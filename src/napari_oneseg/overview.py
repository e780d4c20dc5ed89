"""What there is to choose from in a file or folder: of each scan one line, and a small picture of its middle slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_oneseg.dicom_pixels import read_grey_values
from napari_oneseg.errors import InputError
from napari_oneseg.image_files import read_frames
from napari_oneseg.io import Series, count_frames, is_dicom, list_series, read_volume
from napari_oneseg.volume import Volume
from napari_oneseg.windows import CT_WINDOWS, Window, default_window

__all__ = ["PICTURE_SIZE", "Candidate", "candidate_pictures", "list_candidates"]

PICTURE_SIZE = 96
"""Pixels along the longer side of a picture."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A scan that may be meant.

    Parameters
    ----------
    text
        A line that describes it, without the patient.
    series, frame
        What :func:`~napari_oneseg.io.read_volume` chooses it by; None where there is nothing to choose.
    """

    text: str
    series: str | None = None
    frame: int | None = None
    found: Series | None = field(default=None, repr=False)


def list_candidates(path: Path) -> list[Candidate]:
    """Return the scans that can be read from a file or folder, by reading headers only.

    Raises
    ------
    InputError
        If the file or folder cannot be read.
    """
    if is_dicom(path):
        usable = [series for series in list_series(path) if series.problem is None]
        return [Candidate(_described(series), series.key, None, series) for series in usable]
    frames = count_frames(path)
    if frames == 1:
        return [Candidate(path.name)]
    return [Candidate(f"Volume {frame}\n{frames} volumes, counted from 0", None, frame) for frame in range(frames)]


def candidate_pictures(path: Path, candidates: Sequence[Candidate]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Make a picture of each candidate's middle slice, one after the other, in the order in which that is quickest.

    Parameters
    ----------
    path, candidates
        As of :func:`list_candidates`.

    Yields
    ------
    The candidate's number, and its picture: shape (rows, columns), the longer side :data:`PICTURE_SIZE`, 0 to 255. One
    that cannot be read has none.
    """
    if candidates and candidates[0].frame is not None:
        yield from _of_frames(path)
        return
    for number, candidate in enumerate(candidates):
        if candidate.found is not None:
            try:
                yield number, _of_series(candidate.found)
            except InputError:
                continue


def _described(series: Series) -> str:
    slices, rows, columns = series.shape
    spacing = " x ".join(f"{side:.3g}" for side in series.spacing or ())
    number = "" if series.number is None else f"{series.number}: "
    kind = f"{series.modality}, " if series.modality else ""
    name = series.description or "without description"
    return f"{number}{name}\n{kind}{slices} slices of {rows} x {columns}\n{spacing} mm"


def _of_series(series: Series) -> NDArray[np.uint8]:
    assert series.grid is not None  # it can be read
    frame = series.frames[series.grid.order[len(series.grid.order) // 2]]
    image = read_grey_values([frame], np.zeros(1, np.intp))[0]
    assert frame.pixel_spacing is not None
    rows, columns = frame.pixel_spacing
    return _picture(image, (rows, columns), CT_WINDOWS[0] if series.modality == "CT" else None)


def _of_frames(path: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    first: Volume | None = None
    for number, array in enumerate(read_frames(path)):
        try:
            first = first or read_volume(path, frame=number)
            volume = replace(first, array=first.to_file.inverse.apply(array))
        except InputError:  # an empty volume, for instance, beside others
            continue
        yield number, _picture(volume.slices[volume.n_slices // 2], volume.in_plane_spacing, default_window(volume))


def _picture(
    image: NDArray[np.generic], spacing: tuple[float, float], window: Window | None = None
) -> NDArray[np.uint8]:
    """Return an image in its window, with square pixels, no larger than asked for."""
    values = image.astype(np.float32)
    if window is None:
        window = _window(values)
    grey = np.clip((values - window.low) / (window.high - window.low), 0, 1)
    sides = np.multiply(grey.shape, spacing)
    size = np.maximum(1, np.round(PICTURE_SIZE * sides / sides.max())).astype(int)
    # What is left out between the pixels of the picture would flicker.
    smooth = ndimage.uniform_filter(
        grey, [max(1, side // int(wanted)) for side, wanted in zip(grey.shape, size, strict=True)]
    )
    rows, columns = (
        (np.arange(wanted) + 0.5) * side / wanted - 0.5 for side, wanted in zip(grey.shape, size, strict=True)
    )
    small = ndimage.map_coordinates(smooth, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")
    picture: NDArray[np.uint8] = np.round(255 * small).astype(np.uint8)
    return picture


def _window(values: NDArray[np.float32]) -> Window:
    try:
        return default_window(Volume(np.stack([values, values])))
    except InputError:  # one value only
        return Window("Full range", float(values.min()) - 1, float(values.max()) + 1)
