"""The two installs under their own rights: for all namespaces, and for a single one, which has no right beyond it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver import DEPLOY, SERVICE_ACCOUNT, Cluster
from openai_control import OpenAIControl
from processes import Processes
from runs import RESPONSE, Resource
from waiting import wait_until

from openairun_devkit.kubectl import Kubectl, KubectlError

pytestmark = [pytest.mark.cluster, pytest.mark.real_cluster]

OVERLAYS = DEPLOY / "overlays"
RIGHTS = {
    ("list", "openairuns"), ("watch", "openairuns"), ("patch", "openairuns"), ("delete", "openairuns"),
    ("patch", "openairuns/status"),
    ("get", "openaiproviders"), ("list", "openaiproviders"), ("watch", "openaiproviders"),
    ("patch", "openaiproviders/status"),
    ("create", "events"), ("get", "configmaps"), ("get", "secrets"),
}  # fmt: skip
LEASE = {("create", "leases"), ("get", "leases"), ("update", "leases")}
EVERYWHERE = [
    "namespaces",
    "customresourcedefinitions.apiextensions.k8s.io",
    "openairuns",
    "openaiproviders",
    "secrets",
]


@dataclass
class Installed:
    """An overlay as it was applied; `cluster` is the test's own, with this overlay's operator."""

    cluster: Cluster
    namespace: str
    manifests: list[dict[str, Any]]

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = [each for each in self.manifests if each["kind"] == kind]
        return found

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl.in_namespace(self.namespace)

    @property
    def args(self) -> list[str]:
        """The flags of its Pod that say what it acts on."""
        template = self.one("Deployment")["spec"]["template"]
        args = [arg.replace("$(POD_NAMESPACE)", self.namespace) for arg in template["spec"]["containers"][0]["args"]]
        return [arg for arg in args if arg.startswith(("--lease=", "--namespace="))]

    def may(self, namespace: str) -> set[tuple[str, str]]:
        """What its ServiceAccount may do in the namespace, by verb and resource."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        answer = self.kubectl.run(
            "create", "--filename=-", "--validate=false", "--output=json", *self._as(), input=json.dumps(review)
        )
        rules = json.loads(answer.stdout)["status"]["resourceRules"]
        allowed = {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
        # system:basic-user lets everybody ask who they are and what they may do.
        return {(verb, resource) for verb, resource in allowed if not resource.startswith("self")}

    def may_everywhere(self, verb: str, resource: str) -> bool:
        answer = self.kubectl.run("auth", "can-i", verb, resource, "--all-namespaces", *self._as(), check=False)
        return answer.stdout.strip() == "yes"

    def _as(self) -> list[str]:
        groups = ("system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{self.namespace}")
        user = f"system:serviceaccount:{self.namespace}:{SERVICE_ACCOUNT}"
        return [f"--as={user}", *(f"--as-group={group}" for group in groups)]


def rendered(kubectl: Kubectl, folder: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(kubectl.run("kustomize", str(folder)).stdout))


@pytest.fixture
def everywhere(cluster: Cluster) -> Iterator[Installed]:
    """The install for all namespaces; what it has beyond the base is taken away again."""
    if cluster.control_plane is None:
        pytest.skip("nothing is installed on a cluster that is not ours")
    manifests = rendered(cluster.kubectl, OVERLAYS / "cluster")
    base = rendered(cluster.kubectl, DEPLOY / "manifests")
    more = yaml.safe_dump_all(each for each in manifests if each not in base)
    cluster.kubectl.apply(yaml.safe_dump_all(manifests))
    installed = Installed(cluster, "openairun-system", manifests)
    wait_until(lambda: ("get", "secrets") in installed.may("default"), 5, "the right to read Secrets")
    yield installed
    cluster.kubectl.run("delete", "--filename=-", input=more)


@pytest.fixture
def single(cluster: Cluster, tmp_path: Path) -> Iterator[Installed]:
    """The install for a single namespace, which a kustomization of the user's own names."""
    if cluster.control_plane is None:
        pytest.skip("nothing is installed on a cluster that is not ours")
    name = f"openairun-test-{secrets.token_hex(4)}"
    overlay = os.path.relpath(OVERLAYS / "namespace", tmp_path)  # kustomize takes no absolute paths
    (tmp_path / "kustomization.yaml").write_text(f"namespace: {name}\nresources: [{overlay}]\n")
    manifests = rendered(cluster.kubectl, tmp_path)
    cluster.kubectl.apply(yaml.safe_dump_all(manifests))
    installed = Installed(replace(cluster, operator_namespace=name), name, manifests)
    wait_until(lambda: ("get", "secrets") in installed.may(name), 5, "the right to read Secrets")
    yield installed
    cluster.delete_namespace(name)


@pytest.fixture(params=["everywhere", "single"])
def installed(request: pytest.FixtureRequest, cluster: Cluster) -> Installed:
    found: Installed = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def ours(installed: Installed, tmp_path: Path) -> Iterator[Processes]:
    """Starts operators as the ServiceAccount of this install."""
    processes = Processes(installed.cluster, tmp_path)
    yield processes
    processes.end()


def test_for_all_namespaces_it_reads_secrets_by_name_and_no_more(everywhere: Installed, namespace: str) -> None:
    assert everywhere.may(namespace) == RIGHTS
    assert everywhere.may(everywhere.namespace) == RIGHTS | LEASE
    for verb in ("list", "watch", "create", "update", "patch", "delete", "deletecollection"):
        assert not everywhere.may_everywhere(verb, "secrets"), verb


def test_for_a_single_namespace_it_may_do_the_same_there_and_nothing_elsewhere(
    single: Installed, namespace: str
) -> None:
    assert single.may(single.namespace) == RIGHTS | LEASE
    assert single.may(namespace) == set()
    assert [each for each in EVERYWHERE for verb in ("get", "list", "watch") if single.may_everywhere(verb, each)] == []
    bindings = single.kubectl.json("get", "clusterrolebindings")["items"]
    assert single.namespace not in {s.get("namespace") for each in bindings for s in each.get("subjects", ())}


def test_its_namespace_takes_no_pod_that_is_not_restricted(installed: Installed) -> None:
    assert installed.one("Namespace")["metadata"]["name"] == installed.namespace
    template = installed.one("Deployment")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "admitted"}, "spec": template["spec"]}
    assert installed.kubectl.apply(pod, "--dry-run=server").stderr == ""
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        installed.kubectl.apply(pod, "--dry-run=server")


def test_its_operator_needs_no_right_that_it_has_not(installed: Installed, ours: Processes, namespace: str) -> None:
    """A run from its create to its deletion, with an input from a Secret, and one that deletes itself."""
    runs_in = installed.namespace if any(arg.startswith("--namespace=") for arg in installed.args) else namespace
    kubectl = installed.kubectl.in_namespace(runs_in)
    openai: OpenAIControl = ours.start_openai()
    operator = ours.start_operator(None, base_url=openai.base_url, extra_args=installed.args)
    operator.wait_ready().wait_for_log("holds the Lease")
    kubectl.run("create", "secret", "generic", "question", "--from-literal=text=Why?")
    asked = {"model": "m", "inputFrom": {"secretKeyRef": {"name": "question", "key": "text"}}, "ttlAfterFinished": "1s"}
    kept = Resource.apply(kubectl, "kept", RESPONSE).wait_for("Ready")
    goes = Resource.apply(kubectl, "goes", RESPONSE, script="never").wait_phase("InProgress")
    short = Resource.apply(kubectl, "short", asked)
    wait_until(lambda: not short.exists, 30, "the run that deletes itself")
    goes.delete()
    assert kept.exists
    wait_until(lambda: "Cancelled" in kubectl.run("get", "events").stdout, 5, "the event of the cancel")
    assert "orbidden" not in operator.logs
    assert operator.stop() == 0
