"""How the weights that ship with the package come about: first the features, then the refiner, on generated anatomy.

The refiner is taught with the features as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from napari_oneseg.config import RefiningConfig, TrainingConfig
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.training.loop import Precision
from napari_oneseg.training.processes import ALONE, Processes
from napari_oneseg.training.refine import teach_refiner
from napari_oneseg.training.train import TrainingResult, new_network, train_on_generated

__all__ = ["refining_state", "train_default", "with_refiner"]

Report = tuple[Callable[[int, int], None] | None, Callable[[int, float], None] | None]


_REGION_SCALES = (25.0, 150.0)


def with_refiner(network: FeatureNetwork, seed: int) -> FeatureNetwork:
    """Return a network with the same features and a refiner that is shown regions and classifies parts.

    A new refiner leaves labels as they were copied. One that was there already goes on from what it knows; what it was
    not shown before has no say at first.
    """
    config = replace(network.config, refine=True, region_scales=_REGION_SCALES, classify_parts=True)
    whole = new_network(config, seed)
    known = network.state_dict()
    widened = "refiner.first.weight"
    if widened in known:
        empty = torch.zeros_like(whole.state_dict()[widened])
        empty[:, : known[widened].shape[1]] = known[widened]
        known[widened] = empty
    whole.load_state_dict(known, strict=False)
    return whole.eval()


def train_default(
    config: TrainingConfig | None = None,
    refining: RefiningConfig | None = None,
    refine: bool = True,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    state: Path | None = None,
    stage: Callable[[str], AbstractContextManager[Report]] | None = None,
    processes: Processes = ALONE,
    init: FeatureNetwork | None = None,
) -> TrainingResult:
    """Train weights as the shipped ones were trained; the same seeds and device give the same weights.

    Parameters
    ----------
    config, refining
        Of the features and of the refiner.
    refine
        Whether there is to be a refiner.
    device, precision
        As in :func:`~napari_oneseg.training.train.train_on_generated`.
    state
        File in which the state of the training is kept, with one more beside it for the refiner; a training that was
        stopped goes on from them.
    stage
        Called with the name of each stage; a context manager that gives what is called with (steps done, all steps),
        and with (step, loss), while it runs.
    processes
        Who else trains this network; see :func:`~napari_oneseg.training.loop.run_training`.
    init
        The network to go on from, its refiner included; by default a new one.

    Returns
    -------
    The network, and the losses of both stages one after the other.
    """
    config = config or TrainingConfig()
    begin = stage or (lambda _: nullcontext((None, None)))
    with begin("Training the features") as (progress, on_loss):
        result = train_on_generated(
            config,
            device=device,
            precision=precision,
            state=state,
            progress=progress,
            on_loss=on_loss,
            processes=processes,
            init=init,
        )
    if not refine:
        return result
    network = with_refiner(result.network, config.seed)
    kept = None if state is None else refining_state(state)
    with begin("Teaching the refiner") as (progress, on_loss):
        losses = teach_refiner(
            network,
            refining,
            device=device,
            precision=precision,
            state=kept,
            progress=progress,
            on_loss=on_loss,
            processes=processes,
        )
    return TrainingResult(network, result.losses + losses)


def refining_state(state: Path) -> Path:
    """Return the file in which the state of teaching the refiner is kept."""
    return state.with_name(f"{state.name}-refiner")
