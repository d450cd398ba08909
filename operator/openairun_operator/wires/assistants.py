"""Runs of an assistant on a thread: `POST /threads/{thread}/runs` and below.

OpenAI ended this API on 2026-08-26; compatible servers carry it on, some only in part.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from openai.resources.beta.threads.messages import AsyncMessages
from openai.resources.beta.threads.runs.runs import AsyncRuns
from openai.resources.beta.threads.runs.steps import AsyncSteps
from openai.types.beta.threads.run_submit_tool_outputs_params import ToolOutput

from openairun_operator.api.names import TOKEN_KEY
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API, Usage
from openairun_operator.api.references import KeyRef
from openairun_operator.api.rules import MAX_CALL_ID
from openairun_operator.api.status import MAX_STEPS
from openairun_operator.api.tools import ResponseFormat, Tool, ToolChoice, Truncation
from openairun_operator.lifecycle import phase
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import (
    Call,
    CreateRequest,
    RunObservation,
    RunRef,
    SeenStep,
    SubmitRequest,
)
from openairun_operator.wires import errors
from openairun_operator.wires.calls import ASSISTANTS_V2, Answer, Caller, absent_is_omitted, as_refused, refused
from openairun_operator.wires.definition import hosted_tool, json_schema, tool_choice
from openairun_operator.wires.items import details, file_ids

# The SDK warns of the deprecation at each call; a user of this wire knows.
warnings.filterwarnings("ignore", message="The Assistants API is deprecated", category=DeprecationWarning)

_PAGE: Final = 100
_MAX_PAGES: Final = 100
_MAX_STEP_PAGES: Final = 10
_CLOCK_SKEW: Final = 300.0
"""Seconds by which a server's clock may be behind ours when a run's age is judged."""
_WITH_TEXT: Final = ("completed", "incomplete")
"""The ends of a run that may have left an answer on the thread."""


def _tool(tool: Tool, authorizations: Mapping[KeyRef, str]) -> dict[str, Any]:
    if tool.function is None:
        return hosted_tool(tool, authorizations)
    return {"type": "function", "function": absent_is_omitted(tool.function.model_dump())}


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.type == "function":
        return {**(choice.options or {}), "type": "function", "function": {"name": choice.name}}
    return tool_choice(choice)


def _format(form: ResponseFormat) -> dict[str, Any]:
    return {"type": form.type, **({"json_schema": json_schema(form.jsonSchema)} if form.jsonSchema else {})}


def _truncation(truncation: Truncation) -> dict[str, Any]:
    return absent_is_omitted({"type": truncation.type, "last_messages": truncation.lastMessages})


def request_body(request: CreateRequest) -> dict[str, Any]:
    """The body of the create. Raises KeyError where the request lacks a token that a tool refers to."""
    spec = request.spec
    messages = spec.additionalMessages
    return absent_is_omitted(
        {
            "assistant_id": spec.assistantID,
            "model": spec.model,
            "instructions": spec.instructions,
            "additional_instructions": spec.additionalInstructions,
            "additional_messages": [message.model_dump() for message in messages] if messages is not None else None,
            "temperature": spec.temperature,
            "top_p": spec.topP,
            "max_completion_tokens": spec.maxTokens,
            "max_prompt_tokens": spec.maxPromptTokens,
            "tools": [_tool(tool, request.authorizations) for tool in spec.tools] if spec.tools is not None else None,
            "tool_choice": _choice(spec.toolChoice) if spec.toolChoice else None,
            "parallel_tool_calls": spec.parallelToolCalls,
            "response_format": _format(spec.responseFormat) if spec.responseFormat else None,
            "reasoning_effort": spec.reasoningEffort,
            "truncation_strategy": _truncation(spec.truncation) if spec.truncation else None,
            "metadata": dict(request.metadata),
        }
    )


def _calls(answer: Answer) -> tuple[Call, ...]:
    wanted = answer.object("required_action").object("submit_tool_outputs").objects("tool_calls")
    return tuple(
        Call(
            call.id("id", MAX_CALL_ID) or "",
            call.object("function").text("name") or "",
            call.object("function").text("arguments") or "",
        )
        for call in wanted
    )


def _usage(answer: Answer) -> Usage | None:
    usage = answer.object("usage")
    if not usage.body:
        return None
    return Usage(
        promptTokens=usage.count("prompt_tokens"),
        completionTokens=usage.count("completion_tokens"),
        totalTokens=usage.count("total_tokens"),
        cachedTokens=usage.object("prompt_token_details").count("cached_tokens"),
    )


def observation(answer: Answer, thread: str) -> RunObservation:
    """What a Run says. Raises CallFailedError if it is none."""
    id_, status = answer.identity()
    error = answer.object("last_error")
    return RunObservation(
        id=id_,
        status=status,
        object=answer.text("object"),
        model=answer.text("model"),
        thread=answer.id("thread_id") or thread,
        created_at=answer.seconds("created_at"),
        started_at=answer.seconds("started_at"),
        completed_at=answer.seconds("completed_at"),
        failed_at=answer.seconds("failed_at"),
        cancelled_at=answer.seconds("cancelled_at"),
        expires_at=answer.seconds("expires_at"),
        error=(error.text("code") or "unknown", error.text("message") or "") if error.body else None,
        incomplete_reason=answer.object("incomplete_details").text("reason"),
        calls=_calls(answer),
        usage=_usage(answer),
        poll_after=answer.poll_after(),
    )


def _ends_before(runs: list[Answer], oldest: float) -> bool:
    """Whether the page, newest first as asked for, has come to runs created before `oldest`."""
    first, last = (runs[i].seconds("created_at") if runs else None for i in (0, -1))
    return first is not None and last is not None and last < oldest and first >= last


def _text(messages: list[Answer]) -> str | None:
    """The text that the run wrote: its messages in order, a blank line between two of them."""
    texts = [
        "".join(
            part.object("text").text("value") or ""
            for part in message.objects("content")
            if part.text("type") == "text"
        )
        for message in messages
    ]
    return "\n\n".join(texts) if texts else None


def _not_yet_read(made: RunObservation) -> RunObservation:
    """The answer to a create or a submit. Where it is a finished run, its text is still to be read: by the next look,
    since nothing that may fail can follow a request that is sent once.
    """
    return dataclasses.replace(made, status="in_progress") if made.status in _WITH_TEXT else made


def _step(answer: Answer) -> SeenStep:
    return SeenStep(
        answer.id("id") or "",
        answer.text("type") or "",
        answer.text("object"),
        answer.text("status"),
        answer.seconds("created_at"),
        details(answer.object("step_details").body, ("type",)),
    )


class Assistants:
    """The Assistants API. A thread's runs can be listed, so a run whose create got no answer can be found."""

    api: Final[API] = "Assistants"
    searchable = True

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(self, request: CreateRequest) -> RunObservation:
        thread = request.spec.threadID or ""
        body = request_body(request)
        answer = await self._caller.call(
            lambda c: AsyncRuns(c).with_raw_response.create(thread, **body),
            doing="create",
            secrets=request.authorizations.values(),
        )
        return _not_yet_read(observation(answer, thread))

    async def observe(self, ref: RunRef) -> RunObservation:
        thread = ref.thread or ""
        answer = await self._caller.call(
            lambda c: c.ask("GET", "threads", thread, "runs", ref.id, headers=ASSISTANTS_V2)
        )
        return await self._seen(answer, thread)

    async def _seen(self, answer: Answer, thread: str) -> RunObservation:
        """The run, with its answer, steps and files where it has come to an end or to a stop.

        Without its messages the run counts as not seen: the answer would be lost. Steps are worth no such wait. A
        list of steps that fails, for a moment or always, leaves them out and holds up nothing.
        """
        seen = observation(answer, thread)
        if seen.status != "requires_action" and phase.of(seen.status) not in phase.TERMINAL:
            return seen
        messages = await self._messages(seen.id, thread) if seen.status in _WITH_TEXT else []
        steps = await self._steps(seen.id, thread)
        pieces = [message.body.get(name) for message in messages for name in ("content", "attachments")]
        return dataclasses.replace(
            seen,
            text=_text(messages),
            steps=None if steps is None else tuple(_step(step) for step in steps[-MAX_STEPS:]),
            step_count=len(steps or ()),
            files=file_ids([*pieces, *(step.body.get("step_details") for step in steps or ())]),
        )

    async def cancel(self, ref: RunRef) -> RunObservation:
        thread = ref.thread or ""
        try:
            answer = await self._caller.call(
                lambda c: c.ask("POST", "threads", thread, "runs", ref.id, "cancel", headers=ASSISTANTS_V2),
                doing="optional",
            )
        except CallFailedError as error:
            if refused(error):
                return as_refused(await self.observe(ref))
            raise
        return await self._seen(answer, thread)

    async def submit(self, request: SubmitRequest) -> RunObservation:
        ref, thread = request.ref, request.ref.thread or ""
        outputs: list[ToolOutput] = [{"tool_call_id": each.id, "output": each.output} for each in request.results]
        answer = await self._caller.call(
            lambda c: AsyncRuns(c).with_raw_response.submit_tool_outputs(
                ref.id, thread_id=thread, tool_outputs=outputs
            ),
            doing="submit",
            secrets=request.definition.authorizations.values(),
        )
        return _not_yet_read(observation(answer, thread))

    async def find(self, thread: str | None, token: str, since: datetime) -> RunObservation | None:
        oldest = since.timestamp() - _CLOCK_SKEW
        asked: set[str] = set()
        after: str | None = None
        for _ in range(_MAX_PAGES):
            page = await self._page(thread or "", after)
            if not isinstance(page.body.get("data"), list):
                raise errors.unreadable(page.address, "no list of runs in it")
            runs = page.objects("data")
            for run in runs:
                if run.object("metadata").text(TOKEN_KEY) == token:
                    return await self._seen(run, thread or "")
            more = bool(page.body.get("has_more"))
            # A full page that denies more is asked on all the same: some servers just cut the list there.
            if _ends_before(runs, oldest) or not (more or len(runs) >= _PAGE):
                return None
            after = runs[-1].text("id") if runs else None
            if after is None or after in asked:
                if more:
                    break
                return None
            asked.add(after)
        # Not None, which would let another run be created.
        raise errors.unreadable(self._caller.address, "the thread's list of runs comes to no end")

    async def _page(self, thread: str, after: str | None) -> Answer:
        more = absent_is_omitted({"after": after})
        return await self._caller.call(
            lambda c: AsyncRuns(c).with_raw_response.list(thread, limit=_PAGE, order="desc", **more)
        )

    async def _messages(self, run_id: str, thread: str) -> list[Answer]:
        """What the run wrote, oldest first. A server that has no such list gives no answer to keep."""
        try:
            page = await self._caller.call(
                lambda c: AsyncMessages(c).with_raw_response.list(thread, run_id=run_id, limit=_PAGE, order="asc"),
                doing="optional",
            )
        except CallFailedError as error:
            if error.failure.reason in (Reason.NOT_FOUND, Reason.REFUSED):
                return []
            raise
        return [
            message
            for message in page.objects("data")
            if message.text("run_id") in (None, run_id) and message.text("role") == "assistant"
        ]

    async def _steps(self, run_id: str, thread: str) -> list[Answer] | None:
        """The run's steps, oldest first, at most ten pages of them; None where the server does not list them."""
        steps: dict[str, Answer] = {}
        after: str | None = None
        for _ in range(_MAX_STEP_PAGES):
            try:
                page = await self._step_page(run_id, thread, after)
            except CallFailedError:
                return None
            if not isinstance(page.body.get("data"), list):
                return None
            known, listed = len(steps), page.objects("data")
            steps |= {step.id("id") or "": step for step in listed}
            # A full page that denies more is asked on all the same: some servers just cut the list there.
            if len(steps) == known or not (page.body.get("has_more") or len(listed) >= _PAGE):
                break
            after = listed[-1].id("id")
        return list(steps.values())

    async def _step_page(self, run_id: str, thread: str, after: str | None) -> Answer:
        more = absent_is_omitted({"after": after})
        return await self._caller.call(
            lambda c: AsyncSteps(c).with_raw_response.list(run_id, thread_id=thread, limit=_PAGE, order="asc", **more)
        )
