"""Installing and removing: what users get, what stays, and what frees resources that the operator left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver import DEPLOY, Cluster
from processes import StartOperator
from runs import RESPONSE, Resource, run
from waiting import wait_until

from openairun_devkit.kubectl import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.real_cluster]

README = DEPLOY.parent / "README.md"
ALL = {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
READ = {"get", "list", "watch"}


def installed(cluster: Cluster) -> Kubectl:
    """kubectl, where the manifests are applied."""
    if cluster.control_plane is None:
        pytest.skip("the manifests are not applied to a cluster that is not ours")
    return cluster.kubectl


def bind_as_aggregated(kubectl: Kubectl, role: str, user: str) -> None:
    """Bind `user` to what aggregates to the cluster's own `role`: no controller that adds it up runs here."""
    all_roles = kubectl.json("get", "clusterroles")["items"]
    (aggregated,) = [each for each in all_roles if each["metadata"]["name"] == role]
    selectors = [each["matchLabels"] for each in aggregated["aggregationRule"]["clusterRoleSelectors"]]
    for each in all_roles:
        name, labels = each["metadata"]["name"], each["metadata"].get("labels", {})
        if any(selector.items() <= labels.items() for selector in selectors):
            kubectl.run(
                "create", "rolebinding", f"{user}-{name.replace(':', '-')}", f"--clusterrole={name}", f"--user={user}"
            )


@pytest.mark.parametrize(("role", "allowed"), [("view", READ), ("edit", ALL), ("admin", ALL)])
def test_the_clusters_own_roles_hold_for_runs_and_providers(
    cluster: Cluster, kubectl: Kubectl, role: str, allowed: set[str]
) -> None:
    installed(cluster)
    user = f"user-{role}"
    bind_as_aggregated(kubectl, role, user)

    def may(verb: str, resource: str, *args: str) -> bool:
        answer = kubectl.run("auth", "can-i", verb, resource, f"--as={user}", *args, check=False)
        return answer.stdout.strip() == "yes"

    for resource in ("openairuns", "openaiproviders"):
        assert {verb for verb in sorted(ALL) if may(verb, resource)} == allowed
        assert not may("patch", resource, "--subresource=status"), "status is the operator's to write"
    created = kubectl.apply(run("by-a-user", RESPONSE), "--dry-run=server", f"--as={user}", check=False)
    assert (created.returncode == 0) == ("create" in allowed)


def rendered(cluster: Cluster, folder: Path, *components: str) -> list[dict[str, Any]]:
    """The manifests as a kustomization of the user's own has them, with components."""
    manifests = os.path.relpath(DEPLOY / "manifests", folder)
    kustomization = {"resources": [manifests], "components": [f"{manifests}/components/{name}" for name in components]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return list(yaml.safe_load_all(cluster.kubectl.run("kustomize", str(folder)).stdout))


def test_components_stand_beside_the_operator_and_change_nothing_of_it(cluster: Cluster, tmp_path: Path) -> None:
    components = ("secrets", "outputs", "namespaces")
    alone, every = rendered(cluster, tmp_path), rendered(cluster, tmp_path, *components)
    assert [each for each in every if each in alone] == alone
    more = {(each["kind"], each["metadata"]["name"]) for each in every if each not in alone}
    names = [f"openairun-operator-{component}" for component in components]
    assert more == {(kind, name) for kind in ("ClusterRole", "ClusterRoleBinding") for name in names}


@pytest.mark.parametrize(
    ("component", "resource", "before", "after"),
    [
        ("secrets", "secrets", set(), {"get"}),
        ("outputs", "configmaps", {"get"}, {"get", "create", "update"}),
        ("namespaces", "namespaces", set(), {"list", "watch"}),
    ],
)
def test_a_component_gives_its_right_and_no_other(
    cluster: Cluster, kubectl: Kubectl, tmp_path: Path, component: str, resource: str, before: set[str], after: set[str]
) -> None:
    installed(cluster)
    user = f"system:serviceaccount:{cluster.operator_namespace}:openairun-operator"

    def verbs() -> set[str]:
        asked = {
            verb: kubectl.run("auth", "can-i", verb, resource, f"--as={user}", check=False) for verb in sorted(ALL)
        }
        return {verb for verb, answer in asked.items() if answer.stdout.strip() == "yes"}

    alone = rendered(cluster, tmp_path)
    added = yaml.safe_dump_all(each for each in rendered(cluster, tmp_path, component) if each not in alone)
    assert verbs() == before
    kubectl.apply(added)
    try:
        wait_until(lambda: verbs() == after, 5, f"the rights {after}")
    finally:
        kubectl.run("delete", "--filename=-", input=added)
    wait_until(lambda: verbs() == before, 5, "the rights as before")


def test_others_have_no_right_to_runs(cluster: Cluster, kubectl: Kubectl) -> None:
    answer = kubectl.run("auth", "can-i", "get", "openairuns", "--as=somebody", check=False)
    assert answer.stdout.strip() == "no"


def test_removing_the_operator_removes_neither_the_crd_nor_runs(cluster: Cluster) -> None:
    kubectl = installed(cluster)
    gone = kubectl.run("delete", f"--kustomize={DEPLOY / 'manifests'}", "--dry-run=server", "--output=name").stdout
    kinds = {line.partition("/")[0] for line in gone.splitlines()}
    assert "deployment.apps" in kinds
    assert not [kind for kind in kinds if "openairun" in kind or "customresource" in kind]
    assert [line for line in gone.splitlines() if line.startswith("namespace/")] == ["namespace/openairun-system"]


def test_the_network_policy_is_about_the_operators_pod_and_its_ports(cluster: Cluster) -> None:
    kubectl = installed(cluster).in_namespace("openairun-system")
    policy = kubectl.json("get", "networkpolicy", "openairun-operator")["spec"]
    template: dict[str, Any] = kubectl.json("get", "deployment", "openairun-operator")["spec"]["template"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    named = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == named
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443, 6443}


def test_the_operator_runs_as_a_user_without_a_name(
    kubectl: Kubectl, start_operator: StartOperator, tmp_path: Path
) -> None:
    """As in a container: the number of its user is in no /etc/passwd."""
    nameless = "import pwd\ndef unknown(*_):\n    raise KeyError('uid not found')\npwd.getpwuid = unknown\n"
    (tmp_path / "sitecustomize.py").write_text(nameless)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    operator = start_operator(kubectl.namespace, env={"PYTHONPATH": path}).wait_ready()
    Resource.apply(kubectl, "hello", RESPONSE).wait_for("Finished")
    assert operator.running


def test_the_readmes_command_frees_runs_that_the_operator_left_behind(
    cluster: Cluster, kubectl: Kubectl, start_operator: StartOperator, tmp_path: Path
) -> None:
    installed(cluster)
    (command,) = [line for line in README.read_text().splitlines() if line.startswith("kubectl get openairuns -A ")]
    operator = start_operator(kubectl.namespace).wait_ready()
    for name in ("one", "two"):
        Resource.apply(kubectl, name, RESPONSE, "never").wait_phase("InProgress")
    operator.stop()
    kubectl.run("delete", "openairuns", "--all", "--wait=false")
    assert Resource(kubectl, "one").exists
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(cluster.kubeconfig)}
    subprocess.run(["/bin/sh", "-c", command], env=environment, check=True, timeout=30)
    wait_until(lambda: not kubectl.json("get", "openairuns")["items"], 5, "the runs are gone")
    subprocess.run(["/bin/sh", "-c", command], env=environment, check=True, timeout=30)  # with nothing to free
