from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_oneseg.io import read_volume
from napari_oneseg.phantom import phantom
from napari_oneseg.volume import Volume
from napari_oneseg.windows import CT_WINDOWS, default_window, looks_like_ct, presets

SHAPE = (20, 40, 40)


def scan(*shares: tuple[float, float, float]) -> Volume:
    """Grey values from parts (share, mean, deviation); what is left of the scan is air."""
    rng = np.random.default_rng(0)
    array = np.full(np.prod(SHAPE), -1000.0)
    start = 0
    for share, mean, deviation in shares:
        count = round(share * array.size)
        array[start : start + count] = rng.normal(mean, deviation, count)
        start += count
    return Volume(rng.permutation(array).reshape(SHAPE).astype(np.int16))


def test_the_phantom_s_ct_and_mr() -> None:
    ct, mr = phantom(1).volume, phantom(1, "mr").volume
    assert looks_like_ct(ct)
    assert not looks_like_ct(mr)
    assert default_window(ct) == CT_WINDOWS[0]
    assert (default_window(ct).low, default_window(ct).high) == (-160, 240)
    assert default_window(mr).name == "Auto"


def test_padding_below_air_and_metal_are_still_ct() -> None:
    assert looks_like_ct(scan((0.3, 40, 30), (0.2, -3024, 0), (0.01, 3000, 0)))


def test_a_part_cut_out_of_the_body_is_ct() -> None:
    assert looks_like_ct(scan((0.8, 60, 20), (0.2, -100, 10)))


@pytest.mark.parametrize(
    "volume",
    [
        pytest.param(scan((1.0, 400, 100)), id="bright mr"),
        pytest.param(scan((1.0, 128, 40)), id="8 bits"),
        pytest.param(scan((0.5, 0, 2), (0.5, 5, 2)), id="standardised"),
        pytest.param(Volume(np.random.default_rng(0).integers(-4096, 4096, SHAPE).astype(np.int16)), id="phase"),
    ],
)
def test_what_is_no_ct(volume: Volume) -> None:
    assert not looks_like_ct(volume)
    assert [window.name for window in presets(volume)] == ["Auto", "Full range"]


def test_the_auto_window_leaves_out_background_and_the_brightest() -> None:
    array = np.zeros(SHAPE, np.uint16)
    array[5:15, 10:30, 10:30] = np.random.default_rng(0).integers(200, 800, (10, 20, 20))
    array[7, 12, 12] = 60_000
    auto, full = presets(Volume(array))
    assert 195 <= auto.low < 230
    assert 770 < auto.high <= 800
    assert (full.low, full.high) == (0, 60_000)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.05])
def test_white_is_measured_on_the_body_however_large_the_frame(share: float) -> None:
    random = np.random.default_rng(0)
    values = np.abs(random.normal(0, 8, 64_000))
    body = round(share * values.size)
    values[:body] = random.normal(300, 60, body)
    organ = slice(0, body // 50)  # 2 % of the body are brighter than the rest of it
    values[organ] = random.normal(700, 30, values[organ].size)
    auto = presets(Volume(random.permutation(values).reshape(40, 40, 40).astype(np.int16)))[0]
    assert np.mean(values[organ] >= auto.high) < 0.3
    assert auto.high < 800


@pytest.mark.parametrize("seed", [1, 3])
def test_the_window_of_the_mr_phantom_leaves_every_organ_its_texture(seed: int) -> None:
    sample = phantom(seed, "mr")
    window = default_window(sample.volume)
    for value, name in sample.names.items():
        organ = sample.volume.array[sample.labels == value]
        # Bile is the brightest of all; four fifths of it were white, and a part of the kidneys.
        assert np.mean(organ >= window.high) < (0.5 if name == "gallbladder" else 0.01), name


def test_black_and_white_always_differ() -> None:
    array = np.zeros(SHAPE, np.float32)
    array[0, 0, 0] = 1e-6
    assert all(window.high > window.low for window in presets(Volume(array)))


def test_names_are_unique() -> None:
    names = [window.name for window in presets(phantom(1).volume)]
    assert names == ["Soft tissue", "Liver", "Lung", "Bone", "Brain", "Auto", "Full range"]


@pytest.mark.parametrize(
    ("name", "is_ct"),
    [
        ("ircadb_ct/dev/images/*.nii.gz", True),
        ("chaos_mr_t2/dev/images/*.nii.gz", False),
        ("la_lge/dev/images/*.nii.gz", False),
        ("msd_hippocampus/dev/images/*.nii.gz", False),
        ("btcv_ct/dev/images/btcv_00.nii.gz", False),  # rescaled to 8 bits: no longer Hounsfield units
        ("vs_seg_dicom", False),
    ],
)
def test_real_scans(data_dir: Path, name: str, is_ct: bool) -> None:
    paths = sorted(data_dir.glob(name))
    assert paths
    for path in paths[:3]:
        volume = read_volume(path)
        assert looks_like_ct(volume) == is_ct
        window = default_window(volume)
        inside = (volume.array > window.low) & (volume.array < window.high)
        assert inside.mean() > 0.1, "a good part of the scan is neither black nor white"
