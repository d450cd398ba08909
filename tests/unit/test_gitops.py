"""How Argo CD and Flux judge a run and a provider: the health scripts on all their conditions, and the samples."""

from pathlib import Path
from typing import Any

import kstatus
import pytest
import yaml
from builders import RESPONSES, START, body
from lupa import lua51  # the version that Argo CD's interpreter speaks
from test_lifecycle_conditions import COMPLETED, ENDED, NOT_AWAITED, RETRYING, ROWS, STUCK, WAITING, going, shown

from openairun_operator.api import durations
from openairun_operator.api.base import dump
from openairun_operator.api.names import GROUP, KIND, PROVIDER_KIND
from openairun_operator.api.provider import OpenAIProviderSpec, OpenAIProviderStatus
from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle import provider_status
from openairun_operator.lifecycle.facts import Policy
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.lifecycle.provider import TIMEOUT

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPT = (DEPLOY / "argocd/health.lua").read_text()
PROVIDER_SCRIPT = (DEPLOY / "argocd/health-provider.lua").read_text()

ARGOCD = {
    WAITING: "Progressing",
    NOT_AWAITED: "Healthy",
    RETRYING: "Progressing",
    STUCK: "Degraded",
    COMPLETED: "Healthy",
    ENDED: "Degraded",
}
"""The Argo CD column of the table, by what stands in the five columns before it; ActionRequired is Suspended."""
HELD_BACK = {"unclaimed": True, "spec": RESPONSES | {"suspend": True}}


def assess(object_: dict[str, Any], script: str = SCRIPT) -> tuple[str, str]:
    """Argo CD's health and message for the object, with no more libraries than Argo CD gives a script."""
    lua = lua51.LuaRuntime(register_eval=False, register_builtins=False)
    lua.execute(
        "getmetatable('').__index = nil; string, io, os, debug, math, coroutine, require, package, python = nil"
    )
    lua.globals().obj = lua.table_from(object_, recursive=True)
    said = lua.execute(script)
    assert sorted(said.keys()) == ["message", "status"]
    return said["status"], said["message"]


@pytest.mark.parametrize(
    ("known", "five", "others"), [(row[1], row[3], row[5]) for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_row(known: dict[str, Any], five: str, others: dict[str, str]) -> None:
    object_ = shown(**known)
    health, message = assess(object_)
    assert health == ("Suspended" if "ActionRequired" in others else ARGOCD[five])
    assert message == object_["status"]["conditions"][0]["message"]


def test_a_run_that_suspend_holds_back_holds_up_its_wave() -> None:
    object_ = shown(**HELD_BACK)
    assert assess(object_) == ("Suspended", object_["status"]["conditions"][0]["message"])
    assert kstatus.outcome(object_) == "InProgress"


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_argo_cd_and_kstatus_agree(row: tuple[Any, ...]) -> None:
    object_ = shown(**row[1])
    same = {"InProgress": {"Progressing", "Suspended"}, "Failed": {"Degraded"}, "Current": {"Healthy"}}
    assert assess(object_)[0] in same[kstatus.outcome(object_)]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_finished_run_is_never_suspended(row: tuple[Any, ...]) -> None:
    object_ = shown(**row[1])
    conditions = object_["status"]["conditions"]
    for type_ in {"ActionRequired", "Suspended"} - {c["type"] for c in conditions}:
        conditions.append({"type": type_, "status": "True", "message": ""})
    finished = next(c["status"] for c in conditions if c["type"] == "Finished")
    assert finished == "False" or assess(object_)[0] in ("Healthy", "Degraded")


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"observedGeneration": -1},
        {"observedGeneration": 1},
        {"observedGeneration": 1, "conditions": None},
        {"observedGeneration": 1, "conditions": []},
        {"observedGeneration": 1, "phase": "InProgress", "conditions": [{"type": "Ready", "status": "Unknown"}]},
        {"observedGeneration": 1, "conditions": [{"type": "Stalled", "status": "True"}]},
        {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False", "message": "m"}]},
    ],
    ids=str,
)
def test_a_status_that_says_too_little_is_progressing(status: dict[str, Any] | None) -> None:
    object_ = body() | {"status": status}
    if status is None:
        del object_["status"]
    health, message = assess(object_)
    assert health == "Progressing"
    assert message


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_new_generation_is_progressing_until_it_is_seen(row: tuple[Any, ...]) -> None:
    object_ = shown(**row[1])
    object_["metadata"]["generation"] += 1
    assert assess(object_)[0] == "Progressing"


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_deletion_is_progressing(row: tuple[Any, ...]) -> None:
    object_ = shown(**row[1])
    object_["metadata"]["deletionTimestamp"] = START.isoformat()
    assert assess(object_)[0] == "Progressing"
    assert kstatus.outcome(object_) == "Terminating"


def test_objects_that_the_server_sends_with_nulls_are_read() -> None:
    object_ = shown(**going("completed"))
    object_["status"]["conditions"][0]["message"] = None
    assert assess(object_) == ("Healthy", "Completed")


AVAILABLE = None
PROVIDERS = {
    AVAILABLE: ("Healthy", "Current"),
    Reason.INVALID_CREDENTIALS: ("Degraded", "Failed"),
    Reason.NO_CREDENTIALS: ("Degraded", "Failed"),
    Reason.ADDRESS_REFUSED: ("Degraded", "Failed"),
    Reason.INVALID_SPEC: ("Degraded", "Failed"),
    Reason.UNREACHABLE: ("Progressing", "InProgress"),
    Reason.RATE_LIMITED: ("Progressing", "InProgress"),
}
"""Argo CD's health and kstatus' outcome, by the reason for which a provider cannot be used."""
REASONS = pytest.mark.parametrize("reason", PROVIDERS)


def provider(reason: Reason | None) -> dict[str, Any]:
    """An OpenAIProvider that was checked, as the API server returns it."""
    spec = OpenAIProviderSpec.model_validate({"apiKeySecretRef": {"name": "openai", "key": "api-key"}})
    failure = Failure(reason=reason, message="what is wrong") if reason else None
    status = provider_status.status(
        spec, "https://api.openai.com/v1", ["Responses"], failure, (0, 0), OpenAIProviderStatus(), 3, START
    )
    return {"metadata": {"name": "default", "namespace": "team", "generation": 3}, "status": dump(status)}


@REASONS
def test_a_provider_is_healthy_when_its_server_takes_the_key_and_degraded_when_a_person_must_act(
    reason: Reason | None,
) -> None:
    object_ = provider(reason)
    message = object_["status"]["conditions"][0]["message"]
    health, outcome = PROVIDERS[reason]
    assert assess(object_, PROVIDER_SCRIPT) == (health, message)
    assert kstatus.outcome(object_) == outcome


@REASONS
def test_a_provider_in_a_new_generation_is_progressing_until_it_is_checked(reason: Reason | None) -> None:
    object_ = provider(reason)
    object_["metadata"]["generation"] += 1
    assert assess(object_, PROVIDER_SCRIPT)[0] == "Progressing"
    assert kstatus.outcome(object_) == "InProgress"


@REASONS
def test_a_provider_that_is_deleted_is_progressing(reason: Reason | None) -> None:
    object_ = provider(reason)
    object_["metadata"]["deletionTimestamp"] = START.isoformat()
    assert assess(object_, PROVIDER_SCRIPT)[0] == "Progressing"
    assert kstatus.outcome(object_) == "Terminating"


@pytest.mark.parametrize(
    "status",
    [
        None,
        {"observedGeneration": -1},
        {"observedGeneration": 3},
        {"observedGeneration": 3, "conditions": None},
        {"observedGeneration": 3, "conditions": [{"type": "Stalled", "status": "True"}]},
        {"observedGeneration": 3, "conditions": [{"type": "Ready", "status": "False", "message": None}]},
    ],
    ids=str,
)
def test_a_provider_that_says_too_little_is_progressing(status: dict[str, Any] | None) -> None:
    health, message = assess(provider(AVAILABLE) | {"status": status}, PROVIDER_SCRIPT)
    assert health == "Progressing"
    assert message


def test_the_patch_holds_the_scripts_word_for_word() -> None:
    patch = yaml.safe_load((DEPLOY / "argocd/argocd-cm-patch.yaml").read_text())
    scripts = {KIND: SCRIPT, PROVIDER_KIND: PROVIDER_SCRIPT}
    assert patch == {"data": {f"resource.customizations.health.{GROUP}_{kind}": scripts[kind] for kind in scripts}}


def test_the_application_prunes_and_never_replaces() -> None:
    application = yaml.safe_load((DEPLOY / "argocd/application.yaml").read_text())
    policy = application["spec"]["syncPolicy"]
    assert policy["automated"]["prune"] is True
    assert not {"Replace=true", "Force=true"} & set(policy["syncOptions"])


def test_flux_waits_longer_than_a_run_may_take_and_never_forces() -> None:
    source, kustomization = yaml.safe_load_all((DEPLOY / "flux/flux-kustomization.yaml").read_text())
    spec = kustomization["spec"]
    assert spec["sourceRef"] == {"kind": source["kind"], "name": source["metadata"]["name"]}
    assert (spec["wait"], spec["prune"], spec.get("force", False)) == (True, True, False)
    assert durations.parse(spec["timeout"]) > TIMEOUT + Policy(holder="").orphan_limit
