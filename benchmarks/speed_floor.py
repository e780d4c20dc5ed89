"""The least that the method has to compute and to move, to compare times with: necessary work at the machine's rates.

Only products count: exponentials, comparisons and the search for connected parts come on top. What is necessary
is told by the propagation itself: at which positions of each slice labels can be, and the boxes that are refined.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from speed_machine import Rates
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.features.refiner import LabelRefiner
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.propagation import sweep
from napari_oneseg.propagation.crossing import Crossing, Exchange
from napari_oneseg.volume import Volume

__all__ = [
    "Counter",
    "Work",
    "attention_products",
    "counting",
    "features_work",
    "network_products",
    "reading_work",
    "refiner_products",
]

_HALF, _LABEL, _CONFIDENCE = 2, 1, 2  # bytes


@dataclass
class Work:
    """What has to be done at least.

    Attributes
    ----------
    operations
        Multiplications and additions: a multiply-add is two.
    moved
        Bytes that are read or written, once each.
    """

    operations: float = 0.0
    moved: float = 0.0

    def floor(self, rates: Rates) -> float:
        """Return the least time that it takes, in seconds: both can go on at once."""
        return max(self.operations / rates.gflops, self.moved / rates.gb_per_second) / 1e9


def network_products(network: FeatureNetwork, rows: int, columns: int) -> int:
    """Return the operations of the network on one slice of the working grid."""
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, rows, columns, device=device))
    return counter.get_total_flops()


def features_work(network: FeatureNetwork, volume: Volume, stack: FeatureStack) -> Work:
    """Return the work of a scan's features: the network on each slice; the scan is read, the features are written."""
    written = sum(array.nbytes for array in stack.arrays().values())
    products = network_products(network, *stack.grid.working)
    return Work(volume.n_slices * products, volume.array.nbytes + written)


def reading_work(stack: FeatureStack) -> Work:
    """Return the work of features that are only read and compared with their checksum: nothing but moving them."""
    return Work(0.0, sum(array.nbytes for array in stack.arrays().values()))


def attention_products(region: Tensor, window: int, channels: int, maps: int, labels: int) -> int:
    """Return the operations of one step of the attention, there and back.

    Each pair of positions is compared once, over the channels; what is copied is weighted on the way there, the labels
    among it also on the way back.

    Parameters
    ----------
    region
        Where on the target slice it is wanted, (rows, columns), boolean.
    window
        Side of the window; where it leaves the slice, there are fewer pairs.
    """
    rows, columns = (_in_reach(size, window) for size in region.shape)
    pairs = int((region.cpu().numpy() * rows[:, None] * columns).sum())
    return 2 * pairs * (channels + maps + labels)


def _in_reach(size: int, window: int) -> np.ndarray:
    place, half = np.arange(size), window // 2
    return np.minimum(place + half, size - 1) - np.maximum(place - half, 0) + 1


class Counter:
    """Counts the work of propagations.

    Attributes
    ----------
    attention, refiner
        Operations.
    moved
        Bytes: the features of the positions that are compared, and the labels there, once a step.
    positions, boxes, steps
        Positions that were wanted; positions that were refined, label by label; steps.
    """

    def __init__(self) -> None:
        self.attention = self.refiner = 0.0
        self.moved = 0
        self.positions = self.boxes = self.steps = 0

    def step(self, crossing: Crossing) -> None:
        """Count one step of the attention."""
        wanted, labels = int(crossing.region.sum()), len(crossing.bridged)
        channels, maps = len(crossing.target), len(crossing.maps)
        self.attention += attention_products(crossing.region, crossing.window, channels, maps, labels)
        self.moved += wanted * (_HALF * channels + 4 * (maps + labels))
        self.positions += wanted
        self.steps += 1

    def work(self, volume: Volume, slices: int) -> Work:
        """Return the work, with that of writing the labels and the confidence of some slices."""
        rows, columns = volume.slices.shape[1:]
        written = slices * rows * columns * (_LABEL + _CONFIDENCE)
        return Work(self.attention + self.refiner, self.moved + written)


@contextmanager
def counting(refiner: LabelRefiner | None) -> Iterator[Counter]:
    """Count the work of what is propagated in the block, with this refiner; the results are what they are without."""
    counter, exchange = Counter(), sweep.exchange
    each = 0.0 if refiner is None else refiner_products(refiner)

    def counted(crossing: Crossing) -> Exchange:
        counter.step(crossing)
        return exchange(crossing)

    def refined(_: LabelRefiner, given: tuple[Any, ...], __: Tensor) -> None:
        positions = math.prod(given[0].shape)
        counter.boxes += positions
        counter.refiner += positions * each

    hook = None if refiner is None else refiner.register_forward_hook(refined)
    try:
        with mock.patch.object(sweep, "exchange", counted):
            yield counter
    finally:
        if hook is not None:
            hook.remove()


def refiner_products(refiner: LabelRefiner, side: int = 32) -> float:
    """Return the refiner's operations per position and label."""
    device, channels = refiner.look.weight.device, refiner.look.in_channels
    one = torch.zeros(1, 1, side, side, device=device)
    with torch.no_grad():
        features = torch.ones(1, channels, side, side, device=device)
        seen = refiner.describe(features, one, one + 1.0)
        with FlopCounterMode(display=False) as counter:
            refiner.forward(one, one, one, features, one, one, seen, torch.ones(1, device=device))
    return counter.get_total_flops() / side**2
