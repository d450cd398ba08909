"""The slots: how many may start a run at once, who is next, and that nobody is forgotten."""

import math
import os
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from openairun_operator.slots import Slots

P = "default"


def time(second: int) -> str:
    return f"2030-01-01T00:{second // 60:02}:{second % 60:02}Z"


class Opened:
    """Slots that are open, and who was woken."""

    def __init__(self, most: int | None = None) -> None:
        self.woken: list[str] = []
        self.slots = Slots(self.woken.append)
        self.slots.limit(P, most)
        self.slots.open()

    def wait(self, *uids: str, namespace: str = "ns") -> None:
        """They were created in alphabetical order: a at second 0."""
        for uid in uids:
            self.slots.waits(uid, P, namespace, time(ord(uid[0]) - ord("a")))

    def start(self, *uids: str, namespace: str = "ns") -> None:
        for uid in uids:
            self.slots.holds(uid, P, namespace)

    def news(self) -> list[str]:
        """Who was woken since the last time."""
        woken = self.woken.copy()
        self.woken.clear()
        return woken


def nothing_is_left(slots: Slots) -> bool:
    return not slots._claims and not slots._pools


def test_without_a_limit_all_may_start_at_once() -> None:
    it = Opened()
    it.wait("c", "a", "b")
    assert it.news() == ["c", "a", "b"]
    assert it.slots.admitted("a", P)
    assert it.slots.counts(P) == (0, 3)
    it.start("a")
    assert it.slots.counts(P) == (1, 2)


def test_those_who_wait_come_in_order_of_creation() -> None:
    it = Opened(1)
    it.start("x")
    for uid, created in {"c": 5, "a": 70, "d": 9, "b2": 6, "b1": 6}.items():
        it.slots.waits(uid, P, "ns", time(created))
    assert it.news() == []
    assert not it.slots.admitted("c", P)
    for uid in ("x", "c", "b1", "b2", "d"):
        it.slots.leaves(uid)
    assert it.news() == ["c", "b1", "b2", "d", "a"]


def test_a_grant_takes_a_place_until_it_is_used_or_given_up() -> None:
    it = Opened(1)
    it.wait("a", "b", "c")
    assert it.news() == ["a"]
    it.start("a")
    assert it.slots.admitted("a", P)
    assert it.news() == []
    it.slots.leaves("a")
    it.slots.leaves("b")
    assert it.news() == ["b", "c"]
    it.slots.waits("c", "other", "ns", time(2))
    it.wait("d")
    assert it.news() == ["c", "d"]


def test_an_older_run_does_not_take_a_grant_away() -> None:
    it = Opened(1)
    it.wait("b", "a")
    assert it.news() == ["b"]
    assert not it.slots.admitted("a", P)


def test_the_namespace_that_has_least_is_next() -> None:
    it = Opened(3)
    it.start("v", "w", "x", namespace="many")
    it.wait("a", "b", "c", namespace="many")
    it.wait("e", "f", namespace="some")
    it.wait("d", namespace="few")
    for uid in ("v", "w", "x", "d"):
        it.slots.leaves(uid)
    # At last many and some have one each, and b is older than f.
    assert it.news() == ["d", "e", "a", "b"]
    it.slots.leaves("e")
    assert it.news() == ["f"]
    it.slots.leaves("f")
    assert it.news() == ["c"]


def test_equal_namespaces_come_by_their_oldest_run() -> None:
    it = Opened(0)
    it.wait("b", "c", namespace="one")
    it.wait("a", "d", namespace="two")
    it.slots.limit(P, 4)
    assert it.news() == ["a", "b", "c", "d"]


def test_a_higher_limit_lets_more_start() -> None:
    it = Opened(1)
    it.wait(*"abcd")
    it.slots.limit(P, 3)
    assert it.news() == ["a", "b", "c"]
    it.slots.limit(P, None)
    assert it.news() == ["d"]


def test_a_lower_limit_takes_grants_but_no_slots() -> None:
    it = Opened(5)
    it.start("x", "y")
    it.wait(*"cba")
    assert it.news() == ["c", "b", "a"]
    it.slots.limit(P, 3)
    assert it.news() == ["a"]
    assert [it.slots.admitted(uid, P) for uid in "xyabc"] == [True, True, True, False, False]
    it.slots.limit(P, 1)
    assert it.slots.counts(P) == (2, 3)
    assert [it.slots.admitted(uid, P) for uid in "xya"] == [True, True, False]
    it.slots.leaves("x")
    assert it.news() == []
    it.slots.leaves("y")
    assert it.news() == ["a"]


def test_runs_that_go_count_over_the_limit_too() -> None:
    it = Opened(1)
    it.start("x", "y")
    it.wait("a")
    it.slots.leaves("x")
    assert it.news() == []
    it.slots.leaves("y")
    assert it.news() == ["a"]


def test_a_failed_create_gives_its_slot_back_and_keeps_its_turn() -> None:
    it = Opened(1)
    it.wait("a", "b")
    it.start("a")
    it.wait("a")
    assert it.news() == ["a", "a"]
    assert it.slots.counts(P) == (0, 2)
    it.start("b")
    it.wait("b")
    assert it.news() == []
    it.slots.leaves("a")
    assert it.news() == ["b"]


def test_after_a_start_nothing_is_granted_until_all_is_known() -> None:
    woken: list[str] = []
    slots = Slots(woken.append)
    slots.limit(P, 2)
    slots.waits("b", P, "ns", time(1))
    slots.waits("c", "unlimited", "ns", time(1))
    slots.limit(P, 3)
    slots.waits("a", P, "ns", time(0))
    slots.holds("x", P, "ns")
    slots.holds("y", P, "ns")
    assert woken == []
    assert not slots.admitted("a", P)
    slots.open()
    assert sorted(woken) == ["a", "c"]
    assert not slots.admitted("a", "unlimited")
    slots.open()
    assert len(woken) == 2


def test_saying_it_again_changes_nothing() -> None:
    it = Opened(2)
    for _ in range(3):
        it.start("x")
        it.wait("a", "b")
        it.slots.leaves("unknown")
        it.slots.limit(P, 2)
        it.slots.leaves("gone")
    assert it.news() == ["a"]
    assert it.slots.counts(P) == (1, 2)


def test_providers_do_not_know_each_other() -> None:
    it = Opened(1)
    it.slots.limit("other", 1)
    it.wait("a", "b")
    it.slots.waits("c", "other", "ns", time(9))
    assert it.news() == ["a", "c"]
    it.slots.waits("a", "other", "ns", time(0))
    assert it.news() == ["b"]
    assert (it.slots.counts(P), it.slots.counts("other"), it.slots.counts("none")) == ((0, 1), (0, 2), (0, 0))


def test_who_is_woken_may_say_so_at_once() -> None:
    def start(uid: str) -> None:
        started.append(uid)
        slots.holds(uid, P, "ns")

    started: list[str] = []
    slots = Slots(start)
    slots.limit(P, 2)
    for uid in "abc":
        slots.waits(uid, P, "ns", time(0))
    slots.open()
    assert started == ["a", "b"]
    assert slots.counts(P) == (2, 1)


def test_nothing_grows() -> None:
    it = Opened(1)
    it.start("first")
    it.wait("a", namespace="old")
    pool = it.slots._pools[P]
    for i in range(1000):
        it.slots.waits(f"r{i}", P, f"ns{i % 3}", time(i))
        it.slots.holds(f"s{i}", P, f"ns{i}")
        it.slots.leaves(f"r{i}")
        it.slots.leaves(f"s{i}")
    queues = [pool._namespaces, *pool._waiting.values()]
    assert len(queues) == 2
    assert [*pool._taken] == ["ns"]
    assert all(len(queue._heap) < 20 for queue in queues)
    it.slots.leaves("a")
    it.slots.leaves("first")
    assert nothing_is_left(it.slots)
    assert it.slots._limits == {P: 1}
    it.slots.limit(P, None)
    assert not it.slots._limits


# --- whatever happens

UIDS = some.sampled_from("abcdefghijkl")
PROVIDERS = some.sampled_from("PQ")
NAMESPACES = {uid: "xyz"[i * i % 3] for i, uid in enumerate("abcdefghijkl")}
CREATED = {uid: time(i * 5 % 4) for i, uid in enumerate("abcdefghijkl")}


class Model(RuleBasedStateMachine):
    """The same in few words, slowly; each grant is checked when it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(self.granted)
        self.opened = False
        self.limits: dict[str, int | None] = {}
        self.holding: dict[str, str] = {}
        self.waiting: dict[str, str] = {}
        self.grants: set[str] = set()

    def taken(self, provider: str) -> list[str]:
        granted = {uid: p for uid, p in self.waiting.items() if uid in self.grants}
        return [uid for uid, p in (self.holding | granted).items() if p == provider]

    def room(self, provider: str) -> bool:
        most = self.limits.get(provider)
        return self.opened and len(self.taken(provider)) < (math.inf if most is None else most)

    def queue(self, provider: str) -> list[str]:
        """Those without a grant; the first is next."""
        queue = [uid for uid, p in self.waiting.items() if p == provider and uid not in self.grants]
        namespaces = [NAMESPACES[uid] for uid in self.taken(provider)]

        def rank(uid: str) -> Any:
            return namespaces.count(NAMESPACES[uid]), CREATED[uid], uid

        return sorted(queue, key=rank)

    def granted(self, uid: str) -> None:
        provider = self.waiting[uid]
        assert self.room(provider), "beyond the limit"
        assert self.queue(provider)[0] == uid, "not its turn"
        self.grants.add(uid)

    @rule()
    def open(self) -> None:
        self.opened = True
        self.slots.open()

    @rule(provider=PROVIDERS, most=some.none() | some.integers(0, 6))
    def limit(self, provider: str, most: int | None) -> None:
        old = self.limits.get(provider)
        if most is not None and (old is None or most < old):
            self.grants = {uid for uid in self.grants if self.waiting[uid] != provider}
        self.limits[provider] = most
        self.slots.limit(provider, most)

    @rule(uid=UIDS, provider=PROVIDERS)
    def holds(self, uid: str, provider: str) -> None:
        self.waiting.pop(uid, None)
        self.grants.discard(uid)
        self.holding[uid] = provider
        self.slots.holds(uid, provider, NAMESPACES[uid])

    @rule(uid=UIDS)
    def starts(self, uid: str) -> None:
        if uid in self.grants:
            self.holds(uid, self.waiting[uid])

    @rule(uid=UIDS, provider=PROVIDERS)
    def waits(self, uid: str, provider: str) -> None:
        self.holding.pop(uid, None)
        if self.waiting.get(uid) != provider:
            self.grants.discard(uid)
        self.waiting[uid] = provider
        self.slots.waits(uid, provider, NAMESPACES[uid], CREATED[uid])

    @rule(uid=UIDS)
    def leaves(self, uid: str) -> None:
        self.holding.pop(uid, None)
        self.waiting.pop(uid, None)
        self.grants.discard(uid)
        self.slots.leaves(uid)

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        for provider in "PQ":
            assert not (self.room(provider) and self.queue(provider))

    @invariant()
    def both_say_the_same(self) -> None:
        for provider in "PQ":
            admitted = {uid for uid in NAMESPACES if self.slots.admitted(uid, provider)}
            granted = {uid for uid in self.grants if self.waiting[uid] == provider}
            assert admitted == granted | {uid for uid, its in self.holding.items() if its == provider}
            expected = [list(uids.values()).count(provider) for uids in (self.holding, self.waiting)]
            assert list(self.slots.counts(provider)) == expected

    def teardown(self) -> None:
        for uid in NAMESPACES:
            self.leaves(uid)
        assert nothing_is_left(self.slots)


@pytest.mark.parametrize("steps", [10, 60])
def test_whatever_happens(steps: int) -> None:
    times = int(os.environ.get("PROPERTIES", "0"))
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=60 * max(times, 1),
            stateful_step_count=steps,
            derandomize=not times,
            database=None,
            deadline=None,
        ),
    )
