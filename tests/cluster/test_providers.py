"""OpenAIProviders: each namespace's runs go to its own server with its own key, in order and not too many at once."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from apiserver import Cluster
from openai_control import OpenAIControl
from processes import StartOpenAI, StartOperator
from providers import ON_LOOPBACK, AppliedProvider, provider, secret
from runs import ASSISTANT, RESPONSE, RUNS, Resource, objects, run
from waiting import wait_until

from openairun_devkit.kubectl import Kubectl

pytestmark = pytest.mark.cluster

MANY = int(os.environ.get("PROVIDER_RUNS", "60"))
"""Runs over three namespaces; docs/providers.md says what came of 1,002."""
QUEUED = int(os.environ.get("QUEUED_RUNS", "40"))
AT_ONCE = 5


@pytest.fixture
def namespaces(cluster: Cluster, namespace: str) -> Iterator[list[str]]:
    """Three namespaces in which the operator may read Secrets."""
    more = [cluster.create_namespace() for _ in range(2)]
    for each in (namespace, *more):
        cluster.grant(each, "secrets")
    yield [namespace, *more]
    for each in more:
        cluster.delete_namespace(each)


def create(kubectl: Kubectl, body: dict[str, Any]) -> None:
    """Without kubectl, which takes longer to start than the run to go."""
    objects(kubectl.kubeconfig).create_namespaced_custom_object(**RUNS, namespace=kubectl.namespace, body=body)


def bodies(kubectl: Kubectl) -> list[dict[str, Any]]:
    found = objects(kubectl.kubeconfig).list_namespaced_custom_object(**RUNS, namespace=kubectl.namespace)
    items: list[dict[str, Any]] = found["items"]
    return items


def settled(kubectl: Kubectl, count: int) -> bool:
    return Counter(each.get("status", {}).get("phase") for each in bodies(kubectl)) == {"Completed": count}


def test_each_request_goes_to_its_namespaces_server_with_its_namespaces_key(
    cluster: Cluster, namespaces: list[str], start_openai: StartOpenAI, start_operator: StartOperator
) -> None:
    servers = [start_openai("--key=sk-own"), start_openai("--key=sk-red-1"), start_openai("--key=sk-blue-1")]
    own, red, blue = servers
    kubectls = [cluster.kubectl.in_namespace(each) for each in namespaces]
    start_operator(None, base_url=own.base_url, key="sk-own", extra_args=[ON_LOOPBACK])
    providers = [
        AppliedProvider.apply(kubectls[1], "default", red.base_url, "sk-red-1\n").wait_for("Ready"),
        AppliedProvider.apply(kubectls[2], "blue", blue.base_url, "sk-blue-1").wait_for("Ready"),
    ]
    more = [{}, {}, {"providerRef": {"name": "blue"}}]
    for number in range(MANY // 3):
        if number == MANY // 6:
            for name, server, provider in zip(("red", "blue"), (red, blue), providers, strict=True):
                provider.rotate(f"sk-{name}-2")
                server.accept_keys(f"sk-{name}-2")  # the old one is of no use from now on
        for kubectl, spec in zip(kubectls, more, strict=True):
            kind = RESPONSE if number % 2 else ASSISTANT | {"threadID": f"thread_{number}"}
            create(kubectl, run(f"run-{number}", kind | spec, "complete"))
    for kubectl in kubectls:
        wait_until(lambda k=kubectl: settled(k, MANY // 3), 120, f"{MANY // 3} completed runs")
    for server, namespace, name in zip(servers, namespaces, ("own", "red", "blue"), strict=True):
        made = Counter((r["metadata"]["openairun_namespace"], r["metadata"]["openairun_name"]) for r in server.runs())
        assert set(made) == {(namespace, f"run-{number}") for number in range(MANY // 3)}
        assert set(made.values()) == {1}
        keys = {request["authorization"] for request in server.requests()}
        wanted = {"Bearer sk-own"} if name == "own" else {f"Bearer sk-{name}-1", f"Bearer sk-{name}-2"}
        assert keys == wanted


def test_never_more_go_than_may_and_none_overtakes_across_a_restart_either(
    kubectl: Kubectl,
    cluster: Cluster,
    namespace: str,
    start_operator: StartOperator,
    openai: OpenAIControl,
) -> None:
    cluster.grant(namespace, "secrets")
    operator = start_operator(namespace, extra_args=[ON_LOOPBACK])
    AppliedProvider.apply(kubectl, "default", openai.base_url, "sk-standin", maxConcurrentRuns=AT_ONCE)
    for number in range(QUEUED):
        create(kubectl, run(f"run-{number:03}", RESPONSE, "in_progress:0.5,completed"))  # before the first look
    openai.wait("POST", "/responses$", count=QUEUED // 3, timeout=120)
    assert operator.stop() == 0
    start_operator(namespace, extra_args=[ON_LOOPBACK])
    wait_until(lambda: settled(kubectl, QUEUED), 60 + 2 * QUEUED, f"{QUEUED} completed runs")
    assert most_at_once(openai) <= AT_ONCE
    created = {each["metadata"]["name"]: each["metadata"]["creationTimestamp"] for each in bodies(kubectl)}
    order = [datetime.fromisoformat(created[run["metadata"]["openairun_name"]]) for run in openai.runs()]
    latest = itertools.accumulate(order, max)
    assert max(before - own for before, own in zip(latest, order, strict=True)) < timedelta(seconds=2)


def most_at_once(openai: OpenAIControl) -> int:
    """The most runs that went at one moment: each from its create to the last look at it, which saw its end."""
    last_look = {request["path"].rsplit("/", 1)[1]: request["at"] for request in openai.requests("GET", "/responses/")}
    creates = openai.requests("POST", "/responses$")
    changes = [(create["at"], 1) for create in creates] + [(last_look[run["id"]], -1) for run in openai.runs()]
    counts = itertools.accumulate(change for _, change in sorted(changes))
    return max(counts)


def test_a_run_that_waits_for_room_says_so_and_goes_on_when_there_is_some(
    kubectl: Kubectl, cluster: Cluster, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    cluster.grant(namespace, "secrets")
    start_operator(namespace, extra_args=[ON_LOOPBACK])
    # How many wait is told with what the check says, and later every 10 s at most: the check ends when one waits.
    check = openai.fault("GET /assistants$", hold="before")
    crowded = AppliedProvider.apply(kubectl, "default", openai.base_url, "sk-standin", maxConcurrentRuns=1)
    first = Resource.apply(kubectl, "first", RESPONSE, "requires_action").wait_phase("RequiresAction")
    second = Resource.apply(kubectl, "second", RESPONSE, "complete").wait_reason("ConcurrencyLimit")
    assert second.status["phase"] == "Pending"
    assert second.condition("Reconciling")["status"] == "True"
    openai.release(check)
    wait_until(lambda: crowded.status.get("runsWaiting") == 1, 20, "the provider to tell of the run that waits")
    assert crowded.status["runsInFlight"] == 1
    first.delete()
    second.wait_for("Ready")


def test_a_missing_key_is_said_and_fails_no_run(
    kubectl: Kubectl, cluster: Cluster, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    """One that is wrong, one that goes, and one that comes: all at once, since Secrets are read every 20 s."""
    cluster.grant(namespace, "secrets")
    start_operator(namespace, extra_args=[ON_LOOPBACK])
    wrong = AppliedProvider.apply(kubectl, "wrong", openai.base_url, "sk-wrong")
    AppliedProvider.apply(kubectl, "goes", openai.base_url, "sk-standin")
    kubectl.apply(provider("comes", openai.base_url))
    runs = {
        name: Resource.apply(kubectl, name, RESPONSE | {"providerRef": {"name": name}}, "never").wait_reason(reason)
        for name, reason in (("wrong", "InvalidCredentials"), ("goes", "Running"), ("comes", "NoCredentials"))
    }
    wrong.wait_for("Stalled")
    wrong.rotate("sk-standin")
    kubectl.run("delete", "secret", "goes")
    kubectl.apply(secret("comes", "sk-standin"))
    for name in ("wrong", "comes"):
        runs[name].wait_phase("InProgress", timeout=40)
    runs["goes"].wait_reason("NoCredentials", timeout=40)
    assert "Secret goes" in runs["goes"].condition("Ready")["message"]
    made = {run["metadata"]["openairun_name"]: run["id"] for run in openai.runs()}
    assert (set(made), len(openai.runs())) == (set(runs), 3)
    openai.play(made["goes"], "completed")
    AppliedProvider.apply(kubectl, "goes", openai.base_url, "sk-standin", requestTimeout="10s")  # read at once
    runs["goes"].wait_for("Ready")


def test_a_provider_that_is_deleted_and_comes_back_loses_no_run(
    kubectl: Kubectl, cluster: Cluster, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    cluster.grant(namespace, "secrets")
    start_operator(namespace, extra_args=[ON_LOOPBACK])
    AppliedProvider.apply(kubectl, "team", openai.base_url, "sk-standin")
    spec = RESPONSE | {"providerRef": {"name": "team"}}
    resource = Resource.apply(kubectl, "hello", spec, "never").wait_phase("InProgress")
    deleted = Resource.apply(kubectl, "deleted", spec, "never").wait_phase("InProgress")
    kubectl.run("delete", "openaiprovider", "team")
    resource.wait_reason("ProviderNotFound")
    deleted.delete(timeout=20)  # with the key that was there
    assert {run["status"] for run in openai.runs() if run["metadata"]["openairun_name"] == "deleted"} == {"cancelled"}
    AppliedProvider.apply(kubectl, "team", openai.base_url, "sk-standin").wait_for("Ready")
    (at_openai,) = [run for run in openai.runs() if run["metadata"]["openairun_name"] == "hello"]
    openai.play(at_openai["id"], "completed")
    resource.wait_for("Ready")


def test_a_run_that_needs_another_api_and_one_with_ids_of_others_are_refused(
    kubectl: Kubectl, cluster: Cluster, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    cluster.grant(namespace, "secrets")
    start_operator(namespace, extra_args=[ON_LOOPBACK, "--forbid-foreign-ids"])
    AppliedProvider.apply(kubectl, "modern", openai.base_url, "sk-standin", api="Responses").wait_for("Ready")
    old = Resource.apply(kubectl, "old", ASSISTANT | {"providerRef": {"name": "modern"}}).wait_reason("APINotAllowed")
    assert old.condition("Stalled")["status"] == "True"
    mine = Resource.apply(kubectl, "foreign", ASSISTANT).wait_reason("IDNotAllowed")
    assert "spec.threadID" in mine.condition("Ready")["message"]
    assert openai.count("POST", "/runs$") == 0


def test_an_internal_address_is_refused_before_anything_is_sent(
    kubectl: Kubectl, cluster: Cluster, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    cluster.grant(namespace, "secrets")
    start_operator(namespace)
    AppliedProvider.apply(kubectl, "default", openai.base_url, "sk-standin").wait_for("Stalled")
    Resource.apply(kubectl, "hello", RESPONSE).wait_reason("AddressRefused")
    assert openai.requests() == []


def test_a_namespace_without_a_provider_uses_the_operators_own_only_where_that_is_allowed(
    kubectl: Kubectl, cluster: Cluster, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    operator = start_operator(namespace, extra_args=["--no-own-provider"])
    resource = Resource.apply(kubectl, "hello", RESPONSE).wait_reason("ProviderNotFound")
    assert "spec.providerRef" in resource.condition("Ready")["message"]
    assert openai.requests() == []
    operator.stop()
    start_operator(namespace)
    resource.wait_for("Ready")
