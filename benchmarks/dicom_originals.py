"""Honest DICOM series for fuzz.py: a few slices each, in the ways in which DICOM stores pixels."""

from __future__ import annotations

import struct
import tempfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

UID = "1.2.826.0.1.3680043.2.1125.7"
MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
_PLAIN = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}


def write_dicom(folder: Path, array: NDArray[np.int16]) -> list[Path]:
    """Write an array (slices, rows, columns) as one series for each way; return the first file of each.

    The files of a series are called by its name and a number, and lie in a folder of that name.
    """
    firsts = []
    for name, syntax in _PLAIN.items():
        for index, image in enumerate(array):
            _save(_slice(image, index), folder / name / f"{name}-{index}.dcm", syntax)
        firsts.append(folder / name / f"{name}-0.dcm")
    for index, image in enumerate(array):
        dataset = _slice(image, index)
        dataset.file_meta = _meta(ExplicitVRLittleEndian)
        dataset.compress(RLELossless, generate_instance_uid=False)
        _save(dataset, folder / "rle" / f"rle-{index}.dcm", RLELossless)
        for name in ("JPEG", "JPEG2000"):
            _save_compressed(_slice(image, index), image, folder / name / f"{name}-{index}.dcm", name)
    _save(_frames(array), folder / "frames" / "frames-0.dcm", ExplicitVRLittleEndian)
    return firsts + [folder / name / f"{name}-0.dcm" for name in ("rle", "JPEG", "JPEG2000", "frames")]


def deflated_bomb(content: bytes, zeros: bytes) -> bytes:
    """Return a deflated file whose dataset is followed by packed zeros, as many as one likes."""
    dataset = pydicom.dcmread(BytesIO(content))
    buffer = BytesIO()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    whole = buffer.getvalue()
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    plain = zlib.decompress(whole[start:], -15)
    return whole[:start] + packer.compress(plain) + packer.flush(zlib.Z_FULL_FLUSH) + zeros + packer.flush()


def _slice(image: NDArray[np.int16], index: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MR, f"{UID}.{index}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{UID}.90", f"{UID}.91"
    dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber = "MR", "T1 axial", 7
    dataset.PatientName, dataset.PatientID, dataset.InstanceNumber = "Nobody", "0", index + 1
    dataset.EchoTime, dataset.ImageType = 12.5, ["ORIGINAL", "PRIMARY"]
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [1, -2, 2.5 * index], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.RescaleSlope, dataset.RescaleIntercept = [0.8, 0.7], 1, -5
    _put(dataset, image)
    return dataset


def _put(dataset: Dataset, pixels: NDArray[np.int16]) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = pixels.astype("<i2").tobytes()
    dataset["PixelData"].VR = "OW"


def _frames(array: NDArray[np.int16]) -> Dataset:
    dataset = _slice(array[0], 0)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del dataset[keyword]
    dataset.SOPClassUID = ENHANCED_MR
    _put(dataset, array)
    dataset.NumberOfFrames = len(array)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[0.8, 0.7], SliceThickness=2.5)]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_item(ImagePositionPatient=[1, -2, 2.5 * index])]) for index in range(len(array))
    ]
    return dataset


def _item(**entries: object) -> Dataset:
    item = Dataset()
    for keyword, value in entries.items():
        setattr(item, keyword, value)
    return item


def _save_compressed(dataset: Dataset, image: NDArray[np.int16], path: Path, compressor: str) -> None:
    """Have SimpleITK compress the pixels."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "packed.dcm"
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(packed))
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
        writer.Execute(sitk.GetImageFromArray(image[np.newaxis]))
        made = pydicom.dcmread(packed)
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"):
        dataset[keyword] = made[keyword]
    _save(dataset, path, made.file_meta.TransferSyntaxUID)


def _save(dataset: Dataset, path: Path, syntax: str) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    dataset.file_meta = _meta(syntax)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").byteswap().tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def _meta(syntax: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    return meta
