"""The Lease: one holder at a time, by clocks that only go forward, and none while it cannot be renewed."""

from __future__ import annotations

import asyncio
import copy
from typing import Any, cast

import pytest

from openairun_operator.kube.cluster import Body, Cluster, ClusterError, ConflictError, GoneError
from openairun_operator.kube.lease import DURATION, Lease


class Leases:
    """An API server with one Lease, and the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.there: Body | None = None
        self.version = 0
        self.away = False
        self.writes = 0

    async def read_lease(self, namespace: str, name: str) -> Body:
        self._reach()
        if self.there is None:
            raise GoneError("read", 404, "not found")
        return copy.deepcopy(self.there)

    async def create_lease(self, body: Body) -> Body:
        self._reach()
        if self.there is not None:
            raise ConflictError("create", 409, "there is one")
        return self._put(body)

    async def replace_lease(self, body: Body) -> Body:
        self._reach()
        if self.there is None or body["metadata"]["resourceVersion"] != self.there["metadata"]["resourceVersion"]:
            raise ConflictError("renew", 409, "changed")
        return self._put(body)

    def _reach(self) -> None:
        if self.away:
            raise ClusterError("reach", None, "away")

    def _put(self, body: Body) -> Body:
        self.version += 1
        self.writes += 1
        self.there = copy.deepcopy(body)
        self.there["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.there)

    def lease(self, holder: str) -> Lease:
        return Lease(cast(Cluster, self), "system", "operator", holder, clock=lambda: self.now, period=0.0)

    @property
    def holder(self) -> Any:
        return self.there and self.there["spec"]["holderIdentity"]


@pytest.fixture
def leases() -> Leases:
    return Leases()


async def tries(lease: Lease) -> bool:
    return await lease._try()


async def test_the_first_takes_it_and_the_second_waits(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    assert not one.held()
    await one.acquire()
    assert one.held()
    assert not await tries(two)
    assert (two.held(), leases.holder) == (False, "one")


async def test_a_holder_that_renews_keeps_it_and_does_not_move_its_beginning(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    assert leases.there
    began = leases.there["spec"]["acquireTime"]
    for _ in range(20):
        leases.now += 3
        assert await tries(one)
        assert not await tries(two)
    assert leases.there["spec"]["acquireTime"] == began
    assert leases.there["spec"]["leaseTransitions"] == 0


async def test_one_that_died_is_followed_after_the_duration_as_the_other_saw_it(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    leases.now += 100  # however old it is: the clock of the one that died may have been wrong
    assert not await tries(two)
    leases.now += DURATION - 0.1
    assert not await tries(two)
    leases.now += 0.2
    assert await tries(two)
    assert (leases.holder, two.held()) == ("two", True)
    assert leases.there
    assert leases.there["spec"]["leaseTransitions"] == 1


async def test_who_cannot_renew_stops_acting_before_another_may_begin(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    await tries(two)
    leases.away = True
    both = []
    for _ in range(200):
        leases.now += 0.1
        await tries(one)
        if abs(leases.now - 1000 - DURATION) < 0.05:
            leases.away = False  # only the second can reach it from now on
        if not leases.away:
            await tries(two)
        both.append((one.held(), two.held()))
        if two.held():
            break
    assert (True, True) not in both
    assert both[-1] == (False, True)


async def test_after_an_outage_the_holder_goes_on_if_nobody_took_it(leases: Leases) -> None:
    one = leases.lease("one")
    await one.acquire()
    leases.away = True
    leases.now += 600
    assert not await tries(one)
    assert not one.held()
    leases.away = False
    assert await tries(one)
    assert one.held()


async def test_keeping_ends_when_another_has_taken_it(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    await tries(two)
    leases.now += DURATION + 1
    await two.acquire()
    assert await asyncio.wait_for(one.keep(), 5) == "two"
    assert not one.held()


async def test_given_up_it_is_taken_at_once(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    await one.release()
    assert not one.held()
    assert await tries(two)


async def test_one_that_is_not_ours_is_not_given_up(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    writes = leases.writes
    await two.release()
    assert (leases.holder, leases.writes) == ("one", writes)


async def test_a_race_for_it_has_one_winner(leases: Leases) -> None:
    several = [leases.lease(str(i)) for i in range(5)]
    won = await asyncio.gather(*(tries(lease) for lease in several))
    assert sum(won) == sum(lease.held() for lease in several) == 1
