"""Reckoning what many scans cost, from numbers that are easy to follow."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SPEED = {
    "device": "cpu (2 threads)",
    "gflops": 100.0,
    "runs": [
        {
            "scan": "ircadb_ct",
            "shape": [100, 512, 512],
            "seconds": {"features and suggestion": 4.0, "propagate all labels": 8.0},
        }
    ],
}
OWN = {
    "files": {"shape": [50, 128, 256], "features": 1_000_000, "session": 2_000, "labels": 100},
    "study file": {"10": {"seconds": 1.0, "bytes": 1.0}, "1000": {"seconds": 0.5, "bytes": 400_000}},
    "operations": {"features of a slice": 2e9},
}


@pytest.fixture(scope="module")
def growth() -> ModuleType:
    spec = importlib.util.spec_from_file_location("growth", ROOT / "benchmarks" / "growth.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["growth"] = module
    spec.loader.exec_module(module)
    return module


def test_what_one_scan_costs(growth: ModuleType) -> None:
    one = growth.read_measured(SPEED, OWN)
    assert (one.features, one.propagation) == (8.0, 16.0), "seconds times threads"
    assert one.scan_bytes == 100 * 512 * 512
    # Features lie on a square grid here, on one of half the height there.
    assert one.feature_bytes == pytest.approx(1_000_000 / 50 * 2 * 100)
    assert (one.session_bytes, one.label_bytes) == (32_000, 1_600)
    assert one.study == (0.0005, 400)
    # The CPU took twice its floor for the features, 200 GFLOP at 100 GFLOP/s; three times as long for both.
    assert one.gpu_seconds == pytest.approx(3 * 2 * 200 / growth.GPU_GFLOPS)


def test_the_table_has_what_grows(growth: ModuleType) -> None:
    one = growth.read_measured(SPEED, OWN)
    cells = {line.split(" | ")[0]: line.split(" | ")[1:] for line in growth.table(one, None).splitlines()}
    assert cells["| the same, features kept in between"] == ["24 s of a core", "7 h of a core", "278 days of a core |"]
    assert cells["| **study file**: size"] == ["400 B", "400 kB", "400 MB |"]
    assert cells["| all changes, if each scan makes one of its own"] == ["0.5 ms", "8 min", "15.8 years |"]
    assert not any("training" in name for name in cells)
    with_reading = growth.table(one, {"loading": {"reading a scan": 0.5}})
    assert "read once before it begins | 500 ms of a core | 8 min of a core | 139 h of a core |" in with_reading


def test_units(growth: ModuleType) -> None:
    assert [growth.bytes_(number) for number in (999, 1500, 2.5e9, 3e15)] == ["999 B", "1.5 kB", "2.5 GB", "3 PB"]
    assert [growth.hours(number) for number in (0.004, 0.25, 59, 600, 7200)] == [
        "4.0 ms",
        "250 ms",
        "59 s",
        "10 min",
        "2 h",
    ]
    assert growth.hours(30 * 24 * 3600) == "720 h"
    assert growth.hours(100 * 24 * 3600) == "100 days"
    assert growth.hours(2 * 365.25 * 24 * 3600) == "2.0 years"


def test_the_page_shows_the_table_of_the_program(growth: ModuleType) -> None:
    page = (ROOT / "docs" / "growth.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- growth: begin -->")[2].partition("<!-- growth: end -->")[0]
    names = [line.split(" | ")[0] for line in growth.table(growth.read_measured(SPEED, OWN), None).splitlines()]
    assert all(name in shown for name in names)
