from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_oneseg.config import AnatomyConfig, PropagationConfig, RefiningConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.part_classifier import find_parts
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.training import refine
from napari_oneseg.training.losses import part_loss, run_on_loss
from napari_oneseg.training.refine import rollout_loss, teach_refiner
from napari_oneseg.training.rollouts import rollout_batch
from napari_oneseg.training.sequences import SequenceBatch
from napari_oneseg.training.train import new_network
from tests.engine_fixtures import TINY

ANATOMY = AnatomyConfig(slices=6, size=48, regions=(3, 5), organs=(2, 3), vessels=(0, 1))
CONFIG = RefiningConfig(steps=2, batch=2, per_volume=2, steps_along=(2, 3), slices=6, objects=2, crop=48)
WINDOW = PropagationConfig(window=7)


def network(seed: int = 0) -> FeatureNetwork:
    return new_network(
        replace(TINY, refine=True, null_match=True, region_scales=(5.0, 50.0), classify_parts=True), seed
    )


def fixed_batch(seed: int = 1) -> SequenceBatch:
    return rollout_batch(torch.Generator().manual_seed(seed), 2, CONFIG, ANATOMY, (5.0, 50.0))


def test_the_loss_falls_and_the_features_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refine, "rollout_batch", lambda *_: fixed_batch())
    taught, before = network(), network().state_dict()
    losses = teach_refiner(taught, replace(CONFIG, steps=25, learning_rate=5e-3), ANATOMY, WINDOW)
    assert np.mean(losses[-3:]) < 0.85 * losses[0]
    changed = [key for key, value in taught.state_dict().items() if not torch.equal(value, before[key])]
    assert changed
    assert all(key.startswith("refiner.") for key in changed)
    assert not taught.training


def test_the_same_seed_gives_the_same_refiner() -> None:
    first, again = network(), network()
    assert teach_refiner(first, CONFIG, ANATOMY, WINDOW) == teach_refiner(again, CONFIG, ANATOMY, WINDOW)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())


def test_the_gradient_reaches_the_whole_refiner_through_the_run() -> None:
    learner = network().eval()
    assert learner.refiner is not None
    torch.nn.init.normal_(learner.refiner.out.weight, std=0.1)
    assert learner.refiner.part_classifier is not None
    torch.nn.init.normal_(learner.refiner.part_classifier.out.weight, std=0.1)
    batch = fixed_batch()
    rollout_loss(learner, learner.refiner, batch, WINDOW.window).backward()
    for name, parameter in learner.named_parameters():
        if name.startswith("refiner."):
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name
        else:
            assert parameter.grad is None, name


def test_without_a_correction_it_is_the_loss_of_plain_copies() -> None:
    learner = network().eval()
    assert learner.refiner is not None
    batch = fixed_batch()
    with torch.no_grad():
        untaught = rollout_loss(learner, learner.refiner, batch, WINDOW.window)
        learner.refiner.out.bias.fill_(-12.0)  # every label is taken away at once
        empty = rollout_loss(learner, learner.refiner, batch, WINDOW.window)
    assert float(empty) > float(untaught)


def test_running_on_is_punished() -> None:
    painted = torch.zeros(1, 2, 8, 8)
    painted[:, :, 2:6, 2:6] = 1.0
    gone = torch.zeros_like(painted)
    assert float(run_on_loss(painted, painted, painted)) == 0.0
    assert float(run_on_loss(gone, gone, painted)) == 0.0
    half = painted.clone()
    half[:, 1] = 0.0
    full = float(run_on_loss(painted, gone, painted))
    assert 0.1 < float(run_on_loss(half, gone, painted)) < full < 0.5
    unpainted = torch.zeros_like(painted)
    assert float(run_on_loss(painted, gone, unpainted)) == 0.0, "what was never painted is no label"


def test_a_network_without_a_refiner_or_runs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="refine"):
        teach_refiner(new_network(TINY, 0), CONFIG, ANATOMY, WINDOW)
    with pytest.raises(InputError, match="slices"):
        teach_refiner(network(), replace(CONFIG, slices=3), ANATOMY, WINDOW)


def test_a_run_is_cut_for_the_gradient_but_goes_on() -> None:
    learner = network().eval()
    assert learner.refiner is not None
    torch.nn.init.normal_(learner.refiner.out.weight, std=0.1)
    batch = fixed_batch()
    losses, gradients = [], []
    for steps in (1, 12):
        learner.zero_grad()
        loss = rollout_loss(learner, learner.refiner, batch, WINDOW.window, gradient_steps=steps)
        loss.backward()
        losses.append(float(loss.detach()))
        weight = learner.refiner.first.weight
        assert weight.grad is not None
        gradients.append(weight.grad.clone())
    assert losses[0] == losses[1]
    assert not torch.allclose(gradients[0], gradients[1])


def test_parts_are_judged_by_what_is_true_of_them() -> None:
    labels = torch.zeros(1, 1, 12, 20)
    labels[0, 0, 2:8, 2:8], labels[0, 0, 2:8, 12:18] = 1.0, 1.0
    parts = find_parts(labels)
    right, area = torch.tensor([1.0, 0.0]), torch.full((1, 1), 36.0)
    good, bad = (float(part_loss(torch.tensor(odds), right, parts, area)) for odds in ([3.0, -3.0], [-3.0, 3.0]))
    assert good < 0.1
    assert bad > 2.0
    undecided = torch.tensor([0.5, 0.5])
    assert float(part_loss(torch.tensor([3.0, -3.0]), undecided, parts, area)) == 0.0
