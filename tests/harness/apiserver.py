"""The API server that the cluster tests run on: the stand-in, one of our own, or the current kubeconfig context's."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import yaml
from kubernetes.client import ApiException, CoreV1Api
from runs import RUNS, objects

from openairun_devkit.cluster import StandInCluster
from openairun_devkit.controlplane import Binaries, ControlPlane
from openairun_devkit.kubectl import Kubectl

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICE_ACCOUNT = "openairun-operator"
CRDS = ("crd/openairuns.openairun.dev", "crd/openaiproviders.openairun.dev")


@dataclass
class Cluster:
    """Where the CRD is applied, and a ServiceAccount for the operator with the manifests' rights.

    What tests do again and again is not done by kubectl, whose start takes longer than the rest of it.
    """

    kubectl: Kubectl
    version: str
    operator_namespace: str
    control_plane: ControlPlane | None = None
    """None on the stand-in, and on a cluster that is not ours: there only namespaces of our own may be used."""
    is_ours: bool = True
    applied: list[CompletedProcess[str]] = field(default_factory=list)
    """What kubectl said while the CRD and the manifests were applied."""

    @property
    def kubeconfig(self) -> Path:
        return self.kubectl.kubeconfig

    @cached_property
    def operator_token(self) -> str:
        """A token of the operator's ServiceAccount."""
        args = ("create", "token", SERVICE_ACCOUNT, "--duration=2h")
        return self.kubectl.in_namespace(self.operator_namespace).run(*args).stdout.strip()

    def create_namespace(self) -> str:
        """A namespace in which the operator has its rights."""
        name = f"openairun-test-{secrets.token_hex(4)}"
        CoreV1Api(objects(self.kubeconfig).api_client).create_namespace({"metadata": {"name": name}})
        if not self.is_ours:
            self._apply_role(name, self._rights(name))
        return name

    def delete_namespace(self, name: str) -> None:
        """Free and delete the namespace's runs, then ask for its deletion, which goes on by itself."""
        runs = objects(self.kubeconfig)
        for run in runs.list_namespaced_custom_object(**RUNS, namespace=name)["items"]:
            if run["metadata"].get("finalizers"):
                free = {"metadata": {"finalizers": None}}
                with suppress(ApiException):  # it may go away between the two calls
                    runs.patch_namespaced_custom_object(**RUNS, namespace=name, name=run["metadata"]["name"], body=free)
        CoreV1Api(runs.api_client).delete_namespace(name, _preload_content=False)

    def grant(self, namespace: str, component: str) -> None:
        """Give the operator the rights of a component of the manifests, in this namespace alone."""
        manifests = yaml.safe_load_all((DEPLOY / f"manifests/components/{component}/rbac.yaml").read_text())
        rules = next(each["rules"] for each in manifests if each["kind"] == "ClusterRole")
        self._apply_role(namespace, self._role(namespace, f"{SERVICE_ACCOUNT}-{component}", rules))

    def _apply_role(self, namespace: str, role: Iterable[dict[str, Any]]) -> None:
        for body in role:
            group, _, version = body["apiVersion"].partition("/")
            plural = f"{body['kind'].lower()}s"
            try:
                objects(self.kubeconfig).create_namespaced_custom_object(group, version, namespace, plural, body)
            except ApiException as error:
                if error.status != 409:  # it was granted before
                    raise

    def _rights(self, namespace: str) -> Iterator[dict[str, Any]]:
        """The manifests' ClusterRole as a Role: on a cluster that is not ours, nothing cluster-wide is left."""
        manifests = yaml.safe_load_all((DEPLOY / "manifests/rbac.yaml").read_text())
        rules = next(each["rules"] for each in manifests if each["kind"] == "ClusterRole")
        return self._role(namespace, SERVICE_ACCOUNT, rules)

    def _role(self, namespace: str, name: str, rules: list[Any]) -> Iterator[dict[str, Any]]:
        metadata = {"name": name, "namespace": namespace}
        group = "rbac.authorization.k8s.io"
        yield {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
        subject = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": self.operator_namespace}
        yield {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [subject],
        }


@contextmanager
def own_cluster(binaries: Binaries) -> Iterator[Cluster]:
    """A control plane for these tests alone, with the CRD and the manifests applied."""
    with ControlPlane(binaries) as control_plane:
        kubectl = Kubectl(control_plane.kubeconfig, program=shutil.which("kubectl") or binaries.kubectl or "kubectl")
        applied = [_apply_crds(kubectl), kubectl.run("apply", "--kustomize", str(DEPLOY / "manifests"))]
        yield Cluster(kubectl, control_plane.version, "openairun-system", control_plane, applied=applied)


@contextmanager
def standin_cluster() -> Iterator[Cluster]:
    """The stand-in, with the CRD and the manifests applied."""
    with StandInCluster() as standin:
        kubectl = Kubectl(standin.kubeconfig)
        applied = [_apply_crds(kubectl), kubectl.run("apply", "--kustomize", str(DEPLOY / "manifests"))]
        yield Cluster(kubectl, standin.version, "openairun-system", applied=applied)


@contextmanager
def current_cluster() -> Iterator[Cluster]:
    """The current kubeconfig context. The CRD is applied and stays; of the rest nothing does."""
    with tempfile.TemporaryDirectory(prefix="openairun-test-") as directory:
        kubeconfig = Path(directory) / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        # A copy: the tests must not follow when somebody switches contexts meanwhile.
        kubeconfig.write_text(current_context())
        kubectl = Kubectl(kubeconfig)
        version = kubectl.json("version")["serverVersion"]["gitVersion"]
        applied = [_apply_crds(kubectl)]
        namespace = f"openairun-test-{secrets.token_hex(4)}-operator"
        kubectl.run("create", "namespace", namespace)
        try:
            kubectl.in_namespace(namespace).run("create", "serviceaccount", SERVICE_ACCOUNT)
            yield Cluster(kubectl, version, namespace, applied=applied, is_ours=False)
        finally:
            kubectl.run("delete", "namespace", namespace, "--wait=false")


def current_context() -> str:
    """The current context alone, with its files inlined."""
    command = ["kubectl", "config", "view", "--minify", "--flatten", "--raw"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _apply_crds(kubectl: Kubectl) -> CompletedProcess[str]:
    result = kubectl.run("apply", "--kustomize", str(DEPLOY / "crds"))
    kubectl.run("wait", "--for=condition=Established", "--timeout=30s", *CRDS)
    return result
