"""What the operator knows and may do before its first create."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import aiohttp
import pytest
from kubernetes.aio import client
from providing import BLUE, PROVIDERS, RED, Town
from providing import town as town

from openairun_devkit.cluster.server import StandInCluster
from openairun_operator import assembly
from openairun_operator.api.crd import custom_resource_definition
from openairun_operator.api.names import PLURAL, PROVIDER_PLURAL
from openairun_operator.config import Settings
from openairun_operator.kube.cluster import Cluster

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
    know = assembly._know_all(town.settings, cast(Any, town.api), town.providers, town.reconciler, {})
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
    town.spawn(assembly._know_all(town.settings, cast(Any, town.api), town.providers, town.reconciler, {}))
    await town.passes(5)
    assert town.servers.asked == []
    town.api.down = set()
    await town.passes(5)
    town.spawn(town.reconciler.scheduler.run())
    await town.passes(2)
    assert sorted(map(str, town.servers.creates())) == ["own", "z"]
    assert not [1 for _, difference in town.api.statuses if "ProviderNotFound" in str(difference)]
    assert town.status("other", "default", PROVIDERS) == {"observedGeneration": -1}


@pytest.fixture
def api_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInCluster]:
    """Without CRDs."""
    with StandInCluster() as server:

        async def connect() -> Cluster:
            return Cluster(client.ApiClient(client.Configuration(host=server.url)), server.url)

        monkeypatch.setattr(assembly.Cluster, "connect", connect)
        yield server


async def install(server: StandInCluster, plural: str) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}{path}", json=custom_resource_definition(plural)) as answer,
    ):
        assert answer.status == 201


async def logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    while words not in caplog.text:  # noqa: ASYNC110 - a log has no event to wait for
        await asyncio.sleep(0.05)


async def test_a_crd_that_lacks_is_named_and_waited_for_and_the_probe_is_answered(
    api_server: StandInCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in an upgrade to a version with a CRD more: the kubelet must not restart the operator for it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/healthz"
    operates = asyncio.Event()

    async def operate(*_: Any) -> None:
        operates.set()

    monkeypatch.setattr(assembly, "_operate", operate)
    monkeypatch.setattr(assembly, "_CRD_RETRY", 0.1)
    await install(api_server, PLURAL)
    operator = asyncio.create_task(assembly.run(Settings(holder="me", api_key="k", liveness=url)))
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:
        await logged(caplog, "Not installed")
        async with session.get(url) as answer:
            assert answer.status == 200
        assert not operates.is_set()
        words = "Not installed: openaiproviders.openairun.dev. Apply the CRDs: kubectl apply -k deploy/crds"
        assert words in caplog.text
        await install(api_server, PROVIDER_PLURAL)
        await operator
    assert operates.is_set()


async def test_without_crds_it_ends_when_it_is_told_to(
    api_server: StandInCluster, caplog: pytest.LogCaptureFixture
) -> None:
    operator = asyncio.create_task(assembly.run(Settings(holder="me", api_key="k")))
    async with asyncio.timeout(10):
        await logged(caplog, "Not installed")
        os.kill(os.getpid(), signal.SIGTERM)
        await operator
    assert "openairuns.openairun.dev, openaiproviders.openairun.dev" in caplog.text


async def test_a_port_that_is_taken_is_said_before_anything_is_done(api_server: StandInCluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/healthz"
        with pytest.raises(assembly.NotServedError):
            await assembly.run(Settings(holder="me", api_key="k", lease=("team", "it"), liveness=url))
