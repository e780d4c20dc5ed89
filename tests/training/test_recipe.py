from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_oneseg.config import AnatomyConfig, RefiningConfig, TrainingConfig
from napari_oneseg.errors import Cancelled
from napari_oneseg.training import recipe, refine, train
from napari_oneseg.training.recipe import train_default, with_refiner
from napari_oneseg.training.train import new_network
from tests.engine_fixtures import TINY

ANATOMY = AnatomyConfig(slices=6, size=48, regions=(3, 5), organs=(2, 3), vessels=(0, 1))
FEATURES = TrainingConfig(steps=2, batch=2, sequence=3, crop=48)
TEACHING = RefiningConfig(steps=2, batch=2, per_volume=2, steps_along=(2, 3), slices=6, objects=2, crop=48)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network and volumes that are done in a second."""
    learn, teach = train.train_on_generated, refine.teach_refiner
    monkeypatch.setattr(recipe, "train_on_generated", lambda config, **more: learn(config, TINY, ANATOMY, None, **more))
    monkeypatch.setattr(recipe, "teach_refiner", lambda net, config, **more: teach(net, config, ANATOMY, None, **more))


def test_the_features_come_first_and_stay() -> None:
    plain, whole = train_default(FEATURES, refine=False), train_default(FEATURES, TEACHING)
    assert plain.network.refiner is None
    assert whole.network.refiner is not None
    assert whole.network.config.refine
    learned = whole.network.state_dict()
    assert all(torch.equal(value, learned[key]) for key, value in plain.network.state_dict().items())
    assert len(plain.losses) == 2
    assert len(whole.losses) == 4
    assert whole.losses[:2] == plain.losses
    untaught = with_refiner(plain.network, FEATURES.seed).state_dict()
    assert any(not torch.equal(value, learned[key]) for key, value in untaught.items())


def test_an_untaught_refiner_leaves_the_features_as_they_are() -> None:
    network = new_network(TINY, 3)
    whole = with_refiner(network, 3)
    x = torch.rand(1, 1, 48, 48)
    with torch.no_grad():
        assert torch.equal(whole(x), network.eval()(x))


def test_a_training_that_was_stopped_goes_on(tmp_path: Path) -> None:
    calls: list[str] = []

    @contextmanager
    def stage(name: str) -> Iterator[tuple[Callable[[int, int], None], None]]:
        calls.append(name)

        def progress(done: int, total: int) -> None:
            if len(calls) == 2 and done == 1:
                raise Cancelled("stop")

        yield progress, None

    state = tmp_path / "weights.training"
    with pytest.raises(Cancelled):
        train_default(FEATURES, TEACHING, state=state, stage=stage)
    assert [path.name for path in sorted(tmp_path.iterdir())][:1] == ["weights.training"]
    steps: list[str] = []

    @contextmanager
    def counting(name: str) -> Iterator[tuple[Callable[[int, int], None], None]]:
        yield (lambda *_: steps.append(name)), None

    resumed = train_default(FEATURES, TEACHING, state=state, stage=counting)
    assert set(steps) == {"Teaching the refiner"}, "what was done is not done again"
    straight = train_default(FEATURES, TEACHING)
    assert resumed.losses == straight.losses
    other = straight.network.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in resumed.network.state_dict().items())


def test_the_command_teaches_as_the_shipped_weights_were_taught() -> None:
    from napari_oneseg.cli.train import _REFINE_STEPS

    assert RefiningConfig().steps == _REFINE_STEPS


def test_a_refiner_that_was_taught_without_regions_goes_on_from_what_it_knows() -> None:
    config = replace(TINY, refine=True)
    known = new_network(config, 3).eval()
    assert known.refiner is not None
    torch.nn.init.normal_(known.refiner.out.weight, std=0.3)
    wide = with_refiner(known, 3)
    assert wide.refiner is not None
    generator = torch.Generator().manual_seed(0)
    features, grey = torch.randn(1, 16, 12, 12, generator=generator), torch.zeros(1, 1, 12, 12)
    labels = torch.rand(1, 2, 12, 12, generator=generator) / 2
    regions = torch.randint(0, 3, (1, 2, 12, 12), generator=generator)
    with torch.no_grad():
        seen = known.refiner.describe(features, grey, labels)
        given = labels, labels, labels, features, grey, grey, seen, torch.ones(1)
        further = wide.refiner.further_maps(labels, regions, labels.sum((2, 3)))
        assert torch.equal(wide.refiner(*given, further)[0], known.refiner(*given)[0])


def test_a_training_goes_on_from_given_weights() -> None:
    start = new_network(TINY, 5)
    before = {key: value.clone() for key, value in start.state_dict().items()}
    still = replace(FEATURES, learning_rate=0.0)
    went_on = train_default(still, refine=False, init=start).network.state_dict()
    anew = train_default(still, refine=False).network.state_dict()
    assert all(torch.equal(value, went_on[key]) for key, value in before.items() if key.endswith("weight"))
    assert not all(torch.equal(value, anew[key]) for key, value in before.items() if key.endswith("weight"))
    assert all(torch.equal(value, start.state_dict()[key]) for key, value in before.items()), "the start is left alone"
