"""Tables as kubectl asks for them (meta.k8s.io/v1): the columns of a kind, and their values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from openairun_devkit.cluster.resources import EVENTS, Body, Column, Resource

_STEP = re.compile(
    r"""\.(?P<name>[\w/-]+) | \['(?P<quoted>[^']+)'\] | \[(?P<index>\d+)\] | \[(?P<all>\*)\]
    | \[\?\(@\.(?P<field>[\w.]+)\s*==\s*["'](?P<value>[^"']*)["']\)\]""",
    re.VERBOSE,
)


def json_path(body: Any, path: str) -> list[Any]:
    """All that a JSONPath finds. Known: names, [0], [*] and a filter for one equal field."""
    found, position = [body], 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise ValueError(f"JSONPath {path} is not understood at {path[position:]}")
        position = step.end()
        if name := step["name"] or step["quoted"]:
            found = [each[name] for each in found if isinstance(each, dict) and name in each]
        else:
            lists = [each for each in found if isinstance(each, list)]
            if step["index"]:
                index = int(step["index"])
                found = [each[index] for each in lists if index < len(each)]
            else:
                found = [part for each in lists for part in each if step["all"] or _matches(part, step)]
    return found


def _matches(part: Any, step: re.Match[str]) -> bool:
    return step["value"] in json_path(part, f".{step['field']}")


def human_duration(seconds: float) -> str:
    """An age in kubectl's words (k8s.io/apimachinery/pkg/util/duration.HumanDuration)."""
    if seconds < -1:
        return "<invalid>"
    s = max(0, int(seconds))
    m, h, d = s // 60, s // 3600, s // 86400
    if s < 120:
        return f"{s}s"
    if m < 10:
        return f"{m}m{s % 60}s" if s % 60 else f"{m}m"
    if m < 180:
        return f"{m}m"
    if h < 8:
        return f"{h}h{m % 60}m" if m % 60 else f"{h}h"
    if h < 48:
        return f"{h}h"
    if d < 8:
        return f"{d}d{h % 24}h" if h % 24 else f"{d}d"
    if d < 730:
        return f"{d}d"
    return f"{d // 365}y{d % 365}d" if d < 365 * 8 and d % 365 else f"{d // 365}y"


def _cell(body: Body, column: Column, now: datetime) -> Any:
    found = json_path(body, column.path)
    if not found or found[0] is None:
        return None
    value = found[0]
    if column.type == "date":
        try:
            return human_duration((now - datetime.fromisoformat(value)).total_seconds())
        except (TypeError, ValueError):
            return "<invalid>"
    if column.type in ("integer", "number", "boolean"):
        return value
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _event_object(body: Body) -> str:
    involved = body.get("involvedObject", {})
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


def cells(resource: Resource, body: Body, now: datetime | None = None) -> list[Any]:
    """An object's row."""
    now = now or datetime.now(UTC)
    values = [_cell(body, column, now) for column in resource.columns]
    if resource == EVENTS:
        values[3] = _event_object(body)
        return values
    return [body["metadata"]["name"], *values]


def _definitions(resource: Resource) -> list[Body]:
    definitions: list[Body] = [
        {"name": c.name, "type": c.type, "format": "", "description": c.description, "priority": c.priority}
        for c in resource.columns
    ]
    if resource == EVENTS:
        return definitions
    name = {"name": "Name", "type": "string", "format": "name", "description": "The object's name", "priority": 0}
    return [name, *definitions]


def table(
    resource: Resource,
    bodies: Iterable[Body],
    version: str,
    *,
    include: str = "Metadata",
    api_version: str = "meta.k8s.io/v1",
    headed: bool = True,
) -> Body:
    """A Table. `include` is the query's includeObject; `headed` False leaves out what a watch has told before."""
    now = datetime.now(UTC)
    shown: Callable[[Body], Body | None] = {"Object": lambda body: body, "None": lambda body: None}.get(
        include,
        lambda body: {"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": body["metadata"]},
    )
    return {
        "kind": "Table",
        "apiVersion": api_version,
        "metadata": {"resourceVersion": version},
        "columnDefinitions": _definitions(resource) if headed else None,
        "rows": [{"cells": cells(resource, body, now), "object": shown(body)} for body in bodies],
    }
