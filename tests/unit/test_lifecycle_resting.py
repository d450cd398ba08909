"""A finished run that is known as such unread is one that a decision, with all read, would leave alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from builders import POLICY, PROVIDER, START, body, record
from hypothesis import given
from hypothesis import strategies as some

from openairun_operator.api.base import dump
from openairun_operator.api.names import CREATE_AGAIN_ANNOTATION, FINALIZER, RECORD_ANNOTATION
from openairun_operator.lifecycle import resting
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Wait
from openairun_operator.lifecycle.decide import decide
from openairun_operator.lifecycle.facts import Facts, Knowledge
from openairun_operator.lifecycle.run import parse

Body = dict[str, Any]
Change = Callable[[Body], object]


def finished() -> Body:
    made = record()
    condition = {
        "type": "Finished",
        "status": "True",
        "reason": "Completed",
        "lastTransitionTime": "2026-11-02T08:01:00Z",
    }
    status = {
        "observedGeneration": 1,
        "phase": "Completed",
        "api": "Responses",
        "runID": made.id,
        "finishedAt": "2026-11-02T08:01:00Z",
        "record": dump(made),
        "conditions": [condition],
    }
    return body(annotation=made, status=status)


def both(**fields: Any) -> Change:
    """The record says this, in status and in the annotation."""

    def change(body: Body) -> None:
        body["status"]["record"] |= fields
        body["metadata"]["annotations"][RECORD_ANNOTATION] = json.dumps(body["status"]["record"])

    return change


def annotated(text: str) -> Change:
    return lambda body: body["metadata"]["annotations"].update({RECORD_ANNOTATION: text})


def asked(**fields: Any) -> Change:
    return lambda body: body["spec"].update(fields)


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


MATTERS: dict[str, Change] = {
    "it is held": lambda body: body["metadata"].update(finalizers=["other/one", FINALIZER]),
    "it is being deleted": lambda body: body["metadata"].update(deletionTimestamp="2026-11-02T09:00:00Z"),
    "its spec was changed since": lambda body: body["metadata"].update(generation=2),
    "another definition": asked(input="Say good-bye"),
    "a definition that is nested too deep": asked(tools=nested(5000)),
    "it expires": asked(ttlAfterFinished="1h"),
    "its answer is to be stored": asked(outputTo={"configMap": "answer"}),
    "it is to be created again": lambda body: body["metadata"]["annotations"].update({CREATE_AGAIN_ANNOTATION: "1"}),
    "no end": lambda body: body["status"].pop("finishedAt"),
    "conditions of another run": lambda body: body["status"]["conditions"][0].update(status="False"),
    "no conditions": lambda body: body["status"].pop("conditions"),
    "no status": lambda body: body.pop("status"),
    "no record in status": lambda body: body["status"].pop("record"),
    "no annotation": lambda body: body["metadata"]["annotations"].pop(RECORD_ANNOTATION),
    "an annotation that cannot be read": annotated("{"),
    "an annotation that is nested too deep": annotated("[" * 100_000),
    "an annotation that names another run": annotated(json.dumps(dump(record(id="resp_9")))),
    "another object's record": both(object="team/other"),
    "a record from before a restored backup": both(uid="another"),
    "a refused definition": both(state="refused"),
    "a digest of another version": both(digest="v0:1"),
}
DOES_NOT: dict[str, Change] = {
    "a label": lambda body: body["metadata"].update(labels={"team": "a"}),
    "another's finalizer": lambda body: body["metadata"].update(finalizers=["other/one"]),
    "it was created again": lambda body: (
        both(createAgain="1")(body),
        body["metadata"]["annotations"].update({CREATE_AGAIN_ANNOTATION: "1"}),
    ),
    "suspended after its end": asked(suspend=True),
    "cancelled after its end": asked(cancel=True),
}


def rests(body: Body) -> bool:
    """What is decided upon the object, with all read."""
    run = parse(body)
    facts = Facts(now=START, policy=POLICY, known=Knowledge(), new_token="new", provider=PROVIDER, wanted=PROVIDER)
    seen = st.says_finished(run.status) and run.status.observedGeneration == run.generation
    return seen and not run.has_finalizer and not run.deleted_at and decide(run, facts).action == Wait()


def test_a_finished_run_is_left_alone_unread() -> None:
    assert resting.surely(finished())
    assert rests(finished())


@pytest.mark.parametrize("name", MATTERS)
def test_what_may_have_to_be_done_is_decided_upon(name: str) -> None:
    changed = finished()
    MATTERS[name](changed)
    assert not resting.surely(changed)


@pytest.mark.parametrize("name", DOES_NOT)
def test_what_changes_nothing_need_not_be_read(name: str) -> None:
    changed = finished()
    DOES_NOT[name](changed)
    assert resting.surely(changed)


@given(some.lists(some.sampled_from([*MATTERS.values(), *DOES_NOT.values()]), max_size=4))
def test_nothing_is_left_alone_that_a_decision_would_not_leave_alone(changes: list[Change]) -> None:
    changed = copy.deepcopy(finished())
    for change in changes:
        try:
            change(changed)
        except KeyError:
            continue  # an earlier one took it away
    if resting.surely(changed):
        assert rests(changed)


ODD: dict[str, Change] = {
    "no annotations": lambda body: body["metadata"].update(annotations=None),
    "an annotation that is no text": lambda body: body["metadata"]["annotations"].update({RECORD_ANNOTATION: None}),
    "a record that is a text": lambda body: body["status"].update(record="x"),
    "a record that is a list": lambda body: body["status"].update(record=["x"]),
    "a condition that is a text": lambda body: body["status"].update(conditions=["x"]),
    "a condition that is nothing": lambda body: body["status"].update(conditions=[None]),
    "a condition without a type": lambda body: body["status"]["conditions"][0].pop("type"),
    "a condition without a status": lambda body: body["status"]["conditions"][0].pop("status"),
    "conditions that are an object": lambda body: body["status"].update(conditions={"a": 1}),
    "conditions that are a number": lambda body: body["status"].update(conditions=7),
    "no condition": lambda body: body["status"].update(conditions=[]),
    "a status that is a list": lambda body: body.update(status=["x"]),
    "a spec that is a list": lambda body: body.update(spec=["x"]),
    "no namespace": lambda body: body["metadata"].pop("namespace"),
    "a phase that is a number": lambda body: body["status"].update(phase=7),
    "an api that is a number": lambda body: body["status"].update(api=7),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_in_no_known_form_is_read(name: str) -> None:
    """An error here would keep all others from being looked at."""
    odd = finished()
    ODD[name](odd)
    assert not resting.surely(odd)


def test_what_was_never_looked_at_is_read() -> None:
    assert not resting.surely({"metadata": {"namespace": "team", "name": "x", "uid": "u"}})
