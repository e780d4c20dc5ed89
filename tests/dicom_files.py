"""DICOM files of a few tiny slices, made with pydicom for each test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

UID = "1.2.826.0.1.3680043.2.1125.1"
MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
SHAPE = (5, 4)

Change = Callable[[Dataset], object]


def grey(index: int = 0, dtype: str = "int16", shape: tuple[int, int] = SHAPE) -> NDArray[Any]:
    """Slice number ``index``: all its pixels differ, and from those of other slices."""
    return (np.arange(np.prod(shape)).reshape(shape) + 20 * index).astype(dtype)


def put_pixels(dataset: Dataset, array: NDArray[Any], stored: int | None = None) -> None:
    """Put in an array (rows, columns) or (frames, rows, columns)."""
    bits = 8 * array.itemsize
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = array.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored = bits, stored or bits
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.tobytes() + bytes(array.nbytes % 2)
    dataset["PixelData"].VR = "OW"


def slice_dataset(index: int, height: float, **entries: Any) -> Dataset:
    """One axial MR slice at a height in mm; entries replace what stands in it."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MR, f"{UID}.{entries.get('SeriesInstanceUID', UID)[-1]}.{index}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{UID}.9", UID
    dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber = "MR", "T1 axial", 7
    dataset.PatientName, dataset.PatientID = "Secret^Name", "Secret-4711"
    dataset.InstanceNumber = index + 1
    dataset.ImagePositionPatient = [10, -20, height]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.75, 0.5]
    put_pixels(dataset, grey(index))
    for name, value in entries.items():
        setattr(dataset, name, value)
    return dataset


def save(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def save_series(
    folder: Path, heights: Sequence[float], change: Change = lambda dataset: None, first: int = 0, **entries: Any
) -> Path:
    """One file per height, named in reverse and without ending: names are no help; slice k holds ``grey(k)``."""
    for index, height in enumerate(heights, first):
        dataset = slice_dataset(index, height, **entries)
        change(dataset)
        save(dataset, folder / f"IM{dataset.SeriesInstanceUID[-3:]}{9999 - index}")
    return folder


def enhanced(heights: Sequence[float], **frame_entries: Sequence[Any]) -> Dataset:
    """A multi-frame MR object; ``frame_entries`` are functional groups: Sequence__Entry=[value per frame]."""
    dataset = slice_dataset(0, 0.0)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del dataset[name]
    dataset.SOPClassUID = ENHANCED_MR
    put_pixels(dataset, np.stack([grey(index) for index in range(len(heights))]))
    dataset.NumberOfFrames = len(heights)
    shared = Dataset()
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelMeasuresSequence = [item(PixelSpacing=[0.75, 0.5], SliceThickness=2)]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index, height in enumerate(heights):
        group = item(PlanePositionSequence=[item(ImagePositionPatient=[10, -20, height])])
        for name, values in frame_entries.items():
            sequence, _, entry = name.partition("__")
            setattr(group, sequence, [item(**{entry: values[index]})])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return dataset


def item(**entries: Any) -> Dataset:
    dataset = Dataset()
    for name, value in entries.items():
        setattr(dataset, name, value)
    return dataset
