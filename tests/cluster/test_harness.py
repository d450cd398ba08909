"""The harness keeps its own promises; else no other cluster test proves anything."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from apiserver import DEPLOY, Cluster
from openai_control import OpenAIControl
from processes import StartOperator
from waiting import wait_until

from openairun_devkit import controlplane
from openairun_devkit.api_proxy import ApiProxy
from openairun_devkit.controlplane import Binaries, find_binaries
from openairun_devkit.kubectl import Kubectl, KubectlError

pytestmark = [pytest.mark.cluster, pytest.mark.real_cluster]

OPERATOR = "system:serviceaccount:{}:openairun-operator"


# The API server and the manifests


def test_the_api_server_tells_its_version(cluster: Cluster) -> None:
    assert re.match(r"v1\.\d+\.\d+", cluster.version)


def test_manifests_apply_server_side_without_a_warning(cluster: Cluster) -> None:
    if cluster.control_plane is None:
        pytest.skip("the manifests are not applied to a cluster that is not ours")
    for folder in ("crds", "manifests"):
        # kubectl 1.32 warns of its own migration when a dry run under its usual name follows `apply`.
        result = cluster.kubectl.run(
            "apply", f"--kustomize={DEPLOY / folder}", "--server-side", "--dry-run=server",
            "--field-manager=harness", "--force-conflicts",
        )  # fmt: skip
        assert result.stdout
        assert result.stderr == ""


def test_manifests_pass_the_restricted_pod_security_standard(cluster: Cluster) -> None:
    if cluster.control_plane is None:
        pytest.skip("the manifests are not applied to a cluster that is not ours")
    kubectl = cluster.kubectl.in_namespace("openairun-system")
    template = kubectl.json("get", "deployment", "openairun-operator")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "admitted"}, "spec": template["spec"]}
    result = kubectl.apply(pod, "--dry-run=server")
    assert result.stderr == ""
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        kubectl.apply(pod, "--dry-run=server")


ALLOWED = [
    ("list", "openairuns"),
    ("watch", "openairuns"),
    ("patch", "openairuns"),
    ("delete", "openairuns"),
    ("patch", "openairuns/status"),
    ("get", "openaiproviders"),
    ("list", "openaiproviders"),
    ("watch", "openaiproviders"),
    ("patch", "openaiproviders/status"),
    ("create", "events"),
    ("get", "configmaps"),
]


def test_the_operator_may_do_what_it_must_and_nothing_else(cluster: Cluster, kubectl: Kubectl) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": kubectl.namespace},
    }
    user = OPERATOR.format(cluster.operator_namespace)
    groups = ["system:authenticated", "system:serviceaccounts"]
    answer = kubectl.run(
        "create", "--filename=-", "--validate=false", "--output=json",
        f"--as={user}", *(f"--as-group={group}" for group in groups),
        input=json.dumps(review),
    )  # fmt: skip
    rules = json.loads(answer.stdout)["status"]["resourceRules"]
    allowed = {(v, r) for rule in rules for v in rule["verbs"] for r in rule["resources"]}
    # system:basic-user lets everybody ask who they are and what they may do.
    asking = {(v, r) for v, r in allowed if r.startswith("self")}
    assert allowed - asking == set(ALLOWED)


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("get", "secrets"), ("list", "secrets"), ("watch", "secrets"), ("list", "configmaps"), ("create", "configmaps")],
)
def test_the_operator_may_not(cluster: Cluster, kubectl: Kubectl, verb: str, resource: str) -> None:
    user = OPERATOR.format(cluster.operator_namespace)
    answer = kubectl.run("auth", "can-i", verb, resource, f"--as={user}", check=False)
    assert answer.stdout.strip() == "no"


# The control plane


def test_the_api_server_comes_back_on_its_port_with_its_data(cluster: Cluster, kubectl: Kubectl) -> None:
    if cluster.control_plane is None:
        pytest.skip("only a control plane of our own can be stopped")
    kubectl.run("create", "configmap", "kept")
    cluster.control_plane.stop_apiserver()
    try:
        with pytest.raises(KubectlError):
            kubectl.run("get", "configmap", "kept", timeout=5)
    finally:
        cluster.control_plane.start_apiserver()
    assert kubectl.json("get", "configmap", "kept")["metadata"]["name"] == "kept"


def test_help_starts_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(controlplane.ControlPlane, "__enter__", lambda _: pytest.fail("it started"))
    with pytest.raises(SystemExit) as ended:
        controlplane.main(["--help"])
    assert ended.value.code == 0
    assert "usage: python -m openairun_devkit.controlplane" in capsys.readouterr().out


PARENT = """
import json, signal, time
from openairun_devkit.controlplane import ControlPlane
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
with ControlPlane(ControlPlane.find()) as cp:
    print(json.dumps({"pids": cp.pids, "server": cp.server, "directory": str(cp.directory)}), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_survives_a_killed_parent(binaries: Binaries, number: signal.Signals) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux can tell children that their parent was killed")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with parent:
        assert parent.stdout is not None
        started = json.loads(parent.stdout.readline())
        try:
            assert len(started["pids"]) >= 2
            assert all(map(_alive, started["pids"]))
            parent.send_signal(number)
            parent.wait(10)
            wait_until(lambda: not any(map(_alive, started["pids"])), 10, "the end of the children")
            wait_until(lambda: _refuses(started["server"]), 10, "the end of the API server's port")
            # A parent that is SIGKILLed can't remove the folder; no process is left to do it.
            assert Path(started["directory"]).exists() == (number == signal.SIGKILL)
        finally:
            parent.kill()
            shutil.rmtree(started["directory"], ignore_errors=True)


def _alive(pid: int) -> bool:
    """Whether it runs; a zombie that nobody has reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout


def _refuses(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_newest_version_in_the_store_wins(tmp_path: Path) -> None:
    here = find_binaries({"HOME": str(tmp_path)})
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    for version in ("1.9.10", "1.36.2", "1.36.10"):
        folder = tmp_path / f".local/share/kubebuilder-envtest/k8s/{version}-{sys.platform}-{arch}"
        folder.mkdir(parents=True)
        for name in ("etcd", "kube-apiserver"):
            (folder / name).touch(mode=0o755)
    found = find_binaries({"HOME": str(tmp_path)})
    assert found is not None
    if here is None:  # else there are binaries in the system's own folder, which come first
        assert found.etcd.parent.name.startswith("1.36.10-")
    assert find_binaries({"HOME": str(tmp_path), "KUBEBUILDER_ASSETS": str(tmp_path)}) is None


# The proxy


@dataclass
class Client:
    """A client with the operator's token that speaks to the proxy."""

    proxy: ApiProxy
    token: str
    namespace: str
    lines: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)

    @property
    def runs(self) -> str:
        return f"/apis/openairun.dev/v1alpha1/namespaces/{self.namespace}/openairuns"

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        with closing(self._send(method, path, body)) as connection:
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def label(self, name: str, value: str) -> tuple[int, dict[str, Any]]:
        return self.ask("PATCH", f"{self.runs}/{name}", {"metadata": {"labels": {"value": value}}})

    def watch(self) -> None:
        """Put each watch event into `lines`, until the proxy ends."""
        connection = self._send("GET", f"{self.runs}?watch=true")
        answer = connection.getresponse()
        assert answer.status == 200

        def read() -> None:
            with closing(connection):
                try:
                    for line in answer:
                        self.lines.put(json.loads(line))
                except (OSError, http.client.HTTPException):
                    return

        threading.Thread(target=read, daemon=True).start()

    def events(self, count: int) -> list[str]:
        """The value label of the next so many events."""
        events = [self.lines.get(timeout=10) for _ in range(count)]
        return [event["object"]["metadata"].get("labels", {}).get("value", "") for event in events]

    def _send(self, method: str, path: str, body: Any = None) -> http.client.HTTPConnection:
        address = urlsplit(self.proxy.url)
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/merge-patch+json"}
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        return connection


@pytest.fixture
def client(cluster: Cluster, kubectl: Kubectl, api_proxy: ApiProxy, namespace: str) -> Client:
    """A client of the proxy, in a namespace with one run called `one`."""
    kubectl.apply(
        {
            "apiVersion": "openairun.dev/v1alpha1",
            "kind": "OpenAIRun",
            "metadata": {"name": "one"},
            "spec": {"model": "gpt-standin", "input": "hello"},
        }
    )
    return Client(api_proxy, cluster.operator_token, namespace)


def test_the_proxy_passes_on_who_asks(client: Client) -> None:
    status, runs = client.ask("GET", client.runs)
    assert (status, [run["metadata"]["name"] for run in runs["items"]]) == (200, ["one"])
    status, refused = client.ask("GET", f"/api/v1/namespaces/{client.namespace}/secrets")
    assert (status, refused["reason"]) == (403, "Forbidden")
    assert "openairun-operator" in refused["message"]


def test_the_proxy_counts_requests(client: Client, api_proxy: ApiProxy) -> None:
    assert client.label("one", "a")[0] == 200
    assert api_proxy.count("PATCH", "/openairuns/one$") == 1
    assert api_proxy.count("*", "/status$") == 0
    request = api_proxy.requests[-1]
    assert (request.method, request.path, request.status) == ("PATCH", f"{client.runs}/one", 200)
    assert request.content_type == "application/merge-patch+json"
    assert json.loads(request.body) == {"metadata": {"labels": {"value": "a"}}}


def test_the_proxy_fails_so_many_requests(client: Client, api_proxy: ApiProxy, kubectl: Kubectl) -> None:
    api_proxy.fail("PATCH", "/openairuns/one$", 422, times=2)
    for _ in range(2):
        status, body = client.label("one", "a")
        assert (status, body["kind"], body["reason"], body["code"]) == (422, "Status", "Invalid", 422)
    assert "labels" not in kubectl.json("get", "openairun", "one")["metadata"]
    assert client.label("one", "a")[0] == 200


def test_the_proxy_stalls_running_and_new_watches(client: Client, api_proxy: ApiProxy) -> None:
    client.watch()
    assert client.events(1) == [""]
    api_proxy.stall_watches(True)
    late = Client(api_proxy, client.token, client.namespace)
    # Its first bytes are held back too, so it must not wait for them here.
    late.watch()
    for value in ("a", "b", "c"):
        assert client.label("one", value)[0] == 200
    with pytest.raises(queue.Empty):
        client.lines.get(timeout=0.5)
    assert late.lines.empty()
    api_proxy.stall_watches(False)
    assert client.events(3) == ["a", "b", "c"]
    wait_until(lambda: late.events(1) == ["c"], 10, "the late watch to catch up")


@pytest.mark.parametrize(("when", "label"), [("before", None), ("after", "a")])
def test_the_proxy_holds_a_request(
    client: Client, api_proxy: ApiProxy, kubectl: Kubectl, when: Any, label: str | None
) -> None:
    hold = api_proxy.hold("PATCH", "/openairuns/one$", when)
    with Background(lambda: client.label("one", "a")) as answer:
        hold.wait_held()
        assert kubectl.json("get", "openairun", "one")["metadata"].get("labels", {}).get("value") == label
        assert not answer
        hold.release()
    assert answer[0][0] == 200
    assert client.label("one", "b")[0] == 200


def test_a_request_whose_sender_dies_while_it_is_held_is_not_sent(
    client: Client, api_proxy: ApiProxy, kubectl: Kubectl
) -> None:
    hold = api_proxy.hold("PATCH", "/openairuns/one$", "before")
    connection = client._send("PATCH", f"{client.runs}/one", {"metadata": {"labels": {"value": "a"}}})
    hold.wait_held()
    connection.close()
    client.ask("GET", client.runs)  # a round trip, so that the proxy has seen the connection close
    hold.release()
    assert client.label("one", "b")[0] == 200
    run = kubectl.json("get", "openairun", "one")["metadata"]
    assert run["labels"] == {"value": "b"}
    assert api_proxy.requests[-3].status == 0


class Background:
    """`with Background(call) as answers:` runs the call in a thread; at the end of the block it is over."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._answers: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._answers.append(call()))

    def __enter__(self) -> list[Any]:
        self._thread.start()
        return self._answers

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


# The processes


@pytest.fixture
def fake_operator(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """An environment in which `python -m openairun_operator` is the given program."""

    def write(program: str) -> dict[str, str]:
        package = tmp_path / "fake/openairun_operator"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(program)
        return {"PYTHONPATH": str(tmp_path / "fake")}

    return write


def test_an_operator_gets_what_it_is_told_and_nothing_of_our_environment(
    start_operator: StartOperator,
    openai: OpenAIControl,
    namespace: str,
    cluster: Cluster,
    fake_operator: Callable[[str], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ours")
    env = fake_operator(
        "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]));"
        "print('watching openairuns'); import time; time.sleep(60)"
    )
    operator = start_operator(namespace, env=env, extra_args=["--orphan-limit=5"]).wait_ready()
    args, environ = json.loads(operator.logs.splitlines()[0])
    assert args == [
        "run",
        f"--namespace={namespace}",
        f"--api-key-file={operator.key_file}",
        f"--base-url={openai.base_url}",
        "--requests-per-minute=0",
        "--orphan-limit=5",
    ]
    assert operator.key_file.read_text() == "sk-standin"
    assert not [name for name in environ if name.startswith("OPENAI")]
    who = Kubectl(operator.log_file.parent / environ["KUBECONFIG"]).json("auth", "whoami")["status"]["userInfo"][
        "username"
    ]
    assert who == OPERATOR.format(cluster.operator_namespace)
    assert operator.stop() == -signal.SIGTERM


def test_an_operator_that_ignores_sigterm_fails_the_test(
    start_operator: StartOperator, namespace: str, fake_operator: Callable[[str], dict[str, str]]
) -> None:
    env = fake_operator(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('watching openairuns'); time.sleep(60)"
    )
    operator = start_operator(namespace, env=env).wait_ready()
    with pytest.raises(AssertionError, match=r"did not end within 0\.5 s"):
        operator.stop(timeout=0.5)
    assert not operator.survivors()


def test_an_operator_that_ends_early_fails_the_test_with_its_log(
    start_operator: StartOperator, namespace: str, fake_operator: Callable[[str], dict[str, str]]
) -> None:
    operator = start_operator(namespace, env=fake_operator("raise SystemExit('no way')"))
    with pytest.raises(AssertionError, match="no way"):
        operator.wait_ready()


def test_the_stand_in_is_told_and_asked(openai: OpenAIControl) -> None:
    openai.fault("GET /models$", status=503)
    for expected in (503, 200):
        address = urlsplit(openai.base_url)
        assert address.hostname is not None
        with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=10)) as connection:
            connection.request("GET", "/v1/models", headers={"Authorization": "Bearer sk-standin"})
            assert connection.getresponse().status == expected
    assert len(openai.wait("GET", "/models$", count=2)) == 2
    assert openai.count("GET", "/models$") == 2
    assert openai.runs() == []
