"""How long the package takes to import and the widget to open, each in fresh processes; run by ``speed.py``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["measure_startup", "start"]

SCREEN = Path(__file__).parents[1] / "scripts" / "with-screen.sh"
HEAVY = ("torch", "sklearn", "matplotlib")
WAITING = 20.0
"""Seconds for napari to do what it has put off before the widget is opened, at most."""


class ImportWatch(MetaPathFinder):
    """Notes which heavy packages the thread of the window imports."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find nothing, but note what was asked for."""
        if fullname in HEAVY and threading.current_thread() is threading.main_thread():
            self.found.append(fullname)
        return None


def measure_startup(processes: int) -> dict[str, Any]:
    """Return the seconds of each start, in turn, and what the window's thread imported; no widget without a screen."""
    kinds = ["package", "widget"] if sys.platform != "linux" or shutil.which("xvfb-run") else ["package"]
    starts: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    # The first start of each kind reads the files from the disk, and does not count.
    for number in range(processes + 1):
        for kind in kinds:
            told = start(kind)
            if number:
                starts[kind].append(told)
    return {
        "seconds": {
            "import napari_oneseg": [told["import"] for told in starts["package"]],
            "open the widget": [told["widget"] for told in starts.get("widget", [])],
            "of it computing": [told["computing"] for told in starts.get("widget", [])],
            "napari's own window": [told["napari"] for told in starts.get("widget", [])],
        },
        "imported_by_the_window": sorted({name for told in starts.get("widget", []) for name in told["imported"]}),
    }


def start(kind: str) -> dict[str, Any]:
    """Start a process that times itself: ``package`` or ``widget``, with settings and data of its own."""
    from speed_machine import fresh  # it imports torch, which the process that is timed must not have

    if kind == "package":
        return dict(fresh("speed_startup.py", {"kind": kind}))
    with tempfile.TemporaryDirectory(prefix="oneseg-speed-") as folder:
        given = json.dumps({"kind": kind, "home": folder})
        told = subprocess.run(
            [str(SCREEN), sys.executable, __file__, given], stdout=subprocess.PIPE, encoding="utf-8", check=True,
            env=_own_places(Path(folder)),
        )  # fmt: skip
    return dict(json.loads(told.stdout.splitlines()[-1]))


def _own_places(home: Path) -> dict[str, str]:
    places = {
        "HOME": home, "XDG_CONFIG_HOME": home / "config", "XDG_DATA_HOME": home / "data",
        "XDG_CACHE_HOME": home / "cache", "XDG_STATE_HOME": home / "state", "NAPARI_CONFIG": home / "napari.yaml",
    }  # fmt: skip
    return os.environ | {name: str(place) for name, place in places.items()}


def _time_package() -> dict[str, Any]:
    start_time = time.perf_counter()
    import napari_oneseg  # noqa: F401

    return {"import": time.perf_counter() - start_time}


def _time_widget() -> dict[str, Any]:
    """Open napari, then the widget as its menu does, until the dock is drawn."""
    begun = time.perf_counter()
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    _settle(QApplication)
    opened = time.perf_counter()
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before the widget was opened")
    watch = ImportWatch()
    sys.meta_path.insert(0, watch)
    before, computed = time.perf_counter(), time.thread_time()
    viewer.window.add_plugin_dock_widget("napari-oneseg", "OneSeg")
    QApplication.processEvents()
    shown, computed = time.perf_counter() - before, time.thread_time() - computed
    return {"napari": opened - begun, "widget": shown, "computing": computed, "imported": watch.found}


def _settle(application: Any) -> None:
    """Let the window do what it has put off, until nothing is left to do."""
    end, idle = time.perf_counter() + WAITING, 0
    while idle < 10 and time.perf_counter() < end:
        before = time.perf_counter()
        application.processEvents()
        idle = idle + 1 if time.perf_counter() - before < 0.005 else 0
        time.sleep(0.02)


def main() -> None:
    """Time what the argument names, and print it."""
    given = json.loads(sys.argv[1])
    told = _time_package() if given["kind"] == "package" else _time_widget()
    print(json.dumps(told), flush=True)
    os._exit(0)  # closing the window is not measured, and what goes on in the background is of no use any more


if __name__ == "__main__":
    main()
