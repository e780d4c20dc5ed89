"""Decoding of compressed DICOM images by GDCM, which SimpleITK brings along: no decoder need be installed for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.encaps import parse_fragments

__all__ = ["decode", "quiet"]

_PIXEL_ENTRIES = (
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
)
_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture


def decode(dataset: pydicom.Dataset) -> NDArray[np.generic]:
    """Decode the images of a DICOM file as they are stored: without rescaling, shape (frames, rows, columns).

    GDCM reads files and rescales some kinds of them, so it is given a temporary file with nothing but the pixels.

    Raises
    ------
    RuntimeError
        If the pixels are damaged, or compressed in a way that GDCM does not know.
    ValueError
        If their parts do not follow each other as they should.
    """
    # In search of a part that is not there, GDCM takes many seconds.
    parse_fragments(dataset.PixelData)
    bare = pydicom.Dataset()
    for keyword in _PIXEL_ENTRIES:
        if keyword in dataset:
            bare[keyword] = dataset[keyword]
    # GDCM looks at it only to scale: to it, MONOCHROME1 and 2 are the same.
    bare.SOPClassUID, bare.SOPInstanceUID = _MULTI_FRAME, "1.2.3"
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory(prefix="oneseg-") as folder, quiet():
        path = Path(folder) / "pixels.dcm"
        pydicom.dcmwrite(path, bare, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        array: NDArray[np.generic] = sitk.GetArrayFromImage(reader.Execute())
    return array


@contextmanager
def quiet() -> Iterator[None]:
    """Keep SimpleITK's own warnings off the terminal: what matters of them is checked and said elsewhere."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
