"""Object metadata: what a client may set, what only the server does."""

from __future__ import annotations

import re
import secrets
import uuid
from datetime import UTC, datetime
from typing import Any

from openairun_devkit.cluster import errors
from openairun_devkit.cluster.errors import ApiError, Cause
from openairun_devkit.cluster.resources import Body, Resource

# metav1.ObjectMeta
KNOWN = frozenset(
    {"name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp"}
    | {"deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers"}
    | {"managedFields"}
)
# Set by the server alone; a client's value is passed over.
_KEPT = ("generateName", "uid", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_NAME_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    f" end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_NAME}')"
)
_LABEL = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_LABEL_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    f" '{_LABEL}')"
)
# k8s.io/apimachinery/pkg/api/validation.TotalAnnotationSizeLimitB
_ANNOTATIONS_LIMIT = 256 * 1024


def now() -> str:
    """The time as the API server writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def for_create(resource: Resource, sent: Body, namespace: str) -> Body:
    """The metadata of a new object."""
    if sent.get("resourceVersion"):
        raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
    if sent.get("namespace", namespace) != namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    metadata = {key: value for key, value in sent.items() if value and key not in ("selfLink", "managedFields")}
    if not metadata.get("name") and (prefix := metadata.get("generateName")):
        metadata["name"] = prefix + "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
    if namespace:
        metadata["namespace"] = namespace
    metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
    for name in ("generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(name, None)
    if resource.counts_generations:
        metadata["generation"] = 1
    return metadata


def for_update(resource: Resource, old: Body, sent: Body, *, is_patch: bool) -> Body:
    """The metadata after a write. Raises ApiError for what is out of date or may not change."""
    name = old["name"]
    if sent.get("name", name) != name:
        raise errors.bad_request(f"the name of the object ({sent['name']}) does not match the name on the URL ({name})")
    version = sent.get("resourceVersion")
    if not version or version == "0":
        if is_patch or resource.schema is not None:
            cause = Cause(
                "metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update"
            )
            raise errors.invalid(resource.group, resource.plural, name, [cause])
    elif version != old["resourceVersion"]:
        raise errors.conflict(resource.group, resource.plural, name)
    uid = sent.get("uid") or old["uid"]
    if uid != old["uid"] and not is_patch:
        place = "/".join(filter(None, (resource.group, resource.plural, old.get("namespace"), name)))
        raise errors.conflict(
            resource.group,
            resource.plural,
            name,
            f"StorageError: invalid object, Code: 4, Key: /registry/{place}, ResourceVersion: 0, AdditionalErrorMsg:"
            f" Precondition failed: UID in precondition: {uid}, UID in object meta: {old['uid']}",
        )
    causes = [
        _immutable(field, sent[field])
        for field in ("uid", "deletionTimestamp")
        if is_patch and sent.get(field, old.get(field)) != old.get(field) and sent.get(field)
    ]
    if "deletionTimestamp" in old:
        new = [each for each in sent.get("finalizers") or [] if each not in old.get("finalizers", [])]
        if new:
            listed = ", ".join(f'"{each}"' for each in new)
            text = (
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers"
                f" []string{{{listed}}}"
            )
            causes.append(Cause("metadata.finalizers", "FieldValueForbidden", text))
    if causes:
        raise errors.invalid(resource.group, resource.kind, name, causes)
    metadata = {key: value for key, value in sent.items() if value and key not in (*_KEPT, "selfLink", "managedFields")}
    metadata |= {key: old[key] for key in _KEPT if key in old}
    return metadata | {key: old[key] for key in ("name", "namespace", "resourceVersion") if key in old}


def _immutable(field: str, value: Any) -> Cause:
    return Cause(f"metadata.{field}", "FieldValueInvalid", f'Invalid value: "{value}": field is immutable')


def check(metadata: Body) -> list[Cause]:
    """What is wrong with names, labels and the size of annotations."""
    causes: list[Cause] = []
    name = metadata.get("name")
    if not name:
        text = "Required value: name or generateName is required"
        causes.append(Cause("metadata.name", "FieldValueRequired", text))
    elif not re.fullmatch(_NAME, name):
        causes.append(Cause("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {_NAME_TEXT}'))
    elif len(name) > 253:
        causes.append(Cause("metadata.name", "FieldValueTooLong", "Too long: may not be more than 253 bytes"))
    for value in (metadata.get("labels") or {}).values():
        if len(value) > 63:
            causes.append(Cause("metadata.labels", "FieldValueTooLong", "Too long: may not be more than 63 bytes"))
        elif not re.fullmatch(_LABEL, value):
            causes.append(Cause("metadata.labels", "FieldValueInvalid", f'Invalid value: "{value}": {_LABEL_TEXT}'))
    annotations = metadata.get("annotations") or {}
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_LIMIT:
        text = f"Too long: may not be more than {_ANNOTATIONS_LIMIT} bytes"
        causes.append(Cause("metadata.annotations", "FieldValueTooLong", text))
    return causes
