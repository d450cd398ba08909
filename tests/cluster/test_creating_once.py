"""A run costs money: whatever happens around the create, it is sent once, and its id is not lost."""

from __future__ import annotations

import time

import pytest
from openai_control import OpenAIControl
from processes import StartOperator
from runs import BOTH, RESPONSE, Resource
from waiting import wait_until

from openairun_devkit.api_proxy import ApiProxy
from openairun_devkit.kubectl import Kubectl

pytestmark = pytest.mark.cluster

POST = {"Responses": "/responses$", "Assistants": "/threads/[^/]+/runs$"}
# A create that got no answer settles after the request time-out and 5 s: short here, for the tests' sake. Not shorter:
# the first request in a process takes the SDK a second of CPU, which counts.
QUICK = ("--request-timeout=4s",)


def only_run_is(openai: OpenAIControl, resource: Resource) -> None:
    (at_openai,) = openai.runs()
    assert resource.status["runID"] == at_openai["id"]


def test_a_stalled_watch_and_a_relabel_during_the_post_make_one_post(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl, api_proxy: ApiProxy
) -> None:
    hold = openai.fault("POST /responses$", hold="after")
    start_operator(namespace, through_proxy=api_proxy)
    resource = Resource.apply(kubectl, "stalled", RESPONSE)
    openai.wait("POST", "/responses$")
    api_proxy.stall_watches(True)
    kubectl.run("label", "openairun", "stalled", "team=a")
    openai.release(hold)
    wait_until(lambda: resource.status.get("runID"), 10, "the id to be recorded while the watch is stalled")
    # kopf's own consistency_timeout is 5 s: what it then shows a handler is the stale object.
    time.sleep(6)
    kubectl.run("label", "openairun", "stalled", "team=b", "--overwrite")
    api_proxy.stall_watches(False)
    resource.wait_for("Ready")
    assert openai.count("POST", "/responses$") == 1
    only_run_is(openai, resource)


def test_the_ways_out_of_an_unknown_outcome_work(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    openai.fault("POST /responses$", close="after")
    start_operator(namespace)
    resource = Resource.apply(kubectl, "unknown", RESPONSE, script="never").wait_reason("CreateOutcomeUnknown")
    message = resource.condition("Ready")["message"]
    command = message[message.index("kubectl annotate") :].split()
    kubectl.run(*command[1:])
    resource.wait_phase("InProgress")
    assert len(openai.runs()) == 2
    (past,) = resource.status["history"]
    assert past["reason"] == "CreateOutcomeUnknown"
    assert past["token"] == openai.runs()[0]["metadata"]["openairun_token"]
    kubectl.run(*command[1:])  # honoured once for each value
    kubectl.run("label", "openairun", "unknown", "team=a")
    openai.wait("GET", resource.status["runID"], count=3)
    assert len(openai.runs()) == 2


def test_a_lost_answer_on_the_assistants_wire_is_found_by_search(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    openai.fault(f"POST {POST['Assistants']}", close="after")
    start_operator(namespace)
    resource = Resource.apply(kubectl, "found", BOTH["Assistants"]).wait_for("Ready")
    assert openai.count("POST", POST["Assistants"]) == 1
    only_run_is(openai, resource)


@pytest.mark.parametrize("fault", [{"status": 429}, {"close": "before", "status": None}, {"status": 500}], ids=str)
def test_a_failed_create_on_the_assistants_wire_is_sent_again_once_it_is_sure(
    fault: dict[str, object], kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    openai.fault(f"POST {POST['Assistants']}", **{k: v for k, v in fault.items() if v is not None})
    start_operator(namespace, extra_args=QUICK)
    resource = Resource.apply(kubectl, "again", BOTH["Assistants"]).wait_for("Ready", timeout=30)
    assert openai.count("POST", POST["Assistants"]) == 2
    only_run_is(openai, resource)


def test_a_rate_limited_create_is_retried_and_never_called_unknown(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    openai.fault("POST /responses$", status=429, times=None)
    operator = start_operator(namespace)
    resource = Resource.apply(kubectl, "limited", RESPONSE).wait_reason("RateLimited")
    operator.kill9()
    openai.heal()
    start_operator(namespace)
    resource.wait_for("Ready")
    assert len(openai.runs()) == 1


def test_a_stopping_operator_waits_for_the_answer_to_a_create(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    openai.fault("POST /responses$", delay=3)
    operator = start_operator(namespace)
    resource = Resource.apply(kubectl, "rolled", RESPONSE)
    openai.wait("POST", "/responses$")
    assert operator.stop() == 0
    assert resource.body["metadata"]["annotations"]["openairun.dev/run"].count('"id"') == 1
    start_operator(namespace)
    resource.wait_for("Ready")
    only_run_is(openai, resource)


@pytest.mark.parametrize("api", BOTH)
def test_deleted_during_the_create_the_run_is_cancelled(
    api: str, kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    hold = openai.fault(f"POST {POST[api]}", hold="after")
    start_operator(namespace)
    resource = Resource.apply(kubectl, "fleeting", BOTH[api], script="never")
    openai.wait("POST", POST[api])
    kubectl.run("delete", "openairun", "fleeting", "--wait=false")
    openai.release(hold)
    wait_until(lambda: not resource.exists, 10, "the resource to be gone")
    (at_openai,) = openai.runs()
    assert (at_openai["status"], at_openai["cancel_calls"]) == ("cancelled", 1)


def test_a_run_whose_resource_was_freed_by_force_is_cancelled_all_the_same(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    start_operator(namespace)
    resource = Resource.apply(kubectl, "forced", RESPONSE, script="never").wait_phase("InProgress")
    # Replaced and deleted before the finalizer is back, as `kubectl replace --force` might.
    kubectl.run("patch", "openairun", "forced", "--type=merge", '--patch={"metadata": {"finalizers": null}}')
    kubectl.run("delete", "openairun", "forced", "--wait=false")
    wait_until(lambda: openai.runs()[0]["status"] == "cancelled", 10, "the run to be cancelled")
    wait_until(lambda: not resource.exists, 10, "the resource to be gone")


def test_an_uncancellable_run_holds_its_resource_no_longer_than_the_orphan_limit(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    operator = start_operator(namespace, extra_args=["--orphan-limit=3s"])
    resource = Resource.apply(kubectl, "stubborn", RESPONSE, script="uncancellable").wait_phase("InProgress")
    run_id = resource.status["runID"]
    resource.delete(timeout=15)
    assert "Orphaned: " in operator.logs
    assert run_id in operator.logs.partition("Orphaned: ")[2]
    wait_until(lambda: "Orphaned" in kubectl.run("get", "events").stdout, 5, "the event Orphaned")


def test_an_openai_that_is_away_holds_a_deletion_no_longer_than_the_orphan_limit(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    operator = start_operator(namespace, extra_args=["--orphan-limit=3s", "--request-timeout=1s"])
    resource = Resource.apply(kubectl, "away", RESPONSE, script="never").wait_phase("InProgress")
    openai.fault("POST /cancel$", delay=30, times=None)
    openai.fault("GET /responses/", delay=30, times=None)
    resource.delete(timeout=20)
    assert "Orphaned" in operator.logs
