from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from napari_oneseg.config import PropagationConfig
from napari_oneseg.propagation.ahead import running_ahead
from napari_oneseg.propagation.propagate import LabelledSlice, propagate, propagate_slices
from napari_oneseg.volume import Annotation
from tests.engine_fixtures import disc, moving_stack

STACK = moving_stack(9)
ANNOTATION = Annotation({index: disc((40, 40), (14 + index, 18), 6).astype(np.uint8) for index in (2, 6)})
CONFIG = PropagationConfig(window=5)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2, "torch has its threads back"
    assert not [t for t in threading.enumerate() if t.name.startswith("oneseg-sweep")], "nothing goes on"
    torch.set_num_threads(before)


def arrays(found: list[LabelledSlice]) -> np.ndarray:
    return np.stack([np.stack([result.labels, result.confidence]) for result in found])


@pytest.mark.usefixtures("two_threads")
def test_beside_each_other_both_sweeps_give_what_they_give_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    beside = propagate(STACK, ANNOTATION, config=CONFIG, progress=lambda *now: told.append(now))
    assert told == [(k, 18) for k in range(1, 19)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    after = propagate(STACK, ANNOTATION, config=CONFIG)
    monkeypatch.undo()
    assert [result.index for result in beside] == list(range(9))
    np.testing.assert_array_equal(arrays(beside), arrays(after))


@pytest.mark.usefixtures("two_threads")
def test_cancelling_and_leaving_early_stop_the_other_sweep() -> None:
    def cancel(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        propagate(STACK, ANNOTATION, config=CONFIG, progress=cancel)
    left = propagate_slices(STACK, ANNOTATION, config=CONFIG)
    next(left)
    left.close()  # type: ignore[attr-defined]  # it is a generator


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_the_thread_is_raised_where_its_items_are_taken() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("as it should")

    with running_ahead(failing()) as ahead:
        items = iter(ahead)
        assert next(items) == 1
        with pytest.raises(ValueError, match="as it should"):
            next(items)
