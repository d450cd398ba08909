"""A row for every argument and every attribute, on each wire that has it, through a cluster.

The resources are applied together, and the rows read what came of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from apiserver import Cluster
from openai_control import OpenAIControl
from runs import Resource, run

from openairun_devkit.kubectl import Kubectl
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.api.status import OpenAIRunStatus

pytestmark = pytest.mark.cluster

FUNCTION = {"name": "weather", "description": "The weather", "parameters": {"type": "object"}, "strict": False}
SCHEMA = {"name": "answer", "schema": {"type": "object"}, "strict": True}
MCP = {"server_label": "files", "server_url": "https://mcp.example.com", "require_approval": "never"}
TREATED: dict[str, Any] = {
    "waitForCompletion": False,
    "pollingInterval": "1s",
    "timeout": "2m",
    "streamForTool": True,
    "deletionPolicy": "Orphan",
    "onUnknownCreate": "CreateAgain",
    "suspend": False,
    "cancel": False,
}
BOTH: dict[str, Any] = {
    "model": "gpt-5-mini",
    "instructions": "Be short.",
    "additionalInstructions": "Be kind.",
    "additionalMessages": [{"role": "user", "content": "One more thing."}],
    "toolChoice": {"type": "auto"},
    "parallelToolCalls": False,
    "responseFormat": {"type": "json_schema", "jsonSchema": SCHEMA},
    "reasoningEffort": "low",
    "temperature": 0.5,
    "topP": 0.9,
    "maxTokens": 300,
    "metadata": {"team": "research", "standin": "queued:0.2,in_progress:2.5,completed,cites"},
}
SPECS: dict[str, dict[str, Any]] = {
    "response": BOTH
    | TREATED
    | {
        "input": "Say hello.",
        "conversationID": "conv_every_field",
        "tools": [
            {"type": "function", "function": FUNCTION},
            {"type": "web_search", "options": {"search_context_size": "low"}},
            {"type": "mcp", "options": MCP, "authorizationFrom": {"name": "texts", "key": "token"}},
        ],
        "truncation": {"type": "auto"},
        "outputTo": {"configMap": "response-answer"},
    },
    "assistant": BOTH
    | TREATED
    | {
        "assistantID": "asst_every",
        "threadID": "thread_every",
        "tools": [{"type": "function", "function": FUNCTION}, {"type": "code_interpreter"}],
        "maxPromptTokens": 1000,
        "truncation": {"type": "last_messages", "lastMessages": 4},
        "outputTo": {"configMap": "assistant-answer"},
    },
    "elsewhere": {"model": "m", "inputFrom": {"configMapKeyRef": {"name": "texts", "key": "question"}}},
    "secret": {
        "model": "m",
        "inputFrom": {"secretKeyRef": {"name": "texts", "key": "token"}},
        "completionWindow": 90,
        "ttlAfterFinished": "1h",
    },
    "response-fails": {"model": "m", "input": "x", "metadata": {"standin": "fail"}},
    "assistant-fails": {"assistantID": "asst_1", "threadID": "thread_f", "metadata": {"standin": "fail"}},
    "response-cut": {"model": "m", "input": "x", "metadata": {"standin": "incomplete"}},
    "assistant-cut": {"assistantID": "asst_1", "threadID": "thread_c", "metadata": {"standin": "incomplete"}},
    "response-cancelled": {"model": "m", "input": "x", "metadata": {"standin": "cancelled"}},
    "assistant-cancelled": {"assistantID": "asst_1", "threadID": "thread_x", "metadata": {"standin": "cancelled"}},
    "response-asks": {
        "model": "m",
        "input": "x",
        "toolOutputs": [{"toolCallID": "call_none", "output": ""}],
        "metadata": {"standin": "two_calls"},
    },
    "assistant-asks": {"assistantID": "asst_1", "threadID": "thread_a", "metadata": {"standin": "two_calls"}},
}
TOKEN = "mcp-token-0123456789"


@dataclass
class Came:
    """What came of the resources: the body that OpenAI was sent, and the status, by the resource's name."""

    sent: dict[str, dict[str, Any]]
    status: dict[str, dict[str, Any]]
    config_maps: dict[str, dict[str, str]]


def _let_them_run(cluster: Cluster, kubectl: Kubectl, openai: OpenAIControl) -> Came:
    for component in ("secrets", "outputs"):
        cluster.grant(str(kubectl.namespace), component)
    kubectl.run("create", "configmap", "texts", "--from-literal=question=What is two and two?")
    kubectl.run("create", "secret", "generic", "texts", f"--from-literal=token={TOKEN}")
    for name, spec in SPECS.items():
        kubectl.apply(run(name, spec))
    names = list(SPECS)
    for name in names:
        if name.endswith("-asks"):
            Resource(kubectl, name).wait_phase("RequiresAction")
        else:
            Resource(kubectl, name).wait_for("Finished")
    status = {name: Resource(kubectl, name).status for name in names}
    config_maps = {
        name: kubectl.json("get", "configmap", name)["data"] for name in ("response-answer", "assistant-answer")
    }
    sent = {
        request["body"]["metadata"]["openairun_name"]: request["body"]
        for request in openai.requests("POST")
        if request["body"] and request["body"].get("metadata", {}).get("openairun_name") in SPECS
    }
    # Once in a namespace that the next test shares.
    kubectl.run("delete", "configmap,secret", "texts", "--ignore-not-found")
    return Came(sent, status, config_maps)


Wire = Literal["response", "assistant"]
TOOL = {"type": "function", **FUNCTION}

# Each argument that OpenAI is sent: the resource, where in the body, and what stands there.
SENT: list[tuple[str, str, str, Any]] = [
    ("assistantID", "assistant", "assistant_id", "asst_every"),
    ("input", "response", "input.1.content", "Say hello."),
    ("inputFrom", "elsewhere", "input", "What is two and two?"),
    ("inputFrom", "secret", "input", TOKEN),
    ("conversationID", "response", "conversation", "conv_every_field"),
    ("model", "response", "model", "gpt-5-mini"),
    ("model", "assistant", "model", "gpt-5-mini"),
    ("instructions", "response", "instructions", "Be short.\n\nBe kind."),
    ("instructions", "assistant", "instructions", "Be short."),
    ("additionalInstructions", "response", "instructions", "Be short.\n\nBe kind."),
    ("additionalInstructions", "assistant", "additional_instructions", "Be kind."),
    ("additionalMessages", "response", "input.0.content", "One more thing."),
    ("additionalMessages", "assistant", "additional_messages.0.content", "One more thing."),
    ("tools", "response", "tools.0", TOOL),
    ("tools", "response", "tools.1", {"type": "web_search", "search_context_size": "low"}),
    ("tools", "response", "tools.2", {"type": "mcp", **MCP, "authorization": TOKEN}),
    ("tools", "assistant", "tools.0", {"type": "function", "function": FUNCTION}),
    ("toolChoice", "response", "tool_choice", "auto"),
    ("toolChoice", "assistant", "tool_choice", "auto"),
    ("parallelToolCalls", "response", "parallel_tool_calls", False),
    ("parallelToolCalls", "assistant", "parallel_tool_calls", False),
    ("responseFormat", "response", "text.format", {"type": "json_schema", **SCHEMA}),
    ("responseFormat", "assistant", "response_format", {"type": "json_schema", "json_schema": SCHEMA}),
    ("reasoningEffort", "response", "reasoning.effort", "low"),
    ("reasoningEffort", "assistant", "reasoning_effort", "low"),
    ("temperature", "response", "temperature", 0.5),
    ("temperature", "assistant", "temperature", 0.5),
    ("topP", "response", "top_p", 0.9),
    ("topP", "assistant", "top_p", 0.9),
    ("maxTokens", "response", "max_output_tokens", 300),
    ("maxTokens", "assistant", "max_completion_tokens", 300),
    ("maxPromptTokens", "assistant", "max_prompt_tokens", 1000),
    ("truncation", "response", "truncation", "auto"),
    ("truncation", "assistant", "truncation_strategy", {"type": "last_messages", "last_messages": 4}),
    ("metadata", "response", "metadata.team", "research"),
    ("metadata", "assistant", "metadata.team", "research"),
]


def _at(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body[int(part)] if part.isdigit() else body[part]
    return body


Check = Callable[[Any], bool]
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")


def is_time(value: Any) -> bool:
    return bool(TIME.match(value))


def has_tokens(usage: Any) -> bool:
    return min(usage["promptTokens"], usage["completionTokens"], usage["totalTokens"]) > 0


def _id(prefix: str) -> Check:
    return lambda value: value.startswith(prefix)


def _condition(type_: str, status: str, reason: str) -> Check:
    def check(conditions: Any) -> bool:
        return any((c["type"], c["status"], c["reason"]) == (type_, status, reason) for c in conditions)

    return check


# Each attribute: the field of status, and for each resource what must hold of it.
SHOWN: list[tuple[str, str, Check]] = [
    ("observedGeneration", "response", lambda n: n == 1),
    ("api", "response", lambda api: api == "Responses"),
    ("api", "assistant", lambda api: api == "Assistants"),
    ("phase", "response", lambda phase: phase == "Completed"),
    ("phase", "assistant", lambda phase: phase == "Completed"),
    ("runID", "response", _id("resp_")),
    ("runID", "assistant", _id("run_")),
    ("object", "response", lambda name: name == "response"),
    ("object", "assistant", lambda name: name == "thread.run"),
    ("threadID", "assistant", lambda id_: id_ == "thread_every"),
    ("conversationID", "response", lambda id_: id_ == "conv_every_field"),
    ("responseIDs", "response", lambda ids: len(ids) == 1),
    ("responseCount", "response", lambda n: n == 1),
    *((field, wire, is_time) for field in ("createdAt", "startedAt", "completedAt", "finishedAt") for wire in
      ("response", "assistant")),
    ("failedAt", "response-fails", is_time),
    ("failedAt", "assistant-fails", is_time),
    ("cancelledAt", "response-cancelled", is_time),
    ("cancelledAt", "assistant-cancelled", is_time),
    ("expiresAt", "assistant-asks", is_time),
    ("lastError", "response-fails", lambda error: bool(error["code"] and error["message"])),
    ("lastError", "assistant-fails", lambda error: bool(error["code"] and error["message"])),
    ("incompleteDetails", "response-cut", lambda details: details["reason"] == "max_output_tokens"),
    ("incompleteDetails", "assistant-cut", lambda details: details["reason"] == "max_completion_tokens"),
    ("requiredAction", "response-asks", lambda action: len(action["toolCalls"]) == 2),
    ("requiredAction", "assistant-asks", lambda action: len(action["toolCalls"]) == 2),
    *(
        ("steps", wire, lambda steps: all(step["id"] and step["type"] and step["details"] for step in steps))
        for wire in ("response", "assistant")
    ),
    ("stepCount", "response", lambda n: n >= 1),
    ("stepCount", "assistant", lambda n: n >= 1),
    ("fileIDs", "response", lambda ids: len(ids) >= 1),
    ("fileIDs", "assistant", lambda ids: len(ids) >= 1),
    ("usage", "response", has_tokens),
    ("usage", "assistant", has_tokens),
    ("output", "response", lambda output: output["configMap"] == "response-answer" and len(output["sha256"]) == 64),
    ("output", "assistant", lambda output: output["configMap"] == "assistant-answer"),
    ("model", "response", lambda model: model.startswith("gpt-5-mini")),
    ("model", "assistant", lambda model: model.startswith("gpt-5-mini")),
    ("effective", "response", lambda e: e == {"timeout": "2m", "pollingInterval": "1s", "provider": "operator"}),
    ("effective", "secret", lambda e: e == {"timeout": "1m30s", "pollingInterval": "5s", "provider": "operator"}),
    ("record", "response", lambda record: record["state"] == "created"),
    ("conditions", "response", _condition("Ready", "True", "Completed")),
    ("conditions", "response", _condition("Advisory", "True", "NoEffect")),
    ("conditions", "response", _condition("OutputStored", "True", "Stored")),
    ("conditions", "assistant-fails", _condition("Succeeded", "False", "Failed")),
    ("conditions", "response-asks", _condition("ActionRequired", "True", "ActionRequired")),
]  # fmt: skip


def test_every_argument_reaches_openai_and_every_attribute_is_shown(
    cluster: Cluster, kubectl: Kubectl, operated: OpenAIControl
) -> None:
    came = _let_them_run(cluster, kubectl, operated)
    wrong = [
        f"{field} of {resource}: {path} is {_at(came.sent[resource], path)!r}"
        for field, resource, path, expected in SENT
        if _at(came.sent[resource], path) != expected
    ]
    wrong += [
        f"{field} of {resource}: {came.status[resource].get(field)!r}"
        for field, resource, check in SHOWN
        if field not in came.status[resource] or not check(came.status[resource][field])
    ]
    assert wrong == []
    assert came.status["assistant"]["threadID"] == "thread_every", "it is the path"
    for wire in ("response", "assistant"):
        data = came.config_maps[f"{wire}-answer"]
        assert data.keys() == {"output", "output.json"}
        assert data["output"] == came.status[wire]["output"]["text"]


def test_what_has_a_row_elsewhere() -> None:
    """Fields whose meaning is a behaviour have their rows in test_verbs.py, test_main_job.py or a file of their own."""
    behaviours = set(TREATED) | {
        "threadID", "previousResponseID", "completionWindow", "runID", "toolOutputs", "outputTo", "ttlAfterFinished",
        "providerRef",
    }  # fmt: skip
    assert {field for field, *_ in SENT} | behaviours == set(OpenAIRunSpec.model_fields)
    assert {field for field, *_ in SHOWN} | {"history"} == set(OpenAIRunStatus.model_fields)
