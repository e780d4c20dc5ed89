"""Self-learning from scans without labels (paper 1.6), and from their supervoxels.

Reconstruction is the paper's objective: the grey values of one representative slice are copied from another through the
windowed attention, and have to come out right. Grey values are compared on the feature grid, each position's being the
mean of its pixels: that is how labels are copied, so the network learns what it will do. Nothing may be left unmatched
here, so the null match takes no part.

Supervoxels are objects whose labels are carried through sequences of slices, as in generated anatomy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import (
    FeatureConfig,
    PreprocessingConfig,
    PropagationConfig,
    ScreeningConfig,
    SelfLearningConfig,
    TrainingConfig,
)
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.propagation.attention import local_affinity, readout
from napari_oneseg.training.examples import ScanExamples
from napari_oneseg.training.loop import LoopConfig, Moment, Precision, Source, halving, run_training
from napari_oneseg.training.pairs import PairBatch
from napari_oneseg.training.processes import ALONE, Processes
from napari_oneseg.training.scans import Scans
from napari_oneseg.training.sequences import SequenceBatch
from napari_oneseg.training.state_file import StateFile, parameter_hash
from napari_oneseg.training.train import TrainingResult, new_network, sequence_loss
from napari_oneseg.volume import Volume

__all__ = ["learn_from_scans", "reconstruction_loss", "scan_loss"]


def reconstruction_loss(
    network: FeatureNetwork, batch: PairBatch, window: int, true_weight: float, cycle_weight: float
) -> Tensor:
    """Return how badly slices are reconstructed from each other (paper eq. 10-12).

    Let ``copy(r)`` be the copy of r in the place of the target t, and r' the copy of the slice before r in the place of
    r. Then ``L_ss = w |t - copy(r)| + (1 - w) |t - copy(r')|``, which makes training as testing is, where each step
    starts from a copy; ``L_cyc = |r - back(copy(r))|`` with the attention from t to r; ``L = (1 - c) L_ss + c L_cyc``.

    Parameters
    ----------
    network
        The network.
    batch
        Pairs of slices.
    window
        Side of the attention's window.
    true_weight
        The weight w of copying from a true slice, 0 to 1.
    cycle_weight
        The weight c of cycle consistency, 0 to 1.

    Returns
    -------
    Mean absolute difference of grey values, scalar, 0 to 2.
    """
    count = len(batch.slices)
    slices = batch.slices.flatten(0, 1)
    before, reference, target = network(slices).unflatten(0, (count, 3)).unbind(1)
    grey = functional.avg_pool2d(slices, network.config.stride).unflatten(0, (count, 3))
    grey_before, grey_reference, grey_target = grey.unbind(1)

    forth = local_affinity(target, reference, window)
    copied = readout(forth, grey_reference)
    sampled = true_weight * (copied - grey_target).abs().mean()
    if true_weight < 1.0:
        copied_reference = readout(local_affinity(reference, before, window), grey_before)
        sampled = sampled + (1.0 - true_weight) * (readout(forth, copied_reference) - grey_target).abs().mean()
    total: Tensor = (1.0 - cycle_weight) * sampled
    if cycle_weight > 0.0:
        back = local_affinity(reference, target, window)
        total = total + cycle_weight * (readout(back, copied) - grey_reference).abs().mean()
    return total


def scan_loss(
    config: SelfLearningConfig, window: int, processes: Processes = ALONE
) -> Callable[[FeatureNetwork, PairBatch | SequenceBatch, Moment], Tensor]:
    """Return the objective for batches of either kind; scheduled sampling follows the training's share."""

    def loss(network: FeatureNetwork, batch: PairBatch | SequenceBatch, moment: Moment) -> Tensor:
        if isinstance(batch, SequenceBatch):
            return sequence_loss(network, batch, window, processes)
        true_weight = config.first_weight + (config.last_weight - config.first_weight) * moment.share
        return reconstruction_loss(network, batch, window, true_weight, config.cycle_weight)

    return loss


def learn_from_scans(
    scans: Scans | Sequence[Volume | Path],
    config: SelfLearningConfig | None = None,
    features: FeatureConfig | None = None,
    init: FeatureNetwork | None = None,
    preprocessing: PreprocessingConfig | None = None,
    sequences: TrainingConfig | None = None,
    screening: ScreeningConfig | None = None,
    propagation: PropagationConfig | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    state: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_loss: Callable[[int, float], None] | None = None,
    processes: Processes = ALONE,
) -> TrainingResult:
    """Train a correspondence network on scans without labels.

    Adam with a learning rate that is halved after each epoch, and the other numbers are the paper's (2.2); its epochs
    are passes over 130 scans, here an epoch is a number of steps, so that a small collection is not left behind.

    Parameters
    ----------
    scans
        Scans, or where they lie: files, and folders of one DICOM series each; or, to see how their reading goes on,
        :class:`~napari_oneseg.training.scans.Scans`. They may be more than fit into memory. Labels are never read.
    config
        Of the training.
    features
        Of a new network; not with ``init``, whose own they are.
    init
        The network to start from, left as it is; by default a new one.
    preprocessing
        Grey values and working grid; with ``init``, what it was trained with. Not with opened scans, which know it.
    sequences
        Sequences for supervoxels: ``batch``, ``sequence``, ``crop`` and ``foreground`` are used.
    screening, propagation
        Number of representative slices; the window.
    device, precision
        Where to train, and in which numbers.
    state
        File in which the state of the training is kept; a training that was stopped goes on from it.
    progress
        Called with (steps done, all steps) after each step; may raise :class:`~napari_oneseg.errors.Cancelled`.
    on_loss
        Called with (step, loss) after each step.
    processes
        Who else trains this network; see :func:`~napari_oneseg.training.loop.run_training`.

    Raises
    ------
    InputError
        If no scan can be used, or the state file is that of another training.

    Warns
    -----
    UserWarning
        For each scan that is left out because it cannot be used, with the reason.
    """
    if init is not None and features is not None:
        raise ValueError("features are those of init: give one of the two")
    config, sequences = config or SelfLearningConfig(), sequences or TrainingConfig()
    screening = screening or ScreeningConfig()
    window = (propagation or PropagationConfig()).window
    network = new_network(features, config.seed) if init is None else copy.deepcopy(init)
    opened = scans
    if not isinstance(opened, Scans):
        opened = Scans(opened, network.config, preprocessing or PreprocessingConfig())
    examples = ScanExamples(opened, config, sequences, screening)
    loop = LoopConfig(
        config.learning_rate,
        lambda moment: halving(moment, config.epoch_steps),
        steps=config.epochs * config.epoch_steps,
        seed=config.seed,
        precision=precision,
    )
    identity = {
        "learning": "scans",
        "training": config.to_dict(),
        "sequences": sequences.to_dict(),
        "screening": screening.to_dict(),
        "preprocessing": opened.preprocessing.to_dict(),
        "features": network.config.to_dict(),
        "window": window,
        "precision": precision,
        "scans": list(opened.hashes),
        "start": parameter_hash(network),
    }
    kept = StateFile(state, identity) if state is not None else None
    source = Source(examples.batch, examples.plan)
    loss = scan_loss(config, window, processes)
    losses = run_training(network, source, loss, loop, device, kept, progress, on_loss, processes)
    return TrainingResult(network, losses)
