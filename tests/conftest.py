"""What all tests share: where the real scans are, and settings that keep tests apart from the user's own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Here, at the import, because torch, napari, matplotlib and Triton read these when they are first imported: by the
# conftest.py of a folder below, which comes before any pytest_configure where that folder is named, or by a test.
_SCRATCH = tempfile.TemporaryDirectory(prefix="oneseg-tests-")
os.environ["NAPARI_CONFIG"] = str(Path(_SCRATCH.name) / "napari.yaml")
os.environ["MPLBACKEND"] = "agg"
os.environ["ONESEG_CACHE"] = "off"
if not Path("/dev/nvidia0").exists():
    os.environ["TRITON_INTERPRET"] = "1"
# The tests' tensors are small: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(_SCRATCH.cleanup)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real scans, described in its MANIFEST.md: ONESEG_DATA, or shared/data beside the repository."""
    path = Path(os.environ.get("ONESEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"needs real scans, and there is no folder {path}; ONESEG_DATA may name another one")
    return path
