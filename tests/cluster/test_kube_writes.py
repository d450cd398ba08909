"""What the operator reads and writes beside its watch, against an API server: texts, answers, deletions, statuses."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from apiserver import Cluster as ApiServer
from kubernetes.aio import client, config
from runs import RESPONSE
from runs import run as manifest

from openairun_devkit.kubectl import Kubectl, read_cluster, write_kubeconfig
from openairun_operator.api.reasons import Reason
from openairun_operator.api.references import KeyRef, Source
from openairun_operator.kube import outputs, references
from openairun_operator.kube.cluster import Cluster, ClusterError, ConflictError, GoneError, RefusedError
from openairun_operator.kube.outputs import OUTPUT_OF, RUN_ID, SHA256, OutputFailedError
from openairun_operator.kube.references import ReferenceFailedError
from openairun_operator.lifecycle.run import Run, parse

pytestmark = pytest.mark.cluster

MIB = 1024 * 1024
Body = dict[str, Any]


async def connect(kubeconfig: Path) -> Cluster:
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    return Cluster(client.ApiClient(configuration))


@pytest.fixture
async def writer(cluster: ApiServer) -> AsyncIterator[Cluster]:
    """With an administrator's rights."""
    connected = await connect(cluster.kubeconfig)
    yield connected
    await connected.close()


@pytest.fixture
async def operator(cluster: ApiServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    """With the rights of the manifests."""
    server, authority = read_cluster(cluster.kubeconfig)
    file = tmp_path / "kubeconfig"
    write_kubeconfig(file, server=server, token=cluster.operator_token, certificate_authority=authority)
    connected = await connect(file)
    yield connected
    await connected.close()


def applied(kubectl: Kubectl, **spec: Any) -> Run:
    """A resource."""
    kubectl.apply(manifest("x", {**RESPONSE, **spec}))
    return seen(kubectl)


def seen(kubectl: Kubectl) -> Run:
    return parse(kubectl.json("get", "openairun", "x"))


def config_map(kubectl: Kubectl) -> Body:
    found: Body = kubectl.json("get", "configmap", "answer")
    return found


def meddle(kubectl: Kubectl, what: str, patch: Body) -> None:
    """Somebody's merge patch."""
    kubectl.run("patch", *what.split(), "--type=merge", f"--patch={json.dumps(patch)}")


# References


async def test_texts_are_read_from_config_maps_and_secrets(kubectl: Kubectl, writer: Cluster) -> None:
    data = {"greeting": "Grüß Gott\n"}
    binary = {"bytes": base64.b64encode("wörtlich".encode()).decode(), "junk": "/w=="}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "t"},
        "data": data,
        "binaryData": binary,
    }
    kubectl.apply(config_map)
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "stringData": {"token": "sk-1"}})
    namespace = str(kubectl.namespace)

    async def read(key: str, name: str = "t") -> str:
        return await references.read(writer, namespace, Source(configMapKeyRef=KeyRef(name=name, key=key)))

    assert await read("greeting") == "Grüß Gott\n"
    assert await read("bytes") == "wörtlich"
    assert await references.read(writer, namespace, Source(secretKeyRef=KeyRef(name="t", key="token"))) == "sk-1"
    for key, name, said in (
        ("greeting", "u", "There is no ConfigMap u"),
        ("other", "t", "has no key other"),
        ("junk", "t", "UTF-8"),
    ):
        with pytest.raises(ReferenceFailedError, match=said):
            await read(key, name)
    with pytest.raises(ReferenceFailedError, match="There is no Secret u"):
        await references.read_secret(writer, namespace, KeyRef(name="u", key="token"))


async def test_no_log_has_a_secret(kubectl: Kubectl, writer: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    value = b"sk-so-secret\xff"
    encoded = base64.b64encode(value).decode()
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "data": {"token": encoded}})
    with pytest.raises(ReferenceFailedError, match="UTF-8"):
        await references.read_secret(writer, str(kubectl.namespace), KeyRef(name="t", key="token"))
    assert "so-secret" not in caplog.text
    assert encoded not in caplog.text


@pytest.mark.real_cluster
async def test_the_operator_alone_may_read_config_maps_and_no_secret(kubectl: Kubectl, operator: Cluster) -> None:
    kubectl.run("create", "configmap", "t", "--from-literal=k=v")
    kubectl.run("create", "secret", "generic", "t", "--from-literal=k=v")
    namespace, ref = str(kubectl.namespace), KeyRef(name="t", key="k")
    assert await references.read(operator, namespace, Source(configMapKeyRef=ref)) == "v"
    for name in ("t", "not-there"):
        with pytest.raises(ReferenceFailedError, match="components/secrets") as failed:
            await references.read_secret(operator, namespace, KeyRef(name=name, key="k"))
        assert failed.value.failure.reason == Reason.REFERENCE_FORBIDDEN


# Outputs


async def write(writer: Cluster, run: Run, data: dict[str, str], *, id: str = "resp_1", owned: bool = True) -> None:
    await outputs.write(writer, run, "answer", data, run_id=id, answer_id=id, sha256="abc", owned=owned)


async def failure(writer: Cluster, run: Run, data: dict[str, str]) -> Reason:
    with pytest.raises(OutputFailedError) as failed:
        await write(writer, run, data)
    return failed.value.failure.reason


async def test_an_answer_is_made_replaced_and_left_alone(kubectl: Kubectl, writer: Cluster) -> None:
    run = applied(kubectl)
    await write(writer, run, {"output": "one", "more": "x"})
    made = config_map(kubectl)
    assert made["data"] == {"output": "one", "more": "x"}
    assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "openairun-operator"}
    assert made["metadata"]["annotations"] == {OUTPUT_OF: run.key, RUN_ID: "resp_1", SHA256: "abc"}
    (owner,) = made["metadata"]["ownerReferences"]
    wanted = {"apiVersion": "openairun.dev/v1alpha1", "kind": "OpenAIRun", "name": "x", "uid": run.uid}
    assert owner == {**wanted, "controller": True, "blockOwnerDeletion": False}

    meddle(kubectl, "configmap answer", {"metadata": {"labels": {"team": "a"}}, "binaryData": {"b": "AAAA"}})
    await write(writer, run, {"output": "two"}, id="resp_2")
    after = config_map(kubectl)
    assert (after["data"], after.get("binaryData")) == ({"output": "two"}, None)
    assert after["metadata"]["labels"]["team"] == "a"
    assert after["metadata"]["annotations"][RUN_ID] == "resp_2"
    await write(writer, run, {"output": "two"}, id="resp_2")
    assert config_map(kubectl)["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"], "nothing written"

    await write(writer, run, {"output": "two"}, id="resp_2", owned=False)
    assert "ownerReferences" not in config_map(kubectl)["metadata"]


async def test_a_re_created_resource_takes_its_answer_over(kubectl: Kubectl, writer: Cluster) -> None:
    old = applied(kubectl)
    await write(writer, old, {"output": "one"})
    kubectl.run("delete", "openairun", "x")
    new = applied(kubectl)
    assert new.uid != old.uid
    await write(writer, new, {"output": "one"})
    assert [owner["uid"] for owner in config_map(kubectl)["metadata"]["ownerReferences"]] == [new.uid]


async def test_what_is_not_ours_or_immutable_stays(kubectl: Kubectl, writer: Cluster) -> None:
    run = applied(kubectl)
    kubectl.run("create", "configmap", "answer", "--from-literal=theirs=1")
    assert await failure(writer, run, {"output": "one"}) == Reason.OUTPUT_NOT_OURS
    assert config_map(kubectl)["data"] == {"theirs": "1"}
    kubectl.run("delete", "configmap", "answer")
    await write(writer, run, {"output": "one"})
    meddle(kubectl, "configmap answer", {"immutable": True})
    assert await failure(writer, run, {"output": "two"}) == Reason.OUTPUT_NOT_WRITTEN
    assert config_map(kubectl)["data"] == {"output": "one"}
    await write(writer, run, {"output": "one"}, owned=False)


async def test_what_is_being_deleted_is_left_until_it_has_gone(kubectl: Kubectl, writer: Cluster) -> None:
    run = applied(kubectl)
    await write(writer, run, {"output": "one"})
    meddle(kubectl, "configmap answer", {"metadata": {"finalizers": ["example.com/held"]}})
    kubectl.run("delete", "configmap", "answer", "--wait=false")
    with pytest.raises(ClusterError, match="it is being deleted"):
        await write(writer, run, {"output": "two"})
    meddle(kubectl, "configmap answer", {"metadata": {"finalizers": None}})
    await write(writer, run, {"output": "two"})
    assert config_map(kubectl)["data"] == {"output": "two"}


async def test_an_answer_of_exactly_the_limit_fits(kubectl: Kubectl, writer: Cluster) -> None:
    run = applied(kubectl)
    await write(writer, run, {"output": "x" * (MIB - 2), "more": "é"})
    with pytest.raises(RefusedError, match=r"\[\]: Too long"):
        await writer.create_config_map(
            {"metadata": {"name": "b", "namespace": run.namespace}, "data": {"output": "x" * (MIB + 1)}}
        )


async def test_the_servers_own_limit_is_told_as_such(kubectl: Kubectl, writer: Cluster) -> None:
    """Escaped, it is six times as long as it is counted here."""
    run = applied(kubectl)
    assert await failure(writer, run, {"output": "\x01" * (MIB - 10)}) == Reason.OUTPUT_TOO_BIG


async def test_what_the_server_does_not_take_is_told(kubectl: Kubectl, writer: Cluster) -> None:
    run = applied(kubectl)
    assert await failure(writer, run, {"output": "one", "bad key": "x"}) == Reason.OUTPUT_NOT_WRITTEN


async def test_a_namespace_that_goes_takes_no_answer(cluster: ApiServer, writer: Cluster) -> None:
    kubectl = cluster.kubectl.in_namespace(cluster.create_namespace())
    run = applied(kubectl)
    kubectl.run("create", "configmap", "held")
    meddle(kubectl, "configmap held", {"metadata": {"finalizers": ["example.com/held"]}})
    kubectl.run("delete", "namespace", str(kubectl.namespace), "--wait=false")
    assert await failure(writer, run, {"output": "one"}) == Reason.OUTPUT_NOT_WRITTEN
    meddle(kubectl, "configmap held", {"metadata": {"finalizers": None}})


@pytest.mark.real_cluster
async def test_the_operator_alone_may_not_write_answers(kubectl: Kubectl, operator: Cluster) -> None:
    run = applied(kubectl)
    with pytest.raises(OutputFailedError, match=r"may not create ConfigMaps .*components/outputs") as failed:
        await write(operator, run, {"output": "one"})
    assert failed.value.failure.reason == Reason.OUTPUT_NOT_ALLOWED


# Deletions


async def test_a_resource_is_deleted_as_it_was_seen(kubectl: Kubectl, operator: Cluster) -> None:
    run = applied(kubectl)
    meddle(kubectl, "openairun x", {"spec": {"input": "changed"}})
    with pytest.raises(ConflictError) as changed:
        await operator.delete(run)
    assert not isinstance(changed.value, GoneError)
    await operator.delete(seen(kubectl))
    assert kubectl.run("get", "openairun", "x", "--ignore-not-found").stdout == ""
    with pytest.raises(GoneError):
        await operator.delete(run)


async def test_another_resource_of_the_same_name_is_not_deleted(kubectl: Kubectl, operator: Cluster) -> None:
    run = applied(kubectl)
    kubectl.run("delete", "openairun", "x")
    new = applied(kubectl)
    with pytest.raises(GoneError):
        await operator.delete(run)
    assert seen(kubectl).uid == new.uid


# Statuses


async def test_only_the_difference_of_a_status_is_written(kubectl: Kubectl, operator: Cluster) -> None:
    run = applied(kubectl)
    usage = {"totalTokens": 3, "promptTokens": 1}
    written = await operator.write_status(run, {"phase": "Queued", "usage": usage})
    assert written["status"] == {"observedGeneration": -1, "phase": "Queued", "usage": usage}
    run = seen(kubectl)
    meddle(kubectl, "openairun x --subresource=status", {"status": {"runID": "resp_1"}})
    written = await operator.write_status(run, {"phase": None, "usage": {"totalTokens": 4, "promptTokens": None}})
    assert written["status"] == {"observedGeneration": -1, "runID": "resp_1", "usage": {"totalTokens": 4}}


async def test_a_status_is_pruned_and_defaulted_and_refused_as_the_schema_says(
    kubectl: Kubectl, operator: Cluster
) -> None:
    run = applied(kubectl)
    written = await operator.write_status(run, {"phase": "Queued", "observedGeneration": None, "a/b~c": {"d": 1}})
    assert written["status"] == {"observedGeneration": -1, "phase": "Queued"}
    with pytest.raises(RefusedError, match=r"status\.phase"):
        await operator.write_status(run, {"phase": 5})


async def test_a_status_that_comes_late_does_not_undo_what_came_after_it(kubectl: Kubectl, operator: Cluster) -> None:
    applied(kubectl)
    run = seen(kubectl)
    await operator.write_status(run, {"phase": "Queued"})
    queued = seen(kubectl)
    await operator.write_status(queued, {"phase": "Completed", "finishedAt": "2026-01-01T00:00:00Z"})
    with pytest.raises(ConflictError):
        await operator.write_status(queued, {"phase": "InProgress"})
    assert seen(kubectl).raw_status["phase"] == "Completed"


async def test_the_status_of_an_object_never_lands_on_another_of_its_name(kubectl: Kubectl, operator: Cluster) -> None:
    run = applied(kubectl)
    kubectl.run("delete", "openairun", "x")
    with pytest.raises(GoneError):
        await operator.write_status(run, {"phase": "Completed"})
    applied(kubectl)
    with pytest.raises(GoneError):
        await operator.write_status(run, {"phase": "Completed"})
    assert seen(kubectl).raw_status == {"observedGeneration": -1}


async def test_a_status_that_is_not_as_it_was_seen_is_a_conflict_and_its_run_not_given_up(
    kubectl: Kubectl, operator: Cluster
) -> None:
    run = applied(kubectl)
    await operator.write_status(run, {"phase": "Queued", "runID": "resp_1"})
    run = seen(kubectl)
    meddle(kubectl, "openairun x --subresource=status", {"status": {"runID": None}})
    with pytest.raises(ConflictError) as conflict:
        await operator.write_status(run, {"phase": "Completed", "runID": None})
    assert not isinstance(conflict.value, GoneError)
    assert seen(kubectl).status.phase == "Queued"
