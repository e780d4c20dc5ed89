from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from napari_oneseg.checkpoint import Weights, load_weights, save_weights
from napari_oneseg.cli import train as cli_train
from napari_oneseg.config import RefiningConfig, TrainingConfig
from napari_oneseg.errors import Cancelled, InputError
from napari_oneseg.session import OneSegSession
from napari_oneseg.training import adapt, recipe, scans, self_learning, train
from napari_oneseg.training.processes import Processes
from napari_oneseg.training.scans import Scans
from tests.engine_fixtures import tiny_weights
from tests.test_cli import refused, run
from tests.training.scan_fixtures import make_scan, scan_folder

GENERATED = ("train", "--generated", "--steps", 2, "--batch", 1, "--sequence", 2, "--crop", 32, "--refine-steps", 0)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    weights = tiny_weights()
    path = tmp_path / "start.safetensors"
    save_weights(path, weights.network, weights.preprocessing, {"data": "none", "licence": "free"})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return scan_folder(tmp_path / "Jane Doe")


def on_scans(folder: Path, start: Path, *args: object) -> tuple[object, ...]:
    output = start.with_name("own.safetensors")
    return "train", folder, "-o", output, "--init", start, "--epochs", 1, "--epoch-steps", 3, *args


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def changed(a: Weights, b: Weights) -> bool:
    return not torch.equal(a.network.state_dict()["head.1.weight"], b.network.state_dict()["head.1.weight"])


def test_training_on_a_folder_of_scans(folder: Path, start: Path, tmp_path: Path) -> None:
    record = json.loads(run(*on_scans(folder, start, "--json", "--batch", 1, "--no-screening")).stdout)
    loaded = load_weights(tmp_path / "own.safetensors")
    assert loaded.provenance == record
    assert loaded.preprocessing == load_weights(start).preprocessing
    assert changed(loaded, load_weights(start))
    assert record["data"] == "2 scans of the user"
    assert record["start"] == {"sha256": load_weights(start).sha256, "data": "none", "licence": "free"}
    assert record["command"] == "oneseg train IMAGES --init FILE --batch 1 --epochs 1 --epoch-steps 3 --no-screening"
    assert (record["steps"], record["training"]["batch"], record["training"]["screening"]) == (3, 1, False)
    assert "sequences" not in record
    told = json.dumps(record)
    assert not any(word in told for word in ("Jane", "scan0", "own.safetensors", "start.safetensors", str(tmp_path)))
    assert names(tmp_path) == {"start.safetensors", "own.safetensors", "own.loss.csv", "own.loss.png"}
    rows = list(csv.DictReader((tmp_path / "own.loss.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert sum(float(row["loss"]) for row in rows) / 3 == pytest.approx(record["final_loss"])
    assert (tmp_path / "own.loss.png").read_bytes().startswith(b"\x89PNG")


def test_training_on_supervoxels(folder: Path, start: Path, tmp_path: Path) -> None:
    typed = on_scans(folder, start, "--objective", "supervoxels", "--crop", 32, "--sequence", 2)
    shown = run(*typed).stdout
    assert shown.startswith("3 steps in ")
    assert "final loss" in shown
    provenance = load_weights(tmp_path / "own.safetensors").provenance
    assert provenance["training"]["objective"] == "supervoxels"
    assert provenance["sequences"]["crop"] == 32


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_scan_that_cannot_be_read_is_reported(folder: Path, start: Path, tmp_path: Path) -> None:
    (folder / "broken.nii.gz").write_bytes(b"damaged")
    done = run(*on_scans(folder, start))
    assert "Warning: broken.nii.gz is left out of the training: " in done.stderr
    assert load_weights(tmp_path / "own.safetensors").provenance["data"] == "2 scans of the user"


def test_a_new_network_can_be_trained(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def quick(scans: object, config: object, init: object, **options: object) -> train.TrainingResult:
        seen.append(init)
        return train.TrainingResult(tiny_weights().network, (1.0,))

    monkeypatch.setattr(self_learning, "learn_from_scans", quick)
    output = tmp_path / "own.safetensors"
    run("train", folder, "-o", output, "--from-scratch")
    record = load_weights(output).provenance
    assert seen == [None]
    assert record["start"] == "a new network"
    assert record["command"] == "oneseg train IMAGES --from-scratch"


def test_generated_anatomy_goes_on_from_weights(start: Path, tmp_path: Path) -> None:
    output = tmp_path / "further.safetensors"
    run(*GENERATED, "-o", output, "--init", start)
    before, further = load_weights(start), load_weights(output)
    assert further.network.config == before.network.config
    assert further.preprocessing == before.preprocessing
    record = further.provenance
    assert record["start"] == {"sha256": before.sha256, "data": "none", "licence": "free"}
    assert record["licence"].endswith("of the start: free"), "what the start was learned from binds as well"
    assert record["command"].startswith("oneseg train --generated --init FILE --steps 2")


def test_what_does_not_go_together_is_refused(folder: Path, start: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.safetensors"
    before = names(tmp_path)
    both = "either a folder of scans to learn from, or --generated"
    assert both in refused("train", "-o", output)
    assert both in refused("train", folder, "--generated", "-o", output)
    assert "leave --init" in refused(*GENERATED, "-o", output, "--init", start, "--from-scratch")
    assert "leave --init" in refused(*on_scans(folder, start, "--from-scratch"))
    assert "--steps has no effect with scans" in refused(*on_scans(folder, start, "--steps", 5))
    assert "--crop has no effect with scans, unless --objective" in refused(*on_scans(folder, start, "--crop", 64))
    assert "--epochs has no effect with --generated" in refused(*GENERATED, "-o", output, "--epochs", 2)
    assert "objective must be one of" in refused(*on_scans(folder, start, "--objective", "magic"))
    assert "does not exist" in refused(*on_scans(tmp_path / "none", start))
    assert "no weights file" in refused("train", folder, "-o", output, "--init", tmp_path / "none.safetensors")
    assert "does not compute in float16" in refused(
        *on_scans(folder, start, "--device", "cpu", "--precision", "float16")
    )
    (tmp_path / "own.loss.csv").write_text("older")
    assert "own.loss.csv exists already" in refused(*on_scans(folder, start))
    assert names(tmp_path) == before | {"own.loss.csv"}


def test_an_interrupted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, output = tmp_path / "whole.safetensors", tmp_path / "own.safetensors"
    run(*GENERATED, "-o", whole)
    StateFile, loss, steps = train.StateFile, train.sequence_loss, []
    monkeypatch.setattr(train, "StateFile", lambda *args: StateFile(*args, every=1))

    def interrupted(*args: object) -> torch.Tensor:
        steps.append(len(steps))
        if len(steps) == 2:
            raise KeyboardInterrupt
        return loss(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "sequence_loss", interrupted)
    stopped = run(*GENERATED, "-o", output, code=130)
    assert "The same command goes on where this training was stopped." in stopped.stderr
    assert names(tmp_path) == {"whole.safetensors", "whole.loss.csv", "whole.loss.png", "own.training"}

    assert "another training: training.batch is 1 there and 2 here" in refused(*GENERATED, "-o", output, "--batch", 2)
    resumed = run(*GENERATED, "-o", output)
    assert "goes on where it was stopped, after step 0" in resumed.stderr
    assert len(steps) == 3
    first, second = load_weights(whole).network.state_dict(), load_weights(output).network.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (tmp_path / "own.loss.csv").read_text() == (tmp_path / "whole.loss.csv").read_text()
    assert not (tmp_path / "own.training").exists()


def test_two_processes_write_one_result(tmp_path: Path) -> None:
    script, output = tmp_path / "oneseg.py", tmp_path / "own.safetensors"
    script.write_text("from napari_oneseg.cli import main; main()")
    typed = *GENERATED, "--batch", 2, "--devices", 2, "--device", "cpu", "--threads", 1
    with subprocess.Popen(
        [sys.executable, str(script), *map(str, typed), "-o", str(output), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            shown, said = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert (process.returncode, said) == (0, "")
    record = json.loads(shown)
    assert (record["processes"], record["training"]["batch"], record["steps"]) == (2, 2, 2)
    assert load_weights(output).provenance == record
    assert names(tmp_path) == {"oneseg.py", "own.safetensors", "own.loss.csv", "own.loss.png"}


def test_memory_for_scans(folder: Path, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scans.KEPT_BYTES == cli_train._MEMORY * 1e9
    limits: list[int] = []
    monkeypatch.setattr(scans, "Scans", lambda *args: limits.append(args[-1]) or Scans(*args))
    run(*on_scans(folder, start, "--memory", 0.5, "--batch", 1))
    assert limits == [500_000_000]


def test_the_refiners_batch_can_be_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def quick(training: object, refining: RefiningConfig, *_: object, **options: object) -> train.TrainingResult:
        batches.append(refining.batch)
        return train.TrainingResult(tiny_weights().network, (1.0,))

    monkeypatch.setattr(recipe, "train_default", quick)
    for count in (1, 2, 3, 8):
        cli_train._learn_from_generated(
            TrainingConfig(), 1, None, cli_train._Run(Processes(0, count), "auto", tmp_path / "a.training")
        )
    assert batches == [3, 4, 3, 8]


def test_what_several_processes_cannot_share_is_refused(folder: Path, start: Path, tmp_path: Path) -> None:
    shared = "cannot be shared out evenly to 3 processes; give a multiple of 3 as --batch"
    output = "-o", tmp_path / "own.safetensors", "--nodes", 3, "--device", "cpu"
    assert f"A batch of 2 {shared}" in refused("train", "--generated", *output, "--batch", 2)
    assert f"A batch of 2 {shared}" in refused("train", folder, *output, "--objective", "both")
    assert f"A batch of 4 {shared}" in refused("train", folder, *output, "--objective", "supervoxels", "--batch", 4)


def test_another_process_says_which_it_is_and_gives_no_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with cli_train._speaking(Processes(1, 2)):
        warnings.warn("left out", UserWarning, stacklevel=1)
    with pytest.raises(SystemExit, match="2"), cli_train._speaking(Processes(1, 2)):
        raise InputError("No such scan.")
    with pytest.raises(SystemExit, match="130"), cli_train._speaking(Processes(1, 2)):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "Process 1: No such scan.\n"
    with pytest.raises(InputError), cli_train._speaking(Processes(0, 2)):
        raise InputError("No such scan.")


def test_adapting_to_a_scan(folder: Path, start: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.safetensors"
    scan = folder / "scan0.nii.gz"
    typed = "adapt", scan, "-o", output, "--weights", start, "--minutes", 0.01, "--objective", "both", "--seed", 3
    record = json.loads(run(*typed, "--json").stdout)
    loaded = load_weights(output)
    assert loaded.provenance == record
    assert changed(loaded, load_weights(start))
    assert record["data"] == "1 scan of the user"
    assert record["command"] == "oneseg adapt IMAGE --weights FILE --minutes 0.01 --objective both --seed 3"
    assert record["adapting"]["objective"] == "both"
    assert not any(word in json.dumps(record) for word in ("Jane", "scan0", "start.safetensors", str(tmp_path)))
    assert names(tmp_path) == {"start.safetensors", "own.safetensors", "own.loss.csv", "own.loss.png"}
    # What comes out is weights like any others.
    session = OneSegSession(output, "cpu")
    session.set_volume(make_scan())
    assert session.suggest_slices(top=1)
    assert "exists already" in refused(*typed)


def test_adapting_leaves_nothing_behind_when_it_is_stopped(
    folder: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(tmp_path)
    typed = "adapt", folder / "scan0.nii.gz", "-o", tmp_path / "own.safetensors", "--weights", start

    def stop(*args: object, **options: object) -> None:
        raise Cancelled("The training was cancelled.")

    monkeypatch.setattr(adapt, "adapt", stop)
    assert "cancelled" in refused(*typed)
    assert names(tmp_path) == before
    assert "minutes must be" in refused(*typed, "--minutes", 0)
    assert "is read by this command" in refused("adapt", start, "-o", start, "--overwrite")


def test_help_tells_the_defaults_of_both_ways() -> None:
    shown = " ".join(run("train", "--help").stdout.replace("│", " ").split())
    assert "Sequences per step (default: 3 with --generated)." in shown
    assert "Pairs of slices per step (default: 2 for scans)." in shown
    assert "(default: 0 with --generated, 0 for scans)" in shown
