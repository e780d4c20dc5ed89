from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_oneseg.errors import InputError
from napari_oneseg.evaluation import baselines
from napari_oneseg.evaluation.baselines import (
    BASELINES,
    Method,
    contour_interpolation,
    copy_slice,
    demons,
    dis_flow,
    warp,
)
from napari_oneseg.evaluation.metrics import dice
from napari_oneseg.volume import Annotation, Volume

SHAPE = (9, 64, 72)


def disk(row: float, column: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


@pytest.fixture(scope="module")
def drifting() -> tuple[Volume, NDArray[np.uint8]]:
    """Return a scan whose two disks drift and grow from slice to slice, and its labels."""
    labels = np.zeros(SHAPE, np.uint8)
    for index in range(SHAPE[0]):
        labels[index][disk(20 + 2.5 * index, 22 + 2 * index, 9 + 0.5 * index)] = 1
        labels[index][disk(44 - 2 * index, 56, 7)] = 5
    texture = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), (0, 1, 1))
    grey = gaussian_filter(np.choose(np.minimum(labels, 2), [100.0, 160.0, 40.0]), (0, 1, 1)) + 10 * texture
    return Volume(grey.astype(np.float32), (3.0, 1.0, 1.0)), labels


def painted(labels: NDArray[np.uint8], *indices: int) -> Annotation:
    return Annotation({index: labels[index] for index in indices})


@pytest.mark.parametrize("method", [dis_flow, demons])
def test_registrations_follow_what_moves(method: Method, drifting: tuple[Volume, NDArray[np.uint8]]) -> None:
    volume, labels = drifting
    for start in (0, 4, 8):
        result = method(volume)(painted(labels, start))
        for label in (1, 5):
            assert dice(result == label, labels == label) > 0.85
    copied = copy_slice(volume)(painted(labels, 0))
    assert dice(copied == 1, labels == 1) < 0.6


@pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES)
def test_painted_slices_stay_and_nothing_else_comes_up(
    method: Method, drifting: tuple[Volume, NDArray[np.uint8]]
) -> None:
    volume, labels = drifting
    annotation = painted(labels, 2, 6)
    result = method(volume)(annotation)
    assert result.shape == SHAPE
    assert result.dtype == np.uint8
    assert set(np.unique(result)) == {0, 1, 5}
    for index in (2, 6):
        np.testing.assert_array_equal(result[index], labels[index])


@pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES)
def test_a_range_cuts_the_result_and_changes_nothing_within(
    method: Method, drifting: tuple[Volume, NDArray[np.uint8]]
) -> None:
    volume, labels = drifting
    propagate = method(volume)
    whole, within = (propagate(painted(labels, 2, 6), span) for span in (None, (1, 6)))
    np.testing.assert_array_equal(within[1:7], whole[1:7])
    assert not within[[0, 7, 8]].any()


@pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES)
def test_slices_run_along_the_slice_axis(method: Method, drifting: tuple[Volume, NDArray[np.uint8]]) -> None:
    volume, labels = drifting
    annotation = painted(labels, 2, 6)
    turned = Volume(np.moveaxis(volume.array, 0, 2), (1.0, 1.0, 3.0))
    assert turned.axis == 2
    np.testing.assert_array_equal(method(turned)(annotation), method(volume)(annotation))


def test_copy_takes_the_nearest_painted_slice(drifting: tuple[Volume, NDArray[np.uint8]]) -> None:
    volume, labels = drifting
    result = copy_slice(volume)(painted(labels, 1, 5))
    for index, source in enumerate([1, 1, 1, 1, 5, 5, 5, 5, 5]):
        np.testing.assert_array_equal(result[index], labels[source])


def test_labels_are_carried_from_where_each_is_known(drifting: tuple[Volume, NDArray[np.uint8]]) -> None:
    volume, labels = drifting
    only_five = np.where(labels[6] == 5, 5, 0).astype(np.uint8)
    result = copy_slice(volume)(Annotation({2: labels[2], 6: only_five}))
    np.testing.assert_array_equal(result[8] == 1, labels[2] == 1)  # label 1 was not looked at on slice 6
    complete = copy_slice(volume)(Annotation({2: labels[2], 6: only_five}, frozenset({6})))
    assert not (complete[4 + 1 :] == 1).any()  # here it was, and is not there


def test_chains_are_blended_by_distance(
    drifting: tuple[Volume, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, labels = drifting
    still = np.zeros((*SHAPE[1:], 2))
    propagate = baselines._chained(volume, lambda target, reference: still)  # masks stay where they are
    result = propagate(painted(np.where(labels == 1, 1, 0).astype(np.uint8), 1, 7))
    near, far = labels[1] == 1, labels[7] == 1
    np.testing.assert_array_equal(result[0] > 0, near)
    np.testing.assert_array_equal(result[3] > 0, near)  # weights 2/3 and 1/3
    np.testing.assert_array_equal(result[4] > 0, near | far)  # one half each
    np.testing.assert_array_equal(result[5] > 0, far)
    np.testing.assert_array_equal(result[8] > 0, far)


def test_each_pair_of_slices_is_registered_once(drifting: tuple[Volume, NDArray[np.uint8]]) -> None:
    volume, labels = drifting
    calls = []

    def register(target: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float64]:
        calls.append(target.shape)
        return np.zeros((*target.shape, 2))

    propagate = baselines._chained(volume, register)
    propagate(painted(labels, 4))
    assert len(calls) == SHAPE[0] - 1  # both labels share the fields
    propagate(painted(labels, 4))
    assert len(calls) == SHAPE[0] - 1


def test_large_slices_are_registered_at_half_resolution(
    drifting: tuple[Volume, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, labels = drifting
    full = demons(volume)(painted(labels, 3))
    monkeypatch.setattr(baselines, "DEMONS_MAX_SIDE", 40)
    half = demons(volume)(painted(labels, 3))
    assert (full != half).any()
    assert dice(half == 1, labels == 1) > 0.85


def test_contours_are_interpolated_between_painted_slices_only() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    for index in range(SHAPE[0]):
        labels[index][disk(30, 30, 6 + 2 * index)] = 3
    volume = Volume(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), (3.0, 1.0, 1.0))
    result = contour_interpolation(volume)(painted(labels, 1, 7))
    assert dice(result[1:8] == 3, labels[1:8] == 3) > 0.93
    assert not result[[0, 8]].any()
    alone = contour_interpolation(volume)(painted(labels, 4))
    assert np.flatnonzero(alone.any(axis=(1, 2))).tolist() == [4]


def test_itk_outlives_its_table_of_types() -> None:
    """In a process of its own, which would crash: there, as at the end of each process, the table is let go."""
    program = (
        "import gc, sys, warnings\n"
        "warnings.simplefilter('error')\n"
        "import numpy as np\n"
        "from napari_oneseg.evaluation.baselines import contour_interpolation\n"
        "from napari_oneseg.volume import Annotation, Volume\n"
        "square = np.pad(np.ones((6, 6), np.uint8), 5)\n"
        "fill = contour_interpolation(Volume(np.arange(1280.0).reshape(5, 16, 16), (1, 1, 1), slice_axis=0))\n"
        "print(int(fill(Annotation({0: square, 4: square})).sum()))\n"
        "print([sys.modules.pop(name) for name in list(sys.modules) if name.startswith('swig_runtime')] != [])\n"
        "gc.collect()\n"
        "print('alive', flush=True)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False)
    assert ran.stdout.split() == ["180", "True", "alive"], ran.stderr
    assert ran.returncode == 0


def test_warp_is_linear_and_empty_outside() -> None:
    soft = np.random.default_rng(1).random((6, 9)).astype(np.float32)
    flow = np.zeros((6, 9, 2))
    np.testing.assert_allclose(warp(soft, flow), soft, atol=1e-5)
    flow[..., 0], flow[..., 1] = 1.0, -0.25
    moved = warp(soft, flow)
    np.testing.assert_allclose(moved[2, 4], 0.75 * soft[3, 4] + 0.25 * soft[3, 3], atol=1e-5)
    np.testing.assert_allclose(moved[5], 0.0, atol=1e-5)


@pytest.mark.parametrize(("method", "module"), [(dis_flow, "cv2"), (contour_interpolation, "itk")])
def test_missing_packages_are_named(
    method: Method, module: str, drifting: tuple[Volume, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"napari-oneseg\[bench\]"):
        method(drifting[0])
