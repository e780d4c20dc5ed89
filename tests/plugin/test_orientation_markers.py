"""The canvas in every plane: head up, letters that are right, and strokes where the mouse is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from napari import Viewer
from napari.layers import Image
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from scipy.spatial.transform import Rotation

from napari_oneseg.file_order import reorient
from napari_oneseg.orientation import nearest_orientation
from napari_oneseg.plugin.orientation_markers import OrientationMarkers, letters_of
from napari_oneseg.plugin.scan_layer import scan_layer_data, scan_of_layer
from napari_oneseg.plugin.viewer_link import FRAME, ViewerLink
from napari_oneseg.volume import Volume
from tests.plugin.layer_fixtures import DIRECTIONS, napari_nifti_layer, save_scan

SIZE = (10, 12, 14)
PLANES = {0: "AP RL", 1: "HF RL", 2: "HF AP"}
"""Letters at the top and bottom, left and right, by the axis of the slices."""


def layer_of(direction: np.ndarray) -> Image:
    array = np.random.default_rng(0).integers(0, 1000, SIZE).astype(np.int16)
    stored = Volume(array, (3.0, 1.0, 0.5), direction=direction[:, ::-1].copy())
    data, kwargs, _ = scan_layer_data(reorient(stored, nearest_orientation(stored.direction)), "scan")
    return Image(data, **kwargs)


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Viewer]) -> Viewer:
    return make_napari_viewer()


@pytest.fixture
def link(viewer: Viewer) -> Iterator[ViewerLink]:
    link = ViewerLink(viewer)
    yield link
    link.close()


def open_layer(link: ViewerLink, layer: Image, axis: int = 0) -> None:
    link.viewer.add_layer(layer)
    link.follow(layer, scan_of_layer(layer))
    link.axis = axis
    link.face()


def letters(viewer: Viewer) -> str:
    """Return what stands at the top and bottom, left and right; empty where nothing does."""
    found = {
        str(overlay.position): overlay.text
        for key, overlay in viewer.canvas.overlays.items()
        if "oneseg" in key and overlay.visible
    }
    places = ("top_center", "bottom_center", " ", "middle_left", "middle_right")
    return "".join(found.get(place, place) for place in places) if found else ""


def on_canvas(viewer: Viewer, point: tuple[float, ...]) -> QPoint:
    canvas = viewer.window._qt_viewer.canvas
    shown = [point[axis] for axis in viewer.dims.displayed]
    mapped = (canvas.view.transform * canvas.view.scene.transform).map(shown[::-1])
    return QPoint(*(round(float(value)) for value in mapped[:2] / mapped[3]))


@pytest.mark.parametrize("axis", PLANES)
@pytest.mark.parametrize("name", ["straight", "upside down", "oblique sagittal"])
def test_letters_and_camera_follow_the_plane(link: ViewerLink, name: str, axis: int) -> None:
    open_layer(link, layer_of(DIRECTIONS[name]), axis)
    assert letters(link.viewer) == PLANES[axis]
    # What lies at the head is drawn above what lies at the feet, and the left side on the right.
    low = on_canvas(link.viewer, (0.0, 0.0, 0.0))
    high = on_canvas(link.viewer, (20.0, 10.0, 5.0))
    assert (high.y() < low.y()) == (axis != 0)
    assert high.x() > low.x()


def test_a_layer_of_napari_nifti_gets_the_same_letters(link: ViewerLink, tmp_path: Path) -> None:
    layer = napari_nifti_layer(save_scan(tmp_path / "scan.nii.gz", DIRECTIONS["oblique"]))
    open_layer(link, layer)
    assert letters(link.viewer) == PLANES[0]
    link.axis = 1
    link.face()
    assert letters(link.viewer) == PLANES[1]


def test_where_nothing_is_known_of_the_patient_nothing_is_said(link: ViewerLink) -> None:
    open_layer(link, Image(np.random.default_rng(0).normal(size=SIZE), name="TIFF"), axis=1)
    assert letters(link.viewer) == ""
    assert link.viewer.scene.camera.orientation2d == ("down", "right")


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -15, 35), (44, 0, 0), (30, 30, 30), (180, 0, 50)])
def test_each_axis_has_its_own_letters_and_opposite_ends(angles: tuple[float, float, float]) -> None:
    found = letters_of(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())
    assert sorted("".join(pair) for pair in map(sorted, found)) == ["AP", "FH", "LR"]


def test_of_an_oblique_axis_the_nearest_letter_counts() -> None:
    tilted = Rotation.from_euler("x", 30, degrees=True).as_matrix()
    assert letters_of(tilted) == [("L", "R"), ("P", "A"), ("H", "F")]
    assert letters_of(Rotation.from_euler("x", 60, degrees=True).as_matrix()) == [("L", "R"), ("H", "F"), ("A", "P")]


def test_3d_and_the_end_leave_the_camera_as_the_user_had_it(link: ViewerLink) -> None:
    camera = link.viewer.scene.camera
    camera.orientation = ("away", "down", "left")
    open_layer(link, layer_of(np.eye(3)), axis=1)
    assert camera.orientation2d == ("up", "right")
    link.viewer.dims.ndisplay = 3
    assert camera.orientation == ("away", "down", "left")
    assert letters(link.viewer) == ""
    link.viewer.dims.ndisplay = 2
    assert letters(link.viewer) == PLANES[1]
    link.follow(None, None)
    assert camera.orientation == ("away", "down", "left")
    assert letters(link.viewer) == ""
    assert not [key for key in link.viewer.canvas.overlays if "oneseg" in key]


def test_who_turns_the_camera_gets_letters_that_are_right(link: ViewerLink) -> None:
    open_layer(link, layer_of(np.eye(3)), axis=1)
    link.viewer.scene.camera.orientation2d = ("down", "left")
    assert letters(link.viewer) == "FH LR"
    link.follow(None, None)
    assert link.viewer.scene.camera.orientation2d == ("down", "left"), "the user's own choice"


def test_rolled_and_transposed_axes(link: ViewerLink) -> None:
    open_layer(link, layer_of(np.eye(3)))
    link.viewer.dims.transpose()
    assert letters(link.viewer) == "RL AP"
    link.viewer.dims.transpose()
    link.viewer.dims.roll()
    assert len(letters(link.viewer)) == 5
    assert "H" in letters(link.viewer)


def test_closed_markers_follow_no_more(viewer: Viewer) -> None:
    markers = OrientationMarkers(viewer)
    viewer.add_layer(layer_of(np.eye(3)))
    markers.follow(np.eye(3)[:, ::-1])
    markers.close()
    viewer.dims.roll()
    assert letters(viewer) == ""


@pytest.mark.parametrize("turn", [("away", "down", "right"), ("towards", "down", "left")])
@pytest.mark.parametrize("axis", PLANES)
def test_a_stroke_lands_on_the_voxel_under_the_mouse(
    make_napari_viewer: Callable[..., Viewer], qtbot: QtBot, axis: int, turn: tuple[str, str, str]
) -> None:
    viewer = make_napari_viewer(show=True)
    link = ViewerLink(viewer)
    viewer.scene.camera.orientation = turn
    open_layer(link, layer_of(DIRECTIONS["oblique"]), axis)
    labels = link.add_labels("labels")
    link.select(labels)
    labels.mode, labels.brush_size = "paint", 1
    viewer.reset_view()
    native = viewer.window._qt_viewer.canvas.native
    # The last ones lie under the letters, as near to the borders as the scan comes.
    for voxel in (
        (3, 4, 5),
        (7, 9, 2),
        (6, 2, 11),
        (0, 0, 0),
        (9, 11, 13),
        (5, 6, 13),
        (5, 0, 7),
        (0, 6, 7),
        (9, 6, 0),
    ):
        labels.data[:] = 0
        link.go_to(voxel[axis])
        qtbot.wait(30)
        at = on_canvas(viewer, tuple(labels.data_to_world(voxel)))
        QTest.mouseMove(native, at)
        qtbot.wait(15)
        QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=at)
        QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=at)
        assert list(map(tuple, np.argwhere(labels.data))) == [voxel]
    link.close()


@pytest.mark.parametrize("axis", PLANES)
def test_the_frame_of_a_slice_is_as_wide_on_all_sides_and_covers_nothing(link: ViewerLink, axis: int) -> None:
    open_layer(link, layer_of(DIRECTIONS["straight"]), axis)
    link.mark(4)
    frame = link.viewer.layers[FRAME]
    sides = [k for k in (0, 1, 2) if k != axis]
    sizes, steps = np.array(SIZE)[sides], np.array((3.0, 1.0, 0.5))[sides]
    widths = []
    for bar in frame.data:
        assert (bar[:, axis] == 4).all()
        low, high = bar[:, sides].min(0), bar[:, sides].max(0)
        outside = (high <= -0.5 + 1e-6) | (low >= sizes - 0.5 - 1e-6)
        assert outside.any(), "it lies beside the slice"
        widths.append(float(((high - low) * steps)[outside].min()))
    assert len(widths) == 4
    assert widths == pytest.approx([widths[0]] * 4, rel=1e-5)
