"""Looks that show nothing new are not decided upon; whatever could change the decision ends that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from builders import BAD_KEY, START, body, record, seen

from openairun_operator.api.record import Turn
from openairun_operator.lifecycle import glancing
from openairun_operator.lifecycle.actions import Decision, Observe, Wait
from openairun_operator.lifecycle.facts import Knowledge
from openairun_operator.lifecycle.glancing import Calm
from openairun_operator.lifecycle.observation import Target
from openairun_operator.lifecycle.run import Run, parse

MINUTE = timedelta(minutes=1)
SOON = timedelta(seconds=5)


def going(**meta: Any) -> Run:
    return parse(body(annotation=record(timeout="10m"), **meta))


def known(now: datetime = START, **fields: Any) -> Knowledge:
    return Knowledge(**{"observation": seen("in_progress"), "look_at": now + SOON} | fields)


def calm(
    run: Run, known_: Knowledge, now: datetime = START, action: Any = None, *, ending: bool = False
) -> Calm | None:
    wait = action or Wait(known_.look_at)
    return glancing.calm(run, Decision(run.status, wait, ending=ending), known_, now)


def still(until: datetime) -> Calm:
    return Calm(seen("in_progress"), until, Target.of(record(timeout="10m")), timedelta(seconds=5))


def test_a_run_that_goes_on_as_before_is_looked_at_for_a_minute() -> None:
    assert calm(going(), known()) == still(START + MINUTE)


def test_but_not_beyond_its_deadline() -> None:
    now = START + timedelta(minutes=9, seconds=30)
    assert calm(going(), known(now), now) == still(START + timedelta(minutes=10))


@pytest.mark.parametrize(
    "action",
    [Observe(record()), Wait(None), Wait(START), Wait(START + timedelta(minutes=10))],
    ids=["a look", "nothing", "something sooner", "its deadline alone"],
)
def test_a_run_that_waits_for_more_than_its_next_look_is_decided_upon(action: Any) -> None:
    assert calm(going(), known(), action=action) is None


def test_a_run_that_is_being_ended_is_decided_upon() -> None:
    assert calm(going(), known(), ending=True) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"failure": BAD_KEY},
        {"gone": 1},
        {"ending_since": START},
        {"unrecorded": 1},
        {"observation": None},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_did_not_go_well_is_decided_upon(changed: dict[str, Any]) -> None:
    assert calm(going(), known(**changed)) is None
    assert not still(START).lasts(known(**changed))


@pytest.mark.parametrize("now", [seen("completed"), seen("in_progress", model="other")])
def test_what_is_new_ends_it(now: Any) -> None:
    assert still(START).lasts(known())
    assert not still(START).lasts(known(observation=now))


TURN = Turn(token="turn", state="claimed", digest="v1:1", calls=["call_1"], submittedAt=START)
RUNS: dict[str, Callable[[], Run]] = {
    "deleted": lambda: going(deletionTimestamp="2026-11-02T08:00:00Z"),
    "a submission without an answer": lambda: dataclasses.replace(going(), record=record(turn=TURN)),
    "nothing recorded": lambda: dataclasses.replace(going(), record=None),
    "said to be finished": lambda: dataclasses.replace(
        going(), status=going().status.model_copy(update={"finishedAt": START})
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_such_a_run_is_decided_upon(run: str) -> None:
    assert calm(RUNS[run](), known()) is None


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "incomplete", "expired"])
def test_an_end_is_decided_upon_though_it_was_seen_before(status: str) -> None:
    assert calm(going(), known(observation=seen(status))) is None


def test_a_run_is_young_again_once_outputs_were_submitted() -> None:
    first, later = START, START + timedelta(hours=1)
    turn = Turn(token="t", state="taken", digest="d", calls=["c"], submittedAt=later)
    assert Target.of(record(recordedAt=first)).began == first
    assert Target.of(record(recordedAt=first, turn=turn)).began == later
    assert Target.of(record(recordedAt=later + MINUTE, turn=turn)).began == later + MINUTE
    assert Target.of(record(recordedAt=None, turn=turn)).began == later
