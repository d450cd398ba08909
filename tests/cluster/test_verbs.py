"""What a user of the cluster can do with a run beside applying and deleting it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apiserver import Cluster
from openai_control import OpenAIControl
from processes import StartOpenAI, StartOperator
from runs import BOTH, RESPONSE, Resource
from waiting import wait_until

from openairun_devkit.kubectl import Kubectl
from openairun_operator.api.spec import DEFINING, OpenAIRunSpec

pytestmark = pytest.mark.cluster

WIRES = pytest.mark.parametrize("api", BOTH)


def patch(resource: Resource, **spec: Any) -> None:
    """Change the spec as `kubectl patch` does; None removes a field."""
    resource.kubectl.run("patch", "openairun", resource.name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")


def calls(resource: Resource) -> list[dict[str, Any]]:
    return resource.wait_phase("RequiresAction").status["requiredAction"]["toolCalls"]


def answers(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"toolCallID": call["id"], "output": '{"temperature": 21}'} for call in asked]


# --- tool outputs


@WIRES
def test_tool_calls_are_answered_and_the_run_goes_on_as_one(
    api: str, kubectl: Kubectl, operated: OpenAIControl
) -> None:
    resource = Resource.apply(kubectl, "asks", BOTH[api], script="two_calls")
    first, second = asked = calls(resource)
    run_id = resource.status["runID"]
    patch(resource, toolOutputs=answers([first]))
    wait_until(lambda: second["id"] in resource.condition("Ready")["message"], 30, "word of the one that lacks")
    patch(resource, toolOutputs=answers(asked))
    resource.wait_for("Ready")
    assert (resource.status["phase"], resource.status["runID"]) == ("Completed", run_id)
    assert "requiredAction" not in resource.status
    assert len(resource.status.get("responseIDs", [1, 1])) == 2
    assert len([each for each in operated.runs() if each["metadata"]["openairun_name"] == "asks"]) == (
        2 if api == "Responses" else 1
    )


def test_a_run_that_asks_twice_is_answered_twice(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "twice", RESPONSE, script="twice")
    first = calls(resource)
    patch(resource, toolOutputs=answers(first))
    wait_until(lambda: calls(resource)[0]["id"] != first[0]["id"], 30, "another call")
    patch(resource, toolOutputs=answers(first + calls(resource)))
    resource.wait_for("Ready")
    assert len(resource.status["responseIDs"]) == 3


@pytest.mark.parametrize("approve", [True, False])
def test_an_mcp_approval_is_answered_by_yes_or_no(approve: bool, kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "approval", RESPONSE, script="mcp_approval")
    (call,) = calls(resource)
    assert (call["type"], bool(call["serverLabel"])) == ("mcp_approval", True)
    patch(resource, toolOutputs=[{"toolCallID": call["id"], "approve": approve}])
    resource.wait_for("Ready")
    *_, last = [r for r in operated.requests("POST", "/responses$") if r["body"].get("previous_response_id")]
    (item,) = last["body"]["input"]
    assert (item["type"], item["approve"]) == ("mcp_approval_response", approve)


def test_outputs_may_stand_in_a_config_map(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "from", RESPONSE, script="requires_action")
    (call,) = calls(resource)
    source = {"configMapKeyRef": {"name": "results", "key": "weather"}}
    patch(resource, toolOutputs=[{"toolCallID": call["id"], "outputFrom": source}])
    resource.wait_reason("ReferenceNotFound")
    kubectl.run("create", "configmap", "results", "--from-literal=weather=rain")
    resource.wait_for("Ready", timeout=60)
    kubectl.run("delete", "configmap", "results")


def test_a_restart_between_asking_and_answering_loses_nothing(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    operator = start_operator(namespace)
    resource = Resource.apply(kubectl, "asks", RESPONSE, script="requires_action")
    asked = calls(resource)
    operator.kill9()
    patch(resource, toolOutputs=answers(asked))
    start_operator(namespace)
    resource.wait_for("Ready", timeout=60)
    assert openai.count("POST", "/responses$") == 2


# --- taking up a run by its id


@WIRES
def test_a_run_is_taken_up_by_its_id(api: str, kubectl: Kubectl, operated: OpenAIControl) -> None:
    first = Resource.apply(kubectl, "first", BOTH[api] | {"deletionPolicy": "Orphan"}, script="never")
    first.wait_phase("InProgress").delete()
    (at_openai,) = operated.runs()
    assert at_openai["cancel_calls"] == 0, "left alone"
    spec = {"runID": "resp_wrong" if api == "Responses" else "run_wrong"}
    spec |= {"threadID": BOTH[api]["threadID"]} if api == "Assistants" else {}
    second = Resource.apply(kubectl, "second", spec).wait_reason("RunNotFound")
    patch(second, runID=at_openai["id"])
    second.wait_phase("InProgress")
    assert second.status["runID"] == at_openai["id"]
    second.delete()
    (at_openai,) = operated.runs()
    assert (at_openai["status"], at_openai["cancel_calls"]) == ("cancelled", 1)


# --- cancel and suspend


@WIRES
def test_cancel_ends_a_run_and_nothing_revives_it(api: str, kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "cancelled", BOTH[api], script="never").wait_phase("InProgress")
    patch(resource, cancel=True)
    resource.wait_for("Finished")
    assert (resource.status["phase"], resource.reason) == ("Cancelled", "Cancelled")
    patch(resource, cancel=False)
    wait_until(lambda: resource.status["observedGeneration"] == 3, 30, "the change to be seen")
    assert len(operated.runs()) == 1


def test_with_cancel_from_the_start_nothing_is_created(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "never", RESPONSE | {"cancel": True}).wait_for("Finished")
    assert (resource.status["phase"], operated.runs()) == ("Cancelled", [])


def test_suspend_holds_the_run_back_and_lets_it_go(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "held", RESPONSE | {"suspend": True}).wait_for("Suspended")
    assert operated.runs() == []
    patch(resource, suspend=False)
    resource.wait_for("Ready")
    assert not resource.condition("Suspended")


# --- the answer


def test_without_the_right_to_write_config_maps_that_is_said_and_then_goes_by_itself(
    cluster: Cluster, kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    if cluster.control_plane is None and cluster.is_ours:
        pytest.skip("the stand-in lets everybody do everything")
    start_operator(namespace)
    resource = Resource.apply(kubectl, "answer", RESPONSE | {"outputTo": {"configMap": "answer"}}).wait_for("Finished")
    assert resource.condition("OutputStored")["reason"] == "OutputNotAllowed"
    assert "components/outputs" in resource.condition("OutputStored")["message"]
    cluster.grant(namespace, "outputs")
    resource.wait_for("OutputStored", timeout=60)


def test_a_config_map_of_somebody_else_is_left_as_it_is(
    cluster: Cluster, kubectl: Kubectl, namespace: str, operated: OpenAIControl
) -> None:
    cluster.grant(namespace, "outputs")
    kubectl.run("create", "configmap", "settings", "--from-literal=a=b")
    resource = Resource.apply(kubectl, "answer", RESPONSE | {"outputTo": {"configMap": "settings"}}).wait_for(
        "Finished"
    )
    assert resource.condition("OutputStored")["reason"] == "OutputNameTaken"
    assert kubectl.json("get", "configmap", "settings")["data"] == {"a": "b"}
    patch(resource, outputTo={"configMap": "answer"})
    resource.wait_for("OutputStored")
    (owner,) = kubectl.json("get", "configmap", "answer")["metadata"]["ownerReferences"]
    assert owner["uid"] == resource.body["metadata"]["uid"]
    kubectl.run("delete", "configmap", "settings", "answer")


def test_a_resource_deletes_itself_when_its_time_is_over(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "short", RESPONSE | {"ttlAfterFinished": "1s"})
    kubectl.run("wait", "--for=delete", "openairun/short", "--timeout=30s")
    assert not resource.exists


# --- input from elsewhere, and what it may follow


def test_an_input_that_comes_late_is_waited_for_and_read_once(kubectl: Kubectl, operated: OpenAIControl) -> None:
    source = {"configMapKeyRef": {"name": "question", "key": "text"}}
    resource = Resource.apply(kubectl, "late", {"model": "m", "inputFrom": source}).wait_reason("ReferenceNotFound")
    kubectl.run("create", "configmap", "question", "--from-literal=text=Why?")
    resource.wait_for("Ready", timeout=60)
    kubectl.run("patch", "configmap", "question", "--type=merge", '--patch={"data": {"text": "How?"}}')
    kubectl.run("label", "openairun", "late", "a=b")
    assert len(operated.runs()) == 1
    kubectl.run("delete", "configmap", "question")


def test_a_secret_is_not_read_without_the_right_to(
    cluster: Cluster, kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    if cluster.control_plane is None and cluster.is_ours:
        pytest.skip("the stand-in lets everybody do everything")
    start_operator(namespace)
    source = {"secretKeyRef": {"name": "question", "key": "text"}}
    resource = Resource.apply(kubectl, "secret", {"model": "m", "inputFrom": source}).wait_reason("ReferenceForbidden")
    assert "components/secrets" in resource.condition("Ready")["message"]


def test_a_run_follows_another(kubectl: Kubectl, operated: OpenAIControl) -> None:
    first = Resource.apply(kubectl, "first", RESPONSE).wait_for("Ready")
    spec = RESPONSE | {"previousResponseID": first.status["runID"]}
    Resource.apply(kubectl, "second", spec).wait_for("Ready")
    *_, last = operated.requests("POST", "/responses$")
    assert last["body"]["previous_response_id"] == first.status["runID"]


@pytest.mark.parametrize(
    "spec",
    [RESPONSE | {"conversationID": "conv_busy"}, {"assistantID": "asst_1", "threadID": "thread_busy"}],
    ids=["conversation", "thread"],
)
def test_a_busy_conversation_or_thread_is_waited_for(
    spec: dict[str, Any], kubectl: Kubectl, namespace: str, start_openai: StartOpenAI, start_operator: StartOperator
) -> None:
    start_operator(namespace, base_url=start_openai("--strict-threads").base_url)
    first = Resource.apply(kubectl, "first", spec, script="never").wait_phase("InProgress")
    second = Resource.apply(kubectl, "second", spec).wait_reason("Busy")
    assert second.status["phase"] == "Pending"
    first.delete()
    second.wait_for("Ready", timeout=60)


# --- nothing is replaced that should not be


TREATMENT: list[dict[str, Any]] = [
    {"metadata": {"team": "b", "standin": "never"}},
    {"timeout": "1h"},
    {"pollingInterval": "2s"},
    {"waitForCompletion": False},
    {"deletionPolicy": "Orphan"},
    {"suspend": True},
    {"suspend": False},
    {"runID": "resp_other"},
    {"runID": None},
    {"streamForTool": True},
    {"outputTo": {"configMap": "x"}},
    {"ttlAfterFinished": "1h"},
    {"onUnknownCreate": "CreateAgain"},
    {"toolOutputs": [{"toolCallID": "call_x", "output": ""}]},
    {"timeout": None, "completionWindow": 600},
    {"providerRef": {"name": "not-there"}},
]
DEFINITION: list[dict[str, Any]] = [
    {"input": "Another question"},
    {"input": None, "inputFrom": {"configMapKeyRef": {"name": "question", "key": "text"}}},
    {"model": "gpt-5"},
    {"instructions": "x"},
    {"additionalInstructions": "x"},
    {"additionalMessages": [{"role": "user", "content": "x"}]},
    {"tools": [{"type": "web_search"}]},
    {"toolChoice": {"type": "none"}},
    {"parallelToolCalls": True},
    {"responseFormat": {"type": "json_object"}},
    {"reasoningEffort": "high"},
    {"temperature": 1},
    {"topP": 1},
    {"maxTokens": 1000},
    {"truncation": {"type": "disabled"}},
    {"previousResponseID": "resp_new"},
    {"previousResponseID": None, "conversationID": "conv_new"},
    {"input": None, "inputFrom": None, "conversationID": None, "truncation": None, "assistantID": "asst_1",
     "threadID": "thread_1"},
    {"maxPromptTokens": 1000},
]  # fmt: skip


def test_no_treatment_field_makes_a_new_run(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "going", RESPONSE, script="never").wait_phase("InProgress")
    for change in TREATMENT:
        patch(resource, **change)
        generation = resource.body["metadata"]["generation"]
        wait_until(lambda g=generation: resource.status["observedGeneration"] == g, 30, f"{change} to be seen")
        (at_openai,) = operated.runs()
        assert at_openai["cancel_calls"] == 0, change
    assert {field for change in TREATMENT for field in change} | {"cancel"} == set(OpenAIRunSpec.model_fields) - set(
        DEFINING
    )


def test_each_defining_field_makes_a_new_run(kubectl: Kubectl, operated: OpenAIControl) -> None:
    kubectl.run("create", "configmap", "question", "--from-literal=text=Why?")
    resource = Resource.apply(kubectl, "going", RESPONSE, script="never").wait_phase("InProgress")
    for change in DEFINITION:
        old = resource.status["runID"]
        patch(resource, **change)
        wait_until(lambda o=old: resource.status.get("runID") not in (None, o), 30, f"another run for {change}")
        assert resource.status["history"][0]["runID"] == old
    *ended, goes = operated.runs()
    assert len(ended) == len(DEFINITION), "one run for each"
    assert {each["status"] for each in ended} == {"cancelled"}
    assert goes["cancel_calls"] == 0
    assert {field for change in DEFINITION for field in change} == set(DEFINING)
    kubectl.run("delete", "configmap", "question")
