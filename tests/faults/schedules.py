"""Random lives under random faults: users, both servers, networks and kills, at moments that a seed tells."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

from ground import Ground
from life import Life
from scenarios import BOTH
from verdict import Verdict

LIVES = 5
LASTS = 6.0
"""Seconds for which users act and things go wrong, before all is mended."""
_ENDING = ("complete", "complete", "fail", "incomplete", "in_progress:3,completed")
_STAYING = ("slow_cancel", "never", "requires_action")

Happening = Callable[[], None]


class Schedule:
    """What users do on one ground, and what goes wrong meanwhile."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self._ground = ground
        self._random = random.Random(seed)
        self._lives = [_Random(Life(ground, self._random.choice(BOTH)), self._random) for _ in range(LIVES)]
        self.story: list[str] = []
        """What happened, for a person."""

    def play(self) -> Verdict:
        """Play it, mend everything, and see that each resource comes to its end."""
        began = time.monotonic()
        for at, name, happening in self._plan():
            time.sleep(max(0.0, began + at - time.monotonic()))
            self.story.append(f"{at:.1f} s: {name}")
            happening()
        self._mend()
        found = Verdict()
        for each in self._lives:
            try:
                found.add(each.see_it_rest())
            except AssertionError as error:
                found.stuck.append(str(error))
        for each in self._lives:
            try:
                found.add(each.see_it_end())
            except AssertionError as error:
                found.stuck.append(str(error))
        return found

    def _plan(self) -> list[tuple[float, str, Happening]]:
        rng = self._random
        plan: list[tuple[float, str, Happening]] = []
        for each in self._lives:
            start = rng.uniform(0, LASTS / 2)
            plan.append((start, f"{each.life.name} is applied", each.apply))
            for _ in range(rng.randint(0, 4)):
                name, act = rng.choice(each.verbs())
                plan.append((rng.uniform(start, LASTS), f"{each.life.name}: {name}", act))
        for _ in range(rng.randint(2, 10)):
            name, happening = self._fault()
            plan.append((rng.uniform(0, LASTS), name, happening))
        for _ in range(rng.randint(0, 2)):
            plan.append((rng.uniform(0, LASTS), "the operator is killed", self._ground.kill))
        return sorted(plan, key=lambda each: each[0])

    def _fault(self) -> tuple[str, Happening]:
        """Something that goes wrong, from now on and for some requests."""
        rng, ground = self._random, self._ground
        method, times = rng.choice(("POST", "GET", "*")), rng.randint(1, 3)
        if rng.random() < 0.5:
            wrong = rng.choice(
                [
                    {"status": 429, "headers": {"Retry-After": "1"}},
                    {"status": 500},
                    {"status": 503},
                    {"status": 502, "body": "<html>Bad Gateway</html>", "content_type": "text/html"},
                    {"body": "{", "process": True},
                    {"delay": 4.0},
                    {"close": "before"},
                    {"close": "after"},
                ]
            )
            name = f"OpenAI: {method} {wrong}, {times} times"
            return name, partial(ground.openai.fault, f"{method} /v1/", times=times, **wrong)  # type: ignore[return-value]
        method, proxy = rng.choice(("PATCH", "POST", "*")), ground.api_proxy
        match rng.choice(("fail", "fail", "refuse", "before", "after", "stall", "flow", "watches")):
            case "fail":
                status = rng.choice((403, 409, 429, 500, 503))
                return f"API server: {method} {status}, {times} times", partial(proxy.fail, method, ".*", status, times)
            case "refuse":
                return "API server: a status is refused", partial(proxy.fail, "PATCH", "/status$", 422, times)
            case "before" | "after" as when:
                return f"API server: {method} cut {when}, {times} times", partial(proxy.cut, method, ".*", when, times)
            case "stall":
                return "API server: watches stall", partial(proxy.stall_watches, True)
            case "flow":
                return "API server: watches flow", partial(proxy.stall_watches, False)
            case _:
                return "API server: watches are cut", proxy.cut_watches

    def _mend(self) -> None:
        self._ground.openai.heal()
        self._ground.api_proxy.heal()


class _Random:
    """A life without a plan."""

    def __init__(self, life: Life, rng: random.Random) -> None:
        self.life = life
        self._random = rng
        self._script = ""
        self._cancelled = False

    def apply(self) -> None:
        self.life.apply(self._next_script(), timeout="10m")

    def verbs(self) -> list[tuple[str, Happening]]:
        verbs = [self._define, self._define, self._answer, self._suspend, self._cancel, self._delete]
        return [(verb.__name__.strip("_"), partial(self._if_there, verb)) for verb in verbs]

    def _if_there(self, verb: Happening) -> None:
        self.life.look()
        if not self.life.gone and "deletionTimestamp" not in self.life.seen["metadata"]:
            verb()

    def _define(self) -> None:
        self.life.define(self._next_script())

    def _answer(self) -> None:
        calls = self.life.status.get("requiredAction", {}).get("toolCalls", [])
        if calls:
            self.life.patch(toolOutputs=[{"toolCallID": call["id"], "output": "4"} for call in calls])
            self._script = "complete"

    def _suspend(self) -> None:
        self.life.patch(suspend=True)

    def _cancel(self) -> None:
        self._cancelled = True
        self.life.patch(cancel=True)

    def _delete(self) -> None:
        self.life.delete()

    def _next_script(self) -> str:
        self._script = self._random.choice(_ENDING + _STAYING)
        return self._script

    def see_it_rest(self) -> Verdict:
        """All is well again: it comes to rest, by itself or because its user ends it."""
        life = self.life
        life.look()
        if "deletionTimestamp" in life.seen["metadata"]:
            life.wait_gone()
        elif not life.gone:
            life.patch(suspend=None)
            if self._script in _STAYING and not self._cancelled:
                life.wait(lambda: life.is_going() or life.asks(), "going")
                self._cancel()
            life.wait(life.is_settled, "settled")
        once_each = {str(number + 1): 1 for number in range(life.definitions)}
        return life.judge(once_each, () if self._cancelled else (str(life.definitions),))

    def see_it_end(self) -> Verdict:
        life = self.life
        if not life.gone:
            life.delete()
            life.wait_gone()
        return life.judge_the_end()
