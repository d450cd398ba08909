"""What went while nobody watched: no event tells of it, only a list that does not show it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from providing import RED, RUNS, Town
from providing import town as town
from reconciling import UID, Body, World

from openairun_operator import assembly, missing
from openairun_operator.kube.cluster import ClusterError


@pytest.fixture
async def world() -> World:
    """Whose run goes, and was looked at."""
    world = World()
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.now = world.now.replace(second=30)
    await world.work()
    assert world.entry.calm
    return world


async def seek(world: World, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Have those that are missing looked for."""
    seeking = asyncio.create_task(world.reconciler.seek())
    await asyncio.sleep(0)
    meanwhile()
    for _ in range(20):
        await asyncio.sleep(0)
    seeking.cancel()
    await asyncio.gather(seeking, return_exceptions=True)


async def listed(world: World, *uids: str, namespace: str | None = None) -> None:
    """A list showed these alone, and the others were looked for."""
    await seek(world, lambda: world.reconciler.listed(namespace, uids))


async def away(run: Any) -> Any:
    raise ClusterError("look for the resource", None, "away")


async def test_a_run_whose_resource_went_is_cancelled(world: World) -> None:
    world.api.body = None
    await listed(world, "another")
    assert world.reconciler.scheduler.hurries()
    await world.work()
    assert [ref.id for ref in world.wire.cancelled] == ["resp_1"]
    assert world.reconciler._store.get(UID) is None
    assert world.events[-1].reason == "Cancelled"


async def test_a_list_alone_is_not_believed(world: World) -> None:
    """It is money that a wrong one would cost."""
    looks = len(world.wire.observed)
    await listed(world)
    assert not world.reconciler.scheduler.hurries()
    await world.work()
    assert world.wire.cancelled == []
    world.now = world.now.replace(second=59)
    await world.work()
    assert len(world.wire.observed) == looks + 1


async def test_it_is_looked_for_until_the_api_server_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    find, asked = world.api.find, []

    async def at_last(run: Any) -> Any:
        asked.append(run)
        return await (away if len(asked) < 3 else find)(run)

    monkeypatch.setattr(world.api, "find", at_last)
    monkeypatch.setattr(missing, "_AGAIN", 0.0)
    world.api.body = None
    await listed(world)
    assert len(asked) == 3
    await world.work()
    assert len(world.wire.cancelled) == 1


async def test_its_run_is_looked_at_and_cancelled_at_its_deadline_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def find(run: Any) -> Any:
        asked.append(run)
        await away(run)

    monkeypatch.setattr(world.api, "find", find)
    looks = len(world.wire.observed)
    await listed(world)
    assert len(asked) == 1, "and again after a while"
    world.now += timedelta(minutes=1)
    await world.work()
    assert len(world.wire.observed) > looks
    world.now += timedelta(hours=2)
    await world.work()
    assert len(world.wire.cancelled) == 1


@pytest.mark.parametrize("order", [("listed", "deleted"), ("deleted", "listed")])
async def test_what_is_known_to_have_gone_is_cancelled_and_not_looked_for(
    order: tuple[str, str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(run: Any) -> Any:
        raise AssertionError("looked for")

    monkeypatch.setattr(world.api, "find", find)
    world.api.body = None
    for each in order:
        if each == "listed":
            world.reconciler.listed(None, set())
        else:
            world.reconciler.saw("DELETED", world.api.sent[-1])
    await seek(world)
    assert not world.reconciler._missing._uids
    await world.work()
    assert len(world.wire.cancelled) == 1


async def test_an_operator_that_stops_looks_for_it_and_names_its_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one knows nothing of it. It may just be looked for."""
    find = world.api.find

    async def slow(run: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(world.api, "find", slow)
    world.api.body = None
    await listed(world)
    monkeypatch.setattr(world.api, "find", find)
    await world.reconciler.drain(1)
    assert world.events[-1].reason == "Orphaned"
    assert "resp_1" in world.events[-1].message


async def test_an_operator_that_stops_names_those_of_which_nobody_could_say_whether_they_are_there(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(world.api, "find", away)
    world.reconciler.listed(None, set())
    await world.reconciler.drain(1)
    assert "team/run: nobody could say whether it is there; run resp_1 may go on" in caplog.text
    assert world.events[-1].reason != "Orphaned"


async def test_a_doubt_that_comes_while_it_is_looked_for_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = world.api.body, []

    async def find(run: Any) -> Any:
        asked.append(run)
        if len(asked) == 1:
            world.api.body = None
            world.reconciler.listed(None, set())
            return found
        return None

    monkeypatch.setattr(world.api, "find", find)
    monkeypatch.setattr(missing, "_AGAIN", 0.0)
    await listed(world)
    await world.work()
    assert len(world.wire.cancelled) == 1


async def test_an_error_that_nobody_expected_leaves_no_doubt_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find, asked = world.api.find, []

    async def broken(run: Any) -> Any:
        asked.append(run)
        if len(asked) == 1:
            raise KeyError("items")
        return await find(run)

    monkeypatch.setattr(world.api, "find", broken)
    monkeypatch.setattr(missing, "_AGAIN", 0.0)
    world.api.body = None
    await listed(world)
    assert "KeyError: 'items'" in caplog.text
    await world.work()
    assert len(world.wire.cancelled) == 1


async def test_while_kopf_begins_anew_nobody_is_given_up(world: World) -> None:
    """It was, as though the operator had stopped: named as orphaned, and its run left alone."""
    world.api.body = None
    world.reconciler.listed(None, set())
    world.reconciler.saw("DELETED", world.api.sent[-1])
    await world.reconciler.settle(1)
    assert "Orphaned" not in [event.reason for event in world.events]
    await world.work()
    assert len(world.wire.cancelled) == 1


async def test_what_is_listed_and_what_is_in_another_namespace_is_not_doubted(world: World) -> None:
    world.reconciler.listed(None, {UID})
    world.reconciler.listed("another", set())
    assert not world.reconciler._missing._uids
    world.reconciler.listed("team", set())
    assert world.reconciler._missing._uids


async def test_one_that_had_no_run_is_forgotten() -> None:
    world = World()
    world.reconciler.saw("ADDED", world.api.sent[0])
    world.api.body = None
    await listed(world)
    await world.work()
    assert (world.wire.created, list(world.reconciler._store)) == ([], [])


async def finished() -> World:
    world = World()
    world.wire.status = "completed"
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.now = world.now.replace(second=30)
    await world.work()
    return world


async def test_a_finished_one_is_counted_no_longer() -> None:
    world = await finished()
    states = world.reconciler._store.states
    for namespace, uids in (("another", set[str]()), (None, {UID})):
        world.reconciler.listed(namespace, uids)
        assert [phase for phase, _ in states()] == ["Completed"]
    world.reconciler.listed("team", set())
    assert list(states()) == []


async def test_what_the_watch_brings_late_of_a_finished_one_does_not_bring_it_back() -> None:
    world = await finished()
    await listed(world)
    await world.show(*range(len(world.api.sent)))
    assert (list(world.reconciler._store), list(world.reconciler._store.states())) == ([], [])
    assert "Orphaned" not in [event.reason for event in world.events]


async def test_what_was_let_go_is_remembered_since_its_last_events_may_come_late(world: World) -> None:
    deleting = world.api.change(lambda body: body["metadata"].update(deletionTimestamp="2026-11-21T12:00:00Z"))
    world.reconciler.saw("MODIFIED", deleting)
    await world.work()
    assert world.api.body is None
    await listed(world)
    world.reconciler.saw("MODIFIED", deleting)
    assert world.reconciler._store.get(UID) is None


async def test_a_provider_that_went_is_missing(town: Town) -> None:
    red = town.provider("team", "red", RED, "red-key")
    town.run("team", "goes", "red")
    await town.start()
    await town.passes(5)
    uid, version = red["metadata"]["uid"], int(red["metadata"]["resourceVersion"])
    town.providers.listed("team", str(version), {uid})
    town.providers.listed("another", str(version), set())
    town.providers.listed("team", str(version - 1), set())
    assert town.providers.of("team", "red").blocked is None
    town.providers.listed("team", str(version + 99), set())
    missing = town.providers.of("team", "red").blocked
    assert missing
    assert missing.reason == "ProviderNotFound"


async def test_what_a_list_showed_that_broke_off_is_doubted_too(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a start, where kopf lists nothing."""
    town.operator()
    for name in ("goes", "gone"):
        town.run("team", name)
    every, broke_off = town.api.every, False

    async def listed(plural: str, *args: Any) -> AsyncIterator[Body]:
        nonlocal broke_off
        async for body in every(plural, *args):
            yield body
        if plural == RUNS and not broke_off:
            broke_off = True
            del town.api.objects[RUNS, "team", "gone"]
            raise ClusterError("list", 410, "the continue token is too old")

    monkeypatch.setattr(town.api, "every", listed)
    monkeypatch.setattr(assembly, "_WATCH_RETRY", 0.0)
    await assembly._know_all(town.settings, cast(Any, town.api), town.providers, town.reconciler, {})
    doubted = town.reconciler._missing._uids
    assert [entry.run.name for uid, entry in town.reconciler._store if uid in doubted] == ["gone"]
