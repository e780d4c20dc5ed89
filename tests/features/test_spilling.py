from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from napari_oneseg.features import spilling
from napari_oneseg.features.spilling import room_for

CPU = torch.device("cpu")
SHAPE = (5, 4, 8, 8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(spilling.platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "kept")
    return tmp_path / "kept"


def test_within_the_budget_it_lies_in_memory(folder: Path) -> None:
    room_for(SHAPE, torch.float16, CPU)
    assert not folder.exists()


@pytest.mark.skipif(os.name != "posix", reason="elsewhere an open file keeps its name")
def test_beyond_the_budget_it_lies_in_a_nameless_file(folder: Path) -> None:
    room = room_for(SHAPE, torch.float16, CPU, in_memory=100)
    assert list(folder.iterdir()) == [], "nothing is left even if the program is killed"
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert ".oneseg-features-" in mapped.read_text()
    assert (room.shape, room.dtype) == (SHAPE, torch.float16)
    filled = torch.randn(SHAPE).half()
    room[:] = filled
    assert torch.equal(room, filled)


def test_without_room_on_the_disk_it_lies_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    room = room_for(SHAPE, torch.float16, CPU, in_memory=100)
    assert room.shape == SHAPE
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="there is no such call")
def test_a_disk_that_fills_up_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert room_for(SHAPE, torch.float16, CPU, in_memory=100).shape == SHAPE
    assert list(folder.iterdir()) == []
