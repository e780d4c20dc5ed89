"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_oneseg.config import AnatomyConfig, FeatureConfig, PropagationConfig, TrainingConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.propagation.attention import local_affinity, readout
from napari_oneseg.training.losses import label_copy_loss
from napari_oneseg.training.sequences import SequenceBatch, generated_batch

__all__ = ["TrainingResult", "sequence_loss", "train_on_generated"]


@dataclass(frozen=True)
class TrainingResult:
    """A trained network, in evaluation mode, and the loss of each step."""

    network: FeatureNetwork
    losses: tuple[float, ...]


def sequence_loss(network: FeatureNetwork, batch: SequenceBatch, window: int) -> Tensor:
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
        total = total + label_copy_loss(labels, batch.labels[:, t])
    mean: Tensor = total / (length - 1)
    return mean


def train_on_generated(
    config: TrainingConfig | None = None,
    features: FeatureConfig | None = None,
    anatomy: AnatomyConfig | None = None,
    propagation: PropagationConfig | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    on_loss: Callable[[int, float], None] | None = None,
) -> TrainingResult:
    """Train a correspondence network on generated anatomy; the same seed and device give the same weights.

    Parameters
    ----------
    config, features, anatomy, propagation
        Of the training, the network, the generated volumes, and the window.
    device
        Where to train.
    progress
        Called with (steps done, all steps) after each step; may raise :class:`~napari_oneseg.errors.Cancelled`.
    on_loss
        Called with (step, loss) after each step.

    Raises
    ------
    InputError
        If the crops or the sequences do not fit the generated volumes or the network's strides.
    """
    config = config or TrainingConfig()
    anatomy = anatomy or AnatomyConfig()
    window = (propagation or PropagationConfig()).window
    device = torch.device(device)
    _check_sizes(config, features or FeatureConfig(), anatomy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = FeatureNetwork(features).to(device).train()
    generator = torch.Generator().manual_seed(config.seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config.steps))
    losses = []
    for step, batch in enumerate(_batches(generator, network.config.stride, config, anatomy)):
        loss = sequence_loss(network, batch.to(device), window)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if on_loss is not None:
            on_loss(step, losses[-1])
        if progress is not None:
            progress(step + 1, config.steps)
    return TrainingResult(network.eval(), tuple(losses))


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


def _batches(
    generator: torch.Generator, stride: int, config: TrainingConfig, anatomy: AnatomyConfig
) -> Iterator[SequenceBatch]:
    """Yield the batches of all steps; the next one is made while the network learns from the last."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(generated_batch, generator, stride, config, anatomy)
        for step in range(config.steps):
            batch = coming.result()
            if step + 1 < config.steps:
                coming = pool.submit(generated_batch, generator, stride, config, anatomy)
            yield batch


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a short linear warm-up, then a cosine to zero."""
    warm = max(1, min(50, steps // 10))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
