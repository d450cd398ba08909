"""How kopf is used here: it watches, logs in and serves the probe. It keeps no state on objects of ours."""

from collections.abc import Iterator

import kopf


class _Endless:
    """Pauses between retries, without end: a server that is away is no reason to give up. Iterable anew each time."""

    def __iter__(self) -> Iterator[float]:
        yield from (1, 1, 2, 3)
        while True:
            yield 5


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
    settings.persistence.finalizer = "kopf.openairun.dev/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="kopf.openairun.dev")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="kopf.openairun.dev")
