"""Locales whose decimal sign, letters or digits are others than in English, made where the tests run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

LOCALES = ("de_DE", "tr_TR", "ar_EG")


def made_locale(name: str, folder: Path) -> str:
    """Compile a locale into a folder, which LOCPATH is to name, and return its name; skip where that fails."""
    called = f"{name}.UTF-8"
    try:
        subprocess.run(["localedef", "-i", name, "-f", "UTF-8", folder / called], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs localedef, which makes locales")
    if not (folder / called).exists():
        pytest.skip(f"needs the source of the locale {name}; on Debian: apt-get install locales")
    return called
