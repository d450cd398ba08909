"""kopf watches, logs in and serves the probe: for what it is known to do to runs otherwise, it has no occasion."""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any, cast

import kopf
import pytest
from kopf._cogs.clients import watching
from kopf._cogs.structs import references
from kopf._core.intents.causes import Activity
from kubernetes.aio import client
from reconciling import World

from openairun_devkit.cluster.server import StandInCluster
from openairun_operator import assembly, handlers
from openairun_operator.api.crd import PLURALS, custom_resource_definition
from openairun_operator.api.names import FINALIZER, GROUP, PLURAL, RECORD_ANNOTATION
from openairun_operator.config import Settings
from openairun_operator.kube import kopf_listing, kopf_settings
from openairun_operator.kube.cluster import Cluster

ROOT = Path(__file__).parents[2]
OBJECT: dict[str, Any] = {
    "apiVersion": "openairun.dev/v1alpha1",
    "kind": "OpenAIRun",
    "metadata": {"name": "run", "namespace": "team", "uid": "uid-1", "resourceVersion": "100"},
    "spec": {},
}


class Watched:
    """In place of the reconciler: what it is told."""

    def __init__(self) -> None:
        self.saw_: list[tuple[str | None, Any]] = []
        self.settled: list[float] = []
        self.stuck_: str | None = None

    def saw(self, type_: str | None, body: Any) -> None:
        self.saw_.append((type_, body))

    def stuck(self) -> str | None:
        return self.stuck_

    async def settle(self, limit: float) -> None:
        self.settled.append(limit)


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def registry(watched: Watched) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    handlers.register(registry, cast(Any, watched), {}, 1.0, asyncio.Event())
    return registry


@pytest.fixture
def settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    kopf_settings.apply(settings)
    return settings


def test_kopf_has_nothing_to_do_on_an_object_but_to_show_it(registry: kopf.OperatorRegistry) -> None:
    """No timer that an error stops; no handler whose progress, diff or finalizer kopf would keep on the object."""
    (saw,) = registry._watching.get_all_handlers()
    for others in (registry._spawning, registry._changing, registry._indexing, registry._webhooks):
        assert others.get_all_handlers() == []
    assert GROUP in repr(saw.selector)
    assert PLURAL in repr(saw.selector)
    # A filter on a field would bring that field into a diff, and keep some versions from us.
    assert {saw.when, saw.field, saw.value, saw.labels, saw.annotations} == {None}


async def test_when_kopf_ends_what_was_sent_is_waited_for_once_nothing_more_is_begun(watched: Watched) -> None:
    """kopf cancels whatever goes on a few seconds later."""
    order: list[str] = []

    def until_cancelled(name: str) -> Callable[[], Any]:
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                order.append(name)

        return run

    async def settle(limit: float) -> None:
        order.append("settle")

    watched.settle = settle  # type: ignore[method-assign]
    registry = kopf.OperatorRegistry()
    background = {name: until_cancelled(name) for name in ("scheduler", "sweep", "events")}
    handlers.register(registry, cast(Any, watched), background, 1.0, asyncio.Event())
    activities = {handler.activity: handler.fn for handler in registry._activities.get_all_handlers()}
    start, stop = (activities[each] for each in (Activity.STARTUP, Activity.CLEANUP))
    await cast(Any, start)(settings=kopf.OperatorSettings())
    await asyncio.sleep(0)
    await cast(Any, stop)()
    assert order == ["scheduler", "sweep", "settle", "events"]


async def test_what_fails_as_it_is_ended_is_not_started_again(watched: Watched) -> None:
    """The operator waited for it for ever."""
    starts: list[int] = []

    async def failing() -> None:
        starts.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            if len(starts) == 1:
                raise LookupError("at the end")

    registry = kopf.OperatorRegistry()
    handlers.register(registry, cast(Any, watched), {"scheduler": failing}, 1.0, asyncio.Event())
    activities = {handler.activity: handler.fn for handler in registry._activities.get_all_handlers()}
    await cast(Any, activities[Activity.STARTUP])(settings=kopf.OperatorSettings())
    await asyncio.sleep(0)
    await asyncio.wait_for(cast(Any, activities[Activity.CLEANUP])(), 5)
    assert len(starts) == 1


def test_nothing_is_registered_for_all_operators_of_a_process() -> None:
    assert assembly  # it loads all there is
    assert kopf.get_default_registry()._watching.get_all_handlers() == []
    assert kopf.get_default_registry()._changing.get_all_handlers() == []
    assert kopf.get_default_registry()._spawning.get_all_handlers() == []


@pytest.mark.parametrize("type_", [None, "ADDED", "MODIFIED", "DELETED"])
async def test_an_event_is_handed_over_as_it_came_and_has_no_result_to_be_stored(
    registry: kopf.OperatorRegistry, watched: Watched, type_: str | None
) -> None:
    (saw,) = registry._watching.get_all_handlers()
    body = copy.deepcopy(OBJECT)
    patch = kopf.Patch()
    handed_over = cast(Callable[..., Any], saw.fn)(event={"type": type_, "object": body}, body=body, patch=patch)
    assert await handed_over is None
    assert watched.saw_ == [(type_, OBJECT)]
    assert not patch


def test_kopf_keeps_and_compares_nothing(settings: kopf.OperatorSettings) -> None:
    """Its own storages copy the whole object for each event of the watch: most of what an event would cost."""
    body = kopf.Body(cast(Any, OBJECT))
    diffbase, progress = settings.persistence.diffbase_storage, settings.persistence.progress_storage
    assert diffbase.fetch(body=body) is None
    essence = diffbase.build(body=body)
    assert progress.clear(essence=essence) == essence == {}


async def test_kopf_remembers_nothing_of_an_object(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own is a KiB of each object that there is, finished or not."""
    kept: list[kopf_settings.Forgetful] = []
    stop = asyncio.Event()

    class Looked(kopf_settings.Forgetful):
        async def recall(self, raw_body: kopf.RawBody, **more: Any) -> Any:
            memory = await super().recall(raw_body, **more)
            if raw_body["kind"] == OBJECT["kind"]:
                kept.append(self)
                stop.set()
            return memory

    monkeypatch.setattr(kopf_settings, "Forgetful", Looked)
    with StandInCluster() as server:
        monkeypatch.setattr(kopf, "login_via_client", lambda **_: kopf.ConnectionInfo(server=server.url))
        cluster = Late(client.ApiClient(client.Configuration(host=server.url)))
        await cluster.missing_crds()
        await asyncio.wait_for(watch_with(watched, {}, stop, cluster), 20)
        await cluster.close()
    assert kept
    assert list(kept[0].iter_all_memories()) == []


class Lists:
    """Notes what it is asked and told."""

    def __init__(self, since: dict[str, str] | None = None) -> None:
        self.known = since or {}
        self.asked: list[tuple[str, str | None]] = []
        self.told: list[tuple[str, str | None, str, set[str]]] = []

    async def since(self, plural: str, namespace: str | None) -> str | None:
        self.asked.append((plural, namespace))
        return self.known.get(plural)

    def listed(self, plural: str, namespace: str | None, version: str, uids: Collection[str]) -> None:
        self.told.append((plural, namespace, version, set(uids)))


def listing(settings: kopf.OperatorSettings, plural: str) -> AsyncIterator[tuple[Collection[Any], str]]:
    """As kopf's watch has it."""
    resource = references.Resource(GROUP, "v1alpha1", plural)
    return watching.fetching.fetch_objs(
        settings=settings, resource=resource, namespace="team", logger=logging.getLogger()
    )


def pages(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Have kopf list an object on each page; 0 is one that does not come."""

    async def answers(**_: Any) -> AsyncIterator[tuple[list[Any], str]]:
        for number in numbers:
            if not number:
                raise TimeoutError
            yield [{**OBJECT, "metadata": {**OBJECT["metadata"], "uid": f"uid-{number}"}}], "8"

    monkeypatch.setattr(kopf_listing, "_LIST", answers)


async def test_what_was_just_listed_is_not_listed_again(
    settings: kopf.OperatorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kopf would make a task for each object at each start: most of what a start would take."""
    pages(monkeypatch, 1)
    lists = Lists({PLURAL: "7"})
    assert [version async for _, version in listing(settings, PLURAL)] == ["8"]
    with kopf_listing.watching(lists):
        assert [each async for each in listing(settings, PLURAL)] == [((), "7")]
        assert [version async for _, version in listing(settings, "openaiproviders")] == ["8"]
    assert lists.asked == [(PLURAL, "team"), ("openaiproviders", "team")]
    assert [plural for plural, *_ in lists.told] == ["openaiproviders"]


async def test_what_a_new_list_no_longer_shows_is_known_when_the_list_is_whole(
    settings: kopf.OperatorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kopf tells nobody of what went while the watch was away."""
    lists = Lists()
    with kopf_listing.watching(lists):
        pages(monkeypatch, 1, 2, 0)
        with pytest.raises(TimeoutError):
            _ = [each async for each in listing(settings, PLURAL)]
        assert lists.told == []
        pages(monkeypatch, 1, 2, 3)
        assert len([each async for each in listing(settings, PLURAL)]) == 3
    assert lists.told == [(PLURAL, "team", "8", {"uid-1", "uid-2", "uid-3"})]


class Keeper:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def listed(self, *what: Any) -> None:
        self.told.append(what)


async def test_a_watch_begins_once_from_what_was_listed_and_lists_when_it_begins_anew() -> None:
    """It would meet the same 410 again and again, and never see what it missed."""
    listed = assembly.Listed(cast(Any, Keeper()), cast(Any, Keeper()))
    first = asyncio.create_task(listed.since(PLURAL, None))
    assert await listed.since("openaiproviders", None) is None
    assert not first.done(), "the list is not there yet"
    listed.versions[None] = "7"
    listed.whole.set()
    assert await first == "7"
    assert await listed.since(PLURAL, None) is None


def test_who_keeps_runs_and_who_keeps_providers_is_told_of_their_lists() -> None:
    reconciler, providers = Keeper(), Keeper()
    listed = assembly.Listed(cast(Any, reconciler), cast(Any, providers))
    listed.listed(PLURAL, "team", "7", {"uid-1"})
    listed.listed("openaiproviders", None, "8", {"uid-2"})
    listed.listed("namespaces", None, "9", {"uid-3"})
    assert (reconciler.told, providers.told) == ([("team", {"uid-1"})], [(None, "8", {"uid-2"})])


def test_kopfs_names_are_its_own(settings: kopf.OperatorSettings) -> None:
    """On one name, kopf would overwrite and then remove what is recorded there."""
    assert settings.persistence.finalizer == "kopf.openairun.dev/finalizer" != FINALIZER


def test_a_server_that_is_away_is_asked_again_for_ever_each_time_anew(settings: kopf.OperatorSettings) -> None:
    backoffs = settings.networking.error_backoffs
    first, second = (list(itertools.islice(cast(Any, backoffs), 1000)) for _ in range(2))
    assert first == second
    assert len(first) == 1000
    assert max(first) <= 10


def test_nobody_else_pauses_the_operator_and_it_needs_no_right_to_look_around(settings: kopf.OperatorSettings) -> None:
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.queueing.worker_limit is None, "a worker stays with its object for seconds"


def test_no_watch_and_no_request_hangs_for_ever(settings: kopf.OperatorSettings) -> None:
    networking, watching = settings.networking, settings.watching
    for seconds in (networking.request_timeout, networking.connect_timeout):
        assert seconds
        assert seconds <= 60
    for seconds in (watching.server_timeout, watching.connect_timeout):
        assert seconds
        assert seconds <= 300


async def test_a_probe_that_fails_fails_at_once(registry: kopf.OperatorRegistry, watched: Watched) -> None:
    """kopf would retry within the request, which then hangs."""
    (probe,) = [each for each in registry._activities.get_all_handlers() if each.id == "scheduler"]
    assert probe.errors is kopf.ErrorsMode.PERMANENT
    assert await cast(Any, probe.fn)() == "ok"
    watched.stuck_ = "team/run was due 100 s ago"
    with pytest.raises(kopf.PermanentError, match="team/run was due"):
        await cast(Any, probe.fn)()


def test_every_handler_is_asynchronous_but_the_login(registry: kopf.OperatorRegistry) -> None:
    all_handlers = [*registry._watching.get_all_handlers(), *registry._activities.get_all_handlers()]
    (login,) = [each.id for each in all_handlers if not asyncio.iscoroutinefunction(each.fn)]
    assert login.endswith("log_in")


async def test_a_watch_that_kopf_gave_up_begins_anew_until_it_is_told_to_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(assembly, "_WATCH_RETRY", 0.0)
    stop, flags = asyncio.Event(), list[asyncio.Event]()

    async def watch(flag: asyncio.Event) -> None:
        flags.append(flag)
        if len(flags) < 3:
            flag.set()  # as kopf's clean-up does
            raise RuntimeError("410 Gone")
        stop.set()
        await flag.wait()

    await asyncio.wait_for(assembly.keep_watching(watch, stop), 5)
    assert len(flags) == 3
    assert caplog.text.count("The watch ended: RuntimeError: 410 Gone") == 2


async def test_a_signal_is_ours_while_kopf_runs(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """kopf's own handler forgets a signal that comes while kopf ends for another reason, and is then begun anew."""
    stop = asyncio.Event()

    async def told() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with StandInCluster() as cluster:
        monkeypatch.setattr(kopf, "login_via_client", lambda **_: kopf.ConnectionInfo(server=cluster.url))
        await asyncio.wait_for(watch_with(watched, {"told": told}, stop), 10)
    assert stop.is_set()
    assert watched.settled == [35]


async def test_a_signal_while_kopf_ends_by_itself_is_not_lost(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []

    async def spawn_tasks(**_: object) -> list[asyncio.Task[None]]:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, begun.append, "kopf's own")
        return []

    async def run_tasks(*_: object, **__: object) -> None:
        begun.append("kopf")
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("410 Gone")

    monkeypatch.setattr(kopf, "spawn_tasks", spawn_tasks)
    monkeypatch.setattr(kopf, "run_tasks", run_tasks)
    await asyncio.wait_for(watch_with(watched, {}, asyncio.Event()), 5)
    assert begun == ["kopf"]


class Late(Cluster):
    """The CRDs, and a run, come when they were found to be missing."""

    async def missing_crds(self) -> list[str]:
        missing = await super().missing_crds()
        if missing:
            path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            for plural in PLURALS:
                await self._exchange("POST", "install", path, custom_resource_definition(plural))
            run = {**OBJECT, "metadata": {"name": "run"}, "spec": {"model": "m", "input": "x"}}
            await self._exchange("POST", "create", f"/apis/{OBJECT['apiVersion']}/namespaces/default/{PLURAL}", run)
        return missing


async def test_what_is_not_there_when_kopf_looks_is_watched_once_it_is(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """kopf looks once, and without a right on CRDs not again: it would watch nothing for ever, and call that well."""
    monkeypatch.setattr(assembly, "_WATCH_RETRY", 0.0)
    monkeypatch.setattr(assembly, "_CRD_RETRY", 0.1)
    stop = asyncio.Event()
    monkeypatch.setattr(watched, "saw", lambda *_: stop.set())
    with StandInCluster() as server:
        monkeypatch.setattr(kopf, "login_via_client", lambda **_: kopf.ConnectionInfo(server=server.url))
        cluster = Late(client.ApiClient(client.Configuration(host=server.url)))
        await asyncio.wait_for(watch_with(watched, {}, stop, cluster), 20)
        await cluster.close()
    assert caplog.text.count("The watch ended") == 1


async def test_what_is_there_by_one_answer_and_not_by_another_is_looked_for_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A group's own page may come before the list of groups, which kopf reads."""
    monkeypatch.setattr(assembly, "_WATCH_RETRY", 0.0)
    stop, looks = asyncio.Event(), 0

    class Served:
        async def missing_crds(self) -> list[str]:
            nonlocal looks
            looks += 1
            if looks == 3:
                stop.set()
            return []

    with StandInCluster() as server:
        monkeypatch.setattr(kopf, "login_via_client", lambda **_: kopf.ConnectionInfo(server=server.url))
        await asyncio.wait_for(watch_with(watched, {}, stop, cast(Any, Served())), 20)
    assert caplog.text.count("kopf does not watch openaiproviders, openairuns") >= 2


async def watch_with(
    watched: Watched, background: dict[str, handlers.Background], stop: asyncio.Event, cluster: Cluster | None = None
) -> None:
    settings, cluster = Settings(holder="me"), cast(Cluster, cluster)
    try:
        await assembly.keep_watching(
            lambda flag: assembly._watch(
                settings, cluster, cast(Any, watched), cast(Any, None), background, flag, stop
            ),
            stop,
        )
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


async def test_without_a_login_it_ends() -> None:
    async def watch(flag: asyncio.Event) -> None:
        raise kopf.LoginError("no credentials")

    with pytest.raises(kopf.LoginError):
        await asyncio.wait_for(assembly.keep_watching(watch, asyncio.Event()), 5)


async def test_a_life_writes_the_objects_own_marks_and_no_other() -> None:
    world = World()
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.wire.status = "completed"
    world.now = world.now.replace(minute=1)
    await world.work()
    for body in world.api.sent:
        assert set(body["metadata"].get("annotations", {})) <= {RECORD_ANNOTATION}
        assert set(body["metadata"].get("finalizers", [])) <= {FINALIZER}


PAGE = (ROOT / "docs/reliability.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 30
    assert PAGE.count("::") == len(NAMED), "each as path::name"


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)), ids=lambda text: text.rpartition("/")[2])
def test_every_test_that_the_page_names_is_there(path: str, name: str) -> None:
    text = (ROOT / path).read_text()
    assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{path} has no test {name}"
