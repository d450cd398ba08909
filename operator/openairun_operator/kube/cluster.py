"""Writing to the API server, and reading what a resource names. The resource itself comes by kopf's watch."""

import asyncio
import contextlib
import json
import math
import os
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import quote

import aiohttp
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.config import kube_config
from pydantic_core import from_json

from openairun_operator.api.names import (
    API_VERSION,
    FINALIZER,
    GROUP,
    KIND,
    PLURAL,
    PROVIDER_KIND,
    PROVIDER_PLURAL,
    RECORD_ANNOTATION,
)
from openairun_operator.kube import patches
from openairun_operator.kube.room import Room
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.run import Run

Body = dict[str, Any]
Kind = Literal["ConfigMap", "Secret"]

_TIMEOUT: Final = 15.0
PAGE: Final = 200
"""Objects of a list that are parsed at once, and twice as many while the next page comes: each takes 25 KiB then."""
_SOON: Final = 4.0
"""For a Lease: an answer that comes later is of no use."""
_RESOURCES: Final = f"/apis/{API_VERSION}"
_CORE: Final = "/api/v1"
_LEASES: Final = "/apis/coordination.k8s.io/v1"
_MERGE: Final = "application/merge-patch+json"
_JSON: Final = "application/json-patch+json"
_COMPONENT: Final = "openairun-operator"
_CONNECT: Final = "connect to a cluster"
_ELSE: Final = "Set KUBECONFIG, or run in a pod"
_NO_PATCH: Final = "the server rejected our request due to an error in our request"
"""All that kube-apiserver (1.36) says of a JSON patch that does not apply, whichever operation it was."""


class ClusterError(Exception):
    """The API server refused what was asked, or could not be reached (`status` None)."""

    def __init__(self, what: str, status: int | None, message: str) -> None:
        super().__init__(f"cannot {what}: {message}")
        self.status = status


class ConflictError(ClusterError):
    """The object is no longer as it was seen. The watch brings the new one."""


_AT_ONCE: Final = 16
"""Requests. Each connection takes 32 KiB for what TLS reads; a request takes some milliseconds."""
_BESIDE: Final = 6
"""Connections for Events and the Lease: in the line of all workers they would come much too late."""


class PatchError(ConflictError):
    """A JSON patch does not apply: a test in it failed, or a path leads nowhere."""


class RefusedError(ClusterError):
    """The API server does not take what was written, and will not take it if it is written again."""


class GoneError(ClusterError):
    """There is no such object any more, or another one bears its name."""


_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def _decoded(text: bytes) -> Any:
    """JSON, as `json` reads it and in half the time: lists are most of what comes. Raises ValueError."""
    try:
        return from_json(text, cache_strings="keys")  # the values of others are no use, and stay for ever
    except ValueError:
        return json.loads(text)  # it takes what is nested deeper than 200 levels too


def _message(text: str) -> str:
    """The message of the API server's Status; else the text as it is."""
    try:
        body = json.loads(text)
    except ValueError:
        return text[:500]
    return str(body.get("message", text) if isinstance(body, dict) else text)[:500]


def _detail(text: str, name: str) -> Any:
    """A detail of the API server's Status; None where there is none, or the text is no Status."""
    try:
        return json.loads(text)["details"][name]
    except (ValueError, LookupError, TypeError):
        return None


def _names_what_is_missing(text: str) -> bool:
    """Whether a 404 speaks of an object. One that does not comes from an API server that still starts, or a proxy."""
    return bool(_detail(text, "name"))


def _is_of_uid(text: str) -> bool:
    """Whether a refusal is of the uid alone. A policy's refusal may speak of it too, in its message."""
    causes = _detail(text, "causes")
    if not isinstance(causes, list) or not causes:
        return False
    return all(isinstance(cause, dict) and cause.get("field") == "metadata.uid" for cause in causes)


def _error(what: str, error: Exception) -> ClusterError:
    if isinstance(error, client.ApiException):
        status = cast(int | None, error.status)
        text = " ".join(str(error.body or error.reason or "").split())
        another = status == 422 and _is_of_uid(text)  # "field is immutable": another object bears the name now
        if another or (status == 404 and _names_what_is_missing(text)):
            return GoneError(what, status, _message(text))
        if status == 409:
            uid = "UID in precondition" in text or "UID in the precondition" in text  # of PUT and PATCH, and of DELETE
            return (GoneError if uid else ConflictError)(what, status, _message(text))
        if status == 422 and _message(text) == _NO_PATCH:
            return PatchError(what, status, _message(text))
        kind = RefusedError if status in (400, 413, 422) else ClusterError
        return kind(what, status, f"{status} {_message(text)}")
    said = "the API server did not answer in time" if isinstance(error, TimeoutError) else str(error)
    return ClusterError(what, None, f"{type(error).__name__}: {said}")


def _path(api: str, namespace: str, *names: str) -> str:
    return "/".join([api, "namespaces", *(quote(name, safe="") for name in (namespace, *names))])


def _place(run: Run) -> str:
    return _path(_RESOURCES, run.namespace, PLURAL, run.name)


def _kubeconfig() -> str:
    """The files that are read, for a person. Raises ClusterError if there is none of them."""
    files = [path for path in str(kube_config.KUBE_CONFIG_DEFAULT_LOCATION).split(os.pathsep) if path]
    told = ", ".join(files)
    if not any(Path(path).expanduser().exists() for path in files):
        raise ClusterError(_CONNECT, None, f"no such file: {told}. {_ELSE}")
    return told


async def _load_kubeconfig(configuration: client.Configuration) -> str:
    """Fill in what the kubeconfig's current context says; its name. Raises ClusterError."""
    files = _kubeconfig()
    try:
        _, current = config.list_kube_config_contexts()
        await config.load_kube_config(client_configuration=configuration)
        return str(current["name"])
    # The last three come of a file in another form than the library expects.
    except (config.ConfigException, OSError, yaml.YAMLError, AttributeError, LookupError, TypeError) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ClusterError(_CONNECT, None, f"{files} cannot be used: {said}. {_ELSE}") from error


@dataclass(frozen=True, slots=True)
class Subject:
    """The resource that an Event is of."""

    namespace: str
    name: str
    uid: str


class Cluster:
    """A connection to the API server, from the pod's service account or the kubeconfig."""

    def __init__(self, api: client.ApiClient, where: str = "") -> None:
        self._api = api
        self._room = Room(_AT_ONCE)
        self.where = where
        """Which cluster it is, for a person."""
        self.unanswered = -math.inf
        """When a request was last given up without an answer (`time.monotonic()`)."""

    @classmethod
    async def connect(cls) -> "Cluster":
        """Connect as kubectl, or as a pod would."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
            via = "in-cluster"
        except config.ConfigException:
            via = f"context {await _load_kubeconfig(configuration)}"
        configuration.connection_pool_maxsize = _AT_ONCE + _BESIDE
        # Else each request asks a thread for the proxy, and one for ~/.netrc, which must not speak here in any case.
        configuration.client_session_kwargs = {"trust_env": bool(urllib.request.getproxies())}
        return cls(client.ApiClient(configuration), f"{configuration.host} ({via})")

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def missing_crds(self) -> list[str]:
        """The names of those CRDs of ours that are not installed."""
        try:
            found = await self._exchange("GET", "look for the CRDs", _RESOURCES)
        except ClusterError as error:
            if error.status != 404:
                raise
            found = {"resources": []}
        served = {resource["name"] for resource in found["resources"]}
        return [f"{plural}.{GROUP}" for plural in (PLURAL, PROVIDER_PLURAL) if plural not in served]

    async def every(
        self, plural: str, namespaces: Iterable[str], versions: dict[str | None, str] | None = None
    ) -> AsyncIterator[Body]:
        """All objects of a kind of ours, of all namespaces if none is named. Raises ClusterError.

        `versions` takes the resourceVersion of each list, from which on to watch, by namespace; None: of all.
        """
        several: list[str | None] = [*namespaces]
        for namespace in several or [None]:
            path = f"{_RESOURCES}/{plural}" if namespace is None else _path(_RESOURCES, namespace, plural)
            async for page in self._pages(plural, path):
                if versions is not None:
                    versions[namespace] = page["metadata"].get("resourceVersion", "")  # the same of all pages
                for item in page["items"]:
                    await asyncio.sleep(0)  # the next page comes meanwhile
                    yield item

    async def every_namespace(self) -> AsyncIterator[Body]:
        """All namespaces themselves. Raises ClusterError."""
        async for page in self._pages("namespaces", f"{_CORE}/namespaces"):
            for item in page["items"]:
                yield item

    async def _pages(self, plural: str, path: str) -> AsyncIterator[Body]:
        """A list, page by page; while one is read, the next is on its way."""

        def ask(more: str = "") -> asyncio.Task[Body]:
            asking = asyncio.create_task(self._exchange("GET", f"list {plural}", f"{path}?limit={PAGE}{more}"))
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may want it any more
            return asking

        coming = ask()
        try:
            while True:
                page = await coming
                token = page["metadata"].get("continue")
                if token:
                    coming = ask(f"&continue={quote(token, safe='')}")
                yield page
                if not token:
                    return
        finally:
            coming.cancel()

    async def find(self, run: Run) -> Body | None:
        """The resource as it is now; None if there is none, or another bears its name. By a list: get is no right."""
        selector = quote(f"metadata.name={run.name}", safe="")
        path = f"{_path(_RESOURCES, run.namespace, PLURAL)}?fieldSelector={selector}"
        found = await self._exchange("GET", "look for the resource", path)
        return next((item for item in found["items"] if item["metadata"]["uid"] == run.uid), None)

    async def hold(self, run: Run, record: str) -> Body:
        """Write the record and the finalizer, if the object is still `run`. Raises ConflictError if it is not."""
        metadata = {
            "resourceVersion": run.version,
            "finalizers": [*run.finalizers] if run.has_finalizer else [*run.finalizers, FINALIZER],
            "annotations": {RECORD_ANNOTATION: record},
        }
        return await self._patch(run, "claim the run", metadata, begins=True)

    async def annotate(self, run: Run, record: str) -> Body:
        """Write the record, whatever else changed."""
        return await self._patch(run, "record the run", {"annotations": {RECORD_ANNOTATION: record}})

    async def release(self, run: Run) -> Body | None:
        """Remove the finalizer; None if somebody else has removed it.

        Raises ConflictError if the finalizers or the record are no longer those of `run`.
        """
        if not run.has_finalizer:
            return None
        where = f"/metadata/annotations/{patches.pointer(RECORD_ANNOTATION)}"
        # A removal that comes late must not take the finalizer from a claim that was made meanwhile.
        recorded = [{"op": "test", "path": where, "value": run.annotation}] if run.annotation is not None else []
        path = f"/metadata/finalizers/{run.finalizers.index(FINALIZER)}"
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": run.uid},
            *recorded,
            {"op": "test", "path": path, "value": FINALIZER},
            {"op": "remove", "path": path},
        ]
        return await self._exchange("PATCH", "release the finalizer", _place(run), patch, _JSON)

    async def write_status(self, run: Run, difference: Mapping[str, Any]) -> Body:
        """Merge `difference` into the status, as it was seen in `run`.

        A JSON patch, since a merge patch of the status lands on whatever object bears the name now: the API server
        (1.36) passes over a uid in it. Raises GoneError if it is another object.
        """
        raw = run.raw_status
        what, same = "write the status", {"op": "test", "path": "/metadata/uid", "value": run.uid}
        # A write that comes late, of an operator that was stopped meanwhile, must not undo what came after it.
        seen = [
            {"op": "test", "path": f"/status/{name}", "value": raw[name]}
            for name in ("phase", "finishedAt")
            if name in raw
        ]
        try:
            return await self._send_status(run, what, [same, *seen, *patches.of_status(raw, difference)])
        except PatchError:
            # Either the uid, or the status is not as it was seen: a run must not be given up for the latter.
            try:
                await self._send_status(run, what, [same])
            except PatchError as error:
                raise GoneError(what, error.status, "another object bears its name now") from error
            raise

    async def delete(self, run: Run) -> None:
        """Delete the resource, if it is still `run`. Raises ConflictError if it is not, GoneError if it has gone."""
        seen = {"uid": run.uid, "resourceVersion": run.version}
        options = {"preconditions": seen, "propagationPolicy": "Background"}
        await self._exchange("DELETE", "delete the resource", _place(run), options)

    async def _send_status(self, run: Run, what: str, operations: list[Body]) -> Body:
        return await self._exchange("PATCH", what, f"{_place(run)}/status", operations, _JSON)

    async def _patch(self, run: Run, what: str, metadata: Mapping[str, Any], *, begins: bool = False) -> Body:
        patch = {"metadata": {"uid": run.uid, **metadata}}
        return await self._exchange("PATCH", what, _place(run), patch, _MERGE, begins=begins)

    async def post_event(self, subject: Subject, event: Event, at: datetime, instance: str) -> None:
        """Show `event`, which was at `at`, with the resource. Raises ConflictError if it is shown already."""
        # Named by its time, as client-go does it: posted again, since no answer came, it stands there once.
        name = f"{subject.name[:200].rstrip('.-')}.{(at - _EPOCH) // timedelta(microseconds=1):x}"
        when = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        body = {
            "metadata": {"name": name, "namespace": subject.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:1024],
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
            "source": {"component": _COMPONENT},
            "reportingComponent": _COMPONENT,
            "reportingInstance": instance,
        }
        path = _path(_CORE, subject.namespace, "events")
        await self._exchange("POST", "post an event", path, body, beside=True)

    async def read(self, kind: Kind, namespace: str, name: str) -> Body:
        """A ConfigMap or Secret as it is now. Raises GoneError if there is none."""
        return await self._exchange("GET", f"read {kind} {name}", _path(_CORE, namespace, f"{kind.lower()}s", name))

    async def read_provider(self, namespace: str, name: str) -> Body:
        """An OpenAIProvider as it is now. Raises GoneError if there is none."""
        path = _path(_RESOURCES, namespace, PROVIDER_PLURAL, name)
        return await self._exchange("GET", f"read {PROVIDER_KIND} {name}", path, begins=True)

    async def write_provider_status(self, body: Mapping[str, Any], difference: Mapping[str, Any]) -> Body:
        """Merge `difference` into the status of the OpenAIProvider `body`. Raises GoneError if it is another object."""
        meta = body["metadata"]
        what = f"write the status of {PROVIDER_KIND} {meta['name']}"
        same = {"op": "test", "path": "/metadata/uid", "value": meta["uid"]}
        path = f"{_path(_RESOURCES, meta['namespace'], PROVIDER_PLURAL, meta['name'])}/status"
        operations = [same, *patches.of_status(body.get("status") or {}, difference)]
        return await self._exchange("PATCH", what, path, operations, _JSON)

    async def create_config_map(self, body: Body) -> Body:
        """Create it. Raises ConflictError if there is one of its name."""
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        return await self._exchange("POST", f"create ConfigMap {name}", _path(_CORE, namespace, "configmaps"), body)

    async def replace_config_map(self, body: Body) -> Body:
        """Replace it, if it still has the resourceVersion of `body`. Raises ConflictError if it has not."""
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        path = _path(_CORE, namespace, "configmaps", name)
        return await self._exchange("PUT", f"replace ConfigMap {name}", path, body)

    async def read_lease(self, namespace: str, name: str) -> Body:
        """The Lease as it is now. Raises GoneError if there is none."""
        path = _path(_LEASES, namespace, "leases", name)
        return await self._exchange("GET", f"read Lease {namespace}/{name}", path, timeout=_SOON, beside=True)

    async def create_lease(self, body: Body) -> Body:
        """Create it. Raises ConflictError if there is one of its name."""
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        path = _path(_LEASES, namespace, "leases")
        return await self._exchange("POST", f"create Lease {namespace}/{name}", path, body, timeout=_SOON, beside=True)

    async def replace_lease(self, body: Body) -> Body:
        """Replace it, if it still has the resourceVersion of `body`. Raises ConflictError if it has not."""
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        path = _path(_LEASES, namespace, "leases", name)
        return await self._exchange("PUT", f"renew Lease {namespace}/{name}", path, body, timeout=_SOON, beside=True)

    async def _exchange(
        self,
        method: str,
        what: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float = _TIMEOUT,
        beside: bool = False,
        begins: bool = False,
    ) -> Body:
        """One request, as plain JSON; `beside` those that the workers make. Raises ClusterError.

        `begins` something that further requests finish: they go first.

        Without the client's models: they take more than a second of CPU and 27 MiB to load, and repeat in their errors
        what they cannot read.
        """
        try:
            async with contextlib.nullcontext() if beside else self._room.turn(begins=begins):
                return await self._send_request(method, what, path, body, content_type, timeout)
        except (TimeoutError, client.ApiException, aiohttp.ClientError, OSError, ssl.SSLError) as error:
            if not isinstance(error, client.ApiException):
                self.unanswered = time.monotonic()
            raise _error(what, error) from error

    async def _send_request(
        self, method: str, what: str, path: str, body: Any, content_type: str, timeout: float
    ) -> Body:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        request = await self._api.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            response = await self._api.call_api(*request, _request_timeout=timeout)
            text = await response.read()
        except TimeoutError:
            self._room.note_answer(hangs=True)
            raise
        self._room.note_answer(hangs=False)
        if not 200 <= response.status < 300:
            raise client.ApiException(response.status, response.reason, body=text.decode(errors="replace"))
        try:
            answer = _decoded(text)
        except ValueError:
            answer = None  # raised below: this error holds the text, which may be a secret
        if not isinstance(answer, dict):
            raise ClusterError(what, response.status, "the answer is no object in JSON")
        return answer
