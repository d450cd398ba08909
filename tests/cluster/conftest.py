"""Cluster tests: the real operator as a process, under its own ServiceAccount, against a real API server.

CLUSTER=auto (the default) starts a control plane of its own from the binaries that envtest uses;
CLUSTER=current uses the current kubeconfig context. REQUIRE_ENVTEST=1: no skipping without binaries.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from apiserver import Cluster, current_cluster, own_cluster
from openai_control import OpenAIControl
from operator_process import OperatorProcess
from waiting import wait_until

from openairun_devkit.api_proxy import ApiProxy
from openairun_devkit.controlplane import (
    HOW_TO_GET_BINARIES,
    Binaries,
    ControlPlane,
    die_with_parent,
    kill_group,
)
from openairun_devkit.kubectl import Kubectl, read_cluster, write_kubeconfig

NO_BINARIES = "no binaries for an API server"
RAN_ON = pytest.StashKey[str]()
SKIPPED = pytest.StashKey[str]()
LOGS = pytest.StashKey[list[tuple[str, Path]]]()


@pytest.fixture(scope="session")
def binaries(pytestconfig: pytest.Config) -> Binaries:
    """The control plane's programs; without them the test is skipped, and the summary says why."""
    found = ControlPlane.find()
    if found is not None:
        return found
    reason = f"etcd and kube-apiserver were not found: {HOW_TO_GET_BINARIES}"
    if os.environ.get("REQUIRE_ENVTEST", "0") not in ("", "0"):
        pytest.fail(f"REQUIRE_ENVTEST is set, but {reason}", pytrace=False)
    pytestconfig.stash[SKIPPED] = reason
    pytest.skip(NO_BINARIES)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The API server, with the CRD and the operator's ServiceAccount applied without a warning."""
    kind = os.environ.get("CLUSTER") or "auto"
    if kind not in ("auto", "current"):
        pytest.fail(f"CLUSTER is auto or current, not {kind!r}", pytrace=False)
    with ExitStack() as stack:
        if kind == "current":
            cluster = stack.enter_context(current_cluster())
            where = "the current kubeconfig context"
        else:
            binaries: Binaries = request.getfixturevalue("binaries")
            cluster = stack.enter_context(own_cluster(binaries))
            where = f"started from {binaries.kube_apiserver.parent}"
        pytestconfig.stash[RAN_ON] = f"Kubernetes {cluster.version}, {where}"
        for result in cluster.applied:
            assert "warning" not in result.stderr.lower(), result.stderr
        yield cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace; its runs are freed of their finalizers before it is deleted."""
    name = cluster.create_namespace()
    yield name
    cluster.delete_namespace(name)


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    """kubectl as an administrator, in the test's namespace."""
    return cluster.kubectl.in_namespace(namespace)


@pytest.fixture
def api_proxy(cluster: Cluster) -> Iterator[ApiProxy]:
    """A proxy with faults in front of the API server; give it to `start_operator(through_proxy=…)`."""
    with ApiProxy(cluster.kubeconfig) as proxy:
        yield proxy


class StartOpenAI(Protocol):
    def __call__(self, *args: str) -> OpenAIControl: ...


@pytest.fixture
def start_openai(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartOpenAI]:
    """Start OpenAI stand-ins, with flags of theirs; they end with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*args: str) -> OpenAIControl:
        directory = tmp_path / f"openai-{len(processes)}"
        directory.mkdir()
        log, port_file = directory / "openai.log", directory / "port"
        command = [sys.executable, "-m", "openairun_devkit.openai", "--port-file", str(port_file), *args]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=die_with_parent(),
            )
        processes.append(process)
        request.node.stash.setdefault(LOGS, []).append((f"OpenAI stand-in {len(processes)}", log))
        wait_until(lambda: port_file.exists() or process.poll() is not None, 20, "the OpenAI stand-in")
        assert process.poll() is None, f"the OpenAI stand-in did not start:\n{log.read_text()}"
        return OpenAIControl(int(port_file.read_text()))

    yield start
    for process in processes:
        kill_group(process)


@pytest.fixture
def openai(start_openai: StartOpenAI) -> OpenAIControl:
    """An OpenAI stand-in with its defaults."""
    return start_openai()


class StartOperator(Protocol):
    def __call__(
        self,
        namespace: str | None,
        *,
        base_url: str | None = None,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        key: str | None = "sk-standin",
        through_proxy: ApiProxy | None = None,
    ) -> OperatorProcess: ...


@pytest.fixture
def start_operator(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    namespace: str,  # asked for here so that operators end before it is deleted
    tmp_path: Path,
) -> Iterator[StartOperator]:
    """Start operators for one namespace (None: for all) with the ServiceAccount's rights.

    Without `base_url` they talk to the `openai` fixture. `key` None: the key's file does not exist.
    What they wrote is shown when the test fails; they end with the test.
    """
    operators: list[OperatorProcess] = []

    def start(
        namespace: str | None,
        *,
        base_url: str | None = None,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        key: str | None = "sk-standin",
        through_proxy: ApiProxy | None = None,
    ) -> OperatorProcess:
        directory = tmp_path / f"operator-{len(operators)}"
        directory.mkdir()
        if base_url is None:
            openai: OpenAIControl = request.getfixturevalue("openai")
            base_url = openai.base_url
        kubeconfig = directory / "kubeconfig"
        if through_proxy is not None:
            through_proxy.write_kubeconfig(kubeconfig, cluster.operator_token)
        else:
            server, authority = read_cluster(cluster.kubeconfig)
            write_kubeconfig(kubeconfig, server=server, token=cluster.operator_token, certificate_authority=authority)
        key_file = directory / "credentials/api-key"
        key_file.parent.mkdir()
        if key is not None:
            key_file.write_text(key)
        args = [f"--api-key-file={key_file}", f"--base-url={base_url}", *extra_args]
        if namespace is not None:
            args.insert(0, f"--namespace={namespace}")
        process = OperatorProcess(directory, args, {"KUBECONFIG": str(kubeconfig), **(env or {})}, key_file)
        operators.append(process)
        request.node.stash.setdefault(LOGS, []).append((f"operator {len(operators)}", process.log_file))
        return process

    yield start
    orphaned = [process.pid for process in operators if not process.running and process.survivors()]
    for process in operators:
        process.kill9()
        wait_until(_gone(process), 5, f"the end of the operator's process group {process.pid}")
    assert not orphaned, f"these operators ended and left children behind: {orphaned}"


def _gone(process: OperatorProcess) -> Callable[[], bool]:
    return lambda: not process.survivors()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.skipped and item.config.stash.get(SKIPPED, None) is not None and NO_BINARIES in str(report.longrepr):
        # One place for all of them: pytest then sums them up in one line.
        report.longrepr = (__file__, None, f"Skipped: {NO_BINARIES}")
    if report.failed:
        for name, log in item.stash.get(LOGS, []):
            report.sections.append((f"Log of {name}", log.read_text(errors="replace")))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (ran_on := config.stash.get(RAN_ON, None)) is not None:
        terminalreporter.write_line(f"cluster tests ran on {ran_on}")
    if (reason := config.stash.get(SKIPPED, None)) is not None:
        terminalreporter.write_line(f"CLUSTER TESTS WERE SKIPPED: {reason}", red=True, bold=True)
