from __future__ import annotations

import pytest

from napari_oneseg.errors import InputError
from napari_oneseg.plugin.foreground import Foreground
from tests.plugin.plugin_fixtures import HandEngine

pytestmark = pytest.mark.usefixtures("qapp")


class Heard:
    """A foreground, and what it has told, in order."""

    def __init__(self) -> None:
        self.engine = HandEngine(at_once=False)
        self.foreground = Foreground(self.engine)
        self.told: list[object] = []
        self.foreground.beginning.connect(lambda name: self.told.append(("beginning", name)))
        self.foreground.changed.connect(lambda: self.told.append("changed"))
        self.foreground.failed.connect(lambda name, text: self.told.append((name, text)))

    def do(self, name: str, answer: object = None) -> None:
        self.foreground.do(name, lambda _: answer, self.told.append)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_what_is_done_has_a_name_until_its_answer_comes(heard: Heard) -> None:
    heard.do("suggest", 7)
    assert heard.foreground.doing == "suggest"
    assert heard.foreground.job is not None
    heard.engine.work()
    assert heard.foreground.doing == ""
    assert heard.foreground.job is None
    assert heard.told == [("beginning", "suggest"), "changed", 7]


def test_the_next_job_makes_the_one_before_forgotten(heard: Heard) -> None:
    heard.do("suggest", 7)
    before = []
    heard.foreground.beginning.connect(lambda _: before.append(heard.foreground.doing))
    heard.do("locate", 8)
    assert before == ["suggest"], "told while it can still be saved"
    heard.engine.work()
    assert 8 in heard.told
    assert 7 not in heard.told


def test_an_answer_may_ask_for_the_next_thing(heard: Heard) -> None:
    heard.foreground.do("locate", lambda _: 7, lambda _: heard.do("suggest", 8))
    heard.engine.work()
    assert heard.told[-1] == 8
    assert heard.foreground.doing == ""


def test_what_is_cancelled_says_when_it_has_stopped(heard: Heard) -> None:
    heard.foreground.do("open", lambda _: 7, heard.told.append, stopped=lambda: heard.told.append("stopped"))
    heard.told.clear()
    heard.foreground.cancel()
    assert heard.foreground.doing == "open"
    heard.engine.work()
    assert heard.told == ["stopped", "changed"]
    assert heard.foreground.doing == ""


def test_what_fails_is_told_with_its_name(heard: Heard) -> None:
    def fail(_: object) -> None:
        raise InputError("The file is empty.")

    heard.foreground.do("open", fail, heard.told.append)
    heard.told.clear()
    heard.engine.work()
    assert heard.told == [("open", "The file is empty."), "changed"]
    assert heard.foreground.doing == ""


def test_what_is_forgotten_is_never_answered(heard: Heard) -> None:
    heard.do("suggest", 7)
    heard.told.clear()
    heard.foreground.forget()
    assert heard.foreground.doing == ""
    heard.engine.work()
    assert heard.told == []
