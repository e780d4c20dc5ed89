"""A labels layer and what is known of the slices, kept the same."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication

from napari_oneseg.plugin.binding import LabelsBinding

SHAPE = (6, 16, 20)


class Book:
    """What is known, and what was heard of strokes."""

    def __init__(self, axis: int = 0) -> None:
        self.layer = Labels(np.zeros(SHAPE, np.uint8))
        self.axis = axis
        self.known = np.zeros_like(np.moveaxis(self.layer.data, axis, 0))
        self.heard: list[list[int]] = []
        self.on_screen: int | None = 0
        self.binding = LabelsBinding(self.layer, axis, lambda index: self.known[index], lambda: self.on_screen)
        self.binding.stroked.connect(self._stroked)

    def _stroked(self, images: dict[int, NDArray[np.uint8]]) -> None:
        self.heard.append(sorted(images))
        for index, image in images.items():
            self.known[index] = image

    @property
    def agrees(self) -> bool:
        return bool(np.array_equal(self.known, np.moveaxis(self.layer.data, self.axis, 0)))


@pytest.fixture
def book(qtbot: QtBot) -> Book:
    return Book()


def settle() -> None:
    """Let napari write what it has announced."""
    QApplication.processEvents()


def test_a_stroke_is_heard_once_with_its_slice(book: Book) -> None:
    book.layer.brush_size = 4
    book.layer.paint((0, 8, 8), 1)
    settle()
    assert book.heard == [[0]]
    assert book.agrees


def test_a_stroke_of_several_dabs_is_heard_once(book: Book) -> None:
    with book.layer.block_history():
        for column in (4, 8, 12):
            book.layer.paint((0, 8, column), 2)
    assert book.heard == [[0]]
    assert book.agrees


def test_a_fill_and_an_edit_by_index_are_heard(book: Book) -> None:
    book.layer.fill((0, 8, 8), 3)
    settle()
    book.layer.data_setitem((np.array([2, 5, -1]), np.array([1, 1, 1]), np.array([1, 2, 3])), 4)
    settle()
    assert book.heard == [[0], [2, 5]]
    assert book.agrees


def test_a_thick_brush_is_heard_on_all_its_slices(book: Book) -> None:
    book.layer.n_edit_dimensions = 3
    book.layer.brush_size = 5
    book.layer.paint((2, 8, 8), 1)
    settle()
    assert book.heard == [[0, 1, 2, 3, 4]]
    assert book.agrees


@pytest.mark.parametrize("axis", [1, 2])
def test_slices_of_another_axis(axis: int, qtbot: QtBot) -> None:
    book = Book(axis)
    book.layer.brush_size = 3
    book.layer.paint((0, 8, 9), 1)
    settle()
    assert book.heard == [[7, 8, 9]] if axis == 1 else [[8, 9, 10]]
    assert book.agrees


def test_napari_s_own_undo_is_seen_when_the_slice_is_drawn(book: Book) -> None:
    book.layer.paint((0, 8, 8), 1)
    settle()
    assert book.known.any()
    book.layer.undo()
    assert book.agrees
    assert not book.known.any()


def test_what_a_script_wrote_is_found_before_saving(book: Book) -> None:
    book.layer.data[4, 3:6, 3:6] = 2
    book.layer.data[5, 3:6, 3:6] = 2
    assert not book.agrees
    book.binding.compare()
    assert book.heard == [[4, 5]]
    assert book.agrees


def test_a_replaced_array_is_compared_and_one_of_another_shape_given_up(book: Book) -> None:
    lost: list[bool] = []
    book.binding.replaced.connect(lambda: lost.append(True))
    data = book.layer.data.copy()
    data[1, 2, 3] = 9
    book.layer.data = data
    assert book.heard == [[1]]
    assert not lost
    book.layer.data = np.zeros((3, 4, 5), np.uint8)
    assert lost


def test_what_is_written_is_no_stroke(book: Book, qtbot: QtBot) -> None:
    image = np.full(SHAPE[1:], 3, np.uint8)
    book.known[[0, 2]] = image
    book.binding.write({0: image, 2: image})
    qtbot.waitUntil(lambda: book.agrees, timeout=2000)
    assert book.heard == []


def test_nothing_is_written_into_an_open_stroke(book: Book, qtbot: QtBot) -> None:
    """napari puts old voxels back when a stroke is given up: over what was written meanwhile."""
    image = np.full(SHAPE[1:], 3, np.uint8)
    book.layer._overlays["brush_stroke"].active = True
    book.known[2] = image
    book.binding.write({2: image})
    qtbot.wait(200)
    assert not book.layer.data[2].any()
    book.layer._overlays["brush_stroke"].active = False
    qtbot.waitUntil(lambda: book.agrees, timeout=2000)
    assert book.heard == []


def test_a_stroke_on_a_slice_that_waits_to_be_written_counts(book: Book, qtbot: QtBot) -> None:
    image = np.full(SHAPE[1:], 3, np.uint8)
    book.layer._overlays["brush_stroke"].active = True
    book.known[0] = image
    book.binding.write({0: image})
    book.layer.paint((0, 8, 8), 1)
    book.layer._overlays["brush_stroke"].active = False
    qtbot.wait(200)
    assert book.agrees
    assert (book.layer.data[0] == 1).any()
    assert not (book.layer.data == 3).any(), "the user painted on what was on screen"


def test_labels_below_zero_are_background(qtbot: QtBot) -> None:
    book = Book()
    book.layer.data = np.zeros(SHAPE, np.int32)
    book.layer.data[1, 2, 3] = -4
    book.layer.data[1, 2, 4] = 4
    book.binding.compare()
    assert book.known.max() == 4
    assert book.known[1].sum() == 4


def test_after_release_nothing_is_heard(book: Book) -> None:
    book.binding.release()
    book.layer.paint((0, 8, 8), 1)
    settle()
    assert book.heard == []


def test_what_waits_to_be_written_is_not_taken_for_a_stroke(book: Book, qtbot: QtBot) -> None:
    image = np.full(SHAPE[1:], 3, np.uint8)
    book.layer._overlays["brush_stroke"].active = True
    book.known[2] = image
    book.binding.write({2: image})
    book.binding.compare()
    assert book.heard == []
    book.layer._overlays["brush_stroke"].active = False
    qtbot.waitUntil(lambda: book.agrees, timeout=2000)
    assert (book.layer.data[2] == 3).all()


@pytest.mark.parametrize("first", ["stroke", "write"])
def test_a_fill_that_nobody_has_taken_yet_is_not_written_over(book: Book, qtbot: QtBot, first: str) -> None:
    """napari announces a fill before it has made it; then a result comes for the same slice."""
    image = np.full(SHAPE[1:], 3, np.uint8)
    if first == "write":
        book.layer._overlays["brush_stroke"].active = True
        book.known[0] = image
        book.binding.write({0: image})
        book.layer._overlays["brush_stroke"].active = False
    book.layer.fill((0, 8, 8), 5)
    if first == "stroke":
        book.known[0] = image
        book.binding.write({0: image})
    book.binding._flush()
    qtbot.wait(150)
    assert book.agrees
    assert (book.layer.data[0] == 5).all()
