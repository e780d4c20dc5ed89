"""What all tests share: where the real scans are, and settings that keep tests apart from the user's own."""

from __future__ import annotations

import locale
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    # As Qt does it where the window is open; tests/test_locale.py begins such runs.
    if "ONESEG_TEST_LOCALE" in os.environ:
        locale.setlocale(locale.LC_ALL, os.environ["ONESEG_TEST_LOCALE"])
        _keep_witness_from_locale()


def _keep_witness_from_locale() -> None:
    """Have the tests' own reading and writing by SimpleITK know decimal points; the product's stays as it is."""
    import SimpleITK as sitk

    from napari_oneseg.native import decimal_points

    def witness(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if sys._getframe(1).f_globals["__name__"].startswith("napari_oneseg"):
                return function(*args, **options)
            with decimal_points():
                return function(*args, **options)

        return call

    sitk.ReadImage, sitk.WriteImage = witness(sitk.ReadImage), witness(sitk.WriteImage)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real scans, described in its MANIFEST.md: ONESEG_DATA, or shared/data beside the repository."""
    path = Path(os.environ.get("ONESEG_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"needs real scans, and there is no folder {path}; ONESEG_DATA may name another one")
    return path
