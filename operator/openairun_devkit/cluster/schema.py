"""Structural schemas: what the API server does with a custom resource before it stores it.

In its order: fields that the schema does not know are pruned, then nulls that are not allowed, then defaults are set,
then types and bounds are checked (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
custom-resource-definitions/). CEL rules come last; they are in `rules`.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from openairun_devkit.cluster.errors import Cause

Schema = dict[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_KEYWORDS = {
    "additionalProperties", "default", "description", "enum", "example", "exclusiveMaximum", "exclusiveMinimum",
    "externalDocs", "format", "items", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength",
    "minProperties", "minimum", "nullable", "pattern", "properties", "required", "title", "type",
    "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-validations",
    _PRESERVE,
}  # fmt: skip
_FORMATS = {"int32", "int64", "date-time"}


def unsupported(schema: Schema, path: str = "") -> Iterator[str]:
    """What is in the schema and would not be enforced here."""
    yield from (f"{path}: keyword {word}" for word in schema if word not in _KEYWORDS)
    if (form := schema.get("format", "int32")) not in _FORMATS:
        yield f"{path}: format {form}"
    for name, sub in schema.get("properties", {}).items():
        yield from unsupported(sub, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(sub := schema.get(name), dict):
            yield from unsupported(sub, f"{path}.{name}")


def children(value: Any, schema: Schema, path: str) -> Iterator[tuple[Any, Schema, str]]:
    """The parts of a value that the schema speaks of, each with its schema and path."""
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, part in value.items():
            sub = properties.get(name, others)
            if isinstance(sub, dict):
                yield part, sub, join(path, name)
    elif isinstance(value, list) and "items" in schema:
        for index, part in enumerate(value):
            yield part, schema["items"], f"{path}[{index}]"


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def prune(value: Any, schema: Schema, path: str = "", skip: Iterable[str] = ()) -> list[str]:
    """Remove in place what the schema does not know, and return the paths, sorted. `skip`: names left alone."""
    gone: list[str] = []
    if isinstance(value, dict) and not schema.get(_PRESERVE) and "additionalProperties" not in schema:
        known = {*schema.get("properties", {}), *skip}
        for name in [name for name in value if name not in known]:
            del value[name]
            gone.append(join(path, name))
    for part, sub, where in children(value, schema, path):
        if path or where not in skip:
            gone += prune(part, sub, where)
    return sorted(gone)


def drop_nulls(value: Any, schema: Schema) -> None:
    """Remove in place nulls where the schema does not allow them: they count as absent."""
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name in [name for name, part in value.items() if part is None]:
            sub = properties.get(name, others)
            if isinstance(sub, dict) and not sub.get("nullable"):
                del value[name]
    for part, sub, _ in children(value, schema, ""):
        drop_nulls(part, sub)


def set_defaults(value: Any, schema: Schema) -> None:
    """Set in place the defaults of what is absent."""
    if isinstance(value, dict):
        for name, sub in schema.get("properties", {}).items():
            if name not in value and "default" in sub:
                value[name] = copy.deepcopy(sub["default"])
    for part, sub, _ in children(value, schema, ""):
        set_defaults(part, sub)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "number": _is_number,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _type_of(value: Any) -> str:
    return next((name for name, test in _TYPES.items() if test(value)), "null")


def validate(value: Any, schema: Schema, path: str = "", shown: str = "") -> list[Cause]:
    """Types, bounds, enums, formats, what is required. `shown` is the path inside messages, where it differs."""
    wanted = schema.get("type")
    if value is None and schema.get("nullable"):
        return []
    if wanted is not None and not _TYPES[wanted](value):
        is_type = json.dumps(_type_of(value))
        text = f"Invalid value: {is_type}: {shown} in body must be of type {wanted}: {is_type}"
        return [Cause(path, "FieldValueTypeInvalid", text)]
    causes = list(_bounds(value, schema, path, shown))
    if isinstance(value, dict):
        causes += [
            Cause(join(path, name), "FieldValueRequired", "Required value")
            for name in schema.get("required", ())
            if name not in value
        ]
    for (part, sub, where), (_, _, where_shown) in zip(
        children(value, schema, path), children(value, schema, shown), strict=True
    ):
        causes += validate(part, sub, where, where_shown)
    if isinstance(value, list):
        causes += _duplicates(value, schema, path)
    return causes


def _bounds(value: Any, schema: Schema, path: str, shown: str) -> Iterator[Cause]:
    def wrong(text: str, kind: str = "Invalid") -> Cause:
        told = json.dumps(value, ensure_ascii=False)
        return Cause(path, f"FieldValue{kind}", f"Invalid value: {told}: {shown} in body {text}")

    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(json.dumps(each) for each in schema["enum"])
        text = f"Unsupported value: {json.dumps(value)}: supported values: {supported}"
        yield Cause(path, "FieldValueNotSupported", text)
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            text = f"Too long: may not be more than {schema['maxLength']} bytes"
            yield Cause(path, "FieldValueTooLong", text)
        if len(value) < schema.get("minLength", 0):
            yield wrong(f"should be at least {schema['minLength']} chars long")
        if (pattern := schema.get("pattern")) and not re.search(pattern, value):
            yield wrong(f"should match '{pattern}'")
        if schema.get("format") == "date-time" and not _is_time(value):
            yield wrong(f"must be of type date-time: {json.dumps(value)}", "TypeInvalid")
    elif _is_number(value):
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and (value <= low if schema.get("exclusiveMinimum") else value < low):
            yield wrong(f"should be greater than {'' if schema.get('exclusiveMinimum') else 'or equal to '}{low}")
        if high is not None and (value >= high if schema.get("exclusiveMaximum") else value > high):
            yield wrong(f"should be less than {'' if schema.get('exclusiveMaximum') else 'or equal to '}{high}")
        bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
        if bits is not None and not -(2**bits) <= value < 2**bits:
            yield wrong(f"must be of type {schema['format']}: {value}", "TypeInvalid")
    elif isinstance(value, list | dict):
        noun = "Items" if isinstance(value, list) else "Properties"
        size, most, least = len(value), schema.get(f"max{noun}"), schema.get(f"min{noun}", 0)
        if most is not None and size > most:
            yield Cause(path, "FieldValueTooMany", f"Too many: {size}: must have at most {most} items")
        if size < least:
            yield Cause(
                path, "FieldValueInvalid", f"Invalid value: {size}: {shown} in body should have at least {least} items"
            )


def _is_time(text: str) -> bool:
    """RFC 3339."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", text):
        return False
    try:
        datetime.fromisoformat(re.sub(r"\.\d+", "", text).upper())
    except ValueError:
        return False
    return True


def _duplicates(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("map", "set"):
        return
    seen: list[Any] = []
    for index, part in enumerate(value):
        key = part
        if kind == "map":
            names = schema["x-kubernetes-list-map-keys"]
            key = {name: part[name] for name in names if name in part} if isinstance(part, dict) else part
        if key in seen:
            told = json.dumps(key, separators=(",", ":"))
            yield Cause(f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {told}")
        seen.append(key)
