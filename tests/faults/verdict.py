"""What must be true of a resource after whatever happened. Pure: what was seen comes in, what is wrong goes out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

RECORD = "openairun.dev/run"
ENDED = frozenset({"completed", "failed", "cancelled", "incomplete", "expired", "gone"})


@dataclass
class Verdict:
    """What is wrong, by kind; `unknown` counts creates that the operator says it knows no outcome of."""

    duplicates: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unknown: int = 0

    @property
    def problems(self) -> list[str]:
        return [*self.duplicates, *self.losses, *self.stuck]

    def prefix(self, name: str) -> None:
        """Say of whom all this is."""
        for kind in (self.duplicates, self.losses, self.stuck):
            kind[:] = [f"{name}: {problem}" for problem in kind]

    def add(self, other: Verdict) -> None:
        self.duplicates += other.duplicates
        self.losses += other.losses
        self.stuck += other.stuck
        self.unknown += other.unknown


def of_runs(
    runs: Iterable[Mapping[str, Any]],
    submits: Iterable[Mapping[str, Any]],
    wanted: Mapping[str, int],
    required: Collection[str],
) -> Verdict:
    """Whether each run at OpenAI was wanted, once.

    `runs` are the resource's; `wanted` says how many there may be of each definition, `required` which must be there.
    """
    verdict = Verdict()
    runs = list(runs)
    chained = {submit["run"] for submit in submits}
    made = Counter(run["metadata"]["definition"] for run in runs if run["id"] not in chained or run["thread"])
    for definition, count in sorted(made.items()):
        if count > wanted.get(definition, 0):
            verdict.duplicates.append(f"definition {definition} has {count} runs, not {wanted.get(definition, 0)}")
    verdict.stuck += [f"definition {each} has no run" for each in sorted(required) if not made[each]]
    answers = Counter(call for submit in submits for call in submit["results"])
    verdict.duplicates += [f"call {call} was answered {count} times" for call, count in answers.items() if count > 1]
    return verdict


def unnamed(runs: Iterable[Mapping[str, Any]], body: Mapping[str, Any]) -> list[str]:
    """Runs that the resource does not know of."""
    ids, tokens = accounted(body)
    return [
        f"nothing names run {run['id']} of definition {run['metadata']['definition']}"
        for run in runs
        if run["id"] not in ids and run["metadata"]["openairun_token"] not in tokens
    ]


def accounted(body: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """The ids that the resource names, and the tokens of creates that it says it knows no outcome of."""
    status = body.get("status", {})
    record = json.loads(body["metadata"].get("annotations", {}).get(RECORD, "{}"))
    past = status.get("history", [])
    ids = {status.get("runID"), record.get("id"), record.get("current"), *status.get("responseIDs", [])}
    tokens = {each.get("token") for each in past if not each.get("runID")}
    if any(
        each["type"] == "CreateOutcomeUnknown" and each["status"] == "True" for each in status.get("conditions", ())
    ):
        tokens.add(record.get("token"))
    ids.update(each.get(of) for each in past for of in ("runID", "lastResponseID"))
    return {*filter(None, ids)}, {*filter(None, tokens)}


def _goes_on(run: Mapping[str, Any]) -> bool:
    # A response that asks for results is over: it goes on in another one.
    return run["status"] not in ENDED and (run["wire"], run["status"]) != ("responses", "requires_action")


def of_deletion(runs: Iterable[Mapping[str, Any]], body: Mapping[str, Any], said: Iterable[str]) -> Verdict:
    """Whether nothing goes on that nobody was told of. `said` are the events and logs of the resource's end."""
    verdict = Verdict()
    _, tokens = accounted(body)
    told = "\n".join(said)
    for run in runs:
        named = run["id"] in told or run["metadata"]["openairun_token"] in told
        if _goes_on(run) and not named and run["metadata"]["openairun_token"] not in tokens:
            verdict.losses.append(f"run {run['id']} goes on, and no event says so: {_moments(run, body)}")
    return verdict


def _moments(run: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """When the run was made, and as far as the resource's last version tells, when it was claimed and deleted."""
    made = datetime.fromtimestamp(run["created_at"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    parts = [f"made at {made} (token {run['metadata']['openairun_token']})"]
    record = json.loads(body["metadata"].get("annotations", {}).get(RECORD, "{}"))
    if record.get("submittedAt"):
        what = f"token {record.get('token')}, last seen {record.get('state')}"
        parts.append(f"claimed at {record['submittedAt']} ({what})")
    if deleted := body["metadata"].get("deletionTimestamp"):
        parts.append(f"deleted at {deleted}")
    return ", ".join(parts)
