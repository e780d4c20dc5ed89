"""Correct the slice that is worth most, accept one that is right, and take a step back.

The sample's true labels stand in for the person who corrects.

    python examples/03_correct_a_slice.py [folder for the session]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_oneseg import OneSegSession
from napari_oneseg.evaluation.metrics import dice
from napari_oneseg.phantom import phantom


def mean_dice(labels: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """Return the mean overlap of all organs that the truth shows."""
    return float(np.mean([dice(labels == value, truth == value) for value in np.unique(truth[truth > 0])]))


def main(folder: Path) -> None:
    """Label the sample with two corrections and keep the session in ``folder``."""
    sample = phantom(seed=0)
    truth = sample.volume.to_slices(sample.labels)

    session = OneSegSession()
    session.set_volume(sample.volume)
    session.annotate(18, truth[18])
    result = session.propagate()
    print(f"One slice painted: mean Dice {mean_dice(result.labels, truth):.2f}.")

    for _ in range(2):
        best = session.suggest_next(top=1)[0]
        session.correct(best.index, truth[best.index])  # the whole slice, as it should be
        print(f"  slice {best.index} corrected; {len(session.stale)} slices depend on it")
        result = session.update()  # carries only those anew
        print(f"  mean Dice {mean_dice(result.labels, truth):.2f}")

    session.freeze(20)  # accepted: no propagation changes it any more
    session.undo()  # the acceptance is taken back, and so could all else be

    path = folder / "sample.oneseg"
    session.save(path)  # session.resume(path) goes on here
    print(f"The session was kept in {path}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="oneseg-")))
