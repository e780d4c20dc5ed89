"""Which scan a layer lies on that remembers none: one that napari made, or that another plugin derived from a scan.

Such a layer has a place in napari's world, and nothing that leads from there to the patient. All scans have, so it is
where the scan beneath it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_oneseg.errors import InputError
from napari_oneseg.plugin.layer_grid import Matrix, readable_path, same_place, world_frame
from napari_oneseg.plugin.scan_layer import METADATA_KEY, ScanRecord, describe_layer, kept_record, open_snapshot

__all__ = ["AID", "is_aid", "is_placed", "lies_on", "may_be_scan", "record_beneath", "same_voxels"]

AID = {METADATA_KEY: {"aid": True}}
"""Metadata of layers that only show something of the open scan."""
_CORNERS = np.array(list(product((0.0, 1.0), repeat=3)))


def is_aid(layer: Layer) -> bool:
    """Whether a layer only shows something of the open scan."""
    return bool(layer.metadata.get(METADATA_KEY) == AID[METADATA_KEY])


def may_be_scan(layer: Any) -> bool:
    """Whether a layer is an image that could be opened as a scan."""
    return isinstance(layer, Image) and not is_aid(layer) and not layer.rgb and layer.ndim >= 3


def is_placed(layer: Layer) -> bool:
    """Whether a layer itself, or the file it was opened from, says where in the patient it lies."""
    known = kept_record(layer.metadata) is not None or "coordinate_system" in layer.metadata
    return known or readable_path(layer) is not None


def record_beneath(layer: Image | Labels, layers: Iterable[Layer]) -> ScanRecord | None:
    """Return what the scan is remembered by that a layer lies on; may take seconds where its file must be read.

    Parameters
    ----------
    layer
        An image or labels layer of three dimensions.
    layers
        Those of its viewer.

    Returns
    -------
    None where the layer is placed itself, or no scan that is placed lies beneath it.

    Raises
    ------
    InputError
        If scans that lie differently in the patient lie beneath it, and nothing says which one it belongs to.
    """
    if is_placed(layer):
        return None
    scans: list[Any] = [other for other in layers if other is not layer and may_be_scan(other) and is_placed(other)]
    beneath = [scan for scan in scans if lies_on(layer, scan)]
    parent: Any = layer.source.parent() if layer.source.parent is not None else None
    # The best evidence first.
    for evidence in ([s for s in beneath if s is parent], [s for s in beneath if same_voxels(layer, s)], beneath):
        records = [_record(scan) for scan in evidence]
        if any(not same_place(record.to_patient, records[0].to_patient) for record in records[1:]):
            names = " and ".join(repr(scan.name) for scan in evidence)
            raise InputError(
                f"'{layer.name}' lies on {names}, which lie differently in the patient, and does not say which of them "
                "it was made for; take the others out of the viewer first."
            )
        if records:
            return records[0]
    return None


def same_voxels(layer: Layer, scan: Layer) -> bool:
    """Whether a layer has the same number of voxels as a scan in the same places."""
    same_shape = tuple(_shape(layer)[-3:]) == tuple(_shape(scan)[-3:])
    return same_shape and same_place(_world(layer), _world(scan))


def lies_on(layer: Layer, scan: Layer) -> bool:
    """Whether the middle of a layer lies within a scan."""
    if layer.ndim < 3:
        return False
    middle = _world(layer) @ np.array([*(np.array(_shape(layer)[-3:]) - 1) / 2, 1.0])
    corners = (_CORNERS * np.array(_shape(scan)[-3:])) - 0.5
    placed = corners @ _world(scan)[:3, :3].T + _world(scan)[:3, 3]
    return bool((placed.min(0) <= middle[:3]).all() and (middle[:3] <= placed.max(0)).all())


def _record(scan: Image) -> ScanRecord:
    return kept_record(scan.metadata) or open_snapshot(describe_layer(scan)).record


def _world(layer: Layer) -> Matrix:
    return world_frame(layer, np.ones(3))


def _shape(layer: Layer) -> tuple[int, ...]:
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    return tuple(data.shape)
