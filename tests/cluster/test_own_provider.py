"""Who may use the operator's own key: namespaces by their labels, which the operator may watch, or else says so; and
no run that waits for its namespace's own provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from apiserver import DEPLOY, Cluster
from openai_control import OpenAIControl
from processes import StartOpenAI, StartOperator
from providers import ON_LOOPBACK, AppliedProvider, provider
from runs import RESPONSE, Resource

from openairun_devkit.kubectl import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.real_cluster]

SELECTOR = "--own-provider-selector=openairun.dev/own-key=yes"
RIGHTS = (DEPLOY / "manifests/components/namespaces/rbac.yaml").read_text()
FORBIDDEN = "--own-provider-selector needs that right: add deploy/manifests/components/namespaces"


@pytest.fixture
def other(cluster: Cluster, namespace: str) -> Iterator[Kubectl]:
    """kubectl in a second namespace; the first one bears the label."""
    if cluster.control_plane is None:
        pytest.skip("needs rights on all namespaces, of a cluster that is ours")
    label(cluster, namespace, "yes")
    name = cluster.create_namespace()
    yield cluster.kubectl.in_namespace(name)
    cluster.delete_namespace(name)


@pytest.fixture
def rights(cluster: Cluster, other: Kubectl) -> Iterator[None]:
    cluster.kubectl.apply(RIGHTS)
    yield
    cluster.kubectl.run("delete", "--filename=-", input=RIGHTS)


def label(cluster: Cluster, namespace: str | None, value: str) -> None:
    assert namespace
    cluster.kubectl.run("label", "namespace", namespace, f"openairun.dev/own-key={value}", "--overwrite")


def refused(kubectl: Kubectl, name: str) -> Resource:
    resource = Resource.apply(kubectl, name, RESPONSE).wait_reason("ProviderNotFound")
    assert "not for this namespace" in resource.condition("Ready")["message"]
    return resource


def test_a_namespace_uses_the_operators_own_key_while_it_bears_the_label(
    cluster: Cluster,
    kubectl: Kubectl,
    other: Kubectl,
    rights: None,
    start_operator: StartOperator,
    openai: OpenAIControl,
) -> None:
    operator = start_operator(None, extra_args=[SELECTOR]).wait_ready()
    waits = refused(other, "waits")
    Resource.apply(kubectl, "goes", RESPONSE).wait_for("Ready")
    label(cluster, other.namespace, "yes")
    waits.wait_for("Ready")
    goes = Resource.apply(other, "goes", RESPONSE, "never").wait_phase("InProgress")
    label(cluster, other.namespace, "no")
    refused(other, "late")
    (at_openai,) = [run for run in openai.runs() if run["id"] == goes.status["runID"]]
    openai.play(at_openai["id"], "completed")
    goes.wait_for("Ready")
    assert openai.count("POST", "/responses$") == 3
    assert FORBIDDEN not in operator.logs


def test_an_operator_that_may_not_watch_namespaces_says_so_and_goes_on_when_it_may(
    cluster: Cluster, kubectl: Kubectl, other: Kubectl, start_operator: StartOperator
) -> None:
    operator = start_operator(None, extra_args=[SELECTOR])
    operator.wait_for_log(FORBIDDEN)
    resource = refused(kubectl, "hello")
    cluster.kubectl.apply(RIGHTS)
    try:
        resource.wait_for("Ready", timeout=30)
    finally:
        cluster.kubectl.run("delete", "--filename=-", input=RIGHTS)
    assert operator.running


def test_what_waits_for_default_does_not_go_to_the_operators_own_while_that_is_replaced(
    cluster: Cluster,
    kubectl: Kubectl,
    namespace: str,
    start_operator: StartOperator,
    start_openai: StartOpenAI,
    openai: OpenAIControl,
) -> None:
    """`kubectl replace --force` deletes it and creates it again; Argo CD and Helm can be told to do the same."""
    cluster.grant(namespace, "secrets")
    theirs = start_openai("--key=sk-theirs")
    start_operator(namespace, extra_args=[ON_LOOPBACK]).wait_ready()
    AppliedProvider.apply(kubectl, "default", theirs.base_url, "sk-theirs", maxConcurrentRuns=1)
    first = Resource.apply(kubectl, "first", RESPONSE, "never").wait_phase("InProgress")
    queued = [Resource.apply(kubectl, f"queued-{number}", RESPONSE) for number in range(3)]
    queued[-1].wait_reason("ConcurrencyLimit")
    body = yaml.safe_dump(provider("default", theirs.base_url, maxConcurrentRuns=1))
    for _ in range(2):
        kubectl.run("replace", "--force", "--filename=-", input=body)
        first.wait_reason("Running")
        queued[-1].wait_reason("ConcurrencyLimit")
    kubectl.run("delete", "openaiprovider", "default")
    for each in queued:
        assert "was deleted" in each.wait_reason("ProviderNotFound").condition("Ready")["message"]
    kubectl.apply(body)
    first.delete(timeout=30)
    for each in queued:
        each.wait_for("Ready", timeout=60)
    assert openai.requests() == []
