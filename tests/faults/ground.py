"""Where faults are tried: a namespace, an OpenAI stand-in, one operator at a time, and a proxy on both its sides."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import kubernetes
from apiserver import Cluster
from gate import Gate
from openai_control import OpenAIControl
from operator_process import OperatorProcess
from processes import Processes
from runs import RUNS

from openairun_devkit.api_proxy import ApiProxy

FLAGS = ("--request-timeout=3s", "--orphan-limit=15s")
"""Short, since waiting for them is most of the time: a request's time-out also says how long after a create without
an answer a search that finds nothing means that there is nothing."""


class Ground:
    """`with Ground(cluster, directory) as ground:` has an operator running."""

    def __init__(self, cluster: Cluster, directory: Path, flags: tuple[str, ...] = FLAGS) -> None:
        self._cluster = cluster
        self._flags = flags
        self._stack = contextlib.ExitStack()
        self._processes = Processes(cluster, directory)
        self._lock = threading.Lock()
        self.gate = Gate()
        self.namespace = ""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.namespace = self._cluster.create_namespace()
            stack.callback(self._cluster.delete_namespace, self.namespace)
            self._cluster.grant(self.namespace, "outputs")
            stack.callback(self._processes.end)
            self.openai: OpenAIControl = self._processes.start_openai()
            self.api_proxy = stack.enter_context(ApiProxy.of_cluster(self._cluster.kubeconfig, self.gate))
            address = self.openai.base_url.removesuffix("/v1")
            self.openai_proxy = stack.enter_context(ApiProxy(address, observer=self.gate))
            client = kubernetes.config.new_client_from_config(str(self._cluster.kubeconfig))
            stack.callback(client.close)
            self._objects = kubernetes.client.CustomObjectsApi(client)
            self._core = kubernetes.client.CoreV1Api(client)
            self.start()
            self.operator.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # The operator

    def start(self) -> None:
        """Start an operator."""
        self.operator: OperatorProcess = self._processes.start_operator(
            self.namespace,
            base_url=f"{self.openai_proxy.url}/v1",
            through_proxy=self.api_proxy,
            extra_args=self._flags,
        )

    def kill(self) -> None:
        """Kill it, and start another one."""
        self.operator.kill9()
        self.gate.open(drop=True)
        self.start()

    @property
    def logs(self) -> str:
        """What all operators so far have written."""
        return "".join(log.read_text(errors="replace") for name, log in self._processes.logs if "operator" in name)

    # What a user does and sees

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create it; if it is there already, it is that of a request whose answer was lost."""
        try:
            created: dict[str, Any] = self._objects.create_namespaced_custom_object(
                **RUNS, namespace=self.namespace, body=body
            )
        except kubernetes.client.ApiException as error:
            if error.status == 409 and (found := self.read(body["metadata"]["name"])):
                return found
            raise
        return created

    def read(self, name: str) -> dict[str, Any] | None:
        """The resource; None if there is none."""
        try:
            found: dict[str, Any] = self._objects.get_namespaced_custom_object(
                **RUNS, namespace=self.namespace, name=name
            )
        except kubernetes.client.ApiException as error:
            if _says_gone(error):
                return None
            raise
        return found

    def patch(self, name: str, patch: dict[str, Any]) -> None:
        """A merge patch."""
        self._objects.patch_namespaced_custom_object(**RUNS, namespace=self.namespace, name=name, body=patch)

    def delete(self, name: str) -> None:
        """Delete it, unless it has gone."""
        try:
            self._objects.delete_namespaced_custom_object(**RUNS, namespace=self.namespace, name=name)
        except kubernetes.client.ApiException as error:
            if not _says_gone(error):
                raise

    def events(self, uid: str) -> list[str]:
        """The messages of the resource's events."""
        found = self._core.list_namespaced_event(self.namespace, field_selector=f"involvedObject.uid={uid}")
        return [f"{event.reason}: {event.message}" for event in found.items]


def _says_gone(error: kubernetes.client.ApiException) -> bool:
    """Whether the API server says of an object that it is not there; one that still starts knows of no resource."""
    if error.status != 404:
        return False
    try:
        return bool(json.loads(error.body)["details"]["name"])
    except (ValueError, LookupError, TypeError):
        return False
