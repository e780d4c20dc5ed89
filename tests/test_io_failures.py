"""Writes that fail: what is said, and that neither half a file nor a lost one is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_oneseg import io
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.image_formats import WRITABLE
from napari_oneseg.io import read_labels, read_volume, write_labels
from napari_oneseg.volume import Volume


def grey_values(shape: tuple[int, int, int] = (6, 5, 4)) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)


def painted(shape: tuple[int, int, int] = (6, 5, 4)) -> NDArray[np.uint8]:
    labels = np.zeros(shape, np.uint8)
    labels[1, 2, 3] = 3
    return labels


@pytest.fixture
def volume() -> Volume:
    return Volume(grey_values(), (7.5, 1.25, 0.8))


def save(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] | None = None) -> Path:
    nib.save(nib.Nifti1Image(array.T, np.eye(4) if affine is None else affine), path)
    return path


class Target:
    """A folder with an older result in it, which must survive a failed write."""

    def __init__(self, folder: Path, ending: str = ".nii.gz") -> None:
        self.folder = folder
        self.path = folder / f"labels{ending}"
        self.path.write_bytes(b"older result")

    def is_untouched(self) -> bool:
        return list(self.folder.iterdir()) == [self.path] and self.path.read_bytes() == b"older result"


def test_another_ending(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(OutputError, match=r"labels.tif cannot be written: .* end in .nii.gz, .nii, .nrrd, .mha"):
        write_labels(tmp_path / "labels.tif", painted(), volume)
    assert not list(tmp_path.iterdir())


def test_another_shape(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(InputError, match=r"shape \(6, 5, 4\) .z, y, x. was expected, got \(4, 5, 6\)"):
        write_labels(tmp_path / "labels.nii.gz", painted().T, volume)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(OutputError, match=r"folder .*results does not exist; create it first"):
        write_labels(tmp_path / "results" / "labels.nii.gz", painted(), volume)


def test_a_folder_in_the_way(tmp_path: Path, volume: Volume) -> None:
    (tmp_path / "labels.nii.gz").mkdir()
    with pytest.raises(OutputError, match="it is a folder; give the name of a file"):
        write_labels(tmp_path / "labels.nii.gz", painted(), volume)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.nii.gz"]


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder without permission to write; for the test's duration root is not root."""
    if os.name != "posix":
        pytest.skip("permissions are those of POSIX systems")
    with tempfile.TemporaryDirectory() as folder:
        Target(Path(folder))
        Path(folder).chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)
            Path(folder).chmod(0o755)


def test_a_read_only_folder(read_only: Path, volume: Volume) -> None:
    with pytest.raises(OutputError, match=r"no permission to write into .*; choose another folder"):
        write_labels(read_only / "labels.nii.gz", painted(), volume)
    assert [path.read_bytes() for path in read_only.iterdir()] == [b"older result"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files acts like a full disk: SimpleITK writes half a NIfTI file and reports success."""
    for ending in WRITABLE:
        (tmp_path / ending[1:]).mkdir()
        Target(tmp_path / ending[1:], ending)
    script = f"""
        import resource
        import numpy as np
        from napari_oneseg.errors import OutputError
        from napari_oneseg.image_formats import WRITABLE
        from napari_oneseg.io import write_labels
        from napari_oneseg.volume import Volume

        labels = np.random.default_rng(0).integers(0, 255, (20, 40, 40)).astype(np.uint8)
        volume = Volume(labels)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
        for ending in WRITABLE:
            try:
                write_labels({str(tmp_path)!r} + f"/{{ending[1:]}}/labels{{ending}}", labels, volume)
            except OutputError as error:
                print(error)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    messages = done.stdout.splitlines()
    assert len(messages) == len(WRITABLE), done.stderr
    for ending, message in zip(WRITABLE, messages, strict=True):
        assert f"labels{ending} could not be written completely: the disk is probably full" in message
        assert [path.read_bytes() for path in (tmp_path / ending[1:]).iterdir()] == [b"older result"]


def test_a_disk_that_is_full_when_compressing(tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(tmp_path)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io.shutil, "copyfileobj", full)
    with pytest.raises(OutputError, match=r"labels.nii.gz was not written: the disk is full"):
        write_labels(target.path, painted(), volume)
    assert target.is_untouched()


@pytest.mark.parametrize("ending", WRITABLE)
def test_a_voxel_that_was_written_wrongly(
    tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    target = Target(tmp_path, ending)
    write = sitk.WriteImage

    def bad_write(image: sitk.Image, *args: object, **kwargs: object) -> None:
        image[0, 0, 0] = 1
        write(image, *args, **kwargs)

    monkeypatch.setattr(io.sitk, "WriteImage", bad_write)
    with pytest.raises(OutputError, match="what was read back differs"):
        write_labels(target.path, painted(), volume)
    assert target.is_untouched()


def test_a_header_of_another_grid(tmp_path: Path) -> None:
    target = Target(tmp_path)
    with tempfile.TemporaryDirectory() as folder:
        scan = read_volume(save(Path(folder) / "scan.nii.gz", grey_values()))
    cropped = replace(scan, array=scan.array[1:], origin=tuple(scan.origin + scan.direction[:, 0] * scan.spacing[0]))
    with pytest.raises(OutputError, match="header kept with the scan is not that of its grid: origin"):
        write_labels(target.path, painted()[1:], cropped)
    assert target.is_untouched()
    write_labels(target.path, painted()[1:], replace(cropped, header={}))
    np.testing.assert_array_equal(read_labels(target.path, cropped), painted()[1:])
