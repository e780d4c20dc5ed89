from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_oneseg.checkpoint import load_weights, save_weights
from napari_oneseg.config import FeatureConfig, PreprocessingConfig
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


def test_without_the_bottleneck_the_trunk_sees_grey_values() -> None:
    network = FeatureNetwork(replace(TINY, bottleneck=False)).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 32, 48, generator=generator) - 0.5
    features = network(x)
    assert features.shape == (1, TINY.channels, 16, 24)
    # A flat slice is all the same to the Gabor filters.
    flat = torch.full_like(x, 0.4)
    assert not torch.allclose(network(flat), network(-flat), atol=1e-4)
    assert torch.allclose(tiny_network()(flat), tiny_network()(-flat), atol=1e-4)
    assert [key for key in network.state_dict() if "gabor" in key] == []


@pytest.mark.parametrize("bottleneck", [True, False])
def test_weights_with_and_without_the_bottleneck_come_back(tmp_path: Path, bottleneck: bool) -> None:
    network = FeatureNetwork(replace(TINY, bottleneck=bottleneck)).eval()
    save_weights(tmp_path / "w", network, PreprocessingConfig(), {})
    loaded = load_weights(tmp_path / "w").network
    assert loaded.config.bottleneck is bottleneck
    x = torch.linspace(-1, 1, 32 * 32).view(1, 1, 32, 32)
    assert torch.equal(loaded(x), network(x))


def test_weights_from_before_there_was_a_choice_have_the_bottleneck(tmp_path: Path) -> None:
    network, path = tiny_network(), tmp_path / "w"
    save_weights(path, network, PreprocessingConfig(), {})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    features = json.loads(metadata["features"])
    del features["bottleneck"]
    save_file(load_file(path), path, metadata | {"features": json.dumps(features)})
    loaded = load_weights(path).network
    assert loaded.config == network.config
    x = torch.linspace(-1, 1, 32 * 32).view(1, 1, 32, 32)
    assert torch.equal(loaded(x), network(x))
    assert load_weights().network.config.bottleneck
