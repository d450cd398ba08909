"""The main job: apply, watch, read the answer, delete. On each API server, through kubectl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver import DEPLOY
from openai_control import OpenAIControl
from processes import StartOpenAI, StartOperator
from runs import ASSISTANT, BOTH, RESPONSE, Resource, run
from waiting import wait_until

from openairun_devkit.api_proxy import ApiProxy
from openairun_devkit.kubectl import Kubectl, KubectlError

pytestmark = pytest.mark.cluster

SAMPLES = sorted(set((DEPLOY / "samples").glob("*.yaml")) - {DEPLOY / "samples/provider.yaml"})
"""A provider's goes to OpenAI itself."""
PATCH_RUN = "/openairuns/[^/]+$"
PATCH_STATUS = "/openairuns/[^/]+/status$"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_completes_and_both_waits_return(sample: Path, kubectl: Kubectl, operated: OpenAIControl) -> None:
    applied = kubectl.run("apply", "-f", str(sample))
    assert applied.stderr == ""
    resource = Resource(kubectl, yaml.safe_load(sample.read_text())["metadata"]["name"])
    resource.wait_for("Finished").wait_for("Ready")
    status = resource.status
    assert status["phase"] == "Completed"
    assert status["output"]["text"]
    assert status["output"]["truncated"] is False
    assert status["usage"]["totalTokens"] > 0
    assert status["observedGeneration"] == resource.body["metadata"]["generation"]
    assert status["createdAt"] <= status["completedAt"]
    assert status["completedAt"] <= status["finishedAt"]


def test_kubectl_get_shows_what_a_person_wants_to_know(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "hello", RESPONSE).wait_for("Finished")
    header, row = kubectl.run("get", "oairun").stdout.splitlines()
    assert header.split("  ")[0] == "NAME"
    assert [name for name in ("PHASE", "READY", "MODEL", "RUN ID", "AGE") if name in header] == [
        "PHASE", "READY", "MODEL", "RUN ID", "AGE",
    ]  # fmt: skip
    assert row.split()[:5] == ["hello", "Completed", "True", "gpt-5-mini", resource.status["runID"]]
    wide = kubectl.run("get", "openairuns", "-o", "wide").stdout.splitlines()[0]
    for name in ("API", "TOKENS", "STARTED", "FINISHED", "REASON"):
        assert name in wide


def test_kubectl_describe_tells_the_story_in_events(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "hello", RESPONSE).wait_for("Finished")
    wait_until(lambda: "Completed" in kubectl.run("events").stdout, 5, "the event of the completion")
    events = kubectl.run("describe", "openairun", "hello").stdout.partition("Events:")[2]
    assert "Created" in events
    assert f"Run {resource.status['runID']} completed" in events


def test_kubectl_explain_describes_every_field(kubectl: Kubectl) -> None:
    text = kubectl.run("explain", "openairun.spec", "--recursive=false").stdout
    assert "pollingInterval" in text
    for path in ("spec.timeout", "spec.tools.function", "status.output.text", "status.conditions.reason"):
        described = kubectl.run("explain", f"openairun.{path}").stdout.partition("DESCRIPTION:")[2]
        assert described.strip()
        assert "<empty>" not in described


@pytest.mark.parametrize("api", BOTH)
def test_deleting_a_running_one_cancels_it_exactly_once(api: str, kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "long", BOTH[api], script="never").wait_phase("InProgress")
    resource.delete(timeout=10)
    assert not resource.exists
    (at_openai,) = operated.runs()
    assert (at_openai["status"], at_openai["cancel_calls"]) == ("cancelled", 1)


def test_deleting_a_finished_one_asks_openai_nothing(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "hello", RESPONSE).wait_for("Finished")
    operated.forget_requests()
    resource.delete()
    assert operated.requests() == []


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "negative temperature": (RESPONSE | {"temperature": -0.1}, ["spec.temperature", "greater than or equal to 0"]),
    "assistant without thread": ({"assistantID": "asst_a"}, ["spec.threadID", "assistantID needs threadID"]),
    "thread without assistant": ({"threadID": "thread_a"}, ["spec.assistantID", "threadID needs assistantID"]),
    "assistant and input": (ASSISTANT | {"input": "x"}, ["spec.input", "input does not go with assistantID"]),
    "nothing to run": ({"model": "m"}, ["spec.input", "write input"]),
    "timeout in words": (RESPONSE | {"timeout": "10 minutes"}, ["spec.timeout", "such as 30s, 10m or 1h30m"]),
    "negative timeout": (RESPONSE | {"timeout": "-5s"}, ["spec.timeout", "such as 30s, 10m or 1h30m"]),
    "interval too long": (RESPONSE | {"pollingInterval": "6m"}, ["spec.pollingInterval", "from 1s to 5m"]),
    "interval too short": (RESPONSE | {"pollingInterval": "0s"}, ["spec.pollingInterval", "from 1s to 5m"]),
    "our metadata": (RESPONSE | {"metadata": {"openairun_token": "x"}}, ["spec.metadata", "choose another name"]),
    "13 metadata": (RESPONSE | {"metadata": {f"k{n}": "v" for n in range(13)}}, ["spec.metadata", "at most 12"]),
    "long metadata key": (RESPONSE | {"metadata": {"k" * 65: "v"}}, ["spec.metadata", "1 to 64 characters"]),
    "blank input": (RESPONSE | {"input": " \n\t "}, ["spec.input", "input is blank: write what to ask"]),
    "blank model": (RESPONSE | {"model": "   "}, ["spec.model", "such as gpt-5-mini"]),
    "control character": (RESPONSE | {"model": "gpt-5\x07mini"}, ["spec.model", "such as gpt-5-mini"]),
    "line break in a model": (RESPONSE | {"model": "gpt-5-mini\n"}, ["spec.model", "such as gpt-5-mini"]),
    "long input": (RESPONSE | {"input": "x" * 65_537}, ["spec.input", "65536"]),
    "a path for an id": (ASSISTANT | {"threadID": "t/../u"}, ["spec.threadID", "write the id alone"]),
    "two contexts": (
        RESPONSE | {"conversationID": "conv_a", "previousResponseID": "resp_a"},
        ["spec.previousResponseID", "exclude each other"],
    ),
    "function without name": (
        RESPONSE | {"tools": [{"type": "function"}]},
        ["spec.tools[0].function", "needs function"],
    ),
    "unknown field": (RESPONSE | {"temprature": 1}, ['unknown field "spec.temprature"']),
}


@pytest.mark.parametrize(("spec", "said"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_at_apply(spec: dict[str, Any], said: list[str], kubectl: Kubectl) -> None:
    with pytest.raises(KubectlError) as refused:
        kubectl.apply(run("bad", spec))
    for words in said:
        assert words in str(refused.value)


def test_input_of_the_greatest_length_and_of_any_alphabet_runs(kubectl: Kubectl, operated: OpenAIControl) -> None:
    # Server-side apply: the client-side one keeps a copy in an annotation, which has a bound of its own.
    manifest = yaml.safe_dump(run("long-input", RESPONSE | {"input": "ж" * 65_536}))
    kubectl.run("apply", "--server-side", "-f", "-", input=manifest)
    Resource(kubectl, "long-input").wait_for("Ready")


def test_a_long_answer_is_cut_and_says_so(kubectl: Kubectl, operated: OpenAIControl) -> None:
    spec = RESPONSE | {"metadata": {"standin_text": "text:300000"}}
    output = Resource.apply(kubectl, "much", spec).wait_for("Ready").status["output"]
    assert output["truncated"] is True
    assert output["bytes"] >= 300_000
    assert len(output["text"].encode()) <= 64 * 1024


ENDS = {
    "fail": ("Failed", "Failed"),
    "incomplete": ("Incomplete", "Incomplete"),
    "vanish": ("InProgress", "Lost"),
}


@pytest.mark.parametrize("api", BOTH)
@pytest.mark.parametrize(("script", "end"), ENDS.items(), ids=ENDS)
def test_a_run_that_does_not_complete_is_finished_and_says_why(
    api: str, script: str, end: tuple[str, str], kubectl: Kubectl, operated: OpenAIControl
) -> None:
    resource = Resource.apply(kubectl, "run", BOTH[api], script=script).wait_for("Finished", timeout=20)
    assert (resource.status["phase"], resource.reason) == end
    assert resource.condition("Succeeded")["status"] == "False"
    assert resource.condition("Stalled")["status"] == "True"


@pytest.mark.parametrize("api", BOTH)
def test_a_run_past_its_deadline_is_cancelled(api: str, kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "late", BOTH[api] | {"timeout": "2s"}, script="never").wait_for("Finished")
    assert resource.reason == "DeadlineExceeded"
    (at_openai,) = operated.runs()
    assert (at_openai["status"], at_openai["cancel_calls"]) == ("cancelled", 1)


@pytest.mark.parametrize("api", BOTH)
def test_a_run_that_waits_for_tool_results_says_so(api: str, kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "asks", BOTH[api], script="requires_action").wait_for("ActionRequired")
    assert resource.status["phase"] == "RequiresAction"
    assert resource.status["requiredAction"]["toolCalls"][0]["name"]
    resource.delete()


def test_nobody_needs_to_wait(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "fire", RESPONSE | {"waitForCompletion": False}, script="never")
    resource.wait_for("Ready")
    assert resource.condition("Finished")["status"] == "False"


def test_a_changed_definition_makes_a_new_run_and_keeps_the_old_one_in_history(
    kubectl: Kubectl, operated: OpenAIControl
) -> None:
    resource = Resource.apply(kubectl, "edited", RESPONSE, script="never").wait_phase("InProgress")
    first = resource.status["runID"]
    Resource.apply(kubectl, "edited", RESPONSE | {"input": "Say goodbye."}).wait_for("Ready")
    second = resource.status["runID"]
    assert resource.status["output"]["text"].endswith("Say goodbye.")
    assert [(past["runID"], past["phase"]) for past in resource.status["history"]] == [(first, "Cancelled")]
    assert {r["id"]: (r["status"], r["cancel_calls"]) for r in operated.runs()} == {
        first: ("cancelled", 1),
        second: ("completed", 0),
    }


def test_labels_treatment_restarts_and_replace_make_no_new_run(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    operator = start_operator(namespace)
    resource = Resource.apply(kubectl, "steady", RESPONSE, script="never").wait_phase("InProgress")
    run_id = resource.status["runID"]
    kubectl.run("label", "openairun", "steady", "team=a")
    Resource.apply(kubectl, "steady", RESPONSE | {"timeout": "20m", "pollingInterval": "1s"}, script="never")
    wait_until(lambda: resource.status["effective"]["timeout"] == "20m", 5, "the new timeout to hold")
    # Replace drops the annotation and the finalizer.
    kubectl.run("replace", "-f", "-", input=yaml.safe_dump(run("steady", RESPONSE, script="never")))
    wait_until(lambda: resource.body["metadata"].get("finalizers"), 10, "the finalizer to be back")
    assert operator.stop() == 0
    start_operator(namespace).wait_ready()
    openai.wait("GET", run_id, count=openai.count("GET", run_id) + 1)
    assert resource.status["runID"] == run_id
    assert len(openai.runs()) == 1


def test_the_run_is_found_again_when_status_is_lost(kubectl: Kubectl, operated: OpenAIControl) -> None:
    resource = Resource.apply(kubectl, "restored", RESPONSE, script="never").wait_phase("InProgress")
    run_id = resource.status["runID"]
    kubectl.run("patch", "openairun", "restored", "--subresource=status", "--type=merge", '--patch={"status": null}')
    wait_until(lambda: resource.status.get("runID") == run_id, 10, "the run id to be back")
    assert len(operated.runs()) == 1


def test_a_copied_object_gets_a_run_of_its_own(kubectl: Kubectl, operated: OpenAIControl) -> None:
    original = Resource.apply(kubectl, "original", RESPONSE, script="never").wait_phase("InProgress")
    body = original.body
    copy = {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "metadata": {"name": "copy", "annotations": body["metadata"]["annotations"]},
        "spec": body["spec"],
    }
    kubectl.run("create", "-f", "-", input=yaml.safe_dump(copy))
    copied = Resource(kubectl, "copy").wait_phase("InProgress")
    assert copied.status["runID"] != original.status["runID"]
    copied.delete()
    assert {r["id"]: r["status"] for r in operated.runs()} == {
        original.status["runID"]: "in_progress",
        body["status"]["runID"]: "in_progress",
    } | {r["id"]: "cancelled" for r in operated.runs() if r["id"] != original.status["runID"]}


def test_without_a_key_a_condition_says_so_and_all_goes_on_when_it_appears(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    operator = start_operator(namespace, key=None)
    resource = Resource.apply(kubectl, "hello", RESPONSE).wait_reason("NoCredentials")
    assert resource.status["phase"] == "Pending"
    assert resource.condition("Stalled")["status"] == "True"
    assert str(operator.key_file) in resource.condition("Ready")["message"]
    assert openai.requests() == []
    operator.key_file.write_text("sk-standin\n")
    resource.wait_for("Ready")
    assert len(openai.runs()) == 1


def test_a_wrong_key_is_a_condition_and_a_corrected_one_is_used(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    operator = start_operator(namespace, key="sk-wrong-0123456789")
    resource = Resource.apply(kubectl, "hello", RESPONSE).wait_reason("InvalidCredentials")
    assert resource.condition("Stalled")["status"] == "True"
    operator.key_file.write_text("sk-standin")
    resource.wait_for("Ready")
    assert len(openai.runs()) == 1
    assert "sk-wrong" not in operator.logs
    assert "sk-wrong" not in str(resource.body)


def test_a_server_without_the_assistants_api_is_named_as_such(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, start_openai: StartOpenAI
) -> None:
    openai = start_openai("--no-assistants")
    start_operator(namespace, base_url=openai.base_url)
    resource = Resource.apply(kubectl, "old", ASSISTANT).wait_reason("APINotServed")
    message = resource.condition("Ready")["message"]
    assert "does not serve the Assistants API" in message
    assert "2026-08-26" in message
    assert "input, model and instructions" in message
    # What the message says to do works.
    kubectl.run("replace", "-f", "-", input=yaml.safe_dump(run("old", RESPONSE)))
    resource.wait_for("Ready")


def test_a_definition_that_openai_refuses_is_not_sent_again(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    openai.fault(
        "POST /responses$", status=400, body={"error": {"message": "No such model.", "type": "invalid_request_error"}}
    )
    operator = start_operator(namespace)
    resource = Resource.apply(kubectl, "bad", RESPONSE).wait_for("Finished")
    assert (resource.status["phase"], resource.reason) == ("Failed", "InvalidRequest")
    assert "No such model." in resource.condition("Ready")["message"]
    operator.stop()
    start_operator(namespace).wait_ready()
    Resource.apply(kubectl, "other", RESPONSE).wait_for("Ready")
    assert openai.count("POST", "/responses$") == 2


def test_a_life_takes_few_writes_and_none_while_nothing_changes(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl, api_proxy: ApiProxy
) -> None:
    start_operator(namespace, through_proxy=api_proxy)
    spec = RESPONSE | {"pollingInterval": "1s"}
    resource = Resource.apply(kubectl, "quiet", spec, script="queued:2,in_progress").wait_phase("InProgress")
    run_id = resource.status["runID"]
    before = api_proxy.count("PATCH", "")
    openai.wait("GET", run_id, count=openai.count("GET", run_id) + 3, timeout=15)
    assert api_proxy.count("PATCH", "") == before
    openai.play(run_id, "completed")
    resource.wait_for("Ready")
    resource.delete()
    assert api_proxy.count("PATCH", "") <= 7
    assert api_proxy.count("POST", "/events$") <= 4


@pytest.mark.parametrize("status", [403, 409, 422, 500, 503])
def test_a_refused_status_write_stops_nothing(
    status: int, kubectl: Kubectl, namespace: str, start_operator: StartOperator, api_proxy: ApiProxy
) -> None:
    api_proxy.fail("PATCH", PATCH_STATUS, status, times=3)
    start_operator(namespace, through_proxy=api_proxy)
    Resource.apply(kubectl, "hello", RESPONSE).wait_for("Ready", timeout=30)


def test_kopf_writes_nothing_on_an_object_in_a_whole_life(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, api_proxy: ApiProxy
) -> None:
    """What it would write: a copy of the whole spec, which can be too long; its progress; results of handlers."""
    start_operator(namespace, through_proxy=api_proxy)
    resource = Resource.apply(kubectl, "plain", RESPONSE, script="never").wait_phase("InProgress")
    Resource.apply(kubectl, "plain", RESPONSE | {"input": "Say goodbye."}).wait_for("Ready")
    metadata = resource.body["metadata"]
    assert metadata["annotations"].keys() <= {"openairun.dev/run", "kubectl.kubernetes.io/last-applied-configuration"}
    assert set(metadata.get("finalizers", [])) <= {"openairun.dev/cancel-run"}
    resource.delete()
    written = [each for each in api_proxy.requests if each.method in ("PATCH", "PUT", "POST")]
    assert {each.method for each in written if "/openairuns/" in each.path} == {"PATCH"}
    assert not [each.body for each in written if b"kopf" in each.body]
    assert not [each.path for each in api_proxy.requests if "kopf" in each.path], "no peerings are looked for"


def test_watches_that_are_cut_and_refused_stop_no_poll_and_come_back(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl, api_proxy: ApiProxy
) -> None:
    operator = start_operator(namespace, through_proxy=api_proxy)
    resource = Resource.apply(kubectl, "watched", RESPONSE, script="never").wait_phase("InProgress")
    for number, status in enumerate((None, 403, 410, 422, 429, 500), start=10):
        if status is None:
            api_proxy.cut("GET", "/openairuns$", times=2)
        else:
            api_proxy.fail("GET", "/openairuns$", status)
        api_proxy.cut_watches()
        interval = f"{number}s"
        Resource.apply(kubectl, "watched", RESPONSE | {"pollingInterval": interval}, script="never")
        wait_until(lambda i=interval: resource.status["effective"]["pollingInterval"] == i, 30, f"word after {status}")
    openai.wait("GET", "/responses/", count=openai.count("GET", "/responses/") + 1, timeout=30)
    resource.delete()
    assert [each["cancel_calls"] for each in openai.runs()] == [1]
    assert operator.stop() == 0


def test_a_run_whose_resource_went_while_nobody_watched_is_cancelled(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl, api_proxy: ApiProxy
) -> None:
    """No event tells of it, and nothing is to be written that would fail."""
    operator = start_operator(namespace, through_proxy=api_proxy)
    gone = Resource.apply(kubectl, "gone", RESPONSE | {"pollingInterval": "5m"}, script="never")
    gone.wait_phase("InProgress")
    api_proxy.fail("GET", "/openairuns$", 410, times=None)
    api_proxy.cut_watches()
    operator.wait_for_log("The watch ended")
    kubectl.run("patch", "openairun", "gone", "--type=merge", '--patch={"metadata": {"finalizers": null}}')
    gone.delete()
    api_proxy.heal()
    wait_until(lambda: [each["cancel_calls"] for each in openai.runs()] == [1], 30, "its run to be cancelled")


def test_an_api_group_that_was_away_for_seconds_is_watched_again(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl, api_proxy: ApiProxy
) -> None:
    """It answers 404 where its CRDs are applied anew, and behind a proxy; kopf ends, and looks once when it begins."""
    operator = start_operator(namespace, through_proxy=api_proxy)
    before = Resource.apply(kubectl, "before", RESPONSE, script="never").wait_phase("InProgress")
    looks = openai.count("GET", "/responses/")
    api_proxy.fail("GET", "/apis/openairun.dev", 404, times=None)
    api_proxy.cut_watches()
    operator.wait_for_log("kubectl apply -k deploy/crds")
    openai.wait("GET", "/responses/", count=looks + 2, timeout=30)  # meanwhile runs are looked at
    api_proxy.heal()
    Resource.apply(kubectl, "after", RESPONSE).wait_for("Ready", timeout=20)
    before.delete(timeout=10)
    assert [each["cancel_calls"] for each in openai.runs()] == [1, 0]
    assert operator.stop() == 0


def test_the_operator_waits_for_the_crd_and_says_so(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, api_proxy: ApiProxy
) -> None:
    api_proxy.fail("GET", "/apis/openairun.dev/v1alpha1$", 404)
    operator = start_operator(namespace, through_proxy=api_proxy)
    operator.wait_for_log("kubectl apply -k deploy/crds")
    operator.wait_ready()
    Resource.apply(kubectl, "hello", RESPONSE).wait_for("Ready")
