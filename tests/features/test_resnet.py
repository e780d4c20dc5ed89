from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_oneseg.config import FeatureConfig
from napari_oneseg.features.resnet import BasicBlock, FeatureNetwork
from tests.engine_fixtures import TINY, tiny_network


@pytest.mark.parametrize("strides", [(2, 1, 2, 1, 2), (1, 1, 1, 1, 1), (2, 2, 1, 1, 1), (2, 1, 1, 1, 1)])
def test_features_come_at_the_configured_stride(strides: tuple[int, ...]) -> None:
    config = FeatureConfig.from_dict({**TINY.to_dict(), "strides": list(strides)})
    features = FeatureNetwork(config).eval()(torch.zeros(2, 1, 32, 48))
    assert features.shape == (2, TINY.channels, 32 // config.stride, 48 // config.stride)
    assert config.stride == strides[0] * strides[1]


def test_it_is_a_resnet_18() -> None:
    network = FeatureNetwork(TINY)
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock)]
    assert len(blocks) == 8
    assert len(network.stages) == 4
    widths = [stage[0].conv1.out_channels for stage in network.stages]
    assert widths == [8, 16, 32, 64]


def test_raw_brightness_does_not_reach_the_features() -> None:
    network = tiny_network()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 32, 32, generator=generator) - 0.5
    assert torch.allclose(network(x), network(x + 0.3), atol=1e-4)
    assert not torch.allclose(network(x), network(x.flip(2)), atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    network = tiny_network().train()
    generator = torch.Generator().manual_seed(0)
    network(torch.rand(2, 1, 32, 32, generator=generator)).square().sum().backward()
    for name, parameter in network.named_parameters():
        if name == "null_bias":  # used between two slices, not on one: see tests/training/test_train.py
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@torch.no_grad()
def test_the_null_match_weighs_more_between_distant_slices() -> None:
    network = FeatureNetwork(replace(TINY, null_match=True))
    near, far = float(network.null_bias_at(1.0)), float(network.null_bias_at(8.0))
    assert near < float(network.null_bias_at(4.0)) == 0.0 < far
    assert float(network.null_bias_at(0.01)) == near, "beyond what it learned from, the bias stays as it is"
    assert tuple(network.null_bias_at(torch.ones(3, 1)).shape) == (3, 1)
    assert tiny_network().null_bias_at(2.0) is None
