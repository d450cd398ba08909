"""OpenAIProviders and their Secrets, as the cluster tests write and read them."""

from __future__ import annotations

from typing import Any

import yaml
from runs import objects

from openairun_devkit.kubectl import Kubectl

PROVIDERS = {"group": "openairun.dev", "version": "v1alpha1", "plural": "openaiproviders"}
ON_LOOPBACK = "--allow-address=127.0.0.0/8"
"""Where the stand-ins are."""


def secret(name: str, key: str) -> dict[str, Any]:
    """A Secret that holds an API key."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"api-key": key}}


def provider(name: str, base_url: str, **spec: Any) -> dict[str, Any]:
    """An OpenAIProvider with its key in the Secret `name`."""
    spec = {"baseURL": base_url, "apiKeySecretRef": {"name": name, "key": "api-key"}, **spec}
    return {"apiVersion": "openairun.dev/v1alpha1", "kind": "OpenAIProvider", "metadata": {"name": name}, "spec": spec}


class AppliedProvider:
    """One applied OpenAIProvider and its Secret."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self.kubectl = kubectl
        self.name = name

    @classmethod
    def apply(cls, kubectl: Kubectl, name: str, base_url: str, key: str, **spec: Any) -> AppliedProvider:
        kubectl.apply(yaml.safe_dump_all([secret(name, key), provider(name, base_url, **spec)]))
        return cls(kubectl, name)

    def rotate(self, key: str) -> None:
        """Put another key into the Secret."""
        self.kubectl.apply(secret(self.name, key))

    @property
    def status(self) -> dict[str, Any]:
        assert self.kubectl.namespace is not None
        body: dict[str, Any] = objects(self.kubectl.kubeconfig).get_namespaced_custom_object(
            **PROVIDERS, namespace=self.kubectl.namespace, name=self.name
        )
        status: dict[str, Any] = body.get("status", {})
        return status

    def wait_for(self, condition: str, timeout: float = 30) -> AppliedProvider:
        """`kubectl wait --for=condition=…`."""
        self.kubectl.run("wait", f"--for=condition={condition}", f"openaiprovider/{self.name}", f"--timeout={timeout}s")
        return self
