"""The range of the target and the slices worth painting, without the controller."""

from __future__ import annotations

import pytest

from napari_oneseg.plugin.foreground import Foreground
from napari_oneseg.plugin.target import Target
from tests.plugin.plugin_fixtures import COUNT, HandEngine, opened_scan, painted

pytestmark = pytest.mark.usefixtures("qapp", "clear_features")


class Heard:
    """A target on the small scan, and what it has said."""

    def __init__(self, at_once: bool = True) -> None:
        self.engine = HandEngine(at_once)
        self.foreground = Foreground(self.engine)
        self.target = Target(self.foreground, self.engine)
        self.opened = opened_scan()
        self.target.reset(self.opened.session, self.opened.ranking)
        self.worked = 0
        self.wanted: list[int] = []
        self.said: list[str] = []
        self.target.worked.connect(self._count)
        self.target.slice_wanted.connect(self.wanted.append)
        self.target.said.connect(lambda text, _level: self.said.append(text))

    def _count(self) -> None:
        self.worked += 1

    @property
    def best(self) -> list[int]:
        return [suggestion.index for suggestion in self.target.best]

    @property
    def ranked(self) -> tuple[int, int] | None:
        assert self.target.ranking is not None
        return self.target.ranking.slice_range


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_a_range_lies_within_the_scan_and_its_slices_are_ranked(heard: Heard) -> None:
    heard.target.set_range((99, 7))
    assert heard.target.range == (7, COUNT - 1)
    assert heard.ranked == (7, 9)
    assert set(heard.best) <= {7, 8, 9}
    assert heard.wanted == [heard.best[0]]
    heard.target.set_range((-5, 3))
    assert heard.target.range == (0, 3)
    heard.target.set_range(None)
    assert heard.ranked is None
    assert heard.worked == 3


def test_the_same_range_again_is_no_work(heard: Heard) -> None:
    heard.target.set_range((2, 5))
    heard.target.set_range((5, 2))
    assert heard.worked == 1
    assert len(heard.wanted) == 1


def test_each_end_is_set_on_its_own_and_pushes_the_other(heard: Heard) -> None:
    heard.target.set_first(3)
    assert heard.target.range == (3, 9)
    heard.target.set_last(6)
    assert heard.target.range == (3, 6)
    heard.target.set_first(8)
    assert heard.target.range == (8, 8)
    heard.target.set_last(2)
    assert heard.target.range == (2, 2)


def test_the_last_slice_alone_begins_at_the_first_one(heard: Heard) -> None:
    heard.target.set_last(4)
    assert heard.target.range == (0, 4)


def test_one_click_gives_a_range_and_says_it(heard: Heard) -> None:
    heard.target.locate(4, 16, 20)
    assert heard.target.range is not None
    first, last = heard.target.range
    assert first <= 4 <= last
    assert f"from slice {first} to {last}" in heard.said[0]
    assert heard.ranked == (first, last)


def test_going_to_the_best_slice_ranks_only_where_that_is_out_of_date(heard: Heard) -> None:
    ranking = heard.target.ranking
    heard.target.go_to_best()
    assert heard.wanted == [heard.best[0]]
    assert heard.target.ranking is ranking
    heard.target.range = 5, 8
    heard.target.go_to_best()
    assert heard.ranked == (5, 8)
    assert heard.wanted[1] == heard.best[0]
    assert 5 <= heard.wanted[1] <= 8


def test_where_nothing_stands_out_there_is_no_best_slice(heard: Heard) -> None:
    heard.target.reset(heard.opened.session, None)
    assert heard.target.best == []
    heard.target.propagated()
    assert heard.target.ranking is None, "asked for by nobody"


def test_nothing_is_ranked_while_the_user_waits_for_something_else() -> None:
    heard = Heard(at_once=False)
    heard.foreground.do("export", lambda _: None, lambda _: None)
    heard.target.set_range((2, 5))
    assert heard.foreground.doing == "export"
    heard.engine.work()
    assert heard.ranked is None
    heard.target.propagated()
    heard.engine.work()
    assert heard.ranked == (2, 5)
    assert heard.wanted == [], "the user is looking at what was propagated"


def test_what_to_paint_next_is_found_once_something_was_propagated(heard: Heard) -> None:
    session = heard.opened.session
    heard.target.propagated()
    assert heard.target.next_slices == []
    session.annotate(2, painted())
    session.propagate()
    heard.target.propagated()
    assert heard.target.next_slices
    assert 2 not in {found.index for found in heard.target.next_slices}


def test_an_answer_for_the_scan_before_is_dropped() -> None:
    heard = Heard(at_once=False)
    session = heard.opened.session
    session.annotate(2, painted())
    session.propagate()
    heard.target.propagated()
    heard.target.reset(opened_scan().session, None)
    heard.engine.work()
    assert heard.target.next_slices == []


def test_without_a_scan_there_is_no_range() -> None:
    heard = Heard()
    heard.target.set_range((2, 5))
    heard.target.reset(None, None)
    assert heard.target.range is None
    with pytest.raises(RuntimeError, match="No scan is open"):
        heard.target.set_range((2, 5))
