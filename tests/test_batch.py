from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from napari_oneseg.batch import Outcome, Settings, Stage, Task, labels_path, run_task, tasks_of
from napari_oneseg.batch_session import load_propagated, propagated_path
from napari_oneseg.batch_workers import Crew, cluster_crew, default_workers, local_crew, run_batch
from napari_oneseg.checkpoint import save_weights
from napari_oneseg.cli import app
from napari_oneseg.config import FeatureConfig, PreprocessingConfig, PropagationConfig
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.file_order import in_file_order, reorient
from napari_oneseg.io import read_labels, read_volume, write_image, write_labels
from napari_oneseg.orientation import nearest_orientation
from napari_oneseg.session import OneSegSession
from napari_oneseg.session_file import load_record, save_session
from napari_oneseg.study import Study, open_study
from napari_oneseg.volume import Volume

SHAPE = (8, 40, 48)
PAINTED = 4
NAMES = ("a", "b", "c")


def make_scan(seed: int) -> tuple[Volume, NDArray[np.uint8]]:
    """A bright ball in noise, whose rows run against the patient's, so that the window shows it flipped."""
    z, y, x = np.indices(SHAPE)
    labels = ((4 * (z - 4)) ** 2 + (y - 16) ** 2 + (x - 20 - seed) ** 2 < 12**2).astype(np.uint8) * 2
    grey = np.where(labels > 0, 200, 100) + np.random.default_rng(seed).normal(0, 4, SHAPE)
    grey[:, :4] = -500
    direction = np.eye(3)[:, ::-1] * (1, -1, 1)
    return Volume(grey.astype(np.float32), (4.0, 1.0, 1.5), (10.0, -20.0, 5.0), direction), labels


def painted_on(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    painted = np.zeros_like(labels)
    painted[PAINTED] = labels[PAINTED]
    return painted


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A small untrained network: quick, and position alone makes it copy labels from slice to slice."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    config = FeatureConfig(widths=(8, 8, 8, 8), width_factor=1.0, channels=8, gabor_size=5, null_match=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(path, FeatureNetwork(config), PreprocessingConfig(working_size=64), {"data": "none"})
    return Settings(path, "cpu", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scans with a painted slice and a reference each."""
    place = tmp_path / "study"
    place.mkdir()
    for seed, name in enumerate(NAMES):
        volume, labels = make_scan(seed)
        write_image(place / f"{name}.nii.gz", volume.array, volume)
        write_labels(place / f"{name}_annotation.nii.gz", painted_on(labels), volume)
        write_labels(place / f"{name}_reference.nii.gz", labels, volume)
    return place


@pytest.fixture
def study(folder: Path) -> Study:
    return open_study(folder)


def here(tasks: Any) -> Iterator[Outcome]:
    """A crew that works in this process."""
    yield from map(run_task, tasks)


def do(study: Study, stage: Stage, settings: Settings, crew: Crew = here, retries: int = 0) -> list[Outcome]:
    tasks, _ = tasks_of(study, stage, settings)
    return run_batch(study, tasks, crew, retries)


def states(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.name: outcome.status for outcome in outcomes}


def problem_of(outcomes: list[Outcome], name: str) -> str:
    return next(outcome.problem for outcome in outcomes if outcome.name == name)


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def add_damaged(folder: Path) -> None:
    """Add a scan ``d`` that cannot be read."""
    for ending in (".nii.gz", "_annotation.nii.gz"):
        shutil.copy(folder / f"a{ending}", folder / f"d{ending}")
    damage(folder / "d.nii.gz")


def task_of(study: Study, stage: Stage, settings: Settings, name: str = "a") -> Task:
    return next(task for task in tasks_of(study, stage, settings)[0] if task.name == name)


# What a task does


def test_suggestions_are_those_of_the_window(study: Study, settings: Settings) -> None:
    assert states(do(study, "suggest", settings)) == dict.fromkeys(NAMES, "made")
    session = OneSegSession(settings.weights, "cpu")
    session.set_volume(read_volume(study["b"].path))
    expected = tuple(suggestion.index for suggestion in session.suggest_slices(top=5))
    assert open_study(study.source)["b"].suggested == expected
    assert states(do(study, "suggest", settings)) == dict.fromkeys(NAMES, "kept")
    assert study["b"].suggested == expected
    assert states(do(study, "suggest", replace(settings, anew=True))) == dict.fromkeys(NAMES, "made")


def test_suggesting_keeps_features_for_the_window(
    study: Study, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_oneseg import batch
    from napari_oneseg.features.cache import FeatureCache

    cache = FeatureCache(tmp_path / "features")
    monkeypatch.setattr(batch, "user_cache", lambda: cache)
    run_task(task_of(study, "suggest", settings))
    volume = read_volume(study["a"].path)
    session = OneSegSession(settings.weights, "cpu")
    weights = session.weights
    assert cache.load(volume, weights.network, weights.preprocessing, weights.sha256, session.device) is not None


def test_propagation_lies_on_the_grid_of_the_file(study: Study, settings: Settings) -> None:
    assert states(do(study, "propagate", settings)) == dict.fromkeys(NAMES, "made")
    source, (_, truth) = read_volume(study["a"].path), make_scan(0)
    labels = source.to_file.apply(read_labels(labels_path(study.results, "a"), source))
    np.testing.assert_array_equal(labels[PAINTED], truth[PAINTED])
    assert labels[PAINTED + 1].any()
    scan = open_study(study.source)["a"]
    assert (scan.slices_painted, scan.corrections, list(scan.volumes_ml)) == (1, 0, [2])
    assert scan.volumes_ml[2] == pytest.approx(np.count_nonzero(labels) * source.voxel_ml)
    assert 0 < (scan.mean_confidence or 0) < 1


def test_the_record_says_what_a_result_was_made_from(study: Study, settings: Settings) -> None:
    do(study, "propagate", settings)
    text = (study.results / "a_labels.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert record["painted"] == [PAINTED]
    assert (record["scan"]["file_axis"], record["scan"]["file_index"]) == (2, list(range(SHAPE[0])))
    assert record["export"]["scan_sha256"] == record["scan"]["sha256"] == read_volume(study["a"].path).content_hash
    assert record["weights"]["name"] == "small.safetensors"
    assert str(study.source) not in text


def test_what_is_there_and_unchanged_is_kept(study: Study, settings: Settings, folder: Path) -> None:
    do(study, "propagate", settings)
    labels = {name: labels_path(study.results, name) for name in NAMES}
    written = {name: path.stat().st_mtime_ns for name, path in labels.items()}
    study.path.unlink()  # results are known by what lies beside them
    study.refresh()
    assert states(do(study, "propagate", settings)) == dict.fromkeys(NAMES, "kept")
    assert {name: path.stat().st_mtime_ns for name, path in labels.items()} == written
    assert study["a"].slices_painted == 1
    # The painting of one changes, the labels of another get lost, the third is half replaced.
    volume, truth = make_scan(0)
    write_labels(folder / "a_annotation.nii.gz", np.where(np.arange(8)[:, None, None] % 3, 0, truth), volume)
    labels["b"].unlink()
    record = study.results / "c_labels.json"  # a run was killed before its record was complete
    record.write_text(json.dumps(json.loads(record.read_bytes()) | {"made_from": ""}), encoding="utf-8")
    assert states(do(study, "propagate", settings)) == dict.fromkeys(NAMES, "made")
    assert study["a"].slices_painted == 2
    other = replace(settings, propagation=PropagationConfig(window=5))
    assert states(do(study, "propagate", other)) == dict.fromkeys(NAMES, "made")
    assert states(do(study, "propagate", replace(other, anew=True))) == dict.fromkeys(NAMES, "made")


def test_labels_changed_by_hand_are_not_replaced(study: Study, settings: Settings) -> None:
    do(study, "propagate", settings)
    volume, truth = make_scan(0)
    path = labels_path(study.results, "a")
    write_labels(path, truth, volume)
    changed = path.read_bytes()
    assert states(do(study, "propagate", settings))["a"] == "kept"
    for other in (replace(settings, anew=True), replace(settings, propagation=PropagationConfig(window=5))):
        outcomes = do(study, "propagate", other)
        assert states(outcomes) == {"a": "failed", "b": "made", "c": "made"}
        assert "changed by hand" in problem_of(outcomes, "a")
    assert path.read_bytes() == changed


def test_labels_made_in_the_window_are_not_replaced(study: Study, settings: Settings) -> None:
    study.results.mkdir()
    volume, truth = make_scan(0)
    path = labels_path(study.results, "a")
    write_labels(path, truth, volume)
    path.with_name("a_labels.json").write_text('{"export": {"scan_sha256": "0"}}', encoding="utf-8")
    study.record_result("a", 3, 1, {2: 5.0}, 0.9)
    before = path.read_bytes()
    for anew in (False, True):
        assert states(do(study, "propagate", replace(settings, anew=anew)))["a"] == "kept"
    assert path.read_bytes() == before
    assert study["a"].volumes_ml == {2: 5.0}


def test_work_left_in_the_window_is_what_was_painted(study: Study, settings: Settings, folder: Path) -> None:
    study.results.mkdir()
    volume = read_volume(study["a"].path)
    truth = volume.to_slices(volume.to_file.inverse.apply(make_scan(0)[1]))
    session = OneSegSession(settings.weights, "cpu")
    session.set_volume(volume)
    session.save(study.results / "a.oneseg")
    assert task_of(study, "propagate", settings).annotation == folder / "a_annotation.nii.gz"
    session.annotate(3, truth[3])
    for place in ("a", "a (axial)"):
        saved = replace(session.snapshot(), extras={"range": [2, 5]})
        save_session(study.results / f"{place}.oneseg", saved)
    os.utime(study.results / "a.oneseg", ns=(0, 0))
    task = task_of(study, "propagate", settings)
    assert task.annotation == study.results / "a (axial).oneseg"
    assert run_task(task).problem == ""
    labels = read_labels(labels_path(study.results, "a"), read_volume(study["a"].path))
    assert np.flatnonzero(labels.any(axis=(1, 2))).tolist() == [2, 3, 4, 5]
    (study.results / "a (axial).oneseg").write_bytes(b"PK")
    assert "a (axial).oneseg is not a readable session file" in run_task(task).problem
    assert task_of(study, "propagate", settings).annotation == task.annotation


@pytest.mark.parametrize("frame", ["patient", "of before", "other plane"])
def test_a_session_is_carried_on(study: Study, settings: Settings, folder: Path, frame: str) -> None:
    source = read_volume(study["a"].path)
    other_plane = replace(source, slice_axis=1)
    volume = {"patient": source, "of before": in_file_order(source), "other plane": other_plane}[frame]
    session = OneSegSession(settings.weights, "cpu")
    session.set_volume(volume)
    truth = make_scan(0)[1]
    truth_there = volume.to_slices(truth if frame == "of before" else source.to_file.inverse.apply(truth))
    index = int(np.count_nonzero(truth_there, axis=(1, 2)).argmax())
    session.annotate(index, truth_there[index])
    if frame == "patient":
        session.propagate((index - 1, index + 1))
        session.correct(index + 1, truth_there[index + 1])
    axis = None if frame == "of before" else volume.axis
    save_session(folder / "a.oneseg", replace(session.snapshot(), slice_axis=axis))
    expected = session.update() if frame == "patient" else session.propagate()
    (folder / "a_annotation.nii.gz").unlink()
    study.refresh()
    outcome = run_task(task_of(study, "propagate", settings))
    assert outcome.problem == ""
    assert outcome.values["corrections"] == (frame == "patient")
    labels = volume.from_slices(expected.labels)
    written = read_labels(labels_path(study.results, "a"), source)
    if frame == "of before":  # carried on in patient order, which the rounding of a flipped image may change
        assert np.mean(source.to_file.apply(written) != labels) < 1e-3
    else:
        np.testing.assert_array_equal(written, labels)


# What the window shows of it


def saved_in_the_window(study: Study, settings: Settings, **extras: object) -> Path:
    """A slice of ``a`` painted in the window, and the scan left."""
    volume = read_volume(study["a"].path)
    session = OneSegSession(settings.weights, "cpu")
    session.set_volume(volume)
    session.annotate(3, volume.to_slices(volume.to_file.inverse.apply(make_scan(0)[1]))[3])
    path = study.results / "a.oneseg"
    study.results.mkdir(exist_ok=True)
    save_session(path, replace(session.snapshot(), extras=extras))
    return path


def test_the_window_can_open_what_was_propagated(study: Study, settings: Settings, folder: Path) -> None:
    do(study, "propagate", settings)
    volume = read_volume(study["a"].path)
    saved = load_propagated(study.results, "a", folder / "a_annotation.nii.gz")
    assert saved is not None
    session = OneSegSession(settings.weights, "cpu")
    session.set_volume(volume)
    session.restore(saved)
    written = read_labels(labels_path(study.results, "a"), volume)
    np.testing.assert_array_equal(session.labels, volume.to_slices(written))
    assert (list(session.state.painted), set(session.stale)) == ([PAINTED], set())
    assert session.result().slice_confidence[PAINTED] == 1.0
    assert 0 < session.result().slice_confidence[PAINTED + 1] < 1
    assert (saved.slice_axis, saved.extras["slice"]) == (volume.axis, PAINTED)
    record = json.dumps(load_record(propagated_path(study.results, "a")))
    assert str(study.source) not in record


def test_a_session_of_the_window_is_shown_with_its_results_and_stays_as_it_was(
    study: Study, settings: Settings
) -> None:
    names = {"1": {"name": "Liver", "colour": [1.0, 0.0, 0.0, 1.0]}}
    path = saved_in_the_window(study, settings, range=[2, 5], labels=names, slice=6)
    before = path.read_bytes()
    assert states(do(study, "propagate", settings))["a"] == "made"
    assert path.read_bytes() == before
    saved = load_propagated(study.results, "a", path)
    assert saved is not None
    assert (list(saved.state.painted), sorted(saved.state.results)) == ([3], [2, 3, 4, 5])
    assert (saved.extras["labels"], saved.extras["range"], saved.extras["slice"]) == (names, [2, 5], 6)
    assert states(do(study, "propagate", settings))["a"] == "kept"


def test_what_was_painted_since_counts_and_not_what_was_propagated_before(
    study: Study, settings: Settings, folder: Path
) -> None:
    painting = folder / "a_annotation.nii.gz"
    do(study, "propagate", settings)
    path = saved_in_the_window(study, settings)
    assert load_propagated(study.results, "a", path) is None
    assert states(do(study, "propagate", settings)) == {"a": "made", "b": "kept", "c": "kept"}
    assert load_propagated(study.results, "a", path) is not None
    assert load_propagated(study.results, "a", painting) is None
    path.unlink()
    do(study, "propagate", settings)
    assert load_propagated(study.results, "a", painting) is not None
    write_labels(painting, make_scan(0)[1], make_scan(0)[0])
    assert load_propagated(study.results, "a", painting) is None


def test_what_the_window_cannot_open_is_made_again(study: Study, settings: Settings, folder: Path) -> None:
    do(study, "propagate", settings)
    damage(propagated_path(study.results, "a"))
    propagated_path(study.results, "b").unlink()
    for name in ("a", "b"):
        assert load_propagated(study.results, name, folder / f"{name}_annotation.nii.gz") is None
    assert states(do(study, "propagate", settings)) == {"a": "made", "b": "made", "c": "kept"}
    for name in NAMES:
        assert load_propagated(study.results, name, folder / f"{name}_annotation.nii.gz") is not None


def test_a_run_that_ends_before_the_window_has_its_session_is_gone_on_with(
    study: Study, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_oneseg import batch

    def full(*_: object) -> None:
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(batch, "save_propagated", full)
        assert states(do(study, "propagate", settings)) == dict.fromkeys(NAMES, "failed")
    assert states(do(study, "propagate", settings)) == dict.fromkeys(NAMES, "made")
    assert states(do(study, "propagate", settings)) == dict.fromkeys(NAMES, "kept")


def test_a_session_of_another_scan_is_refused(study: Study, settings: Settings, folder: Path) -> None:
    session = OneSegSession(settings.weights, "cpu")
    session.set_volume(read_volume(study["b"].path))
    session.annotate(1, np.ones(SHAPE[1:], np.uint8))
    session.save(folder / "a.oneseg")
    study.refresh()
    assert "belongs to another scan" in run_task(task_of(study, "propagate", settings)).problem


def test_evaluation_scores_what_was_propagated(study: Study, settings: Settings) -> None:
    assert tasks_of(study, "evaluate", settings) == ([], dict.fromkeys(NAMES, "not propagated"))
    do(study, "propagate", settings)
    write_labels(labels_path(study.results, "a"), make_scan(0)[1], make_scan(0)[0])
    outcomes = do(study, "evaluate", settings)
    scores = {outcome.name: outcome.scores.scores[0] for outcome in outcomes if outcome.scores}
    assert (scores["a"].label, scores["a"].dice, scores["a"].assd) == (2, 1.0, 0.0)
    assert 0.3 < scores["b"].dice < 1
    again = do(study, "evaluate", settings)
    assert states(again) == dict.fromkeys(NAMES, "kept")
    assert [outcome.scores for outcome in again] == [outcome.scores for outcome in outcomes]


def test_scans_are_left_out_where_there_is_nothing_to_do(study: Study, settings: Settings, folder: Path) -> None:
    (folder / "b_annotation.nii.gz").unlink()
    (folder / "c_reference.nii.gz").unlink()
    study.set_status("a", "skipped")
    study.refresh()
    for stage, expected in (
        ("suggest", {"a": "skipped"}),
        ("propagate", {"a": "skipped", "b": "nothing painted"}),
        ("evaluate", {"a": "skipped", "b": "not propagated", "c": "no reference"}),
    ):
        assert tasks_of(study, stage, settings)[1] == expected  # type: ignore[arg-type]


# What fails


def test_a_damaged_scan_is_reported_and_the_rest_is_done(study: Study, settings: Settings, folder: Path) -> None:
    damage(folder / "b.nii.gz")
    (folder / "c.nii.gz").unlink()
    (folder / "c.nii.gz").symlink_to(folder / "gone" / "c.nii.gz")
    outcomes = do(study, "propagate", settings)
    assert states(outcomes) == {"a": "made", "b": "failed", "c": "failed"}
    assert "damaged or incomplete" in problem_of(outcomes, "b")
    assert [scan.status for scan in study.scans] == ["open", "failed", "failed"]
    text = study.path.read_text(encoding="utf-8")
    assert str(folder) not in text
    assert "c.nii.gz cannot be read" in study["c"].problem
    volume, _ = make_scan(1)
    write_image(folder / "b.nii.gz", volume.array, volume)
    assert states(do(study, "propagate", settings)) == {"a": "kept", "b": "made", "c": "failed"}
    assert (study["b"].status, study["b"].problem) == ("open", "")


def test_what_the_user_said_of_a_scan_stays(study: Study, settings: Settings, folder: Path) -> None:
    study.set_status("a", "done")
    study.set_status("b", "in progress")
    damage(folder / "b.nii.gz")
    do(study, "propagate", settings)
    assert (study["a"].status, study["b"].status) == ("done", "in progress")
    assert "damaged" in study["b"].problem


def test_a_reference_that_cannot_be_used_is_no_fault_of_the_scan(
    study: Study, settings: Settings, folder: Path
) -> None:
    do(study, "propagate", settings)
    damage(folder / "a_reference.nii.gz")
    outcomes = do(study, "evaluate", settings)
    assert states(outcomes) == {"a": "failed", "b": "made", "c": "made"}
    assert study["a"].status == "open"


def test_failed_scans_are_tried_again_after_the_others(study: Study, settings: Settings) -> None:
    tasks, _ = tasks_of(study, "suggest", settings)
    tried: list[str] = []

    def flaky(given: Any) -> Iterator[Outcome]:
        for task in given:
            tried.append(task.name)
            fails = task.name == "b" or (task.name == "a" and tried.count("a") == 1)
            yield Outcome(task.name, "failed", problem="No.") if fails else Outcome(task.name, "made")

    seen: list[tuple[int, int]] = []
    outcomes = run_batch(study, tasks, flaky, 2, lambda done, total: seen.append((done, total)))
    assert states(outcomes) == {"a": "made", "b": "failed", "c": "made"}
    assert [tried.count(name) for name in NAMES] == [2, 3, 1]
    assert set(tried[:3]) == set(NAMES)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_what_was_done_before_a_run_was_stopped_is_kept(study: Study, settings: Settings) -> None:
    tasks, _ = tasks_of(study, "suggest", settings)

    def stopped(given: Any) -> Iterator[Outcome]:
        yield run_task(given[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(study, tasks, stopped)
    assert sorted(states(do(study, "suggest", settings)).values()) == ["kept", "made", "made"]


# Workers


class Trap:
    """In place of a scan's file, one in which whoever opens it is stuck, until it is sprung."""

    def __init__(self, path: Path) -> None:
        self.path, self.kept = path, path.with_name(f".{path.name}")
        path.rename(self.kept)
        os.mkfifo(path)

    def caught(self) -> bool:
        """Whether somebody is stuck; they stay stuck, because what they wait for never comes."""
        try:
            self._held = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return False
        return True

    def spring(self, processes: Callable[[], list[int]]) -> int:
        """Put the file back for all who come later, and kill who is stuck; return their process number."""
        wait_for(self.caught)
        number = self.path.stat().st_ino
        try:
            # What is being opened is not among the open files yet.
            wait_for(lambda: any(number in opened_by(pid) for pid in processes()))
            (stuck,) = (pid for pid in processes() if number in opened_by(pid))
            self.kept.replace(self.path)
            os.kill(stuck, signal.SIGKILL)
        finally:
            os.close(self._held)
        return stuck

    def springs(self, processes: Callable[[], list[int]]) -> Springing:
        return Springing(self, processes)


class Springing(threading.Thread):
    """Springs a trap while somebody else works."""

    def __init__(self, trap: Trap, processes: Callable[[], list[int]]) -> None:
        super().__init__()
        self.trap, self.processes, self.killed = trap, processes, 0
        self.start()

    def run(self) -> None:
        self.killed = self.trap.spring(self.processes)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def opened_by(pid: int) -> set[int]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(entry.stat().st_ino)
    return found


def children() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid]


def contents(study: Study) -> dict[str, bytes]:
    return {name: labels_path(study.results, name).read_bytes() for name in NAMES}


@pytest.fixture
def expected(study: Study, settings: Settings, tmp_path: Path) -> dict[str, bytes]:
    """The labels as this process makes them."""
    for task in tasks_of(study, "propagate", settings)[0]:
        run_task(replace(task, results=tmp_path / "expected"))
    return {name: labels_path(tmp_path / "expected", name).read_bytes() for name in NAMES}


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks for open files in /proc")


def test_the_number_of_workers_by_default() -> None:
    assert 1 <= default_workers() <= 4


@needs_proc
def test_processes_that_die_cost_no_scan(
    study: Study, settings: Settings, folder: Path, expected: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    others = children()  # of tests that ran before
    add_damaged(folder)
    study.refresh()
    trap = Trap(folder / "b.nii.gz")
    tasks, _ = tasks_of(study, "propagate", settings)
    # A defect of the program: it ends its process, and shows its traceback.
    defect = replace(tasks[0], name="defect", settings=None)  # type: ignore[arg-type]
    a, b, c, d = tasks
    springing = trap.springs(children)
    # One is stuck with b, while the other one dies of the defect and is replaced.
    first = {outcome.name: outcome for outcome in local_crew(2)([b, a, defect, c, d])}
    springing.join()
    assert springing.killed
    assert {name: outcome.status for name, outcome in first.items()} == {
        "a": "made", "b": "failed", "c": "made", "d": "failed", "defect": "failed"
    }  # fmt: skip
    assert "killed (signal 9)" in first["b"].problem
    assert "damaged" in first["d"].problem
    assert "exit code 1" in first["defect"].problem
    assert "AttributeError" in capfd.readouterr().err
    assert states(run_batch(study, [b], here)) == {"b": "made"}
    assert contents(study) == expected
    assert children() == others


@needs_proc
def test_a_run_that_is_stopped_leaves_nothing_behind(study: Study, settings: Settings, folder: Path) -> None:
    others = children()  # of tests that ran before
    trap = Trap(folder / "a.nii.gz")
    tasks, _ = tasks_of(study, "propagate", settings)
    outcomes = local_crew(1)([tasks[1], tasks[0]])
    assert next(outcomes).name == "b"
    outcomes.close()  # type: ignore[attr-defined]
    assert children() == others
    assert not trap.caught()
    assert {path.name for path in study.results.iterdir()} == {"b_labels.nii.gz", "b_labels.json", "propagated"}
    assert [path.name for path in (study.results / "propagated").iterdir()] == ["b.oneseg"]


@contextmanager
def cluster() -> Iterator[Any]:
    """A dask cluster of two processes on this computer."""
    from distributed import LocalCluster

    with warnings.catch_warnings():
        # Of dask's own files and sockets, when a worker is killed.
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with LocalCluster(**options, worker_dashboard_address=None, silence_logs=logging.CRITICAL) as made:
            yield made


@needs_proc
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_killed_worker_of_a_cluster_costs_no_scan(
    study: Study, settings: Settings, folder: Path, expected: dict[str, bytes]
) -> None:
    add_damaged(folder)
    trap = Trap(folder / "b.nii.gz")
    with cluster() as made:
        springing = trap.springs(lambda: [nanny.pid for nanny in made.workers.values() if nanny.pid])
        result = run(
            "propagate", folder, "--scheduler", made.scheduler_address, "--weights", settings.weights, "--json", code=1
        )
        springing.join()
        assert springing.killed
        record = json.loads(result.stdout)
        found = {scan["name"]: scan["status"] for scan in record["scans"]}
        assert found == {"a": "made", "b": "made", "c": "made", "d": "failed"}
        assert contents(study) == expected
        study.refresh()
        assert [scan.status for scan in study.scans] == ["open", "open", "open", "failed"]
        # A defect of the program is reported like any other failure.
        tasks, _ = tasks_of(study, "suggest", settings)
        defect = replace(tasks[0], settings=None)  # type: ignore[arg-type]
        (outcome,) = cluster_crew(made.scheduler_address)([defect])
        assert "AttributeError" in outcome.problem


def test_a_cluster_that_does_not_answer(
    study: Study, settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_oneseg.batch_workers._CONNECT_SECONDS", 0.3)
    tasks, _ = tasks_of(study, "suggest", settings)
    with pytest.raises(InputError, match=r"No dask scheduler answers at tcp://127\.0\.0\.1:9"):
        list(cluster_crew("tcp://127.0.0.1:9")(tasks))


# The command


def run(*args: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["batch", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception  # a defect has exit code 1 too
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting processes takes seconds, and is tested above."""
    monkeypatch.setattr("napari_oneseg.batch_workers.local_crew", lambda workers, threads: here)


@pytest.mark.usefixtures("in_this_process")
def test_a_study_from_suggestion_to_summary(study: Study, settings: Settings, folder: Path, tmp_path: Path) -> None:
    weights = ("--weights", settings.weights, "--device", "cpu")
    assert "3 made" in run("suggest", folder, *weights).stdout
    result = run("propagate", folder, *weights, "--workers", 1, "--threads", 1)
    assert "3 made" in result.stdout
    assert "with 1 worker." in result.stdout
    assert "3 kept" in run("propagate", folder, *weights).stdout
    assert "3 made" in run("propagate", folder, *weights, "--anew", "--window", 5).stdout
    damage(folder / "c_reference.nii.gz")
    result = run("evaluate", folder, code=1)
    assert "2 scans" in result.stdout
    assert "c failed: c_reference.nii.gz is damaged" in result.stderr
    record = json.loads(run("evaluate", folder, "--json", code=1).stdout)
    assert [scan["status"] for scan in record["scans"]] == ["kept", "kept", "failed"]
    assert record["scores"]["summary"][-1]["name"] == "all"
    files = tmp_path / "summary.csv", tmp_path / "effort.csv"
    assert "volume ml 2" in run("summary", folder, "--output", files[0], "--effort", files[1]).stdout
    assert files[0].read_text(encoding="utf-8-sig").startswith("scan,status,minutes,slices_painted")
    assert "total of 3" in files[1].read_text(encoding="utf-8-sig")
    assert len(json.loads(run("summary", folder, "--json").stdout)["scans"]) == 3
    assert "exists already" in run("summary", folder, "-o", files[0], code=2).stderr


@pytest.mark.usefixtures("in_this_process")
def test_a_scan_may_have_any_name(folder: Path, settings: Settings, tmp_path: Path) -> None:
    table = tmp_path / "trial.csv"
    table.write_text("scan,name\nstudy/a.nii.gz,[red]x[red]\nstudy/gone.nii.gz,y\n", encoding="utf-8")
    result = run("suggest", table, "--weights", settings.weights, code=1)
    assert "[red]x[red]" in result.stdout
    assert "y failed: gone.nii.gz cannot be read" in result.stderr


def test_what_cannot_be_used_is_said_in_one_line(folder: Path, tmp_path: Path, settings: Settings) -> None:
    for args, expected in (
        (("suggest", tmp_path / "other"), "There is no study"),
        (("suggest", folder, "--weights", tmp_path / "none"), "There is no weights file"),
        (("suggest", folder, "--device", "gpu"), "Unknown device"),
        (("evaluate", folder), "There is nothing to evaluate: 3 not propagated."),
        (("propagate", folder, "--workers", 2, "--scheduler", "tcp://a:1"), "not both"),
    ):
        assert expected in run(*args, code=2).stderr
    assert "suggest" in run().stdout


def test_reorienting_is_what_these_scans_need() -> None:
    """The scans of these tests are flipped by the window, else the tests above would say little."""
    volume, _ = make_scan(0)
    way = nearest_orientation(volume.direction)
    assert way.flips == (False, True, False)
    assert reorient(volume, way).content_hash != volume.content_hash
