"""One scan on the screen, through the layer list and the mouse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari import Viewer
from napari.layers import Image, Labels
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_oneseg import scan_features
from napari_oneseg.io import write_image, write_labels
from napari_oneseg.plugin.scan_layer import scan_layer_data
from napari_oneseg.volume import Volume
from tests.plugin.plugin_fixtures import COUNT, SHAPE, STACK, painted, scan_layer, small_scan
from tests.plugin.test_widget import Desk


@pytest.fixture
def desk(
    make_napari_viewer: Callable[..., Viewer], qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    desk = Desk(make_napari_viewer(show=True), qtbot, tmp_path / "kept")
    yield desk
    desk.widget.shut_down()


def other_scan(name: str = "other") -> Image:
    """A scan of the same shape with voxels of another size, so that napari's own slider would span both."""
    volume = small_scan(1)
    data, kwargs, _ = scan_layer_data(Volume(volume.array, (9.0, 2.0, 2.0), slice_axis=0), name)
    return Image(data, **kwargs)


def seen(desk: Desk) -> list[str]:
    return [layer.name for layer in desk.viewer.layers if layer.visible and layer.name != "Suggested slice"]


def is_all(desk: Desk, name: str) -> None:
    """Assert that panel, canvas, slider, selected layer and session are one scan's."""
    viewer, widget = desk.viewer, desk.widget
    scan = viewer.layers[name]
    assert widget.opener.choices()[1] == id(scan)
    assert widget.controller.scan is not None
    assert widget.controller.scan.name == name
    assert [layer for layer in viewer.layers if isinstance(layer, Image) and layer.visible] == [scan]
    assert viewer.layers.selection.active is widget.painter.layer
    assert widget.painter.layer is not None
    assert widget.painter.layer.name == f"{name} labels"
    assert widget.painter.layer.visible
    assert viewer.dims.nsteps == scan.data.shape
    centre = np.array(viewer.scene.camera.center)[-2:]
    np.testing.assert_allclose(centre, (np.array(scan.data.shape) * scan.scale / 2)[1:], atol=2 * scan.scale.max())


def drag(desk: Desk, layer: Labels, index: tuple[int, int, int]) -> None:
    """Paint on whatever is selected, where a voxel of a layer is on the screen."""
    desk.viewer.dims.set_point(0, layer.data_to_world(index)[0])
    canvas = desk.viewer.window._qt_viewer.canvas
    world = layer.data_to_world(index)
    x, y, _, w = (canvas.view.transform * canvas.view.scene.transform).map([world[2], world[1]])
    place = QPoint(round(x / w), round(y / w))
    QTest.mouseMove(canvas.native, place)
    desk.qtbot.wait(30)
    QTest.mousePress(canvas.native, Qt.MouseButton.LeftButton, pos=place)
    desk.qtbot.wait(30)
    QTest.mouseRelease(canvas.native, Qt.MouseButton.LeftButton, pos=place)
    desk.settle()


def test_two_scans_are_chosen_back_and_forth_by_every_door(desk: Desk) -> None:
    viewer, opener = desk.viewer, desk.widget.opener
    desk.add_scan(0, "one")
    is_all(desk, "one")
    points = viewer.add_points([[0, 0, 0]], name="points", units=("mm",) * 3)
    viewer.add_layer(other_scan())  # as napari's own menu does
    desk.settle()
    is_all(desk, "other")
    assert points.visible
    opener.open_key(id(viewer.layers["one"]))
    desk.settle()
    is_all(desk, "one")
    drag(desk, desk.layer, (4, 16, 20))
    assert desk.shown == [4], "the stroke is on the scan on screen"
    assert not viewer.layers["other labels"].data.any()
    viewer.layers.selection.active = viewer.layers["other labels"]
    desk.settle()
    is_all(desk, "other")
    drag(desk, desk.layer, (7, 16, 20))
    assert desk.shown == [7]
    viewer.layers.selection.active = viewer.layers["one"]
    desk.settle()
    is_all(desk, "one")
    assert desk.shown == [4]
    viewer.layers.selection.active = points
    desk.settle()
    assert desk.widget.controller.scan is not None
    assert desk.widget.controller.scan.name == "one", "points belong to no scan"
    assert seen(desk) == ["one", "one labels", "points"]


def test_what_the_user_has_hidden_stays_hidden(desk: Desk) -> None:
    viewer = desk.viewer
    desk.add_scan(0, "one")
    mine = viewer.add_labels(np.zeros((COUNT, *SHAPE), np.uint8), name="mine", scale=small_scan().spacing)
    mine.visible = False
    extra = viewer.add_labels(np.zeros((COUNT, *SHAPE), np.uint8), name="extra", scale=small_scan().spacing)
    viewer.add_layer(other_scan())
    desk.settle()
    assert seen(desk) == ["other", "other labels"]
    desk.widget.opener.open_key(id(viewer.layers["one"]))
    desk.settle()
    assert extra.visible
    assert not mine.visible
    desk.widget.shut_down()
    assert viewer.layers["other"].visible, "without the panel nothing is kept from the user"


@pytest.mark.parametrize("gone", ["other", "other labels", "one", "one labels"])
def test_a_layer_that_is_deleted_takes_nobody_to_another_scan(desk: Desk, gone: str) -> None:
    desk.add_scan(0, "one")
    desk.paint(4)
    desk.viewer.add_layer(other_scan())
    desk.settle()
    if gone.startswith("one"):
        desk.widget.opener.open_key(id(desk.viewer.layers["one"]))
        desk.settle()
    open_now, left = ("one", "other") if gone.startswith("one") else ("other", "one")
    desk.viewer.layers.selection.active = desk.viewer.layers[gone]
    desk.viewer.layers.remove_selected()
    desk.settle()
    if gone.endswith("labels"):
        assert desk.widget.controller.scan is not None
        assert desk.widget.controller.scan.name == open_now
        assert desk.viewer.layers.selection.active is desk.viewer.layers[open_now]
        desk.widget.painter.start()
        assert desk.shown == ([4] if open_now == "one" else [])
    else:
        is_all(desk, left)


def test_a_stroke_on_a_layer_that_is_not_the_scan_s_is_told_and_joins_when_it_is_chosen(desk: Desk) -> None:
    desk.add_scan(0, "one")
    desk.viewer.layers.selection.active = desk.viewer.layers["one"]
    desk.viewer._new_labels()
    desk.settle()
    mine = desk.viewer.layers.selection.active
    assert mine is not desk.layer
    assert "in no export" in desk.viewer.canvas.overlays.text.text
    mine.paint((4, 16, 20), 1)
    desk.widget.painter.choose(id(mine))
    desk.settle()
    assert desk.layer is mine
    assert "in no export" not in desk.viewer.canvas.overlays.text.text
    assert desk.widget.controller.state is not None
    assert list(desk.widget.controller.state.painted) == [4]


def test_a_stroke_made_while_the_scan_is_being_opened_counts(desk: Desk) -> None:
    desk.add_scan(0, "one")
    desk.paint(4)
    one = desk.layer
    desk.viewer.add_layer(other_scan())
    desk.settle()
    desk.viewer.layers.selection.active = one
    one.paint((6, 16, 20), 1)  # at once
    desk.settle()
    assert desk.shown == [4, 6]
    assert desk.widget.controller.state is not None
    assert list(desk.widget.controller.state.painted) == [4, 6]


@pytest.mark.parametrize("moved", ["30 mm", "wide", "turned"])
def test_labels_of_another_grid_are_refused_as_on_the_command_line(desk: Desk, tmp_path: Path, moved: str) -> None:
    volume = small_scan()
    write_image(tmp_path / "one.nii.gz", volume.array, volume)
    origin, spacing, direction = volume.origin, volume.spacing, np.array(volume.direction)
    if moved == "30 mm":
        origin = (0.0, 0.0, 30.0)
    elif moved == "wide":
        spacing = (4.5, 1.5, 0.75)
    else:
        direction = direction * (1, -1, -1)
    grid = Volume(volume.array, spacing, origin, direction, slice_axis=0)
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[3] = painted(2)
    write_labels(tmp_path / "other_labels.nii.gz", labels, grid)
    write_labels(tmp_path / "own_labels.nii.gz", labels, volume)
    desk.widget.opener.open_path(tmp_path / "one.nii.gz")
    desk.settle()
    said: list[str] = []
    desk.widget.painter.said.connect(lambda text, _: said.append(text))
    for name, taken in (("other_labels", False), ("own_labels", True)):
        (layer,) = desk.viewer.open(tmp_path / f"{name}.nii.gz", plugin="napari-oneseg")
        desk.settle()
        desk.widget.painter.choose(id(layer))
        desk.settle()
        assert (desk.layer is layer) == taken
        assert any("not on the scan's grid" in text for text in said) != taken
        said.clear()


@pytest.mark.parametrize("change", ["scale", "units", "affine"])
def test_a_scan_that_is_scaled_after_it_was_opened_is_followed(desk: Desk, tmp_path: Path, change: str) -> None:
    scan = desk.viewer.add_image(small_scan().array, name="one")
    desk.settle()
    desk.widget.opener.change_axis(0)
    desk.settle()
    desk.paint(4)
    desk.widget.propagate()
    desk.settle()
    assert desk.widget.controller.state is not None
    assert desk.widget.controller.state.results
    wanted = (3.0, 0.8, 0.7)
    if change == "scale":
        scan.scale = wanted
    elif change == "affine":
        scan.affine = np.diag([*wanted, 1.0])
    else:
        scan.units, wanted = ("cm",) * 3, (10.0, 10.0, 10.0)
    desk.settle()
    assert desk.shown
    assert desk.widget.controller.state.stale, "they were propagated with another size"
    np.testing.assert_allclose(desk.layer.data_to_world((1, 1, 1)), scan.data_to_world((1, 1, 1)))
    desk.widget.export(tmp_path / "out.nii.gz")
    desk.settle()
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii.gz").header.get_zooms(), wanted[::-1], rtol=1e-5)
    desk.viewer.add_layer(scan_layer(1, "other"))
    desk.settle()
    desk.widget.opener.open_key(id(scan))
    desk.settle()
    assert desk.widget.controller.scan is not None
    assert desk.widget.controller.scan.name == "one"
    assert desk.shown


@pytest.mark.parametrize("way", ["adopted", "painted here", "new layer", "resumed"])
def test_no_label_value_is_ever_changed(desk: Desk, tmp_path: Path, way: str) -> None:
    desk.add_scan(0, "one")
    controller, wanted = desk.widget.controller, {0, 5, 420, 65535}
    image = painted(5).astype(np.uint32)
    image[2:5, 2:5], image[2:5, 8:12] = 420, 65535
    if way == "adopted":
        data = np.zeros((COUNT, *SHAPE), np.int32)
        data[3] = image
        layer = desk.viewer.add_labels(data, name="mine", scale=small_scan().spacing)
        desk.widget.painter.choose(id(layer))
    elif way == "painted here":
        for value in (5, 420, 65535):
            controller.book.select(value)
            assert desk.layer.selected_label == value
            desk.layer.paint((3, 4, 2 + value % 30), value)
    else:
        controller.adopt({3: image})
        desk.widget.painter.attach(desk.layer)
    desk.settle()
    if way == "new layer":
        desk.widget.painter.choose("new")
    elif way == "resumed":
        saved = desk.widget.saver.snapshot()
        assert saved is not None
        controller.undo()
        desk.settle()
        assert not desk.layer.data.any()
        controller.resume(saved, saved.extras)
    desk.settle()
    assert set(np.unique(desk.layer.data)) == wanted
    assert desk.agrees
    assert desk.layer.colormap.color_dict[420][3] > 0, "it is seen"
    desk.widget.export(tmp_path / "out.nii.gz")
    desk.settle()
    assert set(np.unique(np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj))) == wanted


def test_labels_that_nothing_can_hold_are_refused_and_not_changed(desk: Desk) -> None:
    desk.add_scan(0, "one")
    layer = desk.viewer.add_labels(np.zeros((COUNT, *SHAPE), np.int32), name="mine", scale=small_scan().spacing)
    layer.data[3, 4, 5] = 70000
    said: list[str] = []
    desk.widget.painter.said.connect(lambda text, _: said.append(text))
    desk.widget.painter.choose(id(layer))
    assert desk.layer is not layer
    assert "values up to 70000" in said[-1]
    assert layer.data[3, 4, 5] == 70000
