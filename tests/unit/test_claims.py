"""Few resources are claimed and not sent at a time: whoever is killed then leaves them without an answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from providing import RED, Town
from providing import town as town
from reconciling import UID, World

from openairun_operator.claims import Claims
from openairun_operator.kube.cluster import ClusterError

CROWD = [f"r{number:02}" for number in range(40)]


def held(town: Town) -> list[str]:
    """Those whose claim was written."""
    return [name for verb, name in town.api.writes if verb == "hold"]


async def crowd(town: Town) -> None:
    for name in CROWD:
        town.run("team", name)
    await town.start()


async def test_a_crowd_is_claimed_few_at_a_time(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = town.api.write_status, asyncio.Event()

    async def slow(run: Any, difference: Any) -> Any:
        await written.wait()
        return await write(run, difference)

    monkeypatch.setattr(town.api, "write_status", slow)
    await crowd(town)
    await town.passes(5)
    assert len(held(town)) == 8
    assert town.servers.creates() == []
    written.set()
    await town.passes(5)
    assert sorted(map(str, town.servers.creates())) == CROWD
    assert sorted(held(town)) == CROWD


async def test_a_server_that_takes_its_time_to_create_keeps_nobody_from_claiming(town: Town) -> None:
    town.servers.hang[town.settings.base_url] = asyncio.Event()
    await crowd(town)
    await town.passes(5)
    assert sorted(map(str, town.servers.creates())) == CROWD


async def test_those_that_are_never_sent_keep_nobody_from_claiming(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    write = town.api.write_status

    async def choosy(run: Any, difference: Any) -> Any:
        if run.name in CROWD[:20]:
            raise ClusterError("write the status", 403, "a policy's word")
        return await write(run, difference)

    monkeypatch.setattr(town.api, "write_status", choosy)
    await crowd(town)
    await town.passes(5)
    assert sorted(map(str, town.servers.creates())) == CROWD[20:]


async def test_who_waits_for_a_place_has_not_spent_his_place_in_the_line_of_requests(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would take two."""
    write = town.api.write_status

    async def slow(run: Any, difference: Any) -> Any:
        await asyncio.sleep(0.5)
        return await write(run, difference)

    monkeypatch.setattr(town.api, "write_status", slow)
    town.provider("team", "red", RED, "red-key", rateLimit={"requestsPerMinute": 60, "burst": 16})
    town.servers.hang[RED] = asyncio.Event()  # no look takes any
    for name in CROWD[:16]:
        town.run("team", name, "red")
    await town.start()
    await town.until(lambda: sorted(map(str, town.servers.creates())) == CROWD[:16], 4)


def test_places_go_to_those_that_wait_in_order_and_nobody_is_woken_twice() -> None:
    woken: list[str] = []
    claims = Claims(woken.append)
    names = [str(number) for number in range(12)]
    assert [claims.enter(name) for name in names] == [True] * 8 + [False] * 4
    assert [claims.enter(name) for name in ("0", "9")] == [True, False], "asked once more"
    claims.leave("8")
    claims.leave("0")
    claims.leave("0")
    assert woken == ["8"]
    assert claims.enter("8")
    claims.leave("8")
    assert woken == ["8", "9"]
    for name in names:
        claims.leave(name)
    assert woken == names[8:]
    assert all(claims.enter(name) for name in names[:8])


async def test_who_goes_before_his_turn_comes_leaves_his_place() -> None:
    world = World()
    world.reconciler.saw("ADDED", world.api.sent[0])
    claims = world.reconciler._claims
    claims.enter(UID)
    world.reconciler.saw("DELETED", world.api.sent[0])
    assert all(claims.enter(name) for name in CROWD[:8])
