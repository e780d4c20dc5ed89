"""What is no tissue changes neither the mapping of what is, nor the windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.features.extractor import compute_features
from napari_oneseg.grey_values import body_values, is_padded
from napari_oneseg.io import read_volume
from napari_oneseg.phantom import phantom
from napari_oneseg.preprocessing import normalise
from napari_oneseg.volume import Volume
from napari_oneseg.windows import default_window, looks_like_ct, presets
from tests.engine_fixtures import tiny_network, tiny_weights

# Every second voxel of slices and rows, which is enough, and quick.
CT, MR = (replace(v, array=v.array[::2, ::2, ::2]) for v in (phantom(0).volume, phantom(0, "mr").volume))
ROWS, COLUMNS = np.ogrid[: CT.array.shape[1], : CT.array.shape[2]]
CORNERS = np.broadcast_to(np.hypot((ROWS - 47.5) / 48, (COLUMNS - 55.5) / 56) > 1, CT.array.shape)

Spoil = Callable[[NDArray[np.float64], np.random.Generator], None]


def filled(value: float) -> Spoil:
    def spoil(array: NDArray[np.float64], _: np.random.Generator) -> None:
        array[CORNERS] = value

    return spoil


def resampled_padding(array: NDArray[np.float64], random: np.random.Generator) -> None:
    array[CORNERS] = -2000 + random.uniform(-1e-6, 1e-6, np.count_nonzero(CORNERS))


def two_paddings(array: NDArray[np.float64], _: np.random.Generator) -> None:
    array[CORNERS] = -3024
    array[:, :2] = -32768


def metal(array: NDArray[np.float64], _: np.random.Generator) -> None:
    array[8:12, 50:60, 30:40] = 32767


def streaks(array: NDArray[np.float64], random: np.random.Generator) -> None:
    array[3:17, 50:65, 30:40] = random.uniform(8000, 30000, (14, 15, 10))


def frame_and_text(array: NDArray[np.float64], random: np.random.Generator) -> None:
    array[:, :1] = array[:, -1:] = array[:, :, :1] = array[:, :, -1:] = 16_000
    array[:, 4:10, 4:30] = np.where(random.random((6, 26)) > 0.5, 16_000, array[:, 4:10, 4:30])


def outliers(array: NDArray[np.float64], random: np.random.Generator) -> None:
    chosen = random.random(array.shape) < 0.01
    array[chosen] = random.choice([-1e6, 1e6], np.count_nonzero(chosen)) * random.uniform(0.1, 1, chosen.sum())


SPOILT = [
    filled(-2000), filled(-3024), filled(-32768), filled(-1e9), resampled_padding, two_paddings, metal, streaks,
    frame_and_text, outliers,
]  # fmt: skip


@pytest.mark.parametrize("volume", [CT, MR], ids=["ct", "mr"])
@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_no_tissue_has_no_say(volume: Volume, spoil: Spoil) -> None:
    array = volume.array.astype(np.float64)
    spoil(array, np.random.default_rng(0))
    same = array == volume.array
    difference = np.abs(normalise(array) - normalise(volume.array))[same]
    # The air in the corners is gone from the histogram: a little is left.
    assert difference.mean() < 0.04
    assert difference.max() < 0.12
    before, after = presets(volume)[-2], presets(Volume(array, volume.spacing))[-2]
    width = before.high - before.low
    assert before.name == after.name == "Auto"
    assert (after.low, after.high) == pytest.approx((before.low, before.high), abs=0.1 * width)


@pytest.mark.parametrize("value", [-2000, -3024, -32768])
def test_added_padding_changes_nothing_at_all(value: int) -> None:
    padded = np.pad(CT.array.astype(np.int32), ((0, 0), (20, 20), (28, 28)), constant_values=value)
    result = normalise(padded)
    np.testing.assert_allclose(result[:, 20:-20, 28:-28], normalise(CT.array), atol=0.01)
    assert (result[:, :20] == -1).all()
    volume = replace(CT, array=padded)
    assert looks_like_ct(volume)
    assert default_window(volume) == default_window(CT)


@pytest.mark.parametrize("value", [-1000, -1024, 4095])
def test_what_a_file_calls_padding_has_no_say_wherever_it_lies(value: int) -> None:
    padded = np.pad(CT.array, ((0, 0), (20, 20), (28, 28)), constant_values=value)
    array = CT.array.copy()
    array[array == value] += 1  # else they would be taken for padding
    padded[:, 20:-20, 28:-28] = array
    result = normalise(padded, padding=(value, value))
    np.testing.assert_allclose(result[:, 20:-20, 28:-28], normalise(array), atol=0.02)
    assert (result[:, :20] == -1).all()
    full = presets(Volume(padded, CT.spacing, padding=(value, value)))[-1]
    assert (full.low, full.high) == (array.min(), array.max())


def test_a_header_that_calls_tissue_padding_is_not_believed() -> None:
    assert is_padded(CT.array, (0, 0)) is None
    np.testing.assert_array_equal(normalise(CT.array, padding=(0, 0)), normalise(CT.array))


def test_features_know_the_padding_of_the_file() -> None:
    array = CT.array[:4].copy()
    array[CORNERS[:4]] = 3000
    plain = replace(CT, array=array)
    told = replace(plain, padding=(3000, 3000))
    assert told.content_hash == plain.content_hash
    network, config = tiny_network(), tiny_weights().preprocessing
    exact = compute_features(replace(CT, array=CT.array[:4]), network, config).maps.float()
    found, lost = (compute_features(scan, network, config).maps.float() - exact for scan in (told, plain))
    assert found.norm() < lost.norm()


@pytest.mark.parametrize("share", [0.7, 0.9, 0.97])
def test_a_mask_of_zeros_may_be_as_large_as_it_likes(share: float) -> None:
    brain = np.random.default_rng(0).gamma(4, 60, 20_000).astype(np.int16)
    masked = np.concatenate([np.zeros(int(brain.size * share / (1 - share)), np.int16), brain])
    expected = normalise(np.concatenate([np.zeros(int(brain.size * 1.5), np.int16), brain]))[-brain.size :]
    np.testing.assert_allclose(normalise(masked)[-brain.size :], expected, atol=0.02)
    assert np.ptp(normalise(masked)[-brain.size :]) > 1.5


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda a: ((a + 1024.0) / 4095).astype(np.float32), id="0 to 1"),
        pytest.param(lambda a: (a * 1e-6).astype(np.float32), id="millionths"),
        pytest.param(lambda a: a * 1e30, id="huge"),
        pytest.param(lambda a: a + 1e7, id="offset"),
        pytest.param(lambda a: (a.astype(np.int32) + 32768).astype(np.uint16), id="unsigned"),
        pytest.param(lambda a: a.astype(np.int64) + 2**40, id="large integers"),
    ],
)
def test_unit_and_offset_do_not_matter(changed: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> None:
    array = CT.array.copy()
    np.testing.assert_allclose(normalise(changed(array)), normalise(array), atol=2e-3)


@pytest.mark.parametrize(
    "values",
    [[0, 0, 0, 0, 5], [0, 1], [-32768, 0], [0] * 99 + [1], [1.0, 1.0 + 1e-12], [0] * 50 + [7] * 50, [-1e300, 1e300]],
)
def test_few_values_are_all_kept(values: list[float]) -> None:
    array = np.array(values, np.float64)
    assert set(body_values(array)) == set(values)
    assert (normalise(array).min(), normalise(array).max()) == (-1, 1)


def test_of_real_scans_next_to_nothing_is_left_out(data_dir: Path) -> None:
    paths = [path for folder in sorted(data_dir.iterdir()) for path in sorted(folder.glob("*/images/*.nii.gz"))[:2]]
    assert paths
    for path in paths:
        array = read_volume(path).array
        assert body_values(array).size >= array.size - array.size // 10_000, path.parent.parent.parent.name
