"""The information bottleneck: a fixed bank of Gabor filters (paper 1.3).

The network behind it sees edges and texture, never raw grey values, so that it cannot learn to reconstruct a slice by
comparing grey values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["GaborBank", "gabor_kernels"]


def gabor_kernels(wavelengths: tuple[float, ...], orientations: int, size: int) -> Tensor:
    """Return even (cosine) Gabor kernels of zero mean and unit L1 norm.

    Parameters
    ----------
    wavelengths
        One per scale, in pixels.
    orientations
        Number of orientations, evenly spaced over half a turn.
    size
        Side of the kernels in pixels, odd.

    Returns
    -------
    Shape (scales x orientations, 1, size, size), float32, scale-major.
    """
    radius = size // 2
    rows, columns = torch.meshgrid(
        torch.arange(-radius, radius + 1.0), torch.arange(-radius, radius + 1.0), indexing="ij"
    )
    kernels = []
    for wavelength in wavelengths:
        # Half a wavelength of Gaussian width keeps about one and a half visible periods: a bandwidth near one octave.
        sigma = 0.56 * wavelength
        envelope = torch.exp(-(rows**2 + columns**2) / (2 * sigma**2))
        for k in range(orientations):
            theta = math.pi * k / orientations
            along = columns * math.cos(theta) + rows * math.sin(theta)
            kernel = envelope * torch.cos(2 * math.pi * along / wavelength)
            # The mean is removed in proportion to the envelope, so that the kernel still fades out at its border.
            kernel = kernel - envelope * (kernel.sum() / envelope.sum())
            kernels.append(kernel / kernel.abs().sum())
    return torch.stack(kernels)[:, None]


class GaborBank(nn.Module):
    """Apply :func:`gabor_kernels` to single-channel slices; the kernels are constants, not parameters."""

    kernels: Tensor

    def __init__(self, wavelengths: tuple[float, ...], orientations: int, size: int) -> None:
        super().__init__()
        # Not persistent: the configuration determines them.
        self.register_buffer("kernels", gabor_kernels(wavelengths, orientations, size), persistent=False)

    @property
    def channels(self) -> int:
        """Number of responses per pixel."""
        return int(self.kernels.shape[0])

    def forward(self, slices: Tensor) -> Tensor:
        """Map (n, 1, rows, columns) to (n, channels, rows, columns); the border is replicated."""
        radius = self.kernels.shape[-1] // 2
        padded = functional.pad(slices, (radius,) * 4, mode="replicate")
        return functional.conv2d(padded, self.kernels.to(slices.dtype))
