"""Grey values of DICOM images: decoded, masked to the bits in use, turned around where inverted, and scaled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import iter_pixels

from napari_oneseg.dicom_file import DAMAGED, mute_libraries, parse_with_pixels
from napari_oneseg.dicom_frames import Frame, Header
from napari_oneseg.errors import InputError
from napari_oneseg.gdcm import decode

__all__ = ["padded_range", "read_grey_values", "value_type"]

_TYPES = [np.dtype(kind) for kind in ("u1", "i1", "u2", "i2", "u4", "i4")]


def value_type(frames: Sequence[Frame]) -> np.dtype[Any]:
    """Return the type that holds all values that the frames' headers allow.

    That is the type as stored where nothing is scaled, the smallest integer type where all slopes and intercepts are
    whole numbers, and float32 otherwise.
    """
    headers = {id(frame.header): frame.header for frame in frames}.values()
    scales = {(frame.slope, frame.intercept) for frame in frames}
    stored = {_stored_type(header) for header in headers}
    if scales == {(1.0, 0.0)} and len(stored) == 1:
        return stored.pop()
    if not all(number.is_integer() for scale in scales for number in scale):
        return np.dtype(np.float32)
    ends = [slope * end + intercept for slope, intercept in scales for header in headers for end in _ends(header)]
    fitting = (kind for kind in _TYPES if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max)
    return next(fitting, np.dtype(np.float32))


def padded_range(frames: Sequence[Frame], array: NDArray[np.generic]) -> tuple[float, float] | None:
    """Return the grey values that the frames' headers call padding: the lowest and the highest, scaled as pixels are.

    Parameters
    ----------
    frames
        The frames of a scan.
    array
        Its grey values.

    Returns
    -------
    None if no header names any, if frames are scaled so differently that one's padding may be another's tissue, or if
    nothing but padding would be left.
    """
    ranges = set()
    for frame in frames:
        lowest, highest = _ends(frame.header)
        low, high = frame.header.padding or (highest, lowest)
        if low <= high and low <= highest and high >= lowest:
            stored = np.clip([low, high], lowest, highest)
            ranges.add(tuple(sorted(_scaled(stored, frame, array.dtype).astype(float).tolist())))
    if len(ranges) != 1:
        return None
    ((low, high),) = ranges
    return None if low <= array.min() and array.max() <= high else (low, high)


def read_grey_values(frames: Sequence[Frame], places: NDArray[np.intp]) -> NDArray[np.generic]:
    """Read frames into a volume, and fill the slices for which there is none by linear interpolation.

    Parameters
    ----------
    frames
        The frames in the order of the scan, all of the same size.
    places
        The slice that each belongs to, ascending from 0.

    Returns
    -------
    Shape (places[-1] + 1, rows, columns), of :func:`value_type`.

    Raises
    ------
    InputError
        If a file is damaged, has changed, or is compressed in a way that cannot be read.
    """
    _, rows, columns = frames[0].header.shape
    volume = np.zeros((int(places[-1]) + 1, rows, columns), value_type(frames))
    slices = dict(zip(map(id, frames), places, strict=True))
    # By file, so that each is opened once, whatever the order of its frames.
    by_file = sorted(frames, key=lambda frame: (str(frame.header.path), frame.index))
    for _, group in groupby(by_file, key=lambda frame: frame.header.path):
        of_file = list(group)
        for frame, stored in zip(of_file, _stored_values(of_file), strict=True):
            volume[slices[id(frame)]] = _scaled(stored, frame, volume.dtype)
    for below, above in pairwise(places.tolist()):
        for place in range(below + 1, above):
            share = (place - below) / (above - below)
            between = (1 - share) * volume[below].astype(float) + share * volume[above].astype(float)
            volume[place] = between if volume.dtype.kind == "f" else np.round(between)
    return volume


def _stored_type(header: Header) -> np.dtype[Any]:
    return np.dtype(f"{'i' if header.is_signed else 'u'}{max(1, header.bits[0] // 8)}")


def _ends(header: Header) -> tuple[int, int]:
    """Return the lowest and highest value that the bits in use can hold."""
    stored = header.bits[1]
    return (-(1 << stored - 1), (1 << stored - 1) - 1) if header.is_signed else (0, (1 << stored) - 1)


def _stored_values(frames: list[Frame]) -> Iterator[NDArray[Any]]:
    """Yield frames of one file as they are stored, each (rows, columns)."""
    header, indices = frames[0].header, [frame.index for frame in frames]
    try:
        mute_libraries()
        dataset = parse_with_pixels(header.path)
        images = list(_decoded(dataset, indices, header))
    except InputError:
        raise
    except (*DAMAGED, RuntimeError) as error:
        raise InputError(
            f"The pixels of {header.path.name} cannot be read: they are damaged or incomplete; export the series again."
        ) from error
    if any(image.shape != header.shape[1:] or image.dtype.kind not in "iu" for image in images):
        raise InputError(f"{header.path.name} holds other images than its header says; export the series again.")
    yield from images


def _decoded(dataset: pydicom.FileDataset, indices: list[int], header: Header) -> Iterator[NDArray[Any]]:
    # Files of old programs do not say how they are written; pydicom has found out.
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        uid = pydicom.uid
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax.is_deflated:
        dataset.BitsStored = header.bits[0]  # all of them: of some, pydicom takes the lowest, whichever are in use
        for image in iter_pixels(dataset, indices=indices, raw=True):
            yield _in_use(image, header)
        return
    try:
        yield from decode(dataset).reshape(header.shape)[indices]
    except RuntimeError as unknown:
        # Newer ways of compressing: pydicom knows them where a plugin of it is installed.
        try:
            yield from iter_pixels(dataset, indices=indices, raw=True)
        except (RuntimeError, NotImplementedError):
            raise InputError(
                f"{header.path.name} cannot be read: it is damaged, or compressed in a way that is not known "
                f"({syntax.name}); export the series without compression."
            ) from unknown


def _in_use(image: NDArray[Any], header: Header) -> NDArray[Any]:
    """Drop bits that hold no grey values, such as old overlays, and give the value its sign."""
    allocated, stored, high = header.bits
    if allocated not in (8, 16, 32) or stored >= allocated or not stored <= high + 1 <= allocated:
        return image
    top = np.ascontiguousarray(image).view(f"u{allocated // 8}") << (allocated - 1 - high)
    return top.view(_stored_type(header)) >> (allocated - stored)


def _scaled(stored: NDArray[Any], frame: Frame, dtype: np.dtype[Any]) -> NDArray[Any]:
    values = stored
    if frame.header.is_inverted:
        low, high = _ends(frame.header)
        values = (low + high) - values.astype(np.int64)
    if (frame.slope, frame.intercept) != (1.0, 0.0):
        values = values.astype(np.float64) * frame.slope + frame.intercept
    if dtype.kind != "f":
        # Decoders may hand out more bits than the header allows.
        bounds = np.iinfo(dtype)
        if values.min() < bounds.min or values.max() > bounds.max:
            raise InputError(f"{frame.header.path.name} holds values that its header does not allow; export it again.")
    return values.astype(dtype)
