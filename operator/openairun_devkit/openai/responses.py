"""The responses wire: ``/v1/responses`` in background mode, in the shape of ``Response``.

Source: OpenAI's API description (schemas ``CreateResponse``, ``Response``); texts of errors from public issues.
"""

import json
from typing import Any

from openairun_devkit.openai import asking, forms, scripts
from openairun_devkit.openai.errors import APIError, check_parameters
from openairun_devkit.openai.runs import FINISHED, Run, new_run, tokens

_PARAMETERS = """
    access_programs background background_options context_management conversation image include
    input instructions max_output_tokens max_tool_calls metadata model moderation
    parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options
    prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options
    temperature text tool_choice tools top_logprobs top_p truncation user
"""

PARAMETERS = frozenset(_PARAMETERS.split())
"""What a create request may have: the SDK's ``ResponseCreateParams``."""

_STATUS = {"expired": "failed", "requires_action": "completed", "cancelling": "in_progress"}
"""A run's states that responses do not have."""

_DONE = FINISHED | {"requires_action"}


class Responses:
    """The responses that were created."""

    def __init__(self, *, default_script: str, strict: bool) -> None:
        self.default_script = default_script
        self.strict = strict
        """Refuse a second response while one goes in the same conversation."""
        self.runs: dict[str, Run] = {}
        self.submits: list[asking.Submit] = []
        self._by_conversation: dict[str, list[Run]] = {}

    def create(self, body: Any, now: float) -> dict[str, Any]:
        """POST /responses."""
        body = check_parameters(
            body,
            known=PARAMETERS,
            required=() if isinstance(body, dict) and body.get("prompt") else ("model",),
            minimum={"max_output_tokens": 16},
        )
        if not body.get("background"):
            raise APIError(
                400,
                "The stand-in answers in the background only: send background: true.",
                param="background",
                code="standin_unsupported",
            )
        if body.get("store") is False:
            raise APIError(400, "Background responses require store to be true.", param="store")
        conversation, previous = body.get("conversation"), body.get("previous_response_id")
        if isinstance(conversation, dict):
            conversation = conversation.get("id")
        before = self._check_chain(body, conversation, previous, now)
        brought = asking.results(body)
        run = new_run(
            "responses",
            "resp",
            body,
            thread=conversation,
            default_script=self.default_script,
            now=now,
            turn=(before.turn if before else 0) + 1 if brought else 0,
            again=_forces(body.get("tool_choice")),
        )
        shown = self.show(run, now)
        self.runs[run.id] = run
        if brought:
            self.submits.append(asking.Submit(now, run.id, brought))
        if conversation is not None:
            self._by_conversation.setdefault(conversation, []).append(run)
        return shown

    def retrieve(self, id: str, now: float) -> bytes:
        """GET /responses/{id}."""
        run = self._get(id, now)
        run.polls += 1
        stage = run.stage(now)
        if run.rendered[0] != stage:
            run.rendered = (stage, json.dumps(self.show(run, now)).encode())
        return run.rendered[1]

    def cancel(self, id: str, now: float) -> dict[str, Any]:
        """POST /responses/{id}/cancel: a finished one comes back unchanged."""
        run = self._get(id, now)
        run.cancel_calls += 1
        if run.state(now) not in _DONE | {"cancelling"}:
            if run.script.cancel_refused:
                raise APIError(400, "Cannot cancel this response.")
            if seconds := run.script.cancel_seconds:
                run.go_on(now, [(now, "cancelling"), (now + seconds, "cancelled")])
            else:
                run.go_on(now, [(now, "cancelled")])
        return self.show(run, now)

    def show(self, run: Run, now: float) -> dict[str, Any]:
        """The response as it is now."""
        state, asked = run.state(now), run.request
        status = _STATUS.get(state, state)
        answer = forms.answer((asked.get("text") or {}).get("format"), run.answer(f"You said: {_said(asked)[:500]}"))
        output: list[dict[str, Any]] = []
        if state == "requires_action":
            output.extend(asking.items(run))
        elif state in ("completed", "incomplete"):
            if run.script.odd_item:
                output.append({"type": "pondering_trace", "id": f"pt_{run.tail}", "depth": 3})
            if run.script.cites:
                output.append(_code(run))
            output.append(_message(run, state, answer if state == "completed" else answer[: len(answer) // 2]))
        error = None
        if status == "failed":
            text = "The run expired." if state == "expired" else "The server had an error processing the request."
            error = {"code": "server_error", "message": text}
        response = {
            "id": run.id,
            "object": "response",
            "created_at": int(run.created_at),
            "status": status,
            "background": True,
            "completed_at": run.since(frozenset({state}), now) if status == "completed" else None,
            "conversation": {"id": run.thread} if run.thread else None,
            "error": error,
            "incomplete_details": {"reason": "max_output_tokens"} if state == "incomplete" else None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "max_tool_calls": asked.get("max_tool_calls"),
            "metadata": run.metadata,
            "model": asked.get("model") or "gpt-standin",
            "output": output,
            "parallel_tool_calls": _or(asked.get("parallel_tool_calls"), True),
            "previous_response_id": asked.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None, **(asked.get("reasoning") or {})},
            "service_tier": "default",
            "temperature": _or(asked.get("temperature"), 1.0),
            "text": {"format": {"type": "text"}, **(asked.get("text") or {})},
            "tool_choice": _or(asked.get("tool_choice"), "auto"),
            "tools": [_tool(tool) for tool in asked.get("tools") or ()],
            "top_p": _or(asked.get("top_p"), 1.0),
            "truncation": _or(asked.get("truncation"), "disabled"),
        }
        # OpenAI sends null for these two where there is none; its description, which we keep to, allows only absence.
        if status in ("completed", "incomplete"):
            response["usage"] = _usage(asked, answer)
        if asked.get("user"):
            response["user"] = asked["user"]
        return response

    def _get(self, id: str, now: float) -> Run:
        run = self.runs.get(id)
        if run is None or run.state(now) == scripts.GONE:
            raise APIError(404, f"Response with id '{id}' not found.")
        return run

    def _check_chain(
        self, body: dict[str, Any], conversation: str | None, previous: str | None, now: float
    ) -> Run | None:
        """Refuse a response that does not go on from what it names; the response that it goes on from, if known."""
        if conversation and previous:
            raise APIError(
                400,
                "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. "
                "Ensure you are only providing one of them.",
                code="mutually_exclusive_parameters",
            )
        if (conversation or "").startswith("conv_missing"):
            raise APIError(404, f"Conversation with id '{conversation}' not found.")
        if (previous or "").startswith("resp_missing"):
            raise APIError(
                400,
                f"Previous response with id '{previous}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        siblings = self._by_conversation.get(conversation, []) if conversation else []
        if self.strict and any(run.state(now) not in _DONE for run in siblings):
            raise APIError(
                400,
                "Another process is currently operating on this conversation. Please retry in a few seconds.",
                code="conversation_locked",
            )
        before = siblings[-1] if siblings else self.runs.get(previous or "")
        if before is not None or not (conversation or previous):
            waits = before is not None and before.state(now) == "requires_action"
            asking.check_answered(asking.items(before) if before is not None and waits else [], body)
        return before


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _said(asked: dict[str, Any]) -> str:
    """The last text in the input."""
    said = asked.get("input") or ""
    if isinstance(said, str):
        return said
    last = said[-1]
    if "approve" in last:
        return "approved" if last["approve"] else "not approved"
    content = last.get("content", last.get("output", ""))
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """The tool as OpenAI gives it back: with what was left out, and without the token for an MCP server."""
    if tool.get("type") != "function":
        return {name: value for name, value in tool.items() if name != "authorization"}
    return {"description": None, "parameters": None, "strict": True, **tool}


def _forces(choice: Any) -> bool:
    """Whether the choice among tools is one that makes the model call."""
    mode = choice.get("mode") if isinstance(choice, dict) and choice.get("type") == "allowed_tools" else choice
    return mode not in (None, "auto", "none")


def _code(run: Run) -> dict[str, Any]:
    """A call of the code interpreter."""
    return {
        "type": "code_interpreter_call",
        "id": f"ci_{run.tail}",
        "container_id": f"cntr_{run.tail}",
        "code": "plot()",
        "outputs": [{"type": "logs", "logs": "done"}],
        "status": "completed",
    }


def _citations(run: Run) -> list[dict[str, Any]]:
    where = {"type": "container_file_citation", "container_id": f"cntr_{run.tail}", "filename": "plot.png"}
    return [
        {"type": "file_citation", "file_id": f"file-{run.tail}", "filename": "facts.pdf", "index": 0},
        {**where, "file_id": f"cfile_{run.tail}", "start_index": 0, "end_index": 1},
    ]


def _message(run: Run, status: str, text: str) -> dict[str, Any]:
    annotations = _citations(run) if run.script.cites else []
    return {
        "type": "message",
        "id": f"msg_{run.tail}",
        "status": status,
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}],
    }


def _usage(asked: dict[str, Any], answer: str) -> dict[str, Any]:
    read, written = tokens(f"{asked.get('instructions') or ''}{_said(asked)}"), tokens(answer)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
