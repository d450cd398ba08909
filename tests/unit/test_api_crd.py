"""The CRD: what is checked in is what the models say, and an API server takes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import ASSISTANTS, BAD_REQUEST, NO_ANSWER, NO_CREDENTIALS, RESPONSES, World, record

from openairun_operator.api.crd import custom_resource_definition
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.api.spec import DEFINING, OpenAIRunSpec
from openairun_operator.api.status import OpenAIRunStatus, Output, PastRun, RequiredAction, ToolCall, Usage
from openairun_operator.lifecycle import status as st

FILE = Path(__file__).parents[2] / "deploy/crds/openairun.dev_openairuns.yaml"
CRD = custom_resource_definition()
SCHEMA: dict[str, Any] = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC: dict[str, Any] = SCHEMA["properties"]["spec"]
STATUS: dict[str, Any] = SCHEMA["properties"]["status"]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, by path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for kind, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(kind), dict):
            yield from nodes(node[kind], path + mark)


def violations(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """What an API server would refuse or prune: types, enums, required and unknown fields, lengths."""
    out: list[str] = []
    types: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": (int, float),
    }
    if not isinstance(value, types[schema["type"]]) or (schema["type"] != "boolean" and isinstance(value, bool)):
        return [f"{path}: {value!r} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        out.append(f"{path}: {value!r} is none of {schema['enum']}")
    if isinstance(value, str) and len(value) > schema.get("maxLength", 10**9):
        out.append(f"{path}: too long")
    if isinstance(value, list):
        out += [v for i, item in enumerate(value) for v in violations(schema["items"], item, f"{path}[{i}]")]
    if isinstance(value, dict) and "properties" in schema:
        out += [f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value]
        for name, child in value.items():
            known = schema["properties"].get(name)
            out += violations(known, child, f"{path}.{name}") if known else [f"{path}.{name}: unknown"]
    return out


def test_the_file_is_what_the_models_say() -> None:
    assert yaml.safe_load(FILE.read_text()) == CRD, "write it anew: make crd"


def test_every_node_is_structural() -> None:
    for path, node in nodes(SCHEMA):
        assert isinstance(node.get("type"), str), path
        assert not node.keys() & {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "const", "title", "nullable"}, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert node["type"] != "array" or "items" in node, path
        described = node["type"] == "object" and not (
            {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"} & node.keys()
        )
        assert not described or path == ".metadata", f"{path}: an object of nothing loses all it holds"


def test_every_property_is_described() -> None:
    for top in (SPEC, STATUS):
        missing = [
            f"{path}.{name}"
            for path, node in nodes(top)
            for name, child in node.get("properties", {}).items()
            if not child.get("description")
        ]
        assert missing == []


def test_an_object_that_nobody_has_looked_at_does_not_pass_for_ready() -> None:
    assert STATUS["default"] == {"observedGeneration": -1}
    assert STATUS["properties"]["observedGeneration"]["default"] == -1


def test_status_is_a_subresource_and_all_is_in_one_namespaced_version() -> None:
    (version,) = CRD["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert version["served"] is version["storage"] is True
    assert CRD["spec"]["scope"] == "Namespaced"


def test_what_defines_a_run_has_no_default() -> None:
    for name in (*DEFINING, "timeout", "pollingInterval"):
        for path, node in nodes(SPEC["properties"][name], name):
            assert "default" not in node, f"{path}: a new default would look like a new definition"
        field = OpenAIRunSpec.model_fields[name]
        assert field.default is None


def test_every_defining_name_is_a_field_of_the_spec() -> None:
    assert set(DEFINING) <= SPEC["properties"].keys() == OpenAIRunSpec.model_fields.keys()
    assert len(set(DEFINING)) == len(DEFINING)


def test_phases_are_no_enum_and_have_no_bound() -> None:
    for node in (STATUS["properties"]["phase"], STATUS["properties"]["history"]["items"]["properties"]["phase"]):
        assert not node.keys() & {"enum", "maxLength", "x-kubernetes-validations"}


def test_ids_of_any_length_fit() -> None:
    for name in ("runID", "threadID", "conversationID"):
        assert "maxLength" not in STATUS["properties"][name]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_fits_a_condition(reason: Reason) -> None:
    assert reason.isalnum()
    assert reason[0].isupper()
    node = STATUS["properties"]["conditions"]["items"]["properties"]["reason"]
    assert node.get("minLength", 1) <= len(reason) <= node["maxLength"]


def test_the_list_of_conditions_is_a_map_by_type() -> None:
    node = STATUS["properties"]["conditions"]
    assert node["x-kubernetes-list-type"] == "map"
    assert node["x-kubernetes-list-map-keys"] == ["type"]


@pytest.mark.parametrize("api", ["Responses", "Assistants"])
@pytest.mark.parametrize("state", ["claimed", "created", "refused", "released"])
def test_every_record_fits_the_status(state: str, api: str) -> None:
    rec = record(state=state, api=api, thread="thread_1", createAgain="", credential="c")
    status = OpenAIRunStatus(
        record=rec,
        api=rec.api,
        phase="WhateverComes",
        history=[PastRun(api=rec.api, phase="WhateverComes")],
        output=Output(text="a", bytes=1, truncated=False),
        requiredAction=RequiredAction(toolCalls=[ToolCall(id="a", name="b", arguments="{}")]),
        usage=Usage(totalTokens=1),
    )
    assert violations(STATUS, st.dump(status)) == []
    required = STATUS["properties"]["record"]["required"]
    assert set(required) == {name for name, field in Record.model_fields.items() if field.is_required()}


@pytest.mark.parametrize(
    "spec", [RESPONSES, ASSISTANTS, {"input": "no model"}], ids=["responses", "assistants", "none"]
)
@pytest.mark.parametrize("trouble", [None, BAD_REQUEST, NO_ANSWER, NO_CREDENTIALS], ids=str)
def test_every_status_that_is_written_is_one_that_the_crd_takes_whole(spec: dict[str, Any], trouble: Any) -> None:
    world = World(spec)
    if trouble is NO_CREDENTIALS:
        world.blocked = trouble
    elif trouble:
        world.server.creates.append(trouble)
    for _ in range(60):
        step = world.step()
        assert violations(STATUS, world.object["status"]) == []
        if step is False:
            break
        if step is not True:
            world.now = step
