"""What kopf lists before it watches: nothing, where all was listed just before, and else all there is.

kopf hands each object that it lists to a task of its own, which takes longer than all else that is done at a start.
And it tells nobody what was not in the list: an object that went while nobody watched would be known for ever.
Its function is not exported, and it has no setting for this: see the tests of it among the traps of kopf.
"""

import contextlib
from collections.abc import AsyncIterator, Collection, Iterator
from contextvars import ContextVar
from typing import Any, Final, Protocol

from kopf._cogs.clients import fetching


class Lists(Protocol):
    """What to do with kopf's lists. A kind is named by its plural; the namespace None stands for all."""

    async def since(self, plural: str, namespace: str | None) -> str | None:
        """The resourceVersion from which on to watch; None: list."""
        ...

    def listed(self, plural: str, namespace: str | None, version: str, uids: Collection[str]) -> None:
        """At the resourceVersion `version` these were all that there were."""
        ...


_LISTS: ContextVar[Lists | None] = ContextVar("lists", default=None)
_LIST: Final = fetching.fetch_objs


@contextlib.contextmanager
def watching(lists: Lists) -> Iterator[None]:
    """Have what kopf starts within this block ask `lists` before it lists, and tell it what it listed."""
    token = _LISTS.set(lists)
    try:
        yield
    finally:
        _LISTS.reset(token)


async def _fetch(*, resource: Any, namespace: Any, **more: Any) -> AsyncIterator[tuple[Collection[Any], str]]:
    lists = _LISTS.get()
    version = await lists.since(resource.plural, namespace) if lists else None
    if version:
        yield (), version
        return
    uids = set[str]()
    async for chunk, version in _LIST(resource=resource, namespace=namespace, **more):
        uids.update(each["metadata"]["uid"] for each in chunk)
        yield chunk, version
    if lists and version:
        lists.listed(resource.plural, namespace, version, uids)


fetching.fetch_objs = _fetch
