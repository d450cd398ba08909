"""The digest: what counts as another definition, and above all what does not."""

from typing import Any

import pytest
from builders import RESPONSES, World

from openairun_operator.api.spec import DEFINING, OpenAIRunSpec
from openairun_operator.lifecycle import digest

FULL: dict[str, Any] = {
    "assistantID": "asst_1",
    "threadID": "thread_1",
    "input": "Say hello",
    "conversationID": "conv_1",
    "previousResponseID": "resp_1",
    "model": "gpt-5-mini",
    "inputFrom": {"configMapKeyRef": {"name": "texts", "key": "question"}},
    "instructions": "Be short",
    "additionalInstructions": "Be kind",
    "additionalMessages": [{"role": "user", "content": "One more thing"}],
    "toolChoice": {"type": "auto"},
    "parallelToolCalls": False,
    "responseFormat": {"type": "json_schema", "jsonSchema": {"name": "answer", "schema": {"type": "object"}}},
    "reasoningEffort": "low",
    "maxPromptTokens": 1000,
    "truncation": {"type": "last_messages", "lastMessages": 4},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "temperature": 1,
    "topP": 0.5,
    "maxTokens": 100,
}

FIRST = (
    "assistantID", "threadID", "input", "conversationID", "previousResponseID", "model", "instructions", "tools",
    "temperature", "topP", "maxTokens",
)  # fmt: skip
"""The defining fields of the first release."""

TREATMENT: dict[str, Any] = {
    "metadata": {"team": "a"},
    "waitForCompletion": False,
    "pollingInterval": "1m",
    "timeout": "1h",
    "onUnknownCreate": "CreateAgain",
    "completionWindow": 600,
    "streamForTool": True,
    "runID": "resp_1",
    "cancel": True,
    "suspend": True,
    "deletionPolicy": "Orphan",
    "toolOutputs": [{"toolCallID": "call_1", "output": "4"}],
    "outputTo": {"configMap": "answer"},
    "ttlAfterFinished": "1h",
    "providerRef": {"name": "team"},
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"temperature": 1}, {"temperature": 1.0}, id="1 is 1.0"),
        pytest.param({"temperature": 0}, {"temperature": -0.0}, id="0 is -0.0"),
        pytest.param({"model": None, "input": "a"}, {"input": "a"}, id="null is absent"),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "f", "strict": None}}]},
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            id="null is absent, deep down",
        ),
        pytest.param({"input": "a", "model": "b"}, {"model": "b", "input": "a"}, id="the order of keys"),
        pytest.param(
            {"tools": [{"function": {"parameters": {"a": 1, "b": 2.0}}}]},
            {"tools": [{"function": {"parameters": {"b": 2, "a": 1}}}]},
            id="the order of keys and numbers, deep down",
        ),
        pytest.param({"input": "a"}, {"input": "a", "fieldOfTheFuture": [1]}, id="a field that we do not know"),
        pytest.param({"input": "a"}, {"input": "a"} | TREATMENT, id="how the operator treats the run"),
    ],
)
def test_the_same_definition(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest.of(one) == digest.of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"tools": []}, {}, id="an empty list is a value"),
        pytest.param({"instructions": ""}, {}, id="an empty string is a value"),
        pytest.param({"temperature": 0}, {}, id="zero is a value"),
        pytest.param({"tools": [{"type": "a"}, {"type": "b"}]}, {"tools": [{"type": "b"}, {"type": "a"}]}, id="order"),
        pytest.param({"input": "1"}, {"input": 1}, id="a text is no number"),
        pytest.param({"temperature": 1}, {"temperature": True}, id="true is no number"),
        pytest.param(
            {"tools": [{"options": {"fieldOfTheFuture": 1}}]},
            {"tools": [{"options": {"fieldOfTheFuture": 2}}]},
            id="free JSON that no model knows",
        ),
    ],
)
def test_another_definition(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest.differs(digest.of(one), digest.of(other))


@pytest.mark.parametrize("name", DEFINING)
def test_each_defining_field_counts(name: str) -> None:
    without = {k: v for k, v in FULL.items() if k != name}
    assert digest.of(without) != digest.of(FULL)
    assert digest.of(FULL | {name: "another"}) != digest.of(FULL)


def test_every_field_of_the_spec_is_of_one_kind_and_is_tried_here() -> None:
    assert FULL.keys() == set(DEFINING)
    assert FULL.keys() | TREATMENT.keys() == OpenAIRunSpec.model_fields.keys()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e308, "\ud800", {"a": [None]}])
def test_no_value_is_too_odd_for_it(value: Any) -> None:
    assert digest.of({"input": value}).startswith("v1:")


@pytest.mark.parametrize("recorded", ["", "v0:abc", "v2:abc", "v10:abc", "abc", "v1"])
def test_a_digest_of_another_version_says_nothing_of_a_change(recorded: str) -> None:
    assert not digest.differs(recorded, digest.of(RESPONSES))


def test_the_digest_does_not_change_from_one_release_to_the_next() -> None:
    # Were this to change, every run of every cluster would be made again: give VERSION a new value instead.
    assert digest.of(FULL) == "v1:a95f3c041c8c9628890a95a76eb291bf6db484f9a2afae06e58a6d1e3e1cf560"
    first = {name: FULL[name] for name in FIRST}
    assert digest.of(first) == "v1:311821acc5677429549e9cb28133b30d2aa3dc585554a84e0178ffd080ff636b"


@pytest.mark.parametrize("recorded", ["", "v0:abc", "v2:abc"])
def test_a_digest_that_says_nothing_is_rewritten_and_nothing_is_replaced(recorded: str) -> None:
    world = World()
    world.until(lambda w: w.status.phase == "InProgress")
    assert world.record
    world.annotate("openairun.dev/run", world.record.model_copy(update={"digest": recorded}).model_dump_json())
    world.settle()
    assert world.status.phase == "Completed"
    assert len(world.server.sent) == 1
    assert world.record.digest == digest.of(RESPONSES)
    world.edit(input="Say goodbye")
    world.settle()
    assert len(world.server.sent) == 2


def test_a_field_that_this_operator_does_not_know_makes_no_new_run() -> None:
    world = World()
    world.settle()
    world.edit(fieldOfTheFuture={"a": 1})
    world.settle()
    assert len(world.server.sent) == 1
    assert world.status.phase == "Completed"
