"""Cluster tests: the real operator as a process, under its own ServiceAccount, against an API server.

CLUSTER=auto (the default) runs them on the stand-in, and again on a control plane of its own from the binaries that
envtest uses; tests with an operator of their own then run on the latter alone, to save time. CLUSTER=standin or real
runs all on one of the two; CLUSTER=current uses the current kubeconfig context.
REQUIRE_ENVTEST=1: no skipping without binaries. Tests marked `real_cluster` need what the stand-in has not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver import Cluster, current_cluster, own_cluster, standin_cluster
from openai_control import OpenAIControl
from operator_process import OperatorProcess
from processes import Processes, StartOpenAI, StartOperator

from openairun_devkit.api_proxy import ApiProxy
from openairun_devkit.controlplane import (
    HOW_TO_GET_BINARIES,
    Binaries,
    ControlPlane,
)
from openairun_devkit.kubectl import Kubectl

NO_BINARIES = "no binaries for an API server"
KINDS = {"auto": ["standin", "real"], "standin": ["standin"], "real": ["real"], "current": ["current"]}
LOGS = pytest.StashKey[list[list[tuple[str, Path]]]]()


@pytest.fixture(scope="session")
def binaries(summary: dict[str, bool]) -> Binaries:
    """The control plane's programs; without them the test is skipped, and the summary says why."""
    found = ControlPlane.find()
    if found is not None:
        return found
    reason = f"etcd and kube-apiserver were not found: {HOW_TO_GET_BINARIES}"
    if os.environ.get("REQUIRE_ENVTEST", "0") not in ("", "0"):
        pytest.fail(f"REQUIRE_ENVTEST is set, but {reason}", pytrace=False)
    summary[f"CLUSTER TESTS WERE SKIPPED: {reason}"] = True
    pytest.skip(NO_BINARIES)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever needs a cluster on each kind that CLUSTER asks for."""
    if "cluster" not in metafunc.fixturenames:
        return
    asked = os.environ.get("CLUSTER") or "auto"
    if asked not in KINDS:
        raise pytest.UsageError(f"CLUSTER is one of {', '.join(KINDS)}, not {asked!r}")
    real_only = metafunc.definition.get_closest_marker("real_cluster") is not None
    # Each start of an operator takes seconds: where there is a real API server, `auto` starts the tests' own on that.
    own_operator = (
        {"start_operator", "ground"} & set(metafunc.fixturenames)
        and asked == "auto"
        and ControlPlane.find() is not None
    )
    kinds = [kind for kind in KINDS[asked] if not (kind == "standin" and (real_only or own_operator))]
    metafunc.parametrize("cluster", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def on_standin(summary: dict[str, bool]) -> Iterator[Cluster]:
    with standin_cluster() as cluster:
        summary["cluster tests ran on the stand-in"] = False
        yield cluster


@pytest.fixture(scope="session")
def on_real(binaries: Binaries, summary: dict[str, bool]) -> Iterator[Cluster]:
    with own_cluster(binaries) as cluster:
        where = f"Kubernetes {cluster.version}, started from {binaries.kube_apiserver.parent}"
        summary[f"cluster tests ran on {where}"] = False
        yield cluster


@pytest.fixture(scope="session")
def on_current(summary: dict[str, bool]) -> Iterator[Cluster]:
    with current_cluster() as cluster:
        summary[f"cluster tests ran on Kubernetes {cluster.version}, the current kubeconfig context"] = False
        yield cluster


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The API server, with the CRD and the operator's ServiceAccount applied without a warning.

    Each kind is started once: in whatever order tests come, going from one to the other ends none.
    """
    cluster: Cluster = request.getfixturevalue(f"on_{request.param}")
    for result in cluster.applied:
        assert "warning" not in result.stderr.lower(), result.stderr
    return cluster


@pytest.fixture
def namespace(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """A namespace without runs: a fresh one, or for a test that asks for `operated` the shared one.

    Its runs are freed of their finalizers before a fresh one is deleted.
    """
    if "operated" in request.fixturenames:
        shared: str = request.getfixturevalue("shared_namespace")
        yield shared
        cluster.kubectl.in_namespace(shared).run("delete", "openairuns", "--all", "--timeout=20s")
        return
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
    with ApiProxy.of_cluster(cluster.kubeconfig) as proxy:
        yield proxy


@pytest.fixture
def processes(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    namespace: str,  # asked for here so that operators end before it is deleted
    tmp_path: Path,
) -> Iterator[Processes]:
    """The test's own programs; they end with it, and what they wrote is shown when it fails."""
    processes = Processes(cluster, tmp_path)
    request.node.stash.setdefault(LOGS, []).append(processes.logs)
    yield processes
    processes.end()


@pytest.fixture(scope="session")
def shared_processes(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Programs that serve many tests."""
    processes = Processes(cluster, tmp_path_factory.mktemp("shared"))
    yield processes
    processes.end()


@pytest.fixture(scope="session")
def shared_namespace(cluster: Cluster) -> Iterator[str]:
    """The namespace of the tests that share an operator."""
    name = cluster.create_namespace()
    yield name
    cluster.delete_namespace(name)


@pytest.fixture(scope="session")
def shared_openai(shared_processes: Processes, shared_namespace: str) -> OpenAIControl:
    """One OpenAI stand-in for many tests, and one operator with its defaults that uses it."""
    openai = shared_processes.start_openai()
    shared_processes.start_operator(shared_namespace, base_url=openai.base_url).wait_ready()
    return openai


@pytest.fixture
def operated(
    request: pytest.FixtureRequest, shared_processes: Processes, shared_openai: OpenAIControl
) -> OpenAIControl:
    """The OpenAI that this test's runs go to, by an operator that it shares with others: that saves a start."""
    request.node.stash.setdefault(LOGS, []).append(shared_processes.logs)
    return shared_openai.from_now_on()


@pytest.fixture
def start_openai(processes: Processes) -> StartOpenAI:
    """Start OpenAI stand-ins, with flags of theirs."""
    return processes.start_openai


@pytest.fixture
def openai(processes: Processes) -> OpenAIControl:
    """An OpenAI stand-in with its defaults, for this test alone."""
    return processes.start_openai()


@pytest.fixture
def start_operator(request: pytest.FixtureRequest, processes: Processes) -> StartOperator:
    """Start operators for one namespace (None: for all). Without `base_url` they talk to the `openai` fixture."""

    def start(namespace: str | None, *, base_url: str | None = None, **options: Any) -> OperatorProcess:
        if base_url is None:
            openai: OpenAIControl = request.getfixturevalue("openai")
            base_url = openai.base_url
        return processes.start_operator(namespace, base_url=base_url, **options)

    return start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.skipped and NO_BINARIES in str(report.longrepr):
        # One place for all of them: pytest then sums them up in one line.
        report.longrepr = (__file__, None, f"Skipped: {NO_BINARIES}")
    if report.failed:
        for name, log in (each for logs in item.stash.get(LOGS, []) for each in logs):
            report.sections.append((f"Log of {name}", log.read_text(errors="replace")[-20_000:]))
    return report
