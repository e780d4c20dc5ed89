"""What the tests of the real program share: a screen with a window manager, and scans."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.desktop import Desktop, missing_tools
from tests.e2e.scans import Scan, real_scan, save_phantom


@pytest.fixture
def desktop(tmp_path: Path) -> Iterator[Desktop]:
    """An empty screen. The programs that it takes are Linux's; scripts/setup.sh installs them."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the real window is driven on Linux only")
    if missing := missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}; scripts/setup.sh system installs them")
    screen = Desktop(tmp_path)
    yield screen
    screen.close()


@pytest.fixture
def phantom_scan(tmp_path: Path) -> Scan:
    return save_phantom(folder_of_scans(tmp_path) / "phantom.nii.gz")


@pytest.fixture
def chaos_scan(tmp_path: Path, data_dir: Path) -> Scan:
    folder = data_dir / "chaos_mr_t2" / "dev"
    image = min((folder / "images").glob("*.nii.gz"), default=None)
    if image is None:
        pytest.skip(f"no scan in {folder}")
    # A copy, so that what is exported beside it does not stay.
    copy = folder_of_scans(tmp_path) / image.name
    copy.write_bytes(image.read_bytes())
    return real_scan(copy, folder / "labels" / image.name)


def folder_of_scans(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "scans"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def small_scan(tmp_path: Path) -> Scan:
    """A few slices of the phantom, where what counts is not how long it takes."""
    return save_phantom(folder_of_scans(tmp_path) / "part.nii.gz", slice(10, 22))


@pytest.fixture
def pictures(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where photographs of the screen go: ONESEG_E2E_PICTURES, or a folder that pytest keeps for a while."""
    folder = Path(os.environ.get("ONESEG_E2E_PICTURES") or tmp_path) / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
