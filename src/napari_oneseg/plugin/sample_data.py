"""File > Open Sample: a generated scan, so that everything can be tried without data of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_oneseg.phantom import phantom as generate

if TYPE_CHECKING:
    from napari.types import LayerDataTuple

__all__ = ["phantom"]


def phantom() -> list[LayerDataTuple]:
    """Return the phantom and its true labels as layers.

    Returns
    -------
    An image layer with the grey values and a labels layer (uint8), both (z, y, x), with spacing in mm.
    """
    sample = generate()
    grid: dict[str, Any] = {
        "scale": sample.volume.spacing,
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("z", "y", "x"),
    }
    names = ["background", *(sample.names.get(value, "") for value in range(1, max(sample.names) + 1))]
    # napari shows these names in the status bar beside the value under the mouse.
    features = {"index": list(range(len(names))), "name": names}
    return [
        (sample.volume.array, {"name": "Phantom", **grid}, "image"),
        (sample.labels, {"name": "Phantom labels", "features": features, **grid}, "labels"),
    ]
