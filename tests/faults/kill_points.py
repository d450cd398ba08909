"""Kills the operator at every step of every scenario, and judges what came of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from gate import Point, Step
from ground import Ground
from life import Life
from scenarios import Scenario
from verdict import Verdict

from openairun_devkit.api_proxy import Moment

_LOOKS = 3
"""How many looks at a run are steps of their own: one more is like the last."""
_CREATE = "POST responses"
_RECORD = "PATCH openairuns"
_EVENT = "POST events"


@dataclass(frozen=True)
class Trial:
    """A scenario, on an API, with the point at which the operator is killed; None: it is not.

    `unknown`: whether the operator may then say that it does not know what came of a create.
    """

    scenario: Scenario
    api: str
    point: Point | None = None
    unknown: bool = False

    def __str__(self) -> str:
        return f"{self.scenario.name} over {self.api}" + (f", killed at {self.point}" if self.point else "")


@dataclass
class Outcome:
    """What came of a trial, whose point was `reached` or not; `steps` are all that the operator asked for."""

    verdict: Verdict
    reached: bool
    steps: list[Step]


def trials(scenario: Scenario, api: str, steps: Sequence[Step]) -> Iterator[Trial]:
    """Every trial there is, for the steps of a life that was left in peace."""
    for number, step in enumerate(steps):
        if step.what.startswith("GET ") and step.nth > _LOOKS:
            continue
        for moment in get_args(Moment):
            yield Trial(scenario, api, Point(step, moment), _may_be_unknown(steps, number, moment))


def _may_be_unknown(steps: Sequence[Step], number: int, moment: Moment) -> bool:
    """Whether an operator killed there may have sent a create of which nothing tells: there is no search for it."""
    for create, step in enumerate(steps):
        if step.what != _CREATE:
            continue
        if steps[number].what == _EVENT:
            return True  # events are posted beside all else: a create may be under way
        claim = max((n for n in range(create) if steps[n].what == _RECORD), default=-1)
        record = min((n for n in range(create, len(steps)) if steps[n].what == _RECORD), default=len(steps))
        after_claim = number > claim or (number == claim and moment != "before")
        before_record = number < record or (number == record and moment == "before")
        if after_claim and before_record:
            return True
    return False


def attempt(ground: Ground, trial: Trial) -> Outcome:
    """Live through the trial on this ground; an operator is there for the next one afterwards."""
    life, found = Life(ground, trial.api), Verdict()
    ground.gate.arm(trial.point)
    with _killer(ground) as killed:
        try:
            trial.scenario.act(life)
            found = life.judge(trial.scenario.runs, () if trial.unknown else trial.scenario.runs)
            if found.unknown and not trial.unknown:
                found.stuck.append("a create is called unknown that cannot be")
            if not life.gone:
                life.delete()
                life.wait_gone()
            found.add(life.judge_the_end())
        except AssertionError as error:
            found.stuck.append(str(error))
    return Outcome(found, killed.is_set(), ground.gate.steps)


@contextlib.contextmanager
def _killer(ground: Ground) -> Iterator[threading.Event]:
    """Kill the operator when it comes to its point, and start another. The event says whether that happened."""
    over, killed = threading.Event(), threading.Event()

    def kill() -> None:
        while not over.is_set():
            if ground.gate.wait_reached(0.1):
                ground.kill()
                killed.set()
                return

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
        ground.gate.open()
