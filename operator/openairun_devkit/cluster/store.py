"""Objects in memory, one counter of changes for all, and the changes of late for those who watch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from openairun_devkit.cluster.resources import Body, Resource

Key = tuple[str, str]
"""Group and plural."""


@dataclass(frozen=True, slots=True)
class Change:
    """One write: `old` None is a creation, `new` None a removal. `version` is its resourceVersion."""

    version: int
    key: Key
    old: Body | None
    new: Body | None


class Store:
    """What is stored is never changed in place: every write replaces the object, so it may be handed out as it is.

    `kept` is how many changes a watch can go back; from before that it gets a 410.
    """

    def __init__(self, kept: int = 10_000) -> None:
        self.version = 0
        self._objects: dict[Key, dict[tuple[str, str], Body]] = {}
        self._changes: deque[Change] = deque(maxlen=kept)
        self._waiting: set[asyncio.Event] = set()

    def get(self, resource: Resource, namespace: str, name: str) -> Body | None:
        return self._objects.get(resource.key, {}).get((namespace, name))

    def all(self, resource: Resource, namespace: str = "") -> list[Body]:
        """All of a kind, of one namespace if given, ordered as etcd orders them."""
        objects = self._objects.get(resource.key, {})
        return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def in_namespace(self, namespace: str) -> Iterator[tuple[Key, Body]]:
        """Whatever there is in a namespace."""
        for key, objects in self._objects.items():
            for (where, _), body in list(objects.items()):
                if where == namespace:
                    yield key, body

    def write(self, resource: Resource, body: Body) -> Body:
        """Store the object under a new resourceVersion, and return it."""
        metadata = body["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        objects = self._objects.setdefault(resource.key, {})
        body = body | {"metadata": metadata | {"resourceVersion": str(self.version + 1)}}
        self._changed(resource, objects.get(place), body)
        objects[place] = body
        return body

    def remove(self, resource: Resource, body: Body) -> None:
        """Remove it; those who watch see its last state, under a new resourceVersion."""
        metadata = body["metadata"]
        del self._objects[resource.key][metadata.get("namespace", ""), metadata["name"]]
        self._changed(resource, body, None)

    def _changed(self, resource: Resource, old: Body | None, new: Body | None) -> None:
        self.version += 1
        self._changes.append(Change(self.version, resource.key, old, new))
        for waiting in self._waiting:
            waiting.set()

    # Watching

    @property
    def oldest(self) -> int:
        """The oldest resourceVersion that can still be watched from."""
        full = len(self._changes) == self._changes.maxlen
        return self._changes[0].version if full else 0

    def since(self, version: int, key: Key) -> list[Change]:
        """The changes of a kind after `version`, oldest first."""
        found: list[Change] = []
        for change in reversed(self._changes):
            if change.version <= version:
                break
            if change.key == key:
                found.append(change)
        return found[::-1]

    async def wait(self, version: int, timeout: float) -> None:
        """Wait until there are changes after `version`; at most `timeout` seconds."""
        if self.version > version:
            return
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(timeout):
                await changed.wait()
        except TimeoutError:
            return
        finally:
            self._waiting.discard(changed)
