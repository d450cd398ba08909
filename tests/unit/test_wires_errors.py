"""What is said of an answer that refuses: OpenAI's own words, the request's id, and how long it asks to wait."""

import time
from email.utils import formatdate

import pytest
from answers import KEY, answered, said

from openairun_operator.api.reasons import Reason
from openairun_operator.api.status import MAX_MESSAGE
from openairun_operator.lifecycle.failure import Outcome
from openairun_operator.wires.errors import Doing

DOINGS: tuple[Doing, ...] = ("create", "submit", "look")


@pytest.mark.parametrize("doing", DOINGS)
def test_a_bad_request_shows_openais_own_message_and_the_request_id(doing: Doing) -> None:
    words = "Unsupported value: 'temperature' does not support 3 with this model."
    failed = answered(400, said(words), doing=doing, headers={"x-request-id": "req_1"})
    what_to_do = {"create": " Change the definition", "submit": " Change spec.toolOutputs"}.get(doing, "")
    assert failed.message == f"OpenAI said 400: {words}{what_to_do} (request id req_1)"


@pytest.mark.parametrize("end", [".", "!", "?", ""])
def test_what_to_do_stands_behind_a_sentence_that_ends_once(end: str) -> None:
    failed = answered(429, said(f"You exceeded your quota{end}", "insufficient_quota"))
    assert failed.message.startswith(f"OpenAI said 429: You exceeded your quota{end or '.'} Add credit")


@pytest.mark.parametrize(
    ("status", "code", "what_to_do"),
    [(400, None, ""), (401, None, "Give the provider a valid key"), (429, "insufficient_quota", "Add credit")],
)
def test_a_long_message_takes_the_room_of_neither_the_request_id_nor_what_to_do(
    status: int, code: str | None, what_to_do: str
) -> None:
    failed = answered(status, said("Invalid schema: " + "x" * 2000, code), headers={"x-request-id": "req_1"})
    assert failed.message.startswith(f"OpenAI said {status}: Invalid schema: xxx")
    assert what_to_do in failed.message
    assert failed.message.endswith("(request id req_1)")
    assert len(failed.message) == MAX_MESSAGE


def test_a_request_id_without_end_leaves_room_for_the_message() -> None:
    failed = answered(401, said("Bad key."), headers={"x-request-id": "r" * 5000})
    assert "Bad key." in failed.message
    assert len(failed.message) <= MAX_MESSAGE


def test_a_key_that_a_server_repeats_shows_nowhere() -> None:
    for message in (f"{KEY} is wrong", "x" * 1015 + KEY, f"Bearer {KEY}"):
        failed = answered(401, said(message), headers={"x-request-id": KEY})
        assert KEY[:8] not in failed.message


@pytest.mark.parametrize("status", [400, 403, 404])
@pytest.mark.parametrize("doing", ["create", "submit"])
def test_a_model_that_is_not_there_is_known_by_its_code_whatever_the_status(status: int, doing: Doing) -> None:
    failed = answered(status, said("The requested model 'm' does not exist.", "model_not_found"), doing=doing)
    assert (failed.reason, failed.outcome) == (Reason.MODEL_NOT_ACCESSIBLE, Outcome.NOT_CREATED)


@pytest.mark.parametrize("doing", DOINGS)
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"retry-after-ms": "soon", "Retry-After": "9"}, 9),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "31536000"}, 600),
        ({"retry-after-ms": "31536000000"}, 600),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_time_that_a_server_asks_for_is_honoured_up_to_ten_minutes(
    doing: Doing, headers: dict[str, str], seconds: float | None, status: int
) -> None:
    assert answered(status, doing=doing, headers=headers).retry_after == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(30, 30), (86400, 600), (-30, None)])
def test_it_may_be_a_date(monkeypatch: pytest.MonkeyPatch, ahead: int, seconds: float | None) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_795_000_000.0)
    headers = {"Retry-After": formatdate(1_795_000_000 + ahead, usegmt=True)}
    assert answered(429, headers=headers).retry_after == seconds
