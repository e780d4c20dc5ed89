"""One scan labelled by each way in turn: the product, its attention by other ways, and chained registrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from speed_attention import compare_steps, plugged_in, shifted_exchange, step_of
from speed_machine import interleaved
from speed_scans import Scan, painted_where_largest, read

from napari_oneseg.checkpoint import Weights
from napari_oneseg.errors import InputError
from napari_oneseg.evaluation.baselines import BASELINES
from napari_oneseg.propagation.exchange import by_tiles
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation, Volume

__all__ = ["OWN", "SHIFTED", "compare", "compare_scan"]

OWN, FROM_START, TILES, SHIFTED = "propagation", "features and propagation", "with tiles", "with shifted products"
REGISTRATIONS = {"dis": "chained DIS flow", "demons": "chained demons"}


def compare_scan(scan: Scan, weights: Weights, device: torch.device, rounds: int, seconds: float) -> dict[str, Any]:
    """Return what :func:`compare` does for a scan's files."""
    return {"scan": scan.name} | compare(*read(scan.image, scan.labels), weights, device, rounds, seconds)


def compare(
    volume: Volume,
    labels: NDArray[np.unsignedinteger],
    weights: Weights,
    device: torch.device,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """Time one step of the attention, and the labelling of the whole scan, by each way.

    The network, the scan and what is painted (each label on the slice of its largest area) are the same for all. A
    registration is done anew in each round: it is what takes its time, and what has to be done when a scan is opened.

    Parameters
    ----------
    rounds, seconds
        How often at most; no further round begins after these seconds, the step's apart from the scan's.

    Returns
    -------
    ``step``: of :func:`speed_attention.compare_steps`; ``seconds`` by way; ``same_labels``: the share of voxels to
    which the attention by other ways gives the same labels.
    """
    session = OneSegSession(weights, str(device))
    session.set_volume(volume)
    step = compare_steps(step_of(session, labels), 5 * rounds, seconds)
    annotation = Annotation(painted_where_largest(labels))
    session.set_annotation(annotation)

    def from_start() -> None:
        another = OneSegSession(weights, str(device))
        another.set_volume(volume)
        another.set_annotation(annotation)
        another.propagate()

    def by(way: Callable[..., Any]) -> NDArray[np.unsignedinteger]:
        with plugged_in(way):
            return session.propagate().labels

    own = session.propagate().labels
    others = {TILES: by_tiles, SHIFTED: shifted_exchange}
    works: dict[str, Callable[[], Any]] = {OWN: session.propagate, FROM_START: from_start}
    works |= {name: lambda way=way: by(way) for name, way in others.items()}
    for method, name in REGISTRATIONS.items():
        try:
            BASELINES[method](volume)
        except InputError:  # its package is not installed
            continue
        works[name] = lambda method=method: BASELINES[method](volume)(annotation)
    return {
        "shape": list(volume.slices.shape),
        "labels": len(annotation.labels),
        "step": step,
        "same_labels": {name: float((by(way) == own).mean()) for name, way in others.items()},
        "seconds": interleaved(works, rounds, seconds, device, warm_up=False),
    }
