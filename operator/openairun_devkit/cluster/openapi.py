"""OpenAPI v3 documents: as much as kubectl's validation and `kubectl explain` look at.

kubectl looks for a PATCH with the parameter `fieldValidation` on a kind: then it leaves validation to the server.
`explain` reads the schema that bears the kind's x-kubernetes-group-version-kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from openairun_devkit.cluster.resources import Body, Registry, Resource

_TEXTS = {
    "apiVersion": "APIVersion defines the versioned schema of this representation of an object.",
    "kind": "Kind is a string value representing the REST resource this object represents.",
}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_METADATA = {
    "description": "Standard object's metadata.",
    "allOf": [{"$ref": f"#/components/schemas/{_META}"}],
}
_OBJECT_META = {
    "type": "object",
    "description": "ObjectMeta is metadata that all persisted resources must have.",
    "properties": {
        "name": {"type": "string", "description": "The name, unique within a namespace."},
        "namespace": {"type": "string", "description": "The namespace."},
        "labels": {"type": "object", "description": "Labels.", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "description": "Annotations.", "additionalProperties": {"type": "string"}},
    },
}


def index(registry: Registry) -> Body:
    """/openapi/v3: where each group's document is, under a hash of what is in it."""
    paths: Body = {}
    for resources in registry.groups().values():
        root = resources[0].root
        digest = hashlib.sha512(json.dumps(document(resources), sort_keys=True).encode()).hexdigest().upper()
        paths[root.removeprefix("/")] = {"serverRelativeURL": f"/openapi/v3{root}?hash={digest}"}
    return {"paths": paths}


def document(resources: Iterable[Resource]) -> Body:
    """A group's document."""
    paths: Body = {}
    schemas: Body = {_META: _OBJECT_META}
    for resource in resources:
        kind = {"group": resource.group, "kind": resource.kind, "version": resource.version}
        where = "/namespaces/{namespace}" if resource.namespaced else ""
        name = _schema_name(resource)
        reference = {"$ref": f"#/components/schemas/{name}"}
        content = {"description": "OK", "content": {"application/json": {"schema": reference}}}
        parameters = [
            {"name": parameter, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for parameter in ("dryRun", "fieldManager", "fieldValidation", "force")
        ]
        operation: Body = {"x-kubernetes-group-version-kind": kind, "responses": {"200": content}}
        paths[f"{resource.root}{where}/{resource.plural}"] = {
            "get": {**operation, "x-kubernetes-action": "list"},
            "post": {**operation, "x-kubernetes-action": "post", "parameters": parameters},
        }
        paths[f"{resource.root}{where}/{resource.plural}/{{name}}"] = {
            "get": {**operation, "x-kubernetes-action": "get"},
            "put": {**operation, "x-kubernetes-action": "put", "parameters": parameters},
            "patch": {**operation, "x-kubernetes-action": "patch", "parameters": parameters},
            "delete": {**operation, "x-kubernetes-action": "delete"},
        }
        schemas[name] = _schema(resource) | {"x-kubernetes-group-version-kind": [kind]}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(resource: Resource) -> str:
    group = ".".join(reversed(resource.group.split("."))) if resource.group else "core"
    return f"{group}.{resource.version}.{resource.kind}"


def _schema(resource: Resource) -> Body:
    own = resource.schema or {"type": "object", "description": f"{resource.kind}: stored as it comes."}
    texts = {name: {"type": "string", "description": text} for name, text in _TEXTS.items()}
    return own | {"properties": own.get("properties", {}) | texts | {"metadata": _METADATA}}
