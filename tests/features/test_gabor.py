from __future__ import annotations

import math

import pytest
import torch

from napari_oneseg.features.gabor import GaborBank, gabor_kernels


@pytest.mark.parametrize(("wavelengths", "orientations", "size"), [((2.0, 4.0, 8.0), 4, 15), ((3.0,), 6, 9)])
def test_zero_mean_unit_norm_and_even(wavelengths: tuple[float, ...], orientations: int, size: int) -> None:
    kernels = gabor_kernels(wavelengths, orientations, size)
    assert kernels.shape == (len(wavelengths) * orientations, 1, size, size)
    assert torch.allclose(kernels.sum((1, 2, 3)), torch.zeros(len(kernels)), atol=1e-5)
    assert torch.allclose(kernels.abs().sum((1, 2, 3)), torch.ones(len(kernels)), atol=1e-5)
    assert torch.allclose(kernels, kernels.flip((2, 3)), atol=1e-6)


def test_blind_to_brightness() -> None:
    bank = GaborBank((2.0, 4.0, 8.0), 4, 15)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 30, 24, generator=generator)
    assert torch.allclose(bank(x), bank(x + 0.7), atol=1e-5)
    assert torch.allclose(bank(torch.full((2, 1, 20, 20), 0.8)), torch.zeros(2, 12, 20, 20), atol=1e-6)


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("scale", [0, 1])
def test_each_filter_answers_most_to_its_own_waves(scale: int, k: int) -> None:
    wavelengths = (4.0, 8.0)
    bank = GaborBank(wavelengths, 4, 21)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    theta = math.pi * k / 4
    waves = torch.cos(2 * math.pi * (columns * math.cos(theta) + rows * math.sin(theta)) / wavelengths[scale])
    energy = bank(waves[None, None])[0, :, 16:48, 16:48].square().mean((1, 2))
    assert int(energy.argmax()) == 4 * scale + k


def test_channels_and_no_parameters() -> None:
    bank = GaborBank((3.0, 6.0), 5, 7)
    assert bank.channels == 10
    assert list(bank.parameters()) == []
    assert bank.state_dict() == {}
    assert bank(torch.zeros(1, 1, 5, 6)).shape == (1, 10, 5, 6)
