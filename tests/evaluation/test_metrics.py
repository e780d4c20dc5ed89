from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from napari_oneseg.errors import InputError
from napari_oneseg.evaluation.metrics import assd, dice, extent_dice, ravd, score_labels

SPACING = (7.7, 1.25, 0.8)
EMPTY = np.zeros((3, 4, 5), bool)
ONE = EMPTY.copy()
ONE[1, 2, 3] = True


def blob(seed: int, shape: tuple[int, int, int] = (9, 24, 20)) -> NDArray[np.bool_]:
    """Return a ragged body of some hundred voxels, in places up to the border."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), (1, 3, 3))
    return noise > np.quantile(noise, 0.85)


def surface_points(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the positions in mm of all voxels with a face neighbour outside the mask, found one by one."""
    padded = np.pad(mask, 1)
    points = []
    for i, j, k in np.argwhere(padded):
        neighbours = [(i - 1, j, k), (i + 1, j, k), (i, j - 1, k), (i, j + 1, k), (i, j, k - 1), (i, j, k + 1)]
        if not all(padded[place] for place in neighbours):
            points.append((i, j, k))
    return np.array(points, float) * spacing


def to_itk(mask: NDArray[np.bool_], spacing: tuple[float, float, float] = SPACING) -> sitk.Image:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    return image


def assd_of_simpleitk(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: tuple[float, float, float]) -> float:
    images = [to_itk(np.pad(mask, 2), spacing) for mask in (a, b)]
    # The inner contour, which LabelContour draws, is the surface; distances to it are taken outside of it.
    contours = [sitk.LabelContour(image, fullyConnected=False) for image in images]
    distances = []
    for source, target in (contours, contours[::-1]):
        distance = sitk.SignedMaurerDistanceMap(target, squaredDistance=False, useImageSpacing=True)
        chosen = sitk.GetArrayFromImage(source) > 0
        distances.append(np.maximum(sitk.GetArrayFromImage(distance)[chosen], 0))
    return float(np.concatenate(distances).mean())


@pytest.mark.parametrize("seed", range(3))
def test_overlap_agrees_with_simpleitk(seed: int) -> None:
    a, b = blob(seed), blob(seed) ^ (blob(seed + 10) & blob(seed + 20))
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(to_itk(b), to_itk(a))
    assert dice(a, b) == pytest.approx(measures.GetDiceCoefficient(1))
    # SimpleITK's volume similarity is 2 (|source| - |target|) / (|source| + |target|), here with b as the source.
    similarity = measures.GetVolumeSimilarity(1)
    assert ravd(a, b) == pytest.approx(100 * abs((2 - similarity) / (2 + similarity) - 1))
    assert ravd(a, b) > 0


def test_volume_difference_is_relative_to_the_reference() -> None:
    result, reference = EMPTY.copy(), EMPTY.copy()
    result[0, :, :2] = True  # 8 voxels
    reference[0, :, :1] = True  # 4 voxels
    assert ravd(result, reference) == 100.0
    assert ravd(reference, result) == 50.0


def test_extent_dice_leaves_out_slices_without_the_organ() -> None:
    reference = np.zeros((6, 8, 8), bool)
    reference[2:4, 2:6, 2:6] = True
    result = reference.copy()
    result[4:, 2:6, 2:6] = True  # ran on beyond the organ's end
    assert extent_dice(result, reference) == 1.0
    assert dice(result, reference) == pytest.approx(2 * 32 / (32 + 64))
    assert extent_dice(reference, result) == dice(reference, result)


@pytest.mark.parametrize("seed", range(3))
def test_surface_distance_agrees_with_all_pairs(seed: int) -> None:
    a, b = blob(seed), blob(seed + 1)
    distances = cdist(surface_points(a, SPACING), surface_points(b, SPACING))
    expected = np.concatenate([distances.min(0), distances.min(1)]).mean()
    assert assd(a, b, SPACING) == pytest.approx(expected)
    assert assd(b, a, SPACING) == pytest.approx(expected)


def test_surface_distance_agrees_with_simpleitk() -> None:
    a, b = blob(4), blob(5)
    assert assd(a, b, SPACING) == pytest.approx(assd_of_simpleitk(a, b, SPACING), rel=1e-5)


@pytest.mark.parametrize("spacing", [SPACING, (1.0, 1.0, 1.0), (0.6, 2.5, 0.9)])
@pytest.mark.parametrize("density", [0.002, 0.1, 0.7])
def test_all_metrics_agree_with_simpleitk_on_random_masks(density: float, spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(round(1000 * density))
    result, reference = rng.random((2, 8, 15, 19)) < density
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(to_itk(result, spacing), to_itk(reference, spacing))
    similarity = measures.GetVolumeSimilarity(1)
    assert dice(result, reference) == pytest.approx(measures.GetDiceCoefficient(1))
    assert ravd(result, reference) == pytest.approx(100 * abs((2 + similarity) / (2 - similarity) - 1))
    assert assd(result, reference, spacing) == pytest.approx(assd_of_simpleitk(result, reference, spacing), rel=1e-5)


def test_a_missed_organ_agrees_with_simpleitk() -> None:
    reference = blob(0)
    missed = np.zeros_like(reference)
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(to_itk(missed), to_itk(reference))
    similarity = measures.GetVolumeSimilarity(1)
    assert dice(missed, reference) == measures.GetDiceCoefficient(1) == 0
    assert ravd(missed, reference) == pytest.approx(100 * abs((2 + similarity) / (2 - similarity) - 1)) == 100


def test_surface_distance_of_shifted_plates() -> None:
    a, b = np.zeros((5, 6, 20), bool), np.zeros((5, 6, 20), bool)
    a[:, :, 4], b[:, :, 9] = True, True
    assert assd(a, b, (2.0, 2.0, 0.5)) == pytest.approx(2.5)
    assert assd(a, a, SPACING) == 0.0


def test_empty_masks_are_defined() -> None:
    assert (dice(EMPTY, EMPTY), extent_dice(EMPTY, EMPTY)) == (1, 1)
    assert (ravd(EMPTY, EMPTY), assd(EMPTY, EMPTY, SPACING)) == (0, 0)
    assert (dice(EMPTY, ONE), extent_dice(EMPTY, ONE), ravd(EMPTY, ONE)) == (0, 0, 100)
    assert (dice(ONE, EMPTY), extent_dice(ONE, EMPTY)) == (0, 0)
    assert math.isnan(ravd(ONE, EMPTY))
    assert math.isnan(assd(EMPTY, ONE, SPACING))
    assert math.isnan(assd(ONE, EMPTY, SPACING))


def test_scores_of_labels() -> None:
    reference = np.zeros((4, 6, 6), np.uint8)
    reference[1:3, 1:5, 1:3] = 7
    reference[1:3, 1:5, 3:5] = 44
    result = reference.copy()
    result[2][result[2] == 7] = 0
    half, full = score_labels(result, reference, SPACING, [7, 44])
    assert (half.label, half.dice, half.ravd) == (7, pytest.approx(2 / 3), 50.0)
    assert (full.label, full.dice, full.extent_dice, full.ravd, full.assd) == (44, 1, 1, 0, 0)


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match="share one shape"):
        dice(EMPTY, EMPTY[:2])
    with pytest.raises(InputError, match="same slice order"):
        assd(EMPTY[0], EMPTY[0], SPACING)
