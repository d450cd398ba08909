"""Runs as background responses: `POST /responses`, `GET` and cancel below it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import openai.resources.responses.responses  # noqa: F401 - the SDK loads it at the first call else, and holds up the event loop

from openairun_operator.api.record import API, Usage
from openairun_operator.api.references import KeyRef
from openairun_operator.api.rules import MAX_CALL_ID
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.api.status import MAX_STEPS
from openairun_operator.api.tools import ResponseFormat, Tool, ToolChoice
from openairun_operator.lifecycle import phase
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import (
    Call,
    CreateRequest,
    RunObservation,
    RunRef,
    SeenStep,
    SubmitRequest,
    ToolResult,
)
from openairun_operator.wires.calls import Answer, Caller, absent_is_omitted, as_refused, refused
from openairun_operator.wires.definition import hosted_tool, json_schema, tool_choice
from openairun_operator.wires.items import details, file_ids


def _tool(tool: Tool, authorizations: Mapping[KeyRef, str]) -> dict[str, Any]:
    if tool.function is None:
        return hosted_tool(tool, authorizations)
    function = tool.function
    return {
        "type": "function",
        "name": function.name,
        # Both are required by the API, and null where there is nothing to say.
        "parameters": function.parameters,
        "strict": function.strict,
        **absent_is_omitted({"description": function.description}),
    }


def _format(form: ResponseFormat) -> dict[str, Any]:
    return {"type": form.type, **(json_schema(form.jsonSchema) if form.jsonSchema else {})}


def _instructions(spec: OpenAIRunSpec) -> str | None:
    """The instructions, and after a blank line what is added to them."""
    if not spec.additionalInstructions:
        return spec.instructions
    return "\n\n".join(text for text in (spec.instructions, spec.additionalInstructions) if text)


def _input(request: CreateRequest) -> str | list[dict[str, str]] | None:
    """The text to answer; where messages come before it, a list that ends with it."""
    spec = request.spec
    asked = request.input if spec.input is None else spec.input
    if not spec.additionalMessages:
        return asked
    messages = [{"role": message.role, "content": message.content} for message in spec.additionalMessages]
    return messages if asked is None else [*messages, {"role": "user", "content": asked}]


def request_body(request: CreateRequest) -> dict[str, Any]:
    """The body of the create. Raises KeyError where the request lacks a token that a tool refers to."""
    spec = request.spec
    return absent_is_omitted(
        {
            "background": True,
            "store": True,
            "model": spec.model or request.default_model,
            "input": _input(request),
            "instructions": _instructions(spec),
            "conversation": spec.conversationID,
            "previous_response_id": spec.previousResponseID,
            "temperature": spec.temperature,
            "top_p": spec.topP,
            "max_output_tokens": spec.maxTokens,
            "tools": [_tool(tool, request.authorizations) for tool in spec.tools] if spec.tools is not None else None,
            "tool_choice": tool_choice(spec.toolChoice) if spec.toolChoice else None,
            "parallel_tool_calls": spec.parallelToolCalls,
            "text": {"format": _format(spec.responseFormat)} if spec.responseFormat else None,
            "reasoning": {"effort": spec.reasoningEffort} if spec.reasoningEffort is not None else None,
            "truncation": spec.truncation.type if spec.truncation else None,
            "metadata": dict(request.metadata),
        }
    )


def _result(result: ToolResult) -> dict[str, Any]:
    match result.type:
        case "mcp_approval":
            # Nothing but a clear yes is one.
            return {
                "type": "mcp_approval_response",
                "approval_request_id": result.id,
                "approve": result.approve is True,
            }
        case "custom":
            return {"type": "custom_tool_call_output", "call_id": result.id, "output": result.output}
        case "function":
            return {"type": "function_call_output", "call_id": result.id, "output": result.output}


def _choice_after(choice: ToolChoice) -> str | dict[str, Any] | None:
    """The choice of a response that goes on. None where it forces a call: the model would call for ever.

    The limits that `allowed_tools` sets still hold; to call one of them is no duty any more.
    """
    if choice.type == "allowed_tools":
        return {**(choice.options or {}), "type": choice.type, "mode": "auto"}
    return None if choice.forces else tool_choice(choice)


def submit_body(request: SubmitRequest) -> dict[str, Any]:
    """The body of the response that carries the run on: the results as its only input, after the response that asked
    for them or in the run's conversation.

    The definition is sent again, since a response takes over nothing of the one before it but its items. A toolChoice
    that forces a call is not: the model would call for ever. Raises KeyError as `request_body` does.
    """
    spec = request.definition.spec
    body = request_body(request.definition) | {
        "input": [_result(result) for result in request.results],
        "previous_response_id": None if spec.conversationID else request.ref.id,
        "tool_choice": _choice_after(spec.toolChoice) if spec.toolChoice else None,
    }
    return absent_is_omitted(body)


_ANSWERED_BY: Final = {
    "function_call": ("function_call_output", "call_id"),
    "custom_tool_call": ("custom_tool_call_output", "call_id"),
    "mcp_approval_request": ("mcp_approval_response", "approval_request_id"),
}
"""Items that ask for something: the item that answers them, and the field in which that one names what it answers."""


def _call(item: Answer) -> Call:
    name, arguments = item.text("name") or "", item.text("arguments") or ""
    match item.text("type"):
        case "custom_tool_call":
            return Call(item.id("call_id", MAX_CALL_ID) or "", name, item.text("input") or "", "custom")
        case "mcp_approval_request":
            return Call(item.id("id", MAX_CALL_ID) or "", name, arguments, "mcp_approval", item.text("server_label"))
        case _:
            return Call(item.id("call_id", MAX_CALL_ID) or "", name, arguments)


def _calls(items: list[Answer]) -> tuple[Call, ...]:
    """What the items ask for and have no answer to among them."""
    names = dict(_ANSWERED_BY.values())
    answered = {
        (type_, item.id(names[type_], MAX_CALL_ID)) for item in items if (type_ := item.text("type") or "") in names
    }
    return tuple(
        call
        for item in items
        if (type_ := item.text("type") or "") in _ANSWERED_BY
        and (_ANSWERED_BY[type_][0], (call := _call(item)).id or None) not in answered
    )


def _steps(items: list[Answer]) -> tuple[SeenStep, ...]:
    """The items, the last 20, as steps."""
    return tuple(
        SeenStep(
            item.id("id") or item.id("call_id") or "",
            item.text("type") or "",
            status=item.text("status"),
            details=details(item.body, ("id", "type", "status")),
        )
        for item in items[-MAX_STEPS:]
    )


def _text(items: list[Answer]) -> str | None:
    """All output text of all messages, in order; a refusal counts as the answer that it is."""
    parts = [
        part.text("text") or part.text("refusal") or ""
        for item in items
        if item.text("type") == "message"
        for part in item.objects("content")
        if part.text("type") in ("output_text", "refusal")
    ]
    return "".join(parts) if parts else None


def _usage(answer: Answer) -> Usage | None:
    usage = answer.object("usage")
    if not usage.body:
        return None
    return Usage(
        promptTokens=usage.count("input_tokens"),
        completionTokens=usage.count("output_tokens"),
        totalTokens=usage.count("total_tokens"),
        cachedTokens=usage.object("input_tokens_details").count("cached_tokens"),
        reasoningTokens=usage.object("output_tokens_details").count("reasoning_tokens"),
    )


def observation(answer: Answer) -> RunObservation:
    """What a Response says. Raises CallFailedError if it is none."""
    id_, status = answer.identity()
    items = answer.objects("output")
    calls = _calls(items)
    decided = phase.of(status) in phase.TERMINAL
    error = answer.object("error")
    return RunObservation(
        id=id_,
        status="requires_action" if status == "completed" and calls else status,
        object=answer.text("object"),
        model=answer.text("model"),
        conversation=answer.object("conversation").id("id"),
        created_at=answer.seconds("created_at"),
        completed_at=answer.seconds("completed_at") if not calls else None,
        error=(error.text("code") or "unknown", error.text("message") or "") if error.body else None,
        incomplete_reason=answer.object("incomplete_details").text("reason"),
        calls=calls,
        steps=_steps(items) if decided else None,
        step_count=len(items) if decided else 0,
        files=file_ids(item.body for item in items) if decided else (),
        usage=_usage(answer),
        text=_text(items),
        at_rest=status == "completed",
        poll_after=answer.poll_after(),
    )


class Responses:
    """The Responses API in background mode. OpenAI offers no list of responses, so none can be searched for."""

    api: Final[API] = "Responses"
    searchable = False

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(self, request: CreateRequest) -> RunObservation:
        body = request_body(request)
        answer = await self._caller.call(
            lambda c: c.responses.with_raw_response.create(**body),
            doing="create",
            secrets=request.authorizations.values(),
        )
        return observation(answer)

    async def observe(self, ref: RunRef) -> RunObservation:
        return observation(await self._caller.call(lambda c: c.ask("GET", "responses", ref.id)))

    async def cancel(self, ref: RunRef) -> RunObservation:
        try:
            answer = await self._caller.call(lambda c: c.ask("POST", "responses", ref.id, "cancel"), doing="optional")
            return observation(answer)
        except CallFailedError as error:
            if refused(error):
                return as_refused(await self.observe(ref))
            raise

    async def submit(self, request: SubmitRequest) -> RunObservation:
        body = submit_body(request)
        answer = await self._caller.call(
            lambda c: c.responses.with_raw_response.create(**body),
            doing="submit",
            secrets=request.definition.authorizations.values(),
        )
        return observation(answer)

    async def find(self, thread: str | None, token: str, since: datetime) -> RunObservation | None:
        raise NotImplementedError("responses cannot be searched for")
