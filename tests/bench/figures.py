"""What a flight's raw figures say: a row for each thing that is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Flight = dict[str, Any]
"""`Flight.figures`, perhaps by way of a JSON file. Of one that was stopped phases are missing, or parts of them."""
Figure = Callable[[Flight], float | None]

_KIB, _MIB = 1024, 1024**2
_ARENA = 1024.0
"""KiB by which Python's memory grows: less than one more of these cannot be seen."""


@dataclass(frozen=True)
class Row:
    """A figure that is shown for each N. `grows`: what it is divided by before its growth is judged."""

    title: str
    unit: str
    figure: Figure
    digits: int = 2
    grows: Literal["", "a run", "with N", "interval"] = ""
    least: float = 0.0
    """The smallest total that can be seen, in units of the row."""

    def scaled(self, flight: Flight) -> float | None:
        """What stays the same while costs grow in a linear way."""
        value, n = self.figure(flight), flight["n"]
        if value is None:
            return None
        if self.grows == "with N":
            return max(value, self.least) / n
        return max(value, self.least / n) / (flight["interval"] if self.grows == "interval" else 1)


def at(flight: Flight, *path: str) -> float | None:
    value: Any = flight
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


def _figure(*path: str) -> Figure:
    return lambda flight: at(flight, *path)


def complete(flight: Flight) -> bool:
    """Whether it came to its end."""
    return bool(flight.get("complete", True))


def whole(flight: Flight, phase: str) -> bool:
    """Whether all runs got as far as the phase should bring them: else it has no figure that is a sum of theirs."""
    return bool(flight.get(phase, {}).get("whole", True))


def _over(value: float | None, by: float | None, times: float = 1.0) -> float | None:
    return None if value is None or not by else times * value / by


def _cpu(phase: str) -> Figure:
    """Milliseconds of CPU a run."""

    def figure(flight: Flight) -> float | None:
        spent = at(flight, phase, "window", "cpu_s", "operator")
        return _over(spent, flight["n"], 1000) if whole(flight, phase) else None

    return figure


def _cpu_of_api(phase: str) -> Figure:
    """The same of the API server, with its etcd."""

    def figure(flight: Flight) -> float | None:
        server, etcd = (at(flight, phase, "window", "cpu_s", name) for name in ("kube-apiserver", "etcd"))
        if server is None or etcd is None or not whole(flight, phase):
            return None
        return 1000 * (server + etcd) / (at(flight, phase, "count") or flight["n"])

    return figure


def cpu_a_poll(flight: Flight) -> float | None:
    window = ("hold", "window")
    return _over(at(flight, *window, "cpu_s", "operator"), at(flight, *window, "openai", "retrieve"), 1000)


def _cpu_to_cancel(flight: Flight) -> float | None:
    """Milliseconds a run. The others are polled meanwhile, the longer the more there are: that is not counted."""
    polls, poll = at(flight, "delete", "window", "openai", "retrieve"), cpu_a_poll(flight)
    spent = _cpu("delete")(flight)
    if spent is None or poll is None:
        return None
    return spent - poll * (polls or 0) / int(flight["n"])


def _memory(after: str, *path: str) -> Figure:
    """KiB a run, beyond what the operator had at its start, if the phase `after` brought N there."""

    def figure(flight: Flight) -> float | None:
        now, base = at(flight, *path), at(flight, "start", "window", "rss", "operator")
        if now is None or base is None or not whole(flight, after):
            return None
        return (now - base) / int(flight["n"]) / _KIB

    return figure


rss_in_flight = _memory("create", "hold", "window", "rss", "operator")
_rss_finished = _memory("finish", "finish", "window", "rss", "operator")


def _found_in_flight(flight: Flight) -> float | None:
    """KiB a run, of a process that found N in flight and N finished, beyond one that found those alone."""
    both, finished = at(flight, "restart", "rss", "operator"), at(flight, "restart", "rss_finished")
    if both is None or finished is None or not whole(flight["restart"], "second_crowd"):
        return None
    return (both - finished) / int(flight["n"]) / _KIB


def _beyond(phase: str, *path: str) -> Figure:
    """MiB beyond what the operator had at its start, once all were deleted: in `again` also N more."""

    def figure(flight: Flight) -> float | None:
        now, base = at(flight, phase, *path), at(flight, "start", "window", "rss", "operator")
        done = whole(flight, "delete") and (phase != "again" or _again_whole(flight))
        return (now - base) / _MIB if done and now is not None and base is not None else None

    return figure


def grown(flight: Flight) -> float | None:
    """MiB by which RSS was more after N others than after the first."""
    first, then = _beyond("delete", "rss", "operator")(flight), _beyond("again", "rss", "operator")(flight)
    return None if first is None or then is None else then - first


def _again_whole(flight: Flight) -> bool:
    return whole(flight, "again") and whole(flight.get("again", {}), "crowd")


def patches(requests: dict[str, int] | None, of: str = "") -> int | None:
    """How many there are, refused ones too: of the `object`, of its `status`, or of both."""
    if requests is None:
        return None
    return sum(
        count
        for name, count in requests.items()
        if name.startswith("PATCH") and (not of or ("/status" in name) is (of == "status"))
    )


def _lives(flight: Flight) -> dict[str, Any]:
    """What was found of whole lives; nothing, if some were not whole, or it was stopped before all were."""
    lives: dict[str, Any] = flight.get("lives", {})
    return lives if "window" in lives and whole(flight, "lives") else {}


def patches_a_life(of: str = "") -> Figure:
    def figure(flight: Flight) -> float | None:
        lives = _lives(flight)
        return _over(patches(lives.get("window", {}).get("api"), of), lives.get("count"))

    return figure


def _patches_a_minute(flight: Flight) -> float | None:
    window = flight.get("hold", {}).get("window", {})
    return _over(patches(window.get("api")), flight["n"] * window.get("seconds", 0), 60)


def events_a_life(flight: Flight) -> float | None:
    lives = _lives(flight)
    return _over(sum(lives["events"].values()), lives["count"]) if lives else None


def _events_by_then(flight: Flight) -> float | None:
    api = flight.get("create", {}).get("window", {}).get("api")
    return None if api is None else 100 * api.get("POST events", 0) / flight["n"]


def _requests_a_life(flight: Flight) -> float | None:
    lives = _lives(flight)
    return _over(sum(lives["window"]["openai"].values()), lives["count"]) if lives else None


def patches_after_restart(flight: Flight) -> float | None:
    return patches(flight.get("restart", {}).get("api"))


def _windows(flight: Flight) -> Iterator[dict[str, Any]]:
    """All in which something is measured."""
    phases = (flight.get(phase, {}) for phase in ("create", "hold", "finish", "restart", "delete", "lives"))
    crowds = flight.get("restart", {}).get("second_crowd", {}), flight.get("again", {}).get("crowd", {})
    for phase in (*phases, *crowds):
        if "window" in phase:
            yield phase["window"]


def _of_the_machine(what: Callable[[dict[str, Any]], float | None]) -> Figure:
    """On average over all that was measured."""

    def figure(flight: Flight) -> float | None:
        every = [(what(window), window["seconds"]) for window in _windows(flight)]
        found = [(value, seconds) for value, seconds in every if value is not None]
        return _over(sum(value * seconds for value, seconds in found), sum(seconds for _, seconds in found))

    return figure


def _stolen(window: dict[str, Any]) -> float | None:
    """Per cent of one core."""
    return _over(window.get("stolen_s"), window["seconds"], 100)


ROWS = (
    Row("the machine: CPU for one piece of work, always the same", "ms",
        _of_the_machine(lambda window: window.get("yardstick_ms"))),
    Row("the machine: what its host gave to others, of one core", "%", _of_the_machine(_stolen), 0),
    Row("CPU a poll", "ms", cpu_a_poll, grows="a run"),
    Row("CPU a whole short life, deletion included", "ms", lambda f: at(_lives(f), "cpu_ms"), 1),
    Row("CPU to create N, first polls included", "ms a run", _cpu("create"), 1, "a run"),
    Row("CPU to cancel and release N, without polls", "ms a run", _cpu_to_cancel, 1, "a run"),
    Row("API server and etcd: CPU a whole short life", "ms", _cpu_of_api("lives"), 1),
    Row("API server and etcd: CPU to create N", "ms a run", _cpu_of_api("create"), 1, "a run"),
    Row("API server and etcd: CPU while N finish", "ms a run", _cpu_of_api("finish"), 1, "a run"),
    Row("API server and etcd: CPU to delete N running", "ms a run", _cpu_of_api("delete"), 1, "a run"),
    Row("RSS at the start", "MiB", lambda f: _over(at(f, "start", "window", "rss", "operator"), _MIB), 1),
    Row("RSS a run in flight", "KiB", rss_in_flight, 1, "a run", _ARENA),
    Row("RSS a finished run that is listed", "KiB", _rss_finished, 1, "a run", _ARENA),
    Row("RSS a run in flight, after a restart", "KiB", _found_in_flight, 1, "a run", _ARENA),
    Row("RSS a finished run, after a restart", "KiB", _memory("finish", "restart", "rss_finished"), 1, "a run",
        _ARENA),
    Row("RSS when all were deleted, beyond that at the start", "MiB", _beyond("delete", "rss", "operator"), 1,
        "with N", _ARENA / 1024),
    Row("RSS when their Events were posted too, beyond that at the start", "MiB", _beyond("lives", "rss", "operator"),
        1, "with N", _ARENA / 1024),
    Row("RSS when N more were deleted, beyond that at the start", "MiB", _beyond("again", "rss", "operator"), 1,
        "with N", _ARENA / 1024),
    Row("RSS at most since the restart, beyond that at the start", "MiB", _beyond("again", "most_rss"), 1, "with N",
        _ARENA / 1024),
    Row("PATCHes a whole life", "", patches_a_life(), 1),
    Row("PATCHes of the object a whole life", "", patches_a_life("object"), 1),
    Row("PATCHes of its status a whole life", "", patches_a_life("status"), 1),
    Row("Events a whole life", "", events_a_life, 1),
    Row("requests to OpenAI a whole life", "", _requests_a_life, 1),
    Row("PATCHes a minute for a run in flight", "", _patches_a_minute, 1),
    Row("polls made of those wanted", "%", lambda f: _over(
        at(f, "hold", "window", "openai", "retrieve"), at(f, "hold", "wanted_polls"), 100), 0),
    Row("delay until the status says finished, median", "s", _figure("finish", "median"), grows="interval"),
    Row("delay until the status says finished, p99", "s", _figure("finish", "p99"), grows="interval"),
    Row("delay of runs of 1 to 10 s, median", "s", _figure("lives", "median")),
    Row("delay of runs of 1 to 10 s, p99", "s", _figure("lives", "p99")),
    Row("create N: until all show their run", "s", _figure("create", "took"), 1, "with N"),
    Row("create N: Events that are posted by then, of N", "%", _events_by_then, 0),
    Row("restart: until the first is polled", "s", _figure("restart", "first"), 1, "with N"),
    Row("restart: until all are polled", "s", _figure("restart", "took"), 1, "with N"),
    Row("restart: created meanwhile", "", _figure("restart", "created"), 0),
    Row("restart: PATCHes until 15 s after", "", patches_after_restart, 0),
    Row("delete N running: until all are cancelled", "s", _figure("delete", "took"), 1, "with N"),
    Row("delete N running: until all have gone", "s", _figure("delete", "gone"), 1, "with N"),
    Row("delete N running: kubectl itself", "s", _figure("delete", "command"), 1),
)  # fmt: skip
"""Every figure, in the table's order."""


def flights(results: dict[str, Any], operator: str) -> dict[int, Flight]:
    """An operator's flights by N, the smallest first."""
    return {
        each["n"]: each
        for each in sorted(results["flights"], key=lambda f: int(f["n"]))
        if each["operator"] == operator
    }
