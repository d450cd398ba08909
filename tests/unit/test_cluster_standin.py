"""The stand-in cluster answers as kube-apiserver 1.36 does, where that is easy to get wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from openairun_devkit.cluster.api import JSON_PATCH, MERGE, STRATEGIC, Api, Options
from openairun_devkit.cluster.errors import ApiError
from openairun_devkit.cluster.protobuf import decode
from openairun_devkit.cluster.resources import BUILT_IN, CRDS, NAMESPACES, Resource
from openairun_devkit.cluster.server import Server
from openairun_devkit.cluster.tables import cells, human_duration, json_path

CRD = yaml.safe_load((Path(__file__).parents[2] / "deploy/crds/openairun.dev_openairuns.yaml").read_text())
RUN = {"metadata": {"name": "x"}, "spec": {"model": "m", "input": "Hello"}}


@pytest.fixture
def api() -> Api:
    api = Api()
    api.create(CRDS, "", CRD)
    return api


@pytest.fixture
def runs(api: Api) -> Resource:
    found = api.resources.find("openairun.dev", "v1alpha1", "openairuns")
    assert found is not None
    return found


@pytest.fixture
def run(api: Api, runs: Resource) -> dict[str, Any]:
    return api.create(runs, "default", RUN)


def spec(**fields: Any) -> dict[str, Any]:
    return {**RUN, "spec": {**RUN["spec"], **fields}}


# Schemas


def test_a_new_object_is_defaulted_and_its_status_counts_for_nothing(api: Api, runs: Resource) -> None:
    made = api.create(runs, "default", spec(model=None) | {"status": {"phase": "Z"}})
    defaults = {"onUnknownCreate": "Stop", "waitForCompletion": True, "cancel": False, "suspend": False}
    assert made["spec"] == {"input": "Hello", "deletionPolicy": "Cancel", **defaults}
    assert made["status"] == {"observedGeneration": -1}
    assert made["metadata"]["generation"] == 1


def test_unknown_fields_are_told_or_refused_or_passed_over(api: Api, runs: Resource) -> None:
    odd = {**spec(x=1, tools=[{"type": "a", "y": 2}]), "foo": 1}
    with pytest.raises(ApiError) as refused:
        api.create(runs, "default", odd, Options(field_validation="Strict"))
    assert str(refused.value) == (
        'OpenAIRun in version "v1alpha1" cannot be handled as a OpenAIRun: strict decoding error:'
        ' unknown field "foo", unknown field "spec.tools[0].y", unknown field "spec.x"'
    )
    told = Options(field_validation="Warn")
    made = api.create(runs, "default", odd, told)
    assert told.warnings == ['unknown field "foo"', 'unknown field "spec.tools[0].y"', 'unknown field "spec.x"']
    assert "foo" not in made
    assert "x" not in made["spec"]


def test_free_json_is_kept_as_it_is(api: Api, runs: Resource) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"any": {"thing": [1]}}}}
    assert api.create(runs, "default", spec(tools=[tool]))["spec"]["tools"] == [tool]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": 9}, "spec.temperature: Invalid value: 9: spec.temperature in body should be less than or equal to 2"),  # noqa: E501
        ({"timeout": "99999999999999h"}, 'spec.timeout: Invalid value: "99999999999999h": timeout is a duration from 1s to 168h, such as 30s, 10m or 1h30m'),  # noqa: E501
        ({"previousResponseID": "resp_\x1b"}, "write the id alone, such as resp_abc123: no spaces, slashes, ? # or %, and nothing but printable ASCII"),  # noqa: E501
        ({"conversationID": "é"}, "write the id alone, such as conv_abc123"),
        ({"runID": "r" * 769}, "spec.runID: Too long: may not be more than 768"),
        ({"runID": "run_1", "threadID": "thread_1"}, "input does not go with assistantID or threadID"),
        ({"timeout": "x"}, 'spec.timeout: Invalid value: "x": timeout is a duration from 1s to 168h, such as 30s, 10m or 1h30m'),  # noqa: E501
        ({"onUnknownCreate": "z"}, 'spec.onUnknownCreate: Unsupported value: "z": supported values: "Stop", "CreateAgain"'),  # noqa: E501
        ({"temperature": "a"}, 'spec.temperature: Invalid value: "string": spec.temperature in body must be of type number: "string"'),  # noqa: E501
        ({"input": ""}, 'spec.input: Invalid value: "": spec.input in body should be at least 1 chars long'),
        ({"metadata": {"a": "x" * 513}}, "spec.metadata.a: Too long: may not be more than 512 bytes"),
        ({"tools": [{}]}, "spec.tools[0].type: Required value"),
        ({"assistantID": "a"}, "spec.threadID: Invalid value: assistantID needs threadID"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_the_api_servers_words(
    api: Api, runs: Resource, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ApiError) as refused:
        api.create(runs, "default", spec(**fields))
    assert refused.value.code == 422
    assert said in str(refused.value)
    assert str(refused.value).startswith('OpenAIRun.openairun.dev "x" is invalid: ')


def test_rules_wait_for_the_schema_but_not_for_a_bound(api: Api, runs: Resource) -> None:
    with pytest.raises(ApiError, match="some validation rules were not checked") as typed:
        api.create(runs, "default", spec(maxTokens="many", timeout="x"))
    assert "spec.timeout" not in str(typed.value)
    with pytest.raises(ApiError, match=r"spec\.temperature.*spec\.timeout"):
        api.create(runs, "default", spec(temperature=9, timeout="x"))


def test_a_crd_that_would_not_be_enforced_is_refused() -> None:
    odd = json.loads(json.dumps(CRD))
    properties = odd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    properties["spec"]["oneOf"] = [{}]
    properties["spec"]["x-kubernetes-validations"].append({"rule": "self ==", "message": "m"})
    with pytest.raises(
        ApiError, match=r"does not enforce \.spec: keyword oneOf.*does not enforce \.spec: rule self =="
    ):
        Api().create(CRDS, "", odd)


# Writes


def test_the_generation_counts_changes_of_the_spec_alone(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    def patched(patch: dict[str, Any], subresource: str = "") -> dict[str, Any]:
        return api.patch(runs, "default", "x", MERGE, patch, subresource=subresource)

    assert patched({"metadata": {"labels": {"a": "b"}}})["metadata"]["generation"] == 1
    assert patched({"status": {"phase": "P"}}, "status")["metadata"]["generation"] == 1
    assert patched({"spec": {"input": "Bye"}})["metadata"]["generation"] == 2


def test_status_and_the_rest_are_kept_apart(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    both = {"metadata": {"labels": {"a": "b"}}, "spec": {"input": "Bye"}, "status": {"phase": "P"}}
    after = api.patch(runs, "default", "x", MERGE, both, subresource="status")
    assert (after["spec"]["input"], after["status"]["phase"]) == ("Hello", "P")
    assert "labels" not in after["metadata"]
    after = api.patch(runs, "default", "x", MERGE, both | {"status": {"phase": "Q"}})
    assert (after["spec"]["input"], after["status"]["phase"]) == ("Bye", "P")
    assert api.patch(runs, "default", "x", MERGE, {"status": None}, subresource="status")["status"] == {
        "observedGeneration": -1
    }


def test_a_write_that_changes_nothing_is_none(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    version = api.store.version
    assert api.patch(runs, "default", "x", MERGE, {"spec": {"input": "Hello", "model": "m"}}) == run
    assert api.store.version == version


def test_a_stale_resource_version_is_a_conflict(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    api.patch(runs, "default", "x", MERGE, {"metadata": {"labels": {"a": "b"}}})
    stale = {"metadata": {"resourceVersion": run["metadata"]["resourceVersion"], "labels": {"a": "c"}}}
    for write in (
        lambda: api.patch(runs, "default", "x", MERGE, stale),
        lambda: api.patch(runs, "default", "x", MERGE, stale | {"status": {"phase": "P"}}, subresource="status"),
        lambda: api.update(runs, "default", "x", run),
    ):
        with pytest.raises(ApiError, match="the object has been modified") as refused:
            write()
        assert (refused.value.code, refused.value.reason) == (409, "Conflict")


def test_another_uid_is_refused_by_each_verb_in_its_own_way(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    other = {"metadata": {"uid": "other", "labels": {"a": "b"}}, "status": {"phase": "P"}}
    with pytest.raises(ApiError, match=r'metadata\.uid: Invalid value: "other": field is immutable') as patch:
        api.patch(runs, "default", "x", MERGE, other)
    assert patch.value.code == 422
    with pytest.raises(ApiError, match="Precondition failed: UID in precondition: other") as put:
        api.update(runs, "default", "x", run | {"metadata": run["metadata"] | {"uid": "other"}})
    assert put.value.code == 409
    with pytest.raises(ApiError, match="the UID in the precondition"):
        api.delete(runs, "default", "x", uid="other")
    # The status subresource takes nothing of metadata, not even this.
    assert api.patch(runs, "default", "x", MERGE, other, subresource="status")["status"]["phase"] == "P"


def test_a_failed_test_of_a_json_patch_changes_nothing(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    operations = [
        {"op": "replace", "path": "/spec/input", "value": "Bye"},
        {"op": "test", "path": "/metadata/uid", "value": "other"},
    ]
    with pytest.raises(ApiError, match="the server rejected our request due to an error in our request") as refused:
        api.patch(runs, "default", "x", JSON_PATCH, operations)
    assert refused.value.code == 422
    assert api.get(runs, "default", "x") == run


def test_a_json_patch_of_the_status_is_guarded_and_pruned(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    def patched(*operations: dict[str, Any]) -> dict[str, Any]:
        return api.patch(runs, "default", "x", JSON_PATCH, list(operations), subresource="status")["status"]

    same = {"op": "test", "path": "/metadata/uid", "value": run["metadata"]["uid"]}
    assert patched({"op": "remove", "path": "/status"}) == {"observedGeneration": -1}
    added = [{"op": "add", "path": f"/status/{name}", "value": "a"} for name in ("phase", "unknown")]
    assert patched(same, *added) == {"observedGeneration": -1, "phase": "a"}
    assert patched({"op": "test", "path": "/status/runID", "value": None}, {"op": "remove", "path": "/status/phase"})
    for wrong in (same | {"value": "other"}, {"op": "remove", "path": "/status/phase"}):
        with pytest.raises(ApiError, match="the server rejected our request due to an error in our request"):
            patched(wrong, *added)
    with pytest.raises(ApiError, match=r"\[status\.phase: Invalid value: \"integer\": phase in body must be of type"):
        patched({"op": "add", "path": "/status/phase", "value": 5})


def test_a_status_is_written_whatever_the_spec_is(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    """The spec may be from before the CRD became stricter."""
    api.store.write(runs, run | {"spec": {**run["spec"], "temperature": 9}})
    written = api.patch(runs, "default", "x", MERGE, {"status": {"phase": "P"}}, subresource="status")
    assert written["status"]["phase"] == "P"


def test_a_strategic_patch_is_taken_only_where_it_means_the_same(api: Api) -> None:
    api.patch(NAMESPACES, "", "default", STRATEGIC, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(ApiError) as refused:
        api.patch(NAMESPACES, "", "default", STRATEGIC, {"spec": {"things": [{"name": "a"}]}})
    assert refused.value.code == 415


# ConfigMaps and Secrets

MIB = 1024 * 1024
CONFIG_MAPS, SECRETS = (next(r for r in BUILT_IN if r.plural == plural) for plural in ("configmaps", "secrets"))


@pytest.mark.parametrize(
    ("resource", "content", "said"),
    [
        (CONFIG_MAPS, {"data": {"k": "é" * (MIB // 2), "l": "x"}}, "[]: Too long: may not be more than 1048576 bytes"),
        (CONFIG_MAPS, {"data": {"k": "x" * MIB}, "binaryData": {"b": "AAAA"}}, "[]: Too long"),
        (CONFIG_MAPS, {"data": {"a b": "x"}}, 'data[a b]: Invalid value: "a b": a valid config key must consist of'),
        (SECRETS, {"stringData": {"k": "x" * (MIB + 1)}}, "data: Too long: may not be more than 1048576 bytes"),
    ],
)
def test_texts_are_bounded_and_their_keys_checked(
    api: Api, resource: Resource, content: dict[str, Any], said: str
) -> None:
    with pytest.raises(ApiError) as refused:
        api.create(resource, "default", {"metadata": {"name": "t"}, **content})
    assert refused.value.code == 422
    assert str(refused.value).startswith(f'{resource.kind} "t" is invalid: {said}')


def test_the_names_of_keys_do_not_count(api: Api) -> None:
    api.create(CONFIG_MAPS, "default", {"metadata": {"name": "t"}, "data": {"a-long-name": "x" * MIB}})


def test_an_immutable_text_keeps_its_data_and_stays_immutable(api: Api) -> None:
    made = api.create(CONFIG_MAPS, "default", {"metadata": {"name": "t"}, "data": {"k": "x"}, "immutable": True})
    for change in ({"data": {"k": "y"}}, {"binaryData": {"b": "AAAA"}}, {"immutable": None}):
        with pytest.raises(ApiError, match="Forbidden: field is immutable when `immutable` is set"):
            api.update(CONFIG_MAPS, "default", "t", made | change)
    relabelled = api.update(CONFIG_MAPS, "default", "t", made | {"metadata": made["metadata"] | {"labels": {"a": "b"}}})
    assert relabelled["metadata"]["labels"] == {"a": "b"}


def test_a_secrets_plain_data_is_encoded(api: Api) -> None:
    made = api.create(SECRETS, "default", {"metadata": {"name": "t"}, "data": {"a": "eA=="}, "stringData": {"b": "y"}})
    assert made["data"] == {"a": "eA==", "b": "eQ=="}
    assert "stringData" not in made


# Deletion


def test_a_deletion_may_depend_on_the_uid_and_the_version(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    uid, version = run["metadata"]["uid"], run["metadata"]["resourceVersion"]
    api.patch(runs, "default", "x", MERGE, {"metadata": {"labels": {"a": "b"}}})
    for wanted, said in (
        ({"uid": "other", "version": version}, r"the UID in the precondition \(other\) does not match"),
        ({"uid": uid, "version": version}, f"the ResourceVersion in the precondition .{version}. does not match"),
    ):
        with pytest.raises(ApiError, match=said) as refused:
            api.delete(runs, "default", "x", **wanted)
        assert refused.value.code == 409
    now = api.get(runs, "default", "x")["metadata"]["resourceVersion"]
    assert api.delete(runs, "default", "x", uid=uid, version=now)[1]


def test_finalizers_hold_an_object_and_the_last_one_lets_it_go(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    api.patch(runs, "default", "x", MERGE, {"metadata": {"finalizers": ["a.b/c"]}})
    held, gone = api.delete(runs, "default", "x")
    assert not gone
    assert held["metadata"]["generation"] == 2
    assert "deletionTimestamp" in held["metadata"]
    with pytest.raises(ApiError, match="no new finalizers can be added if the object is being deleted"):
        api.patch(runs, "default", "x", MERGE, {"metadata": {"finalizers": ["a.b/c", "d.e/f"]}})
    api.patch(runs, "default", "x", MERGE, {"metadata": {"finalizers": None}})
    with pytest.raises(ApiError, match=r'openairuns\.openairun\.dev "x" not found'):
        api.get(runs, "default", "x")


@pytest.mark.parametrize("deleted", ["namespace", "crd"])
def test_a_namespace_and_a_crd_go_with_the_last_of_what_they_hold(api: Api, runs: Resource, deleted: str) -> None:
    api.create(NAMESPACES, "", {"metadata": {"name": "n"}})
    api.create(runs, "n", RUN | {"metadata": {"name": "held", "finalizers": ["a.b/c"]}})
    api.create(runs, "n", RUN | {"metadata": {"name": "free"}})
    resource, name = (NAMESPACES, "n") if deleted == "namespace" else (CRDS, "openairuns.openairun.dev")
    api.delete(resource, "", name)
    assert [body["metadata"]["name"] for body in api.store.all(runs)] == ["held"]
    assert "deletionTimestamp" in api.get(resource, "", name)["metadata"]
    if deleted == "namespace":
        with pytest.raises(ApiError, match="because it is being terminated"):
            api.create(runs, "n", RUN)
    api.patch(runs, "n", "held", MERGE, {"metadata": {"finalizers": None}})
    assert api.store.get(resource, "", name) is None
    assert (api.resources.by_key(runs.key) is None) == (deleted == "crd")


# Tables


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (660, "11m"), (3 * 3600 + 60, "3h1m"), (86400 * 3, "3d")],
)
def test_ages_are_kubectls(seconds: float, said: str) -> None:
    assert human_duration(seconds) == said


def test_columns_find_what_their_path_says(api: Api, runs: Resource, run: dict[str, Any]) -> None:
    conditions = [{"type": "Other", "status": "a"}, {"type": "Ready", "status": "True", "reason": "R"}]
    body = run | {"status": {"conditions": conditions, "usage": {"totalTokens": 3}, "startedAt": "no time"}}
    assert json_path(body, '.status.conditions[?(@.type=="Ready")].reason') == ["R"]
    assert cells(runs, body) == ["x", None, "True", None, None, None, 3, "<invalid>", None, "R", "0s"]


# HTTP


def test_kubectls_protobuf_is_read() -> None:
    meta = b"\n\x02v1\x12\tNamespace"
    raw = b"\n\x09\n\x01n\x12\x00Z\x02\n\x00"
    body = b"k8s\x00" + b"\n" + bytes([len(meta)]) + meta + b"\x12" + bytes([len(raw)]) + raw
    assert decode(body) == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"": ""}}}


@asynccontextmanager
async def served(kept: int = 1000) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    server = Server(kept=kept)
    await server.start()
    server.api.create(CRDS, "", CRD)
    try:
        async with aiohttp.ClientSession(server.url) as session:
            yield server, session
    finally:
        await server.stop()


ALL = "/apis/openairun.dev/v1alpha1/openairuns"


async def events(answer: aiohttp.ClientResponse, count: int) -> list[tuple[str, str]]:
    """The next watch events, as type and name or resourceVersion."""
    found: list[tuple[str, str]] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            event = json.loads(await answer.content.readline())
            meta = event["object"].get("metadata", {})
            found.append((event["type"], meta.get("name", "") or event["object"].get("reason", "")))
    return found


async def test_a_watch_begins_where_it_is_told_and_sees_what_leaves_its_selector() -> None:
    async with served() as (server, session):
        runs = server.api.resources.find("openairun.dev", "v1alpha1", "openairuns")
        assert runs is not None
        server.api.create(runs, "default", {**RUN, "metadata": {"name": "a", "labels": {"k": "v"}}})
        listed = await (await session.get(ALL)).json()
        version = listed["metadata"]["resourceVersion"]
        async with (
            session.get(ALL, params={"watch": "1", "labelSelector": "k=v"}) as fresh,
            session.get(ALL, params={"watch": "1", "resourceVersion": version}) as later,
        ):
            assert await events(fresh, 1) == [("ADDED", "a")]
            server.api.create(runs, "default", {**RUN, "metadata": {"name": "b"}})
            server.api.patch(runs, "default", "a", MERGE, {"metadata": {"labels": {"k": "w"}}})
            server.api.delete(runs, "default", "b")
            assert await events(fresh, 1) == [("DELETED", "a")]
            assert await events(later, 3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


async def test_a_watch_from_too_long_ago_is_told_410_and_one_that_ends_is_bookmarked() -> None:
    async with served(kept=3) as (server, session):
        runs = server.api.resources.find("openairun.dev", "v1alpha1", "openairuns")
        assert runs is not None
        for name in ("a", "b", "c", "d"):
            server.api.create(runs, "default", {**RUN, "metadata": {"name": name}})
        async with session.get(ALL, params={"watch": "1", "resourceVersion": "1"}) as answer:
            assert await events(answer, 1) == [("ERROR", "Expired")]
        query = {"watch": "1", "sendInitialEvents": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "0.05"}
        async with session.get(ALL, params=query) as answer:
            lines = [json.loads(line) async for line in answer.content]
        assert [line["type"] for line in lines] == ["ADDED"] * 4 + ["BOOKMARK"] * 2
        assert lines[4]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert lines[5]["object"]["metadata"]["resourceVersion"] == str(server.api.store.version)


async def test_a_deletion_over_http_takes_both_preconditions_and_a_body_has_its_limit() -> None:
    maps = "/api/v1/namespaces/default/configmaps"
    async with served() as (_, session):
        made = await (await session.post(maps, json={"metadata": {"name": "m"}})).json()
        uid, version = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
        for wanted, status in (
            ({"uid": uid, "resourceVersion": "1"}, 409),
            ({"uid": "other", "resourceVersion": version}, 409),
            ({"uid": uid, "resourceVersion": version}, 200),
        ):
            assert (await session.delete(f"{maps}/m", json={"preconditions": wanted})).status == status
        large = await session.post(maps, json={"metadata": {"name": "m"}, "data": {"k": "x" * 3 * MIB}})
        assert large.status == 413
        assert (await large.json())["message"] == "Request entity too large: limit is 3145728"


async def test_a_deleted_namespace_is_emptied_a_moment_later() -> None:
    """Who deletes a namespace, and then what is in it by name, must still find it."""
    maps = "/api/v1/namespaces/n/configmaps"
    async with served() as (_, session):
        await session.post("/api/v1/namespaces", json={"metadata": {"name": "n"}})
        for name in ("a", "b"):
            await session.post(maps, json={"metadata": {"name": name}})
        assert (await session.delete("/api/v1/namespaces/n")).status == 200
        assert (await session.delete("/api/v1/namespaces/n")).status == 200
        assert (await session.delete(f"{maps}/a")).status == 200
        assert (await session.get("/api/v1/namespaces/n")).status == 200
        for _ in range(100):
            if (await session.get("/api/v1/namespaces/n")).status == 404:
                break
            await asyncio.sleep(0.05)
        assert (await session.get("/api/v1/namespaces/n")).status == 404
        assert (await session.get(f"{maps}/b")).status == 404


def test_what_empties_a_deleted_namespace_leaves_another_of_its_name_alone() -> None:
    waiting: list[Callable[[], None]] = []
    api = Api(later=waiting.append)
    (maps,) = (resource for resource in BUILT_IN if resource.kind == "ConfigMap")
    api.create(NAMESPACES, "", {"metadata": {"name": "n"}})
    api.create(maps, "n", {"metadata": {"name": "old"}})
    api.delete(NAMESPACES, "", "n")
    api.delete(maps, "n", "old")  # the last of it takes the namespace along
    api.create(NAMESPACES, "", {"metadata": {"name": "n"}})
    api.create(maps, "n", {"metadata": {"name": "new"}})
    (empty,) = waiting
    empty()
    assert api.get(maps, "n", "new")


async def test_a_token_tells_who_asks_and_a_wrong_one_is_refused() -> None:
    review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    account = "/api/v1/namespaces/default/serviceaccounts"
    async with served() as (_, session):
        await session.post(account, json={"metadata": {"name": "robot"}})
        issued = await (await session.post(f"{account}/robot/token", json={"spec": {}})).json()
        bearer = {"Authorization": f"Bearer {issued['status']['token']}"}
        told = await (await session.post(review, json={}, headers=bearer)).json()
        assert told["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
        assert (await session.get(ALL, headers={"Authorization": "Bearer no"})).status == 401
        assert (await session.get(ALL, headers={"Origin": "http://example.com"})).status == 403
        assert (await session.get("/apis/nope/v1")).status == 404
        assert (await session.get(ALL, params={"watch": "1", "fieldSelector": "status.phase=x"})).status == 400
