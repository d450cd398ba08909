"""What must hold, and whether it does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from figures import (
    ROWS,
    Flight,
    Row,
    cpu_a_poll,
    events_a_life,
    flights,
    patches,
    patches_a_life,
    patches_after_restart,
    rss_in_flight,
)

TOLERANCE = 0.05
"""By how much the exponent of a growth may exceed that of a linear one: from 100 to 5,000 that is a fifth."""
_SHORT_MEDIAN = 2.0
_LATE = 1.0
_CANCELLED = 120.0
_CAUGHT_UP = 15.0


@dataclass(frozen=True)
class Verdict:
    """Whether something holds that must; None: it was not measured."""

    what: str
    measured: str
    met: bool | None

    def __str__(self) -> str:
        word = {True: "met", False: "NOT MET", None: "not measured"}[self.met]
        return f"{word}: {self.what}: {self.measured}"


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """Everything that must hold, at each N that was measured."""
    ours, baseline = flights(results, "ours"), flights(results, "baseline")
    found = [verdict for flight in ours.values() for verdict in _of_one(flight)]
    for count in ours.keys() & baseline.keys():
        found += _of_both(ours[count], baseline[count])
    if len(ours) > 1:
        for row, exponent in growing(list(ours.values())):
            power = "no figure" if exponent is None else f"N to the power {1 + exponent:.2f}"
            met = None if exponent is None else exponent <= TOLERANCE
            found.append(Verdict(f"linear or better: {row.title}", power, met))
    return found


def _of_one(flight: Flight) -> Iterator[Verdict]:
    count, interval = flight["n"], flight["interval"]

    def at_most(what: str, value: float | None, bound: float, unit: str = "") -> Verdict:
        measured = "no figure" if value is None else f"{value:.4g}{unit}"
        return Verdict(f"N={count}: {what} <= {bound:g}{unit}", measured, None if value is None else value <= bound)

    yield Verdict(
        f"N={count}: all deadlines of the bench kept", f"{len(flight['missed'])} missed", not flight["missed"]
    )
    if "hold" in flight:
        yield at_most("PATCHes while nothing changes", patches(flight["hold"]["window"].get("api")), 0)
    if "finish" in flight:
        yield at_most("delay, p99", flight["finish"]["p99"], interval + _LATE, " s")
    if "restart" in flight:
        yield at_most("restart: all polled again", flight["restart"]["took"], _CAUGHT_UP, " s")
        yield at_most("restart: created", flight["restart"]["created"], 0)
        yield at_most("restart: PATCHes", patches_after_restart(flight), 0)
        yield at_most("restart: polls of finished runs", flight["restart"]["idle_polls"], 0)
    if "delete" in flight:
        yield at_most("all cancelled", flight["delete"]["took"], _CANCELLED, " s")
    if "lives" in flight:
        yield at_most("PATCHes a life", patches_a_life()(flight), 7)
        yield at_most("Events a life", events_a_life(flight), 4)
        yield at_most("delay of short runs, median", flight["lives"]["median"], _SHORT_MEDIAN, " s")


def _of_both(ours: Flight, baseline: Flight) -> Iterator[Verdict]:
    bounds = (("CPU a poll", cpu_a_poll, 3), ("RSS a run in flight", rss_in_flight, 4))
    for what, figure, least in bounds:
        mine, theirs = figure(ours), figure(baseline)
        known = mine is not None and theirs is not None and mine > 0
        ratio = theirs / mine if known and mine and theirs else None
        measured = "no figure" if ratio is None else f"1/{ratio:.1f}"
        yield Verdict(
            f"N={ours['n']}: {what} <= 1/{least} of the baseline's", measured, None if ratio is None else ratio >= least
        )


def growing(every: list[Flight]) -> Iterator[tuple[Row, float | None]]:
    """The rows that are judged, and the exponent beyond linear growth from the smallest to the largest N."""
    first, last = every[0], every[-1]
    for row in ROWS:
        if row.grows:
            small, large = row.scaled(first), row.scaled(last)
            measured = small is not None and large is not None
            # What is nothing at the larger N has not grown; from nothing no exponent can be said.
            if measured and large is not None and large <= 0:
                yield row, -math.inf
            elif small is None or large is None or small <= 0:
                yield row, None
            else:
                yield row, math.log(large / small) / math.log(last["n"] / first["n"])
