"""A namespace that is deleted with its runs: they are cancelled, and the operator does not hold it up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apiserver import Cluster
from openai_control import OpenAIControl
from processes import StartOpenAI, StartOperator
from providers import ON_LOOPBACK, AppliedProvider
from runs import ASSISTANT, RESPONSE, Resource

from openairun_devkit.kubectl import Kubectl

pytestmark = pytest.mark.cluster


@pytest.fixture
def doomed(cluster: Cluster) -> Iterator[Kubectl]:
    """kubectl in a namespace that the test deletes."""
    if not cluster.is_ours:
        pytest.skip("needs an operator for all namespaces, and the right to install it")
    if cluster.control_plane is not None and not cluster.control_plane.has_controllers:
        pytest.skip("no kube-controller-manager: nobody empties a deleted namespace")
    name = cluster.create_namespace()
    yield cluster.kubectl.in_namespace(name)
    if cluster.kubectl.run("get", "namespace", name, check=False).returncode == 0:
        cluster.delete_namespace(name)


def gone(cluster: Cluster, name: str) -> bool:
    return not cluster.kubectl.run("get", "namespace", name, "--ignore-not-found").stdout


def delete_namespace(cluster: Cluster, kubectl: Kubectl, timeout: float) -> None:
    """Delete it, and see it gone within `timeout` seconds."""
    assert kubectl.namespace is not None
    cluster.kubectl.run("delete", "namespace", kubectl.namespace, f"--timeout={timeout}s")
    assert gone(cluster, kubectl.namespace)


def test_a_deleted_namespace_goes_and_its_runs_are_cancelled(
    cluster: Cluster, doomed: Kubectl, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    operator = start_operator(None)
    assert doomed.namespace is not None
    cluster.grant(doomed.namespace, "secrets")
    doomed.run("create", "secret", "generic", "question", "--from-literal=text=Why?")
    asked, waits = (
        {"model": "gpt-5-mini", "inputFrom": {"secretKeyRef": {"name": name, "key": "text"}}}
        for name in ("question", "not-there")
    )
    for name, spec in {"one": RESPONSE, "two": ASSISTANT, "three": asked}.items():
        Resource.apply(doomed, name, spec, script="never").wait_phase("InProgress")
    Resource.apply(doomed, "asks", RESPONSE, script="requires_action").wait_phase("RequiresAction")
    Resource.apply(doomed, "finished", RESPONSE).wait_for("Ready")
    Resource.apply(doomed, "waits", waits).wait_reason("ReferenceNotFound")
    delete_namespace(cluster, doomed, timeout=30)
    # Namespaces of other tests may still be on their way out, with what is in them.
    ours = [each for each in openai.runs() if each["metadata"]["openairun_namespace"] == doomed.namespace]
    made = {each["metadata"]["openairun_name"]: (each["status"], each["cancel_calls"]) for each in ours}
    assert made.keys() == {"one", "two", "three", "asks", "finished"}
    assert {made[name] for name in ("one", "two", "three")} == {("cancelled", 1)}
    assert made["finished"] == ("completed", 0)
    operator.wait_for_log("cannot post an event")
    assert operator.running
    assert "Traceback" not in operator.logs


def test_a_run_that_cannot_be_cancelled_holds_its_namespace_no_longer_than_the_orphan_limit(
    cluster: Cluster, doomed: Kubectl, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    operator = start_operator(None, extra_args=["--orphan-limit=3s"])
    stubborn = Resource.apply(doomed, "stubborn", RESPONSE, script="uncancellable").wait_phase("InProgress")
    run_id = stubborn.status["runID"]
    delete_namespace(cluster, doomed, timeout=30)
    # The namespace refuses the event, so the log alone tells it.
    operator.wait_for_log("Orphaned: ")
    assert run_id in operator.logs.partition("Orphaned: ")[2]
    operator.wait_for_log("cannot post an event")
    assert "Traceback" not in operator.logs


def test_what_waits_for_default_is_not_created_when_its_namespace_is_deleted(
    cluster: Cluster,
    doomed: Kubectl,
    start_operator: StartOperator,
    start_openai: StartOpenAI,
    openai: OpenAIControl,
) -> None:
    """Kinds go in no certain order. If `default` goes first, the runs must not use the operator's own key meanwhile."""
    assert doomed.namespace is not None
    cluster.grant(doomed.namespace, "secrets")
    theirs = start_openai("--key=sk-theirs")
    start_operator(None, extra_args=[ON_LOOPBACK]).wait_ready()
    AppliedProvider.apply(doomed, "default", theirs.base_url, "sk-theirs", maxConcurrentRuns=1)
    Resource.apply(doomed, "first", RESPONSE, script="never").wait_phase("InProgress")
    for number in range(5):
        Resource.apply(doomed, f"queued-{number}", RESPONSE, script="never").wait_reason("ConcurrencyLimit")
    doomed.run("delete", "openaiprovider", "default")
    delete_namespace(cluster, doomed, timeout=60)
    assert [run for run in openai.runs() if run["metadata"]["openairun_namespace"] == doomed.namespace] == []
    assert [(run["metadata"]["openairun_name"], run["status"]) for run in theirs.runs()] == [("first", "cancelled")]
