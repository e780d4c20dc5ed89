from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_oneseg.checkpoint import load_weights, save_weights
from napari_oneseg.config import PropagationConfig
from napari_oneseg.errors import Cancelled, InputError
from napari_oneseg.features.extractor import FeatureStack, compute_features
from napari_oneseg.propagation.propagate import propagate
from napari_oneseg.training import adapt as adapt_module
from napari_oneseg.training import compare, loop
from napari_oneseg.training.compare import Adapted, adapt_and_compare, agreement
from napari_oneseg.volume import Annotation, Volume
from tests.engine_fixtures import dice, disc, moving_stack, tiny_weights
from tests.training.scan_fixtures import make_scan, scan_folder

CONFIG = PropagationConfig(window=5)
SHAPE = (40, 40)
MOVING = moving_stack(9, SHAPE, shift=(1, 0))
START = tiny_weights()
SCAN = make_scan()


def discs(index: int, *labels: int) -> NDArray[np.uint8]:
    """What moves with the texture of MOVING."""
    image = np.zeros(SHAPE, np.uint8)
    for label in labels:
        image[disc(SHAPE, (12 + index, 10 * label), 4)] = label
    return image


# Agreement -------------------------------------------------------------------------------------------------------


def test_features_that_explain_everything() -> None:
    annotation = Annotation({index: discs(index, 1, 2) for index in (1, 4, 7)})
    assert agreement(MOVING, annotation, CONFIG) == pytest.approx(1.0, abs=0.02)
    # A slice on which something else was painted counts against them.
    wrong = Annotation({**annotation.slices, 4: discs(0, 1, 2)})
    score = agreement(MOVING, wrong, CONFIG)
    assert score is not None
    assert score < 0.8


def test_features_that_explain_nothing() -> None:
    other = moving_stack(9, SHAPE, shift=(-2, 2))
    annotation = Annotation({index: discs(index, 1, 2) for index in (1, 4, 7)})
    score = agreement(other, annotation, CONFIG)
    assert score is not None
    assert score < 0.6


def test_it_is_the_mean_over_slices_and_labels() -> None:
    """As propagating through the whole scan from all other slices gives it."""
    stack = moving_stack(9, SHAPE, shift=(1, 0), scale=7.0)
    annotation = Annotation({1: discs(2, 1, 2), 3: discs(3, 1), 6: discs(4, 1, 2), 8: discs(8, 2, 3)})
    expected = []
    for index, labels in ((1, (1, 2)), (3, (1,)), (6, (1, 2)), (8, (2,))):
        others = Annotation({k: image for k, image in annotation.slices.items() if k != index})
        result = propagate(stack, others, config=CONFIG)[index].labels
        expected += [dice(result == label, annotation.slices[index] == label) for label in labels]
    assert min(expected) < 0.9
    assert agreement(stack, annotation, CONFIG) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    "annotation",
    [
        Annotation({}),
        Annotation({3: discs(3, 1)}),
        Annotation({3: discs(3, 1), 5: discs(5, 2)}),
        Annotation({3: discs(3, 1), 5: discs(5)}, frozenset({5})),
    ],
)
def test_there_is_nothing_to_compare(annotation: Annotation) -> None:
    assert agreement(MOVING, annotation, CONFIG) is None


def test_what_arrives_on_a_complete_slice_and_is_not_there_counts() -> None:
    slices = {2: discs(2, 1, 2), 4: discs(4, 1), 6: discs(6, 1, 2)}
    partly = agreement(MOVING, Annotation(slices), CONFIG)
    wholly = agreement(MOVING, Annotation(slices, frozenset({4})), CONFIG)
    assert partly is not None
    assert wholly is not None
    assert partly > 0.98
    # On the middle slice the second label arrives in vain, and from there it rightly does not reach the others.
    assert wholly == pytest.approx(3 / 6, abs=0.01)
    # A complete slice on which a label rightly does not arrive is no reason for praise.
    silent = Annotation({2: discs(2, 1), 3: discs(3, 1), 8: discs(8)}, frozenset({8}))
    still = moving_stack(9, SHAPE, shift=(0, 0), scale=0.0)
    one, other = agreement(still, silent, CONFIG), agreement(still, replace(silent, complete=frozenset()), CONFIG)
    assert one is not None
    assert other is not None
    assert one <= other


def test_agreement_tells_how_far_it_is_and_can_be_cancelled() -> None:
    annotation = Annotation({index: discs(index, 1) for index in (1, 4, 7)})
    calls: list[tuple[int, int]] = []
    agreement(MOVING, annotation, CONFIG, lambda *call: calls.append(call))
    assert calls == sorted(calls)
    assert set(calls) == {(done, 3) for done in range(4)}
    assert calls.count((0, 3)) > 1, "within a slice too"

    def cancel(done: int, total: int) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        agreement(MOVING, annotation, CONFIG, cancel)


# Adapting --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes only when a loss is computed, a second each, and when features are, two seconds."""
    now = [1000.0]
    scan_loss, features = adapt_module.scan_loss, compare.compute_features

    def slow(*args: object) -> object:
        loss = scan_loss(*args)  # type: ignore[arg-type]
        return lambda *inputs: (now.append(now.pop() + 1.0), loss(*inputs))[1]

    def slow_features(*args: object) -> object:
        now.append(now.pop() + 2.0)
        return features(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(adapt_module, "scan_loss", slow)
    monkeypatch.setattr(compare, "compute_features", slow_features)
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    return now


def painted(volume: Volume) -> Annotation:
    return Annotation({k: (volume.array[k] > 50).astype(np.uint8) for k in (1, 4, 6)})


def adapted(minutes: float = 0.1, annotation: Annotation | None = None, **options: object) -> Adapted:
    settings = {"propagation": CONFIG, **options}
    return adapt_and_compare(SCAN, START, annotation or painted(SCAN), minutes, **settings)  # type: ignore[arg-type]


def test_weights_before_and_after(clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = {key: value.clone() for key, value in START.network.state_dict().items()}
    steps: list[int] = []
    seen: list[FeatureStack] = []
    monkeypatch.setattr(compare, "agreement", lambda features, *_: seen.append(features) or agreement(features, *_))
    result = adapted(on_loss=lambda step, _: steps.append(step))
    assert all(torch.equal(value, start[key]) for key, value in START.network.state_dict().items())
    assert steps == list(range(6))
    assert len(result.losses) == 6
    assert result.seconds == 10.0
    for weights, score, used in zip((START, result.weights), (result.before, result.after), seen, strict=True):
        features = compute_features(SCAN, weights.network, weights.preprocessing)
        assert torch.equal(features.maps, used.maps)
        assert score == agreement(features, painted(SCAN), CONFIG)
    assert not torch.equal(seen[0].maps, seen[1].maps)
    assert not result.weights.network.training
    assert result.weights.preprocessing == START.preprocessing
    # They can be kept, and are recognised by their hash.
    path = tmp_path / "adapted.safetensors"
    save_weights(path, result.weights.network, result.weights.preprocessing, result.weights.provenance)
    kept = load_weights(path)
    assert kept.sha256 == result.weights.sha256
    assert kept.provenance["data"] == "1 scan of the user"
    assert kept.provenance["start"]["sha256"] == START.sha256
    assert kept.provenance["adapting"]["minutes"] == 0.1


def test_progress_and_time_left(clock: list[float]) -> None:
    calls: list[tuple[int, int]] = []
    left: list[float] = []
    adapted(progress=lambda *call: calls.append(call), on_time_left=left.append)
    assert calls == sorted(calls)
    assert set(calls) == {(done, 6) for done in range(7)}
    assert calls.count((0, 6)) > 1
    assert calls.count((6, 6)) > 1
    assert left == [7.0, 6.0, 5.0, 4.0, 3.0, 2.0], "with the two seconds of comparing afterwards"


@pytest.mark.parametrize("when", [0, 3, 6])
def test_it_can_be_cancelled_at_any_time(clock: list[float], when: int) -> None:
    def cancel(done: int, total: int) -> None:
        if done == when:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        adapted(progress=cancel)


def test_nothing_to_compare_with(clock: list[float]) -> None:
    annotation = Annotation({1: painted(SCAN).slices[1]})
    result = adapted(0.02, annotation)
    assert result.before is None
    assert result.after is None
    assert result.losses


def test_the_same_number_of_steps_gives_the_same(clock: list[float]) -> None:
    first, second = adapted(), adapted()
    assert first.losses == second.losses
    assert (first.before, first.after) == (second.before, second.after)
    assert first.weights.sha256 == second.weights.sha256


def test_a_folder_of_scans(clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scan_folder(tmp_path / "scans", 3)
    result = adapted(folder=folder)
    assert result.weights.provenance["data"] == "4 scans of the user"
    assert result.losses != adapted().losses
    monkeypatch.setattr(compare, "GROUP", 3)
    assert adapted(folder=folder).weights.provenance["data"] == "3 scans of the user"
    with pytest.raises(InputError, match="does not exist"):
        adapted(folder=tmp_path / "none")


def test_scans_that_cannot_be_used_are_left_out(clock: list[float], tmp_path: Path) -> None:
    folder = scan_folder(tmp_path / "scans", 1)
    (folder / "broken.nii.gz").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="broken.nii.gz is left out"):
        adapted(0.02, folder=folder)


@pytest.mark.parametrize(("count", "expected"), [(2, [0, 1]), (3, [0, 1, 2]), (9, [0, 4, 8])])
def test_a_large_folder_is_used_evenly(count: int, expected: list[int]) -> None:
    paths = [Path(str(k)) for k in range(count)]
    assert compare._spread(paths, 3) == [paths[k] for k in expected]
