"""A server that repeats the key that it was sent, in whatever form and wherever it can."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from openairun_operator.lifecycle import text

KEYS = {
    "OpenAI's": "sk-proj-abcdefghij0123456789",
    "Azure's": "0123456789abcdef0123456789abcdef",
    "short": "pass1234",
    "a word": "correcthorsebatterystaple",
    "long": "team-" + "0123456789abcdef" * 60,
    "ends in a newline": "team-key-0123456789\n",
    "in quotes": '"team-key-0123456789"',
    "a quote in it": "team\"key'0123456789",
    "a backslash in it": "team\\key\\n0123456789",
    "Base64": "dGVh/bSBr+ZXkgMDEyMzQ1Njc4OQ==",
    "a percent sign in it": "team%key%2F0123456789",
    "HTML in it": "team<key>&0123456789",
    "a pattern": "team.*(key)[0-9]+0123456789$",
    "a space in it": "team key 0123456789",
}


def written(key: str) -> list[str]:
    """How a server may write the key that it was sent, in one line."""
    key = key.strip()
    in_json = json.dumps(key)[1:-1]
    percent = quote(key, safe="")
    return [
        key,
        key.strip("\"'"),
        in_json,
        json.dumps(in_json)[1:-1],
        in_json.replace("/", "\\/"),
        in_json.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        key.replace("\\", "\\\\").replace('"', "\\u0022").replace("'", "\\u0027").replace("+", "\\u002B"),
        repr(key)[1:-1],
        percent,
        percent.lower() if key == key.lower() else percent,
        quote(key),
        quote_plus(key),
        html.escape(key),
        html.escape(key).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        *(base64.b64encode(before + key.encode()).decode() for before in (b"", b":", b"me:")),
        base64.urlsafe_b64encode(key.encode()).decode(),
    ]


def shows(key: str, said: str) -> bool:
    """Whether the key can be read out of what is said; of Base64 the first and the last letter tell nothing."""
    plain = text.clean(said)
    return any(each[4:-6] in plain if each.endswith("=") else each in plain for each in written(key))


def echoed_run(api: str, status: str, said: str) -> dict[str, Any]:
    """A run with `said` in every field that is read, and as a field's name."""
    error = {"code": said, "message": f"I saw {said}"}
    shared = {"id": "id_1", "object": said, "status": status, "model": said, "created_at": 1, "metadata": {said: said}}
    if api == "Responses":
        texts = [{"type": "output_text", "text": said, "annotations": [{"file_id": said, said: said}]}]
        items = [
            {"type": "message", "id": said, "status": said, "role": "assistant", "content": texts},
            {"type": "function_call", "call_id": "call_1", "name": said, "arguments": json.dumps({"a": said})},
            {"type": "function_call", "call_id": said, "name": said, "arguments": said},
            {"type": said, "id": "item_1", said: [said]},
        ]
        return {**shared, "error": error, "incomplete_details": {"reason": said}, "output": items}
    calls = [{"id": "call_1", "type": "function", "function": {"name": said, "arguments": json.dumps({"a": said})}}]
    return {
        **shared,
        "thread_id": said,
        "last_error": error,
        "incomplete_details": {"reason": said},
        "required_action": {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}},
    }


def texts(value: Any) -> Iterator[str]:
    """Every text in a value."""
    match value:
        case str():
            yield value
        case dict():
            for name, item in value.items():
                yield from (*texts(name), *texts(item))
        case list() | tuple():
            for item in value:
                yield from texts(item)
