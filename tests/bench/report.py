"""What there is to read of the figures: tables in Markdown, and the verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from figures import ROWS, Flight, at, complete, flights
from verdicts import TOLERANCE, growing, verdicts

_MIB = 1024**2


def report(results: dict[str, Any]) -> str:
    """All there is to read, as Markdown."""
    ours, baseline = flights(results, "ours"), flights(results, "baseline")
    sittings = f", the first of {results['sittings']} sittings" if "sittings" in results else ""
    parts = [
        f"On {where(results)}, commit {results['commit'][:7]}{' and changes' if results['dirty'] else ''},"
        f" {results['cores']} cores, {results['memory'] / 2**30:.0f} GiB, Python {results['python']},"
        f" kopf {results['kopf']}, openai {results['openai']}; no rate limits at OpenAI; {results['at']}{sittings}"
    ]
    for count in sorted(ours.keys() | baseline.keys()):
        pair = ours.get(count), baseline.get(count)
        interval = next(flight["interval"] for flight in pair if flight)
        spread = next((seconds for flight in pair if flight and (seconds := at(flight, "finish", "over"))), None)
        over = f"; they finish within {spread:.0f} s" if spread else ""
        parts.append(f"## N = {count:,}, polled every {interval:g} s{over}\n\n{_side_by_side(*pair)}")
    if len(ours) > 1:
        parts.append(f"## Growth\n\n{_growth_table(list(ours.values()))}")
    parts.append(f"## Who used the CPU\n\n{_processes(results['flights'])}")
    parts += [
        f"## The writes of one run: {each['operator']}\n\n{_story(each['lives'])}"
        for each in _last_lives(ours, baseline)
    ]
    missed = [f"- {_name(each)}: {what}" for each in results["flights"] for what in each["missed"]]
    parts += ["## Missed\n\n" + "\n".join(missed)] if missed else []
    stopped = [f"- {_stopped(each)}" for each in results["flights"] if not complete(each)]
    parts += ["## Not flown to the end\n\n" + "\n".join(stopped)] if stopped else []
    parts.append("## Verdicts\n\n" + "\n".join(f"- {verdict}" for verdict in verdicts(results)))
    return "\n\n".join(parts)


def where(results: dict[str, Any]) -> str:
    """The cluster, and the etcd that it has: whether lists come from the API server's cache depends on that one too."""
    etcd = results.get("etcd")
    return f"{results['cluster']}, etcd {etcd}" if etcd else str(results["cluster"])


def _name(flight: Flight) -> str:
    return f"{flight['operator']}, N={flight['n']}"


def _stopped(flight: Flight) -> str:
    error = (flight.get("error") or "").partition("\n")[0].rstrip(":")
    return f"{_name(flight)}: stopped in {flight.get('during', 'its beginning')}{': ' * bool(error)}{error}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    every = [head, ("---", *("---:",) * (len(head) - 1)), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in every)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _side_by_side(ours: Flight | None, baseline: Flight | None) -> str:
    def lines() -> Iterator[tuple[str, ...]]:
        for row in ROWS:
            mine, theirs = (row.figure(flight) if flight else None for flight in (ours, baseline))
            ratio = f"{theirs / mine:.1f}" if mine and theirs and mine > 0 and theirs > 0 else ""
            yield row.title, row.unit, _number(mine, row.digits), _number(theirs, row.digits), ratio

    return _table(("", "unit", "ours", "baseline", "baseline / ours"), lines())


def _growth_table(every: list[Flight]) -> str:
    def lines() -> Iterator[tuple[str, ...]]:
        for row, exponent in growing(every):
            values = (_number(row.figure(flight), row.digits) for flight in every)
            power = "" if exponent is None or math.isinf(exponent) else f"{1 + exponent:.2f}"
            word = "" if exponent is None else "yes" if exponent <= TOLERANCE else "NO"
            yield f"{row.title}, {row.unit}", *values, power, word

    said = (
        "The total of a row grows as N to the power that is shown, from the smallest N to the largest; linear is 1, and"
        f" up to {1 + TOLERANCE} counts as linear. Delays are taken in polling intervals; memory of less"
        " than 1 MiB in all counts as 1 MiB, by which Python's grows."
    )
    head = ("", *(f"N = {flight['n']:,}" for flight in every), "power", "linear or better")
    return f"{said}\n\n{_table(head, lines())}"


def _processes(every: list[Flight]) -> str:
    windows = [
        (f"{_name(flight)}, {phase}", flight[phase]["window"])
        for flight in every
        for phase in ("start", "create", "hold", "finish", "restart", "delete", "lives")
        if "window" in flight.get(phase, {})
    ]
    names = list(dict.fromkeys(name for _, window in windows for name in window["cpu_s"]))

    def cell(window: dict[str, Any], name: str) -> str:
        spent = window["cpu_s"].get(name)
        return "" if spent is None else f"{100 * spent / window['seconds']:.0f} %, {window['rss'][name] / _MIB:.0f}"

    def others(window: dict[str, Any]) -> str:
        return f"{100 * window.get('others_cpu_s', 0) / window['seconds']:.0f} %"

    def machine(window: dict[str, Any]) -> str:
        return _number(window.get("yardstick_ms"), 2)

    lines = [
        (title, f"{window['seconds']:.0f}", *(cell(window, name) for name in names), others(window), machine(window))
        for title, window in windows
    ]
    said = "Per cent of one core on average, and MiB of RSS at the end. What others took on the machine, these lacked."
    said += " At the end: milliseconds for one piece of work, always the same, which say how fast the machine was."
    return f"{said}\n\n{_table(('phase', 's', *names, 'others', 'ms'), lines)}"


def _last_lives(*every: dict[int, Flight]) -> Iterator[Flight]:
    for found in every:
        yield from [flight for flight in found.values() if "one" in flight.get("lives", {})][-1:]


def _story(lives: dict[str, Any]) -> str:
    lines = [(str(number), f"{at:.2f}", ", ".join(said)) for number, (at, said) in enumerate(lives["one"], 1)]
    every = ", ".join(f"{count / lives['count']:.2f} of {kind}" for kind, count in lives["writes"].items())
    events = ", ".join(f"{count / lives['count']:.2f} {reason}" for reason, count in lives["events"].items())
    asked = ", ".join(f"{count / lives['count']:.2f} {kind}" for kind, count in lives["window"]["openai"].items())
    about = f"On average: writes that changed something: {every}. Events: {events}. Requests to OpenAI: {asked}."
    return f"{about}\n\n{_table(('write', 'after s', 'what changed'), lines)}"
