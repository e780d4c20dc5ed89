from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import pytest
import torch
import typer
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from typer.testing import CliRunner, Result

from napari_oneseg import __version__
from napari_oneseg.checkpoint import load_weights, save_weights
from napari_oneseg.cli import app
from napari_oneseg.cli.console import to_json
from napari_oneseg.cli.options import config_options, parse_numbers, parse_range
from napari_oneseg.config import FeatureConfig, PreprocessingConfig, PropagationConfig
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.files import replacing
from napari_oneseg.io import read_labels, read_volume, write_image, write_labels
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Volume
from tests.dicom_files import UID, grey, put_pixels, save_series

COMMANDS = ("suggest", "propagate", "evaluate", "demo", "adapt", "train", "info")
SHAPE = (10, 40, 48)
PAINTED = 5
PNG = b"\x89PNG\r\n"


def ball(centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    z, y, x = np.indices(SHAPE)
    distance = (4 * (z - centre[0])) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
    return distance < radius**2


def make_scan(seed: int) -> tuple[Volume, NDArray[np.uint8]]:
    """A bright and a dark ball in grey noise; both begin and end within the scan."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[ball((5, 20, 15), 13)] = 1
    labels[ball((5, 20, 36), 9)] = 3
    grey = np.array([100, 220, 0, 20], np.float32)[labels]
    grey += np.random.default_rng(seed).normal(0, 4, SHAPE)
    # Half of the body's outside is air, so that the slices have an outline too.
    grey[:, :4] = -500
    return Volume(grey.astype(np.float32), (4.0, 1.0, 1.5), (10.0, -20.0, 5.0)), labels


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network: quick, and position alone makes it copy labels from slice to slice."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    config = FeatureConfig(widths=(8, 8, 8, 8), width_factor=1.0, channels=8, gabor_size=5, null_match=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(path, FeatureNetwork(config), PreprocessingConfig(working_size=64), {"data": "none"})
    return path


@pytest.fixture
def case(tmp_path: Path) -> dict[str, Path]:
    """A scan, its labels, and an annotation with one painted slice, as files."""
    volume, labels = make_scan(0)
    painted = np.zeros_like(labels)
    painted[PAINTED] = labels[PAINTED]
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("scan", "truth", "painted")}
    write_image(files["scan"], volume.array, volume)
    write_labels(files["truth"], labels, volume)
    write_labels(files["painted"], painted, volume)
    return files


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two scans and their labels in two folders."""
    images, references = tmp_path / "images", tmp_path / "labels"
    for folder in (images, references):
        folder.mkdir()
    for seed in (1, 2):
        volume, labels = make_scan(seed)
        write_image(images / f"case{seed}.nii.gz", volume.array, volume)
        write_labels(references / f"case{seed}.nii.gz", labels, volume)
    return images, references


def run(*args: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def refused(*args: object) -> str:
    """Run what must be refused; return the one line that says why."""
    result = run(*args, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def propagate(case: dict[str, Path], weights: Path, *args: object) -> tuple[object, ...]:
    return (
        "propagate",
        case["scan"],
        case["painted"],
        "-o",
        case["scan"].with_name("out.nii.gz"),
        "--weights",
        weights,
        *args,
    )


def labels_written(case: dict[str, Path], name: str = "out.nii.gz") -> NDArray[np.unsignedinteger]:
    return read_labels(case["scan"].with_name(name), read_volume(case["scan"]))


# The program as a whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert "--json" in run(command, "--help").stdout


def test_without_a_command_the_help_is_shown() -> None:
    shown = run().stdout
    assert all(command in shown for command in COMMANDS)


def test_version() -> None:
    assert run("--version").stdout == f"napari-oneseg {__version__}\n"


def test_the_help_loads_no_heavy_package() -> None:
    heavy = ["torch", "numpy", "sklearn", "SimpleITK", "matplotlib", "napari"]
    code = f"import sys, napari_oneseg.cli; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, timeout=60)
    assert done.stdout.split() == []


def test_a_real_process_ends_with_code_2_and_one_line() -> None:
    code = "from napari_oneseg.cli import main; main()"
    args = ["propagate", "a.nii.gz", "b.nii.gz", "-o", "c.nii.gz", "--range", "7"]
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, encoding="utf-8", check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: --range must be FIRST:LAST, for instance 20:45, got '7'.\n"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["suggest"], "Missing argument 'IMAGE'. See oneseg suggest --help."),
        (["suggest", "a.nii.gz", "--wrong"], "No such option"),
        (["suggest", "a.nii.gz", "--axis", "3"], "--axis"),
        (["suggest", "a.nii.gz", "--top", "0"], "--top"),
        (["propagate", "a.nii.gz", "b.nii.gz"], "--output"),
        (["propagate", "a.nii.gz", "b.nii.gz", "-o", "c.nii", "--direction", "left"], "--direction"),
        (["evaluate", "a", "b", "--protocol", "best"], "--protocol"),
        (["info", "--device", "abacus"], "Unknown device 'abacus'"),
    ],
)
def test_what_was_typed_wrongly_is_said_in_one_line(args: list[str], expected: str) -> None:
    # The name of the program is that of the entry point.
    result = CliRunner().invoke(app, args, prog_name="oneseg")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert expected in result.stderr


def test_ctrl_c_ends_with_130_and_without_a_traceback(
    case: dict[str, Path], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(OneSegSession, "propagate", interrupt)
    result = run(*propagate(case, weights), code=130)
    assert (result.stdout, result.stderr) == ("", "Stopped.\n")
    assert sorted(path.name for path in case["scan"].parent.iterdir()) == [
        "painted.nii.gz",
        "scan.nii.gz",
        "truth.nii.gz",
    ]


def test_a_defect_is_not_hidden(case: dict[str, Path], weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(OneSegSession, "propagate", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        run(*propagate(case, weights))


def test_warnings_are_one_line_on_standard_error(
    case: dict[str, Path], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(*args: Any) -> Volume:
        with warnings.catch_warnings(action="always"):
            warnings.warn("slices are\nuneven", stacklevel=2)
        return read_volume(*args)

    monkeypatch.setattr("napari_oneseg.io.read_volume", warn)
    result = run("suggest", case["scan"], "--weights", weights, "--json")
    assert result.stderr == "Warning: slices are uneven\n"
    json.loads(result.stdout)


# Options -------------------------------------------------------------------------------------------------------------


def test_ranges() -> None:
    assert parse_range(None) is None
    assert parse_range("3:12") == (3, 12)


@pytest.mark.parametrize("text", ["", "3", "3:", ":3", "3-12", "a:b", "-1:4", "1:2:3", "1.5:3", "\u0663:4"])
def test_ranges_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="FIRST:LAST"):
        parse_range(text)


def test_numbers() -> None:
    assert parse_numbers(None, "--complete") is None
    assert parse_numbers("12, 0,30", "--complete") == (12, 0, 30)


@pytest.mark.parametrize("text", ["", "1,,2", "1;2", "one", "-1", "0,1", "2,2", "1.5"])
def test_numbers_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--labels"):
        parse_numbers(text, "--labels", least=1)


def test_a_configuration_becomes_options() -> None:
    taken: list[tuple[str, PropagationConfig]] = []
    small = typer.Typer()

    @small.command()
    @config_options("propagation", PropagationConfig)
    def command(name: Annotated[str, typer.Argument()], propagation: PropagationConfig) -> None:
        taken.append((name, propagation))

    assert CliRunner().invoke(small, ["x", "--window", "9", "--end-area", "0.5"]).exit_code == 0
    assert CliRunner().invoke(small, ["y"]).exit_code == 0
    assert taken == [("x", PropagationConfig(window=9, end_area=0.5)), ("y", PropagationConfig())]


def test_json_knows_no_nan() -> None:
    assert json.loads(to_json({1: [float("nan"), 2.0], "a": (float("inf"),)})) == {"1": [None, 2.0], "a": [None]}


# Output files --------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"a\.json was not written: the disk is full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def no_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the computation began before all input had been checked")

    monkeypatch.setattr(OneSegSession, "set_volume", refuse)


@pytest.mark.usefixtures("no_computation")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"-o": "out.txt"}, "must end in .nii.gz"),
        ({"-o": "missing/out.nii.gz"}, "does not exist; create it first"),
        ({"-o": "truth.nii.gz"}, "exists already; give --overwrite"),
        ({"-o": "scan.nii.gz", "--overwrite": None}, "is read by this command"),
        ({"-o": "painted.nii.gz", "--overwrite": None}, "is read by this command"),
        ({"--confidence": "out.nii.gz"}, "Two outputs have the same name"),
        ({"--confidence": "conf.png"}, "must end in .nii.gz"),
        ({"--report": "report.txt"}, "must end in .json"),
        ({"--figure": "figure.jpg"}, "must end in .png"),
        ({"--range": "8:3"}, "Slice range 8:3 does not fit"),
        ({"--range": "0:10"}, "<= 9"),
        ({"--range": "0:3"}, "painted are [5]"),
        ({"--complete": "5,x"}, "--complete must be"),
        ({"--complete": "40"}, "[40]"),
        ({"--window": "4"}, "window must be odd"),
        ({"--weights": "none.safetensors"}, "There is no weights file"),
        ({"--weights": "scan.nii.gz"}, "not a readable safetensors file"),
        ({"--device": "cuda:99"}, "not available"),
    ],
)
def test_propagate_refuses_before_it_computes(
    case: dict[str, Path], weights: Path, changes: dict[str, str | None], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(case["scan"].parent)
    before = {path: path.read_bytes() for path in case.values()}
    options: dict[str, str | None] = {"-o": "out.nii.gz", "--weights": str(weights), **changes}
    typed = [part for option, value in options.items() for part in (option, value) if part is not None]
    assert expected in refused("propagate", "scan.nii.gz", "painted.nii.gz", *typed)
    assert {path: path.read_bytes() for path in Path.cwd().resolve().iterdir()} == before


@pytest.mark.usefixtures("no_computation")
def test_propagate_refuses_files_that_do_not_fit(case: dict[str, Path], weights: Path, tmp_path: Path) -> None:
    volume, labels = make_scan(0)
    empty, cropped = tmp_path / "empty.nii.gz", tmp_path / "cropped.nii.gz"
    write_labels(empty, np.zeros_like(labels), volume)
    write_labels(cropped, labels[:, :30], Volume(volume.array[:, :30], volume.spacing, volume.origin))
    assert "empty" in refused(*propagate({**case, "painted": empty}, weights))
    assert "(10, 30, 48)" in refused(*propagate({**case, "painted": cropped}, weights))
    assert "no file" in refused(*propagate({**case, "scan": tmp_path / "none.nii.gz"}, weights))


def test_a_folder_that_may_not_be_written_to_is_refused(
    case: dict[str, Path], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root, whom tests may run as, may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
    assert "no permission" in refused(*propagate(case, weights))


# suggest -------------------------------------------------------------------------------------------------------------


def test_suggest_ranks_the_slices_of_a_range(case: dict[str, Path], weights: Path, tmp_path: Path) -> None:
    figure = tmp_path / "suggest.png"
    typed = "suggest", case["scan"], "--weights", weights, "--range", "2:7", "--top", 3, "--figure", figure
    record = json.loads(run(*typed, "--json").stdout)
    session = OneSegSession(weights)
    session.set_volume(read_volume(case["scan"]))
    expected = session.suggest_slices((2, 7), top=3)
    assert [entry["index"] for entry in record["suggestions"]] == [entry.index for entry in expected]
    assert [entry["score"] for entry in record["suggestions"]] == pytest.approx([entry.score for entry in expected])
    assert (record["range"], record["slices"], record["slice_axis"]) == ([2, 7], 10, 0)
    assert [(entry["file_axis"], entry["file_index"]) for entry in record["suggestions"]] == [
        (2, entry.index) for entry in expected
    ]
    assert record["scan"]["sha256"] == session.volume.content_hash
    assert figure.read_bytes().startswith(PNG)
    assert "exists already" in refused(*typed)


@pytest.mark.parametrize("axis", ["2", "sagittal"])
def test_suggest_prints_a_table_along_another_axis(case: dict[str, Path], weights: Path, axis: str) -> None:
    shown = run("suggest", case["scan"], "--weights", weights, "--axis", axis).stdout
    assert "slices 0 to 47" in shown
    assert len([line for line in shown.splitlines() if "│" in line]) == 5


# propagate -----------------------------------------------------------------------------------------------------------


def test_propagate_writes_labels_confidence_report_and_figure(
    case: dict[str, Path], weights: Path, tmp_path: Path
) -> None:
    confidence, report, figure = tmp_path / "conf.nrrd", tmp_path / "report.json", tmp_path / "sheet.png"
    outputs = "--confidence", confidence, "--report", report, "--figure", figure
    shown = run(*propagate(case, weights, *outputs, "--complete", PAINTED, "--threads", 1, "--json")).stdout

    volume, truth = read_volume(case["scan"]), labels_written(case, "truth.nii.gz")
    labels = labels_written(case)
    np.testing.assert_array_equal(labels[PAINTED], truth[PAINTED])
    assert labels[PAINTED + 1].any()
    assert labels[PAINTED - 1].any()
    certain = read_volume(confidence).array
    assert certain.shape == SHAPE
    assert certain.min() >= 0
    np.testing.assert_array_equal(certain[PAINTED], 1)
    assert figure.read_bytes().startswith(PNG)

    record = json.loads(report.read_text())
    assert json.loads(shown) == record
    assert (record["painted"], record["complete"]) == ([PAINTED], [PAINTED])
    assert record["parameters"]["range"] == [0, 9]
    assert record["parameters"]["propagation"] == PropagationConfig().to_dict()
    assert record["scan"]["sha256"] == volume.content_hash
    assert record["weights"] == {"name": weights.name, "sha256": load_weights(weights).sha256}
    assert set(record["labels"]) == {"1", "3"}
    for value, entry in record["labels"].items():
        mask = labels == int(value)
        held = np.flatnonzero(mask.any(axis=(1, 2)))
        assert entry["volume_ml"] == pytest.approx(mask.sum() * 4.0 * 1.0 * 1.5 / 1000)
        assert entry["slices"] == [held[0], held[-1]]
    assert len(record["confidence"]) == 10
    shown_on = {entry["index"]: entry["labels"] for entry in record["slices"]}
    assert {k: set(found) for k, found in shown_on.items()} == {
        k: set(map(str, np.unique(plane[plane > 0]))) for k, plane in enumerate(labels) if plane.any()
    }
    axis, places = record["scan"]["file_axis"], record["scan"]["file_index"]
    for entry in record["slices"]:
        assert (entry["plane"], entry["file_axis"]) == (record["scan"]["plane"], axis)
        assert entry["file_index"] == places[entry["index"]]
    assert all(entry["expected_dice"] == 1 for entry in shown_on[PAINTED].values())
    assert all(0 <= entry["expected_dice"] < 1 for entry in shown_on[PAINTED + 1].values())
    assert set(record["seconds"]) == {"read", "features", "propagate", "write"}
    assert record["versions"]["napari-oneseg"] == __version__
    assert str(tmp_path) not in report.read_text()
    assert "scan.nii" not in report.read_text()


def test_propagate_prints_a_summary(case: dict[str, Path], weights: Path) -> None:
    shown = run(*propagate(case, weights)).stdout
    assert "Painted slices: 5." in shown
    assert "Mean confidence: 0." in shown
    assert "Look first at slices" in shown


def test_propagate_keeps_to_range_and_direction(case: dict[str, Path], weights: Path) -> None:
    run(*propagate(case, weights, "--range", "3:6", "--direction", "up"))
    held = np.flatnonzero(labels_written(case).any(axis=(1, 2)))
    assert held.tolist() == [5, 6]


def test_a_summary_of_nothing_but_the_painted_slice(case: dict[str, Path], weights: Path) -> None:
    shown = run(*propagate(case, weights, "--range", "5:5")).stdout
    assert "Labelled slices: 5 to 5." in shown
    assert "Mean confidence" not in shown


def test_propagate_replaces_files_when_told_to(case: dict[str, Path], weights: Path) -> None:
    output = case["scan"].with_name("out.nii.gz")
    output.write_bytes(b"old")
    assert "exists already" in refused(*propagate(case, weights))
    assert output.read_bytes() == b"old"
    run(*propagate(case, weights, "--overwrite"))
    assert labels_written(case).any()


def test_json_says_where_slices_lie_in_a_file_of_another_order(case: dict[str, Path], weights: Path) -> None:
    """The same scan stored as a sagittal series: data[i, j, k] has i to the feet and k to the left."""
    plain = json.loads(run(*propagate(case, weights, "--json")).stdout)
    for name in ("scan", "painted"):
        image = nib.load(case[name])
        nib.save(image.as_reoriented(np.array([[2, 1], [1, 1], [0, -1]])), case[name])
    record = json.loads(run(*propagate(case, weights, "--json", "--overwrite")).stdout)
    assert (plain["painted"], plain["scan"]["file_axis"]) == (record["painted"], 2)
    assert (record["scan"]["plane"], record["scan"]["file_axis"]) == ("axial", 0)
    assert record["scan"]["sha256"] == plain["scan"]["sha256"]
    data = np.asarray(nib.load(case["painted"]).dataobj)
    (held,) = np.unique(np.nonzero(data)[record["scan"]["file_axis"]])
    assert record["scan"]["file_index"][record["painted"][0]] == held
    for entry in record["next"]:
        assert (entry["file_axis"], entry["file_index"]) == (0, record["scan"]["file_index"][entry["index"]])


def test_propagate_along_another_axis(case: dict[str, Path], weights: Path) -> None:
    volume, labels = make_scan(0)
    painted = np.zeros_like(labels)
    painted[:, :, 15] = labels[:, :, 15]
    write_labels(case["painted"], painted, volume)
    record = json.loads(run(*propagate(case, weights, "--axis", 2, "--json")).stdout)
    assert (record["painted"], record["scan"]["slices"]) == ([15], 48)
    np.testing.assert_array_equal(labels_written(case)[:, :, 15][painted[:, :, 15] > 0], 1)


# evaluate ------------------------------------------------------------------------------------------------------------


def in_time(path: Path, frame: int) -> Path:
    """A scan as volume number ``frame`` of three, by nibabel."""
    scan = nib.load(path)
    noise = np.random.default_rng(0).normal(0, 1, (*scan.shape, 3)).astype(np.float32)
    noise[..., frame] = scan.get_fdata()
    nib.save(nib.Nifti1Image(noise, scan.affine), path.with_name("series.nii.gz"))
    return path.with_name("series.nii.gz")


def test_a_volume_of_a_time_series_is_chosen(case: dict[str, Path], weights: Path) -> None:
    out, report = case["scan"].with_name("out.nii.gz"), case["scan"].with_name("out.json")
    run(*propagate(case, weights, "--report", report))
    expected, plain = labels_written(case), json.loads(report.read_text())
    case["scan"] = in_time(case["scan"], 1)
    said = refused(*propagate(case, weights, "--overwrite"))
    assert "4 dimensions (3 volumes" in said
    assert "choose one of its volumes with --frame, 0 to 2" in said
    assert "no volume 3 in series.nii.gz, which holds volumes 0 to 2" in refused(
        *propagate(case, weights, "--overwrite", "--frame", 3)
    )
    run(*propagate(case, weights, "--overwrite", "--frame", 1, "--report", report))
    written = nib.load(out)
    assert written.header["dim"].tolist()[:5] == [3, *expected.shape[::-1], 1]
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, expected)
    assert (plain["scan"].get("frame"), json.loads(report.read_text())["scan"]["frame"]) == (None, 1)
    typed = "suggest", case["scan"], "--weights", weights
    assert "--frame, 0 to 2" in refused(*typed)
    assert json.loads(run(*typed, "--frame", 1, "--json").stdout)["slices"] == len(expected)


def test_evaluate_takes_the_same_volume_of_each_scan(folders: tuple[Path, Path], weights: Path) -> None:
    images, references = folders
    typed = "evaluate", images, references, "--weights", weights, "--json", "-"
    expected = json.loads(run(*typed).stdout)
    for path in sorted(images.glob("case*.nii.gz")):
        in_time(path, 2).rename(path)
    assert "--frame, 0 to 2" in refused(*typed)
    found = json.loads(run(*typed, "--frame", 2).stdout)
    cases = [[case["scores"] for case in record["results"]["1"]["cases"]] for record in (found, expected)]
    assert cases[0] == cases[1]


def test_a_dicom_series_is_chosen(tmp_path: Path, weights: Path) -> None:
    heights = [3.0 * index for index in range(4)]

    def large(dataset: Dataset) -> None:
        put_pixels(dataset, grey(dataset.InstanceNumber, shape=(64, 64)))

    save_series(tmp_path, heights, large, SeriesDescription="T1")
    save_series(tmp_path, heights, large, SeriesInstanceUID=f"{UID}.2", SeriesNumber=12, SeriesDescription="T2")
    typed = "suggest", tmp_path, "--weights", weights
    assert "holds 2 DICOM series (7: 'T1', 4 slices; 12: 'T2', 4 slices)" in refused(*typed)
    for choice in (12, "T2", f"{UID}.2"):
        assert json.loads(run(*typed, "--series", choice, "--json").stdout)["slices"] == 4
    assert "'T3' names no DICOM series" in refused(*typed, "--series", "T3")
    assert "series, not numbered volumes" in refused(*typed, "--frame", 0)


def test_evaluate_scores_several_numbers_of_slices(folders: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    names, report = tmp_path / "names.json", tmp_path / "scores.json"
    names.write_text('{"1": "bright ball"}')
    typed = "evaluate", *folders, "--weights", weights, "--slices", "1,3", "--names", names, "--json"
    record = json.loads(run(*typed, "-").stdout)
    assert "bright ball" in run(*typed, report).stdout
    written = json.loads(report.read_text())
    for scored in (*record["results"].values(), *written["results"].values()):
        for case in scored["cases"]:
            del case["seconds"]
    assert written == record
    assert list(record["results"]) == ["1", "3"]
    one, three = (record["results"][count]["summary"] for count in ("1", "3"))
    assert [row["name"] for row in one] == ["bright ball", "label 3", "all"]
    assert one[0]["metrics"]["dice"]["n"] == 2
    assert 0 < one[-1]["metrics"]["dice"]["mean"] < three[-1]["metrics"]["dice"]["mean"] <= 1
    painted = [case["painted"] for case in record["results"]["3"]["cases"]]
    assert all(len(slices) == 3 for case in painted for slices in case.values())


@pytest.mark.parametrize("protocol", ["ranged", "suggested", "volume"])
def test_evaluate_prints_a_table(folders: tuple[Path, Path], weights: Path, protocol: str) -> None:
    shown = run("evaluate", *folders, "--weights", weights, "--labels", 3, "--protocol", protocol).stdout
    assert f"{protocol}, 1 painted slice, 2 scans" in shown
    assert "label 3" in shown
    assert "label 1" not in shown
    assert all(metric in shown for metric in ("Dice", "extent Dice", "RAVD", "ASSD"))


@pytest.mark.parametrize(("protocol", "count"), [("best-plane", 1), ("two-planes", 2)])
def test_evaluate_paints_in_suggested_planes(
    folders: tuple[Path, Path], weights: Path, tmp_path: Path, protocol: str, count: int
) -> None:
    report = tmp_path / "scores.json"
    typed = "evaluate", *folders, "--weights", weights, "--labels", 3, "--protocol", protocol, "--json", report
    assert f"{protocol}, {count} painted slice{'s' * (count > 1)}, 2 scans" in run(*typed).stdout
    for case in json.loads(report.read_text())["results"]["1"]["cases"]:
        slices = [case["painted"]["3"], *case["across"].get("3", {}).values()]
        assert sum(map(len, slices)) == count


def test_evaluate_counts_slices(folders: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    report = tmp_path / "scores.json"
    typed = "evaluate", *folders, "--weights", weights, "--labels", 1, "--protocol", "effort", "--json", report
    shown = run(*typed).stdout
    for words in ("suggested", "evenly spaced", "Dice after 3", "slices to 0.90, median", "never to 0.95"):
        assert words in shown
    curves = json.loads(report.read_text())["curves"]
    assert list(curves) == ["suggested", "evenly spaced"]
    assert [(curve["case"], curve["label"]) for curve in curves["suggested"]] == [("case1", 1), ("case2", 1)]
    assert [len(slices) for slices in curves["evenly spaced"][0]["painted"]][:3] == [1, 2, 3]


def test_evaluate_propagates_labels_together(folders: tuple[Path, Path], weights: Path) -> None:
    typed = "evaluate", *folders, "--weights", weights, "--json", "-"
    alone, together = (json.loads(run(*typed, *more).stdout) for more in ((), ("--together",)))
    assert (alone["together"], together["together"]) == (False, True)
    painted = [[case["painted"] for case in record["results"]["1"]["cases"]] for record in (alone, together)]
    assert painted[0] == painted[1]
    assert alone["results"]["1"]["summary"] != together["results"]["1"]["summary"]


def test_evaluate_draws_the_worst(folders: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "new" / "pictures"
    done = run("evaluate", *folders, "--weights", weights, "--pictures", pictures, "--worst", 2)
    assert f"Drew the 2 worst results in {pictures}" in done.stderr
    drawn = sorted(pictures.iterdir())
    assert len(drawn) == 2
    assert all(re.fullmatch(r"0[12]_case[12]_[13]\.png", path.name) for path in drawn)
    assert all(path.read_bytes().startswith(PNG) for path in drawn)
    assert "is not empty" in refused("evaluate", *folders, "--weights", weights, "--pictures", pictures)


def test_evaluate_refuses_what_it_cannot_use(folders: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    images, references = folders
    use = ("--weights", weights)
    assert "says itself what is painted" in refused(
        "evaluate", *folders, *use, "--protocol", "volume", "--slices", "1,2"
    )
    assert "leave --slices" in refused("evaluate", *folders, *use, "--protocol", "effort", "--together")
    assert "cannot run together" in refused("evaluate", *folders, *use, "--protocol", "ranged", "--together")
    assert "--slices must be" in refused("evaluate", *folders, *use, "--slices", "0")
    assert "holds any of the labels" in refused("evaluate", *folders, *use, "--labels", "2")
    assert "does not exist" in refused("evaluate", tmp_path / "none", references, *use)
    assert "Organ names" in refused("evaluate", *folders, *use, "--names", tmp_path / "none.json")
    (references / "case2.nii.gz").unlink()
    assert "case2" in refused("evaluate", images, references, *use)


# demo ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one takes seconds."""

    def make(seed: int) -> types.SimpleNamespace:
        volume, labels = make_scan(seed)
        labels[0, 30:35, 20:25] = 4  # nowhere near the suggested slice
        return types.SimpleNamespace(volume=volume, labels=labels, names={1: "liver", 3: "spleen", 4: "gallbladder"})

    monkeypatch.setattr("napari_oneseg.phantom.phantom", make)


@pytest.mark.usefixtures("small_phantom")
def test_the_demo_without_a_screen_writes_files(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    result = run("demo", "--weights", weights)
    assert "no screen" in result.stderr
    assert re.search(r"Not on the painted slice: .*gallbladder\.", result.stdout)
    folder = tmp_path / "oneseg-demo"
    assert sorted(path.name for path in folder.iterdir()) == ["demo.png", "labels.nii.gz", "report.json", "scan.nii.gz"]
    volume = read_volume(folder / "scan.nii.gz")
    (painted,) = (record := json.loads((folder / "report.json").read_text()))["painted"]
    truth = make_scan(0)[1]
    np.testing.assert_array_equal(read_labels(folder / "labels.nii.gz", volume)[painted], truth[painted])
    assert [score["label"] for score in record["scores"]] == [k for k in (1, 3) if (truth[painted] == k).any()]
    assert all(0 < score["dice"] <= 1 and score["assd"] >= 0 for score in record["scores"])
    assert (folder / "demo.png").read_bytes().startswith(PNG)


@pytest.mark.usefixtures("small_phantom")
def test_the_demo_replaces_its_own_files(weights: Path, tmp_path: Path) -> None:
    typed = "demo", "--headless", "-o", tmp_path / "a" / "b", "--weights", weights, "--json"
    first, second = (json.loads(run(*typed).stdout) for _ in range(2))
    assert first["scores"] == second["scores"]
    (tmp_path / "file").write_text("")
    assert "cannot be created" in refused("demo", "--headless", "-o", tmp_path / "file" / "x", "--weights", weights)


@pytest.mark.usefixtures("small_phantom")
def test_the_demo_opens_the_viewer_where_there_is_a_screen(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[Any, ...]] = []
    monkeypatch.setenv("DISPLAY", ":1")
    monkeypatch.chdir(tmp_path)
    viewer = types.SimpleNamespace(show=lambda *args: shown.append(args))
    monkeypatch.setattr("napari_oneseg.cli.demo.import_module", {"napari_oneseg.plugin.demo": viewer}.__getitem__)
    run("demo", "--weights", weights)
    ((sample, annotation),) = shown
    ((index, image),) = annotation.slices.items()
    assert (image == sample.volume.to_slices(sample.labels)[index]).all()
    assert list(tmp_path.iterdir()) == []

    def missing(name: str) -> None:
        raise ImportError("No Qt bindings could be found")

    monkeypatch.setattr("napari_oneseg.cli.demo.import_module", missing)
    assert "--headless" in refused("demo", "--weights", weights)


# info and train ------------------------------------------------------------------------------------------------------


def test_info(weights: Path) -> None:
    record = json.loads(run("info", "--weights", weights, "--device", "cpu", "--json").stdout)
    assert record["versions"]["torch"] == torch.__version__
    assert record["device"].startswith("cpu")
    assert record["threads"] == torch.get_num_threads()
    assert record["weights"] == {
        "name": weights.name, "sha256": load_weights(weights).sha256, "provenance": {"data": "none"},
    }  # fmt: skip
    shown = run("info", "--weights", weights).stdout
    assert record["weights"]["sha256"] in shown
    assert torch.__version__ in shown


def test_info_reports_a_missing_default_instead_of_failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_oneseg.checkpoint.default_weights_path", lambda: tmp_path / "none.safetensors")
    assert "no weights file" in json.loads(run("info", "--json").stdout)["weights"]["error"]
    assert "no weights file" in refused("info", "--weights", tmp_path / "none.safetensors")


def test_train_writes_weights_with_their_provenance(tmp_path: Path) -> None:
    output = tmp_path / "own.safetensors"
    typed = "train", "--generated", "-o", output, "--steps", 2, "--batch", 1, "--sequence", 2, "--crop", 32, "--seed", 7
    typed = *typed, "--refine-steps", 1
    record = json.loads(run(*typed, "--json").stdout)
    loaded = load_weights(output)
    assert loaded.provenance == record
    assert (record["data"], record["steps"], record["seed"]) == ("generated anatomy", 3, 7)
    assert (
        record["command"]
        == "oneseg train --generated --steps 2 --batch 1 --sequence 2 --crop 32 --seed 7 --refine-steps 1"
    )
    assert 0 < record["final_loss"] < 10
    assert "exists already" in refused(*typed)


def test_train_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    assert "or --generated" in refused("train", "-o", tmp_path / "a.safetensors")
    assert "must end in .safetensors" in refused("train", "--generated", "-o", tmp_path / "a.pt")
    assert "steps must be" in refused("train", "--generated", "-o", tmp_path / "a.safetensors", "--steps", 0)
    assert list(tmp_path.iterdir()) == []


def test_propagate_finds_the_planes_that_were_painted(case: dict[str, Path], weights: Path, tmp_path: Path) -> None:
    volume, labels = make_scan(0)
    for name, places in (("one", [(1, 20)]), ("two", [(0, 5), (1, 20)])):
        painted = np.zeros_like(labels)
        for axis, index in places:
            np.moveaxis(painted, axis, 0)[index] = np.moveaxis(labels, axis, 0)[index]
        write_labels(case["painted"], painted, volume)
        files = case["scan"], case["painted"], "-o", tmp_path / f"{name}.nii.gz", "--weights", weights
        record = json.loads(run("propagate", *files, "--json").stdout)
        assert [(entry["axis"], entry["index"]) for entry in record["painted_slices"]] == places
        assert record["painted_slices"][-1]["plane"] == "coronal"
        exported = read_labels(tmp_path / f"{name}.nii.gz", volume)
        np.testing.assert_array_equal(exported[painted > 0], painted[painted > 0])
        assert (exported > 0).sum() > (painted > 0).sum()
    again = run("propagate", *files, "--overwrite", "--painted", "coronal:20,axial:5")
    assert "coronal 20" in again.stdout


def test_painted_slices_must_be_named_rightly(case: dict[str, Path], weights: Path, tmp_path: Path) -> None:
    files = "propagate", case["scan"], case["painted"], "-o", tmp_path / "out.nii.gz", "--weights", weights
    assert "outside the slices that are named" in refused(*files, "--painted", "coronal:20")
    assert "--painted must be slices" in refused(*files, "--painted", "coronal")
    assert "axial, coronal or sagittal" in refused(*files, "--painted", "frontal:20")
