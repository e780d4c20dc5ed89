"""Teaching the refiner: labels are carried through long runs of generated slices, with the features as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import AnatomyConfig, PropagationConfig, RefiningConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.part_classifier import find_parts, usual_support
from napari_oneseg.features.refiner import LabelRefiner, corrected
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.propagation.attention import local_affinity, readout
from napari_oneseg.training.loop import (
    LoopConfig,
    Moment,
    Precision,
    Source,
    computing_in,
    half_precision,
    run_training,
)
from napari_oneseg.training.losses import label_copy_loss, part_loss, run_on_loss
from napari_oneseg.training.processes import ALONE, Processes
from napari_oneseg.training.rollouts import rollout_batch
from napari_oneseg.training.sequences import SequenceBatch
from napari_oneseg.training.state_file import StateFile, parameter_hash

__all__ = ["rollout_loss", "teach_refiner"]

_WARM_UP = 30


def rollout_loss(
    network: FeatureNetwork,
    refiner: LabelRefiner,
    batch: SequenceBatch,
    window: int,
    processes: Processes = ALONE,
    gradient_steps: int = 12,
) -> Tensor:
    """Carry the first slice's labels all the way, refined after each step, and return the mean loss of the steps.

    The gradient goes back through ``gradient_steps`` slices: a refiner that lets a label grow by one position a step
    pays for it ten slices later. It ends at the features, so that attention is computed once and without a gradient.
    """
    count, length = batch.slices.shape[:2]
    with torch.no_grad():
        features = network(batch.slices.flatten(0, 1)).unflatten(0, (count, length))
        grey = functional.avg_pool2d(batch.slices.flatten(0, 1), network.config.stride).unflatten(0, (count, length))
        null_bias = network.null_bias_at(batch.distances[:, None, None, None])
    painted = batch.labels[:, 0, 1:]
    appearance = refiner.describe(features[:, 0], grey[:, 0], painted)
    area = painted.sum((2, 3))
    usual = torch.full_like(area, torch.nan)
    labels = painted
    total = labels.new_zeros(())
    for t in range(1, length):
        if t % gradient_steps == 0:
            labels = labels.detach()
        with torch.no_grad():
            affinity = local_affinity(features[:, t], features[:, t - 1], window, null_bias=null_bias)
            copied = readout(affinity, torch.cat([grey[:, t - 1], torch.ones_like(grey[:, 0])], 1))
            matched = copied[:, 1:]
            copied_grey = copied[:, :1] / matched.clamp_min(1e-6)
        labels = readout(affinity, labels)
        others = labels.sum(1, keepdim=True) - labels
        further = refiner.further_maps(labels, None if batch.regions is None else batch.regions[:, t], area)
        correction, seen = refiner(
            labels,
            others,
            matched.expand_as(labels),
            features[:, t],
            grey[:, t],
            copied_grey,
            appearance,
            batch.distances,
            further,
        )
        refined = corrected(labels, correction)
        every = torch.cat([1.0 - refined.sum(1, keepdim=True), refined], 1)
        truth = batch.labels[:, t]
        total = total + label_copy_loss(every, truth, processes)
        total = total + run_on_loss(refined, truth[:, 1:], painted, processes)
        if refiner.part_classifier is not None:
            parts = find_parts(refined)
            # Also where there is none: several processes must do the same.
            odds, support = refiner.part_classifier(
                parts, seen, further, labels, matched.expand_as(labels), usual, area, batch.distances
            )
            right = parts.mean((truth[:, 1:] > 0.5).float()[:, :, None])[:, 0]
            total = total + part_loss(odds, right, parts, area, processes)
            # A part that belongs to its label is never lost here, so that the run goes on to harder slices.
            stays = (odds > 0.0) | (right > 0.5)
            usual = usual_support(usual, parts, support, stays)
            refined = refined * parts.without(stays.cpu().numpy())
        labels = refined
    mean: Tensor = total / (length - 1)
    return mean


def teach_refiner(
    network: FeatureNetwork,
    config: RefiningConfig | None = None,
    anatomy: AnatomyConfig | None = None,
    propagation: PropagationConfig | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    state: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_loss: Callable[[int, float], None] | None = None,
    processes: Processes = ALONE,
) -> tuple[float, ...]:
    """Teach a network's refiner on generated anatomy, in place; everything else in the network stays as it is.

    Parameters
    ----------
    network
        With features that have been learned.
    config, anatomy, propagation
        Of the training, the generated volumes, and the window.
    device, precision, state, progress, on_loss, processes
        As in :func:`~napari_oneseg.training.train.train_on_generated`; the precision is that of the features.

    Returns
    -------
    Loss of each step.

    Raises
    ------
    InputError
        If the network has no refiner, or a run does not fit into the generated volumes.
    """
    config = config or RefiningConfig()
    anatomy = replace(anatomy or AnatomyConfig(), slices=config.slices)
    window = (propagation or PropagationConfig()).window
    refiner = network.refiner
    if refiner is None:
        raise InputError("The network has no refiner to be taught: it was made with FeatureConfig.refine = False.")
    if config.steps_along[1] >= config.slices:
        raise InputError(
            f"RefiningConfig.slices must be more than the slices that labels are carried through, "
            f"{config.steps_along[1]}; got {config.slices}."
        )
    # The features are only read; in evaluation mode they are what they will be when labels are carried in earnest.
    network.to(device).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    def batch(generator: torch.Generator, _step: int, _plan: Any) -> SequenceBatch:
        return rollout_batch(generator, network.config.stride, config, anatomy, refiner.region_scales)

    def loss(refiner: LabelRefiner, batch: SequenceBatch, _moment: Moment) -> Tensor:
        return rollout_loss(network, refiner, batch, window, processes, config.gradient_steps)

    loop = LoopConfig(
        config.learning_rate,
        lambda moment: _rate(moment.step, config.steps),
        steps=config.steps,
        seed=config.seed + 1,  # other volumes than those that the features were learned from
        precision="float32",
    )
    identity: dict[str, Any] = {
        "learning": "refining",
        "refining": config.to_dict(),
        "features": network.config.to_dict(),
        "start": parameter_hash(network),
    }
    identity |= {"anatomy": anatomy.to_dict(), "window": window, "precision": precision}
    kept = StateFile(state, identity) if state is not None else None
    # The refiner itself learns in single precision: oneDNN makes the gradient of a dilated convolution in bfloat16 NaN.
    device = torch.device(device)
    with computing_in(network, half_precision(precision, device), device):
        losses = run_training(refiner, Source(batch), loss, loop, device, kept, progress, on_loss, processes)
    network.eval()
    return losses


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a short linear warm-up under a cosine to zero."""
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
