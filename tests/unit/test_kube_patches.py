"""A status's difference as a JSON patch: what it makes of a status, and what it does not touch."""

from __future__ import annotations

from typing import Any

import pytest

from openairun_devkit.cluster.patches import PatchError, json_patch, merge
from openairun_operator.kube import patches

BEFORE = {"phase": "Queued", "output": {"text": "a", "truncated": True}, "runID": "resp_1", "conditions": [{"a": 1}]}


@pytest.mark.parametrize(
    ("status", "difference"),
    [
        (BEFORE, {"phase": "InProgress"}),
        (BEFORE, {"output": None, "runID": None}),
        (BEFORE, {"output": {"text": "b", "truncated": None}}),
        (BEFORE, {"usage": {"totalTokens": 3}}),
        (BEFORE, {"conditions": [{"a": 2}, {"a": None}]}),
        (BEFORE, {"neverThere": None, "phase": "Z"}),
        (BEFORE | {"a/b~c": 1, "d/e": 2}, {"a/b~c": {"x": 1}, "d/e": None}),
        (BEFORE, {}),
        ({}, {"phase": "Queued", "gone": None, "output": {"text": "a", "truncated": None}}),
    ],
)
def test_it_does_what_the_merge_patch_does(status: dict[str, Any], difference: dict[str, Any]) -> None:
    wanted = {key: value for key, value in merge(status, difference).items() if key != "conditions"}
    after = json_patch({"status": status}, patches.of_status(status, difference))["status"]
    assert {key: value for key, value in after.items() if key != "conditions"} == wanted
    assert after.get("conditions") == difference.get("conditions", status.get("conditions"))


def test_an_absent_status_is_added() -> None:
    assert json_patch({}, patches.of_status({}, {"phase": "Queued"})) == {"status": {"phase": "Queued"}}


def test_only_what_differs_is_sent() -> None:
    operations = patches.of_status(BEFORE, {"output": {"text": "b"}, "runID": None})
    assert operations == [
        {"op": "add", "path": "/status/output", "value": {"text": "b", "truncated": True}},
        {"op": "remove", "path": "/status/runID"},
    ]


def test_what_is_no_longer_as_it_was_seen_is_noticed() -> None:
    with pytest.raises(PatchError):
        json_patch({"status": {}}, patches.of_status(BEFORE, {"runID": None}))
