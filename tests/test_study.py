from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_oneseg import study_file
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.process_lock import hold, release
from napari_oneseg.study import Study, mean_confidence, open_study
from napari_oneseg.study_report import effort_rows, summary_rows, write_effort, write_summary

NAMES = ["a", "b", "c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three scans; which scans there are is told from names alone, so the files may be empty."""
    for name in NAMES:
        (tmp_path / f"{name}.nii.gz").touch()
    return tmp_path


@pytest.fixture
def study(folder: Path) -> Study:
    return open_study(folder)


def names_of(study: Study) -> list[str]:
    return [scan.name for scan in study.scans]


def content_of(study: Study) -> dict[str, Any]:
    content = json.loads(study.path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def table(folder: Path, text: str) -> Path:
    path = folder / "trial.csv"
    path.write_text(text, encoding="utf-8")
    return path


# Which scans there are


def test_a_folder_holds_scans_and_what_belongs_to_them(folder: Path) -> None:
    for name in ("b_annotation.nrrd", "b_reference.nii.gz", "c.oneseg", "c_annotation.nii.gz"):
        (folder / name).touch()
    # Drawn on scans or made from them, hidden, or of another kind.
    for name in ("a_labels.nii.gz", "a.seg.nrrd", "a-Mask.mha", "a_confidence.nii", ".d.nii.gz", "notes.txt"):
        (folder / name).touch()
    series = folder / "series" / "inner"
    series.mkdir(parents=True)
    (series / "1").write_bytes(bytes(128) + b"DICM")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "1.nii.gz").touch()
    study = open_study(folder)
    assert names_of(study) == ["a", "b", "c", "series"]
    assert study["series"].path == folder / "series"
    assert (study["a"].annotation, study["a"].reference) == (None, None)
    assert (study["b"].annotation, study["b"].reference) == (
        folder / "b_annotation.nrrd",
        folder / "b_reference.nii.gz",
    )
    assert study["c"].annotation == folder / "c.oneseg"


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table_lists_scans(folder: Path, separator: str) -> None:
    rows = [
        ["scan", "Annotation", "reference", "name", "notes"],
        ["sub/ct.nii.gz", "sub/paint.nrrd", "", "p1", '"left, then\nright; both"'],
        ["", "", "", "", ""],
        [str(folder / "b.nii.gz"), "", "truth.mha", "", ""],
    ]
    path = folder / "trial.csv"
    path.write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8-sig")
    study = open_study(path)
    assert names_of(study) == ["p1", "b"]
    assert study["p1"].path == folder / "sub" / "ct.nii.gz"
    assert study["p1"].annotation == folder / "sub" / "paint.nrrd"
    assert study["p1"].notes == "left, then\nright; both"
    assert study["b"].reference == folder / "truth.mha"
    study.set_notes("p1", "")
    assert open_study(path)["p1"].notes == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "column scan"),
        ("image,notes\na,b\n", "column scan"),
        ("scan,age\na.nii,60\n", "'age'"),
        ("scan,scan\na.nii,b.nii\n", "column scan"),
        ("scan\n", "lists no scans"),
        ("scan,notes\n,x\n", "line 2: the scan is missing"),
        ("scan\na.nii,b\n", "line 2: there are more values"),
        ("scan,name\na.nii,../b\n", "cannot be a name"),
        ("scan\np1/ct.nii\np2/CT.nii\n", "Two scans of the study are called CT"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        open_study(table(tmp_path, text))


def test_what_is_no_study_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="holds no scans"):
        open_study(folder / "empty")
    with pytest.raises(InputError, match="There is no study"):
        open_study(folder / "other")
    with pytest.raises(InputError, match=r"a\.nii\.gz is no study"):
        open_study(folder / "a.nii.gz")
    (folder / "a.mha").touch()
    with pytest.raises(InputError, match="Two scans of the study are called a"):
        open_study(folder)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trial.csv").write_bytes(b"scan\n\xff\xfe\n")
    with pytest.raises(InputError, match="cannot be read as a CSV"):
        open_study(tmp_path / "trial.csv")


def test_a_study_is_opened_by_its_file(study: Study, folder: Path) -> None:
    study.set_status("a", "done")
    assert open_study(study.path).source == folder
    listed = open_study(table(folder, "scan\na.nii.gz\n"))
    listed.set_status("a", "skipped")
    assert open_study(listed.path)["a"].status == "skipped"
    assert (study.results, listed.results) == (folder / "oneseg-results", folder / "trial.oneseg-results")


# The way through the worklist


def test_next_and_previous(study: Study) -> None:
    assert study.next() == study["a"]
    study.set_status("b", "in progress")
    assert study.next() == study["b"]
    assert study.next("b") == study["c"]
    study.set_status("c", "skipped")
    assert study.next("b") == study["a"]
    study.set_status("a", "done")
    assert study.next("b") is None
    assert study.next("c") == study["b"]
    assert study.previous("c") == study["b"]
    assert study.previous("a") is None
    study.set_status("b", "failed")
    assert study.next() is None
    with pytest.raises(InputError, match="no scan d; its scans are a, b, c"):
        study.next("d")


# What was done


def test_what_was_done_is_kept_and_resumed(study: Study, folder: Path) -> None:
    assert not study.path.exists()
    study.add_time("b", 90)
    study.add_time("b", 30.5)
    study.set_notes("b", "Zyste")
    study.record_result("b", 2, 1, {np.uint8(1): np.float32(10.5), 3: 0.25}, np.float32(0.75))
    study.record({"b": {"suggested": (7, 3)}, "c": {"status": "failed", "problem": "No."}})
    again = open_study(folder)
    assert again.scans == study.scans
    scan = again["b"]
    assert (scan.seconds, scan.notes, scan.slices_painted, scan.corrections) == (120.5, "Zyste", 2, 1)
    assert (scan.volumes_ml, scan.mean_confidence, scan.suggested) == ({1: 10.5, 3: 0.25}, 0.75, (7, 3))
    assert again["c"].problem == "No."
    again.set_status("c", "open")
    assert again["c"].problem == ""


def test_the_file_says_nothing_of_where_it_lies(folder: Path) -> None:
    path = table(folder, f"scan,annotation,name\n{folder / 'a.nii.gz'},{folder / 'x.nrrd'},p1\n")
    study = open_study(path)
    study.record_result("p1", 1, 0, {1: 2.0}, 0.5)
    text = study.path.read_text(encoding="utf-8")
    assert str(folder) not in text
    assert "a.nii.gz" not in text
    moved = folder / "moved"
    moved.mkdir()
    for file in (path, study.path):
        file.rename(moved / file.name)
    assert open_study(moved / path.name)["p1"].volumes_ml == {1: 2.0}


def test_scans_may_come_and_go(study: Study, folder: Path) -> None:
    study.add_time("a", 5)
    (folder / "a.nii.gz").rename(folder / "aa.nii.gz")
    study.refresh()
    assert names_of(study) == ["aa", "b", "c"]
    study.add_time("aa", 1)
    (folder / "aa.nii.gz").rename(folder / "a.nii.gz")
    assert open_study(folder)["a"].seconds == 5
    with pytest.raises(InputError, match="no scan a;"):
        study.add_time("a", 1)


def test_what_another_program_wrote_meanwhile_stays(study: Study, folder: Path) -> None:
    other = open_study(folder)
    other.set_status("a", "done")
    other.add_time("b", 10)
    study.add_time("b", 5)
    study.set_status("c", "skipped")
    assert [scan.status for scan in study.scans] == ["done", "open", "skipped"]
    assert study["b"].seconds == 15
    assert other["b"].seconds == 10
    other.refresh()
    assert other.scans == study.scans


def test_processes_that_write_at_once_lose_nothing(study: Study, folder: Path) -> None:
    code = (
        "import sys; from napari_oneseg.study import open_study\n"
        "study = open_study(sys.argv[1])\n"
        "for _ in range(20): study.add_time(sys.argv[2], 1); study.add_time('c', 1)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, folder, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in running] == [0, 0]
    study.refresh()
    assert [scan.seconds for scan in study.scans] == [20, 20, 40]
    assert {path.name for path in folder.glob(".*")} == {f".{study.path.name}.lock"}


def test_a_file_locked_for_long_is_reported(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_file, "_PATIENCE_SECONDS", 0.05)
    lock = hold(study.path.with_name(f".{study.path.name}.lock"))
    assert lock is not None
    with pytest.raises(OutputError, match="another program has kept it locked"):
        study.add_time("a", 1)
    release(lock)
    study.add_time("a", 1)
    assert study["a"].seconds == 1


def test_a_folder_that_may_not_be_written_to(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(study_file, "hold", refuse)
    with pytest.raises(OutputError, match="cannot be written: Permission denied"):
        study.add_time("a", 1)


@pytest.mark.parametrize(
    "values",
    [
        {"status": "finished"},
        {"seconds": -1.0},
        {"seconds": math.nan},
        {"slices_painted": 1.5},
        {"corrections": True},
        {"mean_confidence": 1.5},
        {"volumes_ml": {"liver": 1.0}},
        {"volumes_ml": {1: -1.0}},
        {"suggested": [1, -1]},
        {"notes": None},
        {"path": "elsewhere"},
    ],
)
def test_values_that_no_scan_has_are_refused(study: Study, values: dict[str, Any]) -> None:
    study.add_time("a", 1)
    before = study.path.read_bytes()
    with pytest.raises(InputError, match=f"Of scan a the study keeps '{next(iter(values))}'"):
        study.record({"b": {"notes": "x"}, "a": values})
    assert study.path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": "other"}, "no study file"),
        ({"version": 2}, "version 2, and version 1 was expected"),
        ({"owner": "x"}, "the unknown key 'owner'"),
        ({"scans": []}, "no scans"),
        ({"scans": {"a": []}}, "Of scan a the study must keep named values"),
        ({"scans": {"a": {"age": 60}}}, "'age', which is unknown; known are status"),
    ],
)
def test_study_files_with_something_else_are_refused(
    study: Study, folder: Path, change: dict[str, Any], expected: str
) -> None:
    study.add_time("a", 1)
    study.path.write_text(json.dumps(content_of(study) | change), encoding="utf-8")
    before = study.path.read_bytes()
    for use in (study.refresh, lambda: study.add_time("a", 1), lambda: open_study(folder)):
        with pytest.raises(InputError, match=expected):
            use()
    assert study.path.read_bytes() == before


@pytest.mark.parametrize("damaged", [b"", b'{"format"', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_study_file_is_refused(study: Study, damaged: bytes) -> None:
    study.path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"study file .* (damaged|cannot be read)"):
        study.refresh()
    assert study.path.read_bytes() == damaged


# Tables


def test_the_summary_has_a_volume_for_every_label(study: Study, folder: Path) -> None:
    study.record_result("a", 3, 1, {1: 1500.0}, 0.8)
    study.record_result("b", 1, 0, {10: 0.5, 2: 20.12345})
    study.add_time("a", 75)
    study.set_notes("a", 'fatty, "large"')
    rows = summary_rows(study.scans)
    assert list(rows[0]) == list(rows[2])
    assert [key for key in rows[0] if key.startswith("volume")] == ["volume_ml_1", "volume_ml_2", "volume_ml_10"]
    assert (rows[0]["minutes"], rows[1]["volume_ml_2"], rows[1]["volume_ml_1"]) == (1.25, 20.123, None)
    write_summary(folder / "summary.csv", study.scans)
    with (folder / "summary.csv").open(encoding="utf-8-sig", newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0]["notes"] == 'fatty, "large"'
    assert (read[0]["slices_painted"], read[0]["mean_confidence"], read[2]["mean_confidence"]) == ("3", "0.8", "")


def test_the_effort_of_scans_that_were_worked_on(study: Study, folder: Path) -> None:
    assert effort_rows(study.scans) == []
    write_effort(folder / "none.csv", study.scans)
    assert (folder / "none.csv").read_text(encoding="utf-8-sig").startswith("scan,status,minutes,slices_painted")
    study.add_time("a", 60)
    study.record_result("a", 1, 0, {})
    study.add_time("b", 180)
    study.record_result("b", 4, 2, {})
    rows = effort_rows(study.scans)
    assert [row["scan"] for row in rows] == ["a", "b", "median of 2", "total of 2"]
    columns = ("minutes", "slices_painted", "corrections")
    assert [tuple(row[column] for column in columns) for row in rows] == [(1, 1, 0), (3, 4, 2), (2, 2.5, 1), (4, 5, 2)]


@pytest.mark.parametrize("skipped", [1, 2, 3])
def test_scans_skipped_after_a_glance_do_not_pull_the_medians_down(study: Study, skipped: int) -> None:
    scans = study.scans
    worked = [replace(scans[0], name=name, seconds=600, slices_painted=3, status="done") for name in "abc"]
    glances = [replace(scans[0], name=f"skipped {k}", seconds=6, status="skipped") for k in range(skipped)]
    rows = {row["scan"]: row for row in effort_rows([*worked, *glances])}
    assert (rows["median of 3"]["minutes"], rows["median of 3"]["slices_painted"]) == (10, 3)
    assert rows[f"total of {3 + skipped}"]["minutes"] == pytest.approx(30 + 0.1 * skipped)
    assert [row["scan"] for row in effort_rows(glances)][-1] == f"total of {skipped}"


def test_mean_confidence_leaves_painted_and_unreached_slices_out() -> None:
    labels = np.zeros((6, 2, 2), np.uint8)
    labels[1:5, 0, 0] = 1
    scores = np.array([0.1, 0.5, 1.0, np.nan, 0.75, 0.2], np.float32)
    assert mean_confidence(labels, scores, {2}) == 0.625
    assert mean_confidence(labels, scores, {1, 2, 3, 4}) is None
    assert mean_confidence(np.zeros_like(labels), scores, ()) is None
