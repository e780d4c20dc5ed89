"""From the scan's grey values and grid to the network's, and back.

The network sees square pixels in a range of -1 to 1. The in-plane grid keeps the scan's physical aspect ratio, so a
circle stays a circle whatever the shape and pixel size of the scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.grey_values import body_values, is_padded

__all__ = ["WorkingGrid", "normalise", "working_grid"]

_BINS = 512
# Percentiles and histogram of a large scan are taken on a regular subset: they change by less than a bin.
_MAX_SAMPLES = 4_000_000


def normalise(
    array: NDArray[np.generic],
    config: PreprocessingConfig | None = None,
    padding: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Map grey values to -1..1 by a contrast-limited histogram equalisation of the whole scan.

    One mapping for the whole scan keeps a tissue's grey value equal in all slices, which the correspondence rests on.
    The limit on the slope keeps air, a large part of most scans, from taking the range for its noise. Padding, metal
    and whatever else is no tissue has no say in the mapping (:func:`~napari_oneseg.grey_values.body_values`).

    Parameters
    ----------
    array
        Grey values, any shape, any unit.
    padding
        What the file calls padding, see :class:`~napari_oneseg.volume.Volume`.

    Returns
    -------
    Same shape, float32, -1 to 1; padding is as dark as air, -1.
    """
    config = config or PreprocessingConfig()
    sample = body_values(array.reshape(-1)[:: max(1, array.size // _MAX_SAMPLES)], padding)
    low, high = np.percentile(sample, [config.low_percentile, config.high_percentile])
    if not high > low:  # nearly all voxels are equal: the few others are all there is to see
        low, high = float(array.min()), float(array.max())
    counts, edges = np.histogram(sample, bins=_BINS, range=(low, high))
    if not counts.any():  # so few voxels that none lies between the percentiles
        counts = np.ones_like(counts)
    share = _limit_share(counts / counts.sum(), config.contrast_limit / _BINS)
    levels = np.concatenate([[0.0], np.cumsum(share)])
    mapped = np.interp(array.ravel().astype(np.float64), edges, 2.0 * levels / levels[-1] - 1.0)
    result: NDArray[np.float32] = mapped.reshape(array.shape).astype(np.float32)
    padded = is_padded(array, padding)
    if padded is not None:
        result[padded] = -1.0
    return result


def _limit_share(share: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Cut a histogram at ``limit`` and spread what was cut evenly over the bins below it, until all fit."""
    share = share.copy()
    for _ in range(16):
        excess = np.clip(share - limit, 0, None).sum()
        if excess < 1e-6:
            break
        share = np.minimum(share, limit)
        below = share < limit
        if not below.any():
            break
        share[below] += excess / below.sum()
    return share


@dataclass(frozen=True)
class WorkingGrid:
    """The in-plane grids: the scan's own, the network's working grid, and the grid of the features.

    Attributes
    ----------
    source
        Rows and columns of the scan's slices.
    working
        Rows and columns of the network's input; multiples of the network's coarsest stride.
    stride
        Working pixels per feature position.
    pixel
        Side of a working pixel in mm.
    """

    source: tuple[int, int]
    working: tuple[int, int]
    stride: int
    pixel: float = 1.0

    @property
    def features(self) -> tuple[int, int]:
        """Rows and columns of the feature maps."""
        return self.working[0] // self.stride, self.working[1] // self.stride

    def to_working(self, slices: Tensor) -> Tensor:
        """Resize (n, c, rows, columns) from the scan's grid to the working grid, with antialiasing."""
        return _resize(slices, self.working)

    def to_features(self, maps: Tensor) -> Tensor:
        """Resize (n, c, rows, columns), such as one-hot labels, to the feature grid: each position gets its mean."""
        return _resize(maps, self.features)

    def to_source(self, maps: Tensor) -> Tensor:
        """Resize (n, c, rows, columns) from the feature grid to the scan's grid, smoothly."""
        return _resize(maps, self.source)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == size:
        return maps
    return functional.interpolate(maps, size=size, mode="bilinear", antialias=True, align_corners=False)


def working_grid(
    shape: tuple[int, int],
    spacing: tuple[float, float],
    stride: int,
    multiple: int,
    config: PreprocessingConfig | None = None,
) -> WorkingGrid:
    """Choose the working grid for slices of the given shape.

    Parameters
    ----------
    shape
        Rows and columns of the scan's slices.
    spacing
        Pixel size (rows, columns) in mm.
    stride
        Feature stride of the network.
    multiple
        The working grid's sides are multiples of this, the network's coarsest stride.
    """
    config = config or PreprocessingConfig()
    extent = shape[0] * spacing[0], shape[1] * spacing[1]
    pixel = max(max(extent) / config.working_size, min(spacing) / config.max_upsampling)
    rows, columns = (max(1, round(length / pixel / multiple)) * multiple for length in extent)
    return WorkingGrid(source=(int(shape[0]), int(shape[1])), working=(rows, columns), stride=stride, pixel=pixel)
