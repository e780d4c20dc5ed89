"""What is done ahead of need: in a thread, without a viewer and without a screen."""

from __future__ import annotations

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
