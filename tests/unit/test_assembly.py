"""What the operator knows and may do before its first create."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from providing import BLUE, PROVIDERS, RED, Town
from providing import town as town

from openairun_operator import assembly

LABELS = {"own_provider_selector": (("team", "research"),)}


async def namespaces() -> AsyncIterator[dict[str, Any]]:
    yield {"metadata": {"name": "team", "labels": {"team": "research"}}}


async def test_keys_that_cannot_be_read_hold_up_no_other_run(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the runs that need them wait, as they were."""
    town.provider("team", "red", RED, "red-key")
    town.run("team", "goes", "red")
    await town.start()
    await town.passes(5)
    await town.stop()
    before = town.status("team", "goes")
    town.provider("team", "blue", BLUE, "blue-key")
    read, answered = town.api.read, asyncio.Event()

    async def slow(kind: str, namespace: str, name: str) -> Any:
        if name == "red":
            await answered.wait()
        return await read(kind, namespace, name)

    monkeypatch.setattr(town.api, "read", slow)
    town.operator()
    town.run("team", "new", "blue")
    town.run("team", "waits", "red")
    asked = len(town.servers.asked)
    know = assembly._know_all(town.settings, cast(Any, town.api), town.providers, town.reconciler)
    town.spawn(town.providers.watch(), know, town.reconciler.scheduler.run())
    await town.until(lambda: "new" in town.servers.creates(), 15)
    await town.passes(30)
    assert {each.address for each in town.servers.asked[asked:]} == {BLUE}
    assert town.status("team", "goes")["phase"] == before["phase"]
    assert town.reason("team", "waits") == "Creating"
    answered.set()
    await town.until(lambda: "waits" in town.servers.creates(), 5)
    await town.passes(5)
    assert town.reason("team", "goes") == "Running"


async def test_all_is_known_before_the_first_create(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.operator(**LABELS)
    monkeypatch.setattr(town.api, "every_namespace", namespaces, raising=False)
    town.provider("other", "default", RED, "red-key", maxConcurrentRuns=1)
    for name in ("z", "a"):
        town.run("other", name)
    town.run("team", "own")
    town.api.down = {"list"}
    town.spawn(assembly._know_all(town.settings, cast(Any, town.api), town.providers, town.reconciler))
    await town.passes(5)
    assert town.servers.asked == []
    town.api.down = set()
    await town.passes(5)
    town.spawn(town.reconciler.scheduler.run())
    await town.passes(2)
    assert sorted(map(str, town.servers.creates())) == ["own", "z"]
    assert not [1 for _, difference in town.api.statuses if "ProviderNotFound" in str(difference)]
    assert town.status("other", "default", PROVIDERS) == {"observedGeneration": -1}
