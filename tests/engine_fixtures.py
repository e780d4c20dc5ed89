"""What the tests of the engine share: features made by hand, whose right matches are known, and a tiny network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_oneseg.checkpoint import Weights
from napari_oneseg.config import FeatureConfig, PreprocessingConfig
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.propagation.sweep import Carried, PaintedMaps, legs, sweep

# Without a null match: in a network that has learned nothing, it would win everywhere.
TINY = FeatureConfig(
    gabor_wavelengths=(3.0, 6.0), gabor_orientations=2, gabor_size=7, width_factor=0.125, channels=16, null_match=False
)


def tiny_network(seed: int = 0) -> FeatureNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FeatureNetwork(TINY).eval()


def tiny_weights(seed: int = 0) -> Weights:
    return Weights(tiny_network(seed), PreprocessingConfig(working_size=48), "tiny", f"tiny-{seed}", {})


def moving_stack(
    count: int,
    shape: tuple[int, int] = (40, 40),
    shift: tuple[int, int] = (1, 0),
    scale: float = 14.0,
    seed: int = 0,
) -> FeatureStack:
    """A random texture that moves by ``shift`` positions from slice to slice: each position has one clear match."""
    generator = torch.Generator().manual_seed(seed)
    texture = torch.nn.functional.normalize(torch.randn(32, *shape, generator=generator), dim=0) * scale
    maps = torch.stack([texture.roll((shift[0] * z, shift[1] * z), (1, 2)) for z in range(count)])
    return FeatureStack(maps.half(), WorkingGrid(shape, shape, 1), np.ones(count, np.float32))


def swept(
    features: Tensor, order: Sequence[int], painted: Mapping[int, PaintedMaps], *settings: Any
) -> Iterator[tuple[int, Carried]]:
    """What one sweep brings to each slice, leg after leg."""
    for leg in legs(order, painted):
        yield from sweep(features, leg, painted, *settings)


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.asarray((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))
