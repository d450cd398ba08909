"""What a user may do with a run, from its creation to its end. Each must come to its end whenever the operator dies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from life import Life

BOTH = ("Responses", "Assistants")


@dataclass(frozen=True)
class Scenario:
    """`act` does what the user does. `runs` are to be at OpenAI afterwards, by their definition."""

    name: str
    act: Callable[[Life], None]
    runs: Mapping[str, int] = field(default_factory=lambda: {"1": 1})
    apis: tuple[str, ...] = BOTH


def create(life: Life) -> None:
    life.apply("complete", outputTo={"configMap": life.name})
    life.wait(life.is_settled, "settled")


def replace(life: Life) -> None:
    life.apply("slow_cancel")
    life.wait(life.is_going, "going")
    life.define("complete")
    life.wait(life.is_settled, "settled")


def submit(life: Life) -> None:
    life.apply("requires_action")
    life.wait(life.asks, "asking")
    calls = life.status.get("requiredAction", {}).get("toolCalls", [])
    if calls:
        life.patch(toolOutputs=[{"toolCallID": call["id"], "output": "4"} for call in calls])
    life.wait(life.is_settled, "settled")


def cancel(life: Life) -> None:
    life.apply("slow_cancel")
    life.wait(life.is_going, "going")
    life.patch(cancel=True)
    life.wait(life.is_settled, "settled")


def deadline(life: Life) -> None:
    life.apply("never", timeout="2s")
    life.wait(life.is_settled, "settled")


def ttl(life: Life) -> None:
    life.apply("complete", ttlAfterFinished="1s")
    life.wait(lambda: life.unknown, "gone, or stopped")


def delete(life: Life) -> None:
    life.apply("slow_cancel")
    life.wait(life.is_going, "going")
    life.delete()
    life.wait_gone()


SCENARIOS = (
    Scenario("create", create),
    Scenario("replace", replace, runs={"1": 1, "2": 1}),
    Scenario("submit", submit),
    Scenario("cancel", cancel),
    Scenario("deadline", deadline),
    Scenario("expire", ttl),
    Scenario("delete", delete),
)
