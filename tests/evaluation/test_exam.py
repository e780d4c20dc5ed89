"""The exam: how it tells failures apart, its scans, and the program on tiny ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.checkpoint import save_weights
from napari_oneseg.config import PreprocessingConfig
from tests.engine_fixtures import tiny_network

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPE = (6, 20, 20)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def exam() -> ModuleType:
    import exam

    return exam


def box(first: int, last: int, top: int, left: int, side: int = 6) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[first : last + 1, top : top + side, left : left + side] = True
    return mask


ORGAN, NEIGHBOUR = box(1, 3, 2, 2), box(2, 5, 2, 8)


@pytest.mark.parametrize(
    ("found", "truth", "kind", "failure"),
    [
        (ORGAN | NEIGHBOUR, ORGAN, "alike", "jumped"),
        (ORGAN | box(4, 5, 2, 2), ORGAN, "organ", "ran on"),
        (box(1, 2, 2, 2), ORGAN, "tube", "lost"),
        (ORGAN, ORGAN | box(2, 3, 12, 12), "split", "lost part"),
        (ORGAN | box(2, 3, 2, 2, 9) & ~NEIGHBOUR, ORGAN, "wall", "ragged"),
        (box(1, 3, 3, 2), ORGAN, "organ", "drift"),
    ],
)
def test_failures_are_told_apart(
    exam: ModuleType, found: NDArray[np.bool_], truth: NDArray[np.bool_], kind: str, failure: str
) -> None:
    from exam_scans import Target

    shares = exam.losses(found, Target("object", kind, truth, NEIGHBOUR))
    assert max(shares, key=shares.__getitem__) == failure
    assert sum(shares.values()) == pytest.approx(1 - exam.dice(found, truth))
    assert shares[failure] == pytest.approx(sum(shares.values())), "nothing else went wrong"


def test_a_perfect_label_has_lost_nothing(exam: ModuleType) -> None:
    from exam_scans import Target

    shares = exam.losses(ORGAN, Target("object", "organ", ORGAN, NEIGHBOUR))
    assert set(shares.values()) == {0.0}


def test_scans_are_whole_varied_and_decided_by_their_seed() -> None:
    from exam_scans import generated_scans

    first, second = generated_scans(2, 5)
    (again,) = generated_scans(1, 5)
    assert np.array_equal(first.volume.array, again.volume.array)
    for scan in (first, second):
        slices, rows, columns = scan.volume.array.shape
        assert 30 <= slices <= 100
        assert rows == columns
        assert 160 <= rows <= 224
        assert scan.targets
        for target in scan.targets:
            assert target.truth.sum((1, 2)).max() >= 60
            assert target.truth.any((1, 2)).sum() >= 4
            assert not (target.truth & target.alike).any()
    assert first.volume.array.shape != second.volume.array.shape or first.volume.spacing != second.volume.spacing


def test_the_program_writes_profiles_and_what_calibration_needs(
    exam: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import calibrate
    from exam_scans import ExamScan, Target

    from napari_oneseg.volume import Volume

    def scans(name: str) -> list[ExamScan]:
        found = []
        for seed in range(2):
            noise = np.random.default_rng(seed).normal(size=(8, 24, 24)).astype(np.float32)
            truth = np.zeros(noise.shape, bool)
            truth[1:7, 6:16, 5 + seed : 15 + seed] = True
            target = Target("organ", "organ", truth, np.zeros_like(truth))
            found.append(ExamScan(f"{name} {seed}", Volume(noise + 10 * truth, (2.0, 1.0, 1.0)), (target,)))
        return found

    monkeypatch.setattr(exam, "generated_scans", lambda *_: scans("generated"))
    monkeypatch.setattr(exam, "real_scans", lambda name, _: scans(name))
    weights, kept, slices = (tmp_path / name for name in ("tiny.safetensors", "exam.json", "slices.json"))
    save_weights(weights, tiny_network(), PreprocessingConfig(working_size=48), {"data": "none"})
    exam.main([str(kept), "--weights", str(weights), "--real", "2", "--slices", str(slices)])
    results = json.loads(kept.read_text())
    assert set(results["profiles"]) == {"generated", "chaos_mr_t2", "btcv_ct"}
    assert results["profiles"]["generated"]["all"]["objects"] == 2
    for entry in results["objects"]:
        assert entry["dice"] == pytest.approx(1 - sum(entry["losses"].values()), abs=1e-3)
    assert "jumped" in capsys.readouterr().out

    fitted, measured = tmp_path / "calibration.json", tmp_path / "measured.json"
    calibrate.main([str(slices), "--out", str(fitted), "--json", str(measured)])
    table = json.loads(fitted.read_text())
    assert table["values"] == sorted(table["values"])
    assert json.loads(measured.read_text())["errors"]["expected Dice"]["slices"] > 0


def test_a_fitted_calibration_finds_what_decides() -> None:
    import calibrate

    random = np.random.default_rng(0)
    traits = random.uniform(0, 1, (600, 3))
    dice = np.clip(0.2 + 0.7 * (traits[:, 0] > 0.4), 0, 1)
    model = calibrate.fit(traits, dice, np.ones(600))
    held = random.uniform(0, 1, (300, 3))
    found = calibrate.measured(model(held), np.clip(0.2 + 0.7 * (held[:, 0] > 0.4), 0, 1))
    assert found["error"] < 0.1
    assert found["auc"] > 0.97
