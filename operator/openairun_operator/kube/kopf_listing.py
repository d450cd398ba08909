"""What kopf lists before it watches: nothing, where all was listed just before, and else all there is.

kopf hands each object that it lists to a task of its own, which takes longer than all else that is done at a start.
Its function is not exported, and it has no setting for this: see the test of it among the traps of kopf.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextvars import ContextVar
from typing import Any, Final

from kopf._cogs.clients import fetching

Since = Callable[[str, str | None], Awaitable[str | None]]
"""For a kind's plural and a namespace (None: all) the resourceVersion from which on to watch; None: list."""
_SINCE: ContextVar[Since | None] = ContextVar("since", default=None)
_LIST: Final = fetching.fetch_objs


@contextlib.contextmanager
def watching_from(since: Since) -> Iterator[None]:
    """Have what kopf starts within this block ask `since` before it lists."""
    token = _SINCE.set(since)
    try:
        yield
    finally:
        _SINCE.reset(token)


async def _fetch(*, resource: Any, namespace: Any, **more: Any) -> AsyncIterator[tuple[Collection[Any], str]]:
    since = _SINCE.get()
    version = await since(resource.plural, namespace) if since else None
    if version:
        yield (), version
        return
    async for chunk, listed in _LIST(resource=resource, namespace=namespace, **more):
        yield chunk, listed


fetching.fetch_objs = _fetch
