from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from napari_oneseg.config import AdaptConfig, PropagationConfig, ScreeningConfig, TrainingConfig
from napari_oneseg.errors import Cancelled, InputError
from napari_oneseg.training import adapt as module
from napari_oneseg.training import loop
from napari_oneseg.training.adapt import adapt
from napari_oneseg.training.examples import ScanExamples
from napari_oneseg.training.loop import Moment
from napari_oneseg.training.scans import find_scans
from napari_oneseg.training.train import TrainingResult
from tests.engine_fixtures import tiny_weights
from tests.training.scan_fixtures import make_scan, scan_folder

# Of tests.engine_fixtures.tiny_weights: a network and a working grid that are quick.
START = tiny_weights()


def adapted(
    minutes: float = 0.1, objective: str = "supervoxels", rate: float = 1e-3, **options: object
) -> TrainingResult:
    return adapt(
        make_scan(),
        START,
        AdaptConfig(minutes, objective, rate),  # type: ignore[arg-type]
        TrainingConfig(batch=1, sequence=3, crop=32),
        ScreeningConfig(clusters=3),
        PropagationConfig(window=5),
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes only when a loss is computed: a second each."""
    now = [1000.0]
    scan_loss = module.scan_loss

    def slow(*args: object) -> object:
        loss = scan_loss(*args)  # type: ignore[arg-type]
        return lambda *inputs: (now.append(now.pop() + 1.0), loss(*inputs))[1]

    monkeypatch.setattr(module, "scan_loss", slow)
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("objective", ["supervoxels", "reconstruction", "both"])
def test_it_learns_for_the_time_given(clock: list[float], objective: str) -> None:
    before = {key: value.clone() for key, value in START.network.state_dict().items()}
    calls: list[tuple[int, int]] = []
    losses: list[int] = []
    result = adapted(0.1, objective, progress=lambda *c: calls.append(c), on_loss=lambda step, _: losses.append(step))
    assert calls == [(second, 6) for second in range(1, 7)]
    assert losses == list(range(6))
    assert len(result.losses) == 6
    assert not result.network.training
    after = result.network.state_dict()
    assert not torch.equal(after["head.1.weight"], before["head.1.weight"])
    assert all(torch.equal(value, before[key]) for key, value in START.network.state_dict().items())
    statistics = [key for key in before if "running" in key]
    assert statistics
    assert all(torch.equal(after[key], before[key]) for key in statistics), "it is trained as it will be used"


def test_preparations_take_their_part_of_the_time(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = module.Scans
    monkeypatch.setattr(module, "Scans", lambda *args: (clock.append(clock.pop() + 4.0), opened(*args))[1])
    assert len(adapted(0.1).losses) == 2
    assert len(adapted(0.05).losses) == 1, "there is always a step"


def test_it_can_be_cancelled(clock: list[float]) -> None:
    def cancel(done: int, total: int) -> None:
        if done == 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        adapted(progress=cancel)


def test_it_learns_from_others_too(clock: list[float], tmp_path: Path) -> None:
    folder = scan_folder(tmp_path / "scans")
    calls: list[tuple[int, int]] = []
    drawn: list[int] = []
    plain, batch = adapted(), ScanExamples.batch

    def noted(self: ScanExamples, generator: torch.Generator, step: int, content: Any) -> object:
        drawn.append(len(content))
        return batch(self, generator, step, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScanExamples, "batch", noted)
        result = adapted(others=find_scans(folder), progress=lambda *c: calls.append(c))
    assert calls == [(0, 6)] * 3 + [(second, 6) for second in range(1, 7)]
    assert set(drawn) == {3}
    assert result.losses != plain.losses

    def cancel(done: int, total: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        adapted(others=find_scans(folder), progress=cancel)


def test_the_learning_rate_rises_and_falls_with_the_time() -> None:
    rate = module._rate
    assert rate(Moment(0, 0.0)) == pytest.approx(0.05)
    assert rate(Moment(50, 0.0)) == 1.0
    assert rate(Moment(50, 0.5)) == pytest.approx(0.5)
    assert rate(Moment(50, 1.0)) == pytest.approx(0.0)


def test_the_same_number_of_steps_gives_the_same_weights(clock: list[float]) -> None:
    assert adapted().losses == adapted().losses


def test_a_precision_that_the_device_lacks(clock: list[float]) -> None:
    with pytest.raises(InputError, match="float32"):
        adapted(precision="float16")
