"""The CRD: what is checked in is what the models say, and an API server takes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import ASSISTANTS, BAD_REQUEST, NO_ANSWER, NO_CREDENTIALS, RESPONSES, World, record

from openairun_devkit.cluster.api import Api, Options
from openairun_devkit.cluster.errors import ApiError
from openairun_devkit.cluster.resources import CRDS
from openairun_operator.api.base import dump
from openairun_operator.api.crd import PLURALS, custom_resource_definition
from openairun_operator.api.names import API_VERSION, PLURAL, PROVIDER_KIND, PROVIDER_PLURAL
from openairun_operator.api.provider import Defaults, OpenAIProviderSpec, OpenAIProviderStatus
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.api.spec import DEFINING, OpenAIRunSpec
from openairun_operator.api.status import OpenAIRunStatus, Output, PastRun, RequiredAction, ToolCall, Usage

FOLDER = Path(__file__).parents[2] / "deploy/crds"
ALL = {plural: custom_resource_definition(plural) for plural in PLURALS}


def schema(plural: str) -> dict[str, Any]:
    found: dict[str, Any] = ALL[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


SPEC: dict[str, Any] = schema(PLURAL)["properties"]["spec"]
STATUS: dict[str, Any] = schema(PLURAL)["properties"]["status"]
PROVIDER: dict[str, Any] = schema(PROVIDER_PLURAL)["properties"]["spec"]
each_kind = pytest.mark.parametrize("plural", PLURALS)


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


@each_kind
def test_the_file_is_what_the_models_say(plural: str) -> None:
    file = FOLDER / f"openairun.dev_{plural}.yaml"
    assert yaml.safe_load(file.read_text()) == ALL[plural], "write it anew: make crd"


def test_every_crd_is_applied_with_the_others() -> None:
    applied = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(applied) == sorted(f"openairun.dev_{plural}.yaml" for plural in PLURALS)


@each_kind
def test_every_node_is_structural(plural: str) -> None:
    for path, node in nodes(schema(plural)):
        assert isinstance(node.get("type"), str), path
        assert not node.keys() & {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "const", "title", "nullable"}, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert node["type"] != "array" or "items" in node, path
        described = node["type"] == "object" and not (
            {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"} & node.keys()
        )
        assert not described or path == ".metadata", f"{path}: an object of nothing loses all it holds"


@each_kind
def test_every_property_is_described(plural: str) -> None:
    for top in (schema(plural)["properties"][part] for part in ("spec", "status")):
        missing = [
            f"{path}.{name}"
            for path, node in nodes(top)
            for name, child in node.get("properties", {}).items()
            if not child.get("description")
        ]
        assert missing == []


@each_kind
def test_an_object_that_nobody_has_looked_at_does_not_pass_for_ready(plural: str) -> None:
    status = schema(plural)["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}
    assert status["properties"]["observedGeneration"]["default"] == -1


@each_kind
def test_status_is_a_subresource_and_all_is_in_one_namespaced_version(plural: str) -> None:
    (version,) = ALL[plural]["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert version["served"] is version["storage"] is True
    assert ALL[plural]["spec"]["scope"] == "Namespaced"


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


@each_kind
def test_the_list_of_conditions_is_a_map_by_type(plural: str) -> None:
    node = schema(plural)["properties"]["status"]["properties"]["conditions"]
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
    assert violations(STATUS, dump(status)) == []
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


# --- the provider

KEY = {"name": "openai", "key": "api-key"}


@pytest.fixture(scope="module")
def api() -> Api:
    api = Api()
    for crd in ALL.values():
        api.create(CRDS, "", crd)
    return api


def provider(api: Api, /, name: str = "default", **spec: Any) -> dict[str, Any]:
    """A provider as the API server takes it, with what it adds."""
    kind = api.resources.find("openairun.dev", "v1alpha1", PROVIDER_PLURAL)
    assert kind is not None
    body = {"apiVersion": API_VERSION, "kind": PROVIDER_KIND, "metadata": {"name": name}}
    spec = {"apiKeySecretRef": KEY} | spec
    made: dict[str, Any] = api.create(
        kind, "default", body | {"spec": spec}, Options(dry_run=True, field_validation="Strict")
    )
    return made


def test_a_key_is_all_that_a_provider_needs(api: Api) -> None:
    made = provider(api)
    assert made["spec"] == {"apiKeySecretRef": KEY, "api": "Auto"}
    assert made["status"] == {"observedGeneration": -1}
    spec = OpenAIProviderSpec.model_validate(made["spec"])
    assert (spec.apiKeySecretRef.key, spec.api, spec.baseURL) == ("api-key", "Auto", None)
    assert OpenAIProviderStatus.model_validate(made["status"]).condition("Ready") is None


def test_a_provider_may_say_all_that_there_is(api: Api) -> None:
    spec = {
        "baseURL": "https://my-resource.openai.azure.com/openai/v1",
        "apiKeySecretRef": KEY,
        "organization": "org-1",
        "project": "proj_1",
        "api": "Responses",
        "azure": {"apiVersion": "2025-04-01-preview", "authentication": "BearerToken"},
        "caBundleFrom": {"configMapKeyRef": {"name": "authorities", "key": "ca.crt"}},
        "requestTimeout": "10m",
        "rateLimit": {"requestsPerMinute": 1_000_000, "burst": 1},
        "maxConcurrentRuns": 1,
        "defaults": {"model": "gpt-5-mini", "pollingInterval": "1s", "timeout": "168h"},
    }
    assert spec.keys() == OpenAIProviderSpec.model_fields.keys()
    assert provider(api, **spec)["spec"] == spec
    assert OpenAIProviderSpec.model_validate(spec).model_dump(exclude_none=True) == spec
    assert provider(api, azure={"apiVersion": "v1"}, baseURL="https://a")["spec"]["azure"]["authentication"] == "APIKey"


@pytest.mark.parametrize(
    "address",
    [
        "https://api.openai.com/v1", "http://127.0.0.1:8080", "https://[::1]:8080/v1/", "http://vllm.models.svc/v1",
        "https://example.com/a/b@c:d", "https://my_host/", f"https://a/{'a' * 1014}",
    ],
)  # fmt: skip
def test_an_address_that_a_provider_may_have(api: Api, address: str) -> None:
    assert provider(api, baseURL=address)["spec"]["baseURL"] == address


@pytest.mark.parametrize(
    "address",
    [
        "api.openai.com/v1", "ftp://example.com", "HTTPS://example.com", "https://", "https:///v1", "https://:8080/v1",
        "https://user:word@example.com/v1", "https://user@example.com", "https://example.com/v1?api-version=1",
        "https://example.com?x", "https://example.com/v1#part", "https://example.com/v 1", "https://example.com/v1\n",
        " https://example.com", "https://example.com:port", "https://exämple.com", "https://example.com/\t", "https://a\\@b",
    ],
)  # fmt: skip
def test_an_address_that_a_provider_may_not_have(api: Api, address: str) -> None:
    with pytest.raises(ApiError, match=r"baseURL is an http or https address such as https://api\.openai\.com/v1"):
        provider(api, baseURL=address)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"apiKeySecretRef": None}, "apiKeySecretRef", id="no key"),
        pytest.param({"apiKeySecretRef": {"name": "openai"}}, "apiKeySecretRef.key", id="half a key"),
        pytest.param({"baseURL": f"https://{'a' * 1017}"}, "1024", id="a long address"),
        pytest.param({"organization": "my org"}, "printable ASCII without spaces", id="a space"),
        pytest.param({"project": "proj\r\nX: y"}, "printable ASCII without spaces", id="another header"),
        pytest.param({"api": "Chat"}, "Auto", id="an API that there is not"),
        pytest.param({"baseURL": "https://a", "azure": {}}, "apiVersion", id="no version"),
        pytest.param(
            {"baseURL": "https://a", "azure": {"apiVersion": "v1&x=y"}}, "letters, digits", id="another parameter"
        ),
        pytest.param({"azure": {"apiVersion": "v1"}}, "azure needs baseURL", id="no resource"),
        pytest.param({"caBundleFrom": {}}, "write one of configMapKeyRef and secretKeyRef", id="no bundle"),
        pytest.param({"requestTimeout": "11m"}, "requestTimeout is a duration from 1s to 10m", id="a long time"),
        pytest.param({"requestTimeout": "0s"}, "requestTimeout is a duration from 1s to 10m", id="no time"),
        pytest.param({"rateLimit": {"burst": 1}}, "requestsPerMinute", id="no rate"),
        pytest.param({"rateLimit": {"requestsPerMinute": 0}}, "requestsPerMinute", id="none at all"),
        pytest.param({"maxConcurrentRuns": 0}, "maxConcurrentRuns", id="no run"),
        pytest.param({"maxConcurrentRuns": 1_000_001}, "maxConcurrentRuns", id="too many runs"),
        pytest.param({"defaults": {"model": " "}}, "model is a name", id="a blank model"),
        pytest.param({"defaults": {"timeout": "1 hour"}}, "timeout is a duration from 1s to 168h", id="no duration"),
    ],
)
def test_what_is_refused_of_a_provider(api: Api, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message):
        provider(api, **spec)


def test_no_provider_passes_for_the_operators_own(api: Api) -> None:
    with pytest.raises(ApiError, match="operator means the operator's own key: choose another name"):
        provider(api, "operator")


def test_defaults_have_the_rules_of_the_runs_fields() -> None:
    for name in Defaults.model_fields:
        ours, runs = PROVIDER["properties"]["defaults"]["properties"][name], SPEC["properties"][name]
        assert {**ours, "description": ""} == {**runs, "description": ""}


@each_kind
def test_no_field_can_name_another_namespace(plural: str) -> None:
    names = {path.rpartition(".")[2].lower() for path, _ in nodes(schema(plural))}
    assert len(names) > 30
    assert not [name for name in names if "namespace" in name]
    spec = {path: node for path, node in nodes(schema(plural)["properties"]["spec"]) if path.endswith("Ref")}
    assert spec
    assert {name for node in spec.values() for name in node["properties"]} == {"name", "key"}
