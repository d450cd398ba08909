"""What an API server makes of an OpenAIProvider: what it refuses, and what kubectl shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apiserver import Cluster

from openairun_devkit.kubectl import Kubectl

pytestmark = pytest.mark.cluster

KEY = {"name": "openai", "key": "api-key"}


def provider(name: str, **spec: Any) -> dict[str, Any]:
    spec = {"apiKeySecretRef": KEY} | spec
    metadata = {"name": name}
    return {"apiVersion": "openairun.dev/v1alpha1", "kind": "OpenAIProvider", "metadata": metadata, "spec": spec}


TAKEN: list[dict[str, Any]] = [
    {},
    {"baseURL": "http://127.0.0.1:8080/v1/"},
    {"baseURL": f"https://my_server.{'a' * 63}.example.com./v1"},
    {"baseURL": "https://[::1]:8080/a/b@c:d", "api": "Assistants"},
    {
        "baseURL": "https://my-resource.openai.azure.com/openai/v1",
        "azure": {"apiVersion": "2025-04-01-preview", "authentication": "BearerToken"},
    },
    {"caBundleFrom": {"configMapKeyRef": {"name": "authorities", "key": "ca.crt"}}, "requestTimeout": "10m"},
    {"rateLimit": {"requestsPerMinute": 1_000_000, "burst": 1}, "maxConcurrentRuns": 1},
    {"defaults": {"model": "gpt-5-mini", "pollingInterval": "1s", "timeout": "168h"}, "organization": "org-1"},
]
ADDRESS = "baseURL is an http or https address such as https://api.openai.com/v1"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"apiKeySecretRef": None}, "spec.apiKeySecretRef: Required value"),
    *(
        ({"baseURL": address}, ADDRESS)
        for address in (
            "api.openai.com/v1",
            "https://user:word@example.com",
            "https://example.com/v1?x=y",
            "https://example.com/v1#part",
            "https://example.com/v1\n",
            "https://example.com\\@other",
            "https://exämple.com",
            "https://api..openai.com/v1",
            "https://.example.com",
            "https://-a.example.com",
            f"https://{'a' * 64}.example.com",
        )
    ),
    ({"azure": {"apiVersion": "v1"}}, "azure needs baseURL"),
    ({"project": "proj\r\nX: y"}, "printable ASCII without spaces"),
    ({"caBundleFrom": {}}, "write one of configMapKeyRef and secretKeyRef"),
    ({"requestTimeout": "11m"}, "requestTimeout is a duration from 1s to 10m"),
    ({"maxConcurrentRuns": 0}, "spec.maxConcurrentRuns"),
    ({"defaults": {"timeout": "1 hour"}}, "timeout is a duration from 1s to 168h"),
]


def test_it_is_taken_or_refused_with_a_word_on_what_to_write(cluster: Cluster, kubectl: Kubectl) -> None:
    for spec in TAKEN:
        kubectl.apply(provider("default", **spec), "--dry-run=server")
    for spec, message in REFUSED:
        refused = kubectl.apply(provider("default", **spec), "--dry-run=server", check=False)
        assert refused.returncode != 0, spec
        assert message in refused.stderr, spec
    refused = kubectl.apply(provider("operator"), "--dry-run=server", check=False)
    assert "operator means the operator's own key: choose another name" in refused.stderr


def test_kubectl_shows_how_it_stands(cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl.apply(provider("shown"))
    assert kubectl.json("get", "oaiprovider", "shown")["status"] == {"observedGeneration": -1}
    ready = {"type": "Ready", "status": "True", "reason": "InSync", "lastTransitionTime": "2026-11-02T08:00:00Z"}
    status = {
        "observedGeneration": 1,
        "address": "https://api.openai.com/v1",
        "apis": ["Responses", "Assistants"],
        "runsInFlight": 3,
        "runsWaiting": 0,
        "conditions": [ready],
    }
    patch = json.dumps({"status": status})
    kubectl.run("patch", "openaiprovider", "shown", "--subresource=status", "--type=merge", f"--patch={patch}")
    header, row = kubectl.run("get", "openaiproviders").stdout.splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "ADDRESS", "IN", "FLIGHT", "WAITING", "AGE"]
    assert row.split()[:-1] == ["shown", "True", "InSync", "https://api.openai.com/v1", "3", "0"]
    wide = kubectl.run("get", "openaiproviders", "--output=wide").stdout
    assert '["Responses","Assistants"]' in wide
    kubectl.run("delete", "openaiprovider", "shown")
