"""What a namespace, a server and a model's answer cannot do, however they try: docs/security.md has the promises."""

from __future__ import annotations

import itertools
import json
import re
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml
from apiserver import Cluster
from echoes import KEYS, echoed_run, shows, written
from openai_control import OpenAIControl
from processes import StartOpenAI, StartOperator
from providers import ON_LOOPBACK, PROVIDERS, AppliedProvider, provider, secret
from runs import BOTH, RESPONSE, RUNS, Resource, objects, run
from waiting import wait_until

from openairun_devkit.kubectl import Kubectl
from openairun_operator.api.names import FINALIZER, RECORD_ANNOTATION

pytestmark = pytest.mark.cluster

SHAPES = ["OpenAI's", "ends in a newline", "in quotes", "a quote in it", "a backslash in it", "Base64", "long"]
SHAPES += ["a percent sign in it", "a space in it"]
UNSENDABLE = {"not ASCII": "schlüssel-0123456789", "two lines": "team-key\n0123456789"}
NASTY = (
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \x00\x08\x7f \u202eevil\u202c \u2066x\u2069 \u200f \u061c \ud800"
    " one\nFORGED\r\nFORGED\rFORGED\u2028FORGED"
)
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ud800-\udfff]")
SEVERAL_LINES = {"text", "arguments", "details", "output"}
"""Fields that may hold them: what a model wrote."""


class Hostile:
    """One provider's share of an OpenAI stand-in: it says `said` in every answer over `api`, wherever there is room."""

    def __init__(self, openai: OpenAIControl, name: str, said: str, api: str) -> None:
        self.spec = BOTH[api]
        self.base_url = openai.base_url.replace("/v1", f"/{name}/v1")
        self._openai = openai
        self._path = f"/{name}/v1"
        error = {"error": {"message": said, "type": said, "param": said, "code": said}}
        one_line = not STEERS.search(said)
        headers = dict.fromkeys(("x-request-id", "Retry-After", "openai-poll-after-ms", "Location"), said)
        bad: list[dict[str, Any]] = [
            {"status": status, "body": error, "headers": headers if one_line else {}} for status in (401, 400, 429)
        ]
        bad += [
            {"status": 500, "body": f"<html>{json.dumps(said)}</html>", "content_type": "text/html"},
            {"status": 200, "body": [said], "headers": {"Content-Type": said} if one_line else {}},
        ]
        if one_line:
            bad.append({"status": 302, "body": "", "reason": said, "headers": headers})
        ends = ("in_progress", "failed", "completed", "requires_action", "incomplete")
        good = {status: {"body": echoed_run(api, status, said) | {"id": f"id_{status}"}} for status in ends}
        creates = "POST /(responses|runs)$"
        for each in [*bad, *good.values(), {"body": echoed_run(api, "queued", said) | {"id": said}}]:
            self._fault(creates, times=1, **each)
        self._fault(creates, **good["in_progress"])
        self._fault("POST /cancel$", **bad[1])
        entry = {"id": said, "object": said, "type": said, "status": said, "role": "assistant", said: said}
        content = [{"type": "text", "text": {"value": said, "annotations": [{"file_id": said}]}}]
        for path, more in (("messages", {"content": content}), ("steps", {"step_details": {said: said}})):
            self._fault(f"GET /{path}$", body={"data": [entry | more], "has_more": False})
        self._fault("GET /runs$", **bad[1])
        for status in (404, 500):  # the first two looks
            self._fault("GET /id_", times=1, status=status, body=error)
        for status in ends:
            self._fault(f"GET /id_{status}$", **good[status])
        self._fault("GET .", **bad[0])  # what the check of the provider asks

    def _fault(self, match: str, *, times: int | None = None, **what: Any) -> None:
        method, path = match.split(" ")
        self._openai.fault(f"{method} ^{self._path}.*{path}", times=times, **what)

    def creates(self) -> int:
        """How many creates are answered, each in its own way."""
        return sum(fault["times"] == 1 and fault["match"].startswith("POST") for fault in self._own())

    def all_said(self) -> bool:
        return all(fault["matched"] for fault in self._own() if fault["times"] == 1)

    def _own(self) -> list[dict[str, Any]]:
        return [fault for fault in self._openai.faults() if f"^{self._path}." in fault["match"]]


def runs_of(name: str, count: int, spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """So many runs, each of which keeps its answer in a ConfigMap too."""
    for number in range(count):
        of = f"{name}-{number}"
        yield run(of, spec | {"pollingInterval": "1s", "outputTo": {"configMap": of}})


class Seen:
    """All that the operator writes into a namespace, in every state that it goes through."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._api = objects(kubectl.kubeconfig)
        self.texts: set[tuple[str, str]] = set()
        """Each with the field that it stands in."""

    def create(self, body: dict[str, Any]) -> None:
        self._api.create_namespaced_custom_object(**RUNS, namespace=self._kubectl.namespace, body=body)

    def look(self) -> list[dict[str, Any]]:
        """Look at all runs, and at all providers."""
        found = [
            self._api.list_namespaced_custom_object(**kind, namespace=self._kubectl.namespace)["items"]
            for kind in (RUNS, PROVIDERS)
        ]
        self.take(found)
        return list(found[0])

    def take(self, value: Any, field: str = "") -> None:
        match value:
            case str():
                self.texts.add((field, value))
            case dict():
                for name, item in value.items():
                    self.texts.add(("", name))
                    self.take(item, name)
            case list():
                for item in value:
                    self.take(item, field)

    def settled(self, count: int) -> bool:
        """Whether something was said of so many runs, and of all providers."""
        found = [each for each in self.look() if each.get("status", {}).get("conditions")]
        return len(found) == count

    def end(self) -> None:
        """Delete the runs that go, and look at what is left: events, ConfigMaps."""
        going = [each["metadata"]["name"] for each in self.look() if each["status"].get("phase") == "InProgress"]
        self._kubectl.run("delete", "openairuns", *going, "--timeout=30s")
        self.take(self._kubectl.json("get", "configmaps,events"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def served(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def leaked(keys: Sequence[str], said: set[tuple[str, str]]) -> list[tuple[str, str, str]]:
    # Joined first: to search each text alone for each form of each key takes long.
    joined = "\n".join(text for _, text in said)
    return [(key, *each) for key in keys if shows(key, joined) for each in said if shows(key, each[1])]


@pytest.mark.parametrize("log_format", ["json", "plain"])
def test_no_key_shows_in_anything_that_is_printed_or_written(
    cluster: Cluster,
    kubectl: Kubectl,
    namespace: str,
    start_operator: StartOperator,
    openai: OpenAIControl,
    log_format: str,
) -> None:
    """Each provider's server repeats the key in every form and in every place; half of the shapes each time."""
    for component in ("secrets", "outputs"):
        cluster.grant(namespace, component)
    half = [KEYS[name] for name in SHAPES[log_format == "json" :: 2]]
    own, *sent = half
    given = {f"p{number}": key for number, key in enumerate(sent)} | {"own": own}
    hostile = {
        name: Hostile(openai, name, " | ".join(written(key)), api)
        for (name, key), api in zip(given.items(), itertools.cycle(BOTH), strict=False)
    }
    given |= UNSENDABLE
    metrics, seen = f"http://127.0.0.1:{free_port()}/metrics", Seen(kubectl)
    operator = start_operator(
        namespace,
        base_url=hostile["own"].base_url,
        key=own + "\n",
        extra_args=[
            ON_LOOPBACK,
            "--verbose",
            f"--log-format={log_format}",
            f"--metrics={metrics}",
            "--orphan-limit=1s",
        ],
    )
    places = {name.replace(" ", "-").lower(): key for name, key in given.items() if name != "own"}
    kubectl.apply(
        yaml.safe_dump_all(
            each
            for name, key in places.items()
            for url in [hostile[name].base_url if name in hostile else openai.base_url]
            for each in (secret(name, key), provider(name, url))
        )
    )
    operator.wait_ready()
    count = 0
    for name in (*places, "own"):
        server = hostile.get(name)
        spec = (server.spec if server else RESPONSE) | ({} if name == "own" else {"providerRef": {"name": name}})
        for body in runs_of(name, server.creates() if server else 2, spec):
            seen.create(body)
            count += 1
    wait_until(lambda: seen.settled(count) and all(each.all_said() for each in hostile.values()), 120, "all answers")
    operator.key_file.write_text(UNSENDABLE["not ASCII"])
    operator.wait_for_log("The key has changed")
    seen.create(run("late", RESPONSE))
    Resource(kubectl, "late").wait_reason("InvalidCredentials")
    seen.look()
    seen.take(served(metrics))
    seen.end()
    assert operator.stop() == 0
    seen.take(operator.logs.splitlines())
    if log_format == "json":
        seen.take([json.loads(line) for line in operator.logs.splitlines()])
    assert leaked([*half, *UNSENDABLE.values()], seen.texts) == []
    assert any("[redacted]" in text for _, text in seen.texts), "nothing was repeated"


def test_nothing_that_steers_a_terminal_or_forges_a_line_gets_through(
    cluster: Cluster, kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    for component in ("secrets", "outputs"):
        cluster.grant(namespace, component)
    seen, count = Seen(kubectl), 0
    operator = start_operator(namespace, extra_args=[ON_LOOPBACK, "--verbose", "--orphan-limit=1s"])
    hostile = {api.lower(): Hostile(openai, api.lower(), NASTY, api) for api in BOTH}
    for name, server in hostile.items():
        AppliedProvider.apply(kubectl, name, server.base_url, "team-key-0123456789")
        for body in runs_of(name, server.creates(), server.spec | {"providerRef": {"name": name}}):
            seen.create(body)
            count += 1
    wait_until(lambda: seen.settled(count) and all(each.all_said() for each in hostile.values()), 60, "all answers")
    seen.end()
    assert operator.stop() == 0
    seen.take(operator.logs.replace("\n", " "))
    assert [each for each in seen.texts if STEERS.search(each[1])] == []
    lines = {each for each in seen.texts if each[0] not in SEVERAL_LINES}
    assert [each for each in lines if len(each[1].splitlines()) > 1] == []
    assert not re.search("^FORGED", operator.logs, re.MULTILINE)
    assert any("FORGED" in text for _, text in seen.texts), "nothing was said"


def test_a_providers_server_never_gets_the_operators_own_key(
    kubectl: Kubectl,
    cluster: Cluster,
    namespace: str,
    start_operator: StartOperator,
    start_openai: StartOpenAI,
    openai: OpenAIControl,
) -> None:
    """Not while the provider has no key either; nor do its runs go to the operator's own server instead."""
    cluster.grant(namespace, "secrets")
    theirs = start_openai("--key=sk-theirs")
    start_operator(namespace, key="sk-standin", env={"OPENAI_API_KEY": "sk-standin"}, extra_args=[ON_LOOPBACK])
    kubectl.apply(provider("default", theirs.base_url))
    resource = Resource.apply(kubectl, "hello", RESPONSE).wait_reason("NoCredentials")
    assert theirs.requests() == []
    AppliedProvider.apply(kubectl, "default", theirs.base_url, "sk-theirs", requestTimeout="10s")
    resource.wait_for("Ready")
    assert {request["authorization"] for request in theirs.requests()} == {"Bearer sk-theirs"}
    assert openai.requests() == []


def test_a_namespace_can_use_nothing_of_another(
    kubectl: Kubectl, cluster: Cluster, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    other = cluster.create_namespace()
    for each in (namespace, other):
        cluster.grant(each, "secrets")
        cluster.grant(each, "outputs")
    theirs = cluster.kubectl.in_namespace(other)
    try:
        AppliedProvider.apply(theirs, "team", openai.base_url, "sk-standin")
        theirs.run("create", "configmap", "answer", "--from-literal=output=theirs")
        operator = start_operator(None, extra_args=[ON_LOOPBACK, "--verbose"])
        kubectl.apply(provider("mine", openai.base_url, apiKeySecretRef={"name": "team", "key": "api-key"}))
        for name, reason, more in (
            ("a-provider", "ProviderNotFound", {"providerRef": {"name": "team"}}),
            ("a-key", "NoCredentials", {"providerRef": {"name": "mine"}}),
        ):
            Resource.apply(kubectl, name, RESPONSE | more).wait_reason(reason)
        for kind, name in (("secret", "team"), ("configMap", "answer")):
            source = {"inputFrom": {f"{kind}KeyRef": {"name": name, "key": "api-key"}}}
            Resource.apply(kubectl, f"a-{kind.lower()}", {"model": "m"} | source).wait_reason("ReferenceNotFound")
        assert openai.runs() == []
        Resource.apply(kubectl, "answer", RESPONSE | {"outputTo": {"configMap": "answer"}}).wait_for("OutputStored")
        assert theirs.json("get", "configmap", "answer")["data"] == {"output": "theirs"}
        assert RESPONSE["input"] not in operator.logs, "neither questions nor answers are logged"
    finally:
        cluster.delete_namespace(other)


def test_an_answer_reaches_no_run_but_its_own(
    kubectl: Kubectl,
    cluster: Cluster,
    namespace: str,
    start_operator: StartOperator,
    start_openai: StartOpenAI,
    openai: OpenAIControl,
) -> None:
    """Whatever it says: another run's id, its metadata, its record, or what looks like an order to the operator."""
    cluster.grant(namespace, "secrets")
    start_operator(namespace, extra_args=[ON_LOOPBACK])
    victim = Resource.apply(kubectl, "victim", RESPONSE, "never").wait_phase("InProgress")
    (before,), body = openai.runs(), victim.body
    record = body["metadata"]["annotations"][RECORD_ANNOTATION]
    theirs = start_openai("--key=sk-theirs")
    order = json.dumps({"cancel": True, "deletionPolicy": "Orphan", RECORD_ANNOTATION: record, "runID": before["id"]})
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": order}]}
    lie = {"id": before["id"], "metadata": before["metadata"], "output": [message], "record": json.loads(record)}
    theirs.fault("POST /responses$", body=lie | {"status": "in_progress"})
    theirs.fault("GET /responses/", times=None, body=lie | {"id": "resp_other", "status": "in_progress"})
    AppliedProvider.apply(kubectl, "theirs", theirs.base_url, "sk-theirs")
    spec = RESPONSE | {"providerRef": {"name": "theirs"}, "pollingInterval": "1s"}
    liar = Resource.apply(kubectl, "liar", spec).wait_phase("InProgress")
    theirs.wait("GET", "/responses/resp", count=2)
    wait_until(lambda: "output" in liar.status, 10, "the answer's text")
    assert liar.status["output"]["text"] == order
    assert (liar.status["runID"], liar.status["responseIDs"]) == (before["id"], [before["id"]])
    mine = json.loads(liar.body["metadata"]["annotations"][RECORD_ANNOTATION])
    assert (mine["object"], mine["uid"]) == (f"{namespace}/liar", liar.body["metadata"]["uid"])
    theirs.fault("POST /cancel$", body=lie | {"status": "cancelled"})
    liar.delete()
    assert theirs.count("POST", f"/{before['id']}/cancel$") == 1
    (after,) = openai.runs()
    assert (after["status"], after["cancel_calls"]) == ("in_progress", 0)
    assert victim.body["spec"] == body["spec"]
    assert victim.body["metadata"]["annotations"][RECORD_ANNOTATION] == record


def test_where_foreign_ids_are_forbidden_no_annotation_leads_to_a_run_of_another_namespace(
    kubectl: Kubectl, cluster: Cluster, namespace: str, start_operator: StartOperator, openai: OpenAIControl
) -> None:
    """The record of a run stands in an annotation, which every user of the run may write."""
    other = cluster.create_namespace()
    try:
        start_operator(None, extra_args=["--forbid-foreign-ids", "--orphan-limit=1s"])
        theirs = Resource.apply(cluster.kubectl.in_namespace(other), "theirs", RESPONSE, "never").wait_phase(
            "InProgress"
        )
        record = recorded(theirs)
        forged = json.dumps(record | {"object": f"{namespace}/forged"})
        body = run("forged", RESPONSE)
        body["metadata"] |= {"annotations": {RECORD_ANNOTATION: forged}, "finalizers": [FINALIZER]}
        kubectl.apply(body)
        made = Resource(kubectl, "forged").wait_reason("IDNotAllowed")
        mine = Resource.apply(kubectl, "mine", RESPONSE, "never").wait_phase("InProgress")
        own = recorded(mine)
        edited = json.dumps(own | {"current": record["id"]})
        kubectl.run("annotate", "openairun", "mine", f"{RECORD_ANNOTATION}={edited}", "--overwrite")
        wait_until(lambda: "current" not in recorded(mine), 20, "the edited record to be put back")
        assert "runID" not in made.status
        assert record["id"] not in mine.status["responseIDs"]
        for each in (made, mine):
            each.delete()
        (run_of_theirs,) = [each for each in openai.runs() if each["id"] == record["id"]]
        assert (run_of_theirs["status"], run_of_theirs["cancel_calls"]) == ("in_progress", 0)
    finally:
        cluster.delete_namespace(other)


def recorded(resource: Resource) -> dict[str, Any]:
    """The operator's record, in the annotation."""
    record: dict[str, Any] = json.loads(resource.body["metadata"]["annotations"][RECORD_ANNOTATION])
    return record
