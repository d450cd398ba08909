"""The assistants wire: ``/v1/threads/{thread}/…``, in the shapes of ``RunObject`` and its relatives.

Source: OpenAI's API description (schemas ``CreateRunRequest``, ``RunObject``, ``RunStepObject``,
``MessageObject``); texts of errors from public issues.
"""

import json
from collections.abc import Mapping
from typing import Any

from openairun_devkit.openai import asking, forms, scripts
from openairun_devkit.openai.errors import APIError, check_parameters
from openairun_devkit.openai.runs import FINISHED, Run, new_run, tokens

_PARAMETERS = """
    additional_instructions additional_messages assistant_id instructions max_completion_tokens
    max_prompt_tokens metadata model parallel_tool_calls reasoning_effort response_format stream
    temperature tool_choice tools top_p truncation_strategy
"""

PARAMETERS = frozenset(_PARAMETERS.split())
"""What a create request may have: the SDK's ``RunCreateParams`` without what goes into the query."""

EXPIRES_AFTER = 600
"""Seconds until a run that requires action expires, in ``expires_at``; nothing here really does."""

QUICK_CANCEL = 0.1
"""Seconds in ``cancelling`` where the script names none: OpenAI never goes to ``cancelled`` at once."""

_STARTED = frozenset({"in_progress", "requires_action", "completed", "incomplete"})


class Assistants:
    """The runs that were created, by thread."""

    def __init__(self, *, default_script: str, strict: bool) -> None:
        self.default_script = default_script
        self.strict = strict
        """Refuse a second run while one goes on the same thread, as OpenAI did."""
        self.runs: dict[str, Run] = {}
        self.submits: list[asking.Submit] = []
        self._by_thread: dict[str, list[Run]] = {}

    def create(self, thread: str, body: Any, now: float) -> dict[str, Any]:
        """POST /threads/{thread}/runs."""
        self._check_thread(thread)
        body = check_parameters(
            body,
            known=PARAMETERS,
            required=("assistant_id",),
            minimum={"max_prompt_tokens": 256, "max_completion_tokens": 256},
        )
        if body["assistant_id"].startswith("asst_missing"):
            raise APIError(404, f"No assistant found with id '{body['assistant_id']}'.")
        siblings = self._by_thread.setdefault(thread, [])
        if self.strict:
            for other in siblings:
                if other.state(now) not in FINISHED:
                    raise APIError(400, f"Thread {thread} already has an active run {other.id}.")
        run = new_run("assistants", "run", body, thread=thread, default_script=self.default_script, now=now)
        shown = self.show(run, now)
        self.runs[run.id] = run
        siblings.append(run)
        return shown

    def retrieve(self, thread: str, id: str, now: float) -> bytes:
        """GET /threads/{thread}/runs/{id}."""
        run = self._get(thread, id, now)
        run.polls += 1
        stage = run.stage(now)
        if run.rendered[0] != stage:
            run.rendered = (stage, json.dumps(self.show(run, now)).encode())
        return run.rendered[1]

    def list_runs(self, thread: str, query: Mapping[str, str], now: float) -> dict[str, Any]:
        """GET /threads/{thread}/runs."""
        runs = [run for run in self._on(thread) if run.state(now) != scripts.GONE]
        return _page([self.show(run, now) for run in runs], query)

    def cancel(self, thread: str, id: str, now: float) -> dict[str, Any]:
        """POST /threads/{thread}/runs/{id}/cancel: refused where there is nothing left to cancel."""
        run = self._get(thread, id, now)
        run.cancel_calls += 1
        state = run.state(now)
        if state in FINISHED or state == "cancelling" or run.script.cancel_refused:
            raise APIError(400, f"Cannot cancel run with status '{state}'.")
        seconds = QUICK_CANCEL if run.script.cancel_seconds is None else run.script.cancel_seconds
        run.go_on(now, [(now, "cancelling"), (now + seconds, "cancelled")])
        return self.show(run, now)

    def submit_tool_outputs(self, thread: str, id: str, body: Any, now: float) -> dict[str, Any]:
        """POST /threads/{thread}/runs/{id}/submit_tool_outputs."""
        run = self._get(thread, id, now)
        state = run.state(now)
        if state != "requires_action":
            raise APIError(400, f'Runs in status "{state}" do not accept tool outputs.')
        outputs = body.get("tool_outputs") if isinstance(body, dict) else None
        given, wanted = [output.get("tool_call_id") for output in outputs or ()], asking.call_ids(run)
        if sorted(map(str, given)) != sorted(wanted):
            raise APIError(400, f"Expected tool outputs for call_ids {wanted}, got {given}")
        brought = asking.results(body)
        self.submits.append(asking.Submit(now, run.id, brought))
        run.results |= brought
        run.turn += 1
        run.go_on(now, run.script.stages_with_results(now, again=run.turn < run.script.turns))
        return self.show(run, now)

    def messages(self, thread: str, query: Mapping[str, str], now: float) -> dict[str, Any]:
        """GET /threads/{thread}/messages: the answers on it; those of one run with ``run_id``."""
        wanted = query.get("run_id")
        runs = [run for run in self._on(thread) if wanted in (None, run.id)]
        return _page([_message(run, now) for run in runs if run.state(now) in ("completed", "incomplete")], query)

    def steps(self, thread: str, id: str, query: Mapping[str, str], now: float) -> dict[str, Any]:
        """GET /threads/{thread}/runs/{id}/steps."""
        return _page(_steps(self._get(thread, id, now), now), query)

    def show(self, run: Run, now: float) -> dict[str, Any]:
        """The run as it is now."""
        state, asked = run.state(now), run.request
        required_action = last_error = None
        if state == "requires_action":
            calls = {"tool_calls": _tool_calls(run, run.turn)}
            required_action = {"type": "submit_tool_outputs", "submit_tool_outputs": calls}
        if state == "failed":
            last_error = {"code": "server_error", "message": "Sorry, something went wrong."}
        instructions = [asked.get("instructions"), asked.get("additional_instructions")]
        return {
            "id": run.id,
            "object": "thread.run",
            "created_at": int(run.created_at),
            "thread_id": run.thread,
            "assistant_id": asked["assistant_id"],
            "status": state,
            "required_action": required_action,
            "last_error": last_error,
            "expires_at": None if state in FINISHED - {"expired"} else int(run.created_at) + EXPIRES_AFTER,
            "started_at": run.since(_STARTED, now),
            "cancelled_at": _since(run, "cancelled", now),
            "failed_at": _since(run, "failed", now),
            "completed_at": _since(run, "completed", now),
            "incomplete_details": {"reason": "max_completion_tokens"} if state == "incomplete" else None,
            "model": asked.get("model") or "gpt-standin",
            "instructions": "\n".join(text for text in instructions if text),
            "tools": asked.get("tools") or [],
            "metadata": run.metadata,
            "usage": _usage(run) if state in FINISHED else None,
            "temperature": _or(asked.get("temperature"), 1.0),
            "top_p": _or(asked.get("top_p"), 1.0),
            "max_prompt_tokens": asked.get("max_prompt_tokens"),
            "max_completion_tokens": asked.get("max_completion_tokens"),
            "truncation_strategy": asked.get("truncation_strategy") or {"type": "auto", "last_messages": None},
            "tool_choice": _or(asked.get("tool_choice"), "auto"),
            "parallel_tool_calls": _or(asked.get("parallel_tool_calls"), True),
            "response_format": _or(asked.get("response_format"), "auto"),
        }

    def _on(self, thread: str) -> list[Run]:
        self._check_thread(thread)
        return self._by_thread.get(thread, [])

    def _get(self, thread: str, id: str, now: float) -> Run:
        self._check_thread(thread)
        run = self.runs.get(id)
        if run is None or run.thread != thread or run.state(now) == scripts.GONE:
            raise APIError(404, f"No run found with id '{id}'.")
        return run

    @staticmethod
    def _check_thread(thread: str) -> None:
        if thread.startswith("thread_missing"):
            raise APIError(404, f"No thread found with id '{thread}'.")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _since(run: Run, state: str, now: float) -> int | None:
    return run.since(frozenset({state}), now)


def _answer(run: Run) -> str:
    return forms.answer(run.request.get("response_format"), run.answer(f"Answered on thread {run.thread}."))


def _usage(run: Run) -> dict[str, int]:
    read, written = tokens(json.dumps(run.request)), tokens(_answer(run))
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _tool_calls(run: Run, turn: int) -> list[dict[str, Any]]:
    """What the run asks for in this turn of it."""
    tools = [tool["function"]["name"] for tool in run.request.get("tools") or () if tool.get("type") == "function"]
    return [
        {"id": id, "type": "function", "function": {"name": name, "arguments": asking.ARGUMENTS}}
        for id, name in zip(asking.call_ids(run, turn), asking.function_names(run, tools), strict=True)
    ]


def _message(run: Run, now: float) -> dict[str, Any]:
    """The answer as a message; ids are derived, so that they stay the same."""
    state, text = run.state(now), _answer(run)
    content: list[dict[str, Any]] = [{"type": "text", "text": {"value": text, "annotations": []}}]
    attachments = []
    if run.script.cites:
        where = {"text": text[:1], "start_index": 0, "end_index": 1}
        cited = {"type": "file_citation", "file_citation": {"file_id": f"file-{run.tail}"}, **where}
        content[0]["text"]["annotations"].append(cited)
        content.append({"type": "image_file", "image_file": {"file_id": f"file-image-{run.tail}", "detail": "auto"}})
        attachments = [{"file_id": f"file-made-{run.tail}", "tools": [{"type": "code_interpreter"}]}]
    if run.script.odd_item:
        content.insert(0, {"type": "pondering_trace", "depth": 3})
    done = run.since(frozenset({state}), now)
    return {
        "id": f"msg_{run.tail}",
        "object": "thread.message",
        "created_at": done,
        "thread_id": run.thread,
        "status": state,
        "incomplete_details": {"reason": "max_tokens"} if state == "incomplete" else None,
        "completed_at": done if state == "completed" else None,
        "incomplete_at": done if state == "incomplete" else None,
        "role": "assistant",
        "content": content,
        "assistant_id": run.request["assistant_id"],
        "run_id": run.id,
        "attachments": attachments,
        "metadata": {},
    }


def _steps(run: Run, now: float) -> list[dict[str, Any]]:
    """A step for the calls of each turn, one for the code interpreter, if it ran, and one for the message."""
    state = run.state(now)
    steps = []
    asked = [int(at) for at, stage in run.stages if stage == "requires_action" and at <= now]
    for turn, at in enumerate(asked):
        calls = _tool_calls(run, turn)
        for call in calls:
            call["function"]["output"] = run.results.get(call["id"])
        status = "completed" if turn < run.turn else "cancelled" if state == "cancelled" else "in_progress"
        steps.append(_step(run, f"c{turn}", {"type": "tool_calls", "tool_calls": calls}, status, at, now))
    if state in ("completed", "incomplete"):
        at = _since(run, state, now) or 0
        if run.script.cites:
            image = {"type": "image", "image": {"file_id": f"file-image-{run.tail}"}}
            code = {"input": "plot()", "outputs": [{"type": "logs", "logs": "done"}, image]}
            call = {"id": f"call_{run.tail}_ci", "type": "code_interpreter", "code_interpreter": code}
            steps.append(_step(run, "i", {"type": "tool_calls", "tool_calls": [call]}, "completed", at, now))
        details = {"type": "message_creation", "message_creation": {"message_id": f"msg_{run.tail}"}}
        steps.append(_step(run, "m", details, "completed", at, now))
    return steps


def _step(run: Run, mark: str, details: dict[str, Any], status: str, at: int, now: float) -> dict[str, Any]:
    return {
        "id": f"step_{run.tail}{mark}",
        "object": "thread.run.step",
        "created_at": at,
        "assistant_id": run.request["assistant_id"],
        "thread_id": run.thread,
        "run_id": run.id,
        "type": details["type"],
        "status": status,
        "step_details": details,
        "last_error": None,
        "expired_at": None,
        "cancelled_at": _since(run, "cancelled", now) if status == "cancelled" else None,
        "failed_at": None,
        "completed_at": at if status == "completed" else None,
        "metadata": {},
        "usage": _usage(run) if status == "completed" else None,
    }


def _page(oldest_first: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of a list: ``order`` (newest first by default), ``limit`` (20, at most 100), ``after``, ``before``."""
    items = oldest_first if query.get("order") == "asc" else oldest_first[::-1]
    try:
        limit = int(query.get("limit", "20"))
    except ValueError as error:
        raise APIError(400, "Invalid type for 'limit': expected an integer.", param="limit") from error
    if not 1 <= limit <= 100:
        raise APIError(400, f"Invalid 'limit': expected 1 to 100, but got {limit} instead.", param="limit")
    ids = [item["id"] for item in items]
    if (after := query.get("after")) is not None:
        items = items[ids.index(after) + 1 :] if after in ids else []
    elif (before := query.get("before")) is not None:
        items = items[: ids.index(before)] if before in ids else []
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > len(page),
    }
