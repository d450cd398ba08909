"""Looks that show nothing new are not decided upon; whatever could change the decision ends that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from builders import BAD_KEY, START, body, record, seen

from openairun_operator.api.record import Turn
from openairun_operator.lifecycle import glancing
from openairun_operator.lifecycle.facts import Knowledge
from openairun_operator.lifecycle.run import Run, parse

MINUTE = timedelta(minutes=1)


def going(**meta: Any) -> Run:
    return parse(body(annotation=record(timeout="10m"), **meta))


def known(**fields: Any) -> Knowledge:
    return Knowledge(**{"observation": seen("in_progress")} | fields)


def test_a_run_that_goes_on_as_before_is_looked_at_for_a_minute() -> None:
    assert glancing.until(going(), seen("in_progress"), known(), START) == START + MINUTE


def test_but_not_beyond_its_deadline() -> None:
    now = START + timedelta(minutes=9, seconds=30)
    assert glancing.until(going(), seen("in_progress"), known(), now) == START + timedelta(minutes=10)
    assert glancing.until(going(), seen("in_progress"), known(), START + timedelta(minutes=10)) is None


@pytest.mark.parametrize("before", [None, seen("queued"), seen("in_progress", model="other")])
def test_what_is_new_is_decided_upon(before: Any) -> None:
    assert glancing.until(going(), before, known(), START) is None


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
def test_what_is_not_calm_is_decided_upon(changed: dict[str, Any]) -> None:
    assert glancing.until(going(), seen("in_progress"), known(**changed), START) is None


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
    assert glancing.until(RUNS[run](), seen("in_progress"), known(), START) is None


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "incomplete", "expired"])
def test_an_end_is_decided_upon_though_it_was_seen_before(status: str) -> None:
    assert glancing.until(going(), seen(status), known(observation=seen(status)), START) is None
