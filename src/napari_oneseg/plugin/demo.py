"""What ``oneseg demo`` shows in napari."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari
import numpy as np

if TYPE_CHECKING:
    from napari_oneseg.phantom import Phantom
    from napari_oneseg.session import Propagation
    from napari_oneseg.volume import Annotation

__all__ = ["show"]


def show(sample: Phantom, annotation: Annotation, result: Propagation) -> None:
    """Open napari with the scan, the painted slice and the propagated labels, and wait until it is closed."""
    volume = sample.volume
    grid: dict[str, Any] = {"scale": volume.spacing, "units": ("mm", "mm", "mm"), "axis_labels": ("z", "y", "x")}
    painted = np.zeros(volume.slices.shape, result.labels.dtype)
    for index, image in annotation.slices.items():
        painted[index] = image
    viewer = napari.Viewer(title="oneseg demo")
    viewer.add_image(volume.array, name="Phantom", **grid)
    viewer.add_labels(volume.from_slices(painted), name="Painted", **grid)
    viewer.add_labels(volume.from_slices(result.labels), name="Labels", opacity=0.5, **grid)
    # Shown first: the slice that was painted.
    viewer.dims.set_current_step(volume.axis, min(annotation.slices))
    napari.run()
