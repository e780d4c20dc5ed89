"""Grey-value windows: which values are shown black, and which white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.grey_values import body_values, is_padded
from napari_oneseg.volume import Volume

__all__ = ["CT_WINDOWS", "Window", "default_window", "looks_like_ct", "presets"]


@dataclass(frozen=True)
class Window:
    """A range of grey values with its name: ``low`` and below is shown black, ``high`` and above white."""

    name: str
    low: float
    high: float


CT_WINDOWS = (
    Window("Soft tissue", -160.0, 240.0),
    Window("Liver", -10.0, 190.0),
    Window("Lung", -1350.0, 150.0),
    Window("Bone", -500.0, 1500.0),
    Window("Brain", 0.0, 80.0),
)
"""Usual windows in Hounsfield units, the default first."""

_SAMPLES = 200_000  # of the voxels: enough for percentiles, and at once even for a large scan
# The background of a magnetic resonance image lies at the bottom; a few vessels are far brighter than all tissue and
# would leave it dark. White is measured on the body: where much of the frame is noise around it, the brightest voxels
# of the frame are whole organs.
_BLACK_PERCENTILE, _WHITE_PERCENTILE = 1.0, 99.5
_OUTLIERS_PERCENTILE = 99.9
_OTSU_BINS = 256

# What is taken for a CT, in Hounsfield units.
_AIR = (-1100.0, -850.0)
_SOFT_TISSUE = (-200.0, 300.0)
_LOWEST, _HIGHEST = -4096.0, 32767.0
_SOME_AIR = 0.005
_SOME_TISSUE = 0.05
_MOSTLY_TISSUE = 0.5
_FAT = -80.0


def looks_like_ct(volume: Volume) -> bool:
    """Whether grey values look like Hounsfield units.

    They do where there is air near -1000 and soft tissue between -200 and 300, and nothing but padding below air; and,
    for a part cut out of the body, where half of the voxels are soft tissue and some as dark as fat. A CT that was
    rescaled, to 8 bits for instance, does not.
    """
    # Not body_values: air that is one value everywhere is left out there, and here it tells a CT.
    values = _sample(volume).astype(np.float64)
    padded = is_padded(values, volume.padding)
    values = values if padded is None else values[~padded]
    filled = values == values.min()
    if values.min() < _AIR[0] and not filled.all():  # outside the scanner's circle many files hold one such value
        values = values[~filled]
    lowest, highest = float(values.min()), float(values.max())
    below_air = np.count_nonzero(values < _AIR[0]) / values.size
    if lowest < _LOWEST or highest > _HIGHEST or below_air > _SOME_AIR:
        return False
    tissue = _share(values, _SOFT_TISSUE)
    if _share(values, _AIR) >= _SOME_AIR:
        return tissue >= _SOME_TISSUE
    return tissue >= _MOSTLY_TISSUE and float(np.percentile(values, 1.0)) <= _FAT


def presets(volume: Volume) -> tuple[Window, ...]:
    """Return the windows worth offering for a scan, the default one first.

    Those of :data:`CT_WINDOWS` for a CT; for every scan "Auto", from 1 % of the voxels that are not background to
    99.5 % of those of the body, and "Full range". Names are unique. What is no tissue, such as padding, has no say in
    the first; what the file calls padding none in the second.
    """
    auto = _auto(body_values(_sample(volume), volume.padding))
    padded = is_padded(volume.array, volume.padding)
    measured = volume.array if padded is None else volume.array[~padded]
    own = (auto, Window("Full range", float(measured.min()), float(measured.max())))
    return (*CT_WINDOWS, *own) if looks_like_ct(volume) else own


def default_window(volume: Volume) -> Window:
    """Return the window in which a scan is shown at first."""
    return presets(volume)[0]


def _sample(volume: Volume) -> NDArray[np.generic]:
    """Take voxels evenly from the whole scan: every k-th of each axis, at most a few more than asked for."""
    shape = volume.array.shape
    coarse = int(np.ceil((volume.array.size / _SAMPLES) ** (1 / 3)))
    # Along a short axis, such as that of thick slices, less is left out.
    steps = [max(1, min(coarse, length // 16)) for length in shape]
    return volume.array[tuple(slice(step // 2, None, step) for step in steps)].ravel()


def _auto(values: NDArray[np.float64]) -> Window:
    foreground = values[values > values.min()]
    chosen = foreground if foreground.size else values
    low = float(np.percentile(chosen, _BLACK_PERCENTILE))
    high = float(np.percentile(_body(chosen), _WHITE_PERCENTILE))
    # The voxels looked at may all have the same value, but black and white must differ.
    return Window("Auto", low, high if high > low else low + max(1.0, abs(low) * 1e-3))


def _body(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values above Otsu's threshold between noise and body, all where there is nothing to part.

    Of all thresholds Otsu's leaves the means of the two classes furthest apart, weighted by their sizes: N. Otsu, "A
    threshold selection method from gray-level histograms", 1979, equation 18.
    """
    # Else a few outliers would be the one class, and all the rest the other.
    clipped = np.minimum(values, np.percentile(values, _OUTLIERS_PERCENTILE))
    if clipped.min() == clipped.max():
        return values
    counts, edges = np.histogram(clipped, _OTSU_BINS)
    below, sums = np.cumsum(counts), np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    above = below[-1] - below
    between = (sums[-1] * below - sums * below[-1])[:-1] ** 2 / (below * above)[:-1]
    body: NDArray[np.float64] = values[values > edges[1 + int(between.argmax())]]
    return body


def _share(values: NDArray[np.float64], limits: tuple[float, float]) -> float:
    return float(np.count_nonzero((values >= limits[0]) & (values <= limits[1])) / values.size)
