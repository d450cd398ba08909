"""Label and field selectors, as they come in a query."""

from __future__ import annotations

import re
from collections.abc import Callable

from openairun_devkit.cluster.errors import bad_request
from openairun_devkit.cluster.resources import EVENTS, Body, Resource

Selector = Callable[[Body], bool]

_SET = re.compile(r"\s*([\w./-]+)\s+(in|notin)\s*\(([^)]*)\)\s*(?:,|$)")
_PLAIN = re.compile(r"\s*(!?)\s*([\w./-]+)\s*(?:(==|!=|=)\s*([\w./-]*))?\s*(?:,|$)")


def selector(labels: str, fields: str, resource: Resource) -> Selector:
    """True for objects that match both. Raises ApiError for what no API server would understand."""
    tests = [*_labels(labels), *_fields(fields, resource)]
    return lambda body: all(test(body) for test in tests)


def _labels(text: str) -> list[Selector]:
    tests: list[Selector] = []
    position = 0
    while position < len(text):
        if match := _SET.match(text, position):
            name, verb, values = match.groups()
            wanted = {value.strip() for value in values.split(",")}
            tests.append(_label(name, lambda v, wanted=wanted, yes=verb == "in": (v in wanted) is yes))  # type: ignore[misc]
        elif match := _PLAIN.match(text, position):
            absent, name, operator, value = match.groups()
            if operator is None:
                tests.append(_label(name, lambda v, absent=absent: (v is None) is bool(absent)))  # type: ignore[misc]
            else:
                tests.append(_label(name, lambda v, value=value, yes=operator != "!=": (v == value) is yes))  # type: ignore[misc]
        else:
            raise bad_request(f"unable to parse requirement: {text[position:]}")
        position = match.end()
    return tests


def _label(name: str, test: Callable[[str | None], bool]) -> Selector:
    return lambda body: test((body["metadata"].get("labels") or {}).get(name))


def _fields(text: str, resource: Resource) -> list[Selector]:
    tests: list[Selector] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([\w.]+?)(==|!=|=)(.*)", part)
        if match is None:
            raise bad_request(f"invalid selector: {part}")
        path, operator, value = match.groups()
        if resource != EVENTS and path not in ("metadata.name", "metadata.namespace"):
            raise bad_request(f"field label not supported: {path}")
        tests.append(lambda body, p=path, v=value, yes=operator != "!=": (_field(body, p) == v) is yes)  # type: ignore[misc]
    return tests


def _field(body: Body, path: str) -> str:
    value: object = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else str(value)
