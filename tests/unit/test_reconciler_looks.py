"""Looking again and again: what shows nothing new costs a look and no decision, and nothing that matters comes late."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from reconciling import UID, World

from openairun_operator import reconciler
from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle.failure import Failure


class Counted:
    """Counts the decisions of the reconciler."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._decide = reconciler.decide
        monkeypatch.setattr(reconciler, "decide", self)

    def __call__(self, *args: Any) -> Any:
        self.count += 1
        return self._decide(*args)


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
async def world() -> World:
    """With a run that goes."""
    world = World()
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    return world


async def live(world: World, until: datetime) -> None:
    """Work whenever it is due, until then or until nothing is due any more."""
    while world.now < until and (pause := await world.work()) is not None:
        assert pause > 0
        world.now += timedelta(seconds=pause)


async def test_looks_that_show_nothing_new_are_not_decided_upon(world: World, decisions: Counted) -> None:
    began, writes = world.now, list(world.api.writes)
    await live(world, began + timedelta(minutes=5))
    assert len(world.wire.observed) >= 60
    assert 10 <= decisions.count <= 25  # some until the run is seen to go on, and two in a minute
    assert len(world.api.writes) - len(writes) <= 1  # that it is in progress


async def test_an_end_is_shown_at_the_first_look_that_sees_it(world: World) -> None:
    await live(world, world.now + timedelta(minutes=2))
    world.wire.status = "completed"
    await world.work()
    assert world.status["phase"] == "Completed"


async def test_the_deadline_is_kept(world: World) -> None:
    began = world.now
    while not world.wire.cancelled:
        await live(world, world.now + timedelta(seconds=0.1))
    assert timedelta(minutes=10) <= world.now - began < timedelta(minutes=10, seconds=2)


async def test_a_change_of_the_spec_counts_at_once(world: World) -> None:
    await live(world, world.now + timedelta(minutes=1))
    changed = world.api.change(lambda body: body["spec"].update(cancel=True))
    world.reconciler.saw("MODIFIED", changed)
    await world.work()
    assert len(world.wire.cancelled) == 1


async def test_a_change_of_the_provider_is_decided_upon(world: World, decisions: Counted) -> None:
    await live(world, world.now + timedelta(minutes=1))
    decisions.count = 0
    while not decisions.count:
        await live(world, world.now + timedelta(seconds=1))
    await live(world, world.now + timedelta(seconds=6))
    decisions.count = 0  # and there is none for most of a minute
    world.reconciler.provider_changed("another-team")
    await live(world, world.now + timedelta(seconds=6))
    assert decisions.count == 0
    world.reconciler.provider_changed("team")
    await live(world, world.now + timedelta(seconds=6))
    assert decisions.count > 0


async def test_a_look_that_fails_is_decided_upon_and_shown_when_it_fails_again(world: World) -> None:
    await live(world, world.now + timedelta(minutes=1))
    world.wire.fail = [Failure(reason=Reason.UNREACHABLE, message="away")] * 2
    await live(world, world.now + timedelta(seconds=8))
    shown = [each["reason"] for sent in world.api.sent for each in sent["status"].get("conditions", ())]
    assert "Unreachable" in shown
    await live(world, world.now + timedelta(seconds=20))
    assert all(each["reason"] != "Unreachable" for each in world.status["conditions"])


async def test_a_clock_that_was_set_back_delays_no_look(world: World) -> None:
    await live(world, world.now + timedelta(minutes=1))
    await world.work()
    world.now -= timedelta(hours=1)
    looks = len(world.wire.observed)
    await live(world, world.now + timedelta(seconds=6))
    assert len(world.wire.observed) > looks


async def test_what_may_not_act_does_not_look(world: World) -> None:
    await live(world, world.now + timedelta(minutes=1))
    world.reconciler._may_act = lambda: False
    looks = len(world.wire.observed)
    await live(world, world.now + timedelta(seconds=20))
    assert len(world.wire.observed) == looks
    assert world.reconciler._store.get(UID) is not None
