"""How time grows with the number of slices, with their size and with the number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from speed_cases import FEATURES, PROPAGATE
from speed_machine import interleaved
from speed_scans import cut_labels, enlarged, painted_where_largest

from napari_oneseg.checkpoint import Weights
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation, Volume

__all__ = ["FULL", "QUICK", "Plan", "measure_growth", "slope"]

Plan = dict[str, list[tuple[int, int, int]]]
"""What grows, and the slices, the pixels along a side and the labels of each scan."""

FULL: Plan = {
    "slices": [(count, 256, 4) for count in (36, 72, 144, 288, 600)],
    "size": [(36, side, 4) for side in (128, 192, 256, 384, 512)],
    "labels": [(36, 256, count) for count in (1, 2, 4, 8, 13)],
}
QUICK: Plan = {
    "slices": [(count, 256, 4) for count in (12, 24, 48, 96)],
    "size": [(12, side, 4) for side in (128, 256, 512)],
    "labels": [(12, 256, count) for count in (1, 4, 13)],
}


def measure_growth(
    plan: Plan, weights: Weights, device: torch.device, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Time features and propagation on scans that grow in one way at a time.

    Parameters
    ----------
    plan
        The scans.
    rounds, seconds
        For each scan; see :func:`speed_machine.interleaved`.

    Returns
    -------
    Of each scan what ``grows``, its ``slices``, ``size`` and ``labels``, and ``seconds`` by step.
    """
    rows = []
    for grows, sizes in plan.items():
        for count, side, number in sizes:
            volume, labels = enlarged((count, side, side))
            annotation = Annotation(painted_where_largest(cut_labels(labels, number)))
            session = OneSegSession(weights, str(device))
            works = {
                FEATURES: partial(_open, session, volume),
                PROPAGATE: partial(_propagate, session, annotation),
            }
            # What is long enough prepares itself in a small part of its time.
            taken = interleaved(works, rounds, seconds, device, warm_up=count <= 100)
            row = {"grows": grows, "slices": count, "size": side, "labels": number}
            rows.append(row | {"seconds": taken})
    return rows


def _open(session: OneSegSession, volume: Volume) -> None:
    session.set_volume(volume)
    session.suggest_slices(top=5)


def _propagate(session: OneSegSession, annotation: Annotation) -> None:
    session.set_annotation(annotation)
    session.propagate()


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the exponent with which time grows: the slope of the line through the logarithms of both.

    1 where time is in proportion to size, 2 where it grows with its square, 0 where it does not grow.
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
