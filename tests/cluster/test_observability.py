"""What the kubelet and Prometheus see of the operator."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from processes import StartOperator
from runs import RESPONSE, Resource
from waiting import wait_until

from openairun_devkit.kubectl import Kubectl

pytestmark = pytest.mark.cluster


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_the_probe_answers_and_runs_are_counted(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator
) -> None:
    health, metrics = (f"http://127.0.0.1:{free_port()}/{path}" for path in ("healthz", "metrics"))
    start_operator(namespace, extra_args=[f"--liveness={health}", f"--metrics={metrics}"])
    Resource.apply(kubectl, "hello", RESPONSE).wait_for("Ready")
    assert wait_until(lambda: get(health), 5, "the probe") == '{"scheduler": "ok"}'
    assert 'openairun_runs{api="Responses",phase="Completed"} 1.0' in get(metrics)
    assert 'openairun_creates_total{api="Responses",outcome="created"} 1.0' in get(metrics)
