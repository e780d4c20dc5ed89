"""The built-in sample: an abdominal scan made by code, with the true labels of six organs.

It serves as demonstration, as example data and as a test whose right answer is known. The body is
painted by ``phantom_frame`` and ``phantom_organs``; this file turns it into a scan as a CT or an MR scanner shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_oneseg.errors import InputError
from napari_oneseg.phantom_canvas import SHAPE, SPACING, SUBSLICES, Canvas, smooth_noise
from napari_oneseg.phantom_frame import paint_frame
from napari_oneseg.phantom_organs import NAMES, paint_organs
from napari_oneseg.volume import Volume

__all__ = ["Modality", "Phantom", "phantom"]

FloatArray = NDArray[np.float32]
Modality = Literal["ct", "mr"]

_TISSUES: dict[str, tuple[float, float]] = {
    "air": (-1000, 0),
    "lung": (-840, 15),
    "gas": (-950, 5),
    "skin": (10, 150),
    "fat": (-100, 75),
    "muscle": (60, 105),
    "heart": (125, 130),
    "cortical bone": (480, 25),
    "marrow": (230, 135),
    "cartilage": (115, 110),
    "disc": (95, 210),
    "cord": (45, 300),
    "spinal fluid": (20, 900),
    "liver": (110, 220),
    "hepatic vein": (165, 330),
    "portal vein": (175, 340),
    "bile": (10, 950),
    "spleen": (120, 430),
    "cortex": (180, 430),
    "medulla": (120, 560),
    "urine": (20, 900),
    "aorta": (150, 40),
    "vena cava": (140, 60),
    "pancreas": (95, 260),
    "bowel wall": (95, 240),
    "bowel fluid": (22, 600),
    "stool": (-5, 200),
}
"""Grey values of each tissue: CT in the portal-venous phase (HU), and T2-weighted MR with suppressed fat."""


@dataclass(frozen=True, eq=False)
class Phantom:
    """A scan made by code, and the truth about it.

    Attributes
    ----------
    volume
        40 slices of 192 x 224 pixels, 5 x 1.6 x 1.6 mm, from the bifurcation of the aorta up to the domes of the
        diaphragm. CT: int16, Hounsfield units; MR: uint16, arbitrary unit.
    labels
        Organ that fills most of each voxel, shape (z, y, x), uint8, 0 = none of them.
    names
        Name of each label.
    """

    volume: Volume
    labels: NDArray[np.uint8]
    names: Mapping[int, str]


def phantom(seed: int = 0, modality: Modality = "ct") -> Phantom:
    """Make one patient's scan; the same arguments give the same scan.

    Parameters
    ----------
    seed
        The patient, 0 or more.
    modality
        ``"ct"``: portal-venous CT. ``"mr"``: T2-weighted MR with suppressed fat. A seed gives the same patient in both.

    Raises
    ------
    InputError
        If the modality is unknown or the seed negative.
    """
    if modality not in get_args(Modality):
        raise InputError(f"The phantom's modality must be one of {', '.join(get_args(Modality))}, got {modality!r}.")
    if seed < 0:
        raise InputError(f"The phantom's seed must be 0 or more, got {seed}.")
    # Two streams, so that the noise of a scanner does not change the patient.
    patient, scanner = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    column = get_args(Modality).index(modality)
    tissues = {name: values[column] for name, values in _TISSUES.items()}
    canvas = Canvas(patient, tissues, size=patient.uniform(0.95, 1.03))
    paint_frame(canvas)
    paint_organs(canvas)
    first, middle, last = (canvas.labels[k::SUBSLICES] for k in range(SUBSLICES))
    labels = np.where(first == last, first, middle)  # the majority of three
    image = canvas.image.reshape(SHAPE[0], SUBSLICES, *SHAPE[1:]).mean(axis=1)
    array = _scan_ct(image, scanner) if modality == "ct" else _scan_mr(image, scanner)
    origin = tuple(-(n - 1) / 2 * s for n, s in zip(SHAPE[::-1], SPACING[::-1], strict=True))
    return Phantom(Volume(array, SPACING, (origin[0], origin[1], origin[2])), labels, dict(NAMES))


def _noise(random: np.random.Generator, scale: float) -> FloatArray:
    axes = [np.arange(n, dtype=np.float32) * np.float32(s) for n, s in zip(SHAPE, SPACING, strict=True)]
    return smooth_noise(random, axes, (scale,) * 3)


def _scan_ct(image: FloatArray, random: np.random.Generator) -> NDArray[np.int16]:
    """Add what a CT scanner adds: blur, beam hardening, and the grainy noise of filtered back-projection."""
    body = ndimage.gaussian_filter((image > -500).astype(np.float32), (0, 12, 12))
    image = image + 4 * _noise(random, 9.0) * (image > -200)
    image = ndimage.gaussian_filter(image, (0, 0.5, 0.5))
    image -= 6 * (body - 0.5) * (image > -500)  # the centre appears darker
    white = random.standard_normal(SHAPE, dtype=np.float32)
    # The ramp filter leaves little noise at low frequencies; the soft-tissue kernel little at high ones.
    grain = ndimage.gaussian_filter(white, (0, 0.6, 0.6)) - 0.8 * ndimage.gaussian_filter(white, (0, 1.6, 1.6))
    image += 12 * (0.25 + 0.8 * body) * grain / grain.std()
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def _scan_mr(image: FloatArray, random: np.random.Generator) -> NDArray[np.uint16]:
    """Add what an MR scanner adds: blur, uneven coils, slices of unequal brightness, and Rician noise."""
    image = image * (1 + 0.05 * _noise(random, 9.0))
    image = ndimage.gaussian_filter(image, (0, 0.6, 0.6))
    image *= np.exp(0.18 * _noise(random, 120.0)) * (1 + 0.02 * random.standard_normal((SHAPE[0], 1, 1)))
    real, imaginary = (14 * random.standard_normal(SHAPE, dtype=np.float32) for _ in range(2))
    scan: FloatArray = np.rint(np.hypot(image + real, imaginary))
    return scan.astype(np.uint16)
