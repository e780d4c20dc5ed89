"""The built-in sample: deterministic, anatomically plausible, labels where the organs are."""

from __future__ import annotations

import time
import zlib
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from napari_oneseg.errors import InputError
from napari_oneseg.phantom import Modality, Phantom, phantom
from napari_oneseg.phantom_canvas import SHAPE, Canvas, Shape, smooth_noise

VOLUMES_ML = {
    "liver": (700, 2000),
    "right kidney": (90, 350),
    "left kidney": (90, 350),
    "spleen": (60, 400),
    "aorta": (25, 120),
    "gallbladder": (10, 80),
}
# Medians inside: vessels brighten the liver, cortex and medulla mix in the kidneys.
CT_VALUES = {"liver": 110, "right kidney": 150, "left kidney": 150, "spleen": 120, "aorta": 150, "gallbladder": 10}
SEEDS = (0, 1)


@cache
def made(seed: int = 0, modality: Modality = "ct") -> Phantom:
    return phantom(seed, modality)


def inside(p: Phantom, label: int) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_erosion(p.labels == label))


def test_same_seed_gives_the_same_scan_quickly() -> None:
    start = time.process_time()
    again = phantom(0)
    assert time.process_time() - start < 10  # 2 s on an idle core
    np.testing.assert_array_equal(again.volume.array, made().volume.array)
    np.testing.assert_array_equal(again.labels, made().labels)


def test_seeds_are_different_patients() -> None:
    first, second = made(0).labels, made(1).labels
    overlap = np.count_nonzero((first == second) & (first > 0)) / np.count_nonzero(first)
    assert overlap < 0.9


def test_modality_changes_the_scanner_not_the_patient() -> None:
    np.testing.assert_array_equal(made(0, "mr").labels, made(0, "ct").labels)
    assert made(0, "mr").volume.content_hash != made(0, "ct").volume.content_hash


def test_grid() -> None:
    p = made()
    assert p.volume.array.shape == p.labels.shape == SHAPE
    assert len(set(SHAPE)) == 3
    assert p.volume.spacing == (5.0, 1.6, 1.6)
    assert p.volume.axis == 0
    assert p.labels.dtype == np.uint8
    assert p.volume.array.dtype == np.int16
    assert made(0, "mr").volume.array.dtype == np.uint16
    assert set(np.unique(p.labels)) == {0, *p.names}
    corner = np.array(p.volume.origin)
    opposite = corner + p.volume.direction @ (np.subtract(SHAPE, 1) * p.volume.spacing)
    np.testing.assert_allclose(corner + opposite, 0, atol=1e-9)  # the grid is centred on the patient


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_are_whole_and_of_a_plausible_size(seed: int) -> None:
    p = made(seed)
    for label, name in p.names.items():
        organ = p.labels == label
        parts, _ = ndimage.label(organ)
        assert np.bincount(parts.ravel())[1:].max() > 0.95 * organ.sum(), name
        low, high = VOLUMES_ML[name]
        assert low < organ.sum() * p.volume.voxel_ml < high, name
        shown = np.flatnonzero(organ.any(axis=(1, 2)))
        assert len(shown) >= (3 if name == "gallbladder" else 5), name
        assert shown[-1] - shown[0] + 1 == len(shown), f"{name} is interrupted"
        assert len(shown) < SHAPE[0], f"{name} neither begins nor ends"


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_where_they_should(seed: int) -> None:
    p = made(seed)
    at = {name: ndimage.center_of_mass(p.labels == label) for label, name in p.names.items()}
    middle = (SHAPE[2] - 1) / 2
    for name in ("liver", "right kidney", "gallbladder"):  # low x: the patient's right
        assert at[name][2] < middle - 15, name
    for name in ("left kidney", "spleen"):
        assert at[name][2] > middle + 15, name
    assert abs(at["aorta"][2] - middle) < 15
    assert at["gallbladder"][1] < at["right kidney"][1]  # in front of it: low y
    assert at["right kidney"][0] < at["liver"][0]  # below it: low z
    liver = p.labels == 1
    assert liver[30:].sum() > liver[:10].sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_ct_shows_hounsfield_units(seed: int) -> None:
    p = made(seed)
    for label, name in p.names.items():
        tolerance = 25 if "kidney" in name else 8
        assert abs(np.median(p.volume.array[inside(p, label)]) - CT_VALUES[name]) < tolerance, name
    assert abs(np.median(p.volume.array[:, :4]) + 1000) < 10
    assert p.volume.array.max() > 400  # bone


def test_noise_has_the_strength_and_grain_of_a_ct() -> None:
    p = made()
    values = p.volume.array.astype(np.float64)
    core = ndimage.binary_erosion(p.labels == 1, iterations=3) & (np.abs(values - 110) < 50)  # hardly any vessels
    assert 10 < values[core].std() < 17
    pairs = core & np.roll(core, 1, axis=2)
    assert np.corrcoef(values[pairs], np.roll(values, 1, axis=2)[pairs])[0, 1] > 0.4


def test_mr_shows_fluid_bright_and_vessels_dark() -> None:
    p = made(0, "mr")
    median = {name: np.median(p.volume.array[inside(p, label)]) for label, name in p.names.items()}
    assert median["gallbladder"] > median["right kidney"] > median["liver"] > 2 * median["aorta"]
    assert median["spleen"] > 1.4 * median["liver"]


@pytest.mark.parametrize(("seed", "modality"), [(0, "ct"), (1, "ct"), (0, "mr")])
def test_only_air_around_the_body(seed: int, modality: Modality) -> None:
    """A rim of two pixels is free: the body is whole in the picture."""
    p = made(seed, modality)
    rim = np.ones(SHAPE, bool)
    rim[:, 2:-2, 2:-2] = False
    assert not p.labels[rim].any()
    assert p.volume.array[rim].max() < (-900 if modality == "ct" else 100)


def test_slices_change_but_not_abruptly() -> None:
    labels = made().labels
    for lower, upper in pairwise(labels):
        both = (lower > 0) & (upper > 0)
        shown = np.count_nonzero(lower) + np.count_nonzero(upper)
        if shown > 4000:
            assert 0.75 < 2 * np.count_nonzero(both) / shown < 0.995


def test_scan_stays_small_when_packed() -> None:
    assert len(zlib.compress(made().volume.array.tobytes(), 6)) < 3_000_000
    assert len(zlib.compress(made().labels.tobytes(), 6)) < 100_000


def test_errors_say_what_to_do() -> None:
    with pytest.raises(InputError, match="ct, mr"):
        phantom(0, "pet")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 or more"):
        phantom(-1)


# The canvas -----------------------------------------------------------------------------------------------------------


def canvas() -> Canvas:
    return Canvas(np.random.default_rng(0), {"air": 0.0, "thing": 100.0, "other": 50.0, "fat": -10.0}, 1.0)


def test_ellipsoid_has_its_volume_and_its_depth_in_mm() -> None:
    c = canvas()
    shape = c.ellipsoid((100, 10, -20), (30, 20, 40))
    c.paint(shape, "thing", 1)
    voxel = 1.6 * 1.6 * 5 / 3
    assert (c.labels == 1).sum() * voxel == pytest.approx(4 / 3 * np.pi * 30 * 20 * 40, rel=0.02)
    assert shape.depth.max() == pytest.approx(30, abs=10)
    np.testing.assert_allclose(shape.grown(3.0).depth - shape.depth, 3.0, atol=1e-4)


def test_tube_runs_through_its_ends_with_its_radius() -> None:
    c = canvas()
    c.paint(c.tube([(20, 0, 0, 8), (180, 0, 0, 8)]), "thing", 1)
    area = (c.labels == 1)[40:80].sum(axis=(1, 2)) * 1.6 * 1.6
    np.testing.assert_allclose(area, np.pi * 64, rtol=0.1)
    shown = c.z[(c.labels == 1).any(axis=(1, 2))]
    assert shown.min() == pytest.approx(12, abs=2)
    assert shown.max() == pytest.approx(188, abs=2)


def test_paint_mixes_at_borders_and_keeps_to_its_room() -> None:
    c = canvas()
    shape = c.ellipsoid((100, 0, 0), (30, 30, 30))
    c.paint(shape, "thing", 1)
    assert set(np.unique(c.labels)) == {0, 1}
    mixed = (c.image > 5) & (c.image < 95)
    assert 0 < mixed.sum() < (c.labels == 1).sum()
    c.paint(shape, "other", 2, within=3)
    assert not (c.labels == 2).any()
    c.room = np.where(c.x[None, None] > 0, 50, -50).astype(np.float32) + np.zeros_like(c.room)
    c.paint(shape, "other", 2)
    assert (c.labels[..., c.x > 0] != 1).all()
    assert (c.labels[..., c.x < 0] != 2).all()


def test_cut_is_the_intersection() -> None:
    c = canvas()
    shape = c.ellipsoid((100, 0, 0), (30, 30, 30))
    half = shape.cut(np.full_like(shape.depth, -1.0))
    assert isinstance(half, Shape)
    assert half.depth.max() == -1.0


def test_smooth_noise_has_unit_variance_and_its_scale() -> None:
    axes = [np.arange(60, dtype=np.float32)] * 3
    field = smooth_noise(np.random.default_rng(1), axes, (6.0, 6.0, 6.0))
    assert field.shape == (60, 60, 60)
    assert field.std() == pytest.approx(1.0, abs=0.15)
    assert np.abs(np.diff(field, axis=1)).max() < 1.0
    assert abs(np.corrcoef(field[:, :30].ravel(), field[:, 30:].ravel())[0, 1]) < 0.2
