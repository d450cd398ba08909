"""When a deleted resource is let go: at once, but of a crowd only after those that are still to be cancelled.

To remove a finalizer takes the API server as long as the deletion itself. Where hundreds are deleted, each removal
delays the deletion of others, whose runs cost money until then.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

_CROWD: Final = 10
_AT_ONCE: Final = 2.0
"""Seconds within which so many deletions make a crowd."""
_LONGEST: Final = 120.0
"""Seconds for which one is held back, however long the crowd comes."""


class Departures:
    """Who waits to be let go, by namespace: a crowd holds nobody back in another one. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deletions: dict[str, deque[float]] = {}
        self._waiting: dict[str, dict[str, float]] = {}
        """Since when, by namespace and uid, the first one first."""

    def deleted(self, namespace: str) -> None:
        """A resource is deleted."""
        self._deletions.setdefault(namespace, deque(maxlen=_CROWD)).append(self._clock())

    def held(self, uid: str, namespace: str) -> bool:
        """Whether it is to wait: until `due` names it."""
        now = self._clock()
        if self._crowded(namespace, now):
            since = self._waiting.setdefault(namespace, {}).setdefault(uid, now)
            if now < since + _LONGEST:
                return True
        self.gone(uid, namespace)
        return False

    def waits(self, uid: str, namespace: str) -> bool:
        """Whether it is held back."""
        return uid in self._waiting.get(namespace, ())

    def gone(self, uid: str, namespace: str) -> None:
        """It waits no longer."""
        if waiting := self._waiting.get(namespace):
            waiting.pop(uid, None)
            if not waiting:
                del self._waiting[namespace]

    def due(self) -> list[str]:
        """Who may be let go now; and forget crowds that are over."""
        now = self._clock()
        for namespace in [each for each, times in self._deletions.items() if times[-1] + _AT_ONCE < now]:
            del self._deletions[namespace]
        return [
            uid
            for namespace, waiting in self._waiting.items()
            for uid, since in waiting.items()
            if now >= since + _LONGEST or not self._crowded(namespace, now)
        ]

    def _crowded(self, namespace: str, now: float) -> bool:
        times = self._deletions.get(namespace)
        return times is not None and len(times) == _CROWD and now - times[0] < _AT_ONCE
