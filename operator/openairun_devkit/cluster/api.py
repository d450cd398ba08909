"""What the API server does with objects, without HTTP: create, update, patch, delete, and what follows from them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openairun_devkit.cluster import errors, metadata, patches, resources, rules, schema, texts
from openairun_devkit.cluster.errors import ApiError, Cause
from openairun_devkit.cluster.resources import CRDS, NAMESPACES, Body, Registry, Resource
from openairun_devkit.cluster.store import Store

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
_CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_IDENTITY = ("apiVersion", "kind", "metadata")


@dataclass
class Options:
    """How a write is meant. `warnings` gets what is to be told besides the answer."""

    dry_run: bool = False
    field_validation: str = "Warn"
    warnings: list[str] = field(default_factory=list)


class Api:
    """The objects and their rules. `namespace` is empty for what has none.

    `later` is called with what empties a deleted namespace: the real cluster does it a moment after the answer.
    """

    def __init__(
        self, store: Store | None = None, later: Callable[[Callable[[], None]], object] = lambda do: do()
    ) -> None:
        self.store = store or Store()
        self._later = later
        self.resources = Registry()
        for name in ("default", "kube-system"):
            self.create(NAMESPACES, "", {"metadata": {"name": name}})

    # Reading

    def get(self, resource: Resource, namespace: str, name: str) -> Body:
        body = self.store.get(resource, namespace, name)
        if body is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return body

    # Writing

    def create(self, resource: Resource, namespace: str, sent: Body, options: Options | None = None) -> Body:
        options = options or Options()
        if namespace:
            self._admit_into(namespace, resource, sent)
        body = copy.deepcopy(sent) | {"apiVersion": resource.api_version, "kind": resource.kind}
        self._check_identity(resource, sent, (sent.get("metadata") or {}).get("name", ""))
        body["metadata"] = sent_metadata = body.get("metadata") or {}
        unknown = _unknown_metadata(sent_metadata)
        if resource.has_status and resource.schema is not None:
            unknown += _unknown_status(body, resource.schema)
        body["metadata"] = metadata.for_create(resource, sent_metadata, namespace)
        body = self._admit(resource, body, unknown, options, is_patch=False)
        name = body["metadata"]["name"]
        if self.store.get(resource, namespace, name) is not None:
            raise errors.already_exists(resource.group, resource.plural, name)
        if options.dry_run:
            return body
        body = self.store.write(resource, body)
        if resource == CRDS:
            self.resources.add(resources.of_crd(body))
        return body

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        sent: Body,
        *,
        subresource: str = "",
        options: Options | None = None,
        is_patch: bool = False,
    ) -> Body:
        """Replace the object, or with `subresource` "status" that part of it alone."""
        options, old = options or Options(), self.get(resource, namespace, name)
        body = copy.deepcopy(sent)
        self._check_identity(resource, body, name)
        body |= {"apiVersion": resource.api_version, "kind": resource.kind}
        unknown = _unknown_metadata(body.get("metadata") or {})
        if subresource == "status":
            # Its metadata counts for nothing but the resourceVersion: not even another uid is noticed.
            seen = body.get("metadata", {}).get("resourceVersion", "")
            guard = old["metadata"] | {"resourceVersion": seen}
            metadata.for_update(resource, old["metadata"], guard, is_patch=is_patch)
            body = {**old, "status": body["status"]} if body.get("status") is not None else _without(old, "status")
            body = copy.deepcopy(body)
        else:
            body["metadata"] = metadata.for_update(
                resource, old["metadata"], body.get("metadata") or {}, is_patch=is_patch
            )
            if resource.has_status:
                body.pop("status", None)
                if "status" in old:
                    body["status"] = copy.deepcopy(old["status"])
        body = self._admit(resource, body, unknown, options, is_patch=is_patch, old=old, subresource=subresource)
        if body == old or options.dry_run:
            return body
        changed = any(body.get(key) != old.get(key) for key in {*body, *old} - {*_IDENTITY, "status"})
        if changed and resource.counts_generations:
            body["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return self._store(resource, body)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        form: str,
        patch: Any,
        *,
        subresource: str = "",
        options: Options | None = None,
    ) -> Body:
        """`form` is the patch's media type."""
        old = self.store.get(resource, namespace, name)
        if form == APPLY and old is None and not subresource:
            return self.create(resource, namespace, patch, options)
        old = self.get(resource, namespace, name)
        if form == JSON_PATCH:
            try:
                new = patches.json_patch(old, patch)
            except patches.PatchError:
                message = "the server rejected our request due to an error in our request"
                raise ApiError(422, "Invalid", message, {}) from None
        else:
            if form == STRATEGIC and not patches.is_plain(patch):
                message = "the stand-in does not merge lists strategically; use kubectl replace, or --type=merge"
                raise ApiError(415, "UnsupportedMediaType", message)
            new = patches.merge(old, patch)
        return self.update(resource, namespace, name, new, subresource=subresource, options=options, is_patch=True)

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        options: Options | None = None,
        uid: str | None = None,
        version: str | None = None,
    ) -> tuple[Body, bool]:
        """Delete, or mark what has finalizers. The object, and whether it is gone.

        `uid` and `version`, the resourceVersion, are preconditions.
        """
        body = self.get(resource, namespace, name)
        old = body["metadata"]
        for field_, wanted, found, happened in (
            ("UID", uid, old["uid"], "deleted and then recreated"),
            ("ResourceVersion", version, old["resourceVersion"], "modified"),
        ):
            if wanted is not None and wanted != found:
                why = (
                    f"the {field_} in the precondition ({wanted}) does not match the {field_} in record ({found})."
                    f" The object might have been {happened}"
                )
                raise errors.conflict(resource.group, resource.kind, name, why)
        held = bool(old.get("finalizers")) or resource == NAMESPACES
        if options is not None and options.dry_run:
            return body, not held
        if not held:
            self._remove(resource, body)
            return body, True
        if "deletionTimestamp" not in old:
            marked = old | {"deletionTimestamp": metadata.now(), "deletionGracePeriodSeconds": 0}
            if resource.counts_generations:
                marked["generation"] = old["generation"] + 1
            body = body | {"metadata": marked}
            if resource == NAMESPACES:
                body["status"] = {"phase": "Terminating"}
            body = self.store.write(resource, body)
            if resource == NAMESPACES:
                self._later(lambda: self._empty(resource, body))
        if resource != NAMESPACES:
            self._empty(resource, body)
        return body, self.store.get(resource, namespace, name) is None

    # What follows from a write

    def _store(self, resource: Resource, body: Body) -> Body:
        """Store a change; the last finalizer of what is being deleted takes it along."""
        going = "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers")
        if going and resource != NAMESPACES:
            self._remove(resource, body)
            return body
        body = self.store.write(resource, body)
        if resource == CRDS:
            self.resources.add(resources.of_crd(body))
        return body

    def _remove(self, resource: Resource, body: Body) -> None:
        self.store.remove(resource, body)
        if resource == CRDS:
            self.resources.remove(resources.of_crd(body).key)
        # The last of a namespace or a CRD that is being deleted lets that go too.
        namespace = self.store.get(NAMESPACES, "", body["metadata"].get("namespace", ""))
        if namespace is not None and "deletionTimestamp" in namespace["metadata"]:
            self._release(NAMESPACES, namespace)
        crd = self.store.get(CRDS, "", f"{resource.plural}.{resource.group}")
        if crd is not None and "deletionTimestamp" in crd["metadata"]:
            self._release(CRDS, crd)

    def _empty(self, resource: Resource, body: Body) -> None:
        """Delete what a namespace or a CRD that is being deleted holds. By now another may bear its name."""
        stored = self.store.get(resource, "", body["metadata"]["name"])
        if stored is None or stored["metadata"]["uid"] != body["metadata"]["uid"]:
            return
        for held, each in self._content(resource, body):
            if self.store.get(held, each["metadata"].get("namespace", ""), each["metadata"]["name"]) is each:
                self.delete(held, each["metadata"].get("namespace", ""), each["metadata"]["name"])
        if self.store.get(resource, "", body["metadata"]["name"]) is not None:
            self._release(resource, body)

    def _release(self, resource: Resource, body: Body) -> None:
        """Remove a namespace or a CRD that is being deleted, once it is empty."""
        if resource in (NAMESPACES, CRDS) and not self._content(resource, body):
            stored = self.store.get(resource, "", body["metadata"]["name"])
            if stored is not None:
                self._remove(resource, stored)

    def _content(self, resource: Resource, body: Body) -> list[tuple[Resource, Body]]:
        if resource == NAMESPACES:
            found = self.store.in_namespace(body["metadata"]["name"])
            return [(held, each) for key, each in found if (held := self.resources.by_key(key)) is not None]
        if resource == CRDS:
            held = resources.of_crd(body)
            return [(held, each) for each in self.store.all(held)]
        return []

    # Admission

    def _admit_into(self, namespace: str, resource: Resource, sent: Body) -> None:
        """A namespace must exist and must not be going."""
        where = self.get(NAMESPACES, "", namespace)
        if "deletionTimestamp" in where["metadata"]:
            name = (sent.get("metadata") or {}).get("name", "")
            kind = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            message = (
                f'{kind} "{name}" is forbidden: unable to create new content in namespace {namespace}'
                " because it is being terminated"
            )
            why = f"namespace {namespace} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": why, "field": "metadata.namespace"}
            told = errors.details(resource.group, resource.plural, name) | {"causes": [cause]}
            raise ApiError(403, "Forbidden", message, told)

    def _check_identity(self, resource: Resource, sent: Body, name: str) -> None:
        group = resource.group
        if (version := sent.get("apiVersion", resource.api_version)) != resource.api_version:
            text = f'Invalid value: "{version}": must be {resource.api_version}'
            group = version.partition("/")[0] if "/" in version else ""
            raise errors.invalid(group, resource.kind, name, [Cause("apiVersion", "FieldValueInvalid", text)])
        if (kind := sent.get("kind", resource.kind)) != resource.kind:
            text = f'Invalid value: "{kind}": must be {resource.kind}'
            raise errors.invalid(group, kind, name, [Cause("kind", "FieldValueInvalid", text)])

    def _admit(
        self,
        resource: Resource,
        body: Body,
        unknown: list[str],
        options: Options,
        *,
        is_patch: bool,
        old: Body | None = None,
        subresource: str = "",
    ) -> Body:
        """Prune, default and validate, in place. Raises ApiError if the object is not as it must be."""
        name = body["metadata"].get("name", "")
        if resource == NAMESPACES:
            body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
            body.setdefault("status", {"phase": "Active"})
        if resource == CRDS:
            _admit_crd(body)
        sent = copy.deepcopy(body) if is_patch else body
        own = resource.schema
        if own is not None:
            unknown = sorted([*unknown, *schema.prune(body, own, skip=_IDENTITY)])
        if unknown and options.field_validation == "Strict":
            raise _strict(resource, sent, unknown, is_patch=is_patch)
        if options.field_validation == "Warn":
            options.warnings += [f'unknown field "{path}"' for path in unknown]
        for path in unknown:
            if path.startswith("metadata."):
                body["metadata"].pop(path.removeprefix("metadata."), None)
        causes = metadata.check(body["metadata"])
        if resource.key in texts.KEYS:
            causes += texts.admit(body, old)
        if own is not None:
            schema.drop_nulls(body, own)
            schema.set_defaults(body, own)
            if subresource == "status":  # then it alone is looked at, and messages begin their paths there
                causes += schema.validate(body.get("status", {}), own["properties"]["status"], "status")
            else:
                causes += schema.validate(body, own)
            if any(cause.blocks_rules for cause in causes):
                causes.append(Cause("<nil>", "FieldValueInvalid", f"Invalid value: null: {errors.UNCHECKED}"))
            else:
                causes += rules.check(body, own)
        if causes:
            raise errors.invalid(resource.group, resource.kind, name, causes)
        return body


def _without(body: Body, name: str) -> Body:
    return {key: value for key, value in body.items() if key != name}


def _unknown_metadata(sent: Body) -> list[str]:
    return [f"metadata.{name}" for name in sent if name not in metadata.KNOWN]


def _unknown_status(body: Body, own: schema.Schema) -> list[str]:
    """A new object's status counts for nothing, but its unknown fields are told."""
    status = body.pop("status", None)
    form = own.get("properties", {}).get("status")
    return schema.prune(status, form, "status") if form is not None else []


def _strict(resource: Resource, sent: Body, unknown: list[str], *, is_patch: bool) -> ApiError:
    listed = ", ".join(f'unknown field "{path}"' for path in unknown)
    if is_patch:
        told = json.dumps(json.dumps(sent, separators=(",", ":"), sort_keys=True))
        text = f"Invalid value: {told}: strict decoding error: {listed}"
        return errors.invalid("", "", "", [Cause("patch", "FieldValueInvalid", text)])
    return errors.bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}:'
        f" strict decoding error: {listed}"
    )


def _admit_crd(body: Body) -> None:
    """Fill in what the server fills in, and refuse what would not be enforced."""
    spec, name = body["spec"], body["metadata"].get("name", "")
    names, versions = spec["names"], spec["versions"]
    problems = [] if len(versions) == 1 else ["spec.versions: more or less than one"]
    if name != f"{names['plural']}.{spec['group']}":
        problems.append(f"metadata.name: must be {names['plural']}.{spec['group']}")
    for version in versions:
        form = version["schema"]["openAPIV3Schema"]
        problems += [*schema.unsupported(form), *rules.unsupported(form)]
        problems += [f"subresource {each}" for each in version.get("subresources", {}) if each != "status"]
    if problems:
        texts = [Cause("spec", "FieldValueInvalid", f"the stand-in does not enforce {each}") for each in problems]
        raise errors.invalid("apiextensions.k8s.io", "CustomResourceDefinition", name, texts)
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})
    if "deletionTimestamp" not in body["metadata"]:
        finalizers = body["metadata"].setdefault("finalizers", [])
        if _CRD_FINALIZER not in finalizers:
            finalizers.append(_CRD_FINALIZER)
    conditions = (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    )
    body.setdefault(
        "status",
        {
            "acceptedNames": names,
            "conditions": [
                {
                    "type": type_,
                    "status": "True",
                    "reason": reason,
                    "message": message,
                    "lastTransitionTime": metadata.now(),
                }
                for type_, reason, message in conditions
            ],
            "storedVersions": [version["name"] for version in versions],
        },
    )
