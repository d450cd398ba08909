"""What went while nobody watched: no event tells of it, only a list that does not show it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from providing import RED, RUNS, Town
from providing import town as town
from reconciling import UID, Body, World

from openairun_operator import assembly
from openairun_operator.kube.cluster import ClusterError
from openairun_operator.scheduler import TryAgainError


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


async def test_a_run_whose_resource_went_is_cancelled(world: World) -> None:
    world.api.body = None
    world.reconciler.listed(None, {"another"})
    await world.work()
    assert [ref.id for ref in world.wire.cancelled] == ["resp_1"]
    assert world.reconciler._store.get(UID) is None
    assert world.events[-1].reason == "Cancelled"


async def test_what_is_known_to_have_gone_is_looked_for_no_more(world: World) -> None:
    """Its run would not be cancelled while the API server is away."""
    world.api.body = None
    world.reconciler.saw("DELETED", world.api.sent[-1])
    world.reconciler.listed(None, set())
    assert not world.entry.missing


async def test_it_is_urgent(world: World) -> None:
    world.reconciler.listed(None, set())
    assert world.reconciler.scheduler.hurries()


async def test_a_list_alone_is_not_believed(world: World) -> None:
    """It is money that a wrong one would cost."""
    looks = len(world.wire.observed)
    world.reconciler.listed(None, set())
    await world.work()
    assert world.wire.cancelled == []
    world.now = world.now.replace(second=59)
    await world.work()
    assert len(world.wire.observed) == looks + 1


async def test_it_is_looked_for_until_the_api_server_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(run: Any) -> Any:
        raise ClusterError("look for the resource", None, "away")

    find = world.api.find
    world.api.body = None
    world.reconciler.listed(None, set())
    monkeypatch.setattr(world.api, "find", away)
    for _ in range(3):
        with pytest.raises(TryAgainError, match="away"):
            await world.work()
    assert world.wire.cancelled == []
    monkeypatch.setattr(world.api, "find", find)
    await world.work()
    assert len(world.wire.cancelled) == 1


async def test_what_is_listed_and_what_is_in_another_namespace_is_not_doubted(world: World) -> None:
    world.api.body = None
    world.reconciler.listed(None, {UID})
    world.reconciler.listed("another", set())
    assert not world.entry.missing
    world.reconciler.listed("team", set())
    assert world.entry.missing


async def test_one_that_had_no_run_is_forgotten() -> None:
    world = World()
    world.reconciler.saw("ADDED", world.api.sent[0])
    world.api.body = None
    world.reconciler.listed(None, set())
    await world.work()
    assert (world.wire.created, list(world.reconciler._store)) == ([], [])


async def test_a_finished_one_is_counted_no_longer() -> None:
    world = World()
    world.wire.status = "completed"
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.now = world.now.replace(second=30)
    await world.work()
    states = world.reconciler._store.states
    for namespace, uids in (("another", set[str]()), (None, {UID})):
        world.reconciler.listed(namespace, uids)
        assert [phase for phase, _ in states()] == ["Completed"]
    world.reconciler.listed("team", set())
    assert list(states()) == []


async def test_what_was_let_go_is_remembered_since_its_last_events_may_come_late(world: World) -> None:
    deleting = world.api.change(lambda body: body["metadata"].update(deletionTimestamp="2026-11-21T12:00:00Z"))
    world.reconciler.saw("MODIFIED", deleting)
    await world.work()
    assert world.api.body is None
    world.reconciler.listed(None, set())
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
    assert [(entry.run.name, entry.missing) for _, entry in town.reconciler._store] == [("goes", False), ("gone", True)]
