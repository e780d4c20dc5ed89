"""Features of all slices of a scan, computed once."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.device import gpu_failure, has_fast_bfloat16, is_out_of_memory
from napari_oneseg.features.refiner import Refinement
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.features.spilling import room_for
from napari_oneseg.preprocessing import WorkingGrid, normalise, working_grid
from napari_oneseg.volume import Volume

__all__ = ["FeatureStack", "compute_features", "restore_features"]

_BATCH = {"cuda": 32, "mps": 8, "cpu": 4}


@dataclass(frozen=True, eq=False)
class FeatureStack:
    """The features of a scan.

    Attributes
    ----------
    maps
        Shape (n, C, rows / s, columns / s), float16, on the computing device.
    grid
        The grids that lead from the scan's slices to the maps and back.
    content
        Contrast of each slice at coarse scale, shape (n,), float32, 0 or more: near 0 where there is only air.
    null_bias
        Bias of the attention's null match; None where the network has none.
    refinement
        What refines copied labels; None where the network has no refiner.
    """

    maps: Tensor
    grid: WorkingGrid
    content: NDArray[np.float32]
    null_bias: float | None = None
    refinement: Refinement | None = None

    def to(self, device: torch.device) -> FeatureStack:
        """Return the same features on another device."""
        refinement = None if self.refinement is None else self.refinement.to(device)
        return replace(self, maps=self.maps.to(device), refinement=refinement)

    def arrays(self) -> dict[str, Tensor]:
        """Return what takes time to compute, by name; :func:`restore_features` adds the rest."""
        arrays = {"maps": self.maps, "content": torch.from_numpy(self.content)}
        return arrays if self.refinement is None else arrays | {"grey": self.refinement.grey}


def compute_features(
    volume: Volume,
    network: FeatureNetwork,
    preprocessing: PreprocessingConfig | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStack:
    """Compute the features of every slice (paper 1.3).

    Where a GPU's memory is full, smaller batches are tried, and at last the CPU, with a warning; where it fails, the
    CPU at once.

    Parameters
    ----------
    volume
        The scan.
    network
        The trained network; on the CPU it is used as it is, on a GPU a copy of it.
    preprocessing
        Grey values and working grid; must be what the network was trained with.
    device
        Where to compute and to keep the features.
    progress
        Called with (slices done, all slices).
    """
    device = torch.device(device)
    preprocessing = preprocessing or PreprocessingConfig()
    grid = _grid(volume, network, preprocessing)
    slices = volume.to_slices(normalise(volume.array, preprocessing, volume.padding))
    batch = _BATCH[device.type]
    while True:
        try:
            return _stack(volume, grid, *_run(slices, network, grid, device, batch, progress))
        except RuntimeError as error:
            failure, full = gpu_failure(error, device), is_out_of_memory(error)
            if failure is None:
                raise
        if full and device.type == "cuda":
            torch.cuda.empty_cache()
        if full and batch > 1:
            batch //= 2
        else:
            warnings.warn(failure, stacklevel=2)
            device = torch.device("cpu")
            batch = _BATCH["cpu"]


def restore_features(
    volume: Volume,
    network: FeatureNetwork,
    preprocessing: PreprocessingConfig,
    device: torch.device,
    arrays: Mapping[str, Tensor],
) -> FeatureStack | None:
    """Put together again what :meth:`FeatureStack.arrays` has given; None if it does not fit the scan and the network.

    Parameters
    ----------
    volume, network, preprocessing, device
        As for :func:`compute_features`.
    arrays
        On the CPU.
    """
    grid = _grid(volume, network, preprocessing)
    count = volume.n_slices
    expected = {
        "maps": (torch.float16, (count, network.config.channels, *grid.features)),
        "content": (torch.float32, (count,)),
    }
    if network.refiner is not None:
        expected["grey"] = torch.float16, (count, 1, *grid.features)
    if {name: (array.dtype, tuple(array.shape)) for name, array in arrays.items()} != expected:
        return None
    network = _ready(network, device)
    grey = arrays["grey"].to(device) if "grey" in arrays else None
    return _stack(volume, grid, network, arrays["maps"].to(device), grey, arrays["content"].numpy().copy())


def _grid(volume: Volume, network: FeatureNetwork, preprocessing: PreprocessingConfig) -> WorkingGrid:
    config = network.config
    rows, columns = volume.slices.shape[1:]
    return working_grid((rows, columns), volume.in_plane_spacing, config.stride, config.coarsest_stride, preprocessing)


def _ready(network: FeatureNetwork, device: torch.device) -> FeatureNetwork:
    """Return a network on a device; one on the CPU stays there as well, so that a GPU that fails does not take it."""
    if device.type != "cpu" and next(network.parameters()).device.type == "cpu":
        network = copy.deepcopy(network)
    network = network.eval().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return network


def _stack(
    volume: Volume,
    grid: WorkingGrid,
    network: FeatureNetwork,
    maps: Tensor,
    grey: Tensor | None,
    content: NDArray[np.float32],
) -> FeatureStack:
    distance = volume.slice_spacing / grid.pixel
    bias = network.null_bias_at(distance)
    refinement = None
    if network.refiner is not None and grey is not None:
        refinement = Refinement(network.refiner, grey, distance)
    return FeatureStack(maps, grid, content, None if bias is None else float(bias.detach()), refinement)


@torch.inference_mode()
def _run(
    slices: NDArray[np.generic],
    network: FeatureNetwork,
    grid: WorkingGrid,
    device: torch.device,
    batch: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[FeatureNetwork, Tensor, Tensor, NDArray[np.float32]]:
    count = len(slices)
    # 8 x 8 pixels, of the scan's own where it was enlarged: enlarged noise is not removed by averaging working pixels.
    rows, columns = (
        min(side, 8 * max(1, round(side / source))) for side, source in zip(grid.working, grid.source, strict=True)
    )
    network = _ready(network, device)
    maps = room_for((count, network.config.channels, *grid.features), torch.float16, device)
    grey = torch.empty(count, 1, *grid.features, dtype=torch.float16, device=device)
    content = np.empty(count, np.float32)
    for first in range(0, count, batch):
        last = min(first + batch, count)
        x = torch.from_numpy(np.ascontiguousarray(slices[first:last], dtype=np.float32))[:, None]
        x = grid.to_working(x.to(device)).contiguous(memory_format=torch.channels_last)
        # Averaging removes the noise, so that a slice of noisy air counts as empty.
        content[first:last] = functional.avg_pool2d(x, (rows, columns)).flatten(1).std(1, correction=0).cpu()
        grey[first:last] = functional.avg_pool2d(x, grid.stride)
        with _shorter_floats(device):
            maps[first:last] = network(x)
        if progress is not None:
            progress(last, count)
    return network, maps, grey, content


def _shorter_floats(device: torch.device) -> torch.autocast:
    """Have the network computed in half the digits where the processor has instructions for that.

    Whatever is added up is added up in single precision, and features are stored in half precision anyway.
    """
    if device.type == "cuda":
        return torch.autocast("cuda", torch.float16)
    return torch.autocast("cpu", torch.bfloat16, enabled=device.type == "cpu" and has_fast_bfloat16())
