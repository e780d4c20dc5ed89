"""The ResNet-18 trunk (He et al. 2016) with open strides: resolution is kept, dilation gives back the field of view."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_oneseg.config import FeatureConfig
from napari_oneseg.features.gabor import GaborBank
from napari_oneseg.features.refiner import LabelRefiner

__all__ = ["FeatureNetwork"]

# Offset, and slope over the logarithm of the distance between slices. The null match starts with a few percent of the
# weight, so that there is something to learn from.
_NULL_BIAS = (0.0, 2.0)
_NULL_DISTANCE = 4.0  # pixels
_NULL_DISTANCES = (1.0, 16.0)  # what the network learns from


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        out: Tensor = self.relu(y + self.shortcut(x))
        return out


class FeatureNetwork(nn.Module):
    """``f = ResNet18(Gabor(x))`` (paper eq. 1): a stem, four stages of two basic blocks, and a head.

    Without the bottleneck it is ``f = ResNet18(x)``, the paper's ablation (2.4).

    Correspondence needs resolution and context at once. Every stage therefore contributes to the features by a 1 x 1
    convolution; the coarse ones are enlarged to the first stage's grid, and a 3 x 3 convolution merges the sum.

    Parameters
    ----------
    config
        Filters, widths, strides and dilations.
    """

    def __init__(self, config: FeatureConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FeatureConfig()
        bank = GaborBank(config.gabor_wavelengths, config.gabor_orientations, config.gabor_size)
        self.gabor = bank if config.bottleneck else None
        seen = bank.channels if config.bottleneck else 1
        widths = [max(8, round(width * config.width_factor)) for width in config.widths]
        self.stem = nn.Sequential(
            nn.BatchNorm2d(seen),
            nn.Conv2d(seen, widths[0], 7, config.strides[0], padding=3, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleList()
        channels = widths[0]
        for width, stride, dilation in zip(widths, config.strides[1:], config.dilations, strict=True):
            blocks = BasicBlock(channels, width, stride, dilation), BasicBlock(width, width, 1, dilation)
            self.stages.append(nn.Sequential(*blocks))
            channels = width
        self.laterals = nn.ModuleList(nn.Conv2d(width, config.channels, 1) for width in widths)
        # Used between two slices, by the attention; learned with the features.
        self.null_bias = nn.Parameter(torch.tensor(_NULL_BIAS)) if config.null_match else None
        # Used after each copy; learned when the features are.
        self.refiner = None
        if config.refine:
            self.refiner = LabelRefiner(config.channels, config.region_scales, config.classify_parts)
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(config.channels, config.channels, 3, padding=1))

    def forward(self, slices: Tensor) -> Tensor:
        """Map normalised slices (n, 1, H, W), -1 to 1, to features (n, channels, H / stride, W / stride).

        H and W must be multiples of the coarsest stride.
        """
        seen = slices if self.gabor is None else self.gabor(slices)  # (n, 1, H, W) -> (n, scales x orientations, H, W)
        x = self.stem(seen)  # -> (n, width, H/s, W/s)
        merged: Tensor | None = None
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            y = lateral(x)
            if merged is None:
                merged = y
            elif y.shape == merged.shape:
                merged = merged + y
            else:
                merged = merged + functional.interpolate(y, merged.shape[-2:], mode="bilinear", align_corners=False)
        features: Tensor = self.head(merged)
        return features

    def null_bias_at(self, distance: Tensor | float) -> Tensor | None:
        """Return the bias of the attention's null match between slices that lie ``distance`` working pixels apart.

        The farther apart two slices are, the more of what one shows is new. A bias that knows the distance lets labels
        go where tissue ends between thick slices, and does not wear them out over hundreds of thin ones.

        Parameters
        ----------
        distance
            Distance between neighbouring slices, any shape, in working pixels.

        Returns
        -------
        Of the same shape; None if the network has no null match.
        """
        if self.null_bias is None:
            return None
        distance = torch.as_tensor(distance, dtype=self.null_bias.dtype, device=self.null_bias.device)
        relative = distance.clamp(*_NULL_DISTANCES) / _NULL_DISTANCE
        return self.null_bias[0] + self.null_bias[1] * relative.log()
