"""The weights that ship with the package, on scans that a program made: small floors, so that no change breaks them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.checkpoint import load_weights
from napari_oneseg.evaluation.metrics import dice
from napari_oneseg.phantom import Phantom, phantom
from napari_oneseg.session import OneSegSession, Propagation

ONE_SLICE = {"liver": 0.8, "right kidney": 0.8, "left kidney": 0.8, "spleen": 0.8}


@pytest.fixture(scope="module")
def sample() -> Phantom:
    return phantom(seed=0)


@pytest.fixture(scope="module")
def session(sample: Phantom) -> OneSegSession:
    session = OneSegSession(device="cpu")
    session.set_volume(sample.volume)
    return session


def carried(session: OneSegSession, truth: NDArray[np.uint8], label: int, slices: tuple[int, ...]) -> Propagation:
    while session.undo():
        pass
    for index in slices:
        session.annotate(index, np.where(truth[index] == label, truth[index], 0))
    return session.propagate()


def test_they_say_where_they_come_from() -> None:
    weights = load_weights()
    assert weights.provenance["data"] == "generated anatomy"
    assert weights.provenance["command"].startswith("oneseg train --generated")
    assert len(weights.sha256) == 64


def test_one_slice_labels_the_organs_of_the_phantom(session: OneSegSession, sample: Phantom) -> None:
    truth = sample.volume.to_slices(sample.labels)
    labels = {name: label for label, name in sample.names.items()}
    for name, floor in ONE_SLICE.items():
        mask = truth == labels[name]
        largest = int(mask.sum((1, 2)).argmax())
        result = carried(session, truth, labels[name], (largest,))
        assert dice(result.labels == labels[name], mask) > floor, name


def test_more_slices_label_better(session: OneSegSession, sample: Phantom) -> None:
    truth = sample.volume.to_slices(sample.labels)
    label = next(label for label, name in sample.names.items() if name == "liver")
    mask = truth == label
    held = np.flatnonzero(mask.any((1, 2)))
    scores = []
    for count in (1, 3, 5):
        slices = tuple(int(k) for k in held[((np.arange(count) + 0.5) / count * len(held)).astype(int)])
        scores.append(dice(carried(session, truth, label, slices).labels == label, mask))
    assert scores[0] < scores[1] < scores[2], scores
    assert scores[2] > 0.9


def test_doubtful_slices_are_the_worse_ones(session: OneSegSession, sample: Phantom) -> None:
    truth = sample.volume.to_slices(sample.labels)
    agreement = []
    for label in sample.names:
        mask = truth == label
        result = carried(session, truth, label, (int(mask.sum((1, 2)).argmax()),))
        indices = np.flatnonzero(~np.isnan(result.slice_confidence))
        scores = [dice(result.labels[k : k + 1] == label, mask[k : k + 1]) for k in indices]
        agreement.append(np.corrcoef(result.slice_confidence[indices], scores)[0, 1])
    assert np.mean(agreement) > 0.2, agreement
