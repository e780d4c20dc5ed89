"""Scans from files, label images to files: the only file of the core that knows SimpleITK and its (x, y, z).

Whatever is written is read back and compared before it gets its name: a write that fails, on a full disk for instance,
is not always reported, and half a label image looks like a whole one.
"""

from __future__ import annotations

import gzip
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_oneseg.dicom import FRAME_OF_REFERENCE, SERIES
from napari_oneseg.dicom_pixels import padded_range
from napari_oneseg.dicom_seg_labels import read_segments
from napari_oneseg.dicom_series import Series, choose_series, list_series, read_series
from napari_oneseg.errors import AnnotationError, InputError, OutputError
from napari_oneseg.file_order import FILE_ORIGIN, file_grid, in_file_order
from napari_oneseg.files import scratch_folder, settle, why_not_written
from napari_oneseg.image_files import CHOOSE_ONE, count_frames, read_image, read_label_image, write_file
from napari_oneseg.image_formats import WRITABLE, known_ending, may_be_dicom
from napari_oneseg.label_values import whole_labels
from napari_oneseg.nifti import is_nifti, repeat_geometry
from napari_oneseg.nifti_geometry import check_places
from napari_oneseg.orientation import Grid, Orientation, nearest_orientation
from napari_oneseg.segment_layers import has_layers, read_layers
from napari_oneseg.volume import Volume, label_dtype
from napari_oneseg.voxel_size import check_given, takes_size_of_scan, voxel_size

__all__ = [
    "Series",
    "count_frames",
    "is_dicom",
    "list_series",
    "read_labels",
    "read_volume",
    "read_volume_with_remarks",
    "write_image",
    "write_labels",
]


def read_volume(
    path: str | Path,
    slice_axis: int | None = None,
    series: str | None = None,
    frame: int | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> Volume:
    """Read a scan with its exact position in space.

    Parameters
    ----------
    path
        A NIfTI, NRRD or MetaImage file (ending in one of :data:`~napari_oneseg.image_formats.READABLE`), a folder with
        DICOM files, or a multi-frame DICOM file. Slices are sorted by position.
    slice_axis
        The axis of the slices in patient order: 0 for axial slices, 1 for coronal, 2 for sagittal ones; by default the
        axis of the largest spacing.
    series
        Which DICOM series, where the files make several: its key, as of :func:`list_series`, its UID, its number or its
        description.
    frame
        Which volume of a 4D file, from 0 on; :func:`count_frames` says how many there are. Labels of it are written as
        a 3D image on that volume's grid.
    spacing
        How large the voxels are, along (z, y, x) of the file in mm, where the file does not say it.

    Returns
    -------
    The scan in patient order, its array a view: axis 0 runs to the head, axis 1 to the back and axis 2 to the patient's
    left, each of an oblique scan taken for the nearest. ``to_file`` leads back to the order of the file, which nobody
    else has to know of. Integer grey values keep their type; floats, and integers that the file scales, become float32.
    For a NIfTI file ``header`` holds the entries that place its voxels in space, as the file has them.

    Raises
    ------
    InputError
        If there is no such file, or it is not one complete 3D scan of at least two slices with finite grey values; if a
        spacing is given, and the file says another one.

    Warns
    -----
    UserWarning
        If a file does not say how large its voxels are, and no spacing is given; if slices of a DICOM series are
        missing or not evenly spaced, or other images are left out; if a NIfTI file says in two ways where its voxels
        lie that contradict each other.
    """
    volume, remarks = read_volume_with_remarks(path, slice_axis, series, frame, spacing)
    for remark in remarks:
        warnings.warn(remark, stacklevel=2)
    return volume


def read_volume_with_remarks(
    path: str | Path,
    slice_axis: int | None = None,
    series: str | None = None,
    frame: int | None = None,
    given_spacing: tuple[float, float, float] | None = None,
) -> tuple[Volume, tuple[str, ...]]:
    """Read a scan as :func:`read_volume` does; return what that would warn of, so that threads can pass it on.

    Which warnings are shown is a setting of the whole process: a thread that collects warnings takes others' as well.
    """
    path = Path(path)
    if is_dicom(path):
        if frame is not None:
            raise InputError(f"{path.name} is read as DICOM, which has series, not numbered volumes: choose one.")
        volume, remarks = _read_dicom(path, series, slice_axis)
        check_given(path.name, given_spacing, file_grid(volume).spacing)
        return volume, remarks
    if series is not None:
        raise InputError(f"{path.name} is no DICOM file, so there is no series '{series}' to choose in it.")
    image = read_image(path, frame, CHOOSE_ONE)
    size = voxel_size(path, image, given_spacing)
    image.SetSpacing(size.spacing[::-1])
    array = sitk.GetArrayFromImage(image)
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # becomes infinite, which Volume reports
            array = array.astype(np.float32, copy=False)
    volume = _in_patient_order(array, _grid(image), slice_axis, size.header, spacing_known=size.is_known)
    contradiction = check_places(in_file_order(volume))
    return volume, (*size.remarks, *([] if contradiction is None else [contradiction]))


def is_dicom(path: Path) -> bool:
    """Whether a path is read as DICOM: a folder, or a file of no other kind that begins like a DICOM file."""
    return path.is_dir() or (path.is_file() and known_ending(path) is None and may_be_dicom(path))


def read_labels(path: str | Path, volume: Volume) -> NDArray[np.unsignedinteger]:
    """Read a label image that was drawn on a scan.

    Parameters
    ----------
    path
        A file of one of the kinds in :data:`~napari_oneseg.image_formats.READABLE`. Its grid must be the scan's:
        spacing within 0.01 %, origin within 1 % of the smallest voxel side, components of the axes' directions within
        0.001. Or a DICOM-SEG, or the folder that holds one: see
        :func:`~napari_oneseg.dicom_seg_labels.read_segments`.
    volume
        The scan.

    Returns
    -------
    Labels in the scan's order, shape (z, y, x), the smallest unsigned integer type that holds them. Whole numbers
    stored as floats count as labels, also such as a scaling has left off by up to 0.001; NaN is background. Of a
    segmentation in several layers (``.seg.nrrd``), as 3D Slicer keeps segments that may overlap, all layers are taken
    together.

    Raises
    ------
    AnnotationError
        If the grid differs, a value is not a whole number from 0 to 65535, or segments overlap.
    InputError
        If there is no such file, or it is not one complete 3D image.

    Warns
    -----
    UserWarning
        If values were rounded, or NaN was taken for background.
    """
    path = Path(path)
    if is_dicom(path):
        return read_segments(path, volume)
    image, nan = read_layers(path) if has_layers(path) else read_label_image(path)
    wanted = file_grid(volume)
    if takes_size_of_scan(path, image, volume.header):
        image.SetSpacing(wanted.spacing[::-1])
    differences = _differences(image, wanted)
    if differences:
        raise AnnotationError(
            f"{path.name} is not on the scan's grid: {'; '.join(differences)}. Open the scan that it was drawn on, or "
            "resample it to this one with nearest-neighbour interpolation."
        )
    array = sitk.GetArrayFromImage(image)
    array, remarks = whole_labels(array, nan, path.name)
    for remark in remarks:
        warnings.warn(remark, stacklevel=2)
    low, high = array.min(), array.max()
    if low < 0 or high > 65535:
        raise AnnotationError(
            f"{path.name} holds values from {low:g} to {high:g}; labels must lie between 0 (background) and 65535. "
            + ("Check that it is a label image and not a scan." if low < 0 else "Renumber the labels.")
        )
    # Contiguous, because it may be painted on.
    return np.ascontiguousarray(volume.to_file.inverse.apply(array), label_dtype(int(high)))


def write_labels(
    path: str | Path, labels: NDArray[np.integer[Any]], volume: Volume, entries: Mapping[str, str] | None = None
) -> None:
    """Write labels on exactly the scan's grid, in the smallest unsigned integer type, compressed where possible.

    The file is written beside its final name, read back, compared voxel for voxel, and only then renamed: an older file
    of that name is replaced whole or not at all.

    Parameters
    ----------
    path
        The file, ending in one of :data:`WRITABLE`; ``.nii`` is the only one that is not compressed.
    labels
        In the scan's order, shape (z, y, x), integers from 0 to 2^32 - 1; they are turned to the order of its file.
    volume
        The scan that the labels were made on, as :func:`read_volume` returned it. Its ``header`` is repeated in a NIfTI
        file; a volume on another grid (cropped, resampled) must not keep the header of the file that it came from.

    entries
        Entries for the header of an NRRD file, such as those of
        :func:`~napari_oneseg.segment_nrrd.segment_entries`; other formats have no place for them.

    Raises
    ------
    InputError
        If the labels do not fit the scan, or are not unsigned integers of up to 32 bits.
    OutputError
        If the file cannot be written; nothing is left behind, and an older file is untouched.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"Labels must be integers, got {labels.dtype}.")
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > 2**32 - 1:
        raise InputError(f"Labels must lie between 0 and 2^32 - 1, got {low} to {high}.")
    _write(Path(path), labels.astype(label_dtype(high)), volume, entries or {})


def write_image(path: str | Path, array: NDArray[np.floating[Any]], volume: Volume) -> None:
    """Write a map such as the confidence on exactly the scan's grid, as float32; otherwise like :func:`write_labels`.

    Parameters
    ----------
    path
        The file, ending in one of :data:`WRITABLE`.
    array
        In the scan's order, shape (z, y, x), finite real numbers.
    volume
        The scan that the map was made on.

    Raises
    ------
    InputError
        If the map's shape is not the scan's, or it holds NaN or infinite values, which NIfTI readers may replace.
    OutputError
        If the file cannot be written; nothing is left behind, and an older file is untouched.
    """
    if not np.isfinite(array).all():
        raise InputError("The map holds values that are NaN or infinite; give them a number, such as 0.")
    _write(Path(path), array.astype(np.float32), volume)


def _read_dicom(path: Path, wanted: str | None, slice_axis: int | None) -> tuple[Volume, tuple[str, ...]]:
    """Read a DICOM series, and return it with what the user must be told of it."""
    found = list_series(path)
    series = choose_series(path, found, wanted)
    array = read_series(series)
    grid = series.grid
    assert grid is not None
    remarks = list(grid.remarks)
    if wanted is None and len(found) > 1:
        others = "; ".join(f"{other}" for other in found if other is not series)
        remarks.append(f"Of the DICOM files in the folder, {series} is opened. Left out: {others}.")
    header = grid.header | {SERIES: series.key}
    spaces = {frame.header.frame_of_reference for frame in series.frames}
    if len(spaces) == 1:
        header[FRAME_OF_REFERENCE] = spaces.pop()
    places = Grid(array.shape, grid.spacing, grid.origin, grid.direction)
    padding = padded_range(series.frames, array)
    return _in_patient_order(array, places, slice_axis, header, padding), tuple(remarks)


def _in_patient_order(
    array: NDArray[np.generic],
    grid: Grid,
    slice_axis: int | None,
    header: Mapping[str, str],
    padding: tuple[float, float] | None = None,
    spacing_known: bool = True,
) -> Volume:
    """Return what a file holds as a scan in patient order, with the way back."""
    way = nearest_orientation(grid.direction)
    turned = grid.turned(way)
    if way != Orientation():
        header = {**header, FILE_ORIGIN: " ".join(map(repr, grid.origin))}
    return Volume(
        way.apply(array),
        turned.spacing,
        turned.origin,
        turned.direction,
        slice_axis,
        header,
        to_file=way.inverse,
        padding=padding,
        spacing_known=spacing_known,
    )


def _grid(image: sitk.Image) -> Grid:
    """Return where an image's voxels lie, in the order of the array's axes."""
    x, y, z = image.GetSpacing()
    direction = np.array(image.GetDirection()).reshape(3, 3)[:, ::-1].copy()
    return Grid(image.GetSize()[::-1], (z, y, x), tuple(image.GetOrigin()), direction)


def _differences(image: sitk.Image, wanted: Grid) -> list[str]:
    """Say in what an image's grid differs from another, with both values; an empty list if they are the same."""
    return _grid(image).differences(wanted)


def _write(path: Path, array: NDArray[Any], volume: Volume, entries: Mapping[str, str] = MappingProxyType({})) -> None:
    suffix = known_ending(path, WRITABLE)
    if suffix is None:
        raise OutputError(f"{path.name} cannot be written: its name must end in {', '.join(WRITABLE)}.")
    if array.shape != volume.array.shape:
        raise InputError(f"The scan's shape {volume.array.shape} (z, y, x) was expected, got {array.shape}.")
    try:
        _check_place(path)
        # A folder, because an intermediate file may be needed: it goes as a whole, whatever happens.
        with scratch_folder(path.parent) as folder:
            part = folder / f"part{suffix}"
            turned, grid = volume.to_file.apply(array), file_grid(volume)
            _write_file(part, turned, grid, volume.header, entries)
            problem = _problem_of_written(part, turned, grid)
            if problem is None:
                settle(part)
                part.replace(path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} was not written: {why_not_written(error, path.parent)}.") from error
    except (RuntimeError, InputError) as error:
        raise OutputError(
            f"{path} could not be written completely: the disk is probably full, or takes no file of that size; make "
            "room or choose another folder."
        ) from error
    if problem is not None:
        raise OutputError(f"{path} was not written: {problem}.")


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist; create it first.")
    if path.is_dir():
        raise OutputError(f"{path} cannot be written: it is a folder; give the name of a file.")


def _write_file(
    path: Path, array: NDArray[Any], grid: Grid, header: Mapping[str, str], entries: Mapping[str, str]
) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction[:, ::-1].ravel().tolist())
    for key, value in entries.items() if path.suffix == ".nrrd" else ():
        image.SetMetaData(key, value)
    if not is_nifti(path):
        write_file(image, path, compress=True)
        return
    plain = path.with_name("plain.nii")
    write_file(image, plain, compress=False)
    repeat_geometry(plain, header)
    if path.suffix == ".nii":
        plain.rename(path)
        return
    # Without name and time in it, equal labels make equal files.
    with plain.open("rb") as source, path.open("wb") as file, gzip.GzipFile("", "wb", 5, file, mtime=0) as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _problem_of_written(path: Path, array: NDArray[Any], grid: Grid) -> str | None:
    """Read back what was written, and say in what it differs from what was meant."""
    image = read_image(path)
    differences = _differences(image, grid)
    if differences:
        return f"the header kept with the scan is not that of its grid: {'; '.join(differences)}"
    if not np.array_equal(sitk.GetArrayFromImage(image), array):
        return "what was read back differs from what was written; choose another disk"
    return None
