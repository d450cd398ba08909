"""The Lease: one holder at a time, by clocks that only go forward, and none while it cannot be renewed."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable
from typing import Any, cast

import pytest

from openairun_operator.kube.cluster import Body, Cluster, ClusterError, ConflictError, GoneError, RefusedError
from openairun_operator.kube.lease import DURATION, Lease
from openairun_operator.leadership import leading


class Leases:
    """An API server with one Lease, and the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.there: Body | None = None
        self.version = 0
        self.away = False
        self.writes = 0
        self.before_write: list[Callable[[], None]] = []

    async def read_lease(self, namespace: str, name: str) -> Body:
        self._reach()
        if self.there is None:
            raise GoneError("read", 404, "not found")
        return copy.deepcopy(self.there)

    async def create_lease(self, body: Body) -> Body:
        self._meanwhile()
        if self.there is not None:
            raise ConflictError("create", 409, "there is one")
        return self._put(body)

    async def replace_lease(self, body: Body) -> Body:
        self._meanwhile()
        if self.there is None:
            raise GoneError("renew", 404, "not found")
        if body["metadata"]["resourceVersion"] != self.there["metadata"]["resourceVersion"]:
            raise ConflictError("renew", 409, "changed")
        return self._put(body)

    def _reach(self) -> None:
        if self.away:
            raise ClusterError("reach", None, "away")

    def _meanwhile(self) -> None:
        self._reach()
        if self.before_write:
            self.before_write.pop()()

    def _put(self, body: Body) -> Body:
        if body["spec"]["leaseTransitions"] > 2**31 - 1:
            raise RefusedError("renew", 400, "cannot unmarshal number into Go struct field of type int32")
        self.version += 1
        self.writes += 1
        self.there = copy.deepcopy(body)
        self.there["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.there)

    def lease(self, holder: str) -> Lease:
        return Lease(cast(Cluster, self), "system", "operator", holder, clock=lambda: self.now, period=0.0)

    def delete(self) -> None:
        self.there = None

    def change(self, **spec: Any) -> None:
        """As a person does by hand."""
        assert self.there
        self._put({**self.there, "spec": {**self.there["spec"], **spec}})

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


async def test_an_operator_whose_lease_nobody_keeps_stops(
    leases: Leases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would do nothing from then on, and its probe would say that all is well."""

    async def broken() -> str:
        raise RuntimeError("nobody expected this")

    lease, stop = leases.lease("one"), asyncio.Event()
    monkeypatch.setattr(lease, "keep", broken)
    with contextlib.suppress(RuntimeError):
        async with leading(lease, stop, None):
            await asyncio.wait_for(stop.wait(), 5)
    assert "Keeping the Lease failed: this operator stops" in caplog.text
    assert not lease.held()


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


@pytest.fixture(params=["deleted", "blanked"])
def take_away(request: pytest.FixtureRequest, leases: Leases) -> Callable[[], None]:
    """What a person may do to a Lease that somebody holds."""
    return leases.delete if request.param == "deleted" else lambda: leases.change(holderIdentity="")


async def test_one_that_was_taken_away_by_hand_is_not_anothers_while_its_holder_may_act(
    leases: Leases, take_away: Callable[[], None]
) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    await tries(two)
    leases.now += 3
    assert await tries(one)
    take_away()  # and the holder, which is cut off, does not know
    while not await tries(two):
        assert not two.held()
        leases.now += 1
        assert leases.now < 1000 + 3 + DURATION + 1
    assert not one.held()
    assert (leases.holder, two.held()) == ("two", True)


async def test_one_that_was_taken_away_by_hand_stays_its_holders(leases: Leases, take_away: Callable[[], None]) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    await tries(two)
    take_away()
    assert not await tries(two)
    leases.now += 3
    assert await tries(one)
    for _ in range(20):
        leases.now += 3
        assert await tries(one)
        assert not await tries(two)
    assert (leases.holder, one.held(), two.held()) == ("one", True, False)


async def test_given_up_it_is_taken_at_once_by_one_that_has_waited(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    await tries(two)
    await one.release()
    assert await tries(two)


async def test_where_nobody_was_seen_to_hold_it_it_is_taken_at_once(
    leases: Leases, take_away: Callable[[], None]
) -> None:
    await leases.lease("one").acquire()
    take_away()
    assert await tries(leases.lease("two"))


@pytest.mark.parametrize("meanwhile", ["deleted", "changed"])
async def test_a_holder_whose_renewal_comes_too_late_looks_again_at_once(leases: Leases, meanwhile: str) -> None:
    one = leases.lease("one")
    await one.acquire()
    leases.before_write = [leases.delete if meanwhile == "deleted" else leases.change]
    leases.now += 3
    assert await tries(one)
    assert (leases.holder, one.held()) == ("one", True)


async def test_a_holder_whose_lease_is_not_as_it_was_does_not_act_until_it_has_it_again(leases: Leases) -> None:
    one = leases.lease("one")
    await one.acquire()

    def lose_both() -> None:
        leases.delete()
        leases.away = True

    leases.before_write = [lose_both]
    assert not await tries(one)
    assert not one.held()
    leases.away = False
    assert await tries(one)
    assert one.held()


async def test_a_holder_that_another_overtakes_knows_it_at_once(leases: Leases) -> None:
    one = leases.lease("one")
    await one.acquire()
    leases.before_write = [lambda: leases.change(holderIdentity="two")]
    assert await asyncio.wait_for(one.keep(), 5) == "two"
    assert not one.held()


async def test_a_read_that_fails_does_not_lose_one_that_was_anothers_before(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    await tries(two)
    leases.delete()
    while not await tries(two):
        leases.now += 1
    leases.away = True
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(two.keep(), 0.1)
    assert leases.holder == "two"


async def test_the_count_of_its_holders_has_an_end(leases: Leases) -> None:
    one, two = leases.lease("one"), leases.lease("two")
    await one.acquire()
    leases.change(holderIdentity="", leaseTransitions=2**31 - 1)
    assert await tries(two)
    assert two.held()
