"""The same files in countries with another decimal sign, other letters and other digits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.locale_fixtures import LOCALES, made_locale

ROOT = Path(__file__).parents[1]
# What reads, writes or prints numbers as text.
FILES = (
    *("test_io", "test_nrrd", "test_metaimage", "test_nifti", "test_voxel_size", "test_segment_nrrd"),
    *("test_session_file", "test_study", "test_cli_terminal"),
)
# The first locale has all of it; the others, whose digits and letters differ, the files with numbers in their headers.
NUMBERS = ("test_nrrd", "test_metaimage", "test_voxel_size")


@pytest.mark.parametrize("name", LOCALES)
def test_reading_writing_and_the_command_line_in_another_locale(tmp_path: Path, name: str) -> None:
    called = made_locale(name, tmp_path)
    others = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "LC_", "LANG"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        + [str(ROOT / "tests" / f"{file}.py") for file in (FILES if name == LOCALES[0] else NUMBERS)],
        cwd=ROOT,
        env=others | {"LOCPATH": str(tmp_path), "LC_ALL": called, "ONESEG_TEST_LOCALE": called},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
