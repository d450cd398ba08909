"""OpenAI's own API description as a judge of what is sent, where a copy of it lies beside the checkout."""

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

DESCRIPTION = Path(__file__).parents[2].parent / "shared/openai-openapi/openapi.yaml"


def _nullable(schema: Any) -> Any:
    """`schema` with OpenAPI 3.0's `nullable: true`, which the 3.1 file still uses here and there, as JSON Schema."""
    if isinstance(schema, list):
        return [_nullable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {name: _nullable(value) for name, value in schema.items() if name != "nullable"}
    return {"anyOf": [rest, {"type": "null"}]} if schema.get("nullable") is True else rest


@functools.cache
def _registry() -> Registry[Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    components = yaml.load(DESCRIPTION.read_text(encoding="utf-8"), Loader=loader)["components"]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": _nullable(components)}
    return Registry().with_resource("urn:openai", Resource.from_contents(schema, default_specification=DRAFT202012))


def schema_errors(name: str, body: Any) -> list[str]:
    """What the schema `name` has against `body`. Skips the test where there is no description."""
    if not DESCRIPTION.exists():
        pytest.skip("OpenAI's API description does not lie beside this checkout")
    validator = Draft202012Validator({"$ref": f"urn:openai#/components/schemas/{name}"}, registry=_registry())
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(body)]
