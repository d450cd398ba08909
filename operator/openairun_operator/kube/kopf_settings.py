"""How kopf is used here: it watches, logs in and serves the probe. It keeps no state on objects of ours."""

from collections.abc import Iterator
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory  # what spawn_tasks takes, and not exported

from openairun_operator.kube.cluster import PAGE


class _Endless:
    """Pauses between retries, without end: a server that is away is no reason to give up. Iterable anew each time."""

    def __iter__(self) -> Iterator[float]:
        yield from (1, 1, 2, 3)
        while True:
            yield 5


class _NoDiffBase(kopf.DiffBaseStorage):
    """Nobody asks kopf what changed. Its own would copy every object that the watch brings, several times."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("no handler is one of changes")


class _NoProgress(kopf.ProgressStorage):
    """No handler has any that kopf would keep."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("no handler is one of changes")

    def purge(self, **_: Any) -> None:
        return

    def touch(self, **_: Any) -> None:
        return

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class Forgetful(ResourceMemories):
    """Keeps nothing of any object: no handler asks for it, and kopf's own is a KiB of each that there is."""

    async def recall(self, raw_body: kopf.RawBody, **more: Any) -> ResourceMemory:
        """A memory that is forgotten with the event."""
        return await super().recall(raw_body, **more | {"ephemeral": True})


def apply(settings: kopf.OperatorSettings) -> None:
    """Set what differs from kopf's defaults."""
    settings.peering.standalone = True  # else any peering object called `default` can pause the operator
    settings.scanning.disabled = True  # needs no right to list CRDs and namespaces
    settings.posting.enabled = False  # events are our own
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Endless()
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = PAGE
    settings.persistence.finalizer = "kopf.openairun.dev/finalizer"
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.diffbase_storage = _NoDiffBase()
    # A worker of kopf's stays so long after an object's last event: each is a task, a queue, and all of that event.
    settings.queueing.idle_timeout = 0.1
