"""Reading what a reference names: the text, or what a person is to do; and never a word of a secret elsewhere."""

from __future__ import annotations

import base64
import traceback
from typing import Any, cast

import pytest

from openairun_operator.api.reasons import Reason
from openairun_operator.api.references import KeyRef, Source
from openairun_operator.kube import references
from openairun_operator.kube.cluster import Cluster, ClusterError, GoneError
from openairun_operator.kube.references import ReferenceFailedError

REF = KeyRef(name="texts", key="greeting")
CONFIG_MAP, SECRET = Source(configMapKeyRef=REF), Source(secretKeyRef=REF)
VALUE = "sk-so-secret"


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


class FakeCluster:
    """One object, or one refusal."""

    def __init__(self, answer: dict[str, Any] | ClusterError) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str]] = []

    async def read(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        self.asked.append((kind, namespace, name))
        if isinstance(self.answer, ClusterError):
            raise self.answer
        return self.answer


async def read(source: Source, answer: dict[str, Any] | ClusterError) -> str:
    fake = FakeCluster(answer)
    try:
        return await references.read(cast(Cluster, fake), "team", source)
    finally:
        kind = "Secret" if source.secretKeyRef else "ConfigMap"
        assert fake.asked == [(kind, "team", "texts")]


@pytest.mark.parametrize(
    ("source", "answer", "text"),
    [
        (CONFIG_MAP, {"data": {"greeting": " Grüß Gott\n"}}, " Grüß Gott\n"),
        (CONFIG_MAP, {"binaryData": {"greeting": encoded("Grüß Gott".encode())}}, "Grüß Gott"),
        (CONFIG_MAP, {"data": {"greeting": encoded(b"as it is")}}, encoded(b"as it is")),
        (SECRET, {"data": {"greeting": encoded(b"sk-1\n")}}, "sk-1\n"),
    ],
)
async def test_the_text_comes_as_it_is(source: Source, answer: dict[str, Any], text: str) -> None:
    assert await read(source, answer) == text


async def test_a_secret_is_read_by_its_key_alone_too() -> None:
    fake = FakeCluster({"data": {"greeting": encoded(b"sk-1")}})
    assert await references.read_secret(cast(Cluster, fake), "team", REF) == "sk-1"
    assert fake.asked == [("Secret", "team", "texts")]


@pytest.mark.parametrize(("source", "kind"), [(CONFIG_MAP, "ConfigMap"), (SECRET, "Secret")])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (GoneError("read", 404, "not found"), "There is no {} texts in namespace team: create it, with the key greeting."),  # noqa: E501
        ({}, "{} texts in namespace team has no key greeting: add it."),
        ({"data": {"other": ""}, "binaryData": None}, "{} texts in namespace team has no key greeting: add it."),
    ],
)  # fmt: skip
async def test_what_is_missing_is_named(source: Source, kind: str, answer: Any, said: str) -> None:
    with pytest.raises(ReferenceFailedError) as failed:
        await read(source, answer)
    assert failed.value.failure.reason == Reason.REFERENCE_NOT_FOUND
    assert failed.value.failure.message == f"{said.format(kind)} All goes on by itself then"


@pytest.mark.parametrize(
    ("source", "answer", "said"),
    [
        (CONFIG_MAP, {"data": {"greeting": " \n"}}, "is blank"),
        (SECRET, {"data": {"greeting": ""}}, "is blank"),
        (SECRET, {"data": {"greeting": encoded(VALUE.encode() + b"\xff")}}, "is no text in UTF-8"),
        (SECRET, {"data": {"greeting": f"{VALUE}!"}}, "is no text in UTF-8"),
        (SECRET, {"data": {"greeting": "c2st*MQ=="}}, "is no text in UTF-8"),
        (CONFIG_MAP, {"binaryData": {"greeting": encoded(VALUE.encode() + b"\xff")}}, "is no text in UTF-8"),
    ],
)
async def test_what_is_no_text_is_told_and_not_shown(source: Source, answer: dict[str, Any], said: str) -> None:
    with pytest.raises(ReferenceFailedError, match=said) as failed:
        await read(source, answer)
    assert failed.value.failure.reason == Reason.REFERENCE_NOT_FOUND
    error: BaseException | None = failed.value
    while error is not None:
        shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        assert VALUE not in shown
        assert not isinstance(error, ValueError), "it holds the text"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("source", "right"),
    [
        (SECRET, "add the kustomize component deploy/manifests/components/secrets, which has get on secrets"),
        (CONFIG_MAP, "apply deploy/manifests/rbac.yaml, which has get on configmaps"),
    ],
)
async def test_a_missing_right_is_named(source: Source, right: str) -> None:
    with pytest.raises(ReferenceFailedError) as failed:
        await read(source, ClusterError("read", 403, "forbidden"))
    assert failed.value.failure.reason == Reason.REFERENCE_FORBIDDEN
    assert right in failed.value.failure.message


@pytest.mark.parametrize("status", [None, 401, 429, 500])
async def test_passing_trouble_is_the_clusters(status: int | None) -> None:
    with pytest.raises(ClusterError) as failed:
        await read(SECRET, ClusterError("read", status, "away"))
    assert failed.value.status == status


async def test_a_source_that_names_nothing_is_told() -> None:
    """The CRD refuses it; an older CRD may not."""
    with pytest.raises(ReferenceFailedError, match="Write one of configMapKeyRef and secretKeyRef"):
        await references.read(cast(Cluster, FakeCluster({})), "team", Source())
