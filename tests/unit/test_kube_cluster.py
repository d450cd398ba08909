"""What the API server's refusals mean, and what a request as plain JSON does when the answer is not one."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import re
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import aiohttp
import pytest
from kubernetes.aio import client

from openairun_operator.kube.cluster import (
    Cluster,
    ClusterError,
    ConflictError,
    GoneError,
    PatchError,
    RefusedError,
    Subject,
)
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.run import Run, parse

VALUE = "sk-so-secret"
NO_PATCH = "the server rejected our request due to an error in our request"


class Response:
    """An HTTP answer, as the client hands it over."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.reason, self.text = status, "reason", text
        self.headers = {"content-type": "application/json"}
        self.data: bytes | None = None

    async def read(self) -> bytes:
        self.data = self.text.encode()
        return self.data


def refusal(status: int, message: str) -> Response:
    details: dict[str, Any] = {"name": "x", "kind": "openairuns"} if status == 404 else {}
    if match := re.search(r" is invalid: ([\w.]+): (.*)", message):
        details = {"name": "x", "causes": [{"field": match[1], "message": match[2]}]}
    return Response(status, json.dumps({"kind": "Status", "message": message, "details": details}))


class Wire:
    """What is sent instead of HTTP; each answer is used once."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, str, Any]] = []

    async def request(self, method: str, url: str, headers: Any, body: Any, **_: Any) -> Response:
        self.sent.append((method, url, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def connected(wire: Wire) -> Cluster:
    api = client.ApiClient(client.Configuration(host="https://cluster"))
    api.rest_client = cast(Any, wire)
    return Cluster(api)


SEEN: dict[str, Any] = {"resourceVersion": "7", "finalizers": ["openairun.dev/cancel-run"]}
RUN: Run = parse(
    {
        "metadata": {"namespace": "team", "name": "x", "uid": "uid-1"} | SEEN,
        "spec": {"input": "x"},
        "status": {"phase": "Queued", "runID": "r"},
    }
)
CALLS: dict[str, Callable[[Cluster], Any]] = {
    "status": lambda cluster: cluster.write_status(RUN, {"phase": "Completed"}),
    "delete": lambda cluster: cluster.delete(RUN),
    "release": lambda cluster: cluster.release(RUN),
    "annotate": lambda cluster: cluster.annotate(RUN, "{}"),
    "read": lambda cluster: cluster.read("ConfigMap", "team", "x"),
}


@pytest.mark.parametrize(
    ("call", "status", "message", "kind"),
    [
        ("delete", 409, "the UID in the precondition (a) does not match the UID in record (b)", GoneError),
        ("delete", 409, "the ResourceVersion in the precondition (1) does not match", ConflictError),
        ("annotate", 409, "Precondition failed: UID in precondition: a, UID in object meta: b", GoneError),
        ("annotate", 422, 'x is invalid: metadata.uid: Invalid value: "a": field is immutable', GoneError),
        (
            "annotate",
            422,
            "ValidatingAdmissionPolicy 'frozen' denied request: metadata.uid may not change",
            RefusedError,
        ),
        ("release", 422, NO_PATCH, PatchError),
        ("status", 422, 'OpenAIRun.openairun.dev "x" is invalid: status.phase: Invalid value', RefusedError),
        ("status", 404, "not found", GoneError),
        ("read", 404, "not found", GoneError),
        ("read", 413, "too large", RefusedError),
        ("read", 403, "forbidden", ClusterError),
        ("read", 500, "away", ClusterError),
    ],
)
async def test_refusals_are_told_apart(call: str, status: int, message: str, kind: type[ClusterError]) -> None:
    wire = Wire(refusal(status, message))
    with pytest.raises(ClusterError) as refused:
        await CALLS[call](connected(wire))
    assert type(refused.value) is kind
    assert refused.value.status == status
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["404 page not found\n", '{"kind": "Status", "message": "could not find it"}', "[]"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_404_that_names_no_object_does_not_say_that_one_has_gone(call: str, text: str) -> None:
    """So answer an API server that still starts, and proxies: a run must not be cancelled for that."""
    with pytest.raises(ClusterError) as refused:
        await CALLS[call](connected(Wire(Response(404, text))))
    assert type(refused.value) is ClusterError
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("items", "found"),
    [([], None), ([{"metadata": {"uid": "other"}}], None), ([{"metadata": {"uid": "uid-1"}}], "uid-1")],
)
async def test_a_resource_is_looked_for_by_a_list_since_get_is_no_right(items: list[Any], found: str | None) -> None:
    wire = Wire(Response(200, json.dumps({"items": items})))
    body = await connected(wire).find(RUN)
    assert (body and body["metadata"]["uid"]) == found
    ((method, url, _),) = wire.sent
    assert method == "GET"
    assert url.endswith("/namespaces/team/openairuns?fieldSelector=metadata.name%3Dx")


async def test_a_finalizer_is_removed_only_from_the_object_that_was_seen() -> None:
    """A removal that comes late must not take it from a claim that was made meanwhile."""
    wire = Wire(Response(200, json.dumps({"metadata": {}})))
    await connected(wire).release(dataclasses.replace(RUN, annotation="{}"))
    ((_, _, operations),) = wire.sent
    assert {"op": "test", "path": "/metadata/annotations/openairun.dev~1run", "value": "{}"} in operations


@pytest.mark.parametrize("error", [TimeoutError(), aiohttp.ClientConnectionError("refused"), OSError("reset")])
@pytest.mark.parametrize("call", CALLS)
async def test_a_server_out_of_reach_has_no_status(call: str, error: Exception) -> None:
    with pytest.raises(ClusterError) as failed:
        await CALLS[call](connected(Wire(error)))
    assert type(failed.value) is ClusterError
    assert failed.value.status is None


async def test_a_status_patch_that_does_not_apply_means_another_object_only_if_the_uid_is_another() -> None:
    test = {"op": "test", "path": "/metadata/uid", "value": "uid-1"}
    another = Wire(refusal(422, NO_PATCH), refusal(422, NO_PATCH))
    with pytest.raises(GoneError):
        await connected(another).write_status(RUN, {"phase": "Completed"})
    same = Wire(refusal(422, NO_PATCH), Response(200, "{}"))
    with pytest.raises(PatchError):
        await connected(same).write_status(RUN, {"phase": "Completed"})
    for wire in (another, same):
        assert [body for _, _, body in wire.sent] == [
            [
                test,
                {"op": "test", "path": "/status/phase", "value": "Queued"},
                {"op": "add", "path": "/status/phase", "value": "Completed"},
            ],
            [test],
        ]
    away = Wire(refusal(422, NO_PATCH), refusal(500, "away"))
    with pytest.raises(ClusterError) as failed:
        await connected(away).write_status(RUN, {"phase": "Completed"})
    assert type(failed.value) is ClusterError


async def test_a_finalizer_that_somebody_else_removed_is_released() -> None:
    wire = Wire()
    assert await connected(wire).release(dataclasses.replace(RUN, finalizers=("another/finalizer",))) is None
    assert wire.sent == []


async def test_a_deletion_is_of_what_was_seen() -> None:
    wire = Wire(Response(200, "{}"))
    await connected(wire).delete(RUN)
    ((method, url, sent),) = wire.sent
    assert (method, url) == ("DELETE", "https://cluster/apis/openairun.dev/v1alpha1/namespaces/team/openairuns/x")
    assert sent == {"preconditions": {"uid": "uid-1", "resourceVersion": "7"}, "propagationPolicy": "Background"}


async def test_objects_go_by_name() -> None:
    wire = Wire(*(Response(200, '{"data": {}}') for _ in range(3)))
    cluster = connected(wire)
    body = {"metadata": {"name": "m", "namespace": "team"}, "data": {"k": "é"}}
    assert await cluster.read("Secret", "team", "s") == {"data": {}}
    await cluster.create_config_map(body)
    await cluster.replace_config_map(body)
    place = "https://cluster/api/v1/namespaces/team"
    assert wire.sent == [
        ("GET", f"{place}/secrets/s", None),
        ("POST", f"{place}/configmaps", body),
        ("PUT", f"{place}/configmaps/m", body),
    ]


@pytest.mark.parametrize("text", [f'{{"data": "{VALUE}"', f'["{VALUE}"]'])
async def test_an_answer_that_cannot_be_read_is_not_shown(text: str) -> None:
    with pytest.raises(ClusterError) as failed:
        await connected(Wire(Response(200, text))).read("Secret", "team", "s")
    assert failed.value.__cause__ is failed.value.__context__ is None
    assert VALUE not in "".join(traceback.format_exception(failed.value))


async def test_claim_and_finalizer_are_one_write_that_depends_on_what_was_seen() -> None:
    wire = Wire(Response(200, json.dumps({"metadata": {}})))
    await connected(wire).hold(dataclasses.replace(RUN, finalizers=("another/finalizer",)), "record")
    ((method, _, body),) = wire.sent
    assert method == "PATCH"
    metadata = (json.loads(body) if isinstance(body, str | bytes) else body)["metadata"]
    assert (metadata["resourceVersion"], metadata["uid"]) == ("7", "uid-1")
    assert metadata["finalizers"] == ["another/finalizer", "openairun.dev/cancel-run"]
    assert metadata["annotations"] == {"openairun.dev/run": "record"}


def page(*names: str, more: str = "") -> Response:
    items = [{"metadata": {"name": name}} for name in names]
    metadata = {"resourceVersion": "9"} | ({"continue": more} if more else {})
    return Response(200, json.dumps({"items": items, "metadata": metadata}))


async def listed(wire: Wire, *namespaces: str) -> list[str]:
    return [item["metadata"]["name"] async for item in connected(wire).every("openairuns", namespaces)]


async def test_a_list_is_read_page_by_page_in_each_namespace() -> None:
    wire = Wire(page("a", "b", more="to/ken=="), page("c"), page("d", more="x"), page())
    assert await listed(wire, "blue", "green") == ["a", "b", "c", "d"]
    place = "https://cluster/apis/openairun.dev/v1alpha1/namespaces"
    assert [url for _, url, _ in wire.sent] == [
        f"{place}/blue/openairuns?limit=200",
        f"{place}/blue/openairuns?limit=200&continue=to%2Fken%3D%3D",
        f"{place}/green/openairuns?limit=200",
        f"{place}/green/openairuns?limit=200&continue=x",
    ]


async def test_a_list_of_all_namespaces_is_one() -> None:
    wire = Wire(page("a"))
    assert await listed(wire) == ["a"]
    assert wire.sent[0][1] == "https://cluster/apis/openairun.dev/v1alpha1/openairuns?limit=200"


async def test_a_list_tells_from_which_version_on_to_watch() -> None:
    versions: dict[str | None, str] = {}
    pages = [page("a", more="2"), page("b"), page("c")]
    cluster = connected(Wire(*pages))
    names = [item["metadata"]["name"] async for item in cluster.every("openairuns", ["red", "blue"], versions)]
    assert names == ["a", "b", "c"]
    assert versions == {"red": "9", "blue": "9"}
    async for _ in connected(Wire(page())).every("openairuns", (), versions):
        pass
    assert versions[None] == "9"


async def test_an_object_that_is_nested_deeper_than_others_read_is_listed_too() -> None:
    nested = '{"a":' * 300 + "1" + "}" * 300
    text = f'{{"metadata": {{}}, "items": [{{"metadata": {{"name": "deep"}}, "spec": {nested}}}]}}'
    assert await listed(Wire(Response(200, text))) == ["deep"]


async def test_a_list_that_nobody_wants_further_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire(page("a", "b", more="2"), refusal(410, "The provided continue parameter is too old"))
    listing = connected(wire).every("openairuns", ())
    async for _ in listing:
        break
    await cast(Any, listing).aclose()
    gc.collect()
    await asyncio.sleep(0)
    assert "never retrieved" not in caplog.text


async def test_a_list_whose_next_page_has_expired_fails_and_may_be_read_anew() -> None:
    with pytest.raises(ClusterError) as failed:
        await listed(Wire(page("a", more="old"), refusal(410, "The provided continue parameter is too old")))
    assert failed.value.status == 410


async def test_events_and_the_lease_do_not_stand_in_the_line_of_all_workers() -> None:
    """Else thousands of creates would hold them up until the one is dropped and the other is lost."""

    class Busy(Wire):
        def __init__(self) -> None:
            super().__init__()
            self.free = asyncio.Event()

        async def request(self, method: str, url: str, headers: Any, body: Any, **_: Any) -> Response:
            self.sent.append((method, url, body))
            if "openairuns" in url:
                await self.free.wait()
            return Response(200, json.dumps({"metadata": {}}))

    wire = Busy()
    cluster = connected(wire)
    writes = [asyncio.create_task(cluster.annotate(RUN, "{}")) for _ in range(200)]
    for _ in range(500):
        await asyncio.sleep(0)
    assert len(wire.sent) == 16
    await cluster.post_event(Subject("team", "x", "uid"), Event("Normal", "Created", "m"), datetime.now(UTC), "me")
    await cluster.read_lease("openairun-system", "openairun-operator")
    assert len(wire.sent) == 18
    wire.free.set()
    await asyncio.gather(*writes)
    assert len(wire.sent) == 202


async def test_an_event_that_is_posted_again_bears_the_name_that_it_had() -> None:
    """Its answer may have been lost, and it must not stand there twice."""
    at = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
    wire = Wire(*[Response(201, "{}")] * 3)
    subject = Subject("team", "x" * 199 + ".tail", "uid")
    for moment in (at, at, at + timedelta(microseconds=1)):
        await connected(wire).post_event(subject, Event("Normal", "Created", "m"), moment, "me")
    names = [body["metadata"]["name"] for _, _, body in wire.sent]
    assert names[0] == names[1] != names[2]
    assert re.fullmatch(r"x{199}\.[0-9a-f]+", names[0]), "a name may not have two dots in a row"


async def test_it_is_known_when_the_api_server_last_left_a_request_without_an_answer() -> None:
    cluster = connected(Wire(refusal(500, "trouble"), TimeoutError()))
    for unanswered in (False, True):
        before = time.monotonic()
        with pytest.raises(ClusterError):
            await cluster.annotate(RUN, "{}")
        assert (cluster.unanswered >= before) is unanswered


class Hanging(Wire):
    """Answers nothing until `answering` is set; the first 16 requests give up when `giving_up` is."""

    def __init__(self) -> None:
        super().__init__()
        self.answering, self.giving_up = asyncio.Event(), asyncio.Event()

    async def request(self, method: str, url: str, headers: Any, body: Any, **_: Any) -> Response:
        self.sent.append((method, url, body))
        events = [self.answering, *[self.giving_up] * (len(self.sent) <= 16)]
        tasks = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        if not self.answering.is_set():
            raise TimeoutError
        return Response(200, "{}")


async def test_nobody_waits_long_for_those_whom_the_api_server_lets_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits has a worker, and others need one to look at runs and to cancel them."""
    monkeypatch.setattr("openairun_operator.kube.room._PATIENCE", 0.01)
    wire = Hanging()
    cluster = connected(wire)
    first = [asyncio.create_task(cluster.annotate(RUN, "{}")) for _ in range(16)]
    second = [asyncio.create_task(cluster.annotate(RUN, "{}")) for _ in range(40)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in second), "it may just be slow"
    wire.giving_up.set()
    failed = await asyncio.gather(*first, return_exceptions=True)
    third = asyncio.create_task(cluster.annotate(RUN, "{}"))
    done, pending = await asyncio.wait({*second[16:], third}, timeout=5)
    assert not pending
    failed += [task.exception() for task in done]
    assert all(isinstance(error, ClusterError) for error in failed)
    wire.answering.set()
    assert [await task for task in second[:16]] == [{}] * 16
    assert len(wire.sent) == 32


async def test_what_is_claimed_is_sent_and_recorded_before_more_is_claimed() -> None:
    """An operator that is killed leaves it as a create without an answer."""
    wire = Hanging()
    cluster = connected(wire)
    asked = [asyncio.create_task(cluster.annotate(RUN, "{}")) for _ in range(16)]
    await asyncio.sleep(0)
    asked += [asyncio.create_task(cluster.hold(RUN, "{}"))]
    asked += [asyncio.create_task(cluster.read_provider("team", "red"))]
    asked += [asyncio.create_task(cluster.write_status(RUN, {"phase": "Pending"}))]
    await asyncio.sleep(0)
    wire.answering.set()
    await asyncio.gather(*asked)
    last = [(method, url.rsplit("/", 1)[-1]) for method, url, _ in wire.sent[16:]]
    assert last == [("PATCH", "status"), ("PATCH", RUN.name), ("GET", "red")]
