"""Steps, files and calls are read once something is decided, and never at the cost of the answer."""

import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle.failure import CallFailedError, Outcome
from openairun_operator.lifecycle.observation import Call, CreateRequest, RunObservation, RunRef, SeenStep
from openairun_operator.wires import clients as wire_clients
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

APIS = pytest.mark.parametrize("api", ["Responses", "Assistants"])
DECIDED = ("completed", "incomplete", "failed", "cancelled", "requires_action")
GOING = ("queued", "in_progress", "cancelling", "pondering")


class Server:
    """A server that answers each path's last word as it is told."""

    def __init__(self) -> None:
        self.told: dict[str, Callable[[dict[str, str]], Any]] = {}
        self.asked: list[str] = []
        self.url = ""

    async def serve(self, request: web.BaseRequest) -> web.Response:
        last = request.path.rpartition("/")[2]
        self.asked.append(last)
        answer = self.told[last]({name: values[0] for name, values in parse_qs(request.query_string).items()})
        return answer if isinstance(answer, web.Response) else web.json_response(answer)

    async def look(self, api: API, **run: Any) -> RunObservation:
        """What is observed of a run with these fields."""
        self.told["id_1"] = lambda _: {"id": "id_1", "status": "completed", **run}
        clients = Clients(5)
        try:
            return await wire(api, clients, Credentials(self.url, "sk-standin")).observe(RunRef(api, "id_1", "t"))
        finally:
            await clients.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    server.told = {"messages": lambda _: {"data": []}, "steps": lambda _: {"data": []}}
    runner = web.ServerRunner(web.Server(server.serve))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield server
    await runner.cleanup()


# Steps


def step(n: int, **more: Any) -> dict[str, Any]:
    return {"id": f"step_{n}", "object": "thread.run.step", "type": "tool_calls", "status": "completed", **more}


@pytest.mark.parametrize("status", [*DECIDED, "expired"])
async def test_steps_of_a_run_on_a_thread_are_listed_once_something_is_decided(server: Server, status: str) -> None:
    details = {"type": "tool_calls", "tool_calls": [{"id": "call_1"}]}
    server.told["steps"] = lambda _: {"data": [step(1, created_at=1_790_000_000, step_details=details)]}
    seen = await server.look("Assistants", status=status)
    told = '{"tool_calls":[{"id":"call_1"}]}'
    assert seen.steps == (SeenStep("step_1", "tool_calls", "thread.run.step", "completed", 1_790_000_000, told),)
    assert seen.step_count == 1


@pytest.mark.parametrize("status", GOING)
@APIS
async def test_no_steps_are_read_of_a_run_that_goes(server: Server, api: API, status: str) -> None:
    seen = await server.look(api, status=status, output=[{"id": "rs_1", "type": "reasoning", "file_id": "file-1"}])
    assert (seen.steps, seen.step_count, seen.files) == (None, 0, ())
    assert server.asked == ["id_1"]


async def test_items_of_a_response_are_its_steps(server: Server) -> None:
    items = [
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"query": "höhe"}},
        {"type": "pondering_trace"},
        {"call_id": "call_1", "type": "function_call", "name": "f"},
    ]
    seen = await server.look("Responses", output=[*items, "no item"])
    assert seen.steps == (
        SeenStep("rs_1", "reasoning", details='{"summary":[]}'),
        SeenStep("ws_1", "web_search_call", status="completed", details='{"action":{"query":"höhe"}}'),
        SeenStep("", "pondering_trace"),
        SeenStep("call_1", "function_call", details='{"call_id":"call_1","name":"f"}'),
    )
    assert (seen.status, seen.step_count) == ("requires_action", 4)


def pages(count: int, size: int = 100) -> Callable[[dict[str, str]], Any]:
    """A list of so many steps, as OpenAI pages it."""

    def page(query: dict[str, str]) -> Any:
        start = int(query["after"][5:]) + 1 if "after" in query else 0
        shown = [step(n) for n in range(start, min(start + size, count))]
        return {"object": "list", "data": shown, "has_more": start + size < count}

    return page


@pytest.mark.parametrize(("count", "listed"), [(0, 0), (1, 1), (100, 100), (250, 250), (5000, 1000)])
async def test_the_last_steps_are_kept_and_all_are_counted(server: Server, count: int, listed: int) -> None:
    server.told["steps"] = pages(count)
    seen = await server.look("Assistants")
    assert seen.steps is not None
    assert [each.id for each in seen.steps] == [f"step_{n}" for n in range(max(listed - 20, 0), listed)]
    assert seen.step_count == listed
    assert server.asked.count("steps") <= 10


async def test_the_last_items_are_kept_and_all_are_counted(server: Server) -> None:
    seen = await server.look("Responses", output=[{"id": f"i_{n}", "type": "reasoning"} for n in range(50)])
    assert seen.steps is not None
    assert ([each.id for each in seen.steps], seen.step_count) == ([f"i_{n}" for n in range(30, 50)], 50)


async def test_a_server_that_gives_the_same_page_again_is_asked_no_more(server: Server) -> None:
    server.told["steps"] = lambda _: {"data": [step(n) for n in range(100)], "has_more": True}
    assert (await server.look("Assistants")).step_count == 100
    assert server.asked.count("steps") == 2


async def test_steps_are_asked_for_oldest_first(server: Server) -> None:
    asked: list[dict[str, str]] = []
    server.told["steps"] = lambda query: (asked.append(query), pages(150)(query))[1]
    await server.look("Assistants")
    assert asked == [{"limit": "100", "order": "asc"}, {"limit": "100", "order": "asc", "after": "step_99"}]


ANSWER = {"role": "assistant", "run_id": "id_1", "content": [{"type": "text", "text": {"value": "Yes."}}]}


@pytest.mark.parametrize("status", [400, 401, 404, 405, 408, 429, 500, 501, 503])
async def test_a_list_of_steps_that_fails_does_not_hold_up_the_answer(server: Server, status: int) -> None:
    server.told["messages"] = lambda _: {"data": [ANSWER]}
    server.told["steps"] = lambda _: web.Response(status=status)
    seen = await server.look("Assistants")
    assert (seen.status, seen.text, seen.steps, seen.step_count) == ("completed", "Yes.", None, 0)


NO_LIST: dict[str, Any] = {
    "HTML": lambda: web.Response(text="<html>"),
    "list": lambda: web.json_response([]),
    "no data": lambda: {},
    "data of another type": lambda: {"data": {"step_1": {}}},
    "deep": lambda: web.Response(text='{"data": ' + "[" * 10_000 + "]" * 10_000 + "}"),
}


@pytest.mark.parametrize("what", NO_LIST)
async def test_what_is_no_list_of_steps_gives_none(server: Server, what: str) -> None:
    server.told["steps"] = lambda _: NO_LIST[what]()
    assert (await server.look("Assistants")).steps is None


async def test_a_step_of_other_types_has_what_can_be_read(server: Server) -> None:
    odd = [7, None, {"id": 1, "type": [], "status": {}, "created_at": "now", "step_details": "text"}]
    server.told["steps"] = lambda _: {"data": odd}
    assert (await server.look("Assistants")).steps == (SeenStep("", ""),)


# Files


async def test_every_file_that_a_response_names_is_kept_once_and_in_order(server: Server) -> None:
    citations = [
        {"type": "file_citation", "file_id": "file-a", "filename": "a.pdf"},
        {"type": "container_file_citation", "container_id": "cntr_1", "file_id": "cfile_b"},
        {"type": "url_citation", "url": "https://example.org"},
        {"type": "file_path", "file_id": "file-a"},
    ]
    output = [
        {"type": "file_search_call", "id": "fs_1", "results": [{"file_id": "file-c"}, {"file_id": "file-a"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "file-x", "annotations": citations}]},
        {"type": "later_thing", "file_ids": ["file-d", 7, "", "file-e"], "deep": {"deeper": [{"file_id": "file-f"}]}},
        {"type": "odd", "file_id": {"file_id": "file-g"}, "file_ids": "file-h"},
        {"type": "forged", "file_id": "file\u001b[31m"},
    ]
    seen = await server.look("Responses", output=output, file_id="file-outside")
    assert seen.files == ("file-c", "file-a", "cfile_b", "file-d", "file-e", "file-f", "file-g")


async def test_every_file_of_a_run_on_a_thread_is_kept(server: Server) -> None:
    annotations = [{"type": "file_citation", "file_citation": {"file_id": "file-a"}}]
    content = [
        {"type": "text", "text": {"value": "Yes.", "annotations": annotations}},
        {"type": "image_file", "image_file": {"file_id": "file-b"}},
    ]
    mine = {**ANSWER, "content": content, "attachments": [{"file_id": "file-c"}]}
    others = [
        {"role": "user", "run_id": None, "attachments": [{"file_id": "file-x"}]},
        {"role": "assistant", "run_id": "id_2", "attachments": [{"file_id": "file-y"}]},
    ]
    image = {"type": "image", "image": {"file_id": "file-d"}}
    code = {"type": "code_interpreter", "code_interpreter": {"input": "", "outputs": [image]}}
    server.told["messages"] = lambda _: {"data": [*others, mine]}
    server.told["steps"] = lambda _: {"data": [step(1, step_details={"type": "tool_calls", "tool_calls": [code]})]}
    assert (await server.look("Assistants")).files == ("file-a", "file-b", "file-c", "file-d")


async def test_files_are_bounded(server: Server) -> None:
    many = [{"file_ids": [f"file-{n}-{m}" for m in range(150)]} for n in range(3)]
    assert len((await server.look("Responses", output=many)).files) == 200
    hay = {"type": "odd", "hay": [0] * 300_000}
    assert (await server.look("Responses", output=[hay, {"file_id": "file-needle"}])).files == ()


# Calls

CALLS = [
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"},
    {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "sql", "input": "select 1"},
    {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "wiki", "name": "look", "arguments": "[]"},
]
ASKED = (
    Call("call_1", "f", "{}"),
    Call("call_2", "sql", "select 1", "custom"),
    Call("mcpr_1", "look", "[]", "mcp_approval", "wiki"),
)
ANSWERS = [
    {"type": "function_call_output", "call_id": "call_1", "output": ""},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": ""},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": False},
]


async def test_what_a_response_asks_for_is_told_by_its_kind(server: Server) -> None:
    seen = await server.look("Responses", output=CALLS)
    assert (seen.status, seen.calls, seen.at_rest) == ("requires_action", ASKED, True)


@pytest.mark.parametrize("n", range(3))
async def test_what_is_answered_is_not_asked_for_again(server: Server, n: int) -> None:
    left = (*ASKED[:n], *ASKED[n + 1 :])
    assert (await server.look("Responses", output=[*CALLS, ANSWERS[n]])).calls == left
    assert (await server.look("Responses", output=[CALLS[n], ANSWERS[n]])).status == "completed"


async def test_an_answer_of_another_kind_answers_nothing(server: Server) -> None:
    stray = {"type": "custom_tool_call_output", "call_id": "call_1", "output": ""}
    assert (await server.look("Responses", output=[CALLS[0], stray])).calls == ASKED[:1]


async def test_calls_of_other_types_crash_nothing(server: Server) -> None:
    odd = [{"type": call["type"], "id": 7, "call_id": [], "name": {}, "arguments": 1, "input": 2} for call in CALLS]
    seen = await server.look("Responses", output=odd)
    assert {(call.id, call.name, call.arguments, call.server) for call in seen.calls} == {("", "", "", None)}


@pytest.mark.parametrize("forged", ["x\nINFO forged", "\u001b[31m", "\ud800", "\u202e"])
async def test_an_id_that_could_forge_a_line_of_the_log_is_none(server: Server, forged: str) -> None:
    output = [{**call, "id": forged, "call_id": forged} for call in CALLS]
    seen = await server.look("Responses", output=output, conversation={"id": forged})
    assert [call.id for call in seen.calls] == ["", "", ""]
    assert (seen.conversation, [each.id for each in seen.steps or ()]) == (None, ["", "", ""])
    call = {"id": forged, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    wanted = {"submit_tool_outputs": {"tool_calls": [call]}}
    server.told["steps"] = lambda _: {"data": [step(1) | {"id": forged}]}
    seen = await server.look("Assistants", status="requires_action", required_action=wanted, thread_id=forged)
    assert ([call.id for call in seen.calls], seen.thread) == ([""], "t")
    assert [each.id for each in seen.steps or ()] == [""]


# Answers without end


@pytest.mark.parametrize("depth", [100, 900, 990, 10_000])
@APIS
async def test_however_deep_an_answer_is_it_is_read_or_said_to_be_unreadable(
    server: Server, api: API, depth: int
) -> None:
    deep = '{"file_id": "file-1", "a": ' * depth + "1" + "}" * depth
    fields = f'"id": "id_1", "status": "completed", "output": [{deep}], "usage": {deep}'
    server.told["deep"] = lambda _: web.Response(text="{" + fields + "}", content_type="application/json")
    server.told["steps"] = lambda _: web.Response(text='{"data": [{"id": "s", "step_details": ' + deep + "}]}")
    clients = Clients(5)
    try:
        told = (
            await wire(api, clients, Credentials(server.url, "sk-standin")).observe(RunRef(api, "deep", "t"))
        ).status
    except CallFailedError as error:
        told = error.failure.reason
    await clients.close()
    allowed = {100: {"completed"}, 10_000: {Reason.UNREADABLE_ANSWER}}.get(
        depth, {"completed", Reason.UNREADABLE_ANSWER}
    )
    assert told in allowed


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("status", [200, 400, 500])
@APIS
async def test_an_answer_without_end_is_not_read(
    server: Server, api: API, status: int, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_clients, "MAX_ANSWER", 2 << 20)
    text = json.dumps({"id": "id_1", "status": "queued", "filler": "x" * (3 << 20)}).encode()
    headers = {"Content-Encoding": "gzip"} if packed else {}
    body = gzip.compress(text) if packed else text
    server.told["id_1"] = lambda _: web.Response(status=status, body=body, headers=headers)
    clients = Clients(5)
    with pytest.raises(CallFailedError, match="more than 2 MiB") as raised:
        await wire(api, clients, Credentials(server.url, "sk-standin")).observe(RunRef(api, "id_1", "t"))
    await clients.close()
    assert raised.value.failure.reason is Reason.UNREADABLE_ANSWER
    assert raised.value.failure.outcome is Outcome.UNKNOWN


@APIS
async def test_a_packed_answer_is_read(server: Server, api: API) -> None:
    body = gzip.compress(json.dumps({"id": "id_1", "status": "queued", "model": "möwe"}).encode())
    told = {"Content-Encoding": "gzip", "openai-poll-after-ms": "2500"}
    server.told["id_1"] = lambda _: web.Response(body=body, headers=told)
    clients = Clients(5)
    seen = await wire(api, clients, Credentials(server.url, "sk-standin")).observe(RunRef(api, "id_1", "t"))
    await clients.close()
    assert (seen.model, seen.poll_after) == ("möwe", 2.5)


# With the stand-in


@APIS
async def test_steps_and_files_of_a_run_of_the_stand_in(api: API) -> None:
    clients, now = Clients(5), [1_790_000_000.0]
    named = {"input": "Hello", "model": "m"} if api == "Responses" else {"assistantID": "asst_1", "threadID": "t"}
    async with OpenAIStandIn(clock=lambda: now[0], script="cites") as server:
        carrier = wire(api, clients, Credentials(server.url, "sk-standin"))
        made = await carrier.create(CreateRequest(OpenAIRunSpec.model_validate(named)))
        now[0] += 10
        seen = await carrier.observe(RunRef(api, made.id, made.thread))
        await clients.close()
    assert seen.steps is not None
    assert seen.step_count == len(seen.steps) == 2
    kinds = ["code_interpreter_call", "message"] if api == "Responses" else ["tool_calls", "message_creation"]
    assert [each.type for each in seen.steps] == kinds
    assert len(seen.files) == (2 if api == "Responses" else 3)
