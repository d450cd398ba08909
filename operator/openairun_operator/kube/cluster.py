"""Writing to the API server. Reading is kopf's: what is to be known of an object comes by its watch."""

import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

import aiohttp
from kubernetes.aio import client, config

from openairun_operator.api.names import API_VERSION, FINALIZER, GROUP, KIND, PLURAL, RECORD_ANNOTATION, VERSION
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.run import Run

Body = dict[str, Any]

_TIMEOUT: Final = 15.0
_MERGE: Final = "application/merge-patch+json"
_JSON: Final = "application/json-patch+json"
_COMPONENT: Final = "openairun-operator"


class ClusterError(Exception):
    """The API server refused a write, or could not be reached (`status` None)."""

    def __init__(self, what: str, status: int | None, message: str) -> None:
        super().__init__(f"cannot {what}: {message}")
        self.status = status


class ConflictError(ClusterError):
    """The object is no longer as it was seen. The watch brings the new one."""


class RefusedError(ClusterError):
    """The API server does not take what was written, and will not take it if it is written again."""


class GoneError(ClusterError):
    """There is no such object any more, or another one bears its name."""


def _message(text: str) -> str:
    """The message of the API server's Status; else the text as it is."""
    try:
        body = json.loads(text)
    except ValueError:
        return text[:500]
    return str(body.get("message", text) if isinstance(body, dict) else text)[:500]


def _error(what: str, error: Exception) -> ClusterError:
    if isinstance(error, client.ApiException):
        status = cast(int | None, error.status)
        text = " ".join(str(error.body or error.reason or "").split())
        another = status == 422 and "metadata.uid" in text  # "field is immutable": another object bears the name now
        if status == 404 or another:
            return GoneError(what, status, _message(text))
        if status == 409:
            conflict = GoneError if "UID in precondition" in text else ConflictError
            return conflict(what, status, _message(text))
        kind = RefusedError if status in (400, 413, 422) else ClusterError
        return kind(what, status, f"{status} {_message(text)}")
    return ClusterError(what, None, f"{type(error).__name__}: {error}")


class Cluster:
    """A connection to the API server, from the pod's service account or the kubeconfig."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._objects = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)

    @classmethod
    async def connect(cls) -> "Cluster":
        """Connect as kubectl, or as a pod would."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            try:
                await config.load_kube_config(client_configuration=configuration)
            except config.ConfigException as error:
                raise ClusterError("connect to a cluster", None, f"{error}. Set KUBECONFIG, or run in a pod") from error
        configuration.connection_pool_maxsize = 64
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def serves_runs(self) -> bool:
        """Whether the CRD is installed."""
        try:
            found = await self._objects.get_api_resources(GROUP, VERSION, _request_timeout=_TIMEOUT)
        except client.ApiException as error:
            if error.status == 404:
                return False
            raise _error("look for the CRD", error) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _error("look for the CRD", error) from error
        return any(resource.name == PLURAL for resource in found.resources)

    async def hold(self, run: Run, body: Body, record: str) -> Body:
        """Write the record and the finalizer, if the object is still `body`. Raises ConflictError if it is not."""
        finalizers = body["metadata"].get("finalizers") or []
        metadata = {
            "resourceVersion": body["metadata"]["resourceVersion"],
            "finalizers": finalizers if FINALIZER in finalizers else [*finalizers, FINALIZER],
            "annotations": {RECORD_ANNOTATION: record},
        }
        return await self._patch(run, "claim the run", metadata)

    async def annotate(self, run: Run, record: str) -> Body:
        """Write the record, whatever else changed."""
        return await self._patch(run, "record the run", {"annotations": {RECORD_ANNOTATION: record}})

    async def release(self, run: Run, body: Body) -> Body:
        """Remove the finalizer. Raises ConflictError if the finalizers are no longer those of `body`."""
        index = body["metadata"]["finalizers"].index(FINALIZER)
        path = f"/metadata/finalizers/{index}"
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": run.uid},
            {"op": "test", "path": path, "value": FINALIZER},
            {"op": "remove", "path": path},
        ]
        try:
            return await self._send(run, "release the finalizer", patch, _JSON)
        except ClusterError as error:
            if error.status == 422:  # how the API server says that a test of a JSON patch failed
                raise ConflictError("release the finalizer", 422, str(error)) from error
            raise

    async def write_status(self, run: Run, difference: Mapping[str, Any]) -> Body:
        """Merge `difference` into the status."""
        patch = {"metadata": {"uid": run.uid}, "status": difference}
        try:
            body = await self._objects.patch_namespaced_custom_object_status(
                GROUP, VERSION, run.namespace, PLURAL, run.name, patch, _content_type=_MERGE, _request_timeout=_TIMEOUT
            )
        except (TimeoutError, client.ApiException, aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise _error("write the status", error) from error
        return cast(Body, body)

    async def _patch(self, run: Run, what: str, metadata: Mapping[str, Any]) -> Body:
        return await self._send(run, what, {"metadata": {"uid": run.uid, **metadata}}, _MERGE)

    async def _send(self, run: Run, what: str, patch: Any, content_type: str) -> Body:
        try:
            body = await self._objects.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                run.namespace,
                PLURAL,
                run.name,
                patch,
                _content_type=content_type,
                _request_timeout=_TIMEOUT,
            )
        except (TimeoutError, client.ApiException, aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise _error(what, error) from error
        return cast(Body, body)

    async def post_event(self, run: Run, event: Event, instance: str) -> None:
        """Show `event` with the resource. Raises ClusterError."""
        now = datetime.now(UTC)
        involved = client.V1ObjectReference(
            api_version=API_VERSION, kind=KIND, namespace=run.namespace, name=run.name, uid=run.uid
        )
        body = client.CoreV1Event(
            metadata=client.V1ObjectMeta(generate_name=f"{run.name[:200]}-", namespace=run.namespace),
            involved_object=involved,
            type=event.type,
            reason=event.reason,
            message=event.message[:1024],
            first_timestamp=now,
            last_timestamp=now,
            count=1,
            source=client.V1EventSource(component=_COMPONENT),
            reporting_component=_COMPONENT,
            reporting_instance=instance,
        )
        try:
            await self._core.create_namespaced_event(run.namespace, body, _request_timeout=_TIMEOUT)
        except (TimeoutError, client.ApiException, aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise _error("post an event", error) from error
