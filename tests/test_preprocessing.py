from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.preprocessing import WorkingGrid, normalise, working_grid


def ct(seed: int = 0) -> NDArray[np.int16]:
    """Hounsfield units in the shares of an abdominal CT: air, fat, soft tissue of two kinds, bone."""
    random = np.random.default_rng(seed)
    parts = [(-1000, 8, 0.5), (-100, 15, 0.2), (40, 10, 0.14), (90, 10, 0.14), (800, 250, 0.02)]
    values = np.concatenate([random.normal(mean, spread, int(share * 40_000)) for mean, spread, share in parts])
    return random.permutation(values).astype(np.int16).reshape(-1, 40, 50)


# Grey values


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_the_range_is_minus_one_to_one(dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 200, (6, 20, 30)).astype(dtype)
    result = normalise(array)
    assert result.dtype == np.float32
    assert result.shape == array.shape
    assert result.min() == -1
    assert result.max() == 1


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(-2000, 4000), min_size=2, max_size=200, unique=True),
    limit=st.sampled_from([1.0, 4.0, 64.0]),
)
def test_darker_stays_darker(values: list[int], limit: float) -> None:
    result = normalise(np.sort(np.array(values, np.int16)), PreprocessingConfig(contrast_limit=limit))
    assert np.isfinite(result).all()
    assert (np.diff(result) >= 0).all()
    assert -1 <= result[0] < result[-1] <= 1


def test_one_mapping_for_the_whole_scan() -> None:
    array = ct()
    result = normalise(array)
    for value in (-1000, 40, 90):
        assert np.unique(result[array == value]).size == 1


def test_units_do_not_matter() -> None:
    array = ct().astype(np.float32)
    np.testing.assert_allclose(normalise(array * 0.25 + 1024), normalise(array), atol=0.02)


def test_outliers_do_not_matter() -> None:
    array = ct().astype(np.float32)
    spoilt = array.copy()
    spoilt.flat[:20] = 3e4
    spoilt.flat[20:40] = -3e4
    np.testing.assert_allclose(normalise(spoilt).flat[40:], normalise(array).flat[40:], atol=0.05)


def test_soft_tissue_gets_its_contrast_back() -> None:
    array = ct()
    low, high = np.percentile(array, [0.5, 99.5])
    linear = 2 * (90 - 40) / (high - low)
    values = normalise(np.concatenate([array.ravel(), np.array([40, 90], np.int16)]))
    assert values[-1] - values[-2] > 3 * linear
    # Noise in air is far below the step between the two tissues.
    assert normalise(array)[array < -900].std() < 0.35 * (values[-1] - values[-2])


def test_a_limit_of_one_is_linear() -> None:
    array = ct()
    low, high = np.percentile(array.astype(np.float32), [0.5, 99.5])
    expected = np.clip(2 * (array - low) / (high - low) - 1, -1, 1)
    np.testing.assert_allclose(normalise(array, PreprocessingConfig(contrast_limit=1.0)), expected, atol=1e-3)


def test_a_scan_that_is_nearly_all_air_keeps_what_is_in_it() -> None:
    array = np.zeros((4, 200, 200), np.uint8)
    array[2, 100, 100:110] = np.arange(20, 30)
    result = normalise(array)
    assert result[0, 0, 0] == -1
    assert (np.diff(result[2, 100, 100:110]) > 0).all()


def test_a_large_scan_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    array = ct()
    expected = normalise(array)
    monkeypatch.setattr("napari_oneseg.preprocessing._MAX_SAMPLES", array.size // 7)
    np.testing.assert_allclose(normalise(array), expected, atol=0.05)


# The working grid


@pytest.mark.parametrize(
    ("shape", "spacing", "working"),
    [
        ((256, 256), (1.0, 1.0), (256, 256)),
        ((512, 512), (0.7, 0.7), (256, 256)),
        ((256, 128), (1.0, 1.0), (256, 128)),
        ((128, 256), (2.0, 1.0), (256, 256)),
        ((100, 200), (1.0, 2.0), (64, 256)),
        ((48, 35), (1.0, 1.0), (192, 144)),  # enlarged 4 times at most
        ((10, 400), (1.0, 1.0), (8, 256)),
        ((1, 400), (1.0, 1.0), (8, 256)),
    ],
)
def test_the_aspect_ratio_is_kept(
    shape: tuple[int, int], spacing: tuple[float, float], working: tuple[int, int]
) -> None:
    grid = working_grid(shape, spacing, stride=2, multiple=8)
    assert grid.source == shape
    assert grid.working == working
    assert grid.features == (working[0] // 2, working[1] // 2)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(2, 900), st.integers(2, 900)),
    spacing=st.tuples(st.floats(0.2, 8), st.floats(0.2, 8)),
    multiple=st.sampled_from([2, 8, 16]),
)
def test_any_slice_has_a_grid(shape: tuple[int, int], spacing: tuple[float, float], multiple: int) -> None:
    config = PreprocessingConfig()
    grid = working_grid(shape, spacing, 2, multiple, config)
    assert all(side % multiple == 0 and multiple <= side <= config.working_size for side in grid.working)
    extent = np.array(shape) * spacing
    pixel = max(extent.max() / config.working_size, min(spacing) / config.max_upsampling)
    assert (
        np.abs(np.array(grid.working) - extent / pixel) <= np.maximum(multiple / 2 + 1e-6, multiple - extent / pixel)
    ).all()


def test_the_working_size_is_a_setting() -> None:
    assert working_grid((512, 256), (1.0, 1.0), 2, 8, PreprocessingConfig(working_size=128)).working == (128, 64)
    assert working_grid((20, 20), (1.0, 1.0), 2, 8, PreprocessingConfig(max_upsampling=2.0)).working == (40, 40)


# Resizing


def disc(shape: tuple[int, int], spacing: tuple[float, float], radius: float) -> torch.Tensor:
    rows, columns = ((torch.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True))
    return ((rows[:, None] ** 2 + columns**2) <= radius**2).float()[None, None]


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((512, 512), (0.7, 0.7)), ((256, 200), (1.25, 1.25)), ((48, 35), (1.0, 1.0)), ((90, 300), (2.5, 0.8))],
)
def test_a_label_comes_back(shape: tuple[int, int], spacing: tuple[float, float]) -> None:
    grid = working_grid(shape, spacing, stride=2, multiple=8)
    label = disc(shape, spacing, 0.3 * min(n * s for n, s in zip(shape, spacing, strict=True)))
    features = grid.to_features(label)
    assert tuple(features.shape[-2:]) == grid.features
    assert features.min() >= 0
    assert features.max() <= 1 + 1e-5
    assert features.mean().item() == pytest.approx(label.mean().item(), rel=0.03)
    back = grid.to_source(features) > 0.5
    assert tuple(back.shape[-2:]) == shape
    dice = 2 * (back * label).sum() / (back.sum() + label.sum())
    assert dice > 0.95


def test_a_circle_stays_a_circle() -> None:
    grid = working_grid((90, 300), (2.5, 0.8), stride=2, multiple=8)
    mask = grid.to_working(disc((90, 300), (2.5, 0.8), 60.0))[0, 0] > 0.5
    height, width = mask.any(1).sum().item(), mask.any(0).sum().item()
    assert abs(height - width) <= 3


def test_a_fine_pattern_is_averaged_not_sampled() -> None:
    stripes = torch.zeros(1, 1, 768, 768)
    stripes[..., ::2] = 1
    grid = WorkingGrid(source=(768, 768), working=(256, 256), stride=2)
    inner = grid.to_working(stripes)[..., 4:-4]
    assert (inner - 0.5).abs().max() < 0.1
