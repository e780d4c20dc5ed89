"""Adapting in the background: what is shown, kept, and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from napari_oneseg import scan_features
from napari_oneseg.errors import InputError
from napari_oneseg.plugin.controller import Controller
from napari_oneseg.plugin.learning import Learner
from napari_oneseg.training import compare
from tests.engine_fixtures import tiny_weights
from tests.plugin.plugin_fixtures import STACK, opened_controller, painted


class Asked:
    """Stands for the training."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.weights = tiny_weights(1)
        self.error: Exception | None = None
        self.endless = False

    def __call__(self, *given: Any, progress: Any, on_loss: Any) -> Any:
        self.calls.append(given)
        if self.error is not None:
            raise self.error
        while self.endless:
            progress(1, 4)
        for step in range(4):
            progress(step, 4)
            on_loss(step, 1.0 / (step + 1))
        return SimpleNamespace(weights=self.weights, before=0.8, after=0.85, losses=[], seconds=1.0)


class Panel:
    """Notes what it is to show."""

    def __getattr__(self, name: str) -> str:
        return name


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    monkeypatch.setattr(compare, "adapt_and_compare", asked)
    return asked


@pytest.fixture
def controller(qapp: object, asked: Asked) -> Controller:
    controller = opened_controller()
    controller.stroke({4: painted()})
    return controller


class Reopened:
    def __init__(self, controller: Controller) -> None:
        self.controller, self.weights = controller, [controller.weights]

    def reopen(self) -> None:
        self.weights.append(self.controller.weights)


@pytest.fixture
def learner(controller: Controller) -> Iterator[Learner]:
    learner = Learner(controller, Reopened(controller))  # type: ignore[arg-type]
    yield learner
    learner.close()


def shown(learner: Learner) -> dict[str, tuple[Any, ...]]:
    told: dict[str, tuple[Any, ...]] = {}
    learner.present(Panel(), lambda setter, *values: told.update({setter: values}))  # type: ignore[arg-type]
    return told


def test_learn_look_keep_and_go_back(learner: Learner, controller: Controller, asked: Asked, qtbot: QtBot) -> None:
    before = controller.weights
    learner.adapt(0.5, "")
    assert learner.steps()["adapt"].kind == "busy"
    assert shown(learner)["set_time_left"][0] == pytest.approx(30, abs=2)
    qtbot.waitUntil(lambda: learner.steps()["adapt"].kind == "attention", timeout=10_000)
    told = shown(learner)
    assert [step for step, _ in told["set_losses"][0]] == [0, 1, 2, 3]
    assert told["set_agreement"] == (0.8, 0.85)
    assert told["set_adapted"] == (True,)
    assert controller.weights is before, "nothing changes before the user says so"
    _, _, annotation, minutes, folder, _ = asked.calls[0]
    assert list(annotation.slices) == [4]
    assert (minutes, folder) == (0.5, None)
    learner.keep()
    assert controller.weights is asked.weights
    learner.revert()
    assert controller.weights is before
    assert len(learner._opener.weights) == 3, "opened anew each time"  # type: ignore[attr-defined]
    assert shown(learner)["set_adapted"] == (False,)


def test_a_folder_is_learned_from(learner: Learner, asked: Asked, qtbot: QtBot, tmp_path: Path) -> None:
    learner.adapt(1, str(tmp_path))
    qtbot.waitUntil(lambda: learner.steps()["adapt"].kind == "attention", timeout=10_000)
    assert asked.calls[0][4] == tmp_path


def test_cancelling_changes_nothing(learner: Learner, controller: Controller, asked: Asked, qtbot: QtBot) -> None:
    before = controller.weights
    asked.endless = True
    learner.adapt(1, "")
    learner.adapt(1, "")
    qtbot.waitUntil(lambda: learner.steps().get("adapt") is not None and bool(asked.calls), timeout=10_000)
    learner.cancel()
    qtbot.waitUntil(lambda: not learner.steps(), timeout=10_000)
    assert controller.weights is before
    assert len(asked.calls) == 1, "one at a time"


def test_what_cannot_be_learned_from_is_told(learner: Learner, asked: Asked, qtbot: QtBot) -> None:
    asked.error = InputError("The folder holds no scans.")
    with qtbot.waitSignal(learner.said, timeout=10_000) as told:
        learner.adapt(1, "somewhere")
    assert told.args == ["The folder holds no scans.", "error"]
    assert not learner.steps()
