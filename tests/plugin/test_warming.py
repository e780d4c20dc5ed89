"""What is done ahead of need: in a thread, without a viewer and without a screen."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from napari_oneseg.plugin import warming


def test_it_runs_in_a_thread_and_leaves_nothing_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: failures.append(args.exc_value))
    thread = threading.Thread(target=warming.warm_up)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert failures == []


def test_units_are_read_before_two_threads_make_layers() -> None:
    """In a process of its own, because they are read once in each."""
    program = (
        "import pint\n"
        "from napari_oneseg.plugin.warming import read_units\n"
        "registry = pint.get_application_registry().get()\n"
        "print(type(registry).__name__)\n"
        "read_units()\n"
        "print(type(registry).__name__)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["LazyRegistry", "UnitRegistry"]
