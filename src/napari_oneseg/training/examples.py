"""What each step learns from: pairs of slices or sequences of supervoxels, drawn from a few scans at a time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from napari_oneseg.config import ScreeningConfig, SelfLearningConfig, TrainingConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.training.loop import Plan
from napari_oneseg.training.pairs import PairBatch, draw_pairs, random_slices, representative_slices
from napari_oneseg.training.scans import GROUP, Scans, WorkingScan
from napari_oneseg.training.sequences import SequenceBatch, cut_sequence
from napari_oneseg.training.supervoxels import Supervoxels, find_supervoxels

__all__ = ["ScanExamples", "slabs"]

_SLAB = 32
"""Slices whose supervoxels are found at once: more than a sequence needs, and some seconds of work."""
_KEPT_SLABS = 8


def slabs(count: int) -> list[int]:
    """Return the first slices of the slabs that cover ``count`` slices, evenly spread."""
    number = -(-count // _SLAB)
    return [int(first) for first in np.linspace(0, max(0, count - _SLAB), number).round()]


class ScanExamples:
    """Batches for the training loop, from scans without labels.

    An epoch goes through all scans in random order, a group at a time, so that they need not fit into memory together.
    When a group's turn comes, the representative slices of its scans are found with what the network has learned by
    then, it is drawn where supervoxels are looked for, and the next group is read in the background.

    Parameters
    ----------
    scans
        The scans.
    config
        Objective, steps of an epoch, pairs per step, seed.
    sequences
        Sequences per step, their length and crop; a small scan gets smaller ones.
    screening
        Number of representative slices.
    """

    def __init__(
        self, scans: Scans, config: SelfLearningConfig, sequences: TrainingConfig, screening: ScreeningConfig
    ) -> None:
        multiple = scans.features.coarsest_stride
        if config.objective != "reconstruction" and sequences.crop % multiple:
            raise InputError(
                f"TrainingConfig.crop must be a multiple of the network's coarsest stride, {multiple}; got "
                f"{sequences.crop}."
            )
        self._scans, self._config, self._sequences, self._screening = scans, config, sequences, screening
        self._supervoxels: OrderedDict[tuple[int, int], Supervoxels] = OrderedDict()

    def plan(self, network: FeatureNetwork, step: int) -> Plan:
        """Choose scans, slices and slabs for the steps from ``step`` on.

        Returns
        -------
        For each scan of the group its number, its chosen slices, and the first slices of its slabs.
        """
        config = self._config
        group, until, random = self._group(step)
        content = []
        for number in group:
            scan = self._scans[number]
            chosen = (
                [] if config.objective == "supervoxels" else self._slices(network, scan, int(random.integers(2**31)))
            )
            firsts = slabs(len(scan.slices))
            drawn = random.permutation(len(firsts))[: max(1, _KEPT_SLABS // len(group))]
            content.append([number, chosen, sorted(firsts[k] for k in drawn)])
        self._scans.read_ahead(group, self._group(until)[0])
        return Plan(content, until)

    def _group(self, step: int) -> tuple[list[int], int, np.random.Generator]:
        """Return whose turn it is, the step at which the next group's comes, and what is random in this turn."""
        steps = self._config.epoch_steps
        epoch, within = divmod(step, steps)
        random = np.random.default_rng([self._config.seed, epoch])
        order = random.permutation(len(self._scans))
        groups = np.array_split(order, -(-len(order) // GROUP))
        place = within * len(groups) // steps
        # The first step that the same rule gives to the next group.
        until = epoch * steps - (-(place + 1) * steps // len(groups))
        return groups[place].tolist(), until, random

    def batch(self, generator: torch.Generator, step: int, content: Any) -> PairBatch | SequenceBatch:
        """Draw a batch; all of it comes from one scan, because scans differ in their grids."""
        number, chosen, firsts = content[int(torch.randint(len(content), (1,), generator=generator))]
        objective = self._config.objective
        if objective == "reconstruction" or (objective == "both" and step % 2):
            return draw_pairs(self._scans[number], chosen, generator, self._config.batch)
        return self._draw_sequences(number, firsts, generator)

    def _slices(self, network: FeatureNetwork, scan: WorkingScan, seed: int) -> list[int]:
        if self._config.screening:
            return representative_slices(network, scan, self._screening, seed)
        return random_slices(len(scan.slices), self._screening, seed)

    def _draw_sequences(self, number: int, firsts: list[int], generator: torch.Generator) -> SequenceBatch:
        scan = self._scans[number]
        config = replace(
            self._sequences,
            crop=min(self._sequences.crop, *scan.grid.working),
            sequence=min(self._sequences.sequence, len(scan.slices)),
        )
        slices, labels, distances = [], [], []
        for _ in range(config.batch):
            first = firsts[int(torch.randint(len(firsts), (1,), generator=generator))]
            volume = self._slab(number, first).volume(generator)
            x, y, gap = cut_sequence(volume.image, volume, generator, scan.grid.stride, config)
            slices.append(x)
            labels.append(y)
            distances.append(gap * volume.distance)
        return SequenceBatch(torch.stack(slices), torch.stack(labels), torch.tensor(distances))

    def _slab(self, number: int, first: int) -> Supervoxels:
        key = number, first
        if key not in self._supervoxels:
            scan = self._scans[number]
            slices = scan.slices[first : first + _SLAB].float().numpy()
            self._supervoxels[key] = find_supervoxels(slices, scan.distance)
            while len(self._supervoxels) > _KEPT_SLABS:
                self._supervoxels.popitem(last=False)
        self._supervoxels.move_to_end(key)
        return self._supervoxels[key]
