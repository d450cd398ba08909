"""Structured answers: a JSON text in the form that was asked for."""

import json
from typing import Any


def answer(form: Any, text: str) -> str:
    """`text` in the form: ``{"type": "json_schema", …}`` of either wire, ``{"type": "json_object"}``, else as it is."""
    if not isinstance(form, dict) or form.get("type") not in ("json_schema", "json_object"):
        return text
    if form["type"] == "json_object":
        return json.dumps({"answer": text})
    schema = (form.get("json_schema") or form).get("schema") or {}
    return json.dumps(_instance(schema, schema, text))


def _instance(schema: dict[str, Any], root: dict[str, Any], text: str) -> Any:
    """A value that keeps to the schema, as far as types, choices and references to its own definitions go."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].split("/")[1:]:
            found = found[part]
        return _instance(found, root, text)
    if "anyOf" in schema:
        return _instance(schema["anyOf"][0], root, text)
    kinds = schema.get("type", "object")
    match kinds if isinstance(kinds, str) else kinds[0]:
        case "object":
            return {name: _instance(sub, root, text) for name, sub in schema.get("properties", {}).items()}
        case "array":
            return [_instance(schema.get("items", {}), root, text)] * schema.get("minItems", 1)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
    return text
