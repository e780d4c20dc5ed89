"""The voxel size that stands in a TIFF file or an OME-Zarr folder, for layers that napari shows without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_oneseg.plugin.layer_grid import Matrix, coarse_to_fine
from napari_oneseg.plugin.ome_zarr import zarr_spacing
from napari_oneseg.plugin.tiff import tiff_spacing

if TYPE_CHECKING:
    from napari_oneseg.plugin.scan_layer import LayerSnapshot

__all__ = ["measured_frame"]


def measured_frame(snapshot: LayerSnapshot, shape: tuple[int, ...]) -> tuple[Matrix, str]:
    """Return a layer's frame with the voxel size that napari has not looked for in the file, and what is to be said.

    Parameters
    ----------
    snapshot
        The layer.
    shape
        Of the voxels that were loaded, (z, y, x): they may be coarser than the finest ones.
    """
    kind, spacing, finest = "", None, shape
    if snapshot.tiff is not None:
        kind, spacing = "TIFF file", tiff_spacing(snapshot.tiff, shape)
    elif snapshot.ome_zarr is not None:
        kind, spacing, finest = "OME-Zarr folder", zarr_spacing(snapshot.ome_zarr), snapshot.ome_zarr.shape[-3:]
    if spacing is None:
        return snapshot.frame, ""
    told = " x ".join(f"{side:.4g}" for side in spacing)
    # The size is that of the finest voxels, and what was loaded may be coarser.
    to_finest = coarse_to_fine(np.divide(finest, shape))
    sized = snapshot.frame @ np.linalg.inv(to_finest) @ np.diag([*spacing, 1.0]) @ to_finest
    return sized, f"The voxel size is taken from the {kind}: {told} mm (z, y, x)."
