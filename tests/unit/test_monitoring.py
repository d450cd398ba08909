"""What dashboards and alerts ask for is what the operator counts."""

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Usage
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"


def all_metrics() -> Metrics:
    """Metrics in which everything was counted once."""
    metrics = Metrics()
    failure = Failure(reason=Reason.RATE_LIMITED, message="")
    metrics.created("Responses")
    metrics.not_created("Responses", failure)
    metrics.polled("Responses")
    metrics.failed("Responses", failure)
    metrics.cancelled("Responses")
    metrics.orphaned("Responses")
    metrics.used("Responses", Usage(promptTokens=1, completionTokens=1))
    metrics.watch(lambda: [("Queued", "Responses"), (None, None)], lambda: 3, lambda: 0.5)
    return metrics


def expressions() -> list[tuple[str, str]]:
    dashboard: dict[str, Any] = json.loads((DEPLOY / "monitoring/dashboard.json").read_text())
    rules: dict[str, Any] = yaml.safe_load((DEPLOY / "monitoring/rules.yaml").read_text())
    panels = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [(r["alert"], r["expr"]) for group in rules["spec"]["groups"] for r in group["rules"]]


@pytest.mark.parametrize(("name", "expression"), expressions(), ids=[name for name, _ in expressions()])
def test_a_query_asks_for_metrics_and_labels_that_there_are(name: str, expression: str) -> None:
    labels: dict[str, set[str]] = {}
    for family in all_metrics().registry.collect():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    asked = re.findall(r"(openairun_\w+)(?:\{([^}]*)\})?", expression)
    assert asked
    for metric, matchers in asked:
        assert metric in labels
        assert set(re.findall(r"(\w+)\s*=~?", matchers)) <= labels[metric]
    for by in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in by.split(",")} <= labels[asked[0][0]]


def test_reasons_in_alerts_are_reasons_that_there_are() -> None:
    for _, expression in expressions():
        for reasons in re.findall(r'reason=~?"([^"]*)"', expression):
            assert {Reason(reason) for reason in reasons.split("|")}


def test_the_monitored_port_is_one_of_the_deployment() -> None:
    deployment = yaml.safe_load((DEPLOY / "manifests/deployment.yaml").read_text())
    monitor = yaml.safe_load((DEPLOY / "monitoring/podmonitor.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert f"--metrics=http://0.0.0.0:{ports[endpoint['port']]}{endpoint['path']}" in container["args"]
    assert f"--liveness=http://0.0.0.0:{ports['health']}/healthz" in container["args"]


async def test_metrics_are_served_in_prometheus_own_form() -> None:
    runner = await all_metrics().serve("127.0.0.1", 0, "/metrics")
    try:
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/metrics") as answer:
            text = await answer.text()
    finally:
        await runner.cleanup()
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'openairun_runs{api="Responses",phase="Queued"} 1.0' in text
    assert 'openairun_runs{api="",phase="Unseen"} 1.0' in text
    assert 'openairun_creates_total{api="Responses",outcome="not created"} 1.0' in text
