"""What the widget does, without widget or viewer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.plugin import presenting
from napari_oneseg.plugin.controller import Controller
from napari_oneseg.plugin.export import export_labels
from napari_oneseg.plugin.scan_layer import describe_layer
from tests.engine_fixtures import tiny_weights
from tests.plugin.plugin_fixtures import (
    COUNT,
    SHAPE,
    HandEngine,
    new_controller,
    opened_controller,
    painted,
    scan_layer,
)

pytestmark = pytest.mark.usefixtures("qapp", "clear_features")


class Screen:
    """Shows slices as a labels layer would, and notes what is said."""

    def __init__(self, controller: Controller) -> None:
        self.labels = np.zeros((COUNT, *SHAPE), np.uint8)
        self.controller = controller
        self.wanted: list[int] = []
        self.said: list[tuple[str, str]] = []
        self.order: list[int] = []
        controller.slices_changed.connect(self._show)
        controller.slice_wanted.connect(self.wanted.append)
        controller.said.connect(lambda text, level: self.said.append((level, text)))

    def _show(self, images: dict[int, NDArray[np.uint8]]) -> None:
        for index, image in images.items():
            self.labels[index] = image
            self.order.append(index)

    def paint(self, index: int, image: NDArray[np.uint8]) -> None:
        self.labels[index] = image
        self.controller.stroke({index: image})

    def agrees(self) -> bool:
        assert self.controller.session is not None
        return bool(np.array_equal(self.labels, self.controller.session.labels))


def test_opening_suggests_a_slice_and_says_what_to_do() -> None:
    controller = new_controller(engine := HandEngine(at_once=False))
    assert presenting.steps(controller)["scan"].kind == "ready"
    assert presenting.steps(controller)["paint"].kind == "off"
    controller.open(describe_layer(scan_layer()))
    assert presenting.steps(controller)["scan"].kind == "busy"
    engine.work()
    assert controller.target.ranking is not None
    best = controller.target.ranking.best[0].index
    steps = presenting.steps(controller)
    assert steps["suggest"].kind == "ready"
    assert str(best) in steps["suggest"].text
    assert steps["propagate"].kind == "off"
    assert presenting.suggestions(controller)[0].index == best
    assert "suggested" in presenting.slice_text(controller, best)


def test_a_scan_that_cannot_be_used_is_refused_in_a_sentence() -> None:
    layer = scan_layer()
    layer.data = np.zeros_like(layer.data)
    controller = new_controller()
    said: list[str] = []
    controller.said.connect(lambda text, _level: said.append(text))
    controller.open(describe_layer(layer))
    assert controller.session is None
    assert "same value" in said[0]
    assert controller.doing == ""


def test_paint_propagate_check_accept_export(tmp_path: Path) -> None:
    controller = opened_controller()
    screen = Screen(controller)
    screen.paint(4, painted())
    assert presenting.propagate_action(controller) == ("Propagate", True)
    controller.propagate()
    assert screen.agrees()
    assert screen.order[:2] == [5, 6], "from the painted slice outward"
    assert controller.to_check()
    controller.set_current(4)
    controller.next_slice_to_check()
    index = screen.wanted[-1]
    assert index == controller.to_check()[0]
    controller.accept(index)
    assert index not in controller.to_check()
    assert presenting.slice_text(controller, index) == f"Slice {index}: accepted"
    assert presenting.steps(controller)["propagate"].kind == "done", "accepting makes nothing out of date"
    assert controller.unsaved
    controller.book.restyle(1, name="Liver")
    controller.export(tmp_path / "out.nii.gz", export_labels)
    assert not controller.unsaved
    assert screen.said[-1] == ("info", "Labels written to out.nii.gz.")
    scan = controller.scan
    assert scan is not None
    written = np.asarray(nibabel.load(tmp_path / "out.nii.gz").dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(written, scan.shown.to_file.apply(screen.labels))
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["accepted"] == [index]
    assert record["labels"]["1"]["name"] == "Liver"
    assert record["scan"]["sha256"] == scan.shown.content_hash


def test_without_a_range_the_default_one_counts() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    controller.propagator.default_range = 2
    screen.paint(4, painted())
    controller.propagate()
    assert np.flatnonzero(screen.labels.any((1, 2))).tolist() == [2, 3, 4, 5, 6]


def test_a_correction_makes_its_surroundings_stale_and_update_renews_only_these() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    screen.paint(2, painted())
    screen.paint(8, painted())
    controller.propagate()
    screen.paint(5, painted(radius=9))
    assert "corrected" in presenting.slice_text(controller, 5)
    assert presenting.steps(controller)["propagate"].kind == "attention"
    assert presenting.propagate_action(controller) == ("Update", True)
    screen.order.clear()
    controller.propagate()
    assert set(screen.order) <= {2, 3, 4, 5, 6, 7, 8}
    assert screen.agrees()
    np.testing.assert_array_equal(screen.labels[5], painted(radius=9))


def test_one_undo_takes_a_propagation_back_and_the_next_a_stroke() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    screen.paint(4, painted())
    controller.propagate()
    after = screen.labels.copy()
    controller.undo()
    assert np.flatnonzero(screen.labels.any((1, 2))).tolist() == [4]
    controller.undo()
    assert not screen.labels.any()
    assert screen.wanted[-1] == 4, "what was undone is on screen"
    controller.undo()
    controller.redo()
    controller.redo()
    np.testing.assert_array_equal(screen.labels, after)
    assert screen.agrees()


def half_way(polls: int = 1) -> tuple[Controller, Screen, HandEngine]:
    """A propagation of which some slices have come, and the answer has not."""
    controller = opened_controller(engine := HandEngine(at_once=False))
    screen = Screen(controller)
    screen.paint(4, painted())
    controller.propagate()
    job = controller.job
    assert job is not None
    job.run()
    for _ in range(polls):
        engine._poll()
    assert controller.doing == "propagate"
    return controller, screen, engine


def test_undo_during_a_propagation_stops_it_and_leaves_nothing_of_it() -> None:
    controller, screen, engine = half_way(polls=2)
    assert np.count_nonzero(screen.labels.any((1, 2))) > 1
    controller.undo()
    engine.work()
    assert np.flatnonzero(screen.labels.any((1, 2))).tolist() == [4]
    assert screen.agrees()


def test_no_slice_is_accepted_during_a_propagation() -> None:
    controller, screen, engine = half_way()
    controller.accept(5)
    assert controller.state is not None
    assert not controller.state.frozen
    assert screen.said[-1][1].startswith("Wait until the propagation is done")
    engine.work()
    controller.accept(5)
    assert list(controller.state.frozen) == [5]


def test_painting_during_a_propagation_is_kept() -> None:
    _, screen, engine = half_way()
    shown = next(index for index in screen.order if index != 4)
    corrected = screen.labels[shown].copy()
    corrected[:16] = 0
    screen.paint(shown, corrected)
    screen.paint(0, painted(2))
    engine.work()
    assert screen.agrees()
    np.testing.assert_array_equal(screen.labels[shown], corrected)
    np.testing.assert_array_equal(screen.labels[0] == 2, painted(2) == 2)


def test_asking_for_something_else_during_a_propagation_keeps_what_was_ready() -> None:
    controller, screen, engine = half_way()
    controller.target.locate(4, 16, 20)
    engine.work()
    assert screen.agrees()
    assert np.count_nonzero(screen.labels.any((1, 2))) > 1


def test_cancelling_keeps_the_slices_that_were_ready() -> None:
    controller = opened_controller(engine := HandEngine(at_once=False))
    screen = Screen(controller)
    screen.paint(4, painted())
    controller.propagate()
    job = controller.job
    assert job is not None
    real = job.work
    count = 0

    def work(report: object) -> object:
        original = job.report.item

        def item(value: object) -> None:
            nonlocal count
            original(value)
            count += 1
            if count == 3:
                controller.cancel()

        job.report.item = item  # type: ignore[method-assign]
        return real(job.report)

    job.work = work
    engine.work()
    assert np.count_nonzero(screen.labels.any((1, 2))) >= 2
    assert controller.state is not None
    assert 3 <= len(controller.state.results) < COUNT
    assert controller.propagator.seconds is None, "a part says nothing of how long the whole takes"
    assert screen.agrees()
    assert screen.said[-1][1].startswith("Stopped")
    controller.propagate()
    engine.work()
    assert len(controller.state.results) == COUNT


def test_a_range_limits_what_is_labelled() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    controller.target.set_range((3, 6))
    assert screen.wanted == [controller.target.best[0].index], "the best slice of the range is on screen"
    screen.paint(4, painted())
    controller.propagate()
    assert np.flatnonzero(screen.labels.any((1, 2))).tolist() == [3, 4, 5, 6]


def test_a_range_that_changes_during_a_propagation_is_ranked_after_it() -> None:
    controller, _, engine = half_way()
    controller.target.set_range((2, 5))
    engine.work()
    assert controller.target.ranking is not None
    assert controller.target.ranking.slice_range == (2, 5)


def test_a_range_without_painting_is_said() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    screen.paint(4, painted())
    controller.target.set_range((6, 8))
    controller.propagate()
    assert screen.said[-1][0] == "warning"
    assert "Nothing is painted" in screen.said[-1][1]
    assert controller.doing == ""


def test_what_is_to_be_kept_and_shown_is_told_whichever_part_it_comes_from() -> None:
    controller = opened_controller(engine := HandEngine())
    told: list[str] = []
    controller.worked.connect(lambda: told.append("worked"))
    controller.changed.connect(lambda: told.append("changed"))

    def what_is_told_of(action: Callable[[], object]) -> set[str]:
        told.clear()
        action()
        return set(told)

    assert what_is_told_of(lambda: controller.book.select(2)) == {"changed"}
    assert what_is_told_of(lambda: controller.book.restyle(2, "Liver")) == {"worked", "changed"}
    assert what_is_told_of(lambda: controller.target.set_range((2, 6))) == {"worked", "changed"}
    assert what_is_told_of(controller.target.suggest) == {"changed"}
    assert not controller.unsaved, "no label was changed"
    controller.stroke({4: painted()})
    controller.unsaved = False
    engine.at_once = False
    assert what_is_told_of(controller.target.suggest) == {"changed"}, "that it has begun"
    engine.work()
    engine.at_once = True
    assert what_is_told_of(controller.propagate) == {"worked", "changed"}
    assert controller.unsaved


def test_slices_to_check_are_walked_through_anew_after_each_propagation() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    screen.paint(4, painted())
    for _ in range(2):
        controller.propagate()
        controller.set_current(4)
        controller.next_slice_to_check()
        assert screen.wanted[-1] == controller.to_check()[0]


def test_only_the_selected_label_travels() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    screen.paint(4, painted(1) + painted(2, (27, 8), 3))
    controller.propagator.only_selected = True
    controller.book.select(2)
    controller.propagate()
    others = np.delete(np.arange(COUNT), 4)
    assert not (screen.labels[others] == 1).any()
    assert screen.agrees()


def test_live_renews_after_each_stroke() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    controller.propagator.live = True
    screen.paint(4, painted())
    assert screen.labels[5].any()
    screen.paint(6, painted(radius=8))
    assert controller.state is not None
    assert not controller.state.stale
    assert screen.agrees()


def test_labels_are_added_renamed_and_removed() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    assert controller.book.add() == 2
    controller.book.restyle(2, "Spleen", (1.0, 0.0, 0.0, 1.0))
    screen.paint(4, painted(2))
    controller.propagate()
    rows = {row.value: row for row in presenting.label_rows(controller)}
    assert rows[2].name == "Spleen"
    assert controller.session is not None
    expected = (screen.labels == 2).sum() * controller.session.volume.voxel_ml
    assert rows[2].volume_ml == pytest.approx(expected)
    controller.remove_label(2)
    assert not screen.labels.any()
    controller.undo()
    assert (screen.labels == 2).any()
    assert screen.agrees()


def test_accepted_slices_stay_whatever_is_propagated() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    screen.paint(4, painted())
    controller.propagate()
    controller.accept(6)
    kept = screen.labels[6].copy()
    screen.paint(2, painted(radius=12))
    controller.propagate()
    np.testing.assert_array_equal(screen.labels[6], kept)
    controller.accept(6, accepted=False)
    assert 6 in controller.to_check()


def test_switching_scans_forgets_what_was_under_way() -> None:
    controller, screen, engine = half_way()
    controller.book.restyle(1, "Liver")
    controller.open(describe_layer(scan_layer(1, "other")))
    assert not controller.unsaved, "nobody takes over what had arrived"
    assert not controller.propagator.arrived
    assert controller.book.style(1).name == "Label 1"
    screen.labels[:] = 0
    engine.work()
    assert controller.scan is not None
    assert controller.scan.name == "other"
    assert not screen.labels.any()
    assert screen.agrees()


def test_work_is_taken_up_with_names_and_range() -> None:
    controller = opened_controller()
    screen = Screen(controller)
    controller.book.restyle(1, "Liver")
    controller.target.set_range((1, 8))
    screen.paint(4, painted())
    controller.propagate()
    assert controller.session is not None
    saved, extras = controller.session.snapshot(), json.loads(json.dumps(controller.extras()))
    other = opened_controller()
    shown = Screen(other)
    other.resume(saved, extras)
    np.testing.assert_array_equal(shown.labels, screen.labels)
    assert other.book.style(1).name == "Liver"
    assert other.target.range == (1, 8)
    adapted = new_controller()
    adapted.weights = tiny_weights(3)
    adapted.open(describe_layer(scan_layer()), kept=saved, extras=extras)
    assert adapted.state is not None
    assert adapted.state.stale == set(adapted.state.results), "other weights: out of date, and nobody is warned"
    reopened = new_controller()
    reopened.open(describe_layer(scan_layer()), kept=saved, extras=extras)
    assert reopened.unsaved
    assert reopened.session is not None
    np.testing.assert_array_equal(reopened.session.labels, screen.labels)
