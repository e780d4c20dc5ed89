"""Scans that lie in space in any way, written by libraries that the product's readers and writers know nothing of.

Every voxel's place in the patient is known from the numbers that a case is made of, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat
from scipy.spatial.transform import Rotation

__all__ = ["EXPORTS", "KINDS", "LPS_TO_RAS", "OTHER_READER", "Case", "make_case", "write_scan"]

Matrix = NDArray[np.float64]
"""4 x 4, from voxels (x, y, z) as the file counts them to the patient: x to the left, y to the back, z to the head."""

OTHER_READER = "NIfTI, layer of another reader"
KINDS = (
    "NIfTI, sform only", "NIfTI, qform only", "NIfTI, both forms", "NIfTI, scaled", "NIfTI-2", "NIfTI, big endian",
    OTHER_READER, "NRRD", "NRRD in RAS", "MetaImage", "DICOM series", "DICOM series, scaled",
)  # fmt: skip
"""How a scan is stored, and who shows it where that is not this program."""
EXPORTS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""How labels leave; those of a DICOM series also as ``.dcm``."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TYPES = {"NIfTI": ("int16", "uint16", "int32", "float32", "float64"), "DICOM": ("int16", "uint16")}
_ENDINGS = {"NIfTI": (".nii", ".nii.gz"), "NRRD": (".nrrd",), "MetaImage": (".mha", ".mhd"), "DICOM": ("",)}
_UID = "1.2.826.0.1.3680043.2.1125.4"


@dataclass(frozen=True)
class Case:
    """A scan, and what is done with it.

    Attributes
    ----------
    number
        Makes the same case again.
    kind
        One of :data:`KINDS`.
    frame
        Where its voxels lie.
    array
        Grey values, shape (x, y, z); no two voxels have the same, where the type has so many.
    ending
        Of the scan's file; empty for a folder.
    export
        Ending of the label file.
    slice_axis
        The axis to paint along, of the scan as it is shown; None for the one that the product takes.
    """

    number: int
    kind: str
    frame: Matrix
    array: NDArray[Any]
    ending: str
    export: str
    slice_axis: int | None

    @property
    def voxels(self) -> NDArray[np.intp]:
        """All voxels, (x, y, z), shape (n, 3)."""
        return np.indices(self.array.shape).reshape(3, -1).T

    def places(self, voxels: NDArray[Any]) -> NDArray[np.float64]:
        """Return where voxels (n, 3) lie in the patient, in mm, (n, 3)."""
        return np.asarray(voxels @ self.frame[:3, :3].T + self.frame[:3, 3])


def make_case(number: int) -> Case:
    """Make a case: 3 to 40 voxels a side, of 0.3 to 8 mm; axes in any order and sense, tilted up to 45 degrees."""
    rng = np.random.default_rng([20261121, number])
    kind = KINDS[number % len(KINDS)]
    family = next(family for family in _ENDINGS if kind.startswith(family))
    shape = tuple(int(size) for size in rng.integers(3, 41, 3))
    if rng.random() < 0.3:
        spacing = np.full(3, rng.choice([0.5, 1.0, 2.5]))
    else:
        spacing = np.exp(rng.uniform(np.log(0.3), np.log(8.0), 3))
    axes = np.eye(3)[:, rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    if family == "DICOM" and np.linalg.det(axes) < 0:
        axes[:, 2] *= -1  # a series has no sense of its own: its slices are sorted along the normal
    # A third lies straight, some are tilted a little, as if by rounding, and some as far as can be told apart.
    angle = rng.choice([0.0, 10 ** rng.uniform(-3, 0), rng.uniform(0, 45), 45.0], p=[0.3, 0.1, 0.5, 0.1])
    turn = Rotation.from_rotvec(np.deg2rad(angle) * _unit(rng)).as_matrix()
    frame = np.eye(4)
    frame[:3, :3] = turn @ axes * spacing
    frame[:3, 3] = rng.uniform(-1, 1, 3) * rng.choice([0.0, 300.0, 2000.0], p=[0.1, 0.8, 0.1])
    values = rng.permutation(int(np.prod(shape))).reshape(shape)
    dtype = np.dtype(rng.choice(_TYPES.get(family, ("int16", "uint16", "float32"))))
    endings = (*EXPORTS, ".seg.dcm", ".seg.dcm") if family == "DICOM" else EXPORTS
    return Case(
        number,
        kind,
        frame,
        (values - (1 << 15 if dtype == np.int16 else 0)).astype(dtype),
        str(rng.choice(_ENDINGS[family])),
        str(rng.choice(endings)),
        int(rng.integers(3)) if rng.random() < 0.4 else None,
    )


def _unit(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def write_scan(case: Case, folder: Path) -> tuple[Path, NDArray[Any]]:
    """Write a case's scan; return its file or folder, and the grey values that a reader is to find, (x, y, z)."""
    path = folder / f"scan{case.ending}"
    write: Callable[[Case, Path], NDArray[Any] | None]
    if case.kind.startswith("NIfTI"):
        write = _write_nifti
    elif case.kind.startswith("DICOM"):
        write = _write_dicom
    else:
        write = _write_ras_nrrd if case.kind == "NRRD in RAS" else _write_itk
    values = write(case, path)
    return path, case.array if values is None else values


def _write_nifti(case: Case, path: Path) -> NDArray[Any] | None:
    affine = LPS_TO_RAS @ case.frame
    order = ">" if case.kind == "NIfTI, big endian" else "<"
    array = case.array.astype(case.array.dtype.newbyteorder(order))
    header = (nib.Nifti2Header if case.kind == "NIfTI-2" else nib.Nifti1Header)(endianness=order)
    header.set_data_dtype(array.dtype)
    header.set_xyzt_units("mm")
    image = (nib.Nifti2Image if case.kind == "NIfTI-2" else nib.Nifti1Image)(array, affine, header)
    qform, sform = (
        (1, 0) if case.kind == "NIfTI, qform only" else (0, 2) if case.kind == "NIfTI, sform only" else (1, 1)
    )
    image.set_qform(affine, qform)
    image.set_sform(affine, sform)
    if case.kind != "NIfTI, scaled":
        nib.save(image, path)
        return None
    # nibabel writes the array as it is; readers are to scale it.
    image.header.set_slope_inter(0.5, 3.0)
    nib.save(image, path)
    return case.array * 0.5 + 3.0


def _write_itk(case: Case, path: Path) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(case.array.T))
    spacing = np.linalg.norm(case.frame[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(case.frame[:3, 3].tolist())
    image.SetDirection((case.frame[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=bool(case.number % 2))


def _write_ras_nrrd(case: Case, path: Path) -> None:
    """Write what SimpleITK does not: a file whose axes are told with x to the right and y to the front."""
    frame = LPS_TO_RAS @ case.frame
    vectors = ["(" + ",".join(repr(float(part)) for part in vector) + ")" for vector in frame[:3].T]
    kinds = {"int16": "short", "uint16": "ushort", "float32": "float"}
    header = (
        f"NRRD0004\ntype: {kinds[case.array.dtype.name]}\ndimension: 3\nspace: right-anterior-superior\n"
        f"sizes: {' '.join(map(str, case.array.shape))}\nspace directions: {' '.join(vectors[:3])}\n"
        f"kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: {vectors[3]}\n\n"
    )
    path.write_bytes(header.encode() + case.array.astype(case.array.dtype.newbyteorder("<")).tobytes(order="F"))


def _write_dicom(case: Case, folder: Path) -> NDArray[Any]:
    """Write one image for each place along z, named in no order; DICOM keeps 16 letters of a number."""
    folder.mkdir()
    spacing = np.linalg.norm(case.frame[:3, :3], axis=0)
    directions = case.frame[:3, :3] / spacing
    slope, intercept = (2, -1024) if case.kind.endswith("scaled") else (1, 0)
    names = np.random.default_rng(case.number).permutation(case.array.shape[2])
    for index in range(case.array.shape[2]):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{_UID}.{case.number}.{index + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{_UID}.1", f"{_UID}.2.{case.number}"
        dataset.FrameOfReferenceUID = f"{_UID}.3"
        dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber = "CT", "thorax", 3
        dataset.InstanceNumber = int(names[index]) + 1
        dataset.ImagePositionPatient = _decimals(case.frame[:3, 3] + index * case.frame[:3, 2])
        dataset.ImageOrientationPatient = _decimals(directions[:, :2].T.ravel())
        dataset.PixelSpacing = _decimals(spacing[[1, 0]])
        dataset.SliceThickness = _decimals(spacing[[2]])[0]
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        _put_pixels(dataset, case.array[:, :, index].T)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        pydicom.dcmwrite(folder / f"{names[index]:04d}", dataset, enforce_file_format=True)
    return case.array.astype(np.int64) * slope + intercept


def _put_pixels(dataset: Dataset, pixels: NDArray[Any]) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"


def _decimals(numbers: NDArray[np.float64]) -> list[DSfloat]:
    return [DSfloat(float(number), auto_format=True) for number in numbers]
