"""What the background thread does: functions of plain values, without a viewer, that may take seconds.

torch and everything that rests on it is imported here, in the thread, so that the window opens at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.plugin.reviewing import out_of_date

if TYPE_CHECKING:
    from napari_oneseg.checkpoint import Weights
    from napari_oneseg.plugin.engine import Report
    from napari_oneseg.plugin.scan_layer import LayerSnapshot, OpenScan
    from napari_oneseg.screening import NextSlice, SliceSuggestion
    from napari_oneseg.session import OneSegSession
    from napari_oneseg.session_file import SavedSession
    from napari_oneseg.session_job import PropagationJob
    from napari_oneseg.session_state import SessionState
    from napari_oneseg.windows import Window

__all__ = ["OpenedScan", "Ranking", "confidence_volume", "open_scan", "rank", "rank_next", "run_job", "write_export"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Slices by how much they are worth painting.

    Attributes
    ----------
    best
        The suggestions, best first.
    scores
        Shape (n,), 0 to 1: the score of each slice, stretched over the slices ranked; NaN for the others.
    slice_range
        The slices that were ranked, None for all.
    """

    best: list[SliceSuggestion]
    scores: NDArray[np.float32]
    slice_range: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class OpenedScan:
    """A scan ready for painting."""

    scan: OpenScan
    session: OneSegSession
    ranking: Ranking | None
    windows: tuple[Window, ...]
    devices: tuple[tuple[str, str], ...]
    seconds: float
    device_name: str


def open_scan(
    snapshot: LayerSnapshot,
    axis: int | None,
    device: str,
    weights: Weights | None,
    kept: SavedSession | None,
    report: Report,
) -> OpenedScan:
    """Read what a layer shows, compute its features, and rank its slices.

    Parameters
    ----------
    snapshot
        The layer.
    axis
        The axis of the slices; by default that of the largest spacing.
    device
        As for :class:`~napari_oneseg.session.OneSegSession`.
    weights
        By default those of the package.
    kept
        What was made on this layer before, in the plane of that axis; its voxels may have another size or place since.
    report
        Takes the progress.
    """
    from napari_oneseg.device import describe_device
    from napari_oneseg.errors import InputError
    from napari_oneseg.features.cache import user_cache
    from napari_oneseg.plugin.scan_layer import open_snapshot
    from napari_oneseg.session import OneSegSession
    from napari_oneseg.windows import presets

    scan = open_snapshot(snapshot)
    if axis is not None and axis != scan.shown.axis:
        scan = replace(scan, shown=replace(scan.shown, slice_axis=axis))
    session = OneSegSession(weights, device, cache=user_cache())
    began = time.perf_counter()
    session.set_volume(scan.shown, report.progress)
    seconds = time.perf_counter() - began
    if kept is not None:
        here = replace(kept, scan=scan.shown.content_hash)
        session.restore(_for_weights(here, session.weights.sha256))
    try:
        ranking = rank(session, None)
    except InputError:
        ranking = None
    scan.shown.content_hash  # noqa: B018 - computed here, where it keeps nobody waiting
    device_name = describe_device(session.device)
    # Not a daemon: the program ends when the file is complete, a second or so later.
    threading.Thread(target=session.keep_features, name="oneseg-keep").start()
    return OpenedScan(scan, session, ranking, presets(scan.shown), _devices(), seconds, device_name)


def _for_weights(kept: SavedSession, sha256: str) -> SavedSession:
    """Return the work as it is with the weights of now: what others have propagated is out of date."""
    if kept.weights == sha256:
        return kept
    return replace(kept, weights=sha256, state=kept.state.out_of_date())


def _labelled_range(state: SessionState, slice_range: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the slices that labels were carried through: the user's range, unless it was changed afterwards."""
    reached = state.results.keys()
    if not reached or (slice_range and slice_range[0] <= min(reached) and max(reached) <= slice_range[1]):
        return slice_range
    return min(reached), max(reached)


def _devices() -> tuple[tuple[str, str], ...]:
    import torch

    found = [("auto", "Automatic"), ("cpu", "CPU")]
    if torch.cuda.is_available():
        found.append(("cuda", "NVIDIA GPU"))
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU"))
    return tuple(found)


def rank(session: OneSegSession, slice_range: tuple[int, int] | None) -> Ranking:
    """Rank the slices of a range."""
    best = session.suggest_slices(slice_range)
    scores = np.full(session.volume.n_slices, np.nan, np.float32)
    values = np.array([suggestion.score for suggestion in best], np.float32)
    low, high = float(values.min()), float(values.max())
    for suggestion in best:
        scores[suggestion.index] = (suggestion.score - low) / (high - low) if high > low else 1.0
    return Ranking(best, scores, slice_range)


def rank_next(session: OneSegSession, slice_range: tuple[int, int] | None) -> list[NextSlice]:
    """Return the few slices that would gain most if they were painted next."""
    if not session.state.results or not session.annotation.labels:
        return []
    return session.suggest_next(slice_range, top=3)


def run_job(session: OneSegSession, job: PropagationJob, report: Report) -> None:
    """Compute a propagation, and hand out each slice as it is ready."""
    for result in session.compute(job, report.progress):
        report.item(result)


def confidence_volume(session: OneSegSession) -> NDArray[np.float32]:
    """Return how doubtful each voxel is, 0 to 1, on the grid that is shown, (z, y, x)."""
    confidence = session.result().confidence
    return session.volume.from_slices(1.0 - confidence.astype(np.float32))


def write_export(
    path: Path,
    session: OneSegSession,
    scan: OpenScan,
    slice_range: tuple[int, int] | None,
    extras: dict[str, Any],
    write: Callable[..., None],
) -> Path:
    """Write the labels on the grid of the scan's file, with what they rest on; ``slice_range`` is the user's."""
    from napari_oneseg.provenance import propagation_record

    state = session.state
    result = session.result()
    record = propagation_record(session, result, _labelled_range(state, slice_range), state.direction) | extras
    record["accepted"] = sorted(state.frozen)
    record["not_up_to_date"] = sorted(out_of_date(state))
    write(path, session.volume.from_slices(result.labels), scan, record)
    return path
