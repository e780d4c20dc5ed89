"""Batch normalisation over the batch of all processes.

A share of one or two slices says little about the mean of a batch; normalised by it, several processes would learn
something else than one. PyTorch's own module for this does not work on CPUs, so it could not be tested without GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, distributed, nn

from napari_oneseg.training.processes import Processes

__all__ = ["normalising_together"]


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes. Every process's loss depends on it, so its gradients add up too."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


@contextmanager
def normalising_together(network: nn.Module, processes: Processes) -> Iterator[None]:
    """Let a network's batch normalisation take mean and variance over all processes within the block.

    Their shares must be of equal size. What uses the statistics that it brought along goes on doing so.
    """
    if processes.alone:
        yield
        return

    def forward(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
        if not self.training:
            return type(self).forward(self, x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = _mean(values, processes)
        centred = values - mean[:, None, None]
        # In two passes: the mean of squares less the squared mean loses digits.
        variance = _mean(centred.square(), processes)
        _remember(self, mean.detach(), variance.detach(), values.numel() // len(mean) * processes.count)
        factor = (variance + self.eps).rsqrt() * self.weight
        return (centred * factor[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    modules = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in modules:
        # A method, so that a copy of the network calls the copy.
        module.forward = MethodType(forward, module)  # type: ignore[method-assign]  # of this object alone
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _mean(values: Tensor, processes: Processes) -> Tensor:
    """Return the mean of each channel of (batch, channels, rows, columns) over all processes."""
    total: Tensor = _Sum.apply(values.mean((0, 2, 3)))  # type: ignore[no-untyped-call]  # torch has no types for it
    return total / processes.count


def _remember(module: nn.BatchNorm2d, mean: Tensor, variance: Tensor, number: int) -> None:
    """Update the running statistics as batch normalisation does: of the variance, the unbiased estimate."""
    assert module.running_mean is not None  # as in all of this project
    assert module.running_var is not None
    assert module.num_batches_tracked is not None
    assert module.momentum is not None
    module.running_mean.lerp_(mean, module.momentum)
    module.running_var.lerp_(variance * number / (number - 1), module.momentum)
    module.num_batches_tracked += 1
