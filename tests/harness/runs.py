"""Resources as the cluster tests write and read them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import kubernetes
from waiting import wait_until

from openairun_devkit.kubectl import Kubectl

RUNS = {"group": "openairun.dev", "version": "v1alpha1", "plural": "openairuns"}
RESPONSE = {"model": "gpt-5-mini", "input": "Say hello."}
ASSISTANT = {"assistantID": "asst_abc123", "threadID": "thread_abc123"}
BOTH = {"Responses": RESPONSE, "Assistants": ASSISTANT}


def run(name: str, spec: dict[str, Any], script: str | None = None) -> dict[str, Any]:
    """An OpenAIRun; `script` tells the OpenAI stand-in how the run shall go."""
    if script:
        spec = {**spec, "metadata": {**spec.get("metadata", {}), "standin": script}}
    return {"apiVersion": "openairun.dev/v1alpha1", "kind": "OpenAIRun", "metadata": {"name": name}, "spec": spec}


@functools.cache
def objects(kubeconfig: Path) -> kubernetes.client.CustomObjectsApi:
    """A client for custom objects that does what the kubeconfig allows."""
    return kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config(str(kubeconfig)))


class Resource:
    """One applied OpenAIRun, as kubectl sees it."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self.kubectl = kubectl
        self.name = name

    @classmethod
    def apply(cls, kubectl: Kubectl, name: str, spec: dict[str, Any], script: str | None = None) -> Resource:
        kubectl.apply(run(name, spec, script))
        return cls(kubectl, name)

    @property
    def body(self) -> dict[str, Any]:
        # Not by kubectl: tests read again and again, and starting it costs far more than the answer.
        assert self.kubectl.namespace is not None
        return objects(self.kubectl.kubeconfig).get_namespaced_custom_object(
            **RUNS, namespace=self.kubectl.namespace, name=self.name
        )

    @property
    def status(self) -> dict[str, Any]:
        return self.body.get("status", {})

    def condition(self, type_: str) -> dict[str, Any]:
        """The condition, or an empty one."""
        return next((c for c in self.status.get("conditions", []) if c["type"] == type_), {})

    @property
    def reason(self) -> str | None:
        return self.condition("Ready").get("reason")

    def wait_for(self, condition: str, timeout: float = 30) -> Resource:
        """`kubectl wait --for=condition=…`."""
        self.kubectl.run("wait", f"--for=condition={condition}", f"openairun/{self.name}", f"--timeout={timeout}s")
        return self

    def wait_phase(self, phase: str, timeout: float = 30) -> Resource:
        wait_until(lambda: self.status.get("phase") == phase, timeout, f"{self.name} in phase {phase}")
        return self

    def wait_reason(self, reason: str, timeout: float = 30) -> Resource:
        wait_until(lambda: self.reason == reason, timeout, f"{self.name} with reason {reason}")
        return self

    def delete(self, timeout: float = 10) -> None:
        """Delete it, and see it gone within `timeout` seconds."""
        self.kubectl.run("delete", "openairun", self.name, f"--timeout={timeout}s")

    @property
    def exists(self) -> bool:
        try:
            return bool(self.body)
        except kubernetes.client.ApiException as error:
            if error.status == 404:
                return False
            raise
