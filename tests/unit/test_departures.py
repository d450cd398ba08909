"""Finalizers go at once, but those of a crowd only after all of it is cancelled, or after two minutes."""

from __future__ import annotations

import pytest

from openairun_operator.departures import Departures


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def departures(time: Time) -> Departures:
    return Departures(time)


def crowd(departures: Departures, namespace: str = "team", count: int = 40) -> None:
    for _ in range(count):
        departures.deleted(namespace)


def test_39_at_once_are_no_crowd(departures: Departures) -> None:
    crowd(departures, count=39)
    assert not departures.held("a", "team")


def test_40_within_more_than_two_seconds_are_no_crowd(departures: Departures, time: Time) -> None:
    for _ in range(80):
        departures.deleted("team")
        time.now += 0.052
    assert not departures.held("a", "team")


def test_who_is_held_goes_when_the_crowd_has_come(departures: Departures, time: Time) -> None:
    crowd(departures)
    assert departures.held("a", "team")
    assert departures.held("b", "team")
    assert departures.waits("a")
    assert departures.due() == []
    time.now += 2
    assert departures.due() == ["a", "b"]
    assert not departures.held("a", "team")
    assert not departures.waits("a")
    assert departures.due() == [], "each is named once"


def test_who_was_let_go_is_not_held_again_though_it_could_not_go_and_more_come(
    departures: Departures, time: Time
) -> None:
    crowd(departures)
    assert departures.held("a", "team")
    time.now += 2
    assert departures.due() == ["a"]
    crowd(departures)
    assert not departures.held("a", "team")
    departures.gone("a")
    assert departures.held("a", "team"), "it was to do something else"


def test_nobody_is_held_for_more_than_two_minutes(departures: Departures, time: Time) -> None:
    crowd(departures)
    assert departures.held("a", "team")
    for _ in range(119):
        time.now += 1
        crowd(departures)
        assert departures.held("b", "team")
        assert departures.due() == []
    time.now += 1
    crowd(departures)
    assert departures.due() == ["a"]
    assert not departures.held("a", "team")
    assert departures.held("b", "team")


def test_all_may_go_at_once_when_nobody_is_there_to_let_them_go_later(departures: Departures) -> None:
    crowd(departures)
    for uid in "abc":
        assert departures.held(uid, "team")
    assert departures.all_free() == ["a", "b", "c"]
    assert not departures.held("a", "team")
    assert departures.all_free() == []


def test_a_crowd_holds_nobody_in_another_namespace(departures: Departures) -> None:
    crowd(departures)
    departures.deleted("other")
    assert not departures.held("a", "other")


def test_nothing_is_kept_of_what_is_over(departures: Departures, time: Time) -> None:
    crowd(departures)
    assert departures.held("a", "team")
    departures.gone("a")
    time.now += 3
    assert departures.due() == []
    assert not departures._deletions
    assert not departures._held
