from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_oneseg.config import AnatomyConfig, PropagationConfig, TrainingConfig
from napari_oneseg.errors import Cancelled, InputError
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.training import train
from napari_oneseg.training.sequences import SequenceBatch, generated_batch
from napari_oneseg.training.train import TrainingResult, sequence_loss, train_on_generated
from tests.engine_fixtures import TINY, tiny_network

ANATOMY = AnatomyConfig(slices=4, size=48, regions=(3, 5), organs=(2, 3), vessels=(0, 1))
WINDOW = PropagationConfig(window=7)


def trained(steps: int = 2, seed: int = 0, rate: float = 3e-3, **options: object) -> TrainingResult:
    config = TrainingConfig(steps=steps, batch=2, sequence=3, crop=48, learning_rate=rate, foreground=0.8, seed=seed)
    return train_on_generated(config, TINY, ANATOMY, WINDOW, **options)  # type: ignore[arg-type]


def fixed_batch(seed: int = 5, batch: int = 2) -> SequenceBatch:
    config = TrainingConfig(batch=batch, sequence=3, crop=48, foreground=0.8)
    return generated_batch(torch.Generator().manual_seed(seed), 2, config, ANATOMY)


def same(a: FeatureNetwork, b: FeatureNetwork) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[key], second[key]) for key in first)


def test_the_same_seed_gives_the_same_weights() -> None:
    state = torch.get_rng_state()
    first, again, other = trained(seed=0), trained(seed=0), trained(seed=1)
    assert same(first.network, again.network)
    assert first.losses == again.losses
    assert not same(first.network, other.network)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


def test_the_loss_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    # The same batch at each step, because batches differ more in difficulty than 16 steps can teach.
    monkeypatch.setattr(train, "generated_batch", lambda *_: fixed_batch())
    result = trained(steps=16)
    assert len(result.losses) == 16
    assert np.mean(result.losses[-3:]) < 0.85 * result.losses[0]
    assert not result.network.training


def test_the_gradient_reaches_the_whole_network() -> None:
    network = FeatureNetwork(replace(TINY, null_match=True)).train()
    sequence_loss(network, fixed_batch(), 7).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    moved = [name for name, parameter in network.named_parameters() if float(parameter.grad.abs().max()) > 0]
    assert {"stem.1.weight", "head.1.weight", "laterals.3.weight", "null_bias"} <= set(moved)


def test_later_slices_are_copied_from_copies() -> None:
    """Labels of the second slice enter only as truth: they are never a reference."""
    batch = fixed_batch()
    seen: list[torch.Tensor] = []

    network = tiny_network()
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    wrong = SequenceBatch(batch.slices, batch.labels.clone(), batch.distances)
    wrong.labels[:, 1] = 0.0  # costs nothing itself then, and must not change the step from slice 1 to 2
    last = SequenceBatch(batch.slices, torch.zeros_like(batch.labels), batch.distances)
    last.labels[:, 0], last.labels[:, 2] = batch.labels[:, 0], batch.labels[:, 2]
    with torch.no_grad():
        assert torch.equal(sequence_loss(network, wrong, 7), sequence_loss(network, last, 7))
    assert seen[0].shape == (6, 1, 48, 48)


def test_progress_and_cancelling() -> None:
    calls: list[tuple[int, int]] = []
    losses: list[tuple[int, float]] = []
    result = trained(progress=lambda *c: calls.append(c), on_loss=lambda *c: losses.append(c))
    assert calls == [(1, 2), (2, 2)]
    assert losses == list(enumerate(result.losses))

    def cancel(done: int, total: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        trained(progress=cancel)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainingConfig(crop=64), "crop"),
        (TrainingConfig(crop=44), "crop"),
        (TrainingConfig(crop=48, sequence=5), "sequence"),
    ],
)
def test_sizes_that_do_not_fit_together(config: TrainingConfig, message: str) -> None:
    with pytest.raises(InputError, match=f"TrainingConfig.{message}"):
        train_on_generated(config, TINY, ANATOMY, WINDOW)
