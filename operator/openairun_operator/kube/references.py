"""Texts that stand in ConfigMaps and Secrets: read by name when they are needed, and kept nowhere."""

import base64
from typing import Final

from openairun_operator.api.reasons import Reason
from openairun_operator.api.references import KeyRef, Source
from openairun_operator.kube.cluster import Body, Cluster, ClusterError, GoneError, Kind
from openairun_operator.lifecycle.failure import Failure

_RIGHT: Final = {
    "ConfigMap": "apply deploy/manifests/rbac.yaml, which has get on configmaps",
    "Secret": "add the kustomize component deploy/manifests/components/secrets, which has get on secrets",
}
_THEN: Final = "All goes on by itself then"


class ReferenceFailedError(Exception):
    """What a reference names cannot be had. `failure` says why, and nothing of the text."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.failure = Failure(reason=reason, message=message)


async def read(cluster: Cluster, namespace: str, source: Source) -> str:
    """The text that `source` names, as it is. Raises ReferenceFailedError, and ClusterError for passing trouble."""
    if source.secretKeyRef is not None:
        return await read_secret(cluster, namespace, source.secretKeyRef)
    if source.configMapKeyRef is not None:
        return await _read(cluster, "ConfigMap", namespace, source.configMapKeyRef)
    raise ReferenceFailedError(Reason.REFERENCE_NOT_FOUND, "Write one of configMapKeyRef and secretKeyRef")


async def read_secret(cluster: Cluster, namespace: str, ref: KeyRef) -> str:
    """The text of a Secret's key, as it is: a newline at its end too. Raises as `read` does."""
    return await _read(cluster, "Secret", namespace, ref)


async def _read(cluster: Cluster, kind: Kind, namespace: str, ref: KeyRef) -> str:
    key, where = ref.key, f"{kind} {ref.name} in namespace {namespace}"
    try:
        body = await cluster.read(kind, namespace, ref.name)
    except GoneError as error:
        message = f"There is no {where}: create it, with the key {key}. {_THEN}"
        raise ReferenceFailedError(Reason.REFERENCE_NOT_FOUND, message) from error
    except ClusterError as error:
        if error.status != 403:
            raise
        message = f"The operator may not read the key {key} of {where}: {_RIGHT[kind]}. {_THEN}"
        raise ReferenceFailedError(Reason.REFERENCE_FORBIDDEN, message) from error
    if not _has(body, key):
        raise ReferenceFailedError(Reason.REFERENCE_NOT_FOUND, f"{where} has no key {key}: add it. {_THEN}")
    text = _text(body, kind, key)
    if text is None:
        message = f"The key {key} of {where} is no text in UTF-8: write it anew. {_THEN}"
        raise ReferenceFailedError(Reason.REFERENCE_NOT_FOUND, message)
    if not text.strip():
        message = f"The key {key} of {where} is blank: write a text into it. {_THEN}"
        raise ReferenceFailedError(Reason.REFERENCE_NOT_FOUND, message)
    return text


def _has(body: Body, key: str) -> bool:
    return any(key in (body.get(name) or {}) for name in ("data", "binaryData"))


def _text(body: Body, kind: Kind, key: str) -> str | None:
    """The text; None if it is none. No error leaves here: it would hold the text."""
    data: dict[str, str] = body.get("data") or {}
    if kind == "ConfigMap" and key in data:
        return data[key]
    encoded: str = data[key] if key in data else body["binaryData"][key]
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return None
