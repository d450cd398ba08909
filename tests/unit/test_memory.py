"""What a crowd of runs took is free again once they are deleted, and what is free is given back."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from reconciling import ApiServer, Body, World

from openairun_operator import memory
from openairun_operator.lifecycle.run import Run

_RUNS = 150
_EACH = 0.5
"""Blocks of memory a run that may be left: a string that is kept of each is one."""


class Cluster:
    """Many objects, each with an API server of its own."""

    unanswered = float("-inf")

    def __init__(self) -> None:
        self.servers: dict[str, ApiServer] = {}

    def add(self, uid: str) -> Body:
        server = self.servers[uid] = ApiServer()
        assert server.body is not None
        server.body["metadata"] |= {"uid": uid, "name": f"run-{uid}"}
        return server.change(lambda body: None)

    async def of(self, run: Run) -> ApiServer:
        await asyncio.sleep(0)
        return self.servers[run.uid]

    async def hold(self, run: Run, record: str) -> Body:
        return await (await self.of(run)).hold(run, record)

    async def annotate(self, run: Run, record: str) -> Body:
        return await (await self.of(run)).annotate(run, record)

    async def release(self, run: Run) -> Body:
        return await (await self.of(run)).release(run)

    async def write_status(self, run: Run, difference: Body) -> Body:
        return await (await self.of(run)).write_status(run, difference)


class Crowd(World):
    """As many runs as one likes."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        super().__init__(self.cluster)

    async def lives(self, uids: list[str]) -> None:
        """They are created, looked at for two minutes, deleted, cancelled and let go."""
        for uid in uids:
            self.reconciler.saw("ADDED", self.cluster.add(uid))
        for _ in range(4):
            await self._work(uids)
            self.now += timedelta(seconds=30)
        assert len(self.wire.created) == len(uids)
        for uid in uids:
            self.reconciler.saw("MODIFIED", self.cluster.servers[uid].change(_delete))
        for _ in range(3):
            await self._work(uids)
            self.now += timedelta(minutes=3)
        for uid in self.reconciler._departures.all_free():
            await self.reconciler.work(uid)
        for uid in uids:
            server = self.cluster.servers.pop(uid)
            assert server.body is None
            self.reconciler.saw("DELETED", server.sent[-1])
        assert len(self.wire.cancelled) == len(uids)
        self.reconciler.scheduler._start_due()  # its next turn: whatever it had in mind is past
        assert not self.reconciler.scheduler.depth()
        assert not self.reconciler._store._parsed._uids
        self.wire.created.clear()
        self.wire.observed.clear()
        self.wire.cancelled.clear()
        self.events.clear()

    async def _work(self, uids: list[str]) -> None:
        await asyncio.gather(*map(self.reconciler.work, uids))


def _delete(body: dict[str, Any]) -> None:
    body["metadata"]["deletionTimestamp"] = "2026-11-21T12:01:00Z"


async def blocks() -> int:
    await asyncio.sleep(0)
    gc.collect()
    return sys.getallocatedblocks()


@pytest.fixture
def silence() -> Iterator[None]:
    """pytest keeps what is logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def test_each_run_of_a_crowd_is_created_and_cancelled_once_though_it_is_folded_in_the_midst_of_a_step() -> None:
    crowd = Crowd()
    crowd.reconciler._store._parsed._most = 1
    await crowd.lives([f"run-{number}" for number in range(20)])


async def test_what_a_crowd_of_runs_took_is_free_again_once_they_are_deleted(silence: None) -> None:
    """What is loaded or cached at first use stays, so the first crowds may leave something; not each one."""
    crowd, left = Crowd(), []
    for round in range(6):
        before = await blocks()
        await crowd.lives([f"{round}-{number}" for number in range(_RUNS)])
        left.append(await blocks() - before)
        if left[-1] < _EACH * _RUNS:
            break
    assert min(left) < _EACH * _RUNS, left


_BURST = """
import os
from openairun_operator.memory import give_back

def mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

start = mib()
burst = [bytes(2000) for _ in range(30_000)]
left = burst[::100]  # here and there: without it all would go back by itself
full = mib()
del burst
free = mib()
give_back()
print(*(round(each - start, 1) for each in (full, free, mib())))
"""


@pytest.mark.skipif(memory._TRIM is None, reason="only glibc can be told to")
def test_what_is_free_is_given_back_to_the_kernel() -> None:
    said = subprocess.run([sys.executable, "-c", _BURST], check=True, capture_output=True, text=True).stdout
    full, free, given_back = map(float, said.split())
    assert full > 50
    assert free > 40, "else there is nothing to be shown"
    assert given_back < 10
