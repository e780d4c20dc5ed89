"""Pairs of slices to learn reconstruction from: representative ones, as in the paper, or random ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import ScreeningConfig
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.screening import representatives
from napari_oneseg.training.processes import Processes
from napari_oneseg.training.scans import WorkingScan

__all__ = ["PairBatch", "draw_pairs", "random_slices", "representative_slices"]

_CHUNK = {"cuda": 32, "mps": 8, "cpu": 4}


@dataclass(frozen=True)
class PairBatch:
    """A batch of pairs, each with the slice that its reference may itself be copied from.

    Attributes
    ----------
    slices
        The slice before the reference, the reference, and the target: normalised, shape
        (batch, 3, 1, rows, columns), -1 to 1.
    """

    slices: Tensor

    def to(self, device: torch.device) -> PairBatch:
        """Return the same batch on another device."""
        return PairBatch(self.slices.to(device))

    def share(self, processes: Processes) -> PairBatch:
        """Return the pairs of one process."""
        return PairBatch(self.slices[processes.share(len(self.slices))])


@torch.no_grad()
def representative_slices(
    network: FeatureNetwork, scan: WorkingScan, config: ScreeningConfig | None = None, seed: int = 0
) -> list[int]:
    """Return one representative slice for each cluster of slices that look alike to the network (paper eq. 2-4).

    Parameters
    ----------
    network
        In its present state of learning; left as it is.
    scan
        The scan.
    config
        Number of clusters.
    seed
        Of the clustering.

    Returns
    -------
    Ascending. Two at least: where all slices look alike, the first and the last.
    """
    # A copy, because normalisation by the running statistics must not end the training.
    network = copy.deepcopy(network).eval()
    device = next(network.parameters()).device
    maps, content = [], []
    for slices in scan.slices.split(_CHUNK[device.type]):
        x = slices[:, None].to(device, torch.float32)
        maps.append(network(x).half())
        # Averaging removes the noise, so that a slice of noisy air counts as empty.
        content.append(functional.avg_pool2d(x, 8).flatten(1).std(1, correction=0).cpu().numpy())
    stack = FeatureStack(torch.cat(maps), scan.grid, np.concatenate(content))
    chosen = representatives(stack, config, seed)
    return chosen if len(chosen) > 1 else [0, len(scan.slices) - 1]


def random_slices(count: int, config: ScreeningConfig, seed: int) -> list[int]:
    """Return as many different random slices of ``count`` as there would be representative ones, ascending."""
    drawn = np.random.default_rng(seed).permutation(count)[: config.clusters]
    return sorted(int(index) for index in drawn)


def draw_pairs(scan: WorkingScan, chosen: Sequence[int], generator: torch.Generator, count: int) -> PairBatch:
    """Draw pairs of slices that follow each other in a set of chosen ones, in either direction.

    The slice before the reference is the one that a label would have come from: the next chosen slice on the side away
    from the target. At an end of the set there is none, and the target itself takes its place.

    Parameters
    ----------
    scan
        The scan.
    chosen
        Indices of at least two slices, ascending.
    generator
        Source of randomness.
    count
        Number of pairs.
    """
    triples = []
    for _ in range(count):
        place = int(torch.randint(len(chosen) - 1, (1,), generator=generator))
        reference, target, before = place, place + 1, place - 1
        if int(torch.randint(2, (1,), generator=generator)):
            reference, target, before = place + 1, place, place + 2
        if not 0 <= before < len(chosen):
            before = target
        triples.append([chosen[before], chosen[reference], chosen[target]])
    return PairBatch(scan.slices[torch.tensor(triples)][:, :, None].float())
