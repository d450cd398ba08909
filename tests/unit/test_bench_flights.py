"""The bench goes on: past what takes too long, a baseline that dies, and what was left over. Nothing starts here."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cluster_client import ClusterClient, RefusedError, Watcher, removal, together
from contestants import BASELINE, OURS, Contestant
from flight import Flight, quantile
from limits import Limits, spread
from series import fly_all, still_to_fly
from world import BenchError, World, etcd_version

# Limits


def limits(count: int) -> Limits:
    interval = 5.0 if count <= 1000 else 10.0
    return Limits(count, interval, spread(count, interval))


def test_more_than_1000_runs_finish_at_half_the_rate() -> None:
    assert [spread(count, 5.0) for count in (100, 1000, 5000)] == [10, 40, 400]
    assert spread(5000, 10.0, 50) == 100


def test_a_phase_has_time_for_all_that_it_waits_for() -> None:
    for count in (20, 100, 500, 1000, 5000):
        every = limits(count)
        assert every.of_phase("delete") > every.finished_gone + every.swept + every.gone
        assert every.of_phase("finish") > every.finished > every.over
        assert every.gone > 120  # what the verdict grants


def test_ours_has_twice_what_5000_took_and_a_baseline_that_misses_all_ends_within_45_minutes() -> None:
    most, small = limits(5000), limits(1000)
    assert most.crowd > 2 * 240
    assert most.finished_gone > 2 * 80
    assert small.polls > 52
    assert small.finished_gone <= 80
    phases = ("start", "create", "hold", "finish", "restart", "delete", "lives")
    assert sum(map(small.of_phase, phases)) + small.swept < 45 * 60


def test_a_quantile_counts_those_that_were_not_seen_as_later_than_all() -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5, 4) == 3.0
    assert quantile([1.0, 2.0, 3.0], 0.5, 4) == 3.0
    assert quantile([1.0, 2.0, 3.0], 0.99, 4) is None
    assert quantile([], 0.5, 0) is None


def test_etcd_says_its_version() -> None:
    assert etcd_version("etcd Version: 3.6.13\nGit SHA: abc\n") == "3.6.13"
    assert etcd_version("something else\n") == "something else"


# A bench that goes on


def flown(operator: str, n: int, *, complete: bool = True) -> dict[str, Any]:
    return {"operator": operator, "n": n, "complete": complete}


def test_a_bench_goes_on_with_the_sizes_that_are_not_whole_and_flies_both_operators_anew() -> None:
    planned = [Alone(each, count) for count in (5, 20) for each in (OURS, BASELINE)]
    found = {
        "flights": [flown("ours", 5), flown("baseline", 5), flown("ours", 20), flown("baseline", 20, complete=False)]
    }
    left = still_to_fly(planned, found)
    assert [(each.figures["operator"], each.figures["n"]) for each in left] == [("ours", 20), ("baseline", 20)]
    assert found["flights"] == [flown("ours", 5), flown("baseline", 5)]


def test_a_baseline_that_died_is_not_asked_again() -> None:
    planned = [Alone(OURS, 20), Alone(BASELINE, 20)]
    died = flown("baseline", 20, complete=False) | {"error": "it ended with 1"}
    assert still_to_fly(planned, {"flights": [flown("ours", 20), died]}) == []
    assert (
        still_to_fly(planned, {"flights": [flown("ours", 20, complete=False) | {"error": "it ended with 1"}]})
        == planned
    )


def test_a_new_bench_flies_all() -> None:
    planned = [Alone(OURS, 20), Alone(BASELINE, 20)]
    assert still_to_fly(planned, {"flights": []}) == planned


# A flight

Phase = Callable[[dict[str, Any]], Awaitable[None]]


class Alone(Flight):
    """Without a world: each phase does what it is told."""

    def __init__(self, contestant: Contestant = OURS, count: int = 20, **phases: Phase) -> None:
        super().__init__(cast(World, None), contestant, Brief(count, 0.0, 0.0))
        self._operator = cast(Any, Running())
        self._told = phases
        for name in ("start", "create", "hold", "finish", "restart", "delete", "lives"):
            setattr(self, f"_{name}", self._phase(name))

    def _phase(self, name: str) -> Phase:
        async def phase(found: dict[str, Any]) -> None:
            found["done"] = True
            if name in self._told:
                await self._told[name](found)

        return phase

    @contextlib.asynccontextmanager
    async def _ground(self) -> AsyncIterator[None]:
        yield

    def _check(self) -> None:
        pass

    def _launch(self) -> None:
        self._operator.killed = False


class Brief(Limits):
    def of_phase(self, name: str) -> float:
        return 0.01


class Running:
    killed = False


async def hang(found: dict[str, Any]) -> None:
    await asyncio.sleep(60)


async def test_a_phase_is_broken_off_at_its_limit_and_what_it_found_stays() -> None:
    flight = Alone(hold=hang)
    kept: list[str] = []
    await flight.fly(("hold", "lives"), lambda: kept.append(json.dumps(flight.figures)))
    assert flight.figures["hold"] == {"done": True, "whole": False}
    assert flight.figures["missed"] == ["hold: broken off after 0 s"]
    assert flight.figures["lives"] == {"done": True}
    assert flight.figures["complete"]
    assert [json.loads(each).get("during") for each in kept] == ["start", "create", "hold", "lives", None]


async def test_a_phase_that_the_api_server_refuses_is_missed() -> None:
    async def refused(found: dict[str, Any]) -> None:
        raise RefusedError("429")

    flight = Alone(create=refused)
    await flight.fly(("hold",), lambda: None)
    assert flight.figures["missed"] == ["create: broken off by RefusedError('429')"]
    assert flight.figures["hold"] == {"done": True}


async def test_an_operator_that_does_not_start_ends_its_flight() -> None:
    with pytest.raises(BenchError, match="ours did not come to work"):
        await Alone(start=hang).fly((), lambda: None)


async def test_a_phase_that_was_broken_off_without_an_operator_leaves_none_missing() -> None:
    async def kill(found: dict[str, Any]) -> None:
        flight._operator.killed = True
        await asyncio.sleep(60)

    async def look(found: dict[str, Any]) -> None:
        found["killed"] = flight._operator.killed

    flight = Alone(restart=kill, delete=look)
    await flight.fly(("restart", "delete"), lambda: None)
    assert flight.figures["delete"]["killed"] is False


async def test_a_flight_that_is_stopped_keeps_what_it_found() -> None:
    there = asyncio.Event()

    async def long(found: dict[str, Any]) -> None:
        there.set()
        await asyncio.sleep(60)

    flight = Alone(finish=long)
    flight._limits = Limits(20, 5.0, 10.0)
    flying = asyncio.create_task(flight.fly(("hold", "finish"), lambda: None))
    await there.wait()
    flying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flying
    assert flight.figures["hold"] == flight.figures["finish"] == {"done": True}
    assert not flight.figures["complete"]
    assert flight.figures["during"] == "finish"


async def test_waiting_ends_at_its_limit_which_may_have_begun_before() -> None:
    flight = Alone()

    async def some() -> int:
        return 3

    async def too_many_done() -> int:
        return -1

    assert not await flight._until("cancels", 10.0, some, since=0.0)
    assert flight.figures["missed"] == ["cancels: 3 still to come after 10 s"]
    assert await flight._until("cancels", 10.0, too_many_done, since=0.0)


async def test_what_is_left_over_is_counted_by_name() -> None:
    flight = Alone()
    flight._watcher = Watcher("1")
    for name in ("one-00000", "two-00000"):
        body = {"metadata": {"name": name, "resourceVersion": "2"}}
        flight._watcher._saw({"type": "ADDED", "object": body}, 1.0)
    gone = {"metadata": {"name": "two-00000", "resourceVersion": "3"}}
    flight._watcher._saw({"type": "DELETED", "object": gone}, 7.0)
    assert await flight._ungone(["one-00000"]) == 1
    assert await flight._ungone(["two-00000"]) == 0
    assert flight._last_gone(["one-00000", "two-00000"]) == 7.0


# One after the other


class Flown:
    def __init__(self, operator: str, error: str = "") -> None:
        self.figures: dict[str, Any] = {"operator": operator}
        self.cleaned = False
        self._error = error

    async def fly(self, phases: Sequence[str], saved: Callable[[], None]) -> None:
        if self._error:
            raise BenchError(self._error)
        saved()

    async def clean_up(self) -> None:
        self.cleaned = True


async def test_a_baseline_that_dies_is_recorded_cleaned_up_and_left_behind() -> None:
    flights = [Flown("ours"), Flown(BASELINE.name, "baseline ended with 1"), Flown("ours")]
    results: dict[str, Any] = {"flights": []}
    written: list[int] = []
    await fly_all(flights, (), results, lambda: written.append(len(results["flights"])))
    assert results["flights"][1]["error"] == "baseline ended with 1"
    assert [each.cleaned for each in flights] == [True, True, False]  # the cluster goes with the last
    assert written == [1, 1, 2, 2, 3]


async def test_that_ours_dies_ends_the_bench_and_is_recorded() -> None:
    results: dict[str, Any] = {"flights": []}
    with pytest.raises(BenchError):
        await fly_all([Flown("ours", "ours ended with 1"), Flown("ours")], (), results, lambda: None)
    assert results["flights"] == [{"operator": "ours", "error": "ours ended with 1"}]


# Removing


def named(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}}


def test_an_object_is_deleted_before_it_is_freed() -> None:
    assert removal(named("a")) == ["DELETE"]
    assert removal(named("a", finalizers=["x"])) == ["DELETE", "PATCH"]
    assert removal(named("a", finalizers=["x"], deletionTimestamp="now")) == ["PATCH"]
    assert removal(named("a", deletionTimestamp="now")) == []


class Api:
    """As much of an API server as is needed; `held` are not to be had."""

    def __init__(self, names: Sequence[str], held: Sequence[str] = ()) -> None:
        self.objects = {name: named(name, finalizers=["x"]) for name in names}
        self._held = held

    async def list(self, request: web.Request) -> web.Response:
        every = list(self.objects.values())
        begin = int(request.query.get("continue", 0))
        end = begin + 2  # pages
        more = {"continue": str(end)} if end < len(every) else {}
        return web.json_response({"metadata": more, "items": every[begin:end]})

    async def change(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name in self._held:
            return web.json_response({}, status=429)
        if name not in self.objects:
            return web.json_response({}, status=404)
        metadata = self.objects[name]["metadata"]
        if request.method == "DELETE":
            metadata["deletionTimestamp"] = "now"
        else:
            assert request.content_type == "application/merge-patch+json"
            assert await request.json() == {"metadata": {"finalizers": None}}
            assert "deletionTimestamp" in metadata
            del self.objects[name]
        return web.json_response({})


@contextlib.asynccontextmanager
async def client(api: Api) -> AsyncIterator[ClusterClient]:
    path = f"/apis/{OURS.kind.api_version}/namespaces/ns/{OURS.kind.plural}"
    app = web.Application()
    app.router.add_get(path, api.list)
    app.router.add_delete(f"{path}/{{name}}", api.change)
    app.router.add_patch(f"{path}/{{name}}", api.change)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield ClusterClient(session, str(server.make_url("")).rstrip("/"), "ns", OURS.kind, False)


async def test_what_is_left_over_is_removed_whoever_holds_it() -> None:
    api = Api(["one-0", "one-1", "one-2", "two-0"])
    async with client(api) as cluster:
        assert await cluster.sweep(10, "one-") == (3, 0)
        assert list(api.objects) == ["two-0"]
        assert await cluster.sweep(10) == (1, 0)
        assert await cluster.sweep(10) == (0, 0)


async def test_removing_ends_at_its_limit_and_says_what_is_left() -> None:
    async with client(Api(["one-0", "one-1", "one-2"], held=["one-1"])) as cluster:
        assert await cluster.sweep(0.5) == (3, 1)


async def test_of_what_is_done_together_nothing_goes_on_when_one_fails() -> None:
    done: list[int] = []

    async def some(number: int) -> None:
        if number == 0:
            raise RefusedError("429")
        await asyncio.sleep(0.01)
        done.append(number)

    with pytest.raises(RefusedError):
        await together(some(number) for number in range(3))
    await asyncio.sleep(0.02)
    assert done == []
