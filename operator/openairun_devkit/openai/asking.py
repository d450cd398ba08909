"""What a run asks for when its script requires action, and whether it got that."""

from dataclasses import dataclass
from typing import Any

from openairun_devkit.openai.errors import APIError
from openairun_devkit.openai.runs import Run

ARGUMENTS = '{"query": "stand-in"}'

ANSWERS = {
    "function_call_output": ("function_call", "call_id"),
    "custom_tool_call_output": ("custom_tool_call", "call_id"),
    "mcp_approval_response": ("mcp_approval_request", "approval_request_id"),
}
"""Items of an input that answer: what they answer, and in which field they name it."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Results that were brought to a run, and taken."""

    at: float
    """By the stand-in's clock, epoch seconds."""
    run: str
    """The run; on the responses wire, the new response."""
    results: dict[str, Any]
    """What was brought, by the id of the call: its output, or whether it is approved."""


def call_ids(run: Run, turn: int | None = None) -> list[str]:
    """The ids of the calls that the run asks for in a turn of it, the present one if none is named."""
    return [f"call_{run.tail}_{run.turn if turn is None else turn}_{n}" for n in range(run.script.calls)]


def function_names(run: Run, tools: list[str]) -> list[str]:
    """The function of each call: those that the request offers, in turn."""
    names = tools or ["lookup"]
    return [names[n % len(names)] for n in range(run.script.calls)]


def items(run: Run) -> list[dict[str, Any]]:
    """The calls as items of a response's output."""
    tools = [tool for tool in run.request.get("tools") or () if isinstance(tool, dict)]
    if run.script.asks == "mcp":
        labels = [tool["server_label"] for tool in tools if tool.get("type") == "mcp"] or ["standin"]
        told = {"type": "mcp_approval_request", "server_label": labels[0], "name": "lookup", "arguments": ARGUMENTS}
        return [{**told, "id": id.replace("call_", "mcpr_")} for id in call_ids(run)]
    if run.script.asks == "custom":
        names = function_names(run, [tool["name"] for tool in tools if tool.get("type") == "custom"])
        return [
            {"type": "custom_tool_call", "id": f"ctc_{id[5:]}", "call_id": id, "name": name, "input": "stand-in"}
            for id, name in zip(call_ids(run), names, strict=True)
        ]
    names = function_names(run, [tool["name"] for tool in tools if tool.get("type") == "function"])
    told = {"type": "function_call", "arguments": ARGUMENTS, "status": "completed"}
    return [
        {**told, "id": f"fc_{id[5:]}", "call_id": id, "name": name}
        for id, name in zip(call_ids(run), names, strict=True)
    ]


def results(body: Any) -> dict[str, Any]:
    """What the request brings, by the id of the call: a response's input, or tool outputs for a run."""
    if not isinstance(body, dict):
        return {}
    brought: dict[str, Any] = {}
    given = body.get("input")
    for item in given if isinstance(given, list) else ():
        if isinstance(item, dict) and item.get("type") in ANSWERS:
            brought[item[ANSWERS[item["type"]][1]]] = item.get("output", item.get("approve"))
    for output in body.get("tool_outputs") or ():
        brought[output.get("tool_call_id")] = output.get("output")
    return brought


def check_answered(asked: list[dict[str, Any]], body: dict[str, Any]) -> None:
    """Refuse an input that does not answer just what the items before it ask for.

    The texts for functions are OpenAI's; no public issue quotes those for approvals.
    """
    given = body.get("input")
    entries = [item for item in (given if isinstance(given, list) else []) if isinstance(item, dict)]
    known = {_key(item) for item in [*asked, *entries] if item.get("type") in dict(ANSWERS.values())}
    answered = set()
    for item in entries:
        if item.get("type") not in ANSWERS:
            continue
        kind, field = ANSWERS[item["type"]]
        if (key := (kind, item[field])) not in known:
            what = "function call output" if field == "call_id" else "approval response"
            raise APIError(400, f"No tool call found for {what} with {field} {item[field]}.", param="input")
        answered.add(key)
    for kind, id in map(_key, asked):
        if (kind, id) not in answered:
            wanted = "tool output found for function call" if field_of(kind) == "call_id" else "approval response for"
            raise APIError(400, f"No {wanted} {id}.", param="input")


def field_of(kind: str) -> str:
    """The field in which an answer to this kind of item names it."""
    return dict(ANSWERS.values())[kind]


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return item["type"], item["call_id"] if field_of(item["type"]) == "call_id" else item["id"]
