"""What the tests of the evaluation share: a small scan with labels, and a session that only copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import SessionError
from napari_oneseg.evaluation.baselines import copy_slice
from napari_oneseg.evaluation.cases import Case
from napari_oneseg.volume import Annotation, Volume

SHAPE = (20, 12, 14)


def small_case(name: str = "one") -> Case:
    """Return a scan with label 2 on slices 4 to 13, largest on 9, and label 300 on slices 8 to 9."""
    reference = np.zeros(SHAPE, np.uint16)
    for index in range(4, 14):
        reference[index, 2 : 5 + 4 - abs(index - 9), 2:6] = 2
    reference[8:10, 2:6, 8:12] = 300
    grey = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return Case(name, Volume(grey, (4.0, 1.5, 1.0)), reference)


@dataclass
class Result:
    labels: NDArray[np.unsignedinteger]
    slice_confidence: NDArray[np.float64]


@dataclass
class Suggestion:
    index: int


class FakeSession:
    """Keeps what was painted until it is undone, as the real one does, and copies each slice everywhere it can."""

    def __init__(self, suggested: int = 9, runners_up: tuple[int, ...] = (0,)) -> None:
        self.ranking = (suggested, *runners_up)
        self.volumes: list[Volume] = []
        self.ranges: list[tuple[int, int] | None] = []
        self.annotation = Annotation()
        self.seen: list[tuple[int, ...]] = []  # the labels that each propagation had
        self.propagated_ranges: list[tuple[int, int] | None] = []
        self.confidence = np.ones(SHAPE[0])
        self.steps = 0

    @property
    def volume(self) -> Volume:
        if not self.volumes:
            raise SessionError("No scan is open.")
        return self.volumes[-1]

    def set_volume(self, volume: Volume) -> None:
        self.volumes.append(volume)

    def suggest_slices(self, slice_range: tuple[int, int] | None = None, top: int | None = None) -> list[Suggestion]:
        self.ranges.append(slice_range)
        return [Suggestion(index) for index in self.ranking][:top]

    def set_annotation(self, annotation: Annotation) -> None:
        slices = {**self.annotation.slices, **annotation.slices}
        self.annotation = Annotation(slices, self.annotation.complete | annotation.complete)
        self.steps += 1

    def propagate(self, slice_range: tuple[int, int] | None = None) -> Result:
        self.steps += 1
        self.seen.append(self.annotation.labels)
        self.propagated_ranges.append(slice_range)
        return Result(copy_slice(self.volume)(self.annotation, slice_range), self.confidence)

    def result(self) -> Result:
        return Result(np.zeros(SHAPE, np.uint8), self.confidence)

    def undo(self) -> bool:
        undone = self.steps > 0
        self.steps = max(0, self.steps - 1)
        if self.steps == 0:
            self.annotation = Annotation()
        return undone
