from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_oneseg.evaluation import worst
from napari_oneseg.evaluation.baselines import copy_slice
from napari_oneseg.evaluation.cases import CaseFiles
from napari_oneseg.evaluation.metrics import OrganScore
from napari_oneseg.evaluation.protocols import CaseResult, Painting, evaluate, oneseg_method, trials
from napari_oneseg.evaluation.worst import draw_trial, draw_worst, worst_scores
from napari_oneseg.io import write_image, write_labels
from tests.evaluation.stand_ins import FakeSession, small_case

PNG = b"\x89PNG\r\n"


def result(case: str, *dice: float) -> CaseResult:
    scores = tuple(OrganScore(label, value, value, 0.0, 1.0) for label, value in enumerate(dice, start=1))
    return CaseResult(case, scores, {}, 0.0)


@pytest.fixture
def files(tmp_path: Path) -> list[CaseFiles]:
    case = small_case()
    write_image(tmp_path / "scan.nii.gz", np.asarray(case.volume.array), case.volume)
    write_labels(tmp_path / "labels.nii.gz", case.reference, case.volume)
    return [CaseFiles(name, tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz") for name in ("left", "right")]


def test_the_lowest_scores_come_first() -> None:
    worst_three = worst_scores([result("a", 0.9, 0.2), result("b", 0.4, 0.95)], 3)
    assert [(case, score.label, score.dice) for case, score in worst_three] == [
        ("a", 2, 0.2),
        ("b", 1, 0.4),
        ("a", 1, 0.9),
    ]


def test_the_worst_are_run_again_and_drawn(files: list[CaseFiles], tmp_path: Path) -> None:
    results = evaluate(copy_slice, files)
    calls: list[tuple[int, int]] = []
    paths = draw_worst(
        tmp_path, results, 3, files, copy_slice, names={300: "spot"}, progress=lambda *done: calls.append(done)
    )
    assert [path.name for path in paths] == ["01_left_300.png", "02_right_300.png", "03_left_2.png"]
    assert all(path.read_bytes().startswith(PNG) for path in paths)
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("painting", "seen"), [(Painting(), [(300,)]), (Painting(together=True), [(2, 300)])])
def test_labels_that_ran_together_do_so_again(
    files: list[CaseFiles], tmp_path: Path, painting: Painting, seen: list[tuple[int, ...]]
) -> None:
    results = evaluate(copy_slice, files[:1], painting)
    session = FakeSession()
    draw_worst(tmp_path, results, 1, files, oneseg_method(session), painting)
    assert session.seen == seen


def test_a_picture_shows_the_extent_and_what_lies_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}

    def keep(path: Path, volume: object, masks: object, slices: object, painted: object, captions: object, title: str):
        drawn.update(masks=masks, slices=slices, painted=painted, captions=captions, title=title)

    monkeypatch.setattr(worst, "outline_sheet", keep)
    case = small_case()
    (trial, _) = trials(copy_slice, case)
    draw_trial(Path("a.png"), case, 2, trial, "Title")
    assert drawn["slices"] == list(range(3, 15))  # the organ's slices are 4 to 13
    assert drawn["painted"] == (9,)
    np.testing.assert_array_equal(drawn["masks"]["reference"], case.reference == 2)
    np.testing.assert_array_equal(drawn["masks"]["result"], trial.result == 2)
    assert drawn["captions"][9] == "Dice 1.00"
    assert drawn["captions"][3] == "Dice 0.00", "the result runs on there"
    draw_trial(Path("a.png"), case, 2, trial, count=5)
    assert len(drawn["slices"]) == 5
    assert 9 in drawn["slices"]
