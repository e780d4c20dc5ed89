from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from napari_oneseg.config import PropagationConfig
from napari_oneseg.propagation.ahead import side_by_side
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
    # Upwards and downwards, seven slices each: from the first painted one to the end.
    assert told == [(k, 14) for k in range(1, 15)]
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
def test_an_error_in_a_thread_is_raised_where_its_items_are_taken() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("as it should")

    with side_by_side([failing(), failing()], 2) as items:
        assert next(items)[1] == 1
        with pytest.raises(ValueError, match="as it should"):
            list(items)


@pytest.mark.usefixtures("two_threads")
def test_at_most_so_many_are_computed_at_a_time() -> None:
    lock, running, most = threading.Lock(), 0, 0
    met = threading.Barrier(2, timeout=30)  # of each pair

    def source(number: int) -> Iterator[int]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        met.wait()
        yield from range(3)
        met.wait()
        with lock:
            running -= 1

    with side_by_side([source(number) for number in range(4)], 2) as found:
        items = list(found)
    assert most == 2
    assert sorted(items) == [(number, item) for number in range(4) for item in range(3)]
    assert [item for number, item in items if number == 3] == [0, 1, 2]


def test_one_worker_computes_what_is_asked_for_only() -> None:
    begun: list[int] = []

    def source(number: int) -> Iterator[int]:
        begun.append(number)
        yield 10 * number

    with side_by_side([source(1), source(2)], 1) as items:
        assert not begun
        assert next(items) == (0, 10)
        assert begun == [1]
        assert list(items) == [(1, 20)]
