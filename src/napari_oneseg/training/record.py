"""What trained weights rest on, as a plain record that goes into their file. It names no file and no patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from napari_oneseg.checkpoint import Weights
from napari_oneseg.config import Config
from napari_oneseg.device import describe_device
from napari_oneseg.provenance import software_versions

__all__ = ["record_of_scans", "training_record"]

_TAIL = 50
"""Single steps are noisy: the final loss is the mean of this many last ones."""


def training_record(
    losses: Sequence[float],
    configs: Mapping[str, Config],
    seed: int,
    command: str,
    device: torch.device,
    seconds: float,
) -> dict[str, Any]:
    """Describe how weights were trained, so that it can be judged, and repeated.

    Parameters
    ----------
    losses
        Loss of each step.
    configs
        Configurations by name.
    seed
        Seed of everything random.
    command
        The command line, without names of files; or, from Python, the function.
    device
        Where they were trained.
    seconds
        How long that took.
    """
    tail = losses[-_TAIL:]
    return {
        "command": command,
        "steps": len(losses),
        "seed": seed,
        **{name: config.to_dict() for name, config in configs.items()},
        "device": describe_device(device),
        "seconds": round(seconds, 1),
        "final_loss": sum(tail) / len(tail),
        "versions": software_versions(),
    }


def record_of_scans(count: int, start: Weights | None) -> dict[str, Any]:
    """Describe the data of weights that were trained on scans of the user.

    Parameters
    ----------
    count
        Number of scans.
    start
        The weights that the training started from; None for a new network.
    """
    record: dict[str, Any] = {
        "data": "1 scan of the user" if count == 1 else f"{count} scans of the user",
        "licence": "the scans are the user's own: whether these weights may be passed on depends on the scans' terms",
        "start": "a new network",
    }
    if start is not None:
        # By its hash: the name of a file may tell more than it should.
        told = {key: start.provenance[key] for key in ("data", "licence") if key in start.provenance}
        record["start"] = {"sha256": start.sha256, **told}
    return record
