"""One step of a study, scan by scan: a task goes in, what came of it comes out.

:func:`run_task` is all that a worker has to know, in a process on this computer or on another one of a cluster. A task
and its outcome are plain values that can be sent; scans and labels are read and written by the worker itself.

Scans are read in the order in which the window shows them, so suggested slices are those which the user will see, and
the features that are kept on disk are those which the window will look for.

What is there and was made from the same scan, painting, weights and parameters by the same version is kept. That is
told from a hash in the record beside each result. Labels that were made in the window, or changed since, are never
replaced; nor are sessions of the window: what it is to show lies beside them (:mod:`napari_oneseg.batch_session`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_oneseg import __version__
from napari_oneseg.batch_records import digest_of, kept_labels, number_or_none, read_record, write_record
from napari_oneseg.batch_session import is_propagated_from, propagated_path, save_propagated
from napari_oneseg.checkpoint import load_weights
from napari_oneseg.config import PropagationConfig, ScreeningConfig
from napari_oneseg.errors import InputError, OneSegError
from napari_oneseg.evaluation.cases import Case
from napari_oneseg.evaluation.metrics import OrganScore, score_labels
from napari_oneseg.evaluation.protocols import CaseResult, slice_order_spacing
from napari_oneseg.features.cache import user_cache
from napari_oneseg.io import read_labels, read_volume, write_labels
from napari_oneseg.planes import PLANES
from napari_oneseg.provenance import export_record, file_place, propagation_record
from napari_oneseg.session import OneSegSession, Propagation
from napari_oneseg.session_file import load_record, load_session
from napari_oneseg.session_order import in_scan_order
from napari_oneseg.study import Study, StudyScan, mean_confidence
from napari_oneseg.study_scans import SESSION_ENDING
from napari_oneseg.volume import Annotation, Volume

__all__ = ["Outcome", "Settings", "Stage", "Task", "labels_path", "run_task", "tasks_of"]

Stage = Literal["suggest", "propagate", "evaluate"]

SUGGESTIONS = 5
"""How many slices are suggested for each scan."""


@dataclass(frozen=True)
class Settings:
    """What all tasks of a run share.

    Attributes
    ----------
    weights, device, threads, propagation
        As for :class:`~napari_oneseg.session.OneSegSession`; a session file brings parameters of its own.
    anew
        Whether to compute what is there already; labels made or changed in the window or by others stay.
    """

    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None
    propagation: PropagationConfig = field(default_factory=PropagationConfig)
    anew: bool = False


@dataclass(frozen=True)
class Task:
    """One stage of one scan; see :class:`~napari_oneseg.study.StudyScan` for the first fields.

    Attributes
    ----------
    results
        Folder to write into.
    suggested_from
        What the suggestions that the study has were made from.
    """

    stage: Stage
    name: str
    path: Path
    annotation: Path | None
    reference: Path | None
    results: Path
    suggested_from: str
    settings: Settings


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes
    ----------
    name
        The scan's.
    status
        ``made``, ``kept`` where it was there already, or ``failed``.
    values
        What the study is to keep: fields of :class:`~napari_oneseg.study.StudyScan`.
    suggestions
        Of the stage ``suggest``, where it was made now: each slice's index, and where it lies in the file.
    scores
        Of the stage ``evaluate``.
    problem
        Why it failed, as a sentence that names no folder.
    remarks
        What the user must be told of the scan.
    seconds
        How long it took.
    """

    name: str
    status: Literal["made", "kept", "failed"]
    values: dict[str, Any] = field(default_factory=dict)
    suggestions: tuple[dict[str, int], ...] = ()
    scores: CaseResult | None = None
    problem: str = ""
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0


def tasks_of(study: Study, stage: Stage, settings: Settings) -> tuple[list[Task], dict[str, str]]:
    """Return the tasks of a stage in the order of the worklist, and for each scan that is left out why it is."""
    tasks, left_out = [], {}
    for scan in study.scans:
        painted = _painted(study, scan) if stage == "propagate" else None
        if scan.status == "skipped":
            left_out[scan.name] = "skipped"
        elif stage == "propagate" and painted is None:
            left_out[scan.name] = "nothing painted"
        elif stage == "evaluate" and scan.reference is None:
            left_out[scan.name] = "no reference"
        elif stage == "evaluate" and not labels_path(study.results, scan.name).exists():
            left_out[scan.name] = "not propagated"
        else:
            # Absolute, because a worker may run elsewhere.
            annotation, reference = (path and path.absolute() for path in (painted, scan.reference))
            files = scan.path.absolute(), annotation, reference, study.results.absolute()
            tasks.append(Task(stage, scan.name, *files, scan.suggested_from, settings))
    return tasks, left_out


def _painted(study: Study, scan: StudyScan) -> Path | None:
    """Return what was painted on a scan: in the window, as it was left last, or else what the study lists."""
    # In another plane than the scan was taken in, the window adds the plane to the name.
    sessions = [study.results / f"{scan.name}{SESSION_ENDING}"]
    sessions += [study.results / f"{scan.name} ({plane}){SESSION_ENDING}" for plane in PLANES]
    left = [path for path in sessions if path.exists() and _shows_work(path)]
    return max(left, key=lambda path: path.stat().st_mtime_ns) if left else scan.annotation


def _shows_work(session: Path) -> bool:
    try:
        record = load_record(session)
    except InputError:
        return True  # whoever reads it will say what is wrong with it
    return bool(record["painted"] or record["frozen"])


def labels_path(results: Path, name: str) -> Path:
    """Return where the labels of a scan are written."""
    return results / f"{name}_labels.nii.gz"


def run_task(task: Task) -> Outcome:
    """Do what a task says and write its result.

    What is the scan's, the painting's or the disk's fault is a failed outcome; a defect of the program is raised.
    """
    clock = time.perf_counter()
    stages = {"suggest": _suggest, "propagate": _propagate, "evaluate": _evaluate}
    try:
        outcome = stages[task.stage](task)
    except OneSegError as error:
        outcome = Outcome(task.name, "failed", problem=_without_folders(str(error), task))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        outcome = Outcome(task.name, "failed", problem="Its name is too long for this disk; give it a shorter one.")
    return replace(outcome, seconds=round(time.perf_counter() - clock, 3))


# The stages ---------------------------------------------------------------------------------------------------------


def _suggest(task: Task) -> Outcome:
    made_from = _made_from(task, [task.path], {"screening": ScreeningConfig().to_dict(), "count": SUGGESTIONS})
    if made_from == task.suggested_from and not task.settings.anew:
        return Outcome(task.name, "kept")
    session = _session(task.settings)
    volume = read_volume(task.path)
    _open(session, volume)
    best = [int(suggestion.index) for suggestion in session.suggest_slices(top=SUGGESTIONS)]
    places = tuple({"index": index, **file_place(volume, index)} for index in best)
    return Outcome(task.name, "made", {"suggested": best, "suggested_from": made_from}, places)


def _propagate(task: Task) -> Outcome:
    assert task.annotation is not None  # tasks_of
    made_from = _made_from(task, [task.path, task.annotation], {"propagation": task.settings.propagation.to_dict()})
    labels = labels_path(task.results, task.name)
    beside = labels.with_name(f"{task.name}_labels.json")
    opened, painting = propagated_path(task.results, task.name), digest_of(task.annotation)
    anew = task.settings.anew or not is_propagated_from(opened, painting)
    kept = kept_labels(labels, read_record(beside), made_from, anew)
    if kept is not None:
        return Outcome(task.name, "kept", kept)
    clock = time.perf_counter()
    session = _session(task.settings)
    extras = _open_annotated(session, task.path, task.annotation)
    slice_range = _chosen_range(extras)
    result = _propagated(session, slice_range)
    seconds = {"all": round(time.perf_counter() - clock, 3)}
    record = propagation_record(session, result, slice_range, session.state.direction, seconds)
    record["confidence"] = [number_or_none(score) for score in record["confidence"]]
    record["export"] = export_record(labels.name, session.volume)
    values = _values(session, result)
    kept = kept_labels(labels, read_record(beside), made_from, anew)
    if kept is not None:  # the window, or another run, was faster
        return Outcome(task.name, "kept", kept)
    # First a record that says that the labels are being replaced, whatever may happen then.
    write_record(beside, record | {"made_from": "", "result": values})
    write_labels(labels, session.volume.from_slices(result.labels), session.volume)
    save_propagated(opened, session, extras, painting)
    write_record(beside, record | {"made_from": made_from, "result": values, "labels_sha256": digest_of(labels)})
    return Outcome(task.name, "made", values)


def _evaluate(task: Task) -> Outcome:
    assert task.reference is not None  # tasks_of
    labels = labels_path(task.results, task.name)
    made_from = _made_from(task, [task.path, labels, task.reference], {})
    beside = task.results / f"{task.name}_scores.json"
    before = None if task.settings.anew else read_record(beside)
    if before is not None and before["made_from"] == made_from:
        scores = tuple(_score(values) for values in before["scores"])
        return Outcome(task.name, "kept", scores=CaseResult(task.name, scores, {}, 0.0))
    volume = read_volume(task.path)
    case = Case(task.name, volume, volume.to_slices(read_labels(task.reference, volume)))
    result = volume.to_slices(read_labels(labels, volume))
    held = [int(label) for label in np.unique(case.reference) if label]
    scores = score_labels(result, case.reference, slice_order_spacing(volume), held)
    plain = [{key: number_or_none(value) for key, value in asdict(score).items()} for score in scores]
    write_record(beside, {"made_from": made_from, "scores": plain})
    return Outcome(task.name, "made", scores=CaseResult(task.name, scores, {}, 0.0))


# A scan and what was painted on it ----------------------------------------------------------------------------------


def _session(settings: Settings) -> OneSegSession:
    return OneSegSession(
        settings.weights, settings.device, settings.threads, propagation=settings.propagation, cache=user_cache()
    )


def _open(session: OneSegSession, volume: Volume) -> None:
    session.set_volume(volume)
    session.keep_features()


def _open_annotated(session: OneSegSession, path: Path, annotation: Path) -> Mapping[str, Any]:
    """Open a scan with what was painted on it; return what else its session says."""
    if annotation.suffix == SESSION_ENDING:
        saved = load_session(annotation)
        volume = read_volume(path, saved.slice_axis)
        saved = in_scan_order(saved, volume)
        if saved.slice_axis not in (None, volume.axis):
            volume = replace(volume, slice_axis=saved.slice_axis)
        _open(session, volume)
        session.restore(saved)
        return saved.extras
    volume = read_volume(path)
    # Before the features, which take far longer.
    painted = Annotation.from_labels(volume.to_slices(read_labels(annotation, volume)))
    _open(session, volume)
    session.set_annotation(painted)
    return {}


def _chosen_range(extras: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the first and the last slice to label, if the user has said which."""
    chosen = extras.get("range")
    return (int(chosen[0]), int(chosen[1])) if chosen else None


def _propagated(session: OneSegSession, slice_range: tuple[int, int] | None) -> Propagation:
    """Carry on what was painted; what a session holds already is renewed only where it is out of date."""
    return session.update() if session.state.results else session.propagate(slice_range)


def _values(session: OneSegSession, result: Propagation) -> dict[str, Any]:
    """Return what the study keeps of a propagated scan."""
    state = session.state
    return {
        "slices_painted": len(state.painted),
        "corrections": len(state.complete),
        "volumes_ml": {str(label): round(volume, 6) for label, volume in result.volumes_ml.items()},
        "mean_confidence": mean_confidence(result.labels, result.slice_confidence, state.annotation.slices),
    }


# What was made before -----------------------------------------------------------------------------------------------


def _made_from(task: Task, files: Iterable[Path], parameters: dict[str, Any]) -> str:
    """Return a hash over all that decides a result."""
    weights = None if task.stage == "evaluate" else load_weights(task.settings.weights).sha256
    content = [digest_of(path) for path in files]
    parts = [task.stage, __version__, weights, content, parameters]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _score(values: dict[str, Any]) -> OrganScore:
    known: dict[str, Any] = {key: math.nan if value is None else value for key, value in values.items()}
    return OrganScore(**known)


def _without_folders(text: str, task: Task) -> str:
    """Return a message that may be kept and shown anywhere: it names files, and not where they lie."""
    known = [task.path, task.annotation, task.reference, task.results, task.settings.weights]
    for path in known:
        if path is not None:
            text = text.replace(str(path), path.name).replace(f"{path.parent}{os.sep}", "")
    return text
