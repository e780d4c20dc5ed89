"""File > Open Sample: a generated scan, so that everything can be tried without data of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_oneseg.phantom import phantom as generate
from napari_oneseg.plugin.layer_grid import straight_kwargs
from napari_oneseg.plugin.scan_layer import ScanRecord, metadata_of, scan_layer_data

if TYPE_CHECKING:
    from napari.types import LayerDataTuple

__all__ = ["painted_phantom", "phantom"]


def phantom() -> list[LayerDataTuple]:
    """Return the phantom, as if it had been opened from a file.

    Returns
    -------
    An image layer, grey values int16, (z, y, x), with spacing in mm.
    """
    return [scan_layer_data(generate().volume, "Phantom")]


def painted_phantom() -> list[LayerDataTuple]:
    """Return the phantom with one slice painted: the one that shows most organs.

    Returns
    -------
    The image layer of :func:`phantom`, and a labels layer (uint8) on the same grid, 0 but for one slice.
    """
    sample = generate()
    volume = sample.volume
    truth = volume.to_slices(sample.labels)
    painted = np.zeros_like(truth)
    index = max(range(len(truth)), key=lambda k: (np.unique(truth[k]).size, np.count_nonzero(truth[k])))
    painted[index] = truth[index]
    names = ["background", *(sample.names.get(value, "") for value in range(1, max(sample.names) + 1))]
    kwargs: dict[str, Any] = straight_kwargs(volume.spacing) | {
        "name": f"Slice {index} painted",
        # napari shows these names in the status bar beside the value under the mouse.
        "features": {"index": list(range(len(names))), "name": names},
        "metadata": metadata_of(ScanRecord(volume)),
    }
    labels: LayerDataTuple = (volume.from_slices(painted), kwargs, "labels")
    return [scan_layer_data(volume, "Phantom"), labels]
