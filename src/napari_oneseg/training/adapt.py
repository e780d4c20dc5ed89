"""Adapting a network to the very scan that is to be labelled, and to others like it, within a given time."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from napari_oneseg.checkpoint import Weights, load_weights
from napari_oneseg.config import (
    AdaptConfig,
    PropagationConfig,
    ScreeningConfig,
    SelfLearningConfig,
    TrainingConfig,
)
from napari_oneseg.training.examples import ScanExamples
from napari_oneseg.training.loop import LoopConfig, Moment, Precision, Source, run_training
from napari_oneseg.training.scans import Scans
from napari_oneseg.training.self_learning import scan_loss
from napari_oneseg.training.train import TrainingResult
from napari_oneseg.volume import Volume

__all__ = ["adapt"]

_WARM_STEPS = 20
_EPOCH_STEPS = 100  # after which representative slices are chosen anew


def adapt(
    volume: Volume,
    weights: Weights | None = None,
    config: AdaptConfig | None = None,
    sequences: TrainingConfig | None = None,
    screening: ScreeningConfig | None = None,
    propagation: PropagationConfig | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    progress: Callable[[int, int], None] | None = None,
    on_loss: Callable[[int, float], None] | None = None,
    others: Sequence[Volume | Path] = (),
) -> TrainingResult:
    """Let a network learn from the scan that it will be used on; nothing has to be painted for that.

    What it learns fits this scan and scans like it. How far it comes depends on the machine, so the same call gives
    slightly different weights each time.

    Parameters
    ----------
    volume
        The scan.
    weights
        What to start from, left as they are; by default the weights that ship with the package. Their preprocessing
        stays the right one for the result.
    config
        Time, objective, learning rate, seed.
    sequences
        Sequences for supervoxels: ``batch``, ``sequence``, ``crop`` and ``foreground`` are used.
    screening, propagation
        Number of representative slices; the window.
    device, precision
        Where to train, and in which numbers.
    progress
        Called with (seconds used, all seconds) after each step, and before the first one after each of several scans
        that was read; may raise :class:`~napari_oneseg.errors.Cancelled`.
    on_loss
        Called with (step, loss) after each step.
    others
        More scans to learn from, alike, or where they lie; each counts as much as the scan.

    Raises
    ------
    InputError
        If no scan can be learned from, for instance because the slices are too narrow.
    WeightsError
        If the default weights are missing or damaged.

    Warns
    -----
    UserWarning
        For each of several scans that is left out because it cannot be used, with the reason.
    """
    began = time.monotonic()
    weights = weights or load_weights()
    config = config or AdaptConfig()
    learning = SelfLearningConfig(objective=config.objective, epoch_steps=_EPOCH_STEPS, seed=config.seed)
    network = copy.deepcopy(weights.network)
    seconds = 60.0 * config.minutes

    def reading(_done: int, _scans: int) -> None:
        if progress is not None and others:
            progress(0, max(1, round(seconds)))

    scans = Scans([volume, *others], network.config, weights.preprocessing, reading)
    examples = ScanExamples(scans, learning, sequences or TrainingConfig(), screening or ScreeningConfig())
    loop = LoopConfig(
        config.learning_rate,
        _rate,
        # At least a second, so that there is a step to speak of, however long the preparations took.
        seconds=max(1.0, seconds - (time.monotonic() - began)),
        seed=config.seed,
        precision=precision,
        # A few minutes on one scan: the network begins as the one that it is, and is trained as it will be used.
        keep_statistics=True,
    )
    loss = scan_loss(learning, (propagation or PropagationConfig()).window)
    losses = run_training(
        network, Source(examples.batch, examples.plan), loss, loop, device, progress=progress, on_loss=on_loss
    )
    return TrainingResult(network, losses)


def _rate(moment: Moment) -> float:
    """Return the share of the peak learning rate: a short linear warm-up, then a cosine to zero over the time."""
    return min(1.0, (moment.step + 1) / _WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * moment.share))
