from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_oneseg import checkpoint
from napari_oneseg.checkpoint import default_weights_path, load_weights, new_weights, save_weights
from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.errors import OutputError, WeightsError
from tests.engine_fixtures import TINY, tiny_network

PREPROCESSING = PreprocessingConfig(working_size=96, contrast_limit=2.0)


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, tiny_network(), PREPROCESSING, {"data": "none", "steps": 3})
    return path


def rewritten(path: Path, **metadata: Any) -> Path:
    """The same tensors with other metadata; None leaves an entry out."""
    with checkpoint.safe_open(path, framework="pt") as file:
        entries = {**file.metadata(), **metadata}
    save_file(load_file(path), path, {key: value for key, value in entries.items() if value is not None})
    return path


def test_round_trip(weights_file: Path) -> None:
    network = tiny_network()
    weights = load_weights(weights_file)
    assert weights.name == "tiny.safetensors"
    assert weights.preprocessing == PREPROCESSING
    assert weights.provenance == {"data": "none", "steps": 3}
    assert weights.network.config == TINY
    assert not weights.network.training
    x = torch.linspace(-1, 1, 32 * 32).view(1, 1, 32, 32)
    assert torch.equal(weights.network(x), network(x))


def test_the_hash_is_that_of_the_file(weights_file: Path) -> None:
    assert load_weights(weights_file).sha256 == hashlib.sha256(weights_file.read_bytes()).hexdigest()


def test_running_statistics_are_kept(tmp_path: Path) -> None:
    network = tiny_network().train()
    network(torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    save_weights(tmp_path / "w", network, PREPROCESSING, {})
    loaded = load_weights(tmp_path / "w").network
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_the_same_weights_give_the_same_file(tmp_path: Path) -> None:
    network = tiny_network()
    made = new_weights(network, PREPROCESSING, {"data": "none", "steps": 3}, "made")
    for name in "abc":
        save_weights(tmp_path / name, network, PREPROCESSING, {"data": "none", "steps": 3})
        assert load_weights(tmp_path / name).sha256 == made.sha256
    assert made.name == "made"
    assert new_weights(tiny_network(1), PREPROCESSING, {}, "made").sha256 != made.sha256


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file"):
        load_weights(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="no weights file"):
        load_weights(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1])
def test_truncated(weights_file: Path, keep: int) -> None:
    weights_file.write_bytes(weights_file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="may be damaged"):
        load_weights(weights_file)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(tiny_network().state_dict(), path)
    with pytest.raises(WeightsError, match="may be damaged"):
        load_weights(path)


@pytest.mark.parametrize("metadata", [{"format": None}, {"format": "other"}, {"format_version": "99"}])
def test_another_program_or_version(weights_file: Path, metadata: dict[str, str | None]) -> None:
    with pytest.raises(WeightsError, match="no weights of this program"):
        load_weights(rewritten(weights_file, **metadata))


@pytest.mark.parametrize(
    "metadata",
    [
        {"features": json.dumps({**TINY.to_dict(), "heads": 4})},
        {"features": json.dumps({**TINY.to_dict(), "channels": 32})},
        {"features": json.dumps({**TINY.to_dict(), "channels": "16"})},
        {"features": json.dumps({**TINY.to_dict(), "strides": [1, 2, 3]})},
        {"features": "{"},
        {"features": "[]"},
        {"features": "3"},
        {"features": None},
        {"preprocessing": None},
        {"preprocessing": json.dumps({"working_size": 100_000})},
    ],
)
def test_a_configuration_that_does_not_fit(weights_file: Path, metadata: dict[str, str | None]) -> None:
    with pytest.raises(WeightsError, match="do not fit this version"):
        load_weights(rewritten(weights_file, **metadata))


def test_a_failed_write_keeps_the_old_file(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights_file.read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="the disk is full"):
        save_weights(weights_file, tiny_network(1), PREPROCESSING, {})
    assert weights_file.read_bytes() == before
    assert list(weights_file.parent.iterdir()) == [weights_file]


def test_nothing_is_left_behind_by_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_weights(tmp_path / "w", tiny_network(), PREPROCESSING, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="was not written"):
        save_weights(tmp_path / "none" / "w", tiny_network(), PREPROCESSING, {})


def test_the_default_path_is_in_the_package() -> None:
    path = default_weights_path()
    assert path.parts[-3:] == ("napari_oneseg", "weights", "default.safetensors")
