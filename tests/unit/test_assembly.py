"""What the operator knows and may do before its first create."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from providing import PROVIDERS, RED, Town
from providing import town as town

from openairun_operator import assembly

LABELS = {"own_provider_selector": (("team", "research"),)}


async def namespaces() -> AsyncIterator[dict[str, Any]]:
    yield {"metadata": {"name": "team", "labels": {"team": "research"}}}


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
