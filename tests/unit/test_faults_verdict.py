"""What the fault bench says of a loss: enough to explain it from the message alone."""

import json
from typing import Any

import verdict

RUN: dict[str, Any] = {
    "id": "resp_1",
    "wire": "responses",
    "status": "in_progress",
    "metadata": {"openairun_token": "token-1"},
    "created_at": 1795334405.25,
}


def test_a_loss_tells_when_the_run_was_made_claimed_and_deleted() -> None:
    record = {"token": "token-1", "state": "claimed", "submittedAt": "2026-11-22T08:00:03Z"}
    metadata = {
        "annotations": {verdict.RECORD: json.dumps(record)},
        "deletionTimestamp": "2026-11-22T08:00:04Z",
    }
    assert verdict.of_deletion([RUN], {"metadata": metadata}, []).losses == [
        "run resp_1 goes on, and no event says so: made at 2026-11-22T08:00:05.250Z (token token-1),"
        " claimed at 2026-11-22T08:00:03Z (token token-1, last seen claimed), deleted at 2026-11-22T08:00:04Z"
    ]


def test_a_loss_of_which_less_is_known_tells_when_the_run_was_made() -> None:
    assert verdict.of_deletion([RUN], {"metadata": {}}, []).losses == [
        "run resp_1 goes on, and no event says so: made at 2026-11-22T08:00:05.250Z (token token-1)"
    ]


def test_what_was_told_of_is_no_loss() -> None:
    assert verdict.of_deletion([RUN], {"metadata": {}}, ["run resp_1 may still go"]).problems == []


def test_both_ends_of_a_replaced_run_that_was_made_of_two_responses_are_named_by_the_history() -> None:
    past = {"runID": "resp_1", "lastResponseID": "resp_2", "token": "token-1"}
    metadata = {"openairun_token": "token-1", "definition": "1"}
    runs = [RUN | {"id": f"resp_{number}", "metadata": metadata} for number in (1, 2, 3)]
    body = {"metadata": {}, "status": {"history": [past]}}
    assert verdict.unnamed(runs, body) == ["nothing names run resp_3 of definition 1"]
