from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from napari_oneseg.errors import OutputError
from napari_oneseg.training.curve import curve_paths, save_curve, smoothed


def test_the_curve_lies_beside_the_weights(tmp_path: Path) -> None:
    weights = tmp_path / "my.own.safetensors"
    table, picture = curve_paths(weights)
    assert (table.name, picture.name) == ("my.own.loss.csv", "my.own.loss.png")
    losses = [1.5, 1.25, 1 / 3]
    save_curve(weights, losses)
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["step", "loss"]
    assert [(int(step), float(loss)) for step, loss in rows[1:]] == list(enumerate(losses))
    pixels = imread(picture)
    assert pixels.shape[0] > 300
    assert pixels[..., :3].std() > 0.02, "something is drawn"


def test_the_mean_of_the_last_steps() -> None:
    losses = np.random.default_rng(0).normal(size=400)
    mean = smoothed(losses)
    assert mean[0] == losses[0]
    assert mean[7] == pytest.approx(losses[:8].mean())
    assert mean[300] == pytest.approx(losses[281:301].mean())
    assert smoothed(losses[:30])[-1] == pytest.approx(losses[20:30].mean())


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save_curve(tmp_path / "none" / "a.safetensors", [1.0])
