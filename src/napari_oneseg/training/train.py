"""Learning from generated anatomy: labels are carried through sequences of slices whose regions are known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_oneseg.config import AnatomyConfig, FeatureConfig, PropagationConfig, TrainingConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.propagation.attention import local_affinity, readout
from napari_oneseg.training.loop import LoopConfig, Moment, Precision, Source, run_training, warm_cosine
from napari_oneseg.training.losses import label_copy_loss
from napari_oneseg.training.processes import ALONE, Processes
from napari_oneseg.training.sequences import SequenceBatch, generated_batch
from napari_oneseg.training.state_file import StateFile, parameter_hash

__all__ = ["TrainingResult", "new_network", "sequence_loss", "train_on_generated"]


@dataclass(frozen=True)
class TrainingResult:
    """A trained network, in evaluation mode, and the loss of each step."""

    network: FeatureNetwork
    losses: tuple[float, ...]


def sequence_loss(network: FeatureNetwork, batch: SequenceBatch, window: int, processes: Processes = ALONE) -> Tensor:
    """Carry the first slice's labels from slice to slice, as propagation does, and return the mean loss of all steps.

    From the second step on the reference is itself a copy, so the network learns from its own drift.
    """
    count, length = batch.slices.shape[:2]
    features = network(batch.slices.flatten(0, 1)).unflatten(0, (count, length))
    labels = batch.labels[:, 0]
    null_bias = network.null_bias_at(batch.distances[:, None, None, None])
    total = features.new_zeros(())
    for t in range(1, length):
        affinity = local_affinity(features[:, t], features[:, t - 1], window, null_bias=null_bias)
        copied = readout(affinity, labels[:, 1:])
        # Background is what no label has claimed, also where nothing matched.
        labels = torch.cat([1.0 - copied.sum(1, keepdim=True), copied], 1)
        total = total + label_copy_loss(labels, batch.labels[:, t], processes)
    mean: Tensor = total / (length - 1)
    return mean


def train_on_generated(
    config: TrainingConfig | None = None,
    features: FeatureConfig | None = None,
    anatomy: AnatomyConfig | None = None,
    propagation: PropagationConfig | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    state: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_loss: Callable[[int, float], None] | None = None,
    processes: Processes = ALONE,
    init: FeatureNetwork | None = None,
) -> TrainingResult:
    """Train a correspondence network on generated anatomy; the same seed and device give the same weights.

    Parameters
    ----------
    config, features, anatomy, propagation
        Of the training, the network, the generated volumes, and the window.
        With ``init``, its own features are taken.
    device
        Where to train.
    precision
        Numbers the network computes with.
    state
        File in which the state of the training is kept; a training that was stopped goes on from it.
    progress
        Called with (steps done, all steps) after each step; may raise :class:`~napari_oneseg.errors.Cancelled`.
    on_loss
        Called with (step, loss) after each step.
    processes
        Who else trains this network; see :func:`~napari_oneseg.training.loop.run_training`.
    init
        The network to go on from, which stays as it is; by default a new one.

    Raises
    ------
    InputError
        If the crops or the sequences do not fit the generated volumes or the network's strides, or the state file is
        that of another training.
    """
    config = config or TrainingConfig()
    features = init.config if init is not None else features or FeatureConfig()
    anatomy = anatomy or AnatomyConfig()
    window = (propagation or PropagationConfig()).window
    _check_sizes(config, features, anatomy)
    network = new_network(features, config.seed) if init is None else copy.deepcopy(init)

    def batch(generator: torch.Generator, _step: int, _plan: Any) -> SequenceBatch:
        return generated_batch(generator, features.stride, config, anatomy)

    def loss(network: FeatureNetwork, batch: SequenceBatch, _moment: Moment) -> Tensor:
        return sequence_loss(network, batch, window, processes)

    loop = LoopConfig(
        config.learning_rate,
        lambda moment: warm_cosine(moment, config.steps),
        steps=config.steps,
        seed=config.seed,
        precision=precision,
    )
    identity = {
        "learning": "generated anatomy",
        "training": config.to_dict(),
        "features": features.to_dict(),
        "anatomy": anatomy.to_dict(),
        "window": window,
        "precision": precision,
        "start": parameter_hash(network),
    }
    kept = StateFile(state, identity) if state is not None else None
    losses = run_training(network, Source(batch), loss, loop, device, kept, progress, on_loss, processes)
    return TrainingResult(network, losses)


def new_network(features: FeatureConfig | None, seed: int) -> FeatureNetwork:
    """Return an untrained network in which everything random comes from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FeatureNetwork(features)


def _check_sizes(config: TrainingConfig, features: FeatureConfig, anatomy: AnatomyConfig) -> None:
    if config.crop > anatomy.size or config.crop % features.coarsest_stride:
        raise InputError(
            f"TrainingConfig.crop must be at most AnatomyConfig.size, {anatomy.size}, and a multiple of the network's "
            f"coarsest stride, {features.coarsest_stride}; got {config.crop}."
        )
    if config.sequence > anatomy.slices:
        raise InputError(
            f"TrainingConfig.sequence must be at most AnatomyConfig.slices, {anatomy.slices}; got {config.sequence}."
        )
