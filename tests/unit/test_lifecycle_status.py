"""Building status: what is shown of a run, within bounds, and the patch that says so."""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import START, merge, record, seen

from openairun_operator.api.base import dump
from openairun_operator.api.status import (
    MAX_ARGUMENTS,
    MAX_HISTORY,
    MAX_MESSAGE,
    MAX_OUTPUT_BYTES,
    MAX_TOOL_CALLS,
    OpenAIRunStatus,
    Usage,
)
from openairun_operator.lifecycle import phase, polling
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.observation import Call

GOING = OpenAIRunStatus(record=record(), runID="resp_0", api="Responses")


def observed(status: str = "in_progress", before: OpenAIRunStatus = GOING, **fields: Any) -> OpenAIRunStatus:
    return st.observed(before, seen(status, **fields), START)


# --- the patch


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {}, {"a": None}),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}, {"a": {"b": None}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": None}}),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 1, "d": 3}}}, {"a": {"b": {"d": 3}}}),
        ({"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 3]}),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}, {"a": [{"b": 1}]}),
        ({"a": [1]}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": "b"}, {"a": "b"}),
        ({"a": None}, {}, {"a": None}),
        ({"a": 1}, {"a": 1.0}, {}),
    ],
)
def test_the_patch_is_the_difference_with_nulls_for_what_went(before: Any, after: Any, patch: Any) -> None:
    assert st.difference(before, after) == patch


@pytest.mark.parametrize("seed", range(50))
def test_applying_the_patch_gives_what_is_wanted(seed: int) -> None:
    rng = random.Random(seed)

    def value(depth: int) -> Any:
        kinds = [rng.randint(0, 2), "", "a", True, [], [rng.randint(0, 2)], [{"a": 1}]]
        return tree(depth - 1) if depth and rng.random() < 0.5 else rng.choice(kinds)

    def tree(depth: int) -> dict[str, Any]:
        return {key: value(depth) for key in "abcd" if rng.random() < 0.6}

    for _ in range(40):
        before, after = tree(3), tree(3)
        patch = st.difference(before, after)
        assert merge(before, patch) == after
        assert bool(patch) == (before != after)


def test_a_status_is_dumped_without_what_is_unknown_and_with_rfc_3339_times() -> None:
    dumped = dump(observed("completed"))
    assert dumped["completedAt"] == "2026-11-02T08:00:00Z"
    assert not [key for key, value in dumped.items() if value is None]
    assert OpenAIRunStatus.model_validate(json.loads(json.dumps(dumped))) == observed("completed")


# --- the answer


@pytest.mark.parametrize("char", ["a", "ä", "€", "😀"])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_output_is_cut_at_64_kib_between_characters(char: str, more: int) -> None:
    whole = "x" + char * (MAX_OUTPUT_BYTES // len(char.encode()) + more)
    output = observed("completed", text=whole).output
    assert output
    assert whole.startswith(output.text)
    assert len(output.text.encode()) <= MAX_OUTPUT_BYTES
    assert output.truncated == (len(whole.encode()) > MAX_OUTPUT_BYTES)
    assert output.bytes == len(whole.encode())
    assert not output.truncated or len(output.text.encode()) > MAX_OUTPUT_BYTES - 4


def test_output_loses_what_could_steer_a_terminal() -> None:
    output = observed("completed", text="a\x1b[2Jb\r\nc\u202ed\ud800").output
    assert output
    assert output.text == "a[2Jb\ncd"
    assert not output.truncated


def test_no_output_is_absent_and_an_empty_one_is_one() -> None:
    assert observed("completed").output is None
    output = observed("completed", text="").output
    assert output
    assert output.bytes == 0


def test_an_answer_once_seen_stays() -> None:
    before = observed(text="hello", usage=Usage(totalTokens=3), model="m")
    after = observed("incomplete", before)
    assert (after.output, after.usage, after.model) == (before.output, before.usage, before.model)


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "in_progress"])
def test_a_late_answer_rewrites_nothing_of_a_finished_run(end: str) -> None:
    before = observed("completed", text="hello").model_copy(update={"finishedAt": START})
    later = START + timedelta(minutes=1)
    assert st.observed(before, seen(end, text="another", error=("a", "b"), failed_at=1.8e9), later) == before


# --- bounds


def test_tool_calls_are_bounded_and_shown_only_while_they_are_wanted() -> None:
    calls = tuple(Call(f"call_{i}", "n\x1b" * 500, "{\x00}" * 9000) for i in range(99))
    status = observed("requires_action", calls=calls)
    assert status.requiredAction
    shown = status.requiredAction.toolCalls
    assert [call.id for call in shown] == [f"call_{i}" for i in range(MAX_TOOL_CALLS)]
    assert [len(call.arguments) for call in shown[:9]] == [MAX_ARGUMENTS] * 8 + [0], "there is room for so many"
    assert all(call.truncated for call in shown)
    assert status.requiredAction.total == 99
    assert all(len(call.name) <= 256 and "\x1b" not in call.name for call in shown)
    assert observed("in_progress", status, calls=calls).requiredAction is None


def test_errors_are_bounded_and_redacted() -> None:
    status = observed("failed", error=("c" * 5000, f"key sk-abcdefgh {'m' * 5000}"))
    assert status.lastError
    assert len(status.lastError.code) <= MAX_MESSAGE
    assert len(status.lastError.message) <= MAX_MESSAGE
    assert "sk-abcdefgh" not in status.lastError.message


def test_history_tells_what_a_run_used() -> None:
    status = observed("completed", usage=Usage(totalTokens=30))
    (past,) = st.archive(status).history or ()
    assert past.usage == status.usage == Usage(totalTokens=30)


def test_history_keeps_the_last_five() -> None:
    status = OpenAIRunStatus()
    for i in range(9):
        status = st.archive(status.model_copy(update={"runID": f"resp_{i}", "record": record(token=f"t{i}")}))
    assert [past.runID for past in status.history or ()] == [f"resp_{i}" for i in range(8, 8 - MAX_HISTORY, -1)]
    assert status.runID is None


def test_all_at_its_longest_fits_etcd() -> None:
    calls = tuple(Call("i" * 300, "n" * 9000, "\U0001f600" * 9000) for _ in range(99))
    status = observed("requires_action", calls=calls, text="\x7f" * 10 + "€" * 99_999, error=("c" * 9999, "m" * 9999))
    assert len(json.dumps(dump(status)).encode()) < 1_000_000


# --- times


def test_times_are_openais_where_it_gives_them_else_when_first_seen_and_never_move() -> None:
    first = observed("in_progress", created_at=1_790_000_000.7)
    assert first.createdAt == datetime.fromtimestamp(1_790_000_000, UTC)
    assert first.startedAt == START
    later = st.observed(first, seen("completed", created_at=1.0, started_at=2.0), START + timedelta(seconds=9))
    assert (later.createdAt, later.startedAt) == (first.createdAt, first.startedAt)
    assert later.completedAt == START + timedelta(seconds=9)
    assert later.failedAt is later.cancelledAt is None


def test_milliseconds_are_known_for_what_they_are() -> None:
    assert observed(created_at=1_790_000_000_000).createdAt == observed(created_at=1_790_000_000).createdAt


@pytest.mark.parametrize("odd", [0, -1, float("nan"), float("inf"), 1e30, 9e14])
def test_a_time_that_is_none_is_left_out(odd: float) -> None:
    assert observed("queued", created_at=odd).createdAt is None


# --- phases and polling


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("queued", "Queued"),
        ("in_progress", "InProgress"),
        ("requires_action", "RequiresAction"),
        ("cancelling", "Cancelling"),
        ("on-hold.now", "OnHoldNow"),
        ("InProgress", "InProgress"),
        ("", "Unknown"),
        ("\x00\u202e", "Unknown"),
        ("x" * 500, "X" + "x" * 63),
    ],
)
def test_a_phase_is_openais_status_in_camel_case(status: str, expected: str) -> None:
    assert phase.of(status) == expected


def test_looks_begin_soon_and_slow_down_to_the_interval() -> None:
    def delay(age: float, **how: Any) -> float:
        return polling.delay(timedelta(seconds=age), timedelta(seconds=5), **{"jitter": 0.0} | how)

    assert delay(0) == polling.FIRST
    assert delay(-3) == polling.FIRST
    assert delay(3600) == 5
    assert delay(3600, jitter=0.999) >= 4
    assert delay(0, floor=30.0) == 30, "what the server asked for wins"
    ages = [delay(age) for age in range(60)]
    assert ages == sorted(ages)


def test_a_deadline_beyond_the_calendar_is_none() -> None:
    assert polling.deadline(START, timedelta(days=99_999_999)) is None
    assert polling.deadline(None, timedelta(minutes=1)) is None


def test_a_run_that_has_started_is_not_shown_as_queued_again() -> None:
    started = observed("in_progress")
    assert observed("queued", before=started).phase == "InProgress"
    assert observed("requires_action", before=started).phase == "RequiresAction"
