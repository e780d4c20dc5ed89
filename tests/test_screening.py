from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_oneseg.config import ScreeningConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.screening import checked_range, rank_slices, representatives
from napari_oneseg.screening.representative import _pooled, descriptors, representative_scores


def stack_of(vectors: np.ndarray, content: np.ndarray | None = None) -> FeatureStack:
    """A scan whose pooled features are the given vectors."""
    maps = torch.from_numpy(vectors.astype(np.float32))[:, :, None, None].repeat(1, 1, 4, 4)
    ripple = torch.tensor([1.0, -1.0]).repeat(2)  # features vary within a slice; the mean does not see it
    content = np.ones(len(vectors), np.float32) if content is None else content.astype(np.float32)
    return FeatureStack(maps + ripple, WorkingGrid((4, 4), (4, 4), 1), content)


PAPERS = ScreeningConfig(score="representative")


def random_vectors(count: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)) + 0.5


def slow_scores(vectors: np.ndarray) -> np.ndarray:
    """The paper's sum of cosine similarities (eq. 2, 3, 5 and 6), divided by the set's size."""
    out = np.zeros(len(vectors))
    for i, f in enumerate(vectors):
        for g in vectors:
            out[i] += f @ g / (np.linalg.norm(f) * np.linalg.norm(g))
    return out / len(vectors)


def test_scores_are_the_papers_sum() -> None:
    stack = stack_of(random_vectors())
    vectors = descriptors(stack)
    assert np.allclose(representative_scores(vectors), slow_scores(vectors), atol=1e-5)
    ranked = rank_slices(stack)
    assert ranked[0].index == int(slow_scores(vectors).argmax())
    assert [s.index for s in ranked] == np.argsort(-slow_scores(vectors)).tolist()
    assert [s.score for s in ranked] == sorted((s.score for s in ranked), reverse=True)


def test_a_range_is_a_set_of_its_own() -> None:
    stack = stack_of(random_vectors())
    ranked = rank_slices(stack, (4, 9), PAPERS)
    expected = slow_scores(descriptors(stack)[4:10])
    assert [s.index for s in ranked] == (4 + np.argsort(-expected)).tolist()
    assert ranked[0].score == pytest.approx(expected.max(), abs=1e-5)
    assert [s.index for s in rank_slices(stack, (3, 3))] == [3]


def test_background_is_never_suggested_and_does_not_count() -> None:
    content = np.where(np.arange(10) < 4, 0.1, 1.0)
    stack = stack_of(random_vectors(10), content)
    ranked = rank_slices(stack, config=ScreeningConfig(min_content=0.15))
    assert sorted(s.index for s in ranked) == [4, 5, 6, 7, 8, 9]
    assert ranked[0].score == pytest.approx(slow_scores(descriptors(stack)[4:]).max(), abs=1e-5)
    assert len(rank_slices(stack, config=ScreeningConfig(min_content=0.05))) == 10


def test_a_range_of_background_is_refused() -> None:
    content = np.where(np.arange(10) < 4, 0.0, 1.0)
    with pytest.raises(InputError, match="Slices 0 to 3 show only background"):
        rank_slices(stack_of(random_vectors(10), content), (0, 3))


@pytest.mark.parametrize("wrong", [(-1, 3), (5, 4), (0, 10), (10, 10)])
def test_ranges_that_do_not_fit(wrong: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="0 <= FIRST <= LAST <= 9"):
        checked_range(wrong, 10)


def test_ranges_that_fit() -> None:
    assert checked_range(None, 10) == (0, 9)
    assert checked_range((0, 9), 10) == (0, 9)


def clustered(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    belongs = np.repeat(np.arange(len(sizes)), sizes)
    return 5 * np.eye(6)[belongs] + rng.normal(0, 0.1, (len(belongs), 6)), belongs


def test_one_representative_per_cluster() -> None:
    vectors, belongs = clustered((7, 4, 9))
    stack = stack_of(vectors)
    chosen = representatives(stack, ScreeningConfig(clusters=3))
    assert chosen == sorted(chosen)
    assert [int(belongs[index]) for index in chosen] == [0, 1, 2]
    for index in chosen:
        members = np.flatnonzero(belongs == belongs[index])
        assert index == members[slow_scores(descriptors(stack)[members]).argmax()]
    assert representatives(stack, ScreeningConfig(clusters=3)) == chosen


def test_fewer_different_slices_than_clusters() -> None:
    assert representatives(stack_of(random_vectors(4)), ScreeningConfig(clusters=6)) == [0, 1, 2, 3]
    twice = np.repeat(random_vectors(3), 4, axis=0)
    assert len(representatives(stack_of(twice), ScreeningConfig(clusters=6))) == 3
    assert len(representatives(stack_of(np.ones((5, 6))), ScreeningConfig(clusters=2))) == 1


def test_background_represents_nothing() -> None:
    content = np.where(np.arange(12) % 2, 1.0, 0.0)
    chosen = representatives(stack_of(random_vectors(12), content), ScreeningConfig(clusters=4))
    assert len(chosen) == 4
    assert all(index % 2 for index in chosen)


@pytest.mark.parametrize("shape", [(8, 12), (8, 10), (7, 9)])
def test_fields_are_means(shape: tuple[int, int]) -> None:
    features = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).half()
    expected = torch.nn.functional.adaptive_avg_pool2d(features.float(), 4)
    torch.testing.assert_close(_pooled(features), expected, atol=1e-6, rtol=1e-5)
