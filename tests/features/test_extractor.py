from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.errors import Cancelled
from napari_oneseg.features import extractor, spilling
from napari_oneseg.features.extractor import compute_features
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.screening import rank_slices
from napari_oneseg.volume import Volume
from tests.engine_fixtures import TINY, disc, tiny_network

CONFIG = PreprocessingConfig(working_size=48)


def scan(shape: tuple[int, int, int] = (7, 40, 40), spacing: tuple[float, float, float] = (3.0, 1.0, 1.0)) -> Volume:
    rng = np.random.default_rng(0)
    blurred = torch.from_numpy(rng.normal(size=(1, 1, *shape)))
    for _ in range(3):
        blurred = torch.nn.functional.avg_pool3d(blurred, 3, 1, 1)
    return Volume(blurred[0, 0].numpy().astype(np.float32) * 500, spacing)


def test_shape_type_and_progress() -> None:
    calls: list[tuple[int, int]] = []
    stack = compute_features(scan(), tiny_network(), CONFIG, progress=lambda *c: calls.append(c))
    assert stack.maps.shape == (7, TINY.channels, 24, 24)
    assert stack.maps.dtype == torch.float16
    assert stack.content.shape == (7,)
    assert torch.isfinite(stack.maps).all()
    assert calls[-1] == (7, 7)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_the_batch_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = []
    for batch in (1, 3, 7, 50):
        monkeypatch.setitem(extractor._BATCH, "cpu", batch)
        stacks.append(compute_features(scan(), tiny_network(), CONFIG))
    for stack in stacks[1:]:
        assert torch.allclose(stack.maps.float(), stacks[0].maps.float(), atol=1e-3)
        assert np.allclose(stack.content, stacks[0].content, atol=1e-5)


def test_a_slice_has_its_own_features_whatever_the_axis() -> None:
    """The same scan with its slices along another axis gives the same features."""
    first = scan()
    turned = Volume(np.moveaxis(first.array, 0, 2).copy(), (1.0, 1.0, 3.0), slice_axis=2)
    a, b = (compute_features(volume, tiny_network(), CONFIG) for volume in (first, turned))
    assert torch.allclose(a.maps.float(), b.maps.float(), atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "spacing", "working"),
    [
        ((3, 40, 40), (3.0, 1.0, 1.0), (48, 48)),
        ((3, 20, 40), (3.0, 1.0, 1.0), (24, 48)),
        ((3, 20, 40), (5.0, 2.0, 1.0), (48, 48)),
        ((3, 96, 33), (3.0, 1.0, 1.0), (48, 16)),
        ((3, 200, 10), (3.0, 1.0, 1.0), (48, 8)),
    ],
)
def test_rectangular_slices_and_pixels(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], working: tuple[int, int]
) -> None:
    stack = compute_features(scan(shape, spacing), tiny_network(), CONFIG)
    assert stack.grid.working == working
    assert stack.grid.source == shape[1:]
    assert tuple(stack.maps.shape[2:]) == stack.grid.features == (working[0] // 2, working[1] // 2)
    assert stack.content.shape == (3,)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64])
def test_any_grey_value_type(dtype: type) -> None:
    array = (np.clip(scan().array, -100, 100) + 100).astype(dtype)
    assert torch.isfinite(compute_features(Volume(array), tiny_network(), CONFIG).maps).all()


@pytest.mark.parametrize("size", [40, 64, 160])
@pytest.mark.parametrize("working", [64, 192])
def test_noisy_air_is_empty_and_never_suggested(size: int, working: int) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(0, 20, (10, size, size))
    for z in range(3, 7):
        array[z][disc((size, size), (size / 2, size / 2), 0.35 * size)] += 400
        array[z][disc((size, size), (size / 2, size / 2 + z), 0.15 * size)] += 300
    stack = compute_features(Volume(array), tiny_network(), PreprocessingConfig(working_size=working))
    air = [0, 1, 2, 7, 8, 9]
    assert stack.content[air].max() < 0.1 * stack.content[3:7].min()
    assert sorted(suggestion.index for suggestion in rank_slices(stack)) == [3, 4, 5, 6]


def test_cancelled_by_progress() -> None:
    def cancel(done: int, total: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        compute_features(scan(), tiny_network(), CONFIG, progress=cancel)


class FakeGpu:
    """Stands in for the computation on a GPU that takes at most ``fits`` slices at once."""

    def __init__(self, fits: int, error: RuntimeError) -> None:
        self.fits, self.error = fits, error
        self.tried: list[tuple[str, int]] = []
        self.real = extractor._run

    def __call__(self, slices, network, grid, device, batch, progress):  # type: ignore[no-untyped-def]
        self.tried.append((device.type, batch))
        if device.type != "cpu" and batch > self.fits:
            raise self.error
        return self.real(slices, network, grid, torch.device("cpu"), batch, progress)


def test_a_full_gpu_takes_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(8, torch.OutOfMemoryError("full"))
    monkeypatch.setattr(extractor, "_run", gpu)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack = compute_features(scan(), tiny_network(), CONFIG, device="cuda")
    assert gpu.tried == [("cuda", 32), ("cuda", 16), ("cuda", 8)]
    assert len(stack.maps) == 7


def test_and_at_last_the_cpu_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(0, RuntimeError("MPS backend out of memory"))
    monkeypatch.setattr(extractor, "_run", gpu)
    with pytest.warns(UserWarning, match="memory of mps is full"):
        stack = compute_features(scan(), tiny_network(), CONFIG, device="mps")
    assert gpu.tried == [("mps", 8), ("mps", 4), ("mps", 2), ("mps", 1), ("cpu", 4)]
    assert stack.maps.device.type == "cpu"


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(0, RuntimeError("a defect"))
    monkeypatch.setattr(extractor, "_run", gpu)
    with pytest.raises(RuntimeError, match="a defect"):
        compute_features(scan(), tiny_network(), CONFIG, device="cuda")
    assert len(gpu.tried) == 1


def test_the_null_match_knows_the_distance_between_slices_in_working_pixels() -> None:
    network = FeatureNetwork(replace(TINY, null_match=True))
    for spacing in ((3.0, 1.0, 1.0), (6.0, 1.0, 1.0), (3.0, 0.5, 0.5)):
        volume = scan(spacing=spacing)
        pixel = 40 * spacing[1] / CONFIG.working_size
        with torch.no_grad():
            expected = float(network.null_bias_at(spacing[0] / pixel))
        assert compute_features(volume, network, CONFIG).null_bias == pytest.approx(expected)
    assert compute_features(scan(), tiny_network(), CONFIG).null_bias is None


def test_features_of_a_large_scan_are_the_same_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = compute_features(scan(), tiny_network(), CONFIG)
    monkeypatch.setattr(spilling.platformdirs, "user_cache_path", lambda *_, **__: tmp_path)
    monkeypatch.setattr(extractor, "room_for", partial(spilling.room_for, in_memory=0))
    in_file = compute_features(scan(), tiny_network(), CONFIG)
    assert in_file.maps.untyped_storage().is_shared()
    assert torch.equal(in_memory.maps, in_file.maps)


def test_shorter_floats_change_the_features_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor, "has_fast_bfloat16", lambda: False)
    exact = compute_features(scan(), tiny_network(), CONFIG).maps.float()
    monkeypatch.setattr(extractor, "has_fast_bfloat16", lambda: True)
    shorter = compute_features(scan(), tiny_network(), CONFIG).maps.float()
    difference = (shorter - exact).norm() / exact.norm()
    assert 0 < difference < 0.05
