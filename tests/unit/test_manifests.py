"""What `kubectl apply -k` makes of the manifests and the overlays."""

import argparse
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from openairun_operator.config import add_flags, settings

DEPLOY = Path(__file__).parents[2] / "deploy"
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding"}
Objects = dict[tuple[str, str], dict[str, Any]]


def rendered(folder: Path) -> Objects:
    command = ["kubectl", "kustomize", str(folder)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}


def made_of(folder: Path, **kustomization: Any) -> Objects:
    """A kustomization of the user's own; `resources` and `components` are paths below deploy."""
    for key in ("resources", "components"):
        paths = [os.path.relpath(DEPLOY / path, folder) for path in kustomization.get(key, ())]
        kustomization[key] = paths  # kustomize takes no absolute ones
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return rendered(folder)


@pytest.fixture(scope="module")
def base() -> Objects:
    return rendered(DEPLOY / "manifests")


@pytest.fixture(scope="module")
def everywhere() -> Objects:
    return rendered(DEPLOY / "overlays/cluster")


@pytest.fixture(scope="module")
def single() -> Objects:
    return rendered(DEPLOY / "overlays/namespace")


def namespaces(objects: Objects) -> set[str]:
    """Those that the objects are in, and those that they name."""
    subjects = [subject for each in objects.values() for subject in each.get("subjects", ())]
    metadata = [each["metadata"] for (kind, _), each in objects.items() if kind not in CLUSTER_WIDE | {"Namespace"}]
    return {each["namespace"] for each in subjects + metadata} | {name for kind, name in objects if kind == "Namespace"}


def rights(objects: Objects) -> dict[str, Any]:
    """The rules of the operator's roles, by name."""
    return {name: each["rules"] for (_, name), each in objects.items() if "rules" in each and "operator" in name}


def args(objects: Objects) -> list[str]:
    (container,) = objects["Deployment", "openairun-operator"]["spec"]["template"]["spec"]["containers"]
    found: list[str] = container["args"]
    return found


def test_the_install_for_all_namespaces_is_the_base_and_reads_secrets(base: Objects, everywhere: Objects) -> None:
    more = {key: each for key, each in everywhere.items() if key not in base}
    assert set(more) == {(kind, "openairun-operator-secrets") for kind in CLUSTER_WIDE}
    assert {key: each for key, each in everywhere.items() if key in base} == base


def test_the_install_for_one_namespace_has_the_same_rights_as_roles(everywhere: Objects, single: Objects) -> None:
    assert not [kind for kind, _ in single if kind in CLUSTER_WIDE]
    assert rights(single) == rights(everywhere)
    assert len(namespaces(single)) == 1
    for (kind, _), each in single.items():
        assert kind != "RoleBinding" or each["roleRef"]["kind"] == "Role"


def test_the_install_for_one_namespace_acts_on_its_own_alone(base: Objects, single: Objects) -> None:
    assert set(args(single)) - set(args(base)) == {"--namespace=$(POD_NAMESPACE)"}
    assert "--lease=$(POD_NAMESPACE)/openairun-operator" in args(single)


def test_the_namespace_is_set_once(tmp_path: Path) -> None:
    mine = made_of(tmp_path, resources=["overlays/namespace"], namespace="mine")
    assert namespaces(mine) == {"mine"}
    assert "team" not in yaml.safe_dump(list(mine.values()))


def test_outputs_are_written_in_one_namespace_alone_too(tmp_path: Path, single: Objects) -> None:
    components = ["manifests/components/outputs", "manifests/components/role-only"]
    mine = made_of(tmp_path, resources=["overlays/namespace"], components=components, namespace="mine")
    assert ("Role", "openairun-operator-outputs") in mine
    assert not [kind for kind, _ in mine if kind in CLUSTER_WIDE]
    assert namespaces(mine) == {"mine"}
    assert args(mine) == args(single)


def test_every_install_enforces_the_restricted_standard_in_its_namespace(
    base: Objects, everywhere: Objects, single: Objects
) -> None:
    for objects in (base, everywhere, single):
        ((_, namespace),) = [item for item in objects.items() if item[0][0] == "Namespace"]
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_role_lists_watches_or_writes_secrets(base: Objects, everywhere: Objects, single: Objects) -> None:
    for objects in (base, everywhere, single):
        rules = [rule for each in objects.values() for rule in each.get("rules", ())]
        verbs = {verb for rule in rules if {"secrets", "*"} & set(rule["resources"]) for verb in rule["verbs"]}
        assert verbs == (set() if objects is base else {"get"})


def test_namespaces_are_listed_and_watched_and_no_more(tmp_path: Path, base: Objects) -> None:
    mine = made_of(tmp_path, resources=["manifests"], components=["manifests/components/namespaces"])
    more = {key: each for key, each in mine.items() if key not in base}
    assert set(more) == {(kind, "openairun-operator-namespaces") for kind in CLUSTER_WIDE}
    (rule,) = more["ClusterRole", "openairun-operator-namespaces"]["rules"]
    assert (rule["resources"], rule["verbs"]) == (["namespaces"], ["list", "watch"])
    assert {key: each for key, each in mine.items() if key in base} == base


@pytest.mark.parametrize("overlay", ["overlays/cluster", "overlays/namespace", "manifests"])
def test_with_a_workload_identity_the_pod_has_a_token_for_openai_and_no_key(
    tmp_path: Path, base: Objects, overlay: str
) -> None:
    patch = """
- op: add
  path: /spec/template/spec/containers/0/args/-
  value: --workload-identity=idp_1/svcacct_1
"""
    mine = made_of(
        tmp_path,
        resources=[overlay],
        components=["manifests/components/workload-identity"],
        patches=[{"target": {"kind": "Deployment", "name": "openairun-operator"}, "patch": patch}],
    )
    assert set(args(base)) - set(args(mine)) == {"--api-key-file=/etc/openairun/credentials/api-key"}
    template = mine["Deployment", "openairun-operator"]["spec"]["template"]["spec"]
    (mount,) = template["containers"][0]["volumeMounts"]
    (volume,) = template["volumes"]
    (source,) = volume["projected"]["sources"]
    token = source["serviceAccountToken"]
    assert mount["name"] == volume["name"]
    assert token["audience"] == "https://api.openai.com/v1"
    parser = argparse.ArgumentParser()
    add_flags(parser, {})
    flags = [each.replace("$(POD_NAMESPACE)", "team") for each in args(mine)[1:]]
    told = settings(parser.parse_args(flags), {})
    assert told.workload_identity == ("idp_1", "svcacct_1")
    assert str(told.workload_token_file) == f"{mount['mountPath']}/{token['path']}"
