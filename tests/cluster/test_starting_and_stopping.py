"""What a person at a terminal sees of an operator that starts, cannot start, or stops."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from apiserver import Cluster
from processes import StartOperator
from runs import RESPONSE, Resource, run
from waiting import wait_until

from openairun_devkit.kubectl import Kubectl, read_cluster

pytestmark = pytest.mark.cluster


def test_it_says_which_cluster_it_acts_on(cluster: Cluster, namespace: str, start_operator: StartOperator) -> None:
    operator = start_operator(namespace).wait_ready()
    server, _ = read_cluster(cluster.kubeconfig)
    assert f"the cluster is {server} (context devkit)" in operator.logs


def test_an_idle_operator_stops_at_once_and_says_so(namespace: str, start_operator: StartOperator) -> None:
    operator = start_operator(namespace, extra_args=["--verbose"]).wait_ready()
    operator.wait_for_log("Starting the watch-stream")
    began = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - began < 3
    assert operator.logs.splitlines()[-1].endswith(" stopped")


def test_it_warns_where_there_is_no_key_and_says_where_to_put_it(namespace: str, start_operator: StartOperator) -> None:
    operator = start_operator(namespace, key=None).wait_ready()
    (warning,) = [line for line in operator.logs.splitlines() if " WARNING " in line]
    assert f"The operator has no API key: put it into the file {operator.key_file}" in warning


@pytest.mark.parametrize("flag", ["liveness", "metrics"])
def test_a_taken_port_is_one_line(flag: str, namespace: str, start_operator: StartOperator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/path"
        operator = start_operator(namespace, extra_args=[f"--{flag}={url}"])
        wait_until(lambda: not operator.running, 30, "the operator to end")
    assert "Traceback" not in operator.logs
    assert f"openairun-operator: cannot serve {url}: " in operator.logs.splitlines()[-1]


@pytest.mark.parametrize("after", [0.1, 0.4, 0.8])
def test_ctrl_c_while_it_still_loads_shows_no_traceback(after: float, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "openairun_operator", "run"],
        env={"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "openairun_operator.config" in line:
                break
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert "Traceback" not in said


@pytest.mark.real_cluster  # the stand-in recurses over what it validates
@pytest.mark.parametrize("levels", [2000, 9900])
def test_an_object_that_is_nested_without_need_stops_no_other(
    levels: int, kubectl: Kubectl, namespace: str, start_operator: StartOperator
) -> None:
    operator = start_operator(namespace).wait_ready()
    spec = {**RESPONSE, "tools": [{"type": "file_search", "options": {"first": "@"}}]}
    text = json.dumps(run("nested", spec)).replace('"@"', '{"a":' * levels + "1" + "}" * levels)
    kubectl.run("create", "--filename=-", input=text)

    def message() -> str:
        path = "{.status.conditions[?(@.type=='Ready')].message}"
        return kubectl.run("get", "openairun", "nested", f"--output=jsonpath={path}").stdout

    try:
        Resource.apply(kubectl, "other", RESPONSE).wait_for("Ready")
        wait_until(lambda: "nested deeper than 100 levels" in message(), 30, "word of what is wrong with it")
        assert operator.running
    finally:  # what clears up after tests reads all that is left, and cannot read this
        kubectl.run("delete", "openairun", "nested", "--timeout=20s")
