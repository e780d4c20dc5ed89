"""The worst results as pictures: where a method fails is seen at a glance, and not in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_oneseg.evaluation.baselines import Method
from napari_oneseg.evaluation.cases import Case, CaseFiles
from napari_oneseg.evaluation.metrics import OrganScore, dice
from napari_oneseg.evaluation.painted_places import widened_extent
from napari_oneseg.evaluation.protocols import CaseResult, Painting, Suggest, SuggestPlanes, Trial, trials
from napari_oneseg.figures import outline_sheet, sheet_slices
from napari_oneseg.files import replacing

__all__ = ["draw_trial", "draw_worst", "worst_scores"]


def worst_scores(results: Iterable[CaseResult], count: int) -> list[tuple[str, OrganScore]]:
    """Return the ``count`` lowest Dice coefficients with the names of their cases, lowest first."""
    scores = [(result.case, score) for result in results for score in result.scores]
    return sorted(scores, key=lambda entry: entry[1].dice)[:count]


def draw_worst(
    folder: Path,
    results: Iterable[CaseResult],
    count: int,
    cases: Sequence[CaseFiles],
    method: Method,
    painting: Painting | None = None,
    suggest: Suggest | None = None,
    names: Mapping[int, str] | None = None,
    slice_axis: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    planes: SuggestPlanes | None = None,
) -> list[Path]:
    """Run the worst results again and draw them; scores that are kept need no labels to be kept with them.

    Parameters
    ----------
    folder
        Where the PNG files are written; it exists.
    results
        Scores of the method.
    count
        How many of them to draw.
    cases
        The files of the cases that were scored.
    method, painting, suggest
        As they were given to :func:`~napari_oneseg.evaluation.protocols.evaluate`.
    names
        Organ names by label.
    slice_axis
        As it was given to :meth:`~napari_oneseg.evaluation.cases.CaseFiles.load`.
    progress
        Called with (pictures done, all pictures).
    planes
        As it was given to :func:`~napari_oneseg.evaluation.protocols.evaluate`.

    Returns
    -------
    The files, worst first: ``01_<case>_<label>.png``.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    results, painting = list(results), painting or Painting()
    files = {item.name: item for item in cases}
    scored = {result.case: [score.label for score in result.scores] for result in results}
    worst = worst_scores(results, count)
    paths = []
    for place, (name, score) in enumerate(worst, start=1):
        case = files[name].load(slice_axis)
        # Labels that ran together must do so again: each keeps the others in their places.
        one_by_one = not painting.together and painting.protocol != "volume"
        again = trials(method, case, painting, [score.label] if one_by_one else scored[name], suggest, planes)
        trial = next(trial for trial in again if score.label in trial.labels)
        path = folder / f"{place:02d}_{name}_{score.label}.png"
        organ = (names or {}).get(score.label, f"label {score.label}")
        with replacing(path) as part:
            draw_trial(part, case, score.label, trial, f"{name}, {organ}: Dice {score.dice:.3f}")
        paths.append(path)
        if progress is not None:
            progress(place, len(worst))
    return paths


def draw_trial(path: Path, case: Case, label: int, trial: Trial, title: str = "", count: int = 16) -> None:
    """Draw the outlines of one label in the reference and in a result, with the Dice coefficient of each slice.

    The slices are spread over the reference's extent and a tenth beyond it at both ends.

    Parameters
    ----------
    path
        The PNG file to write.
    case, trial
        The scan with its reference, and what a method made of it.
    label
        A label that the reference holds.
    title
        Heading.
    count
        How many slices to show.
    """
    reference, result = case.reference == label, trial.result == label
    first, last = widened_extent(reference)
    span = np.zeros((len(reference), 1, 1), np.uint8)
    span[first : last + 1] = 1
    painted = trial.annotation.anchors(label)
    shown = sheet_slices(span, painted, count)
    captions = {
        index: f"Dice {dice(result[index : index + 1], reference[index : index + 1]):.2f}"
        for index in shown
        if result[index].any() or reference[index].any()
    }
    outline_sheet(path, case.volume, {"reference": reference, "result": result}, shown, painted, captions, title)
