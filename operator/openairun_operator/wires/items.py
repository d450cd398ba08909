"""What both wires read alike in the pieces of a run: its steps, its output, its messages."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

_MAX_FILES: Final = 200
_MAX_VALUES: Final = 100_000
"""Values of an answer that are looked at for ids of files."""


def details(body: Mapping[str, Any], besides: Collection[str]) -> str | None:
    """The fields of `body` but those named, as JSON text; None if there are none, or they are nested too deep."""
    fields = {name: value for name, value in body.items() if name not in besides}
    try:
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) if fields else None
    except RecursionError:
        return None


def file_ids(values: Iterable[Any]) -> tuple[str, ...]:
    """What stands under `file_id` or in `file_ids` anywhere in `values`: each once, in order, the first 200.

    OpenAI names files so wherever they occur: citations, attachments, images, search results.
    """
    found: dict[str, None] = {}
    waiting = list(values)[::-1]
    looked_at = 0
    while waiting and len(found) < _MAX_FILES and looked_at < _MAX_VALUES:
        value = waiting.pop()
        looked_at += 1
        if isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, dict):
            named = value.get("file_ids")
            for id_ in [value.get("file_id"), *(named if isinstance(named, list) else [])]:
                if isinstance(id_, str) and id_ and id_.isprintable():
                    found[id_] = None
            waiting.extend(reversed(value.values()))
    return tuple(found)[:_MAX_FILES]
