"""Calls at once are bounded so that nobody's servers, by hanging, keep the workers from others."""

from __future__ import annotations

from openairun_operator.calls import Calls
from openairun_operator.lifecycle.provider import OWN


class Scene:
    def __init__(self) -> None:
        self.now = 1000.0
        self.woken: list[str] = []
        self.calls = Calls(self.woken.append, lambda: self.now)

    def look(self, crew: str, count: int) -> None:
        for number in range(count):
            self.calls.begins(f"{crew} {number}", crew, ending=False, deletion=False)

    def end(self, crew: str, count: int, *, deletion: bool = True) -> None:
        for number in range(count):
            self.calls.begins(f"{crew} end {number}", crew, ending=True, deletion=deletion)

    def answered(self, crew: str, count: int, after: float) -> None:
        self.now += after
        for number in range(count):
            self.calls.ends(f"{crew} end {number}")


def test_a_namespace_has_16_calls_and_all_together_96() -> None:
    scene = Scene()
    scene.look("a", 15)
    assert not scene.calls.is_full("a")
    scene.look("a", 16)
    assert scene.calls.is_full("a")
    assert not scene.calls.is_full("b")
    for crew in "bcdef":
        scene.look(crew, 16)
    assert scene.calls.is_full("g")
    assert not scene.calls.is_full(OWN)


def test_calls_that_end_runs_wait_for_no_others() -> None:
    scene = Scene()
    scene.look("a", 16)
    assert not scene.calls.is_full_for("a", deletion=True)
    assert not scene.calls.is_full_for("a", deletion=False)
    scene.end("a", 32)
    assert scene.calls.is_full_for("a", deletion=True)
    assert not scene.calls.is_full_for("b", deletion=True)


def test_those_of_deletions_have_64_for_all_namespaces_and_64_for_the_operators_own() -> None:
    scene = Scene()
    scene.end("a", 32)
    scene.end("b", 32)
    assert scene.calls.is_full_for("c", deletion=True)
    assert not scene.calls.is_full_for("c", deletion=False)
    assert not scene.calls.is_full_for(OWN, deletion=True)
    scene.end(OWN, 64)
    assert scene.calls.is_full_for(OWN, deletion=True)
    assert not scene.calls.is_full_for(OWN, deletion=False)


def test_those_of_no_deletion_share_with_looks() -> None:
    scene = Scene()
    scene.end("a", 32, deletion=False)
    scene.end("b", 32, deletion=False)
    scene.look("c", 16)
    scene.look("d", 15)
    assert not scene.calls.is_full("e")
    scene.look("d", 16)
    assert scene.calls.is_full("e")
    assert scene.calls.is_full_for("e", deletion=False)


def test_servers_that_are_slow_to_end_runs_have_8_until_they_are_not() -> None:
    scene = Scene()
    scene.end("a", 32)
    scene.answered("a", 32, after=3)
    scene.end("a", 8)
    assert scene.calls.is_full_for("a", deletion=True)
    assert not scene.calls.is_full_for("a", deletion=True, over=True), "a last try"
    scene.answered("a", 1, after=2)
    scene.end("a", 31)
    assert not scene.calls.is_full_for("a", deletion=True)


def test_who_waits_is_woken_one_for_each_that_ends_in_order() -> None:
    scene = Scene()
    scene.end("a", 32)
    for name in "xyz":
        scene.calls.line_up(name, "a", deletion=True, over=False)
    scene.answered("a", 2, after=1)
    assert scene.woken == ["x", "y"]
    scene.calls.step_out("x", "a")
    scene.calls.forget("z")
    scene.calls.ends("a end 5")
    assert scene.woken == ["x", "y", "y"], "it has not come yet"


def test_who_does_not_come_leaves_the_turn_to_the_next_one() -> None:
    scene = Scene()
    scene.end("a", 32)
    for name in "xyz":
        scene.calls.line_up(name, "a", deletion=True, over=False)
    scene.answered("a", 4, after=1)
    assert scene.woken == ["x", "y", "z", "x"]


def test_room_that_one_namespace_leaves_is_anothers() -> None:
    scene = Scene()
    scene.end("a", 32)
    scene.end("b", 32)
    scene.calls.line_up("x", "c", deletion=True, over=False)
    scene.calls.ends("a end 0")
    assert scene.woken == ["x"]


def test_a_call_that_follows_another_counts_once_and_nothing_is_left_at_the_end() -> None:
    scene = Scene()
    scene.end("a", 5)
    scene.look("a", 5)
    scene.calls.begins("a 0", "a", ending=True, deletion=True)
    assert "a 0" in scene.calls
    for uid in list(scene.calls._under_way):
        scene.calls.ends(uid)
    assert not scene.calls._looks + scene.calls._endings + scene.calls._others
    assert scene.calls._own_deletions == 0
