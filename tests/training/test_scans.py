from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.errors import InputError
from napari_oneseg.features.extractor import compute_features
from napari_oneseg.io import write_image
from napari_oneseg.training import scans
from napari_oneseg.training.scans import Scans, WorkingScan, find_scans
from napari_oneseg.volume import Volume
from tests.engine_fixtures import TINY, tiny_network
from tests.training.scan_fixtures import SMALL, make_scan, scan_folder


def test_a_working_scan_is_what_the_network_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.random.default_rng(0).normal(size=(60, 6, 40)).astype(np.float32)
    volume = Volume(grey, (0.5, 4.0, 1.5))
    network, seen = tiny_network(), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stack = compute_features(volume, network, SMALL)
    scan = WorkingScan.of(volume, TINY, SMALL)
    assert torch.allclose(torch.cat(seen)[:, 0], scan.slices.float(), atol=1e-3)
    assert scan.grid == stack.grid
    assert scan.distance == pytest.approx(4.0 / scan.grid.pixel)


def test_scans_are_found_in_a_folder(tmp_path: Path) -> None:
    folder = scan_folder(tmp_path / "scans")
    (folder / "series").mkdir()
    (folder / "readme.txt").write_text("not a scan")
    (folder / ".hidden.nii.gz").write_bytes(b"")
    assert [path.name for path in find_scans(folder)] == ["scan0.nii.gz", "scan1.nii.gz", "series"]
    with pytest.raises(InputError, match="does not exist"):
        find_scans(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no scans"):
        find_scans(tmp_path / "empty")


def test_a_scan_that_cannot_be_read_is_reported_and_left_out(tmp_path: Path) -> None:
    folder = scan_folder(tmp_path / "scans")
    (folder / "scan0.nii.gz").write_bytes(b"damaged")
    calls: list[tuple[int, int]] = []
    with pytest.warns(UserWarning, match=r"scan0\.nii\.gz is left out of the training: ") as warned:
        opened = Scans(find_scans(folder), TINY, SMALL, lambda *call: calls.append(call))
    assert len(warned) == 1
    assert len(opened) == 1
    assert opened.hashes == (make_scan(1).content_hash,)
    assert torch.equal(opened[0].slices, WorkingScan.of(make_scan(1), TINY, SMALL).slices)
    assert calls == [(1, 2), (2, 2)]


def test_no_scan_at_all_is_an_error(tmp_path: Path) -> None:
    damaged = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path in damaged:
        path.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(InputError, match=r"None of the 2 scans .* a\.nii"):
        Scans(damaged, TINY, SMALL)
    with pytest.raises(InputError, match=r"The scan cannot be learned from: a\.nii"):
        Scans(damaged[:1], TINY, SMALL)
    with pytest.raises(InputError, match="at least one"):
        Scans([], TINY, SMALL)
    narrow = Volume(np.random.default_rng(0).normal(size=(4, 48, 6)), (3.0, 1.0, 1.0))
    with pytest.raises(InputError, match="too narrow"):
        Scans([narrow], TINY, PreprocessingConfig(working_size=64, max_upsampling=1.0))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the scans that were read from a folder, in order."""
    found: list[int] = []
    read_volume = scans.read_volume
    monkeypatch.setattr(scans, "read_volume", lambda path: found.append(int(path.name[4])) or read_volume(path))
    return found


SIZE = WorkingScan.of(make_scan(0), TINY, SMALL).slices.nbytes


def settle() -> None:
    """Wait until nothing is read in the background."""
    for thread in threading.enumerate():
        if thread.name.startswith("Reading ahead"):
            thread.join(10)
            assert not thread.is_alive()


def test_only_so_many_bytes_of_scans_are_kept_in_memory(tmp_path: Path, reads: list[int]) -> None:
    found = find_scans(scan_folder(tmp_path / "scans", 3))
    opened = Scans(found, TINY, SMALL, memory=2 * SIZE)
    for index in (1, 2, 1, 0, 1, 2):
        opened[index]
    assert reads == [0, 1, 2, 0, 2]
    reads.clear()
    opened = Scans(found, TINY, SMALL, memory=2 * SIZE - 1)
    for index in (2, 1, 1, 2):
        opened[index]
    assert reads == [0, 1, 2, 1, 2]
    reads.clear()
    Scans(found, TINY, SMALL, memory=0)[2]
    assert reads == [0, 1, 2], "the one in use is kept, however large it is"


def test_scans_are_read_ahead_as_far_as_they_fit_beside_those_in_use(tmp_path: Path, reads: list[int]) -> None:
    opened = Scans(find_scans(scan_folder(tmp_path / "scans", 5)), TINY, SMALL, memory=3 * SIZE)
    used = [0, 1]
    for index in used:
        opened[index]
    reads.clear()
    opened.read_ahead(used, [1, 3, 4])
    settle()
    assert reads == [3], "1 is in use, and 4 would be one too many"
    for index in (0, 1, 3):
        opened[index]
    assert reads == [3]


def test_a_scan_that_is_being_read_is_waited_for(
    tmp_path: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Scans(find_scans(scan_folder(tmp_path / "scans", 2)), TINY, SMALL, memory=SIZE)
    begun, go_on, read_volume = threading.Event(), threading.Event(), scans.read_volume

    def slowly(path: Path) -> Volume:
        begun.set()
        assert go_on.wait(10)
        return read_volume(path)

    monkeypatch.setattr(scans, "read_volume", slowly)
    reads.clear()
    opened.read_ahead([], [0])
    assert begun.wait(10)
    threading.Timer(0.2, go_on.set).start()
    assert torch.equal(opened[0].slices, WorkingScan.of(make_scan(0), TINY, SMALL).slices)
    assert reads == [0]


def test_what_cannot_be_read_ahead_is_told_when_it_is_needed(tmp_path: Path) -> None:
    found = find_scans(scan_folder(tmp_path / "scans", 2))
    opened = Scans(found, TINY, SMALL, memory=SIZE)
    found[0].write_bytes(b"damaged")
    opened.read_ahead([], [0])
    settle()
    with pytest.raises(InputError, match=r"scan0\.nii\.gz"):
        opened[0]


def test_reading_ahead_is_given_up_when_others_are_needed(
    tmp_path: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Scans(find_scans(scan_folder(tmp_path / "scans", 4)), TINY, SMALL, memory=3 * SIZE)
    begun, go_on, read_volume = threading.Event(), threading.Event(), scans.read_volume

    def slowly(path: Path) -> Volume:
        begun.set()
        assert go_on.wait(10)
        return read_volume(path)

    monkeypatch.setattr(scans, "read_volume", slowly)
    reads.clear()
    opened.read_ahead([], [0, 1, 2])
    assert begun.wait(10)
    opened.read_ahead([], [])
    go_on.set()
    settle()
    assert reads == [0]


def test_labels_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scan_folder(tmp_path / "scans", 1)
    labels = tmp_path / "labels"
    labels.mkdir()
    volume = make_scan(0)
    write_image(labels / "scan0.nii.gz", volume.array, volume)
    read: list[Path] = []
    read_volume = scans.read_volume
    monkeypatch.setattr(scans, "read_volume", lambda path: read.append(path) or read_volume(path))
    Scans(find_scans(folder), TINY, SMALL)
    assert read == [folder / "scan0.nii.gz"]
