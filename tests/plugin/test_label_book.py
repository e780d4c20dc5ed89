from __future__ import annotations

import json

import pytest

from napari_oneseg.colours import colour_of
from napari_oneseg.plugin.label_book import LARGEST_LABEL, LabelBook, LabelStyle

RED = (1.0, 0.0, 0.0, 1.0)


class Heard:
    """A book, the labels that slices show, and what it has told."""

    def __init__(self) -> None:
        self.shown: list[int] = []
        self.book = LabelBook(lambda: self.shown)
        self.told: list[str] = []
        for name in ("styled", "changed", "worked"):
            getattr(self.book, name).connect(lambda name=name: self.told.append(name))


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_every_label_has_a_name_and_a_colour(heard: Heard) -> None:
    assert heard.book.style(7) == LabelStyle("Label 7", colour_of(7))
    assert heard.book.values == [1]
    assert heard.told == []


def test_a_new_label_is_none_that_is_shown_named_or_selected(heard: Heard) -> None:
    heard.shown = [2, 5]
    heard.book.restyle(3, "Liver")
    heard.told.clear()
    assert heard.book.add() == 4
    assert heard.book.selected == 4
    assert heard.book.values == [2, 3, 4, 5]
    assert heard.told == ["styled", "changed"]


def test_where_all_labels_are_used_the_last_one_is_selected(heard: Heard) -> None:
    heard.shown = list(range(1, LARGEST_LABEL + 1))
    assert heard.book.add() == LARGEST_LABEL
    assert heard.book.values == heard.shown


@pytest.mark.parametrize("value", [0, -1, 1])
def test_background_and_what_is_selected_already_are_not_selected(heard: Heard, value: int) -> None:
    heard.book.select(value)
    assert heard.book.selected == 1
    assert heard.told == []


def test_a_name_leaves_the_colour_and_a_colour_the_name(heard: Heard) -> None:
    heard.book.restyle(2, name="Liver")
    assert heard.book.style(2) == LabelStyle("Liver", colour_of(2))
    heard.book.restyle(2, colour=RED)
    heard.book.restyle(2, name="Spleen")
    assert heard.book.style(2) == LabelStyle("Spleen", RED)
    assert heard.told == ["styled", "worked", "changed"] * 3


def test_a_label_that_is_removed_is_not_painted_with_any_more(heard: Heard) -> None:
    heard.shown = [5]
    heard.book.restyle(3, "Liver")
    heard.book.select(3)
    heard.told.clear()
    heard.book.remove(3)
    assert heard.book.selected == 5
    assert heard.book.style(3).name == "Label 3"
    assert heard.told == ["styled"]
    heard.shown = []
    heard.book.remove(5)
    assert heard.book.selected == 1


def test_what_is_kept_comes_back_and_is_no_work_of_the_user_s(heard: Heard) -> None:
    heard.book.restyle(2, "Liver", RED)
    heard.book.select(2)
    kept = json.loads(json.dumps(heard.book.to_dict()))
    other = Heard()
    other.book.take(kept)
    assert other.book.styles == {2: LabelStyle("Liver", RED)}
    assert other.book.selected == 2
    assert other.told == ["styled"]
    other.book.take({})
    assert other.book.selected == 2
    other.book.reset()
    assert (other.book.styles, other.book.selected) == ({}, 1)


def test_an_export_names_what_is_shown_too(heard: Heard) -> None:
    heard.shown = [4]
    heard.book.restyle(2, "Liver", RED)
    record = heard.book.record()
    assert record["label_names"] == {"1": "Label 1", "2": "Liver", "4": "Label 4"}
    assert record["label_colours"]["2"] == list(RED)
