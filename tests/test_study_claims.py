from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_oneseg.errors import OutputError
from napari_oneseg.study_claims import Claims


def test_a_scan_belongs_to_one_window_at_a_time(tmp_path: Path) -> None:
    one, other = Claims(tmp_path / "results"), Claims(tmp_path / "results")
    assert one.take("a")
    assert one.take("a"), "its own"
    assert not other.take("a")
    assert other.take("b")
    assert one.held_elsewhere(["a", "b", "c"]) == {"b"}
    assert other.held_elsewhere(["a", "b", "c"]) == {"a"}
    one.give_back()
    assert other.take("a")
    assert one.held_elsewhere(["a", "b"]) == {"a", "b"}
    other.give_back(but="b")
    assert one.held_elsewhere(["a", "b"]) == {"b"}
    assert one.take("a")


def test_a_claim_ends_with_the_program_that_held_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from napari_oneseg.study_claims import Claims\n"
        "print(Claims(Path(sys.argv[1])).take('a')); claims = Claims(Path(sys.argv[1])); claims.take('b')\n"
        "sys.stdout.flush(); os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, encoding="utf-8", check=False)
    assert done.stdout.strip() == "True"
    assert done.returncode == 9
    assert Claims(tmp_path).take("b")


def test_the_last_one_claimed_comes_first(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert claims.latest() == []
    for age, name in enumerate(("b", "a", "c.1")):
        claims.take(name)
        os.utime(tmp_path / ".claims" / f"{name}.lock", (1000 + age, 1000 + age))
    assert claims.latest() == ["c.1", "a", "b"]
    claims.give_back()
    claims.take("b")
    assert claims.latest() == ["b", "c.1", "a"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Claims(tmp_path / "results").take("a")
