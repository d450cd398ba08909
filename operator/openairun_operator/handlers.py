"""kopf's side: what it watches is handed over; what runs beside it is started and stopped with it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import kopf

from openairun_operator.api.names import GROUP, PLURAL, PROVIDER_PLURAL, VERSION
from openairun_operator.kube import kopf_settings
from openairun_operator.providers import Providers
from openairun_operator.reconciler import Reconciler

logger = logging.getLogger(__name__)

Background = Callable[[], Awaitable[None]]


def register(
    registry: kopf.OperatorRegistry,
    reconciler: Reconciler,
    background: Mapping[str, Background],
    limit: float,
    stop_flag: asyncio.Event,
) -> None:
    """Register all handlers. `background` runs as long as kopf does, and what is sent has `limit` seconds to be
    answered at the end; the last of `background` ends meanwhile.

    `stop_flag` is the one that kopf runs with.
    """
    tasks: list[asyncio.Task[None]] = []

    @kopf.on.login(registry=registry)
    def log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_via_client(**kwargs)  # as a pod, or as kubectl would; may run a program of the kubeconfig

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        kopf_settings.apply(settings)
        for name, run in background.items():
            tasks.append(asyncio.create_task(_supervise(name, run), name=name))

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        # An error ends kopf without it, and then kopf waits 5 s for its own task that waits for the flag.
        stop_flag.set()
        await _end(*tasks[:-1])
        # Else kopf, as it ends, cancels what is on its way.
        await asyncio.gather(reconciler.settle(limit), _end(*tasks[-1:]))

    # Without PERMANENT, kopf would retry inside the request, which then hangs.
    @kopf.on.probe(registry=registry, id="scheduler", errors=kopf.ErrorsMode.PERMANENT)
    async def probe(**_: Any) -> str:
        if stuck := reconciler.stuck():
            raise kopf.PermanentError(stuck)
        return "ok"

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def saw(event: kopf.RawEvent, **_: Any) -> None:
        reconciler.saw(event["type"], event["object"])


def watch_providers(registry: kopf.OperatorRegistry, providers: Providers, *, namespaces: bool) -> None:
    """Register the handlers of OpenAIProviders, and those of `namespaces` if their labels matter."""

    @kopf.on.event(GROUP, VERSION, PROVIDER_PLURAL, registry=registry)
    async def saw(event: kopf.RawEvent, **_: Any) -> None:
        providers.saw(event["type"], event["object"])

    if namespaces:

        @kopf.on.event("", "v1", "namespaces", registry=registry)
        async def saw_namespace(event: kopf.RawEvent, **_: Any) -> None:
            providers.saw_namespace(event["type"], event["object"])


@contextlib.asynccontextmanager
async def beside(name: str, run: Background) -> AsyncIterator[None]:
    """Have it run as long as the block does."""
    task = asyncio.create_task(_supervise(name, run), name=name)
    try:
        yield
    finally:
        await _end(task)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _supervise(name: str, run: Background) -> None:
    """Keep `run` going: an error that nobody expected is logged, and it starts again."""
    while True:
        try:
            await run()
            return
        except Exception:
            logger.exception("%s failed; starting it again", name)
            if (task := asyncio.current_task()) and task.cancelling():
                return  # it failed as it was ended
            await asyncio.sleep(1)
