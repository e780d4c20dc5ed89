"""Whether adapted weights explain what the user has painted and accepted better than those before.

Strategy. Nobody knows the truth of a scan that is being labelled, but what was painted and accepted is known. So one of
these slices after another is left out, its labels are carried there from the others, and compared. It says nothing of
the slices that nobody has looked at, and the more of the scan is accepted, the easier the task becomes; but it is the
same task before and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_oneseg.checkpoint import Weights, new_weights
from napari_oneseg.config import AdaptConfig, PropagationConfig
from napari_oneseg.features.extractor import FeatureStack, compute_features
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.propagation.propagate import propagate_slices
from napari_oneseg.training.adapt import adapt
from napari_oneseg.training.record import record_of_scans, training_record
from napari_oneseg.training.scans import GROUP, find_scans
from napari_oneseg.volume import Annotation, LabelArray, Volume

__all__ = ["Adapted", "adapt_and_compare", "agreement"]

Progress = Callable[[int, int], None]


def agreement(
    features: FeatureStack,
    annotation: Annotation,
    config: PropagationConfig | None = None,
    progress: Progress | None = None,
) -> float | None:
    """Leave out one painted slice after another, carry its labels there from the others, and compare.

    A slice that is not complete says nothing of labels that were not painted on it. On a complete one, a label that is
    not there but arrives counts as missed altogether. A label that was painted on one slice only is left aside.

    Parameters
    ----------
    features
        Features of the scan.
    annotation
        The painted and the accepted slices.
    config
        Of the propagation.
    progress
        Called with (slices compared, all slices), several times for each; may raise
        :class:`~napari_oneseg.errors.Cancelled`.

    Returns
    -------
    Mean Dice coefficient over slices and labels, 0 to 1; None where no two slices have a label in common.
    """
    scores: list[float] = []
    compared = False
    indices = sorted(annotation.slices)
    for done, index in enumerate(indices):
        others = Annotation(
            {other: image for other, image in annotation.slices.items() if other != index},
            annotation.complete - {index},
        )
        true = annotation.slices[index]
        shared = set(np.unique(true).tolist()) & set(others.labels)
        compared = compared or bool(shared)
        unwanted = set(others.labels) - shared if index in annotation.complete else set()
        if shared or unwanted:
            carried = _carried(features, others, index, config, _reporting(progress, done, len(indices)))
            scores += [_dice(carried == label, true == label) for label in sorted(shared)]
            scores += [0.0 for label in unwanted if (carried == label).any()]
        if progress is not None:
            progress(done + 1, len(indices))
    return float(np.mean(scores)) if compared else None


def _carried(
    features: FeatureStack, others: Annotation, index: int, config: PropagationConfig | None, progress: Progress
) -> LabelArray:
    """Return the labels, (rows, columns), that arrive on a slice from those nearest to it."""
    tables = [others.anchors(label) for label in others.labels]
    first = min(max((a for a in table if a < index), default=index) for table in tables)
    last = max(min((a for a in table if a > index), default=index) for table in tables)
    # Slices come as soon as they are known: what lies behind the one in question need not be visited a second time.
    results = propagate_slices(features, others, (first, last), config=config, progress=progress)
    return next(result.labels for result in results if result.index == index)


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def _reporting(progress: Progress | None, done: int, total: int) -> Progress:
    """Return what passes on how far all is, whatever the part that is under way tells."""

    def report(_done: int, _total: int) -> None:
        if progress is not None:
            progress(done, total)

    return report


@dataclass(frozen=True, eq=False)
class Adapted:
    """Weights that have learned from the user's scans.

    Attributes
    ----------
    weights
        The adapted weights; their hash is that of the file that they would be saved to.
    before, after
        Agreement with the painted and the accepted slices; see :func:`agreement`.
    losses
        Loss of each step.
    seconds
        How long all took.
    """

    weights: Weights
    before: float | None
    after: float | None
    losses: tuple[float, ...]
    seconds: float


def adapt_and_compare(
    volume: Volume,
    weights: Weights,
    annotation: Annotation,
    minutes: float = AdaptConfig().minutes,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    on_loss: Callable[[int, float], None] | None = None,
    on_time_left: Callable[[float], None] | None = None,
    propagation: PropagationConfig | None = None,
) -> Adapted:
    """Let weights learn from a scan, or from a folder of scans too, and compare them with what they were.

    Learning, for which nothing has to be painted, is that of :func:`~napari_oneseg.training.adapt.adapt`. Of a large
    folder as many scans are used as stay in memory together, evenly spread over it by name.

    Parameters
    ----------
    volume
        The scan that is being labelled.
    weights
        What to start from; they stay as they are, but for the device that their network lies on.
    annotation
        What was painted and accepted on the scan; only for comparing.
    minutes
        Time to learn for; comparing adds some seconds before and after.
    folder
        More scans to learn from: image files, and a sub-folder for each DICOM series.
    device
        Where to compute.
    progress
        Called with (seconds learned, all seconds), often, while it compares too; may raise
        :class:`~napari_oneseg.errors.Cancelled`.
    on_loss
        Called with (step, loss) after each step.
    on_time_left
        Called with the seconds that are left, as far as that is known, comparing included.
    propagation
        Window and stopping rule.

    Raises
    ------
    InputError
        If no scan can be learned from.

    Warns
    -----
    UserWarning
        For each scan of the folder that cannot be used, with the reason.
    """
    clock = time.monotonic()
    config = AdaptConfig(minutes=minutes)
    total = max(1, round(60.0 * minutes))
    more = [] if folder is None else _spread(find_scans(folder), GROUP - 1)

    def compared(network: FeatureNetwork, done: int) -> float | None:
        report = _reporting(progress, done, total)
        features = compute_features(volume, network, weights.preprocessing, device, report)
        return agreement(features, annotation, propagation, report)

    before = compared(weights.network, 0)
    comparing = time.monotonic() - clock

    def learned(done: int, seconds: int) -> None:
        if on_time_left is not None:
            on_time_left(seconds - done + comparing)
        if progress is not None:
            # The time to prepare is not in what the training counts.
            progress(min(total, total - seconds + done), total)

    result = adapt(
        volume,
        weights,
        config,
        propagation=propagation,
        device=device,
        progress=learned,
        on_loss=on_loss,
        others=more,
    )
    after = compared(result.network, total)
    seconds = time.monotonic() - clock
    provenance = {
        **record_of_scans(1 + len(more), weights),
        **training_record(
            result.losses, {"adapting": config}, config.seed, "adapt_and_compare", torch.device(device), seconds
        ),
    }
    adapted = new_weights(result.network, weights.preprocessing, provenance, "adapted")
    return Adapted(adapted, before, after, result.losses, seconds)


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return at most ``count`` of the paths, evenly spread."""
    if len(paths) <= count:
        return list(paths)
    return [paths[int(place)] for place in np.linspace(0, len(paths) - 1, count).round()]
