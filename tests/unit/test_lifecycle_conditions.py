"""The conditions, row by row of the table that users, kstatus and Argo CD judge by."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import kstatus
import pytest
from builders import (
    ASSISTANTS,
    BAD_KEY,
    BAD_REQUEST,
    BUSY,
    NO_ANSWER,
    NO_CREDENTIALS,
    POLICY,
    PROVIDER,
    RATE_LIMITED,
    RESPONSES,
    START,
    World,
    body,
    record,
    seen,
)

from openairun_operator.api.base import dump
from openairun_operator.api.reasons import Reason
from openairun_operator.api.status import MAX_MESSAGE
from openairun_operator.lifecycle import conditions as cond
from openairun_operator.lifecycle.decide import decide
from openairun_operator.lifecycle.facts import Facts, Knowledge
from openairun_operator.lifecycle.failure import NEEDS_PERSON, Failure
from openairun_operator.lifecycle.ledger import Claimed, Failed
from openairun_operator.lifecycle.observation import Call, RunObservation
from openairun_operator.lifecycle.run import parse

WAITING = "Unknown True False False Unknown"
NOT_AWAITED = "True False False False Unknown"
RETRYING = "False True False False Unknown"
STUCK = "False False True False Unknown"
COMPLETED = "True False False True True"
ENDED = "False False True True False"

CALLS = (Call("call_1", "weather", "{}"),)
NOW = START + timedelta(seconds=30)
LATE = START + timedelta(minutes=11)


def shown(
    *,
    spec: dict[str, Any] | None = None,
    claimed: Failure | str | None = None,
    unclaimed: bool = False,
    observation: RunObservation | None = None,
    now: Any = NOW,
    blocked: Failure | None = None,
    **known: Any,
) -> dict[str, Any]:
    """The object as it is shown for one decision on what is known."""
    rec = None if unclaimed else record()
    knowledge = Knowledge(token="token-0", observation=observation, **known)
    if claimed is not None:
        rec = record(state="claimed", id=None, recordedAt=None)
        if isinstance(claimed, Failure):
            knowledge.ledger.claim("token-0")
            knowledge.ledger.answer("token-0", Failed(claimed))
        elif claimed == "claimed":
            knowledge.ledger.claim("token-0")
            assert knowledge.ledger.get("token-0") == Claimed()
    object_ = body(spec, annotation=rec, generation=3, finalizers=["openairun.dev/cancel-run"])
    provider = replace(PROVIDER, blocked=blocked)
    facts = Facts(now=now, policy=POLICY, known=knowledge, new_token="token-1", provider=provider, wanted=provider)
    return object_ | {"status": dump(decide(parse(object_), facts).status)}


def going(status: str, **fields: Any) -> dict[str, Any]:
    return {"observation": seen(status, **fields), "looked_at": NOW, "look_at": NOW + timedelta(seconds=5)}


def trouble(reason: Reason) -> dict[str, Any]:
    failure = Failure(reason=reason, message="trouble")
    retry = {"failure": failure, "failures": 2, "failed_at": NOW, "retry_at": NOW + timedelta(seconds=9)}
    return going("in_progress") | retry


UNAWAITED = RESPONSES | {"waitForCompletion": False}

ROWS = [
    # state, what is known, phase, Ready Reconciling Stalled Finished Succeeded, reason, others, kstatus
    ("creating", {"claimed": "claimed"}, "Pending", WAITING, "Creating", {}, "InProgress"),
    ("busy conversation", {"claimed": BUSY}, "Pending", WAITING, "Busy", {}, "InProgress"),
    ("queued", going("queued"), "Queued", WAITING, "Queued", {}, "InProgress"),
    ("running", going("in_progress"), "InProgress", WAITING, "Running", {}, "InProgress"),
    ("being cancelled", going("cancelling"), "Cancelling", WAITING, "Cancelling", {}, "InProgress"),
    ("a status of the future", going("on_hold"), "OnHold", WAITING, "Running", {}, "InProgress"),
    ("queued, not awaited", {"spec": UNAWAITED} | going("queued"), "Queued", NOT_AWAITED, "Queued", {}, "Current"),
    ("not awaited", {"spec": UNAWAITED} | going("in_progress"), "InProgress", NOT_AWAITED, "Running", {}, "Current"),
    (
        "requires action",
        going("requires_action", calls=CALLS),
        "RequiresAction",
        WAITING,
        "ActionRequired",
        {"ActionRequired": "True"},
        "InProgress",
    ),
    (
        "requires action, not awaited",
        {"spec": UNAWAITED} | going("requires_action", calls=CALLS),
        "RequiresAction",
        "True True False False Unknown",
        "ActionRequired",
        {"ActionRequired": "True"},
        "InProgress",
    ),
    *(
        (f"retrying: {r}", trouble(r), "InProgress", RETRYING, r, {"Synced": "False"}, "InProgress")
        for r in (Reason.UNREACHABLE, Reason.RATE_LIMITED, Reason.SERVER_ERROR, Reason.INVALID_CREDENTIALS)
    ),
    (
        "retrying, not awaited",
        {"spec": UNAWAITED} | trouble(Reason.UNREACHABLE),
        "InProgress",
        NOT_AWAITED,
        "Unreachable",
        {"Synced": "False"},
        "Current",
    ),
    (
        "create rate limited",
        {"claimed": RATE_LIMITED},
        "Pending",
        RETRYING,
        "RateLimited",
        {"Synced": "False"},
        "InProgress",
    ),
    *(
        (
            f"a person must act: {r}",
            {"claimed": Failure(reason=r, message="act")},
            "Pending",
            STUCK,
            r,
            {"Synced": "False"},
            "Failed",
        )
        for r in sorted(NEEDS_PERSON)
    ),
    (
        "no credentials",
        {"unclaimed": True, "blocked": NO_CREDENTIALS},
        "Pending",
        STUCK,
        "NoCredentials",
        {"Synced": "False"},
        "Failed",
    ),
    (
        "no model",
        {"unclaimed": True, "spec": {"input": "hello"}},
        "Pending",
        STUCK,
        "ModelNotSet",
        {"Synced": "False"},
        "Failed",
    ),
    (
        "outcome of the create unknown",
        {"claimed": NO_ANSWER},
        "Pending",
        STUCK,
        "CreateOutcomeUnknown",
        {"CreateOutcomeUnknown": "True", "Synced": "False"},
        "Failed",
    ),
    (
        "outcome of a dead process's create unknown",
        {"claimed": "by another"},
        "Pending",
        STUCK,
        "CreateOutcomeUnknown",
        {"CreateOutcomeUnknown": "True", "Synced": "False"},
        "Failed",
    ),
    ("definition refused", {"claimed": BAD_REQUEST}, "Failed", ENDED, "InvalidRequest", {}, "Failed"),
    ("completed", going("completed"), "Completed", COMPLETED, "Completed", {}, "Current"),
    (
        "completed, not awaited",
        {"spec": UNAWAITED} | going("completed"),
        "Completed",
        COMPLETED,
        "Completed",
        {},
        "Current",
    ),
    ("failed", going("failed", error=("server_error", "no")), "Failed", ENDED, "Failed", {}, "Failed"),
    ("failed, not awaited", {"spec": UNAWAITED} | going("failed"), "Failed", ENDED, "Failed", {}, "Failed"),
    ("expired", going("expired"), "Expired", ENDED, "Expired", {}, "Failed"),
    (
        "incomplete",
        going("incomplete", incomplete_reason="max_output_tokens"),
        "Incomplete",
        ENDED,
        "Incomplete",
        {},
        "Failed",
    ),
    ("cancelled", going("cancelled"), "Cancelled", ENDED, "Cancelled", {}, "Failed"),
    (
        "deadline passed",
        {
            "observation": seen("in_progress"),
            "looked_at": LATE,
            "now": LATE + timedelta(minutes=2),
            "ending_since": LATE,
            "cancel_tried": True,
        },
        "InProgress",
        ENDED,
        "DeadlineExceeded",
        {},
        "Failed",
    ),
    ("lost", going("in_progress") | {"gone": 2}, "InProgress", ENDED, "Lost", {}, "Failed"),
]


@pytest.mark.parametrize(
    ("known", "phase", "five", "reason", "others", "kstatus_says"),
    [row[1:] for row in ROWS],
    ids=[row[0] for row in ROWS],
)
def test_row(
    known: dict[str, Any], phase: str, five: str, reason: str, others: dict[str, str], kstatus_says: str
) -> None:
    object_ = shown(**known)
    status = object_["status"]
    conditions = status["conditions"]
    assert status["phase"] == phase
    assert [c["type"] for c in conditions] == [
        "Ready",
        "Reconciling",
        "Stalled",
        "Finished",
        "Succeeded",
        "Synced",
        *(type_ for type_ in others if type_ != "Synced"),
    ]
    assert " ".join(c["status"] for c in conditions[:5]) == five
    assert {c["type"]: c["status"] for c in conditions[5:]} == {"Synced": "True"} | others
    assert conditions[0]["reason"] == reason
    assert kstatus.outcome(object_) == kstatus_says
    assert {c["observedGeneration"] for c in conditions} == {status["observedGeneration"]} == {3}
    assert ("finishedAt" in status) == (conditions[3]["status"] == "True")
    assert conditions[0]["message"], "what a person reads first says why"


def test_an_object_that_nobody_has_looked_at_is_in_progress() -> None:
    assert kstatus.outcome(body()) == "InProgress"


def test_a_new_generation_is_in_progress_until_it_is_seen() -> None:
    object_ = shown(**going("completed"))
    object_["metadata"]["generation"] = 4
    assert kstatus.outcome(object_) == "InProgress"


@pytest.mark.parametrize("first", ROWS, ids=[row[0] for row in ROWS])
def test_a_transition_time_moves_only_when_the_status_does(first: tuple[Any, ...]) -> None:
    before = parse(shown(**first[1])).status.conditions
    later = NOW + timedelta(minutes=1)
    for row in ROWS:
        object_ = shown(**row[1])
        verdict = verdict_in(object_)
        for condition in cond.conditions(verdict, before, 4, later):
            old = next((c for c in before if c.type == condition.type), None)
            moved = old is None or condition.status != old.status
            assert condition.lastTransitionTime == (later if moved else old and old.lastTransitionTime)
            assert condition.observedGeneration == 4


def verdict_in(object_: dict[str, Any]) -> cond.Verdict:
    by = {c.type: c for c in parse(object_).status.conditions}
    return cond.Verdict(
        ready=by["Ready"].status,
        reconciling=by["Reconciling"].status == "True",
        stalled=by["Stalled"].status == "True",
        finished=by["Finished"].status == "True",
        succeeded=by["Succeeded"].status,
        reason=Reason(by["Ready"].reason),
        message="m",
        synced=by["Synced"].status == "True",
        action_required="ActionRequired" in by,
        outcome_unknown="CreateOutcomeUnknown" in by,
    )


@pytest.mark.parametrize("action_required", [False, True])
@pytest.mark.parametrize("wait", [False, True])
def test_no_verdict_is_both_reconciling_and_stalled(wait: bool, action_required: bool) -> None:
    for reason in Reason:
        verdicts = [
            cond.waiting(reason, "m"),
            cond.going(reason, "m", wait=wait, action_required=action_required),
            cond.retrying(reason, "m", wait=wait),
            cond.stalled(reason, "m", outcome_unknown=action_required),
            cond.succeeded("m"),
            cond.ended(reason, "m"),
        ]
        assert not [v for v in verdicts if v.reconciling and v.stalled]


def test_one_failed_look_is_not_worth_a_word() -> None:
    known = trouble(Reason.UNREACHABLE) | {"failures": 1}
    assert shown(**known)["status"]["conditions"][0]["reason"] == "Running"


def test_a_message_is_bounded_whatever_openai_says() -> None:
    calls = tuple(Call(f"call_{i}", "f" * 5000, "x" * 100_000) for i in range(100))
    for known in (
        going("requires_action", calls=calls),
        going("failed", error=("c" * 9000, "m" * 9000)),
        going("incomplete", incomplete_reason="r" * 9000),
        going("s" * 9000),
    ):
        for condition in shown(**known)["status"]["conditions"]:
            assert len(condition["message"]) <= MAX_MESSAGE + 64


def test_a_spec_that_cannot_be_read_is_stalled() -> None:
    object_ = shown(unclaimed=True, spec={"input": {"not": "a text"}})
    assert object_["status"]["conditions"][0]["reason"] == "InvalidSpec"
    assert kstatus.outcome(object_) == "Failed"


def test_a_deletion_is_terminating() -> None:
    object_ = shown(**going("in_progress"))
    object_["metadata"]["deletionTimestamp"] = "2026-11-02T08:00:00Z"
    assert kstatus.outcome(object_) == "Terminating"


def test_a_finished_run_speaks_of_the_new_generation_too() -> None:
    world = World()
    world.settle()
    world.edit(timeout="1h")
    world.settle()
    generations = {c.observedGeneration for c in world.status.conditions}
    assert generations == {world.status.observedGeneration} == {2}
    assert world.status.effective
    assert world.status.effective.timeout == "10m", "what held for the run that is over"


@pytest.mark.parametrize("wire", [RESPONSES, ASSISTANTS], ids=["responses", "assistants"])
def test_a_finished_run_says_its_end_again_when_a_change_is_taken_back(wire: dict[str, Any]) -> None:
    world = World(wire)
    world.settle()
    world.blocked = NO_CREDENTIALS
    instructions = world.object["spec"].get("instructions")
    world.edit(instructions="Be rude")
    world.settle()
    assert world.reason() == "NoCredentials"
    world.edit(instructions=instructions)
    world.settle()
    assert world.reason() == "Completed"
    assert kstatus.outcome(world.object) == "Current"
    assert len(world.server.sent) == 1


def test_a_refused_definition_is_refused_again_when_a_change_is_taken_back() -> None:
    world = World()
    world.server.creates.append(BAD_REQUEST)
    world.settle()
    world.blocked = NO_CREDENTIALS
    world.edit(input="Say goodbye")
    world.settle()
    assert world.reason() == "NoCredentials"
    world.edit(input=RESPONSES["input"])
    world.settle()
    assert (world.reason(), world.status.phase) == ("InvalidRequest", "Failed")
    assert len(world.server.sent) == 1


def test_the_person_is_told_what_to_do_and_the_retry_is_slow() -> None:
    world = World()
    world.server.creates.append(BAD_KEY)
    world.until(lambda w: w.reason() == "InvalidCredentials")
    wait = world.known.retry_at
    assert wait
    assert timedelta(minutes=4) <= wait - world.now <= timedelta(minutes=6)


def test_a_message_that_no_condition_can_hold_is_cut() -> None:
    (first, *_) = cond.conditions(cond.waiting(Reason.CREATING, "x" * 40_000), (), 1, NOW)
    assert len(first.message) == 32_768
    assert first.message.endswith("x…")
