"""The whole answer of a run, in a ConfigMap of its namespace."""

import re
from collections.abc import Mapping
from typing import Any, Final

from openairun_operator.api.names import API_VERSION, GROUP, KIND
from openairun_operator.api.reasons import Reason
from openairun_operator.kube.cluster import Body, Cluster, ClusterError, ConflictError, GoneError, RefusedError
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.lifecycle.run import Run
from openairun_operator.lifecycle.storing import MAX_BYTES, TEXT_KEY

LABELS: Final = {"app.kubernetes.io/managed-by": "openairun-operator"}
OUTPUT_OF: Final = f"{GROUP}/output-of"
"""The annotation that names the resource whose output it is, as namespace/name. Without it nothing is overwritten."""
RUN_ID: Final = f"{GROUP}/run-id"
SHA256: Final = f"{GROUP}/output-sha256"

_TRIES: Final = 4
_NO_RIGHT: Final = re.compile(r"cannot (get|create|update) resource")
_GIVES: Final = {"get": "deploy/manifests/rbac.yaml, applied again,"}
_COMPONENT: Final = "the kustomize component deploy/manifests/components/outputs"
_THEN: Final = "It is written by itself then"


class OutputFailedError(Exception):
    """The answer is not in the ConfigMap. `failure` says why, and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.failure = Failure(reason=reason, message=message)


async def write(
    cluster: Cluster,
    run: Run,
    name: str,
    data: Mapping[str, str],
    *,
    run_id: str,
    answer_id: str,
    sha256: str,
    owned: bool,
) -> None:
    """Make the ConfigMap `name` hold `data` and nothing else; `owned`: it goes with the resource.

    `run_id` and `sha256`, of the answer as status.output has it, stand in annotations; `answer_id` is what OpenAI has
    the answer under: the last response's id. Writes nothing if it is so already. Raises OutputFailedError, and
    ClusterError for passing trouble.
    """
    size = len(data[TEXT_KEY].encode())
    if sum(len(text.encode()) for text in data.values()) > MAX_BYTES:
        raise _too_big(run, name, answer_id, size)
    try:
        await _write(cluster, run, _wanted(run, name, data, run_id, sha256, owned=owned))
    except ClusterError as error:
        said = str(error)
        if error.status == 413 or (error.status == 422 and "[]: Too long" in said):
            raise _too_big(run, name, answer_id, size) from error
        raise _meaning(error, run, name) from error


async def disown(cluster: Cluster, run: Run, name: str) -> None:
    """See to it that the run's ConfigMap `name` does not go with the resource. Raises as `write` does."""
    try:
        there = await cluster.read("ConfigMap", run.namespace, name)
        metadata = there["metadata"]
        owners = metadata.get("ownerReferences") or []
        others = [each for each in owners if not _is_ours(each, run)]
        if others != owners:
            await cluster.replace_config_map({**there, "metadata": {**metadata, "ownerReferences": others}})
    except GoneError:
        return  # somebody deleted it, or took it away: there is nothing to keep
    except ClusterError as error:
        raise _meaning(error, run, name) from error


def _meaning(error: ClusterError, run: Run, name: str) -> OutputFailedError | ClusterError:
    """What a refusal means; passing trouble stays what it is."""
    said = str(error)
    if error.status == 403 and (missing := _NO_RIGHT.search(said)):
        verb = missing[1]
        message = (
            f"The operator may not {verb} ConfigMaps in namespace {run.namespace}:"
            f" {_GIVES.get(verb, _COMPONENT)} lets it. {_THEN}"
        )
        return OutputFailedError(Reason.OUTPUT_NOT_ALLOWED, message)
    if error.status == 403 or isinstance(error, RefusedError):
        return OutputFailedError(Reason.OUTPUT_NOT_WRITTEN, f"The API server does not take the answer: {said}")
    if isinstance(error, GoneError):  # the namespace; a GoneError would say that the resource has gone
        return ClusterError(f"write ConfigMap {name}", error.status, said)
    return error


def _too_big(run: Run, name: str, answer_id: str, size: int) -> OutputFailedError:
    message = (
        f"The answer does not fit into ConfigMap {name} in namespace {run.namespace}: it has {size} bytes, and a"
        f" ConfigMap holds at most {MAX_BYTES}, less where many characters must be escaped. Fetch it from OpenAI, by"
        f" the id {answer_id}, or ask for less, for instance with maxTokens"
    )
    return OutputFailedError(Reason.OUTPUT_TOO_BIG, message)


def _wanted(run: Run, name: str, data: Mapping[str, str], run_id: str, sha256: str, *, owned: bool) -> Body:
    # Without blockOwnerDeletion, which would need rights on the resource's finalizers.
    owner: Body = {"apiVersion": API_VERSION, "kind": KIND, "name": run.name, "uid": run.uid}
    owner |= {"controller": True, "blockOwnerDeletion": False}
    metadata: Body = {
        "name": name,
        "namespace": run.namespace,
        "labels": dict(LABELS),
        "annotations": {OUTPUT_OF: run.key, RUN_ID: run_id, SHA256: sha256},
    }
    if owned:
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


async def _write(cluster: Cluster, run: Run, wanted: Body) -> None:
    name = wanted["metadata"]["name"]
    for _ in range(_TRIES):
        try:
            await cluster.create_config_map(wanted)
            return
        except ConflictError as error:
            conflict = error
        try:
            there = await cluster.read("ConfigMap", run.namespace, name)
            renewed = _renewed(there, wanted, run)
            if renewed != there:
                await cluster.replace_config_map(renewed)
            return
        except ConflictError as error:
            conflict = error
        except GoneError:
            continue
    raise conflict


def _renewed(there: Body, wanted: Body, run: Run) -> Body:
    """`there` with what is wanted, and with what others put beside it."""
    old, new = there["metadata"], wanted["metadata"]
    place = f"ConfigMap {new['name']} in namespace {run.namespace}"
    if old.get("deletionTimestamp"):
        raise ClusterError(f"write {place}", 409, "it is being deleted")
    owners = [each for each in old.get("ownerReferences") or () if not _is_ours(each, run)]
    if (old.get("annotations") or {}).get(OUTPUT_OF) != run.key or any(each.get("controller") for each in owners):
        message = f"{place} is not this run's, and stays as it is: delete it, or name another in outputTo.configMap"
        raise OutputFailedError(Reason.OUTPUT_NOT_OURS, message)
    metadata = {
        **old,
        "labels": {**(old.get("labels") or {}), **new["labels"]},
        "annotations": {**old["annotations"], **new["annotations"]},
        "ownerReferences": owners + new.get("ownerReferences", []),
    }
    if not metadata["ownerReferences"]:
        del metadata["ownerReferences"]
    renewed = {**there, "metadata": metadata, "data": wanted["data"]}
    renewed.pop("binaryData", None)
    if there.get("immutable") and any(there.get(part) != renewed.get(part) for part in ("data", "binaryData")):
        message = f"{place} is immutable and holds another answer: delete it. {_THEN}"
        raise OutputFailedError(Reason.OUTPUT_NOT_WRITTEN, message)
    return renewed


def _is_ours(owner: Mapping[str, Any], run: Run) -> bool:
    """Whether the owner is the resource, also as it was before it was deleted and applied again."""
    group = str(owner.get("apiVersion", "")).partition("/")[0]
    return (group, owner.get("kind"), owner.get("name")) == (GROUP, KIND, run.name)
