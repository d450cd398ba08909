"""Calls at once are bounded so that nobody's servers, by hanging, keep the workers from others."""

from __future__ import annotations

import pytest

from openairun_operator.calls import Calls, Purpose
from openairun_operator.lifecycle.provider import OWN

LOOK, CANCEL, DELETION = Purpose


class Scene:
    def __init__(self) -> None:
        self.now = 1000.0
        self.woken: list[str] = []
        self.calls = Calls(self.woken.append, lambda: self.now)

    def begin(self, crew: str, count: int, purpose: Purpose) -> None:
        """So many in all."""
        for number in range(count):
            self.calls.begins(f"{crew} {purpose.name} {number}", crew, purpose)

    def answered(self, crew: str, count: int, purpose: Purpose, after: float = 1) -> None:
        self.now += after
        for number in range(count):
            self.calls.ends(f"{crew} {purpose.name} {number}")

    def line_up(self, names: str, crew: str, purpose: Purpose = DELETION, *, over: bool = False) -> None:
        for name in names:
            self.calls.line_up(name, crew, purpose, over=over)


@pytest.mark.parametrize(("purpose", "most", "of_all"), [(LOOK, 16, 72), (CANCEL, 16, 24), (DELETION, 32, 64)])
def test_a_namespace_has_so_many_calls_and_all_together_so_many(purpose: Purpose, most: int, of_all: int) -> None:
    scene = Scene()
    scene.begin("a", most - 1, purpose)
    assert not scene.calls.is_full("a", purpose)
    scene.begin("a", most, purpose)
    assert scene.calls.is_full("a", purpose)
    for number in range(of_all - most):
        assert not scene.calls.is_full(f"{number}", purpose)
        scene.begin(f"{number}", 1, purpose)
    assert scene.calls.is_full("z", purpose)
    for other in {LOOK, CANCEL, DELETION} - {purpose}:
        assert not scene.calls.is_full("a", other), "calls of one purpose wait for none of another"
    assert not scene.calls.is_full(OWN, purpose)


def test_the_operators_own_have_as_many_for_deletions_as_all_others() -> None:
    scene = Scene()
    for purpose in (LOOK, CANCEL, DELETION):
        scene.begin(OWN, 128, purpose)
    assert [scene.calls.is_full(OWN, purpose) for purpose in (LOOK, CANCEL, DELETION)] == [False, False, True]


@pytest.mark.parametrize(("purpose", "most"), [(LOOK, 80), (CANCEL, 24)])
def test_the_operators_own_leave_workers_to_others_while_they_are_slow(purpose: Purpose, most: int) -> None:
    scene = Scene()
    scene.begin(OWN, most, purpose)
    scene.now += 2
    assert not scene.calls.is_full(OWN, purpose)
    scene.now += 1
    assert scene.calls.is_full(OWN, purpose), "the first one is awaited for long"
    scene.answered(OWN, 1, purpose)
    assert not scene.calls.is_full(OWN, purpose)
    scene.begin(OWN, most, purpose)
    assert scene.calls.is_full(OWN, purpose)
    scene.answered(OWN, most, purpose)
    scene.begin(OWN, most, purpose)
    scene.answered(OWN, 1, purpose)
    scene.begin(OWN, most + 1, purpose)
    assert not scene.calls.is_full(OWN, purpose), "it is quick again"


def test_what_the_api_server_takes_says_nothing_of_openais() -> None:
    scene = Scene()
    for number in range(81):
        scene.calls.begins(f"claim {number}", OWN, LOOK, tells=False)
    scene.now += 10
    assert not scene.calls.is_full(OWN, LOOK)
    scene.begin(OWN, 2, LOOK)
    scene.answered(OWN, 1, LOOK, after=3)
    assert scene.calls.is_full(OWN, LOOK)
    scene.calls.ends("claim 0")
    assert scene.calls.is_full(OWN, LOOK), "a quick claim is no quick answer"


def test_a_slow_answer_is_forgotten_after_a_minute() -> None:
    scene = Scene()
    scene.begin(OWN, 1, LOOK)
    scene.answered(OWN, 1, LOOK, after=3)
    scene.now += 57
    scene.begin(OWN, 80, LOOK)
    scene.now += 2
    assert scene.calls.is_full(OWN, LOOK)
    scene.now += 0.9
    assert scene.calls.is_full(OWN, LOOK)
    scene.begin(OWN, 80, LOOK)
    scene.now += 0.2
    assert not scene.calls.is_full(OWN, LOOK)


def test_slow_servers_leave_a_quarter_of_all_calls_to_quick_ones() -> None:
    scene = Scene()
    for crew in "ab":
        scene.begin(crew, 24, DELETION)
    scene.now += 3
    assert scene.calls.is_full("a", DELETION)
    assert not scene.calls.is_full("a", DELETION, over=True), "a last try"
    assert not scene.calls.is_full("a", LOOK)
    scene.begin("c", 16, DELETION)
    assert scene.calls.is_full("c", DELETION), "there are no more"
    scene.answered("c", 1, DELETION)
    assert not scene.calls.is_full("c", DELETION)
    scene.answered("a", 1, DELETION)
    assert not scene.calls.is_full("a", DELETION), "there is room among the slow ones"


def test_a_slow_server_alone_has_as_many_as_others() -> None:
    """With 8 calls of 5 s each, 260 runs took longer than the orphan limit, and were called orphans."""
    scene = Scene()
    scene.begin("a", 31, DELETION)
    scene.now += 5
    assert not scene.calls.is_full("a", DELETION)


def test_who_waits_is_woken_in_order_and_who_does_not_come_leaves_its_turn() -> None:
    scene = Scene()
    scene.begin("a", 32, DELETION)
    scene.line_up("xyz", "a")
    scene.line_up("x", "a")
    scene.answered("a", 2, DELETION)
    assert scene.woken == ["x", "y"]
    scene.calls.step_out("x")
    scene.calls.forget("z")
    scene.calls.ends("a DELETION 5")
    assert scene.woken == ["x", "y", "y"], "it has not come yet"


def test_lines_take_turns_and_two_are_woken_for_each_call_that_ends() -> None:
    scene = Scene()
    scene.begin("a", 32, DELETION)
    scene.begin("b", 32, DELETION)
    for crew in "cdef":
        scene.calls.line_up(f"of {crew}", crew, DELETION, over=False)
    scene.calls.ends("a DELETION 0")
    assert scene.woken == ["of c", "of d"]
    scene.calls.ends("a DELETION 1")
    assert scene.woken == ["of c", "of d", "of e", "of f"]
    scene.calls.ends("a DELETION 2")
    assert scene.woken[4:] == ["of c", "of d"]


def test_a_last_try_waits_for_no_first_ones_of_a_server_that_is_slow() -> None:
    scene = Scene()
    for crew in "ab":
        scene.begin(crew, 25, DELETION)
    scene.line_up("x", "a")
    scene.line_up("y", "a", over=True)
    scene.answered("a", 1, DELETION, after=5)
    assert scene.woken == ["y"]


def test_a_call_that_follows_another_counts_once_and_nothing_is_left_at_the_end() -> None:
    scene = Scene()
    for crew in ("a", OWN):
        scene.begin(crew, 5, DELETION)
        scene.begin(crew, 5, LOOK)
        scene.calls.begins(f"{crew} LOOK 0", crew, CANCEL)
    assert "a LOOK 0" in scene.calls
    scene.line_up("x", "a")
    scene.calls.forget("x")
    for uid in list(scene.calls._under_way):
        scene.calls.ends(uid)
    assert not scene.calls._began
    assert not +scene.calls._others
    assert not scene.calls._lines
    assert not scene.calls._waiting
