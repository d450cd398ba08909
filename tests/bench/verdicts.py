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
    at,
    complete,
    cpu_a_poll,
    events_a_life,
    flights,
    grown,
    patches,
    patches_a_life,
    patches_after_restart,
    rss_in_flight,
    whole,
)

TOLERANCE = 0.05
"""By how much the exponent of a growth may exceed that of a linear one: from 100 to 5,000 that is a fifth."""
_SHORT_MEDIAN = 2.0
_LATE = 1.0
_CANCELLED = 120.0
_CAUGHT_UP = 15.0
_GROWN = 4.0
"""MiB that the first creates of a process take, however many there are: the crowd before was found, not created."""
_GROWN_A_RUN = 0.5 / 1024
"""What was taken and is free may lie in pieces that are too small, but what is kept of a run is more."""


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
    for count in sorted(ours.keys() & baseline.keys()):
        found += _of_both(ours[count], baseline[count])
    if len(ours) > 1:
        for row, exponent in growing(list(ours.values())):
            power = "no figure" if exponent is None else f"N to the power {1 + exponent:.2f}"
            met = None if exponent is None else exponent <= TOLERANCE
            found.append(Verdict(f"linear or better: {row.title}", power, met))
    return found


def _of_one(flight: Flight) -> Iterator[Verdict]:
    count, interval, missed = flight["n"], flight["interval"], flight["missed"]

    def at_most(phase: str, what: str, value: float | None, bound: float, unit: str = "") -> Iterator[Verdict]:
        """If the phase was flown. A time that it has no figure for because it missed its deadline was too long."""
        if phase in flight:
            measured, met = "no figure", None if whole(flight, phase) or not unit else False
            if value is not None:
                measured, met = f"{value:.4g}{unit}", value <= bound
            yield Verdict(f"N={count}: {what} <= {bound:g}{unit}", measured, met)

    kept = False if missed else True if complete(flight) else None
    yield Verdict(f"N={count}: all deadlines of the bench kept", f"{len(missed)} missed", kept)
    held = flight.get("hold", {}).get("window", {}).get("api")
    yield from at_most("hold", "PATCHes while nothing changes", patches(held), 0)
    yield from at_most("finish", "delay, p99", at(flight, "finish", "p99"), interval + _LATE, " s")
    yield from at_most("restart", "restart: all polled again", at(flight, "restart", "took"), _CAUGHT_UP, " s")
    yield from at_most("restart", "restart: created", at(flight, "restart", "created"), 0)
    yield from at_most("restart", "restart: PATCHes", patches_after_restart(flight), 0)
    yield from at_most("restart", "restart: polls of finished runs", at(flight, "restart", "idle_polls"), 0)
    yield from at_most("delete", "all cancelled", at(flight, "delete", "took"), _CANCELLED, " s")
    yield from at_most("lives", "PATCHes a life, on average", patches_a_life()(flight), 7)
    yield from at_most("lives", "Events a life, on average", events_a_life(flight), 4)
    yield from at_most("lives", "delay of short runs, median", at(flight, "lives", "median"), _SHORT_MEDIAN, " s")
    most = _GROWN + _GROWN_A_RUN * count
    yield from at_most("again", "RSS that N more took beyond the first", grown(flight), round(most, 1), " MiB")


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
    """The rows that are judged, and the exponent beyond linear growth from the smallest to the largest N.

    A flight that was stopped before it came to a row's figure does not count for that row; one that missed it does.
    """
    for row in ROWS:
        if row.grows:
            came = [flight for flight in every if complete(flight) or row.scaled(flight) is not None]
            if len(came) < 2:
                yield row, None
                continue
            first, last = came[0], came[-1]
            small, large = row.scaled(first), row.scaled(last)
            measured = small is not None and large is not None
            # What is nothing at the larger N has not grown; from nothing no exponent can be said.
            if measured and large is not None and large <= 0:
                yield row, -math.inf
            elif small is None or large is None or small <= 0:
                yield row, None
            else:
                yield row, math.log(large / small) / math.log(last["n"] / first["n"])
