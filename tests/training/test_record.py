from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from napari_oneseg.config import AdaptConfig
from napari_oneseg.training.record import record_of_scans, training_record
from tests.engine_fixtures import tiny_weights


def test_a_record_of_the_training() -> None:
    record = training_record(
        [5.0] * 10 + [1.0] * 40 + [2.0] * 10,
        {"adapting": AdaptConfig(2.0)},
        7,
        "oneseg adapt IMAGE",
        torch.device("cpu"),
        1.26,
    )
    assert json.loads(json.dumps(record)) == record
    assert (record["steps"], record["seed"], record["seconds"]) == (60, 7, 1.3)
    assert record["final_loss"] == pytest.approx(1.2), "the mean of the last fifty"
    assert record["adapting"] == AdaptConfig(2.0).to_dict()
    assert record["command"] == "oneseg adapt IMAGE"
    assert record["versions"]["torch"] == torch.__version__


def test_a_record_of_scans_names_no_file() -> None:
    about = {"data": "generated anatomy", "licence": "free", "command": "oneseg train --generated"}
    start = replace(tiny_weights(), name="patient-name.safetensors", provenance=about)
    record = record_of_scans(3, start)
    assert record["data"] == "3 scans of the user"
    assert record["start"] == {"sha256": start.sha256, "data": "generated anatomy", "licence": "free"}
    assert "terms" in record["licence"]
    assert "patient-name" not in json.dumps(record)
    assert record_of_scans(1, None)["data"] == "1 scan of the user"
    assert record_of_scans(1, None)["start"] == "a new network"
