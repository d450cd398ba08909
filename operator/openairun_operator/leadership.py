"""One active operator: wait for the Lease, act while holding it, and give it up when all that was begun is done."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from openairun_operator.kube.lease import Lease

logger = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """Another operator holds the Lease now: this process must end, and may start anew."""


@contextlib.asynccontextmanager
async def leading(lease: Lease | None, stop: asyncio.Event, liveness: str | None) -> AsyncIterator[bool]:
    """Hold the Lease for the block; False if told to stop before it was ours. None: there is no Lease to hold.

    When another takes it, `stop` is set; and when the block has ended then, LeaseLostError is raised.
    """
    if lease is None:
        yield True
        return
    async with alive(liveness):
        if not await _first(lease.acquire(), stop):
            yield False
            return
    keeping = asyncio.create_task(_keep(lease, stop), name="lease")
    try:
        yield True
        if keeping.done():
            raise LeaseLostError(await keeping)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await lease.release()


async def _keep(lease: Lease, stop: asyncio.Event) -> str:
    try:
        other = await lease.keep()
    except Exception:
        logger.exception("Keeping the Lease failed: this operator stops")
        stop.set()  # without it nothing would be done, and nobody would know
        raise
    logger.error("operator %s has taken the Lease: this one stops", other)
    stop.set()
    return f"operator {other} holds the Lease"


async def _first(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Whether `work` is done before `stop` is set."""
    tasks = [asyncio.create_task(work), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return not stop.is_set()


@contextlib.asynccontextmanager
async def alive(liveness: str | None) -> AsyncIterator[None]:
    """Answer the liveness probe while waiting: kopf does it only once it runs."""
    if liveness is None:
        yield
        return
    parts = urlsplit(liveness)
    application = web.Application()
    application.router.add_get(parts.path or "/", _answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, parts.hostname or "localhost", parts.port or 80).start()
        yield
    finally:
        await runner.cleanup()


async def _answer(_: web.Request) -> web.Response:
    return web.json_response({"operator": "waiting"})
