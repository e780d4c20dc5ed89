from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_oneseg.config import PropagationConfig, ScreeningConfig, SelfLearningConfig, TrainingConfig
from napari_oneseg.errors import Cancelled, InputError
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.training import examples, self_learning
from napari_oneseg.training.loop import Moment
from napari_oneseg.training.pairs import PairBatch
from napari_oneseg.training.scans import Scans, find_scans
from napari_oneseg.training.self_learning import learn_from_scans, reconstruction_loss, scan_loss
from napari_oneseg.training.state_file import StateFile
from napari_oneseg.training.train import TrainingResult
from tests.engine_fixtures import TINY, tiny_network
from tests.training.scan_fixtures import SMALL, make_scan, open_scans, scan_folder

CONFIG = SelfLearningConfig(epochs=2, epoch_steps=3, learning_rate=1e-3)
WINDOW = PropagationConfig(window=5)


def learn(config: SelfLearningConfig = CONFIG, **options: object) -> TrainingResult:
    options.setdefault("scans", open_scans())
    return learn_from_scans(
        config=config,
        features=None if "init" in options else TINY,
        sequences=TrainingConfig(batch=2, sequence=3, crop=32),
        screening=ScreeningConfig(clusters=3),
        propagation=WINDOW,
        **options,  # type: ignore[arg-type]
    )


def same(a: FeatureNetwork, b: FeatureNetwork) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[key], second[key]) for key in first)


def test_a_folder_that_does_not_fit_into_memory_teaches_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_scans(scan_folder(tmp_path / "scans", 5))
    monkeypatch.setattr(examples, "GROUP", 2)
    config = replace(CONFIG, objective="both", epoch_steps=6)
    size = open_scans(1)[0].slices.nbytes
    results = [learn(config, scans=Scans(found, TINY, SMALL, memory=memory)) for memory in (100 * size, 3 * size, 0)]
    for result in results[1:]:
        assert result.losses == results[0].losses
        assert same(result.network, results[0].network)


def small_batch(seed: int = 0) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    return PairBatch(torch.rand(2, 3, 1, 16, 16, generator=generator) * 2 - 1)


def slow_copy(query: Tensor, key: Tensor, values: Tensor, window: int) -> Tensor:
    """Paper eq. 8 and 9 as they stand: every position of one map, one after the other."""
    channels, rows, columns = query.shape
    out = torch.empty_like(values)
    for y in range(rows):
        for x in range(columns):
            ys = slice(max(0, y - window // 2), y + window // 2 + 1)
            xs = slice(max(0, x - window // 2), x + window // 2 + 1)
            near = key[:, ys, xs].reshape(channels, -1)
            weights = (query[:, y, x] @ near / channels**0.5).softmax(0)
            out[y, x] = (weights * values[ys, xs].reshape(-1)).sum()
    return out


@pytest.mark.parametrize(("true_weight", "cycle_weight"), [(0.9, 0.1), (0.5, 0.1), (1.0, 0.1), (0.7, 0.0), (1.0, 0.0)])
def test_the_loss_is_the_papers(true_weight: float, cycle_weight: float) -> None:
    network, batch = tiny_network(), small_batch()
    with torch.no_grad():
        network.head[1].weight.mul_(20.0)  # an untrained network's matches are all alike; these differ
        value = float(reconstruction_loss(network, batch, 3, true_weight, cycle_weight))
        expected = []
        for before, reference, target in batch.slices:
            features = network(torch.stack([before, reference, target]))
            # The mean of each position's pixels.
            b, r, t = (x[0].reshape(8, 2, 8, 2).mean((1, 3)) for x in (before, reference, target))
            copied = slow_copy(features[2], features[1], r, 3)
            copied_reference = slow_copy(features[1], features[0], b, 3)
            drifted = slow_copy(features[2], features[1], copied_reference, 3)
            back = slow_copy(features[1], features[2], copied, 3)
            sampled = true_weight * (t - copied).abs().mean() + (1 - true_weight) * (t - drifted).abs().mean()
            expected.append((1 - cycle_weight) * sampled + cycle_weight * (r - back).abs().mean())
    assert value == pytest.approx(float(torch.stack(expected).mean()), rel=1e-4)


def test_what_can_be_copied_costs_little() -> None:
    """Slices that are shifted copies of a texture, and features that tell each position of the texture."""

    class Told(torch.nn.Module):
        config = replace(TINY, strides=(1, 1, 1, 1, 1))

        def forward(self, slices: Tensor) -> Tensor:
            return (slices.flatten(1)[:, None] == values[None, :, None]).float().view(-1, 144, 12, 12) * 40

    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(12, 12, generator=generator) * 2 - 1
    values = texture.flatten()
    moved = PairBatch(torch.stack([texture, texture.roll(1, 0), texture.roll(2, 0)])[None, :, None])
    value = float(reconstruction_loss(Told(), moved, 3, 0.5, 0.5))  # type: ignore[arg-type]
    # Only the rows that come in at the border have no match.
    assert value < 0.15
    # A window of one position cannot follow the shift.
    assert float(reconstruction_loss(Told(), moved, 1, 0.5, 0.5)) > 3 * value  # type: ignore[arg-type]


def test_everything_learns_but_the_null_match() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FeatureNetwork(replace(TINY, null_match=True)).train()
    reconstruction_loss(network, small_batch(), 3, 0.9, 0.1).backward()
    assert network.null_bias is not None
    assert network.null_bias.grad is None
    for name, parameter in network.named_parameters():
        assert name == "null_bias" or float(parameter.grad.abs().max()) > 0, name


def test_scheduled_sampling_goes_from_the_first_weight_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []
    monkeypatch.setattr(
        self_learning,
        "reconstruction_loss",
        lambda network, batch, window, w, c: seen.append((w, c)) or torch.zeros(()),
    )
    loss = scan_loss(SelfLearningConfig(), 13)
    for share in (0.0, 0.25, 1.0):
        loss(tiny_network(), small_batch(), Moment(0, share))
    assert seen == [pytest.approx(pair) for pair in ((0.9, 0.1), (0.8, 0.1), (0.5, 0.1))]


def test_the_loss_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    # The same pairs at each step, because pairs differ more than a few steps can teach.
    batch = PairBatch(open_scans(1)[0].slices[torch.tensor([[0, 2, 4], [7, 5, 3]])][:, :, None].float())
    monkeypatch.setattr(examples, "draw_pairs", lambda *_: batch)
    config = replace(CONFIG, epochs=1, epoch_steps=20, learning_rate=3e-3, first_weight=1.0, last_weight=1.0)
    losses = learn(config).losses
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.parametrize("objective", ["reconstruction", "supervoxels", "both"])
def test_the_same_seed_gives_the_same_weights(objective: str) -> None:
    config = replace(CONFIG, objective=objective)
    first, again = learn(config), learn(config)
    assert same(first.network, again.network)
    assert first.losses == again.losses
    assert len(first.losses) == 6
    assert not first.network.training
    assert learn(replace(config, seed=1)).losses != first.losses


def test_each_part_can_be_switched_off() -> None:
    whole = learn().losses
    for change in ({"screening": False}, {"first_weight": 1.0, "last_weight": 1.0}, {"cycle_weight": 0.0}):
        assert learn(replace(CONFIG, **change)).losses != whole


def test_the_learning_rate_is_halved_after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *args: rates.append(self.param_groups[0]["lr"]) or step(self, *args)
    )
    learn()
    assert rates == pytest.approx([1e-3] * 3 + [5e-4] * 3)


def test_representatives_are_chosen_anew_in_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []
    choose = examples.representative_slices

    def watched(network: FeatureNetwork, *args: object) -> list[int]:
        asked.append(network.state_dict()["head.1.weight"].clone())
        return choose(network, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(examples, "representative_slices", watched)
    learn()
    assert len(asked) == 4, "two scans in two epochs"
    assert torch.equal(asked[0], asked[1])
    assert not torch.equal(asked[0], asked[2]), "with what has been learned by then"


def test_it_starts_from_given_weights_and_leaves_them_alone() -> None:
    init = tiny_network(5)
    before = {key: value.clone() for key, value in init.state_dict().items()}
    still = learn(replace(CONFIG, learning_rate=0.0), init=init).network.state_dict()
    moved = learn(init=init).network.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in init.state_dict().items())
    assert torch.equal(still["head.1.weight"], before["head.1.weight"])
    assert not torch.equal(moved["head.1.weight"], before["head.1.weight"])
    with pytest.raises(ValueError, match="features are those of init"):
        learn_from_scans(open_scans(), features=TINY, init=init)


def stop_after(step: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        assert total == 6
        if done == step:
            raise Cancelled("stop")

    return progress


@pytest.mark.parametrize("stopped", [2, 3, 5])
def test_a_stopped_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int) -> None:
    monkeypatch.setattr(self_learning, "StateFile", partial(StateFile, every=1))
    state, config = tmp_path / "a", replace(CONFIG, objective="both")
    with pytest.raises(Cancelled):
        learn(config, state=state, progress=stop_after(stopped))
    steps: list[int] = []
    resumed = learn(config, state=state, on_loss=lambda step, _: steps.append(step))
    whole = learn(config)
    assert steps == list(range(stopped, 6))
    assert same(resumed.network, whole.network)
    assert resumed.losses == whole.losses


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "a"
    learn(state=state)
    for change in ({"config": replace(CONFIG, batch=1)}, {"scans": open_scans(1)}, {"init": tiny_network(5)}):
        with pytest.raises(InputError, match="another training"):
            learn(**change, state=state)  # type: ignore[arg-type]


def test_files_and_opened_volumes_give_the_same(tmp_path: Path) -> None:
    folder = scan_folder(tmp_path / "scans")
    files = learn(scans=sorted(folder.iterdir()), preprocessing=SMALL)
    assert files.losses == learn(scans=[make_scan(0), make_scan(1)], preprocessing=SMALL).losses
    assert files.losses == learn().losses
