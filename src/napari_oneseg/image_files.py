"""Images from NIfTI, NRRD and MetaImage files, as SimpleITK has them: one complete 3D image, or a sentence why not.

What SimpleITK does not notice, or notices too late, is compared before it reads the file; what it does not know is
rewritten.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_oneseg import metaimage, nifti_geometry, nrrd
from napari_oneseg.dicom_series import LARGEST
from napari_oneseg.errors import InputError
from napari_oneseg.gdcm import quiet
from napari_oneseg.image_formats import READABLE, known_ending
from napari_oneseg.metaimage import check_meta_image, rewrite_meta_image
from napari_oneseg.native import decimal_points, plain_path
from napari_oneseg.nifti import (
    as_nifti_1,
    check_voxels,
    count_volumes,
    is_as_simpleitk_reads,
    is_nifti,
    read_geometry,
    read_volumes,
    too_large,
)
from napari_oneseg.nrrd import check_nrrd, listed_volumes, rewrite_nrrd
from napari_oneseg.volume import SHEARED

__all__ = ["count_frames", "read_frames", "read_image", "read_label_image", "states_spacing", "write_file"]

SAVE_ONE = "save one of its volumes as a file of its own"
CHOOSE_ONE = "choose one of its volumes with --frame, 0 to {last}"


def count_frames(path: Path) -> int:
    """Return how many volumes a file holds: 1, or as many as a 4D image has.

    Raises
    ------
    InputError
        If there is no such file, or its header is damaged.
    """
    suffix = _checked_suffix(path)
    if is_nifti(path):
        return count_volumes(path)
    _check_header(path, suffix)
    with _reader(path, suffix) as reader:
        size = reader.GetSize()
        return int(size[3]) if len(size) == 4 else _volumes_listed(reader, path, suffix)


def read_image(path: Path, frame: int | None = None, several: str = SAVE_ONE) -> sitk.Image:
    """Read a file as one 3D image with one real value per voxel.

    Parameters
    ----------
    path
        The file, ending in one of :data:`READABLE`.
    frame
        Which volume of a 4D image, from 0 on.
    several
        What is to be done where it is needed, but not given.

    Raises
    ------
    InputError
        If there is no such file, or it is not one complete 3D image; if there is no such volume in it.
    """
    return _image(path, frame, several, False)[0]


def read_label_image(path: Path) -> tuple[sitk.Image, int]:
    """Read a file as :func:`read_image` does, and return it with the number of its voxels that are NaN.

    Those of a NIfTI file are 0 in the image. Some programs mark as NaN what was not drawn on.
    """
    return _image(path, None, SAVE_ONE, True)


def _image(path: Path, frame: int | None, several: str, with_nan: bool) -> tuple[sitk.Image, int]:
    suffix = _checked_suffix(path)
    _check_header(path, suffix)
    if not is_nifti(path):
        image = _read(path, path, suffix, frame, several)
        return image, _count_nan(image) if with_nan else 0
    volumes = count_volumes(path)
    chosen = _chosen(path.name, volumes, frame, several)
    nan = check_voxels(path, LARGEST, chosen, with_nan)
    if volumes == 1 and is_as_simpleitk_reads(path):
        return _read(path, path, suffix, frame, several), nan
    with tempfile.TemporaryDirectory(prefix="oneseg-") as folder:
        plain = Path(folder) / "plain.nii"
        as_nifti_1(path, plain, chosen)
        return _read(plain, path, suffix, 0, several), nan


def read_frames(path: Path) -> Iterator[NDArray[np.generic]]:
    """Read all volumes of a 4D file one after the other, each (z, y, x), for looking at them.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    suffix = _checked_suffix(path)
    _check_header(path, suffix)
    if is_nifti(path):
        yield from read_volumes(path)
        return
    with _reader(path, suffix) as reader:
        listed = _volumes_listed(reader, path, suffix)
        _check_kind(reader, path.name, listed)
        image = reader.Execute()  # by name, so that it outlives the view of its voxels
    array = sitk.GetArrayViewFromImage(image)
    # Volumes in a list are the last axis here, those of a 4D image the first one.
    yield from np.moveaxis(array, -1, 0) if listed > 1 else array


def states_spacing(path: Path) -> bool:
    """Whether a file tells how large its voxels are; one that says 0 or NaN does not."""
    if is_nifti(path):
        return nifti_geometry.states_spacing(read_geometry(path))
    is_nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    return nrrd.states_spacing(path) if is_nrrd else metaimage.states_spacing(path)


def _checked_suffix(path: Path) -> str:
    if not path.exists():
        raise InputError(f"There is no file {path}; check the path.")
    suffix = known_ending(path)
    if path.is_dir() or suffix is None:
        raise InputError(
            f"{path.name} cannot be read: a file ending in {', '.join(READABLE)} was expected. "
            "For a DICOM scan give the folder that holds the files of its series."
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read: there is no permission to; copy it or change its permissions.")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty (0 bytes); copy or export it again.")
    return suffix


def _check_header(path: Path, suffix: str) -> None:
    if suffix in (".mha", ".mhd"):
        check_meta_image(path)
    if suffix in (".nrrd", ".nhdr"):
        check_nrrd(path, LARGEST)


def _read(plain: Path, path: Path, suffix: str, frame: int | None, several: str) -> sitk.Image:
    """Read a file, or what it was rewritten as."""
    with _reader(plain, suffix, path.name) as reader:
        listed = _volumes_listed(reader, path, suffix)
        size = reader.GetSize()
        chosen = _chosen(path.name, size[3] if len(size) == 4 else listed, frame, several)
        _check_kind(reader, path.name, listed)
        if len(size) == 4:
            reader.SetExtractIndex([0, 0, 0, chosen])
            reader.SetExtractSize([*size[:3], 0])
        image = reader.Execute()
    one: sitk.Image = sitk.VectorIndexSelectionCast(image, chosen) if listed > 1 else image
    return one


@contextmanager
def _reader(path: Path, suffix: str, name: str = "") -> Iterator[sitk.ImageFileReader]:
    """Yield the reader of a file, its header read; what it refuses becomes a sentence.

    The only place, with :func:`write_file`, where SimpleITK is given the name of a file that somebody else has made.
    """
    with tempfile.TemporaryDirectory(prefix="oneseg-") as folder, plain_path(_rewritten(path, Path(folder))) as plain:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(plain))
        try:
            with quiet(), decimal_points():
                reader.ReadImageInformation()
                yield reader
        except RuntimeError as error:
            raise InputError(f"{name or path.name} cannot be read: {_reason(str(error), suffix)}.") from error


def _rewritten(path: Path, folder: Path) -> Path:
    """Return the file that SimpleITK is to read: the same, or one in a folder."""
    for endings, rewrite in (((".nrrd", ".nhdr"), rewrite_nrrd), ((".mha", ".mhd"), rewrite_meta_image)):
        plain = folder / f"plain{endings[0]}"
        try:
            if path.name.lower().endswith(endings) and rewrite(path, plain):
                return plain
        except InputError:
            raise
        except (ValueError, LookupError, EOFError, zlib.error) as error:
            raise InputError(f"{path.name} is damaged or incomplete; copy or export it again.") from error
    return path


def write_file(image: sitk.Image, path: Path, compress: bool) -> None:
    """Have SimpleITK write an image; a RuntimeError says if that fails."""
    with plain_path(path) as plain, quiet(), decimal_points():
        sitk.WriteImage(image, str(plain), useCompression=compress)


def _count_nan(image: sitk.Image) -> int:
    array = sitk.GetArrayViewFromImage(image)
    return int(np.count_nonzero(np.isnan(array))) if array.dtype.kind == "f" else 0


def _volumes_listed(reader: sitk.ImageFileReader, path: Path, suffix: str) -> int:
    """Return how many volumes SimpleITK takes for the values of one voxel."""
    volumes = listed_volumes(path) if suffix in (".nrrd", ".nhdr") else 1
    return volumes if volumes == reader.GetNumberOfComponents() else 1


def _chosen(name: str, volumes: int, frame: int | None, several: str) -> int:
    """Return which of several volumes is meant."""
    if volumes > 1 and frame is None:
        raise InputError(
            f"{name} has 4 dimensions ({volumes} volumes, as in a time series); a 3D scan was expected: "
            f"{several.format(last=volumes - 1)}."
        )
    if frame is not None and not 0 <= frame < volumes:
        there = f"volumes 0 to {volumes - 1}" if volumes > 1 else "one volume, number 0"
        raise InputError(f"There is no volume {frame} in {name}, which holds {there}.")
    return frame or 0


def _check_kind(reader: sitk.ImageFileReader, name: str, listed: int) -> None:
    """Refuse what is not one grey value per voxel of a 3D grid, before its voxels are read."""
    size = reader.GetSize()
    if len(size) > 4:
        raise InputError(f"{name} has {len(size)} dimensions; a 3D scan was expected: {SAVE_ONE}.")
    if len(size) < 3:
        raise InputError(f"{name} is a single 2D image; a 3D scan was expected: give the whole series.")
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{name} holds complex numbers; real grey values were expected: save the magnitude.")
    components = reader.GetNumberOfComponents()
    if components > 1 and components != listed:
        raise InputError(
            f"{name} has {components} values per voxel (a colour or vector image); a scan with one grey value per "
            "voxel was expected."
        )
    value = sitk.Image([1] * 3, reader.GetPixelID(), components if components > 1 else 0)
    voxels = int(np.prod(size, dtype=float)) * components * value.GetSizeOfPixelComponent()
    if voxels > LARGEST:
        raise InputError(too_large(name, voxels, LARGEST))


def _reason(message: str, suffix: str) -> str:
    """Say in plain words why SimpleITK refused a file."""
    if "orthonormal" in message:
        return f"{SHEARED}, for instance with nibabel.processing.resample_to_output in Python"
    if "Unable to determine ImageIO" in message:
        return f"its content is not what its ending ({suffix}) says; give the original file or export it again"
    beside = ", or the data file that belongs to it is missing" if suffix in (".nhdr", ".mhd") else ""
    return f"it is damaged or incomplete{beside}; copy or export it again"
