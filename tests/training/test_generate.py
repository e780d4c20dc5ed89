"""Generated anatomy and the training sequences cut from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from napari_oneseg.config import AnatomyConfig, TrainingConfig
from napari_oneseg.training.anatomy.bodies import Body, paint_rim
from napari_oneseg.training.anatomy.scene import Scene
from napari_oneseg.training.generate import GeneratedVolume, generate_volume
from napari_oneseg.training.sequences import SequenceBatch, generated_batch

SMALL = AnatomyConfig(slices=8, size=64)
TRAINING = TrainingConfig(batch=5, sequence=3, crop=48)
SEEDS = range(8)
LABELS = 13  # background and at most twelve


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def volume(seed: int, config: AnatomyConfig = SMALL) -> GeneratedVolume:
    return generate_volume(random(seed), config)


def batch(seed: int, training: TrainingConfig = TRAINING, stride: int = 2) -> SequenceBatch:
    return generated_batch(random(seed), stride, training, SMALL)


def presence(v: GeneratedVolume) -> Tensor:
    """Whether each slice shows each region, shape (slices, count)."""
    return torch.stack([torch.bincount(image.flatten(), minlength=v.count) > 0 for image in v.regions])


def test_generator_state_decides_everything() -> None:
    torch.manual_seed(0)
    first, torch_state = volume(3), torch.get_rng_state()
    torch.manual_seed(1)
    second = volume(3)
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.regions, second.regions)
    assert first.count == second.count
    assert not torch.equal(first.image, volume(4).image)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), torch_state)  # the global generator is left alone


def test_one_generator_gives_ever_new_volumes() -> None:
    generator = random(0)
    assert not torch.equal(generate_volume(generator, SMALL).image, generate_volume(generator, SMALL).image)


@pytest.mark.parametrize("seed", SEEDS)
def test_image_and_regions_are_sound(seed: int) -> None:
    v = volume(seed)
    assert v.image.shape == v.regions.shape == (8, 64, 64)
    assert v.image.dtype == torch.float32
    assert v.regions.dtype == torch.int64
    assert torch.isfinite(v.image).all()
    assert v.image.std() > 0.01
    assert v.regions.min() >= 0
    assert v.regions.max() < v.count
    assert len(v.regions.unique()) > 3


def test_grey_values_follow_the_regions() -> None:
    """Regions explain a good part of the image; otherwise there would be nothing to learn from."""
    explained = []
    for seed in SEEDS:
        v = volume(seed)
        flat, regions = v.image.flatten(), v.regions.flatten()
        size = torch.bincount(regions, minlength=v.count).clamp(min=1)
        mean = torch.zeros(v.count).index_add_(0, regions, flat) / size
        explained.append(float(1 - (flat - mean[regions]).var() / flat.var()))
    assert sum(explained) / len(explained) > 0.6


def test_organs_begin_and_end_between_slices() -> None:
    organs_only = replace(SMALL, regions=(1, 1), vessels=(0, 0))
    ending = []
    for seed in SEEDS:
        shown = presence(volume(seed, organs_only))
        ending.append(bool((shown.any(0) & ~(shown[0] & shown[-1])).any()))
    assert sum(ending) >= len(SEEDS) - 1


def test_thin_slices_change_less_than_thick_ones() -> None:
    def change(low: float, high: float) -> float:
        config = replace(SMALL, slices_per_size=(low, high))
        volumes = (volume(seed, config) for seed in SEEDS)
        return float(torch.stack([(v.regions[1:] != v.regions[:-1]).float().mean() for v in volumes]).mean())

    thick, middle, thin = change(0.06, 0.08), change(0.2, 0.25), change(0.8, 1.0)
    assert thick > middle + 0.02
    assert middle > thin + 0.1
    assert thin > 0.02


def test_counts_of_regions_keep_to_the_config() -> None:
    config = replace(SMALL, regions=(6, 6), organs=(0, 0), vessels=(2, 2), situations=(0, 0), bodies=0.0)
    # Six touching regions, two vessels, and up to two for skin and air.
    assert {volume(seed, config).count for seed in SEEDS} <= {8, 9, 10}


def test_batch_has_the_shapes_that_training_expects() -> None:
    b = batch(0)
    assert b.slices.shape == (5, 3, 1, 48, 48)
    assert b.labels.shape == (5, 3, LABELS, 24, 24)
    assert batch(0, stride=4).labels.shape == (5, 3, LABELS, 12, 12)
    assert b.slices.dtype == b.labels.dtype == torch.float32
    assert b.slices.min() >= -1
    assert b.slices.max() <= 1


def test_batch_is_decided_by_the_generator() -> None:
    assert torch.equal(batch(1).slices, batch(1).slices)
    assert torch.equal(batch(1).labels, batch(1).labels)
    assert not torch.equal(batch(1).slices, batch(2).slices)


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_occupancies(seed: int) -> None:
    labels = batch(seed).labels
    assert labels.min() >= 0
    torch.testing.assert_close(labels.sum(2), torch.ones_like(labels[:, :, 0]))
    assert ((labels > 0) & (labels < 1)).any()  # borders are shared at the feature grid


def test_what_the_first_slice_does_not_show_is_background() -> None:
    everything = replace(TRAINING, foreground=1.0)
    labels = torch.cat([batch(seed, everything).labels for seed in range(4)])
    on_first = labels[:, 0, 1:].sum((2, 3)) > 0
    later = labels[:, 1:, 1:].sum((1, 3, 4)) > 0
    assert not (later & ~on_first).any()
    # Where all that the first slice shows is painted, background can only be what appeared after it.
    whole = labels[:, 0, 0].sum((1, 2)) == 0
    assert whole.any()
    assert labels[whole, -1, 0].sum() > 0


def test_foreground_is_the_share_of_painted_regions() -> None:
    def painted(share: float) -> float:
        return sum(float(batch(seed, replace(TRAINING, foreground=share)).labels[:, 0, 1:].mean()) for seed in range(3))

    assert painted(0.0) == 0.0
    assert painted(0.2) < painted(0.9)


def test_labels_lie_on_the_grey_values_they_belong_to() -> None:
    """Crop, turn and mirror move slices and labels alike: labels explain the grey values of their own slice."""
    explained = []
    for seed in range(4):
        b = batch(seed, replace(TRAINING, foreground=1.0))
        grey = torch.nn.functional.avg_pool2d(b.slices.flatten(0, 1), 2)[:, 0]
        winner = b.labels.flatten(0, 1).argmax(1)
        for image, label in zip(grey, winner, strict=True):
            size = torch.bincount(label.flatten(), minlength=LABELS).clamp(min=1)
            mean = torch.zeros(LABELS).index_add_(0, label.flatten(), image.flatten()) / size
            explained.append(float(1 - (image - mean[label]).var() / image.var()))
    assert sum(explained) / len(explained) > 0.5


def test_a_body_outside_the_canvas_leaves_no_trace() -> None:
    scene = Scene(torch.Generator().manual_seed(0), AnatomyConfig())
    surface = Body((-200.0, 80.0, 80.0), 12.0, wobble=0.2).surface(scene)
    assert not surface.within(surface.uneven(scene, 2.0, 0.5)).any()
    paint_rim(scene, surface, 0.5)
    assert not scene.regions.any()
