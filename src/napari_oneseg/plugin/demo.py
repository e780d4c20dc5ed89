"""What ``oneseg demo`` shows in napari."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_oneseg.colours import COLOURS

if TYPE_CHECKING:
    from napari_oneseg.phantom import Phantom
    from napari_oneseg.session import Propagation
    from napari_oneseg.volume import Annotation

__all__ = ["build", "show"]

SOFT_TISSUE = (-160.0, 240.0)
"""Usual window for the abdomen, in Hounsfield units."""


def build(viewer: napari.Viewer, sample: Phantom, annotation: Annotation, result: Propagation) -> None:
    """Fill a viewer with the scan, the painted slice as outlines, and the propagated labels."""
    volume = sample.volume
    grid: dict[str, Any] = {"scale": volume.spacing, "units": ("mm", "mm", "mm"), "axis_labels": ("z", "y", "x")}
    colours: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    colours |= {label: COLOURS[k % len(COLOURS)] for k, label in enumerate(sample.names)}
    painted = np.zeros(volume.slices.shape, result.labels.dtype)
    for index, image in annotation.slices.items():
        painted[index] = image
    viewer.add_image(volume.array, name="Phantom", contrast_limits=SOFT_TISSUE, **grid)
    for name, labels, opacity in (("Labels", result.labels, 0.4), ("Painted", painted, 1.0)):
        colormap = DirectLabelColormap(color_dict=colours)
        viewer.add_labels(volume.from_slices(labels), name=name, opacity=opacity, colormap=colormap, **grid)
    viewer.layers["Painted"].contour = 1
    viewer.layers.selection.active = viewer.layers["Labels"]
    index = min(annotation.slices)
    viewer.dims.set_current_step(volume.axis, index)  # shown first: the slice that was painted
    text = viewer.canvas.overlays.text
    text.text = f"Slice {index} was painted (outlines). Move the slider: the other slices were labelled from it."
    text.visible = True


def show(sample: Phantom, annotation: Annotation, result: Propagation) -> None:
    """Open napari with the demonstration, and wait until it is closed."""
    build(napari.Viewer(title="oneseg demo"), sample, annotation, result)
    napari.run()
