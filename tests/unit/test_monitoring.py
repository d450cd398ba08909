"""What dashboards and alerts ask for is what the operator counts."""

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.samples import Sample

from openairun_operator import wires
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Usage
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"


def all_metrics() -> Metrics:
    """Metrics in which everything was counted once."""
    metrics = idle()
    failure = Failure(reason=Reason.RATE_LIMITED, message="")
    metrics.created("Responses")
    metrics.not_created("Responses", failure)
    metrics.submitted("Responses")
    metrics.not_submitted("Responses", failure)
    metrics.polled("Responses")
    metrics.failed("Responses", failure)
    metrics.cancelled("Responses")
    metrics.orphaned("Responses")
    metrics.used("Responses", Usage(promptTokens=1, completionTokens=1))
    return metrics


def idle(key: str | None = "sk-one") -> Metrics:
    """Metrics of an operator that has done nothing yet."""
    metrics = Metrics()
    metrics.watch(lambda: [("Queued", "Responses"), (None, None)], lambda: 3, lambda: 0.5)
    metrics.watch_key(lambda: key)
    return metrics


def samples(metrics: Metrics) -> dict[str, list[Sample]]:
    """All series by the name of their metric, as they would be scraped now."""
    found: dict[str, list[Sample]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def expressions() -> list[tuple[str, str]]:
    dashboard: dict[str, Any] = json.loads((DEPLOY / "monitoring/dashboard.json").read_text())
    rules: dict[str, Any] = yaml.safe_load((DEPLOY / "monitoring/rules.yaml").read_text())
    panels = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [(r["alert"], r["expr"]) for group in rules["spec"]["groups"] for r in group["rules"]]


@pytest.mark.parametrize(("name", "expression"), expressions(), ids=[name for name, _ in expressions()])
def test_a_query_asks_for_series_that_are_there_before_anything_happened(name: str, expression: str) -> None:
    """Prometheus sees no increase in a series that is born at 1."""
    found = samples(idle())
    asked = re.findall(r"(openairun_\w+)(?:\{([^}]*)\})?", expression)
    assert asked
    for metric, matchers in asked:
        assert metric in found
        for label, values in re.findall(r'(\w+)\s*=~?\s*"([^"]*)"', matchers):
            for value in values.split("|"):
                assert [each for each in found[metric] if each.labels.get(label) == value], f"{label}={value}"
    for by in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in by.split(",")} <= set(found[asked[0][0]][0].labels)


def test_all_series_of_the_counters_are_there_at_zero() -> None:
    before, after = samples(idle()), samples(all_metrics())
    for name, series in after.items():
        if name.endswith("_total"):
            assert [each.value for each in before[name]] == [0.0] * len(before[name])
            assert [each.labels for each in series] == [each.labels for each in before[name]]
            assert sum(each.value for each in series) > 0


def test_every_reason_that_a_call_can_fail_for_is_there_at_zero() -> None:
    """The reasons in the text of what makes such failures; wires know no other, and providers give the last."""
    package = Path(wires.__file__).parents[1]
    sources = [*package.glob("wires/*.py"), package / "lifecycle/adopting.py"]
    named = {Reason[name] for file in sources for name in re.findall(r"\bReason\.([A-Z_]+)", file.read_text())}
    named |= {Reason.NO_CREDENTIALS, Reason.PROVIDER_NOT_FOUND, Reason.ID_NOT_ALLOWED}
    assert len(named) > 10
    for api in ("Responses", "Assistants"):
        series = [each for each in samples(idle())["openairun_errors_total"] if each.labels["api"] == api]
        assert {each.labels["reason"] for each in series} == named


def test_a_ratio_has_a_value_where_one_of_its_parts_has_none() -> None:
    ratios = [each for _, each in expressions() if re.search(r"[*/+]\s*\(?sum\(", each)]
    assert ratios
    for ratio in ratios:
        assert ratio.count("sum(") == ratio.count("or vector(0)")


def test_a_missing_key_is_seen_though_nothing_is_asked_of_openai() -> None:
    (sample,) = samples(idle(key=None))["openairun_key_present"]
    assert sample.value == 0.0
    (sample,) = samples(idle(key="sk-one"))["openairun_key_present"]
    assert sample.value == 1.0


def test_reasons_in_alerts_are_reasons_that_there_are() -> None:
    for _, expression in expressions():
        for reasons in re.findall(r'reason=~?"([^"]*)"', expression):
            assert {Reason(reason) for reason in reasons.split("|")}


def rows(heading: str) -> set[str]:
    """What stands first in the rows of a table of docs/monitoring.md."""
    section = (DEPLOY.parent / "docs/monitoring.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \|(.*)\|$", section, re.MULTILINE)
    assert all(len(text.split()) > 5 for _, text in found)
    return {name for name, _ in found}


def test_every_metric_has_its_line_on_the_page() -> None:
    assert rows("Metrics") == {name for name in samples(idle()) if not name.endswith("_created")}


def test_every_alert_has_its_line_on_the_page() -> None:
    rules: dict[str, Any] = yaml.safe_load((DEPLOY / "monitoring/rules.yaml").read_text())
    assert rows("Alerts") == {rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]}


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
