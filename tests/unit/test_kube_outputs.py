"""The answer in a ConfigMap: written once, never over what is another's, and every refusal says what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest

from openairun_operator.api.reasons import Reason
from openairun_operator.kube import outputs
from openairun_operator.kube.cluster import Cluster, ClusterError, ConflictError, GoneError, RefusedError
from openairun_operator.kube.outputs import OUTPUT_OF, RUN_ID, SHA256, OutputFailedError
from openairun_operator.lifecycle.run import Run, parse

Body = dict[str, Any]
DATA = {"output": "Hello."}
OURS = {"apiVersion": "openairun.dev/v1alpha1", "kind": "OpenAIRun", "name": "run", "controller": True}
OWNER = {**OURS, "uid": "uid-1", "blockOwnerDeletion": False}
THEIRS = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "run", "uid": "uid-9"}


def a_run(uid: str = "uid-1", name: str = "run") -> Run:
    return parse({"metadata": {"namespace": "team", "name": name, "uid": uid}, "spec": {"input": "x"}})


class FakeCluster:
    """The ConfigMaps of one namespace, with the API server's manners. `writes` counts what was changed."""

    def __init__(self) -> None:
        self.there: Body | None = None
        self.writes = 0
        self.version = 100
        self.fail: dict[str, ClusterError] = {}
        self.before: Callable[[str], None] = lambda what: None

    def _do(self, what: str) -> None:
        self.before(what)
        if what in self.fail:
            raise self.fail[what]

    async def create_config_map(self, body: Body) -> Body:
        self._do("create")
        if self.there is not None:
            raise ConflictError("create", 409, "already exists")
        return self.put(body)

    async def read(self, kind: str, namespace: str, name: str) -> Body:
        assert (kind, namespace, name) == ("ConfigMap", "team", "answer")
        self._do("read")
        if self.there is None:
            raise GoneError("read", 404, "not found")
        return copy.deepcopy(self.there)

    async def replace_config_map(self, body: Body) -> Body:
        self._do("replace")
        if self.there is None:
            raise GoneError("replace", 404, "not found")
        if body["metadata"]["resourceVersion"] != self.there["metadata"]["resourceVersion"]:
            raise ConflictError("replace", 409, "modified")
        return self.put(body)

    def put(self, body: Body) -> Body:
        self.writes += 1
        self.version += 1
        self.there = copy.deepcopy(body)
        self.there["metadata"]["resourceVersion"] = str(self.version)
        return self.there

    def change(self, **parts: Any) -> None:
        """Somebody writes: metadata is merged, anything else replaced; None removes."""
        assert self.there is not None
        metadata = {**self.there["metadata"], **parts.pop("metadata", {})}
        self.put({**self.there, **parts, "metadata": metadata})

    async def write(
        self, run: Run | None = None, data: Body | None = None, *, owned: bool = True, id: str = "r"
    ) -> Body:
        await outputs.write(
            cast(Cluster, self),
            run or a_run(),
            "answer",
            data or DATA,
            run_id=id,
            answer_id="resp_9",
            sha256="abc",
            owned=owned,
        )
        assert self.there is not None
        return self.there

    async def failure(self, **asked: Any) -> tuple[Reason, str]:
        before = copy.deepcopy(self.there)
        with pytest.raises(OutputFailedError) as failed:
            await self.write(**asked)
        assert self.there == before, "nothing is overwritten"
        return failed.value.failure.reason, failed.value.failure.message


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


async def test_it_is_made_with_its_marks_and_its_owner(cluster: FakeCluster) -> None:
    made = await cluster.write(id="resp_1")
    assert made["data"] == DATA
    assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "openairun-operator"}
    assert made["metadata"]["annotations"] == {OUTPUT_OF: "team/run", RUN_ID: "resp_1", SHA256: "abc"}
    assert made["metadata"]["ownerReferences"] == [OWNER]


async def test_what_shall_outlive_the_resource_has_no_owner(cluster: FakeCluster) -> None:
    assert "ownerReferences" not in (await cluster.write(owned=False))["metadata"]


async def test_the_same_again_writes_nothing(cluster: FakeCluster) -> None:
    await cluster.write()
    await cluster.write()
    assert cluster.writes == 1


async def test_a_new_answer_replaces_the_old_and_keeps_what_others_put_beside_it(cluster: FakeCluster) -> None:
    await cluster.write(data={"output": "Hello.", "extra": "x"})
    assert cluster.there is not None
    other = {k: v | {"theirs": "kept"} for k, v in cluster.there["metadata"].items() if k in ("labels", "annotations")}
    owner = {**THEIRS, "controller": False}
    cluster.change(
        metadata={**other, "ownerReferences": [owner, OWNER], "finalizers": ["a/b"]}, binaryData={"b": "AA=="}
    )
    after = await cluster.write(data={"output": "Bye."}, id="resp_2")
    assert after["data"] == {"output": "Bye."}
    assert "binaryData" not in after
    assert after["metadata"]["labels"]["theirs"] == after["metadata"]["annotations"]["theirs"] == "kept"
    assert after["metadata"]["annotations"][RUN_ID] == "resp_2"
    assert after["metadata"]["ownerReferences"] == [owner, OWNER]
    assert after["metadata"]["finalizers"] == ["a/b"]


async def test_a_resource_that_was_applied_again_takes_its_answer_over(cluster: FakeCluster) -> None:
    await cluster.write(a_run("uid-old"))
    after = await cluster.write(a_run("uid-1"))
    assert after["metadata"]["ownerReferences"] == [OWNER]
    after = await cluster.write(a_run("uid-1"), owned=False)
    assert "ownerReferences" not in after["metadata"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"annotations": None},
        {"annotations": {"openairun.dev/output-of": "team/another"}},
        {"annotations": {"openairun.dev/output-of": "other/run"}},
        {"ownerReferences": [{**THEIRS, "controller": True}]},
        {"ownerReferences": [{**OURS, "name": "another", "uid": "uid-2"}]},
    ],
)
@pytest.mark.parametrize("owned", [True, False])
async def test_what_is_anothers_stays(cluster: FakeCluster, metadata: Body, owned: bool) -> None:
    await cluster.write()
    cluster.change(metadata=metadata)
    reason, message = await cluster.failure(data={"output": "Bye."}, owned=owned)
    assert reason == Reason.OUTPUT_NOT_OURS
    assert message.startswith("ConfigMap answer in namespace team is not this run's, and stays as it is: delete it, or")


async def test_a_change_meanwhile_is_seen_and_kept(cluster: FakeCluster) -> None:
    await cluster.write()
    changes = iter([{"labels": {"one": "1"}}, {"labels": {"two": "2"}}])

    def meddle(what: str) -> None:
        if what == "replace" and (change := next(changes, None)):
            cluster.change(metadata=change)

    cluster.before = meddle
    after = await cluster.write(data={"output": "Bye."})
    assert after["data"] == {"output": "Bye."}
    assert after["metadata"]["labels"] == {"two": "2", "app.kubernetes.io/managed-by": "openairun-operator"}


async def test_endless_changes_are_a_conflict(cluster: FakeCluster) -> None:
    await cluster.write()
    cluster.before = lambda what: cluster.change(metadata={"labels": None}) if what == "replace" else None
    with pytest.raises(ConflictError):
        await cluster.write(data={"output": "Bye."})


@pytest.mark.parametrize("at", ["read", "replace"])
async def test_what_is_deleted_meanwhile_is_made_again(cluster: FakeCluster, at: str) -> None:
    await cluster.write()

    def delete(what: str) -> None:
        if what == at:
            cluster.there = None

    cluster.before = delete
    assert (await cluster.write(data={"output": "Bye."}))["data"] == {"output": "Bye."}


async def test_what_is_being_deleted_is_waited_for_whosever_it_is(cluster: FakeCluster) -> None:
    await cluster.write()
    for metadata in ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"annotations": None}):
        cluster.change(metadata=metadata)
        with pytest.raises(ClusterError, match="it is being deleted"):
            await cluster.write()


async def test_an_immutable_one_is_left_to_a_person(cluster: FakeCluster) -> None:
    await cluster.write()
    cluster.change(immutable=True)
    reason, message = await cluster.failure(data={"output": "Bye."})
    assert reason == Reason.OUTPUT_NOT_WRITTEN
    assert message.startswith("ConfigMap answer in namespace team is immutable and holds another answer: delete it.")
    assert (await cluster.write(id="resp_2"))["metadata"]["annotations"][RUN_ID] == "resp_2", "its metadata is not"


async def test_what_is_too_big_is_not_even_sent(cluster: FakeCluster) -> None:
    cluster.fail["create"] = ClusterError("create", 500, "asked all the same")
    half = "é" * (512 * 1024 // 2)
    reason, message = await cluster.failure(data={"output": half * 2 + "x"}, id="resp_1")
    assert reason == Reason.OUTPUT_TOO_BIG
    assert "1048577 bytes" in message
    assert "by the id resp_9" in message, "the last response has the answer"
    cluster.fail.clear()
    _, message = await cluster.failure(data={"output": half, "output.json": half + "x"})
    assert "524288 bytes" in message, "the answer's own size"
    await cluster.write(data={"output": half, "output.json": half})


FORBIDDEN = 'configmaps is forbidden: User "u" cannot {} resource "configmaps" in API group "" in the namespace "team"'
TERMINATING = 'configmaps "answer" is forbidden: unable to create new content in namespace team because it is being'
COMPONENT = "the kustomize component deploy/manifests/components/outputs"


@pytest.mark.parametrize(
    ("at", "error", "reason", "said"),
    [
        ("create", ClusterError("c", 403, FORBIDDEN.format("create")), Reason.OUTPUT_NOT_ALLOWED, f"may not create ConfigMaps in namespace team: {COMPONENT}"),  # noqa: E501
        ("replace", ClusterError("c", 403, FORBIDDEN.format("update")), Reason.OUTPUT_NOT_ALLOWED, f"may not update ConfigMaps in namespace team: {COMPONENT}"),  # noqa: E501
        ("read", ClusterError("c", 403, FORBIDDEN.format("get")), Reason.OUTPUT_NOT_ALLOWED, "may not get ConfigMaps in namespace team: deploy/manifests/rbac.yaml"),  # noqa: E501
        ("create", ClusterError("c", 403, TERMINATING), Reason.OUTPUT_NOT_WRITTEN, "it is being"),
        ("create", ClusterError("c", 403, "exceeded quota: q"), Reason.OUTPUT_NOT_WRITTEN, "exceeded quota"),
        ("create", RefusedError("c", 422, "is invalid: data[a b]: Invalid value"), Reason.OUTPUT_NOT_WRITTEN, "data[a b]"),  # noqa: E501
        ("create", RefusedError("c", 422, 'ConfigMap "a" is invalid: []: Too long: may'), Reason.OUTPUT_TOO_BIG, "6 bytes"),  # noqa: E501
        ("replace", RefusedError("c", 413, "Request entity too large"), Reason.OUTPUT_TOO_BIG, "6 bytes"),
    ],
)  # fmt: skip
async def test_refusals_say_what_to_do(
    cluster: FakeCluster, at: str, error: ClusterError, reason: Reason, said: str
) -> None:
    if at != "create":
        await cluster.write(data={"output": "before"})
    cluster.fail[at] = error
    found, message = await cluster.failure()
    assert found == reason
    assert said in message


@pytest.mark.parametrize("status", [None, 401, 404, 500])
async def test_passing_trouble_is_the_clusters_and_never_says_that_the_resource_has_gone(
    cluster: FakeCluster, status: int | None
) -> None:
    kind = GoneError if status == 404 else ClusterError
    cluster.fail["create"] = kind("create", status, "away")
    with pytest.raises(ClusterError) as failed:
        await cluster.write()
    assert failed.value.status == status
    assert type(failed.value) is ClusterError


async def test_disowned_it_stays_when_the_resource_goes_and_other_owners_keep_it(cluster: FakeCluster) -> None:
    await cluster.write(owned=True)
    other = {"apiVersion": "v1", "kind": "Pod", "name": "other", "uid": "1"}
    assert cluster.there is not None
    cluster.change(metadata={"ownerReferences": [*cluster.there["metadata"]["ownerReferences"], other]})
    await outputs.disown(cast(Cluster, cluster), a_run(), "answer")
    assert cluster.there["metadata"]["ownerReferences"] == [other]
    writes = cluster.writes
    await outputs.disown(cast(Cluster, cluster), a_run(), "answer")
    assert cluster.writes == writes


async def test_a_config_map_that_is_gone_needs_no_disowning(cluster: FakeCluster) -> None:
    await outputs.disown(cast(Cluster, cluster), a_run(), "answer")
    assert cluster.writes == 0
