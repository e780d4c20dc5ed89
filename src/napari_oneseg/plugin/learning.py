"""Adapting the network to the user's own scans, in the background and beside all other work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_oneseg.plugin.engine import Engine, Job
from napari_oneseg.plugin.view_model import StepState

if TYPE_CHECKING:
    from napari_oneseg.checkpoint import Weights
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.engine import Report
    from napari_oneseg.plugin.opening import Opener
    from napari_oneseg.plugin.panels.adapt import AdaptPanel
    from napari_oneseg.training.compare import Adapted

__all__ = ["Learner"]


class Learner(QObject):
    """Learns from scans without labels, and compares what came of it with the accepted slices."""

    said = Signal(str, str)
    changed = Signal()

    def __init__(self, controller: Controller, opener: Opener, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._controller, self._opener = controller, opener
        self._lane = Engine(self)
        self._job: Job | None = None
        self._adapted: Adapted | None = None
        self._losses: list[tuple[int, float]] = []
        self._ends_at: float | None = None
        self._before: Weights | None = None
        self._kept = False
        self._lane.ticked.connect(self.changed)
        controller.opened.connect(self.changed)

    def adapt(self, minutes: float, folder: str) -> None:
        """Learn for so many minutes, from the open scan, or from a folder of scans."""
        session = self._controller.session
        if session is None or self._job is not None:
            return
        volume, weights, annotation = session.volume, session.weights, session.annotation
        where, device = Path(folder) if folder else None, str(session.device)
        self._losses, self._adapted, self._ends_at = [], None, time.monotonic() + 60 * minutes

        def learn(report: Report) -> Adapted:
            from napari_oneseg.training.compare import adapt_and_compare

            return adapt_and_compare(
                volume, weights, annotation, minutes, where, device,
                progress=report.progress, on_loss=lambda step, loss: report.item((step, loss)),
            )  # fmt: skip

        def done(adapted: Adapted) -> None:
            self._end()
            self._adapted, self._kept = adapted, False
            self.changed.emit()

        def failed(sentence: str) -> None:
            self._end()
            self.said.emit(sentence, "error")
            self.changed.emit()

        def stopped() -> None:
            self._end()
            self.changed.emit()

        self._job = self._lane.submit(Job(learn, done, self._losses.append, stopped, failed, "adapt"))
        self.changed.emit()

    def _end(self) -> None:
        self._job, self._ends_at = None, None

    def cancel(self) -> None:
        """Stop learning; nothing has changed then."""
        if self._job is not None:
            self._job.cancel()

    def keep(self) -> None:
        """Go on with what was learned: the features are computed anew, and the labels are out of date."""
        if self._adapted is not None and not self._kept:
            self._before = self._controller.weights
            self._controller.weights = self._adapted.weights
            self._kept = True
            self._opener.reopen()
            self.changed.emit()

    def revert(self) -> None:
        """Go on as before."""
        if self._kept:
            self._controller.weights = self._before
            self._opener.reopen()
        self._adapted, self._kept, self._losses = None, False, []
        self.changed.emit()

    def close(self) -> None:
        """Stop at once."""
        self._lane.close()

    # Showing -------------------------------------------------------------------------------------------------------

    def steps(self) -> dict[str, StepState]:
        """Return the state of the step, where it is other than waiting."""
        if self._job is not None:
            return {"adapt": StepState("busy", "Learning from the scan", self._job.progress or 0.0, can_cancel=True)}
        if self._controller.session is None or self._adapted is None:
            return {}
        if self._kept:
            return {"adapt": StepState("done", "Adapted to your scans")}
        return {"adapt": StepState("attention", "Learned: keep it, or go back?")}

    def present(self, panel: AdaptPanel, show: Callable[..., None]) -> None:
        """Show how it goes and what came of it; ``show`` calls a setter with its values."""
        show(panel.set_losses, tuple(self._losses))
        left = None if self._ends_at is None else float(round(max(0.0, self._ends_at - time.monotonic())))
        show(panel.set_time_left, left)
        adapted = self._adapted
        show(panel.set_agreement, adapted.before if adapted else None, adapted.after if adapted else None)
        show(panel.set_adapted, adapted is not None)
