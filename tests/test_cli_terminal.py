"""The command ``oneseg`` in terminals that know few letters, with names that are none, and where printing fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner, Result

from napari_oneseg.batch import Settings, Stage, run_task, tasks_of
from napari_oneseg.checkpoint import save_weights
from napari_oneseg.cli import app
from napari_oneseg.config import FeatureConfig, PreprocessingConfig
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.io import read_volume
from napari_oneseg.study import open_study

SHAPE = (8, 32, 36)
ODD = os.fsdecode(b"sch\xe4del")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes for a name")
needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network, which is quick."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    config = FeatureConfig(widths=(8, 8, 8, 8), width_factor=1.0, channels=8, gabor_size=5, null_match=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(path, FeatureNetwork(config), PreprocessingConfig(working_size=64), {"data": "none"})
    return path


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:  # nibabel writes the name into a compressed file
        file.write(nib.Nifti1Image(array.T, np.diag([1.0, 1.5, 4.0, 1.0])).to_bytes())
    return path


def scan(path: Path) -> Path:
    grey = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.int16)
    grey[2:6, 8:20, 10:24] += 200
    return save(path, grey)


def labels(path: Path, slices: slice = slice(2, 6)) -> Path:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[slices, 8:20, 10:24] = 1
    return save(path, drawn)


def oneseg(*words: str | Path, encoding: str = "utf-8") -> Result:
    """Run the command in this process, with streams as a terminal of that encoding has them."""
    return CliRunner(charset=encoding).invoke(app, list(map(str, words)))


def process(*words: str | Path, to: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; ``to`` names a file for its standard output, or "closed pipe"."""
    program = [sys.executable, "-c", "from napari_oneseg.cli import main; main()", *map(str, words)]
    if to == "closed pipe":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open(to, os.O_WRONLY)
    with os.fdopen(write, "wb") as out:
        return subprocess.run(program, stdout=out, stderr=subprocess.PIPE, text=True, check=False)


def is_well(done: Result, code: int = 0) -> None:
    assert done.exit_code == code, done.output
    assert isinstance(done.exception, SystemExit | None)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_of_another_script_and_results_are_both_there(tmp_path: Path, weights: Path, encoding: str) -> None:
    for folder in ("study", "images"):
        scan(tmp_path / folder / "腹部.nii")
    labels(tmp_path / "labels" / "腹部.nii")
    (tmp_path / "names.json").write_text('{"1": "肝"}', encoding="utf-8")
    told = oneseg("batch", "summary", tmp_path / "study", "-o", tmp_path / "s.csv", encoding=encoding)
    is_well(told)
    assert "腹部" in (tmp_path / "s.csv").read_text(encoding="utf-8-sig")
    words = ("evaluate", tmp_path / "images", tmp_path / "labels", "--names", tmp_path / "names.json")
    scored = oneseg(*words, "--weights", weights, "--json", tmp_path / "scores.json", encoding=encoding)
    is_well(scored)
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["results"]
    assert ("腹部" if encoding == "utf-8" else "\\u8179\\u90e8") in told.stdout
    assert ("肝" if encoding == "utf-8" else "\\u809d") in scored.stdout


@only_linux
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_scan_whose_name_is_not_utf_8(tmp_path: Path, weights: Path, encoding: str) -> None:
    path = scan(tmp_path / f"{ODD}.nii")
    is_well(oneseg("suggest", path, "--weights", weights, "--figure", tmp_path / f"{ODD}.png", encoding=encoding))
    painted = labels(tmp_path / f"{ODD}.painted.nii", slice(4, 5))
    folder = tmp_path / os.fsdecode(b"M\xfcller")
    folder.mkdir()
    outputs = [folder / f"{ODD}{ending}" for ending in (".nii.gz", ".json", ".png")]
    words = ("propagate", path, painted, "-o", outputs[0], "--report", outputs[1], "--figure", outputs[2])
    is_well(oneseg(*words, "--weights", weights, encoding=encoding))
    assert all(output.exists() for output in outputs)
    assert read_volume(outputs[0]).array.shape == SHAPE
    missing = oneseg("suggest", folder / f"{ODD}.mha", encoding=encoding)
    is_well(missing, 2)
    assert "There is no file" in missing.stderr


@only_linux
def test_a_study_and_weights_with_such_names(tmp_path: Path, weights: Path) -> None:
    study = tmp_path / os.fsdecode(b"Stud\xefe")
    scan(study / "b.nii")
    scan(study / f"{ODD}.nii")
    labels(study / f"{ODD}_annotation.nii", slice(4, 5))
    labels(study / f"{ODD}_reference.nii")
    own = tmp_path / f"{ODD}.safetensors"
    own.write_bytes(weights.read_bytes())
    is_well(oneseg("batch", "propagate", study, "--workers", "1", "--weights", own, encoding="ascii"))
    is_well(oneseg("batch", "evaluate", study, "--workers", "1", encoding="ascii"))
    rows = oneseg("batch", "summary", study, "--json", "-o", tmp_path / "s.csv")
    is_well(rows)
    assert {row["scan"] for row in json.loads(rows.stdout)["scans"]} == {"b", ODD}
    assert "sch\\udce4del" in (tmp_path / "s.csv").read_text(encoding="utf-8-sig")


@needs_full_device
@pytest.mark.parametrize("to", ["/dev/full", "closed pipe"])
@pytest.mark.parametrize("words", [("--help",), ("--version",), ("batch", "summary", "STUDY", "--json")])
def test_output_that_nobody_takes(tmp_path: Path, to: str, words: tuple[str, ...]) -> None:
    scan(tmp_path / "scan.nii")
    done = process(*[str(tmp_path) if word == "STUDY" else word for word in words], to=to)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: The results could not be printed (")
    assert done.stderr.count("\n") == 1


@needs_full_device
def test_results_are_written_where_nobody_takes_the_output(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, painted = scan(tmp_path / "scan.nii"), labels(tmp_path / "painted.nii", slice(4, 5))
    words = ("propagate", path, painted, "-o", tmp_path / "o.nii.gz", "--report", tmp_path / "o.json")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as left:
            get_command(app).main([*map(str, words), "--weights", str(weights)])
    assert left.value.code == 2
    assert capfd.readouterr().err.startswith("Error: The results could not be printed (")
    assert (tmp_path / "o.nii.gz").exists()
    assert (tmp_path / "o.json").exists()


LONG = "y" * 260
TOO_LONG = [
    ("propagate", "scan.nii", "painted.nii", "-o", f"{LONG}.nii.gz"),
    ("propagate", "scan.nii", "painted.nii", "-o", "o.nii.gz", "--report", f"{LONG}.json"),
    ("propagate", f"{LONG}.nii", "painted.nii", "-o", "o.nii.gz"),
    ("suggest", f"{LONG}/scan.nii"),
    ("suggest", "scan.nii", "--weights", LONG),
    ("suggest", "scan.nii", "--figure", f"{LONG}.png"),
    ("batch", "suggest", LONG),
    ("batch", "summary", ".", "-o", f"{LONG}.csv"),
    ("evaluate", ".", LONG),
    ("evaluate", ".", ".", "--json", f"{LONG}.json"),
    ("adapt", "scan.nii", "-o", f"{LONG}.safetensors"),
]


@pytest.mark.parametrize("words", TOO_LONG, ids=[" ".join(words).replace(LONG, "LONG") for words in TOO_LONG])
def test_a_name_that_the_disk_does_not_take(tmp_path: Path, words: tuple[str, ...]) -> None:
    scan(tmp_path / "scan.nii")
    labels(tmp_path / "painted.nii", slice(4, 5))
    arguments = [str(tmp_path / word) if "." in word or "y" * 9 in word else word for word in words]
    done = oneseg(*arguments)
    is_well(done, 2)
    assert "too long" in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 600


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        ("propagate", f"a.nii,painted.nii,{'y' * 250}"),
        ("suggest", f"{LONG}.nii,,a"),
        ("propagate", f"a.nii,{LONG}.nii,a"),
    ],
    ids=["results", "scan", "annotation"],
)
def test_a_scan_of_a_study_whose_name_is_too_long_is_no_defect(
    tmp_path: Path, weights: Path, stage: Stage, row: str
) -> None:
    scan(tmp_path / "a.nii")
    labels(tmp_path / "painted.nii", slice(4, 5))
    table = tmp_path / "study.csv"
    table.write_text(f"scan,annotation,name\n{row}\n", encoding="utf-8")
    ((task,), _) = tasks_of(open_study(table), stage, Settings(weights, "cpu"))
    outcome = run_task(task)
    assert outcome.status == "failed"
    assert "name is too long for this disk" in outcome.problem
