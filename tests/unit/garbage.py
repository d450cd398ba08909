"""Answers of a server that is not trusted: any JSON of any shape, runs with some odd fields, and what is no JSON."""

import json
from typing import Any, Final

from hypothesis import strategies as some
from hypothesis.strategies import SearchStrategy

from openairun_operator.api.names import TOKEN_KEY

_TEXTS: Final = some.one_of(
    some.text(some.characters(), max_size=12),  # lone surrogates too: JSON can escape them
    some.sampled_from(["", "\x00", "\x1b[31m", "\ud800", "sk-abcdefgh12345678", "x" * 5000, "🚀" * 40_000, "resp_1"]),
)
_STATUSES: Final = some.one_of(
    some.sampled_from(["queued", "in_progress", "requires_action", "cancelling", "cancelled", "completed"]),
    some.sampled_from(["failed", "incomplete", "expired", "pending", "Completed", " ", "\ud800", "9" * 200]),
)
_NUMBERS: Final = some.one_of(
    some.integers(-(2**64), 2**64),
    some.sampled_from([2**63 - 1, 2**63 - 2, 10**30, 1_790_000_000, 1_790_000_000_000, 1e11, 1e14, 253402300800]),
    some.floats(),
)
_NAMES: Final = some.one_of(
    some.sampled_from(["id", "status", "output", "content", "text", "value", "type", "data", "has_more", "usage"]),
    some.sampled_from(["error", "message", "code", "file_id", "file_ids", "call_id", "name", "arguments", "run_id"]),
)
JSON: Final[SearchStrategy[Any]] = some.recursive(
    some.one_of(some.none(), some.booleans(), _NUMBERS, _TEXTS, _STATUSES),
    lambda inner: some.one_of(some.lists(inner, max_size=3), some.dictionaries(_NAMES | _TEXTS, inner, max_size=4)),
    max_leaves=8,
)


@some.composite
def _odd(draw: some.DrawFn, likely: SearchStrategy[Any]) -> Any:
    """Mostly what is likely."""
    return draw(JSON if draw(some.integers(0, 7)) == 7 else likely)


def _object(**fields: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return _odd(some.fixed_dictionaries({}, optional=fields))


def _several(item: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return _odd(some.lists(item, max_size=3) | item.map(lambda each: [each] * (130 if len(repr(each)) < 500 else 1)))


_IDS: Final = _odd(some.sampled_from(["resp_1", "resp_2", "call_1", "call_2", "run_1"]))
_WORDS: Final = _odd(_TEXTS)
_COUNTS: Final = _odd(_NUMBERS)
_TEXT_PART: Final = _object(
    type=some.sampled_from(["output_text", "refusal", "text"]),
    text=_odd(_TEXTS | _object(value=_WORDS, annotations=JSON)),
    refusal=_WORDS,
    file_id=_WORDS,
)
_ITEM: Final = _object(
    id=_IDS,
    type=_odd(
        some.sampled_from(["message", "function_call", "custom_tool_call", "mcp_approval_request", "reasoning"])
        | some.sampled_from(["function_call_output", "custom_tool_call_output", "mcp_approval_response"])
    ),
    status=_STATUSES,
    call_id=_IDS,
    approval_request_id=_IDS,
    name=_WORDS,
    arguments=_WORDS,
    input=_WORDS,
    server_label=_WORDS,
    content=_several(_TEXT_PART),
    role=some.sampled_from(["assistant", "user"]),
    run_id=_IDS,
    step_details=JSON,
    function=_object(name=_WORDS, arguments=_WORDS),
)
_DETAILS: Final = _object(cached_tokens=_COUNTS, reasoning_tokens=_COUNTS)
_RUN: Final = some.fixed_dictionaries(
    {"id": _IDS, "status": _odd(_STATUSES)},
    optional={
        "object": _WORDS,
        "model": _WORDS,
        "output": _several(_ITEM),
        "error": _object(code=_WORDS, message=_WORDS),
        "last_error": _object(code=_WORDS, message=_WORDS),
        "incomplete_details": _object(reason=_WORDS),
        "required_action": _object(submit_tool_outputs=_object(tool_calls=_several(_ITEM))),
        "conversation": _object(id=_WORDS),
        "thread_id": _WORDS,
        "usage": _object(
            input_tokens=_COUNTS,
            output_tokens=_COUNTS,
            prompt_tokens=_COUNTS,
            completion_tokens=_COUNTS,
            total_tokens=_COUNTS,
            input_tokens_details=_DETAILS,
            output_tokens_details=_DETAILS,
        ),
        "created_at": _COUNTS,
        "started_at": _COUNTS,
        "completed_at": _COUNTS,
        "failed_at": _COUNTS,
        "expires_at": _COUNTS,
        # A server may answer any question with what belongs to another.
        "data": _several(_ITEM),
        "has_more": _odd(some.booleans()),
        "metadata": some.just({TOKEN_KEY: "token-1"}),
    },
)
_LIST: Final = some.fixed_dictionaries({"data": _several(_RUN)}, optional={"has_more": _odd(some.booleans())})
_ERROR: Final = some.fixed_dictionaries({"error": _object(code=_WORDS, message=_WORDS, type=_WORDS)})
_DEEP: Final = some.builds(
    lambda text, depth: text.replace("@", "[" * depth + "]" * depth),
    some.sampled_from(
        [
            "@",
            '{"error": {"message": @}}',
            '{"error": {"code": @, "message": "x"}}',
            '{"error": @}',
            '{"id": "resp_1", "status": "failed", "output": [{"type": "reasoning", "content": @}]}',
            '{"id": "resp_1", "status": "completed", "usage": @, "error": {"message": @}}',
        ]
    ),
    some.integers(300, 3000),
)
_ANY: Final = some.one_of(
    some.one_of(_RUN, _RUN, _RUN, _LIST, _ERROR, JSON).map(json.dumps),
    some.sampled_from(["", "null", "<html>", '{"id": "resp_1", "sta', "\ufeff{}", '{"id": ' + "9" * 5000 + "}"]),
    _DEEP,
)


@some.composite
def bodies(draw: some.DrawFn) -> str:
    """Bodies of answers, as text."""
    return draw(_ANY)


HEADERS: Final[SearchStrategy[dict[str, str]]] = some.dictionaries(
    some.sampled_from(["retry-after", "retry-after-ms", "openai-poll-after-ms", "content-type", "x-request-id"]),
    some.sampled_from(["0", "-1", "1e400", "nan", "inf", "9" * 400, "text/html", "application/json", "", "\x7f"]),
    max_size=2,
)
