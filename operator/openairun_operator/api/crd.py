"""The CustomResourceDefinitions, made from the models: pydantic's JSON schema, turned structural.

The rules of structural schemas are in the Kubernetes documentation, "Extend the Kubernetes API with
CustomResourceDefinitions": a type on every node, no `$ref`, no unions, defaults that are whole values.
"""

from dataclasses import dataclass
from typing import Any, Final

from openairun_operator.api.base import Model
from openairun_operator.api.names import GROUP, KIND, PLURAL, PROVIDER_KIND, PROVIDER_PLURAL, VERSION
from openairun_operator.api.provider import OpenAIProviderSpec, OpenAIProviderStatus
from openairun_operator.api.rules import rule, rules
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.api.status import OpenAIRunStatus

_KEEP = (
    "type", "format", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties", "required", "x-kubernetes-validations", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-preserve-unknown-fields",
)  # fmt: skip


def _structural(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """One node of pydantic's schema as a structural one.

    Raises ValueError for what a structural schema cannot say, such as a union of two types.
    """
    if "$ref" in node:
        target = dict(definitions[node["$ref"].rsplit("/", 1)[1]])
        node = target | {k: v for k, v in node.items() if k != "$ref"}
    if "anyOf" in node:  # `X | None`: absent and null are the same to the API server
        kinds = [kind for kind in node["anyOf"] if kind.get("type") != "null"]
        if len(kinds) != 1:
            raise ValueError(f"not structural: {node}")
        rest = {k: v for k, v in node.items() if k != "anyOf"}
        return _structural(kinds[0] | rest, definitions)
    out: dict[str, Any] = {}
    if node.get("description"):
        out["description"] = " ".join(node["description"].split())
    out |= {key: node[key] for key in _KEEP if key in node}
    if "type" not in out:
        raise ValueError(f"no type: {node}")
    if node.get("default") is not None and node["default"] != []:
        out["default"] = node["default"]
    if "items" in node:
        out["items"] = _structural(node["items"], definitions)
    if "properties" in node:
        out["properties"] = {k: _structural(v, definitions) for k, v in node["properties"].items()}
    elif isinstance(node.get("additionalProperties"), dict) and node["additionalProperties"]:
        out["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    return out


def _schema(model: type[Model]) -> dict[str, Any]:
    schema = model.model_json_schema()
    return _structural(schema, schema.get("$defs", {}))


def _condition(type_: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


def _column(name: str, path: str, description: str, type_: str = "string", wide: bool = False) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": type_, "jsonPath": path, "description": description}
    return column | ({"priority": 1} if wide else {})


_AGE: Final = _column("Age", ".metadata.creationTimestamp", "When the resource was created", "date")


@dataclass(frozen=True)
class _Kind:
    """What the two kinds do not have in common."""

    kind: str
    plural: str
    short: str
    description: str
    spec: type[Model]
    status: type[Model]
    columns: list[dict[str, Any]]
    rules: list[dict[str, str]]


_RUN: Final = _Kind(
    kind=KIND,
    plural=PLURAL,
    short="oairun",
    description="A run at OpenAI: created when this is applied, followed until it is finished, cancelled when this is"
    " deleted.",
    spec=OpenAIRunSpec,
    status=OpenAIRunStatus,
    columns=[
        _column("Phase", ".status.phase", "The run's status at OpenAI"),
        _column("Ready", _condition("Ready", "status"), "Whether the resource is what was asked for"),
        _column("Model", ".status.model", "The model that answers"),
        _column("Run ID", ".status.runID", "The run's id at OpenAI"),
        _column("API", ".status.api", "The API that carries the run", wide=True),
        _column("Tokens", ".status.usage.totalTokens", "Tokens used", "integer", wide=True),
        _column("Started", ".status.startedAt", "When the run started", "date", wide=True),
        _column("Finished", ".status.finishedAt", "When the run was finished", "date", wide=True),
        _column("Reason", _condition("Ready", "reason"), "Why Ready is what it is", wide=True),
        _AGE,
    ],
    rules=[],
)
_PROVIDER: Final = _Kind(
    kind=PROVIDER_KIND,
    plural=PROVIDER_PLURAL,
    short="oaiprovider",
    description="An address and a key that runs in this namespace use: those that name it, and if it is called"
    " `default` those that name none.",
    spec=OpenAIProviderSpec,
    status=OpenAIProviderStatus,
    columns=[
        _column("Ready", _condition("Ready", "status"), "Whether runs can use it"),
        _column("Reason", _condition("Ready", "reason"), "Why Ready is what it is"),
        _column("Address", ".status.address", "The address that runs go to"),
        _column("APIs", ".status.apis", "The APIs that the server serves", wide=True),
        _column("In Flight", ".status.runsInFlight", "How many runs go", "integer"),
        _column("Waiting", ".status.runsWaiting", "How many runs wait for others to end", "integer"),
        _AGE,
    ],
    # Where a status or a record tells whose key was used, this word means the operator's own.
    rules=[rule("self.metadata.name != 'operator'", "operator means the operator's own key: choose another name")],
)
_KINDS: Final = {kind.plural: kind for kind in (_RUN, _PROVIDER)}
PLURALS: Final = tuple(_KINDS)
"""The kinds that have a CRD."""


def custom_resource_definition(plural: str = PLURAL) -> dict[str, Any]:
    """The whole CRD of the kind, as `kubectl apply` takes it."""
    kind = _KINDS[plural]
    status = _schema(kind.status)
    # Without this default an object that nobody has looked at yet would pass for ready (kstatus).
    status["default"] = {"observedGeneration": -1}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                "categories": ["openai"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": kind.columns,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": kind.description,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": _schema(kind.spec),
                                "status": status,
                            },
                        }
                        | (rules(*kind.rules) if kind.rules else {})
                    },
                }
            ],
        },
    }
