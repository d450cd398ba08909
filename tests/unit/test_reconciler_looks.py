"""Looking again and again: what shows nothing new costs a look and no decision, and nothing that matters comes late."""

from __future__ import annotations

import asyncio
import copy
from datetime import datetime, timedelta
from typing import Any

import pytest
from reconciling import UID, Body, World

from openairun_operator import reconciler, store
from openairun_operator.api.reasons import Reason
from openairun_operator.buckets import Bucket
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.lifecycle.observation import Call, RunObservation, RunRef, SubmitRequest
from openairun_operator.lifecycle.run import Run, parse


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
    assert 5 <= decisions.count <= 15  # some until the run is seen to go on, and one or two in a minute
    assert len(world.api.writes) - len(writes) <= 1  # that it is in progress


async def test_an_end_is_shown_at_the_first_look_that_sees_it(world: World) -> None:
    await due(world)
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


async def test_a_run_whose_provider_was_blocked_is_decided_upon_as_soon_as_it_is_not(world: World) -> None:
    await live(world, world.now + timedelta(seconds=30))
    world.no_key = Failure(reason=Reason.PROVIDER_NOT_FOUND, message="There is no Secret")
    world.reconciler.provider_changed("team")
    await live(world, world.now + timedelta(seconds=1))
    assert world.entry.run.status.condition("Synced").status == "False"
    world.no_key = None
    scheduler, now = world.reconciler.scheduler, asyncio.get_running_loop().time()
    scheduler.forget(UID)
    world.reconciler.provider_changed("team")
    assert scheduler._due[UID] <= now + 0.1


async def test_a_look_that_fails_is_decided_upon_and_shown_when_it_fails_again(world: World) -> None:
    await live(world, world.now + timedelta(minutes=1))
    world.wire.fail = [Failure(reason=Reason.UNREACHABLE, message="away")] * 2
    await live(world, world.now + timedelta(seconds=8))
    shown = [each["reason"] for sent in world.api.sent for each in sent["status"].get("conditions", ())]
    assert "Unreachable" in shown
    await live(world, world.now + timedelta(seconds=20))
    assert all(each["reason"] != "Unreachable" for each in world.status["conditions"])


@pytest.mark.parametrize("back", [5, 20, 40, 55, 3600])
async def test_a_clock_that_was_set_back_delays_no_look(world: World, back: float) -> None:
    await live(world, world.now + timedelta(minutes=2))
    pause = await world.work()
    assert pause
    world.now += timedelta(seconds=pause - back)
    looks, began = len(world.wire.observed), world.now
    while len(world.wire.observed) == looks:
        await live(world, world.now + timedelta(milliseconds=1))
    assert world.now - began <= timedelta(seconds=6)


async def test_a_run_that_goes_on_takes_little_room_between_decisions(world: World) -> None:
    await live(world, world.now + timedelta(minutes=1, seconds=20))
    entry = world.entry
    assert world.api.body is not None
    for _ in range(5):
        await world.work()
        assert entry._run is None
    assert len(entry._packed) < 1500
    assert list(world.reconciler._store.states()) == [("InProgress", "Responses")]
    world.reconciler.provider_changed(None)
    assert entry._run is None
    world.reconciler.scheduler._due[entry.uid] = asyncio.get_running_loop().time() - 10
    assert world.reconciler.stuck() is None
    assert entry._run is None
    await due(world)
    await world.reconciler.drain(5)
    assert entry._run is None
    assert entry.run == parse(world.api.body)


async def test_what_a_person_writes_meanwhile_is_compared_with_what_was_before(world: World) -> None:
    """A spec that changed is acted upon at once though something else holds the run back."""
    entry = await due(world)
    entry.known.retry_at = world.now + timedelta(minutes=5)
    changed = world.api.change(lambda body: body["metadata"].update(labels={"a": "b"}))
    world.reconciler.saw("MODIFIED", changed)
    assert entry.known.retry_at is not None
    entry.fold()
    changed = world.api.change(
        lambda body: (body["spec"].update(waitForCompletion=False), body["metadata"].update(generation=2))
    )
    world.reconciler.saw("MODIFIED", changed)
    assert entry.known.retry_at is None


async def test_a_start_decides_nothing_of_a_run_that_goes_until_its_turn(
    world: World, decisions: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, before = World(), decisions.count
    monkeypatch.setattr(reconciler.random, "random", lambda: 0.5)
    again.reconciler.saw(None, world.api.sent[-1])
    assert decisions.count == before
    assert again.reconciler.counts("team", "operator") == (1, 0)
    assert again.reconciler.scheduler._due[UID] - asyncio.get_running_loop().time() == pytest.approx(2.0, abs=0.4)


async def test_a_start_puts_off_no_deletion(world: World) -> None:
    again = World()
    body = copy.deepcopy(world.api.sent[-1])
    body["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    again.reconciler.saw(None, body)
    assert again.reconciler.scheduler._due[UID] == 0.0


async def due(world: World) -> store.Entry:
    """The moment at which a look is due that needs no decision."""
    await live(world, world.now + timedelta(minutes=1, seconds=20))
    entry = world.entry
    assert entry.known.look_at
    world.now = entry.known.look_at + timedelta(seconds=0.01)
    assert entry.calm
    assert world.now < entry.calm.until
    return entry


async def test_a_change_that_comes_in_the_answer_to_a_write_counts_at_once(world: World) -> None:
    """The watch brings it later, and it is no news then."""
    await due(world)
    changed = world.api.change(
        lambda body: (body["spec"].update(waitForCompletion=False), body["metadata"].update(generation=2))
    )
    world.reconciler.saw("MODIFIED", changed)
    write = world.api.write_status

    async def meanwhile(run: Run, difference: Body) -> Body:
        world.api.write_status = write  # type: ignore[method-assign]
        world.api.change(lambda body: (body["spec"].update(cancel=True), body["metadata"].update(generation=3)))
        return await write(run, difference)

    world.api.write_status = meanwhile  # type: ignore[method-assign]
    await world.work()
    assert len(world.wire.cancelled) == 1


async def test_a_run_whose_object_went_is_cancelled_out_of_turn(world: World) -> None:
    """Though its look stands in the line of its provider."""
    entry = await due(world)
    world.bucket = Bucket(6, 1, lambda: 0.0)
    for _ in range(50):
        world.bucket.take()
    pause = await world.work()
    assert pause
    assert pause > 60
    looks = len(world.wire.observed)
    world.reconciler.saw("DELETED", world.api.sent[-1])
    await world.work()
    assert (len(world.wire.cancelled), len(world.wire.observed)) == (1, looks)
    assert entry.vanished


async def test_a_look_that_needs_no_decision_keeps_to_the_rate_too(world: World) -> None:
    await due(world)
    world.bucket = Bucket(60, 1, lambda: 0.0)
    world.bucket.hold(30)
    looks = len(world.wire.observed)
    assert await world.work() == 30
    assert len(world.wire.observed) == looks


async def test_a_provider_that_changes_during_a_look_counts(world: World, decisions: Counted) -> None:
    await due(world)
    world.wire.looking = asyncio.Event()
    looking = asyncio.create_task(world.work())
    for _ in range(10):
        await asyncio.sleep(0)
    world.reconciler.provider_changed("team")
    decisions.count = 0
    world.wire.looking.set()
    await looking
    assert decisions.count > 0


async def test_tool_outputs_that_come_when_a_look_is_due_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world, submitted = World(), []

    async def create(_: Any) -> RunObservation:
        return RunObservation(id="run_1", status="queued", thread="thread_1")

    async def observe(ref: RunRef) -> RunObservation:
        world.wire.observed.append(ref)
        calls = (Call("call_1", "f", "{}"),)
        return RunObservation(id=ref.id, status="requires_action", thread="thread_1", calls=calls, steps=())

    async def submit(request: SubmitRequest) -> RunObservation:
        submitted.append(request)
        return await create(None)

    for name, method in (("create", create), ("observe", observe), ("submit", submit)):
        monkeypatch.setattr(world.wire, name, method, raising=False)
    monkeypatch.setattr(world.wire, "api", "Assistants")
    assert world.api.body
    world.api.body["spec"] = {"assistantID": "asst_1", "threadID": "thread_1"}
    world.api.sent = [copy.deepcopy(world.api.body)]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    await due(world)
    outputs = [{"toolCallID": "call_1", "output": "42"}]
    changed = world.api.change(
        lambda body: (body["spec"].update(toolOutputs=outputs), body["metadata"].update(generation=2))
    )
    world.reconciler.saw("MODIFIED", changed)
    began = world.now
    while not submitted:
        await live(world, world.now + timedelta(milliseconds=1))
    assert world.now - began <= timedelta(seconds=2)


async def test_a_finished_run_is_not_read_after_a_restart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.wire.status = "completed"
    await live(world, world.now + timedelta(minutes=1))
    assert world.status["phase"] == "Completed"
    again = World()

    def read(_: Any) -> Run:
        raise AssertionError("it need not be read")

    monkeypatch.setattr(store, "parse", read)
    again.reconciler.saw(None, world.api.sent[-1])
    assert again.reconciler._store.get(UID) is None
    assert list(again.reconciler._store.states()) == [("Completed", "Responses")]


async def test_what_may_not_act_does_not_look(world: World) -> None:
    await live(world, world.now + timedelta(minutes=1))
    world.reconciler._may_act = lambda: False
    looks = len(world.wire.observed)
    await live(world, world.now + timedelta(seconds=20))
    assert len(world.wire.observed) == looks
    assert world.reconciler._store.get(UID) is not None
