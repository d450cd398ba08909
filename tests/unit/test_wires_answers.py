"""A server is not trusted: odd answers pass through or are refused, and none of them crashes anything."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from answers import said

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API, Usage
from openairun_operator.lifecycle.failure import CallFailedError, Failure, Outcome
from openairun_operator.lifecycle.observation import RunObservation, RunRef
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

APIS: tuple[API, ...] = ("Responses", "Assistants")
KEY = "team-key-0123456789"


class Told:
    """A wire to a server that answers what it is told."""

    def __init__(self, api: API, server: OpenAIStandIn, clients: Clients) -> None:
        self.api, self.server = api, server
        self._wire = wire(api, clients, Credentials(server.url, KEY))

    async def observe(self, body: Any, id: str = "id_1", **fault: Any) -> RunObservation:
        self.server.add_fault("GET /(responses|runs)/", body=body, **fault)
        return await self._wire.observe(RunRef(self.api, id, "thread_1"))

    async def run(self, **fields: Any) -> RunObservation:
        return await self.observe({"id": "id_1", "status": "queued", **fields})

    async def refused(self, body: Any = None, **fault: Any) -> Failure:
        with pytest.raises(CallFailedError) as raised:
            await self.observe(body, **fault)
        return raised.value.failure


@pytest.fixture(params=APIS)
async def told(request: pytest.FixtureRequest) -> AsyncIterator[Told]:
    clients = Clients(5)
    async with OpenAIStandIn(keys=[KEY]) as server:
        yield Told(request.param, server, clients)
        await clients.close()


GARBAGE: dict[str, Any] = {
    "empty": "",
    "HTML": "<html>Log in</html>",
    "half": '{"id": "id_1", "sta',
    "list": [],
    "text": '"id_1"',
    "null": "null",
    "number": 7,
    "no id": {"status": "queued"},
    "empty id": {"id": "", "status": "queued"},
    "id of another type": {"id": {"a": 1}, "status": "queued"},
    "no status": {"id": "id_1"},
    "status of another type": {"id": "id_1", "status": 3},
    "null status": {"id": "id_1", "status": None},
    "deep": "[" * 100_000,
    "a number too long to read": '{"id": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_what_is_no_run_cannot_be_read(told: Told, what: str) -> None:
    failed = await told.refused(GARBAGE[what])
    assert failed.reason is Reason.UNREADABLE_ANSWER
    assert told.server.url in failed.message


async def test_a_page_to_log_in_is_named_by_its_type(told: Told) -> None:
    assert "text/html" in (await told.refused("<html>", content_type="text/html")).message


ODD: dict[str, Any] = {
    "output": ["text", None, {"type": "pondering_trace"}, {"type": 7}, {"type": "message", "content": "text"}],
    "usage": [],
    "error": "text",
    "last_error": 5,
    "incomplete_details": True,
    "required_action": {"submit_tool_outputs": {"tool_calls": [1, {"id": 2, "function": None}]}},
    "conversation": "conv_1",
    "model": {"name": "m"},
    "object": 1,
    "thread_id": 4,
    "created_at": "2026-01-01",
    "completed_at": True,
}


async def test_fields_of_other_types_count_as_absent(told: Told) -> None:
    seen = await told.run(**ODD)
    assert (seen.usage, seen.error, seen.incomplete_reason, seen.model) == (None, None, None, None)
    assert (seen.created_at, seen.completed_at, seen.text, seen.conversation) == (None, None, None, None)


@pytest.mark.parametrize("usage", [None, {}, {"usage": 5}])
async def test_a_run_without_usage(told: Told, usage: Any) -> None:
    assert (await told.run()).usage is None
    assert (await told.run(usage=usage)).usage in (None, Usage())


async def test_numbers_that_no_field_can_hold_count_as_absent(told: Told) -> None:
    """An API server would refuse the whole status for one of them."""
    counts = {name: 10**30 for name in ("input_tokens", "prompt_tokens", "total_tokens")}
    seen = await told.run(usage={**counts, "output_tokens": 5, "completion_tokens": 5})
    assert seen.usage == Usage(completionTokens=5)


async def test_negative_counts_count_as_absent(told: Told) -> None:
    counts = {name: -1 for name in ("input_tokens", "prompt_tokens", "total_tokens")}
    seen = await told.run(usage={**counts, "output_tokens": 5, "completion_tokens": 5})
    assert seen.usage == Usage(completionTokens=5)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "1" * 400])
async def test_a_time_that_is_no_number_counts_as_absent(told: Told, number: str) -> None:
    assert (await told.observe('{"id": "id_1", "status": "queued", "created_at": ' + number + "}")).created_at is None


@pytest.mark.parametrize("created", [1_790_000_000, 1_790_000_000.0, 1_790_000_000_000, 1.79e12])
async def test_a_time_is_in_seconds_whichever_way_the_server_gives_it(told: Told, created: float) -> None:
    assert (await told.run(created_at=created)).created_at == 1_790_000_000


async def test_parts_of_a_second_are_kept(told: Told) -> None:
    assert (await told.run(created_at=1_790_000_000.25)).created_at == 1_790_000_000.25


@pytest.mark.parametrize("status", ["pondering", "rate_limited", "COMPLETED", "x" * 300])
async def test_an_unknown_status_passes_through(told: Told, status: str) -> None:
    assert (await told.run(status=status)).status == status


async def test_a_long_id_is_asked_for_as_it_is(told: Told) -> None:
    id_ = "resp_" + "bGl0ZWxsbTpjdXN0b20" * 30 + "=="
    assert (await told.observe({"id": id_, "status": "queued"}, id_)).id == id_
    assert told.server.requests()[0].path.endswith(f"/{id_}")


async def test_an_id_cannot_lead_to_another_address(told: Told) -> None:
    await told.observe({"id": "id_1", "status": "queued"}, "../../models?x=1#")
    (request,) = told.server.requests()
    assert request.path.endswith("s/../../models?x=1#")  # all of it is one escaped segment
    assert request.query == ""


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2500", 2.5), ("0", 0), ("-5", 0), ("900000", 60), ("soon", None), ("", None), ("nan", None), ("inf", 60)],
)
async def test_a_server_may_ask_for_patience(told: Told, header: str, seconds: float | None) -> None:
    seen = await told.observe({"id": "id_1", "status": "queued"}, headers={"openai-poll-after-ms": header})
    assert seen.poll_after == seconds
    assert seen.poll_after is None or not math.isnan(seen.poll_after)


FAILURES: dict[int, Reason] = {
    301: Reason.API_NOT_SERVED,
    400: Reason.REFUSED,
    401: Reason.INVALID_CREDENTIALS,
    403: Reason.PERMISSION_DENIED,
    408: Reason.TIMED_OUT,
    409: Reason.REFUSED,
    429: Reason.RATE_LIMITED,
    500: Reason.SERVER_ERROR,
    503: Reason.SERVER_ERROR,
    504: Reason.TIMED_OUT,
}


@pytest.mark.parametrize("status", FAILURES)
async def test_a_look_that_failed_says_why(told: Told, status: int) -> None:
    headers = {"Retry-After": "4", "x-request-id": "req_told"}
    failed = await told.refused(status=status, headers=headers)
    assert (failed.reason, failed.retry_after) == (FAILURES[status], 4)
    assert "req_told" in failed.message
    assert len(told.server.requests()) == 1


@pytest.mark.parametrize(
    "body",
    [
        said("Response with id 'id_1' not found."),  # OpenAI
        said("No run found with id 'id_1'."),
        {"object": "error", "message": "Response with id 'id_1' not found.", "type": "NotFoundError", "code": 404},
    ],
)
async def test_a_404_that_names_what_is_missing_speaks_of_the_run(told: Told, body: Any) -> None:
    failure = await told.refused(body, status=404)
    assert failure.reason is Reason.NOT_FOUND
    assert "id_1" in failure.message


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        '{"detail": "Not Found"}',
        '{"error": "Not Found", "path": "/v1/responses/id_1"}',
        {"error": {"code": "404"}},
        {"error": {"code": "404", "message": "Resource not found"}},  # Azure's gateway, of any path it does not know
        said("Not Found"),  # vLLM, of any path it does not know
        said("File Not Found"),  # llama.cpp, likewise
        said("404 page not found"),  # Ollama, likewise
        {"object": "error", "message": "Not Found", "type": "Not Found", "code": 404},
        said("Invalid URL (GET /v1/responses/id_1)"),
        said("Unknown request URL: GET /v1/responses/id_1."),
        said("Unrecognized request URL (GET: /v1/responses/id_1)."),
    ],
)
async def test_a_404_that_names_nothing_or_the_url_says_nothing_of_the_run(told: Told, body: Any) -> None:
    assert (await told.refused(body, status=404)).reason is Reason.SERVER_ERROR


async def test_a_404_that_is_a_proxys_page_says_nothing_of_the_run(told: Told) -> None:
    failure = await told.refused("<html>default backend - 404</html>", status=404, content_type="text/html")
    assert failure.reason is Reason.SERVER_ERROR


async def test_a_key_written_with_escapes_does_not_stay(told: Told) -> None:
    escaped = KEY.replace("-", "\\u002d")
    seen = await told.observe('{"id": "r", "status": "failed", "model": "' + escaped + '"}')
    assert KEY not in repr(seen)


async def test_an_id_that_could_forge_a_line_of_the_log_is_none(told: Told) -> None:
    failure = await told.refused({"id": "resp_\u001b[31m\nINFO forged", "status": "queued"})
    assert failure.reason is Reason.UNREADABLE_ANSWER


@pytest.mark.parametrize("id_", ["resp_" + "x" * 764, "resp_é", "resp_\u2028"], ids=["long", "accent", "line"])
async def test_an_id_that_no_record_can_keep_is_none(told: Told, id_: str) -> None:
    failure = await told.refused({"id": id_, "status": "queued"})
    assert (failure.reason, failure.outcome) == (Reason.UNREADABLE_ANSWER, Outcome.UNKNOWN)
    assert (await told.run(thread_id=id_, conversation={"id": id_})).conversation is None


async def test_a_key_in_what_a_server_says_of_a_run_is_not_kept(told: Told) -> None:
    said = {"code": "denied", "message": f"the key was {KEY}"}
    seen = await told.run(status="failed", error=said, last_error=said, model=f"model-for-{KEY}")
    assert seen.error is not None
    assert "[redacted]" in seen.error[1]
    assert KEY not in repr(seen)


async def test_the_whole_text_of_a_response_is_kept_in_order() -> None:
    clients = Clients(5)
    async with OpenAIStandIn(keys=[KEY]) as server:
        spoken, refusal = {"type": "output_text", "text": "One. "}, {"type": "refusal", "refusal": "No. "}
        output = [
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "content": [spoken, {"type": "output_audio"}, refusal]},
            {"type": "message", "content": [{"type": "output_text", "text": "Two."}]},
        ]
        seen = await Told("Responses", server, clients).run(status="completed", output=output)
        await clients.close()
    assert seen.text == "One. No. Two."


async def test_a_call_that_has_its_output_is_not_asked_for_again() -> None:
    clients = Clients(5)
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "3"}
    async with OpenAIStandIn(keys=[KEY]) as server:
        told = Told("Responses", server, clients)
        assert (await told.run(status="completed", output=[call, output])).status == "completed"
        assert (await told.run(status="completed", output=[call])).status == "requires_action"
        assert (await told.run(status="incomplete", output=[call])).status == "incomplete"
        await clients.close()


MESSAGES: dict[str, tuple[dict[str, Any], str | None]] = {
    "two, and the user's own": (
        {
            "data": [
                {"role": "user", "run_id": None, "content": [{"type": "text", "text": {"value": "Hello"}}]},
                {"role": "assistant", "run_id": "id_1", "content": [{"type": "text", "text": {"value": "One."}}]},
                {"role": "assistant", "run_id": "id_2", "content": [{"type": "text", "text": {"value": "Other."}}]},
                {
                    "role": "assistant",
                    "run_id": "id_1",
                    "content": [{"type": "image_file"}, {"type": "text", "text": {"value": "Two."}}],
                },
            ]
        },
        "One.\n\nTwo.",
    ),
    "none": ({"data": []}, None),
    "garbage": ({"data": [7, {"role": "assistant", "content": [{"type": "text", "text": "plain"}]}]}, ""),
}


@pytest.mark.parametrize("what", MESSAGES)
async def test_the_text_of_a_run_is_what_it_wrote_on_the_thread(what: str) -> None:
    body, text = MESSAGES[what]
    clients = Clients(5)
    async with OpenAIStandIn(keys=[KEY]) as server:
        server.add_fault("GET /messages$", body=body)
        assert (await Told("Assistants", server, clients).run(status="completed")).text == text
        await clients.close()


@pytest.mark.parametrize(
    ("status", "served"), [(400, False), (404, False), (405, False), (401, True), (429, True), (500, True)]
)
async def test_a_server_without_messages_gives_no_text_and_passing_trouble_is_no_answer(
    status: int, served: bool
) -> None:
    clients = Clients(5)
    async with OpenAIStandIn(keys=[KEY]) as server:
        told = Told("Assistants", server, clients)
        server.add_fault("GET /messages$", status=status, body={"detail": "Not Found"} if status == 404 else None)
        if served:
            await told.refused({"id": "id_1", "status": "completed"})
        else:
            assert (await told.run(status="completed")).text is None
        await clients.close()


@pytest.mark.parametrize("closes", ["before", "after"])
async def test_a_look_at_a_closed_connection_says_that_it_broke(told: Told, closes: str) -> None:
    told.server.add_fault("GET .", times=None, close=closes)
    failed = await told.refused()
    assert failed.reason is Reason.UNREACHABLE
    assert "ServerDisconnectedError" in failed.message or "reset" in failed.message.lower()


def test_the_garbage_is_what_it_says() -> None:
    for what in ("deep", "a number too long to read", "half"):
        with pytest.raises((ValueError, RecursionError)):
            json.loads(GARBAGE[what])
