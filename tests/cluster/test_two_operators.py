"""Several operators, one Lease: one acts, another takes over, and nothing is made twice or called unknown."""

from __future__ import annotations

import time
from collections import Counter

import pytest
import yaml
from apiserver import Cluster
from openai_control import OpenAIControl
from processes import StartOperator
from runs import ASSISTANT, RESPONSE, Resource, run
from waiting import wait_until

from openairun_devkit.api_proxy import ApiProxy
from openairun_devkit.kubectl import Kubectl

pytestmark = pytest.mark.cluster

RUNS = 150
TAKES_OVER = 15 + 3 + 5
"""Seconds: the duration of the Lease, the time between two looks, and some to start."""


@pytest.fixture
def lease(cluster: Cluster) -> str:
    """A Lease that nobody holds: operators of the test before were killed, and it would be theirs for a while."""
    if not cluster.is_ours:
        pytest.skip("needs the rights of the operator's own namespace")
    kubectl = cluster.kubectl.in_namespace(cluster.operator_namespace)
    kubectl.run("delete", "lease", "openairun-operator", "--ignore-not-found")
    return f"--lease={cluster.operator_namespace}/openairun-operator"


def many(kubectl: Kubectl, first: int, count: int, script: str) -> None:
    specs = [RESPONSE if number % 2 else ASSISTANT | {"threadID": f"thread_{number}"} for number in range(count)]
    documents = [run(f"run-{first + number}", spec, script) for number, spec in enumerate(specs)]
    kubectl.apply(yaml.safe_dump_all(documents))


def phases(kubectl: Kubectl) -> Counter[str]:
    return Counter(each.get("status", {}).get("phase") for each in kubectl.json("get", "openairuns")["items"])


def assert_each_once(openai: OpenAIControl, count: int) -> None:
    made = Counter(each["metadata"]["openairun_name"] for each in openai.runs())
    assert len(made) == count
    assert set(made.values()) == {1}, "a run was made twice"


def test_two_at_once_make_each_run_once_and_a_change_over_calls_none_unknown(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl, lease: str
) -> None:
    first = start_operator(namespace, extra_args=[lease])
    first.wait_for_log("holds the Lease")
    second = start_operator(namespace, extra_args=[lease])
    second.wait_for_log("waiting")
    many(kubectl, 0, RUNS // 2, "complete")
    openai.wait("POST", "/(responses|runs)$", count=20)
    assert first.stop() == 0  # amid the creates
    many(kubectl, RUNS // 2, RUNS // 2, "complete")
    second.wait_for_log("this operator holds the Lease")
    third = start_operator(namespace, extra_args=[lease])
    openai.wait("POST", "/(responses|runs)$", count=RUNS // 2 + 10, timeout=60)
    second.stop()
    third.wait_for_log("this operator holds the Lease")
    wait_until(lambda: phases(kubectl) == {"Completed": RUNS}, 120, f"{RUNS} completed runs")
    assert_each_once(openai, RUNS)


def test_one_that_is_killed_is_followed_within_the_time_of_the_lease(
    kubectl: Kubectl, namespace: str, start_operator: StartOperator, openai: OpenAIControl, lease: str
) -> None:
    first = start_operator(namespace, extra_args=[lease])
    resource = Resource.apply(kubectl, "long", RESPONSE, script="in_progress:4,completed").wait_phase("InProgress")
    second = start_operator(namespace, extra_args=[lease])
    second.wait_for_log("waiting")
    first.kill9()
    died = time.monotonic()
    second.wait_for_log("this operator holds the Lease", timeout=60)
    assert time.monotonic() - died < TAKES_OVER
    resource.wait_for("Ready")
    assert_each_once(openai, 1)


def test_a_lease_that_is_deleted_amid_creates_makes_nothing_twice(
    cluster: Cluster,
    kubectl: Kubectl,
    namespace: str,
    start_operator: StartOperator,
    openai: OpenAIControl,
    lease: str,
) -> None:
    """Another that took it at once would send anew what the first has sent, which it may of these runs."""
    leases = cluster.kubectl.in_namespace(cluster.operator_namespace)

    def renewed() -> str:
        return str(leases.json("get", "lease", "openairun-operator")["spec"]["renewTime"])

    start_operator(namespace, extra_args=[lease]).wait_for_log("holds the Lease")
    start_operator(namespace, extra_args=[lease]).wait_for_log("waiting")
    openai.fault("POST /responses$", times=None, delay=4)
    documents = [run(f"run-{number}", RESPONSE | {"onUnknownCreate": "CreateAgain"}) for number in range(60)]
    kubectl.apply(yaml.safe_dump_all(documents))
    before = renewed()
    wait_until(lambda: renewed() != before, 5, "a renewal")  # so that the next look is mostly the other's
    leases.run("delete", "lease", "openairun-operator")
    wait_until(lambda: phases(kubectl) == {"Completed": 60}, 60, "60 completed runs")
    assert_each_once(openai, 60)


def test_a_standby_is_alive_and_ends_at_once(
    namespace: str, start_operator: StartOperator, openai: OpenAIControl, lease: str
) -> None:
    start_operator(namespace, extra_args=[lease]).wait_for_log("holds the Lease")
    standby = start_operator(namespace, extra_args=[lease])
    standby.wait_for_log("waiting")
    assert standby.stop(timeout=10) == 0


def test_an_api_server_that_is_away_longer_than_the_lease_lasts_stops_and_ends_nothing(
    kubectl: Kubectl,
    namespace: str,
    start_operator: StartOperator,
    openai: OpenAIControl,
    api_proxy: ApiProxy,
    lease: str,
) -> None:
    operator = start_operator(namespace, extra_args=[lease], through_proxy=api_proxy)
    resource = Resource.apply(kubectl, "long", RESPONSE, script="never").wait_phase("InProgress")
    for method in ("GET", "POST", "PUT", "PATCH"):
        api_proxy.fail(method, ".*", 503, times=None)
    operator.wait_for_log("cannot read Lease", timeout=30)
    time.sleep(12)  # the holder's own time is over: from here on it does nothing
    asked = len(openai.requests())
    time.sleep(3)
    assert len(openai.requests()) == asked, "it acts without the Lease"
    (at_openai,) = openai.runs()
    openai.play(at_openai["id"], "completed")
    api_proxy.heal()
    resource.wait_for("Ready", timeout=25)
    assert operator.running
    assert_each_once(openai, 1)
